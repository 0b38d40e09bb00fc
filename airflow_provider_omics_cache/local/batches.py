"""The batch operations."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from typing import Any

from airflow_provider_omics_cache.healthomics.states import BatchStatus
from airflow_provider_omics_cache.local.batch import Batch
from airflow_provider_omics_cache.local.errors import ServiceError, not_found, validation_error
from airflow_provider_omics_cache.local.ids import new_uuid, number_of
from airflow_provider_omics_cache.local.paging import page, start_of_page
from airflow_provider_omics_cache.local.region import Region, Surroundings
from airflow_provider_omics_cache.local.submission import RegionSubmitter, check_documents
from airflow_provider_omics_cache.local.tags import check_tags

_CANCELLABLE = frozenset({BatchStatus.PENDING, BatchStatus.SUBMITTING, BatchStatus.INPROGRESS})
_RUNS_DELETABLE = frozenset({BatchStatus.PROCESSED, BatchStatus.CANCELLED})
_DELETABLE = frozenset(
    {
        BatchStatus.PROCESSED,
        BatchStatus.FAILED,
        BatchStatus.CANCELLED,
        BatchStatus.RUNS_DELETE_FAILED,
        BatchStatus.RUNS_DELETED,
    }
)
_BEFORE_SUBMITTING = frozenset({BatchStatus.CREATING, BatchStatus.PENDING})


def start_run_batch(region: Region, around: Surroundings, request: dict[str, Any]) -> dict[str, Any]:
    """StartRunBatch."""
    now, settings = around.now, around.settings
    replayed = region.tokens.find("StartRunBatch", request, now=now, settings=settings)
    if replayed is not None:
        batch = region.batches.get(int(replayed["id"]))
        if settings.replayed_status == "current" and batch is not None:
            batch.advance(now, RegionSubmitter(region, around))
            replayed["status"] = batch.status(now)
        return replayed
    check_tags(request.get("tags", {}))
    default = check_documents(request["defaultRunSetting"])
    check_tags(default.get("runTags", {}))
    if "cacheBehavior" in default and "cacheId" not in default:
        raise validation_error("defaultRunSetting.cacheBehavior requires defaultRunSetting.cacheId")
    source = request["batchRunSettings"]
    for setting in source.get("inlineSettings", []):
        check_documents(setting)
    etag = None
    if "s3UriSettings" in source:
        try:
            etag = around.object_store.etag(region.account_id, source["s3UriSettings"])
        except LookupError:
            raise validation_error("The s3UriSettings object cannot be accessed") from None
    number = next(around.ids)
    batch = Batch(number=number, uuid=new_uuid(), request=request, etag=etag, created_at=now, settings=settings)
    region.add_batch(batch)
    answer = {
        "id": str(number),
        "arn": _arn(region, batch),
        "uuid": batch.uuid,
        "status": BatchStatus.CREATING,
        "tags": dict(batch.tags),
    }
    region.tokens.remember("StartRunBatch", request, answer, now=now, settings=settings)
    return answer


def get_batch(region: Region, around: Surroundings, request: dict[str, Any]) -> dict[str, Any]:
    """GetBatch."""
    batch, now = _find(region, around, request)
    status = batch.status(now)
    counted_at = now - around.faults.age_of_counts()
    total_runs = batch.total_runs()
    answer: dict[str, Any] = {
        "id": str(batch.number),
        "arn": _arn(region, batch),
        "uuid": batch.uuid,
        "status": status,
        "tags": dict(batch.tags),
        "defaultRunSetting": batch.default,
        "creationTime": around.clock.at(batch.created_at),
    }
    if batch.name is not None:
        answer["name"] = batch.name
    if total_runs is not None:
        answer["totalRuns"] = total_runs
        answer["submissionSummary"] = batch.submission_summary(counted_at)
        if status not in _BEFORE_SUBMITTING:
            answer["runSummary"] = batch.run_summary(counted_at)
    times = {"submittedTime": batch.submitted_at, "failedTime": batch.failed_at}
    if status not in (BatchStatus.SUBMITTING, BatchStatus.INPROGRESS):
        times["processedTime"] = batch.processed_at
    answer.update({name: around.clock.at(time) for name, time in times.items() if time is not None})
    if batch.failure_reason is not None:
        answer["failureReason"] = batch.failure_reason
    return answer


def list_batch(region: Region, around: Surroundings, request: dict[str, Any]) -> dict[str, Any]:
    """ListBatch."""
    _check_one_filter(request, ("status", "name", "runGroupId"))
    after, now = start_of_page("ListBatch", request), around.now
    submitter = RegionSubmitter(region, around)

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, batch in region.batches.items():
            if number <= after or not _is_visible(around, batch, now):
                continue
            if request.get("name", batch.name) != batch.name:
                continue
            if "runGroupId" in request and request["runGroupId"] != batch.default.get("runGroupId"):
                continue
            batch.advance(now, submitter)
            status = batch.status(now)
            if request.get("status", status) != status:
                continue
            item = {
                "id": str(number),
                "name": batch.name,
                "status": status,
                "createdAt": around.clock.at(batch.created_at),
                "totalRuns": batch.total_runs(),
                "workflowId": batch.default["workflowId"],
            }
            yield number, {name: value for name, value in item.items() if value is not None}

    return page("ListBatch", request, rows(), size="maxItems", key="items")


def list_runs_in_batch(region: Region, around: Surroundings, request: dict[str, Any]) -> dict[str, Any]:
    """ListRunsInBatch."""
    _check_one_filter(request, ("submissionStatus", "runSettingId", "runId"))
    batch, _ = _find(region, around, request)
    after = start_of_page("ListRunsInBatch", request)
    places = _places(batch, after, request)
    missing = around.faults.missing_rows()
    if missing:
        positions = [position for position, _ in _places(batch, 0, request)]
        last = positions[-missing - 1] if len(positions) > missing else 0
        places = (place for place in places if place[0] <= last)
    rows = ((position, _row(region, batch, index)) for position, index in places)
    return page("ListRunsInBatch", request, rows, size="maxItems", key="runs")


def cancel_run_batch(region: Region, around: Surroundings, request: dict[str, Any]) -> dict[str, Any]:
    """CancelRunBatch."""
    batch, now = _find(region, around, request)
    _check_state(around, batch, now, _CANCELLABLE, "cancelled")
    batch.cancel(now, around.faults.cancel_fails)
    return {}


def delete_run_batch(region: Region, around: Surroundings, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteRunBatch."""
    batch, now = _find(region, around, request)
    _check_state(around, batch, now, _RUNS_DELETABLE, "deleted with its runs")
    region.free_runs(batch.delete_runs(now, around.faults.delete_fails))
    return {}


def delete_batch(region: Region, around: Surroundings, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteBatch."""
    batch, now = _find(region, around, request)
    _check_state(around, batch, now, _DELETABLE, "deleted")
    del region.batches[batch.number]
    return {}


def _places(batch: Batch, after: int, request: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """Position in ListRunsInBatch, counted from 1, and number of each run that is to be listed."""
    if batch.runs is None:
        return
    total = len(batch.runs)
    only = _only_index(batch, request)
    status = request.get("submissionStatus")
    step = _step(total) if batch.settings.listing_order == "shuffled" else 1
    for position in range(after, total):
        index = position * step % total
        if only is not None and index != only:
            continue
        outcome = batch.outcome(index)
        if outcome is None and (status is not None or not batch.settings.list_unsubmitted_runs):
            continue
        if status is not None and outcome != status:
            continue
        yield position + 1, index


def _row(region: Region, batch: Batch, index: int) -> dict[str, Any]:
    assert batch.runs is not None
    row: dict[str, Any] = {"runSettingId": batch.runs.ids[index]}
    outcome = batch.outcome(index)
    if outcome is not None:
        row["submissionStatus"] = outcome
    if batch.was_started(index):
        run_id = str(batch.run_numbers[index])
        row["runId"] = run_id
        row["runInternalUuid"] = batch.run_uuid(index)
        row["runArn"] = region.arn(f"run/{run_id}")
    if index in batch.submission_failures:
        reason, message = batch.submission_failures[index]
        row["submissionFailureReason"] = reason
        row["submissionFailureMessage"] = message
    return row


def _only_index(batch: Batch, request: dict[str, Any]) -> int | None:
    """Number of the one run that the filters can match; -1 for none, None for any."""
    assert batch.runs is not None
    index: int | None
    if "runSettingId" in request:
        index = batch.runs.index_of(request["runSettingId"])
    elif "runId" in request:
        index = batch.run_indexes.get(number_of(request["runId"]))
    else:
        return None
    return -1 if index is None else index


def _step(total: int) -> int:
    """A step that visits every one of ``total`` places once, out of order."""
    step = max(1, total * 5 // 8)
    while gcd(step, total) != 1:
        step += 1
    return step


def _find(region: Region, around: Surroundings, request: dict[str, Any]) -> tuple[Batch, float]:
    now = around.now
    batch = region.batches.get(number_of(request["batchId"]))
    if batch is None or not _is_visible(around, batch, now):
        raise not_found("Batch", request["batchId"])
    batch.advance(now, RegionSubmitter(region, around))
    return batch, now


def _is_visible(around: Surroundings, batch: Batch, now: float) -> bool:
    return now >= batch.created_at + around.settings.batch_visible_after


def _check_state(around: Surroundings, batch: Batch, now: float, allowed: frozenset[BatchStatus], change: str) -> None:
    status = batch.status(now)
    if status not in allowed:
        raise ServiceError(
            around.settings.wrong_state_error, f"Batch {batch.number} is {status} and cannot be {change}"
        )


def _check_one_filter(request: dict[str, Any], filters: tuple[str, ...]) -> None:
    given = [name for name in filters if name in request]
    if len(given) > 1:
        raise validation_error(f"Only one filter is supported per call; there were {', '.join(given)}")


def _arn(region: Region, batch: Batch) -> str:
    return region.arn(f"runBatch/{batch.number}")
