"""A user's DAG with types. mypy --strict must accept it."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor
from airflow_provider_omics_cache.xcoms import BatchXCom, FailedRun


def size_of(batch: BatchXCom) -> int | None:
    return batch["total_runs"]


def reasons_of(failed: list[FailedRun]) -> set[str | None]:
    return {run["failure_reason"] for run in failed}


@dag(schedule=None)
def cohort() -> None:
    run_cache = CreateRunCacheOperator(task_id="run_cache", name="cohort", cache_s3_location="s3://cohort/cache/")
    batch = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={"workflowId": "1234567", "cacheId": run_cache.output},
        run_settings=[{"runSettingId": "HG001", "parameters": {"sample": "HG001"}}],
        max_failed_runs="5%",
        max_silence=timedelta(hours=1),
    )
    BatchSubmissionSensor(task_id="submitted", batch_id=batch.output, poke_interval=30)


cohort()
