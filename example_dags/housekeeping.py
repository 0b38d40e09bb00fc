"""Delete old batches and their runs once a day, after saving which run was which sample's. Outputs in S3 stay.

Only batches of StartRunBatchOperator are touched. It runs as it is against the local HealthOmics (``make demo-ui``). On
AWS it needs the connection ``aws_default`` and two Airflow variables: ``omics_s3_uri`` and ``omics_keep_days``.
"""

from __future__ import annotations

# [START housekeeping]
from datetime import UTC, datetime, timedelta

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task

from airflow_provider_omics_cache.batch_start import OWN_TAGS
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators.run_batch import DeleteRunBatchOperator

S3_URI = "{{ var.value.get('omics_s3_uri', 's3://omics-quickstart') }}"
KEEP_DAYS = "{{ var.value.get('omics_keep_days', '90') }}"
MAX_BATCHES = 500
OVER = {"PROCESSED", "CANCELLED", "FAILED", "RUNS_DELETED", "RUNS_DELETE_FAILED"}


@dag(schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, max_active_runs=1)
def omics_housekeeping():
    @task
    def find_old_batches(keep_days: str, s3_uri: str) -> list[dict[str, str]]:
        hook = OmicsCacheHook()
        latest = datetime.now(UTC) - timedelta(days=float(keep_days))
        old = [batch for batch in hook.list_batch() if batch["status"] in OVER and batch["createdAt"] < latest]
        ids = [batch["id"] for batch in sorted(old, key=lambda batch: batch["createdAt"])]
        ours = [batch_id for batch_id in ids if hook.get_batch(batch_id=batch_id).get("tags", {}).keys() >= OWN_TAGS]
        return [
            {"batch_id": batch_id, "save_mapping_s3_uri": f"{s3_uri}/deleted_batches/{batch_id}.jsonl"}
            for batch_id in ours[:MAX_BATCHES]
        ]

    DeleteRunBatchOperator.partial(task_id="delete_batch", delete_batch=True, max_active_tis_per_dag=2).expand_kwargs(
        find_old_batches(KEEP_DAYS, S3_URI)
    )


omics_housekeeping()
# [END housekeeping]
