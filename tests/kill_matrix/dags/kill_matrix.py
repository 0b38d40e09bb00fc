"""One DAG for each phase in which a task is when a process is killed."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_omics_cache.operators.run_batch import (
    CancelRunBatchOperator,
    DeleteRunBatchOperator,
    StartRunBatchOperator,
)
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor

PLACE = "s3://kill-matrix/{{ dag.dag_id }}/{{ run_id }}"
BATCH_ID = "{{ dag_run.conf['batch_id'] }}"
TASK = "killed"


def start_arguments(runs: int) -> dict:
    return {
        "task_id": TASK,
        "batch_name": "{{ dag.dag_id }}-{{ run_id }}",
        "default_run_setting": {
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": f"{PLACE}/outputs/",
            "sessionPolicy": "{{ var.value.session_policy }}",
        },
        "run_settings": [{"runSettingId": f"sample-{number}"} for number in range(runs)],
        "settings_s3_prefix": f"{PLACE}/settings/",
        "runs_s3_uri": f"{PLACE}/runs.jsonl",
        "wait_for_completion": True,
        "waiter_delay": 2,
    }


def phase(operator: type, **arguments: object) -> None:
    @dag(
        dag_id=str(arguments.pop("dag_id")),
        schedule=None,
        default_args={"retries": 25, "retry_delay": 1},
        max_active_runs=100,
    )
    def one_task() -> None:
        operator(**{"task_id": TASK, **arguments})

    one_task()


phase(
    CreateRunCacheOperator,
    dag_id="creating_cache",
    name="{{ run_id }}",
    cache_s3_location=f"{PLACE}/cache/",
)
phase(StartRunBatchOperator, dag_id="starting", **start_arguments(3))
phase(StartRunBatchOperator, dag_id="staging", **start_arguments(150))
phase(StartRunBatchOperator, dag_id="deferred", deferrable=True, **start_arguments(3))
phase(BatchSubmissionSensor, dag_id="rescheduled", batch_id=BATCH_ID, mode="reschedule", poke_interval=10)
phase(
    BatchSubmissionSensor,
    dag_id="listing",
    batch_id=BATCH_ID,
    poke_interval=2,
    mapping_s3_uri=f"{PLACE}/mapping.jsonl",
)
phase(CancelRunBatchOperator, dag_id="cancelling", batch_id=BATCH_ID, waiter_delay=2)
phase(
    DeleteRunBatchOperator,
    dag_id="deleting",
    batch_id=BATCH_ID,
    delete_batch=True,
    save_mapping_s3_uri=f"{PLACE}/mapping.jsonl",
    waiter_delay=2,
)
