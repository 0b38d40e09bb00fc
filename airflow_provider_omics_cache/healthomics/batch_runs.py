"""List the runs of a batch, and get them one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_omics_cache.healthomics.completion import is_same_run
from airflow_provider_omics_cache.healthomics.states import (
    ACTIVE_RUN_STATUSES,
    RunStatus,
    SubmissionStatus,
    shown,
)
from airflow_provider_omics_cache.healthomics.submission import Submissions
from airflow_provider_omics_cache.hooks.client import LARGEST_PAGE, LONGEST_SILENCE

if TYPE_CHECKING:
    from airflow_provider_omics_cache.hooks.client import Answer
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook


class BatchRun(NamedTuple):
    """A run that a batch has started.

    :param run_setting_id: runSettingId of the run, None if it is not listed.
    :param run_id: id of the run.
    :param uuid: uuid of the run, None if it is not listed.
    :param status: status of the run.
    :param is_confirmed: whether GetRun's batch id and uuid are those of the batch's listing.
    """

    run_setting_id: str | None
    run_id: str
    uuid: str | None
    status: str
    is_confirmed: bool

    def __str__(self) -> str:
        doubt = "" if self.is_confirmed else ", not confirmed as a run of the batch"
        return f"run {self.run_id} of {self.run_setting_id}: {self.status}{doubt}"


class BatchRuns(NamedTuple):
    """The runs of a batch that still exist.

    :param statuses: status of each run, by run id.
    :param rows: the entries of ListRunsInBatch, by run id.
    :param listing: what ListRunsInBatch shows of all runs of the batch.
    """

    statuses: dict[str, str]
    rows: dict[str, Answer]
    listing: Submissions


def list_submissions(hook: OmicsCacheHook, batch_id: str, *, max_silence: float = LONGEST_SILENCE) -> Iterator[Answer]:
    """List the submissions of a batch (ListRunsInBatch).

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
    """
    return hook.list_runs_in_batch(batch_id=batch_id, max_items=LARGEST_PAGE, max_silence=max_silence)


def list_started_runs(
    hook: OmicsCacheHook, batch_id: str, *, status: str | None = None, max_silence: float = LONGEST_SILENCE
) -> Iterator[Answer]:
    """List the runs that a batch has started and that were not deleted (ListRuns).

    The entries have neither runSettingId nor uuid; :func:`list_submissions` has both.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param status: only runs in this status. Default: all.
    :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
    """
    return hook.list_runs(batch_id=batch_id, status=status, max_results=LARGEST_PAGE, max_silence=max_silence)


def list_active_runs(
    hook: OmicsCacheHook, batch_id: str, *, most: int, max_silence: float = LONGEST_SILENCE
) -> list[str]:
    """Return the ids of the runs of a batch that have not ended. ListRuns is called for each active status.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param most: maximum number of ids to return.
    :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
    """

    def list_once() -> list[str]:
        active: list[str] = []
        for status in ACTIVE_RUN_STATUSES:
            for run in list_started_runs(hook, batch_id, status=status, max_silence=max_silence):
                active.append(run["id"])
                if len(active) >= most:
                    return active
        return active

    return hook.list_whole(list_once)


def list_existing_runs(
    hook: OmicsCacheHook, batch_id: str, *, gone: set[str], max_silence: float = LONGEST_SILENCE
) -> BatchRuns:
    """List the runs of a batch that still exist.

    ListRuns may lag behind. GetRun is called for each run that ListRunsInBatch shows as not deleted and that ListRuns
    does not show.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param gone: ids of runs that are known to be gone; runs that GetRun does not find are added.
    :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
    """
    listed = list_statuses(hook, batch_id, max_silence=max_silence)

    def list_rows() -> tuple[dict[str, Answer], Submissions]:
        rows, listing = {}, Submissions(batch_is_over=True)
        for row in list_submissions(hook, batch_id, max_silence=max_silence):
            listing.add(row)
            if row.get("runId"):
                rows[row["runId"]] = row
        return rows, listing

    rows, listing = hook.list_whole(list_rows)
    lacking = [
        run_id
        for run_id, row in rows.items()
        if run_id not in listed
        and row.get("submissionStatus") != SubmissionStatus.DELETE_SUCCESS
        and run_id not in gone
    ]
    if lacking:
        hook.log.info("Batch %s: ListRuns does not show %s runs; getting each of them", batch_id, f"{len(lacking):,}")
    for run in get_confirmed_runs(hook, batch_id, rows, lacking, gone=gone, max_silence=max_silence):
        listed[run.run_id] = run.status
    statuses = {run_id: status for run_id, status in listed.items() if status != RunStatus.DELETED}
    return BatchRuns(statuses, rows, listing)


def list_statuses(hook: OmicsCacheHook, batch_id: str, *, max_silence: float = LONGEST_SILENCE) -> dict[str, str]:
    """Return the status of each run that ListRuns shows for a batch, by run id.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
    """

    def list_once() -> dict[str, str]:
        runs = list_started_runs(hook, batch_id, max_silence=max_silence)
        return {run["id"]: shown(run.get("status")) for run in runs}

    return hook.list_whole(list_once)


def get_confirmed_runs(
    hook: OmicsCacheHook,
    batch_id: str,
    rows: Mapping[str, Answer],
    run_ids: Iterable[str],
    *,
    gone: set[str],
    max_silence: float = LONGEST_SILENCE,
) -> Iterator[BatchRun]:
    """Get runs of a batch one by one; runs that no longer exist are left out.

    HealthOmics reuses the ids of deleted runs. Batch id and uuid show whether a run is the one that the batch started.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param rows: entries of ListRunsInBatch, by run id.
    :param run_ids: ids of the runs.
    :param gone: ids of runs that are known to be gone; runs that no longer exist are added.
    :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
    """
    for run_id, run in hook.get_runs(run_ids, max_silence=max_silence):
        row = rows.get(run_id, {})
        if run is None or not is_same_run(row, run, batch_id=batch_id):
            hook.log.info("Batch %s: run %s no longer exists", batch_id, run_id)
            gone.add(run_id)
            continue
        uuid = row.get("runInternalUuid")
        yield BatchRun(
            run_setting_id=row.get("runSettingId"),
            run_id=run_id,
            uuid=uuid,
            status=shown(run.get("status")),
            is_confirmed=run.get("batchId") == batch_id and uuid is not None and run.get("uuid") == uuid,
        )


def confirm_again(
    hook: OmicsCacheHook, batch_id: str, run: BatchRun, *, gone: set[str], max_silence: float = LONGEST_SILENCE
) -> BatchRun | None:
    """Get a run again, because its id may belong to another run by now. Return None if it no longer exists.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param run: the run, as it was confirmed before.
    :param gone: ids of runs that are known to be gone; the run is added if it no longer exists.
    :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
    """
    row = {"runSettingId": run.run_setting_id, "runInternalUuid": run.uuid}
    found = get_confirmed_runs(hook, batch_id, {run.run_id: row}, [run.run_id], gone=gone, max_silence=max_silence)
    return next(found, None)
