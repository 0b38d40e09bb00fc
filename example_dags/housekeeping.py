"""Delete old batches and their runs once a day, after saving the mapping from samples to runs. Outputs in S3 stay.

The DAG deletes only batches that have the tag ``managed-by`` of this Airflow. It runs unchanged against the local
HealthOmics (``make demo-ui``). On AWS it needs the connection ``aws_default`` and three Airflow variables:
``omics_s3_uri``, ``omics_keep_days`` and ``omics_managed_by``, the value of the tag.
"""

from __future__ import annotations

# [START housekeeping]
import time
from datetime import UTC, datetime, timedelta
from itertools import islice

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task

from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators.run_batch import DeleteRunBatchOperator

S3_URI = "{{ var.value.get('omics_s3_uri', 's3://omics-quickstart') }}"
KEEP_DAYS = "{{ var.value.get('omics_keep_days', '90') }}"
MANAGED_BY = "{{ var.value.get('omics_managed_by', 'airflow') }}"
MAX_BATCHES = 500
GET_BATCH_DELAY = 0.25
MAX_SILENCE = 600
OVER = {"PROCESSED", "CANCELLED", "FAILED", "RUNS_DELETED", "RUNS_DELETE_FAILED"}


@dag(schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, max_active_runs=1)
def omics_housekeeping():
    @task(retries=2)
    def find_old_batches(keep_days: str, managed_by: str, s3_uri: str) -> list[dict[str, str]]:
        hook = OmicsCacheHook()
        latest = datetime.now(UTC) - timedelta(days=float(keep_days))

        def is_ours(batch_id: str) -> bool:
            time.sleep(GET_BATCH_DELAY)
            try:
                tags = hook.get_batch(batch_id=batch_id, max_silence=MAX_SILENCE).get("tags") or {}
            except OmicsApiError as error:
                if error.is_not_found:  # the batch was deleted since it was listed
                    return False
                raise
            return tags.get("managed-by") == managed_by

        batches = hook.list_batch(max_items=100, max_silence=MAX_SILENCE)
        over = [batch for batch in batches if batch.get("status") in OVER and batch.get("createdAt")]
        over.sort(key=lambda batch: batch["createdAt"])
        old = (batch["id"] for batch in over if batch["createdAt"] < latest)
        return [
            {"batch_id": batch_id, "save_mapping_s3_uri": f"{s3_uri}/deleted_batches/{batch_id}.jsonl"}
            for batch_id in islice(filter(is_ours, old), MAX_BATCHES)
        ]

    DeleteRunBatchOperator.partial(
        task_id="delete_batch", delete_batch=True, retries=2, max_active_tis_per_dag=2
    ).expand_kwargs(find_old_batches(KEEP_DAYS, MANAGED_BY, S3_URI))


omics_housekeeping()
# [END housekeeping]
