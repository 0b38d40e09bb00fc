"""At the end of a project, mark its run cache as retired, and delete the cache when no run uses it any more.

The data of the cache stays in S3 and cannot be linked to a cache again. Delete the data, or let a lifecycle rule do it.

The DAG runs unchanged against the local HealthOmics (`make demo-ui`). On AWS it needs the connection `aws_default`.
"""

from __future__ import annotations

# [START retire_run_cache]
from datetime import timedelta

try:
    from airflow.sdk import Param, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.models.param import Param
try:
    from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
except ImportError:  # Airflow before 3.2
    from airflow.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators.run_cache import DeleteRunCacheOperator, UpdateRunCacheOperator


@dag(
    schedule=None,
    description="Mark a run cache as retired, and delete it when no run uses it",
    doc_md=__doc__,
    tags=["omics", "example"],
    params={
        "run_cache_name": Param("quickstart", type="string", description="Name of the run cache"),
        "cache_s3_location": Param("s3://", type="string", description="Beginning of its S3 location"),
    },
)
def omics_retire_run_cache():
    @task
    def find_run_cache(name: str, location: str) -> str:
        found = [
            run_cache["id"]
            for run_cache in OmicsCacheHook().list_run_caches(max_silence=600)
            if run_cache.get("name") == name
            and run_cache.get("status") == "ACTIVE"
            and run_cache.get("cacheS3Uri", "").startswith(location)
        ]
        if not found:
            raise AirflowSkipException(f"There is no run cache {name!r} in {location}")
        if len(found) > 1:
            raise AirflowFailException(f"Several run caches have the name {name!r}: {found}. Set cache_s3_location")
        return found[0]

    run_cache_id = find_run_cache("{{ params.run_cache_name }}", "{{ params.cache_s3_location }}")
    mark = UpdateRunCacheOperator(
        task_id="mark_as_retired",
        run_cache_id=run_cache_id,
        description="Retired: use it in no new run",
        tags={"retired": "true"},
    )
    # As long as a run uses the cache, the service refuses to delete it: retry for a day.
    delete = DeleteRunCacheOperator(
        task_id="delete_run_cache", run_cache_id=run_cache_id, retries=24, retry_delay=timedelta(hours=1)
    )
    mark >> delete


omics_retire_run_cache()
# [END retire_run_cache]
