"""A user's DAG with a wrong type in each of the last two statements. mypy must report both."""

from __future__ import annotations

from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor

BatchSubmissionSensor(task_id="submitted", batch_id="1", max_silence="an hour")
CreateRunCacheOperator(task_id="run_cache", name=7, cache_s3_location="s3://cohort/cache/")
