"""Delete old batches and their runs once a day, after saving the mapping from samples to runs. Outputs in S3 stay.

The DAG deletes only batches whose tag `managed-by` has the value of the param. It runs unchanged against the local
HealthOmics (`make demo-ui`). On AWS it needs the connection `aws_default` and your own defaults of the params, because
it runs once a day by itself.
"""

from __future__ import annotations

# [START housekeeping]
import time
from datetime import UTC, datetime, timedelta
from itertools import islice

try:
    from airflow.sdk import Param, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.models.param import Param

from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators.run_batch import DeleteRunBatchOperator

MAX_BATCHES = 500
GET_BATCH_DELAY = 0.25
MAX_SILENCE = 600
OVER = {"PROCESSED", "CANCELLED", "FAILED", "RUNS_DELETED", "RUNS_DELETE_FAILED"}


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    description="Delete old batches and their runs",
    doc_md=__doc__,
    tags=["omics", "example"],
    params={
        "keep_days": Param(90, type="number", description="Days after which a batch is deleted"),
        "managed_by": Param("airflow", type="string", description="Value of the tag managed-by of the batches"),
        "s3_uri": Param("s3://omics-quickstart", type="string", description="Where the mappings are saved"),
    },
)
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
    ).expand_kwargs(find_old_batches("{{ params.keep_days }}", "{{ params.managed_by }}", "{{ params.s3_uri }}"))


omics_housekeeping()
# [END housekeeping]
