"""Run a workflow over a few samples on AWS HealthOmics, with a run cache, and print the id of each run.

The DAG runs unchanged against the local HealthOmics (``make demo``). On AWS it needs the connection ``aws_default``
and three Airflow variables: ``omics_workflow_id``, ``omics_role_arn`` and ``omics_s3_uri``.
"""

from __future__ import annotations

# [START quickstart]
try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor

SAMPLES = ["HG001", "HG002", "HG003", "HG004", "HG005"]
S3_URI = "{{ var.value.get('omics_s3_uri', 's3://omics-quickstart') }}"


@dag(schedule=None)
def omics_quickstart():
    run_cache = CreateRunCacheOperator(
        task_id="ensure_run_cache", name="quickstart", cache_s3_location=f"{S3_URI}/cache/"
    )
    batch = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "{{ var.value.get('omics_workflow_id', '1234567') }}",
            "roleArn": "{{ var.value.get('omics_role_arn', 'arn:aws:iam::123456789012:role/omics') }}",
            "outputUri": f"{S3_URI}/runs/",
            "cacheId": run_cache.output,
        },
        run_settings=[{"runSettingId": sample, "parameters": {"sample": sample}} for sample in SAMPLES],
    )
    submission = BatchSubmissionSensor(
        task_id="wait_for_submission", batch_id=batch.output, poke_interval=10, timeout=3600
    )

    @task
    def print_runs(runs: dict[str, str]) -> None:
        print(f"{'runSettingId':14} runId")
        for run_setting_id, run_id in sorted(runs.items()):
            print(f"{run_setting_id:14} {run_id}")

    print_runs(submission.output)


omics_quickstart()
# [END quickstart]
