"""Cancel a batch, delete its runs, and delete the batch. Each function can be called again.

The decisions follow `GetBatch <https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html>`__ and the `guide on
batch runs <https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html>`__.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import (
    BatchConflictError,
    OmicsApiError,
    OmicsError,
    OmicsTimeLimitError,
)
from airflow_provider_omics_cache.healthomics.batch_runs import (
    BatchRun,
    BatchRuns,
    confirm_again,
    get_confirmed_runs,
    list_existing_runs,
    list_started_runs,
    list_statuses,
    list_submissions,
)
from airflow_provider_omics_cache.healthomics.failures import MAX_LEFT_RUNS
from airflow_provider_omics_cache.healthomics.progress import Progress
from airflow_provider_omics_cache.healthomics.rounds import NOT_FOUND_ROUNDS, Batch
from airflow_provider_omics_cache.healthomics.states import (
    ACTIVE_RUN_STATUSES,
    BATCH_STATUSES,
    ENDED_RUN_STATUSES,
    RunStatus,
    ToCancel,
    ToDelete,
    Verdict,
    meaning_of,
    shown,
)
from airflow_provider_omics_cache.hooks.arguments import check_id
from airflow_provider_omics_cache.hooks.client import LONGEST_SILENCE
from airflow_provider_omics_cache.hooks.errors import if_found
from airflow_provider_omics_cache.redaction import printable

if TYPE_CHECKING:
    from airflow_provider_omics_cache.hooks.client import Answer
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook

#: Seconds between two GetBatch calls for a batch whose status is about to change.
LOOK_AGAIN_SECONDS = 5
#: Maximum seconds that cancelling takes when a task is killed. Airflow may stop the task earlier: Airflow 3 kills a
#: process of a worker 5 seconds after SIGTERM.
KILL_SECONDS = 20.0

#: Error codes with which the service may refuse a call because of a status. AWS does not document which one it uses.
REFUSALS = frozenset({"ConflictException", "ValidationException"})
#: Statuses of runs that need no cancellation: they have ended, or are STOPPING.
_ENDING = ENDED_RUN_STATUSES | {RunStatus.STOPPING}


def decide_cancellation(batch: Batch) -> Verdict:
    """Decide what GetBatch's answer means for a wait on a cancellation."""
    return batch.meaning.cancellation


def decide_deletion(batch: Batch) -> Verdict:
    """Decide what GetBatch's answer means for a wait on the deletion of the runs."""
    return batch.meaning.deletion


def progress(batch: Batch) -> Progress:
    """Describe the status of the batch."""
    return Progress(f"Batch {batch.id} is {batch.shown_status}")


def was_cancelled(batch: Mapping[str, Any]) -> bool:
    """Whether the service cancelled runs of the batch, or tried to. Counts that are not reported count as 0.

    :param batch: GetBatch's answer.
    """
    summary = batch.get("submissionSummary") or {}
    return any(summary.get(f"{outcome}CancelSubmissionCount") for outcome in ("successful", "failed"))


def is_batch_visible(hook: OmicsCacheHook, batch_id: str, *, max_silence: float) -> bool:
    """Look for a batch for up to 5 minutes, because the service may not show it yet. Return whether it was found.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param max_silence: seconds for which an unanswered call is repeated.
    :raises OmicsApiError: the batch was not found, but not every call was answered. It may exist.
    """
    get = partial(hook.get_batch, batch_id=check_id("batch_id", batch_id))
    return is_visible(hook, get, f"Batch {batch_id}", max_silence=max_silence, batch_id=batch_id)


def is_visible(
    hook: OmicsCacheHook, get: Callable[..., Answer], title: str, *, max_silence: float, **details: str
) -> bool:
    """Look for a batch or run for up to 5 minutes, because the service may not show it yet. Return whether it is found.

    :param hook: the hook.
    :param get: function that gets it; it takes ``max_silence``.
    :param title: the batch or run, as messages name it.
    :param max_silence: seconds for which an unanswered call is repeated.
    :param details: attribute of an error that names it.
    :raises OmicsApiError: it was not found, but not every call was answered. It may exist.
    """
    failure: OmicsApiError | None = None

    def look() -> Answer | None:
        nonlocal failure
        try:
            return get()
        except OmicsApiError as error:
            if error.is_not_found:
                failure = error if _was_repeated(error) else failure
                return None
            if not error.is_passing:
                raise
            failure = error
        return if_found(partial(get, max_silence=max_silence))

    seen = hook.until_seen(look)
    if seen is None and failure is not None:
        text = f"{title} was not found, but not every call was answered. It may exist. Retry the task. {failure}"
        raise failure.with_text(text, **details) from failure.__cause__
    return seen is not None


def _was_repeated(error: OmicsApiError) -> bool:
    """Whether the SDK has repeated the call, because earlier attempts were not answered."""
    response = getattr(error.__cause__, "response", {})
    return bool(response.get("ResponseMetadata", {}).get("RetryAttempts"))


def get_batch_patiently(hook: OmicsCacheHook, batch_id: str, *, max_silence: float) -> Answer:
    """Get a batch. If it is not found, try again twice, because it may be too new.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param max_silence: seconds for which an unanswered call is repeated.
    :raises OmicsApiError: the call failed, or the batch was not found.
    """
    get = partial(hook.get_batch, batch_id=batch_id, max_silence=max_silence)
    for _ in range(NOT_FOUND_ROUNDS - 1):
        batch = if_found(get)
        if batch is not None:
            return batch
        hook.rest(LOOK_AGAIN_SECONDS)
    return get()


def cancel_batch_once(
    hook: OmicsCacheHook, batch_id: str, *, max_seconds: float, max_silence: float | None = None
) -> Answer:
    """Cancel a batch, unless it is being cancelled or has ended.

    The service refuses to cancel a batch that is CREATING: the function waits until it can be cancelled. The runs of a
    FAILED batch are cancelled one by one.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param max_seconds: seconds to wait for a batch that cannot be cancelled yet.
    :param max_silence: seconds for which an unanswered call is repeated. Default: ``max_seconds``.
    :return: the last answer of GetBatch, from before the cancellation.
    :raises OmicsApiError: a call failed, the batch is not found, or the service refused to cancel it.
    :raises OmicsError: runs of a FAILED batch could not be cancelled.
    """
    batch_id = check_id("batch_id", batch_id)
    patience = max_seconds if max_silence is None else max_silence
    cancel_runs = partial(cancel_active_runs, hook, batch_id, gone=set(), max_silence=patience)
    return _cancel(hook, batch_id, max_seconds=max_seconds, max_silence=patience, cancel_runs=cancel_runs)


def cancel_batch_of_killed_task(hook: OmicsCacheHook, batch_id: str) -> None:
    """Cancel a batch within :data:`KILL_SECONDS`. Errors are logged and not raised.

    :param hook: the hook.
    :param batch_id: id of the batch.
    """
    cancel_runs = partial(_cancel_runs_in_time, hook, batch_id)
    # The last GetBatch call leaves time to cancel the batch.
    max_seconds = KILL_SECONDS - LOOK_AGAIN_SECONDS
    try:
        with hook.limit(KILL_SECONDS):
            batch = _cancel(hook, batch_id, max_seconds=max_seconds, max_silence=KILL_SECONDS, cancel_runs=cancel_runs)
    except Exception as error:
        hook.log.error("Batch %s was not cancelled", batch_id, exc_info=printable(error))
    else:
        status = batch.get("status")
        if meaning_of(status).to_cancel == ToCancel.LATER:
            hook.log.error("Batch %s is still %s and was not cancelled: it continues to run", batch_id, status)


def cancel_active_runs(
    hook: OmicsCacheHook, batch_id: str, *, gone: set[str], max_silence: float = LONGEST_SILENCE
) -> BatchRuns:
    """Cancel the active runs of a batch one by one. Runs that are already STOPPING are not cancelled again.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param gone: ids of runs that are known to be gone; runs that are found to be gone are added.
    :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
    :return: the existing runs, as they were before the cancellation.
    :raises OmicsError: active runs could not be cancelled.
    """
    existing = list_existing_runs(hook, batch_id, gone=gone, max_silence=max_silence)
    active = [run_id for run_id, status in existing.statuses.items() if status not in _ENDING]
    runs = get_confirmed_runs(hook, batch_id, existing.rows, active, gone=gone, max_silence=max_silence)
    _cancel_each(hook, batch_id, runs, max_silence=max_silence)
    return existing


def get_deletable_batch(hook: OmicsCacheHook, batch_id: str, *, max_silence: float = LONGEST_SILENCE) -> Answer:
    """Get a batch, and check that its runs may be deleted.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
    :raises BatchConflictError: the batch is active, or its status is not known.
    :raises OmicsApiError: the call failed.
    """
    batch = get_batch_patiently(hook, check_id("batch_id", batch_id), max_silence=max_silence)
    status = batch.get("status")
    to_delete = meaning_of(status).to_delete
    reason = {
        ToDelete.ACTIVE: f"it is still {status}. Cancel it first (CancelRunBatchOperator).",
        ToDelete.UNKNOWN: f"it is {shown(status)}, and this version of the package does not know that status.",
    }.get(to_delete)
    if reason:
        raise BatchConflictError(
            f"Cannot delete the runs of batch {batch_id}: {reason}", batch_id=batch_id, status=status
        )
    return batch


def delete_runs_once(
    hook: OmicsCacheHook,
    batch_id: str,
    batch: Answer,
    *,
    gone: set[str],
    max_seconds: float,
    max_silence: float = LONGEST_SILENCE,
) -> Answer:
    """Delete the runs of a batch, unless they are being deleted or were deleted before.

    The service refuses to delete the runs of a FAILED batch, and the runs that an incomplete deletion left. The
    function deletes these runs one by one.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param batch: what :func:`get_deletable_batch` returned.
    :param gone: ids of runs that are known to be gone; runs that are found to be gone are added.
    :param max_seconds: seconds to wait for a batch whose runs the service refuses to delete.
    :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
    :return: the last answer of GetBatch, from before the deletion.
    :raises BatchConflictError: the batch is active, or its status is not known.
    :raises OmicsApiError: a call failed, or the service refused.
    :raises OmicsError: runs could not be deleted.
    """
    give_up = timing.monotonic() + max_seconds
    delete = partial(hook.delete_run_batch, batch_id=batch_id)
    while True:
        status = batch.get("status")
        to_delete = meaning_of(status).to_delete
        if to_delete == ToDelete.DELETE_EACH_RUN:
            delete_existing_runs(hook, batch_id, gone=gone, max_silence=max_silence)
            return batch
        if to_delete == ToDelete.ALREADY:
            hook.log.info("Batch %s is %s: its runs are being deleted, or were deleted before", batch_id, status)
            return batch
        refusal = _unless_refused(hook, delete, max_silence=max_silence)
        if refusal is None:
            hook.log.info("Deleting the runs of batch %s, which was %s", batch_id, status)
            return batch
        _look_again(hook, give_up, refusal, f"Batch {batch_id} is {status}, and its runs were not deleted", batch_id)
        batch = get_deletable_batch(hook, batch_id, max_silence=max_silence)


def delete_existing_runs(
    hook: OmicsCacheHook, batch_id: str, *, gone: set[str], max_silence: float = LONGEST_SILENCE
) -> BatchRuns:
    """Delete the existing runs of a batch one by one, and wait until the service does not list them.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param gone: ids of runs that are known to be gone; deleted runs are added.
    :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
    :return: the runs that existed before the deletion.
    :raises OmicsError: runs could not be deleted.
    """
    existing = list_existing_runs(hook, batch_id, gone=gone, max_silence=max_silence)
    deleted: set[str] = set()
    left: list[str] = []
    confirmed = get_confirmed_runs(hook, batch_id, existing.rows, existing.statuses, gone=gone, max_silence=max_silence)
    for run in confirmed:
        if not run.is_confirmed:
            left.append(str(run))
            continue
        if run.status not in ENDED_RUN_STATUSES:
            left.append(f"{run}, cancel it first")
            continue
        reason = _end_run(
            hook, batch_id, run, hook.delete_run, ended={RunStatus.DELETED}, gone=gone, max_silence=max_silence
        )
        if reason is None:
            deleted.add(run.run_id)
            gone.add(run.run_id)
        else:
            left.append(reason)
    if deleted:
        hook.log.info("Batch %s: deleted %s runs one by one", batch_id, f"{len(deleted):,}")
        listed = hook.until_seen(
            lambda: _still_listed(hook, batch_id, deleted, max_silence=max_silence), lambda seen: not seen
        )
        left += [f"run {run_id}: deleted, but still listed" for run_id in sorted(listed)]
    if left:
        raise OmicsError(f"Batch {batch_id}: {_count_and_name(left, 'were not deleted')}", batch_id=batch_id)
    return existing


def delete_batch_once(
    hook: OmicsCacheHook, batch_id: str, *, max_seconds: float, max_silence: float = LONGEST_SILENCE
) -> None:
    """Delete the metadata of a batch, unless it is already deleted. The runs of the batch are not deleted.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param max_seconds: seconds to wait for a batch that the service refuses to delete.
    :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
    :raises OmicsApiError: a call failed, or the service refused.
    """
    give_up = timing.monotonic() + max_seconds
    delete = partial(if_found, partial(hook.delete_batch, batch_id=batch_id))
    while True:
        refusal = _unless_refused(hook, delete, max_silence=max_silence)
        if refusal is None:
            hook.log.info("Deleted batch %s", batch_id)
            return
        batch = if_found(partial(get_batch_patiently, hook, batch_id, max_silence=max_silence))
        if batch is None:
            hook.log.info("Batch %s is already deleted", batch_id)
            return
        text = f"Batch {batch_id} is {shown(batch.get('status'))} and was not deleted"
        _look_again(hook, give_up, refusal, text, batch_id)


def _cancel(
    hook: OmicsCacheHook,
    batch_id: str,
    *,
    max_seconds: float,
    max_silence: float,
    cancel_runs: Callable[[], object],
) -> Answer:
    give_up = timing.monotonic() + max_seconds
    cancel = partial(hook.cancel_run_batch, batch_id=batch_id)
    logged = None
    refusal: OmicsApiError | None = None
    while True:
        batch = get_batch_patiently(hook, batch_id, max_silence=max_silence)
        status = batch.get("status")
        to_cancel = meaning_of(status).to_cancel
        if to_cancel == ToCancel.CANCEL_BATCH:
            # A batch in an unknown status is not cancelled again after a refusal, but it may get a known status.
            if refusal is None or status in BATCH_STATUSES:
                refusal = _unless_refused(hook, cancel, max_silence=max_silence)
            if refusal is None:
                hook.log.info("Cancelled batch %s, which was %s", batch_id, shown(status))
                return batch
        elif to_cancel == ToCancel.CANCEL_RUNS:
            cancel_runs()
            return batch
        elif to_cancel != ToCancel.LATER:
            hook.log.info("Batch %s is %s: %s", batch_id, status, _ALREADY[to_cancel])
            return batch
        is_over_time = timing.monotonic() + LOOK_AGAIN_SECONDS > give_up
        if refusal is None and is_over_time:
            return batch
        if refusal is not None and is_over_time:
            text = f"Batch {batch_id} is {shown(status)} and was not cancelled: {refusal}"
            raise refusal.with_text(text, batch_id=batch_id) from refusal.__cause__
        if logged != status:
            logged = status
            hook.log.info("Batch %s is %s and cannot be cancelled yet; trying again", batch_id, status)
        hook.rest(LOOK_AGAIN_SECONDS)


_ALREADY = {
    ToCancel.ALREADY: "it is being cancelled, or was cancelled before",
    ToCancel.FINISHED: "there is nothing to cancel",
}


def _cancel_runs_in_time(hook: OmicsCacheHook, batch_id: str) -> None:
    """Cancel active runs until the hook's time limit is over.

    The runs in each active status come first, because few calls find them. The complete listings come next: they show
    runs that ListRuns does not show yet, and runs whose status this version does not know.
    """
    list_runs = partial(list_started_runs, hook, batch_id, max_silence=KILL_SECONDS)

    def find_ids() -> Iterator[str]:
        for status in ACTIVE_RUN_STATUSES:
            if status not in _ENDING:
                for run in list_runs(status=status):
                    yield run["id"]
        statuses = {run["id"]: run.get("status") for run in list_runs()}
        for row in list_submissions(hook, batch_id, max_silence=KILL_SECONDS):
            if row.get("runId") and statuses.get(row["runId"]) not in _ENDING:
                yield row["runId"]

    def find_runs() -> Iterator[BatchRun]:
        seen: set[str] = set()
        for run_id in find_ids():
            if run_id not in seen:
                seen.add(run_id)
                listed = hook.list_runs_in_batch(batch_id=batch_id, run_id=run_id, max_silence=KILL_SECONDS)
                rows = {run_id: next(listed, {})}
                yield from get_confirmed_runs(hook, batch_id, rows, [run_id], gone=set(), max_silence=KILL_SECONDS)

    _cancel_each(hook, batch_id, find_runs(), max_silence=KILL_SECONDS)


def _cancel_each(hook: OmicsCacheHook, batch_id: str, runs: Iterable[BatchRun], *, max_silence: float) -> None:
    cancelled = 0
    left: list[str] = []
    late: OmicsTimeLimitError | None = None
    try:
        for run in runs:
            if run.status in _ENDING:
                continue
            if not run.is_confirmed:
                left.append(str(run))
                continue
            reason = _end_run(hook, batch_id, run, hook.cancel_run, ended=_ENDING, gone=set(), max_silence=max_silence)
            if reason is None:
                cancelled += 1
            else:
                left.append(reason)
    except OmicsTimeLimitError as error:
        late = error
    if cancelled:
        hook.log.info("Batch %s: cancelled %s runs one by one", batch_id, f"{cancelled:,}")
    if left:
        raise OmicsError(f"Batch {batch_id}: {_count_and_name(left, 'could not be cancelled')}", batch_id=batch_id)
    if late:
        raise OmicsTimeLimitError(f"Batch {batch_id}: not every active run was cancelled. {late}", batch_id=batch_id)


def _end_run(
    hook: OmicsCacheHook,
    batch_id: str,
    run: BatchRun,
    call: Callable[..., object],
    *,
    ended: Collection[str],
    gone: set[str],
    max_silence: float,
) -> str | None:
    """Cancel or delete a run that was confirmed just now, and confirm it again before each further attempt.

    HealthOmics reuses the ids of deleted runs. If the answer of an attempt is lost, the id may belong to a run of
    another batch at the next attempt.

    :param ended: statuses of a run that needs no attempt.
    :return: why the run was not cancelled or deleted; None if it was, or if it had already ended or no longer exists.
    """
    confirmed: BatchRun | None = run

    def attempt() -> str | None:
        nonlocal confirmed
        current = confirmed or confirm_again(hook, batch_id, run, gone=gone, max_silence=max_silence)
        confirmed = None
        if current is None or current.status in ended:
            return None
        if not current.is_confirmed:
            return str(current)
        if_found(partial(call, run_id=run.run_id))
        return None

    try:
        return hook.patiently(attempt, max_silence=max_silence)
    except OmicsApiError as error:
        if error.code not in REFUSALS:
            raise
        current = confirm_again(hook, batch_id, run, gone=gone, max_silence=max_silence)
        return None if current is None or current.status in ended else f"{current}, {error}"


def _still_listed(hook: OmicsCacheHook, batch_id: str, run_ids: set[str], *, max_silence: float) -> set[str]:
    statuses = list_statuses(hook, batch_id, max_silence=max_silence)
    return {run_id for run_id in run_ids if statuses.get(run_id, RunStatus.DELETED) != RunStatus.DELETED}


def _unless_refused(hook: OmicsCacheHook, call: Callable[[], object], *, max_silence: float) -> OmicsApiError | None:
    """Make a call. Return the error if the service refuses the call because of a status, else None."""
    try:
        hook.patiently(call, max_silence=max_silence)
    except OmicsApiError as error:
        if error.code not in REFUSALS:
            raise
        return error
    return None


def _look_again(hook: OmicsCacheHook, give_up: float, refusal: OmicsApiError, text: str, batch_id: str) -> None:
    """Wait before the next GetBatch call. Raise the refusal if no time is left for the call."""
    if timing.monotonic() + LOOK_AGAIN_SECONDS > give_up:
        raise refusal.with_text(f"{text}: {refusal}", batch_id=batch_id) from refusal.__cause__
    hook.rest(LOOK_AGAIN_SECONDS)


def _count_and_name(runs: list[str], outcome: str) -> str:
    more = "; ..." if len(runs) > MAX_LEFT_RUNS else ""
    return f"{len(runs):,} runs {outcome}: {'; '.join(runs[:MAX_LEFT_RUNS])}{more}"
