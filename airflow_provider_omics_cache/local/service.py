"""The operations of the service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_omics_cache.local import batches, caches, runs, tags
from airflow_provider_omics_cache.local.region import Region, Surroundings

Operation = Callable[[Region, Surroundings, dict[str, Any]], dict[str, Any]]

OPERATIONS: dict[str, Operation] = {
    "CreateRunCache": caches.create_run_cache,
    "GetRunCache": caches.get_run_cache,
    "ListRunCaches": caches.list_run_caches,
    "UpdateRunCache": caches.update_run_cache,
    "DeleteRunCache": caches.delete_run_cache,
    "StartRunBatch": batches.start_run_batch,
    "GetBatch": batches.get_batch,
    "ListBatch": batches.list_batch,
    "ListRunsInBatch": batches.list_runs_in_batch,
    "CancelRunBatch": batches.cancel_run_batch,
    "DeleteRunBatch": batches.delete_run_batch,
    "DeleteBatch": batches.delete_batch,
    "GetRun": runs.get_run,
    "ListRuns": runs.list_runs,
    "CancelRun": runs.cancel_run,
    "DeleteRun": runs.delete_run,
    "TagResource": tags.tag_resource,
    "UntagResource": tags.untag_resource,
    "ListTagsForResource": tags.list_tags_for_resource,
}
