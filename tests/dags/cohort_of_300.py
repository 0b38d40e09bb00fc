"""One cohort, waited for in each mode of a sensor; read by tests/testing/test_dag_runs.py."""

from __future__ import annotations

from datetime import timedelta

try:
    from airflow.sdk import DAG, get_current_context, task
except ImportError:  # Airflow 2
    from airflow.decorators import task
    from airflow.models.dag import DAG
    from airflow.operators.python import get_current_context

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor

BUCKET = "cohort-of-300"
TIMEOUT = 600

with DAG("cohort_of_300", schedule=None, params={"runs": 300}):

    @task(retries=1, retry_delay=timedelta(hours=1))
    def make_settings() -> list[dict[str, str]]:
        context = get_current_context()
        if context["ti"].try_number == 1:
            raise RuntimeError("the first try fails")
        return [{"runSettingId": f"sample-{number:03}"} for number in range(context["params"]["runs"])]

    start = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": f"s3://{BUCKET}/runs/",
        },
        run_settings=make_settings(),
        settings_s3_prefix=f"s3://{BUCKET}/settings/",
    )
    rescheduled = BatchSubmissionSensor(
        task_id="rescheduled", batch_id=start.output, timeout=TIMEOUT, poke_interval=10, mode="reschedule"
    )
    deferred = BatchCompletionSensor(
        task_id="deferred", batch_id=start.output, timeout=TIMEOUT, poke_interval=10, deferrable=True, max_failed_runs=1
    )
    poked = BatchCompletionSensor(
        task_id="poked",
        batch_id=start.output,
        timeout=TIMEOUT,
        poke_interval=60,
        deferrable=False,
        max_failed_runs=1,
        runs_s3_uri=f"s3://{BUCKET}/runs.jsonl",
        include_outputs=True,
    )

    @task
    def count(number: int) -> int:
        return number * 2

    rescheduled >> [deferred, poked]
    poked >> count.expand(number=[1, 2])
