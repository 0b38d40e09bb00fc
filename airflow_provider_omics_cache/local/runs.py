"""The run operations."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from typing import Any

from airflow_provider_omics_cache.healthomics.states import RunStatus
from airflow_provider_omics_cache.local.batch import FINISHED_RUN_STATES, Batch
from airflow_provider_omics_cache.local.batches import RegionSubmitter
from airflow_provider_omics_cache.local.protocol import (
    ServiceError,
    derived_uuid,
    not_found,
    number_of,
    page,
    start_of_page,
)
from airflow_provider_omics_cache.local.region import Region, ServiceContext

# A position in ListRuns is the batch's id times this number, plus the run's number in the batch.
_RUNS_PER_BATCH = 1_000_000
#: GiB of static storage that a run has if it does not say how much.
_DEFAULT_STORAGE_CAPACITY = 1200
_FROM_DEFAULT_SETTING = (
    "workflowId",
    "workflowType",
    "workflowOwnerId",
    "workflowVersionName",
    "roleArn",
    "cacheId",
    "cacheBehavior",
    "runGroupId",
    "storageCapacity",
    "storageType",
    "logLevel",
    "retentionMode",
    "networkingMode",
    "scratchStorageMode",
    "sessionPolicy",
)
_FROM_MERGED_SETTING = ("name", "outputUri", "priority", "engineSettings")


def get_run(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """GetRun."""
    batch, index, now = find_run(region, context, request["id"])
    return describe_run(region, context, batch, index, batch.run_status(index, now))


def describe_run(
    region: Region, context: ServiceContext, batch: Batch, index: int, status: RunStatus
) -> dict[str, Any]:
    """Return the answer of GetRun for a run in this state."""
    assert batch.runs is not None
    run_id, uuid = str(batch.run_numbers[index]), batch.run_uuid(index)
    run, default = batch.runs[index], batch.default
    merged = {**default, **run}
    output_uri = merged["outputUri"]
    answer = {
        "arn": region.arn(f"run/{run_id}"),
        "id": run_id,
        "uuid": uuid,
        "batchId": str(batch.number),
        "runOutputUri": f"{output_uri.rstrip('/')}/{run_id}/{uuid}",
        "startedBy": region.arn("user/local").replace(":omics:", ":iam:").replace(f":{region.name}:", "::"),
        "tags": dict(batch.tags_of_run(index)),
        "logLocation": _log_location(region, run_id),
        **_effective(region, context, default),
        **{name: default[name] for name in _FROM_DEFAULT_SETTING if name in default},
        **{name: merged[name] for name in _FROM_MERGED_SETTING if name in merged},
        **_progress(context, batch, index, status),
    }
    if "parameters" in merged:
        answer["parameters"] = {**default.get("parameters", {}), **run.get("parameters", {})}
    if status == RunStatus.FAILED:
        answer["failureReason"], answer["statusMessage"] = batch.run_failures[index]
    return answer


def _effective(region: Region, context: ServiceContext, default: dict[str, Any]) -> dict[str, Any]:
    """Return what applies to a run whose settings do not say it."""
    storage_type = default.get("storageType", context.settings.default_storage_type)
    answer: dict[str, Any] = {"workflowType": "PRIVATE", "retentionMode": "RETAIN", "storageType": storage_type}
    if storage_type == "STATIC":
        answer["storageCapacity"] = _DEFAULT_STORAGE_CAPACITY
    cache = region.run_caches.get(number_of(default.get("cacheId", "")))
    if cache is not None:
        answer["cacheBehavior"] = cache.behavior
    if "configurationName" in default:
        arn = region.arn(f"configuration/{default['configurationName']}")
        answer["configuration"] = {"name": default["configurationName"], "arn": arn, "uuid": derived_uuid(arn)}
    return answer


def list_runs(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """ListRuns."""
    after = start_of_page("ListRuns", request)
    rows = _rows(region, context, after, request)
    return page("ListRuns", request, rows, size="maxResults", key="items")


def cancel_run(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """CancelRun."""
    batch, index, now = find_run(region, context, request["id"])
    status = batch.run_status(index, now)
    if status in FINISHED_RUN_STATES:
        raise _wrong_state(context, request["id"], status, "cancelled")
    batch.cancel_run(index, now)
    return {}


def delete_run(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteRun."""
    batch, index, now = find_run(region, context, request["id"])
    status = batch.run_status(index, now)
    if status not in FINISHED_RUN_STATES:
        raise _wrong_state(context, request["id"], status, "deleted")
    batch.delete_run(index)
    region.free_runs([int(request["id"])])
    region.forget_if_empty(batch)
    return {}


def find_run(region: Region, context: ServiceContext, run_id: str) -> tuple[Batch, int, float]:
    """Return the batch of a run, the number of the run in it, and the time.

    :raises ServiceError: there is no such run.
    """
    now, number, submitter = context.now, number_of(run_id), RegionSubmitter(region, context)
    for batch in region.every_batch():
        index = batch.run_indexes.get(number)
        if index is not None and batch.run_status(index, now) != RunStatus.DELETED:
            batch.advance(now, submitter)
            return batch, index, now
    # A batch that was not yet advanced to the present time may have started the run.
    for batch in region.every_batch():
        batch.advance(now, submitter)
        index = batch.run_indexes.get(number)
        if index is not None and batch.run_status(index, now) != RunStatus.DELETED:
            return batch, index, now
    raise not_found("Run", run_id)


def _rows(
    region: Region, context: ServiceContext, after: int, request: dict[str, Any]
) -> Iterator[tuple[int, dict[str, Any]]]:
    now, submitter = context.now, RegionSubmitter(region, context)
    for batch in region.every_batch():
        first = batch.number * _RUNS_PER_BATCH
        if after >= first + _RUNS_PER_BATCH or request.get("batchId", str(batch.number)) != str(batch.number):
            continue
        if request.get("runGroupId", batch.default.get("runGroupId")) != batch.default.get("runGroupId"):
            continue
        batch.advance(now, submitter)
        if not batch.has_runs:
            continue
        runs = batch.runs_to_list(request.get("status"), now)
        for index in islice(runs, bisect_left(runs, max(0, after - first)), None):
            status = batch.run_status(index, now)
            if status == RunStatus.DELETED or request.get("status", status) != status:
                continue
            merged = batch.merged_setting(index)
            if request.get("name", merged.get("name")) == merged.get("name"):
                yield first + index + 1, _item(region, context, batch, index, status, merged)


def _item(
    region: Region, context: ServiceContext, batch: Batch, index: int, status: RunStatus, merged: dict[str, Any]
) -> dict[str, Any]:
    run_id = str(batch.run_numbers[index])
    names = ("name", "priority", "workflowId", "workflowVersionName", "storageCapacity", "storageType")
    return {
        "arn": region.arn(f"run/{run_id}"),
        "id": run_id,
        "batchId": str(batch.number),
        **{name: merged[name] for name in names if name in merged},
        **_progress(context, batch, index, status),
    }


def _progress(context: ServiceContext, batch: Batch, index: int, status: RunStatus) -> dict[str, Any]:
    progress: dict[str, Any] = {
        "status": status,
        "creationTime": context.clock.at(batch.submission_time(index)),
    }
    end_time = batch.end_time(index)
    if batch.start_time(index) <= min(context.now, end_time):
        progress["startTime"] = context.clock.at(batch.start_time(index))
    if status in FINISHED_RUN_STATES:
        progress["stopTime"] = context.clock.at(end_time)
    return progress


def _log_location(region: Region, run_id: str) -> dict[str, str]:
    group = region.arn("log-group:/aws/omics/WorkflowLog").replace(":omics:", ":logs:")
    return {
        "engineLogStream": f"{group}:log-stream:run/{run_id}/engine",
        "runLogStream": f"{group}:log-stream:run/{run_id}",
    }


def _wrong_state(context: ServiceContext, run_id: str, status: str, change: str) -> ServiceError:
    return ServiceError(context.settings.wrong_state_error, f"Run {run_id} is {status} and cannot be {change}")
