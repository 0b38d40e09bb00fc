"""Cancel and delete a single run. Each function can be called again.

HealthOmics reuses the ids of deleted runs. A run is cancelled or deleted only after GetRun has confirmed its uuid.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsError, RunConflictError
from airflow_provider_omics_cache.healthomics.awaited_run import Run
from airflow_provider_omics_cache.healthomics.end import KILL_SECONDS, LOOK_AGAIN_SECONDS, REFUSALS
from airflow_provider_omics_cache.healthomics.rounds import NOT_FOUND_ROUNDS
from airflow_provider_omics_cache.healthomics.states import RunStatus, ToCancel
from airflow_provider_omics_cache.hooks.arguments import check_id
from airflow_provider_omics_cache.hooks.client import LONGEST_SILENCE
from airflow_provider_omics_cache.hooks.errors import if_found
from airflow_provider_omics_cache.redaction import printable

if TYPE_CHECKING:
    from airflow_provider_omics_cache.hooks.client import Answer
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook


def get_run_patiently(hook: OmicsCacheHook, run_id: str, *, max_silence: float) -> Answer:
    """Get a run. If it is not found, try again twice, because it may be too new.

    :param hook: the hook.
    :param run_id: id of the run.
    :param max_silence: seconds for which an unanswered call is repeated.
    :raises OmicsApiError: the call failed, or the run was not found.
    """
    get = partial(hook.get_run, run_id=run_id, max_silence=max_silence)
    for _ in range(NOT_FOUND_ROUNDS - 1):
        run = if_found(get)
        if run is not None:
            return run
        hook.rest(LOOK_AGAIN_SECONDS)
    return get()


def cancel_run_once(
    hook: OmicsCacheHook, run_id: str, *, uuid: str | None, max_seconds: float, max_silence: float | None = None
) -> Run:
    """Cancel a run, unless it is stopping or has ended.

    :param hook: the hook.
    :param run_id: id of the run.
    :param uuid: uuid of the run. None: that of the first answer.
    :param max_seconds: seconds to try again if the service refuses.
    :param max_silence: seconds for which an unanswered call is repeated. Default: ``max_seconds``.
    :return: the run, as it was before the cancellation.
    :raises OmicsApiError: a call failed, the run is not found, or the service refused to cancel it.
    """
    run_id = check_id("run_id", run_id)
    patience = max_seconds if max_silence is None else max_silence

    def is_ended(run: Run) -> bool:
        return run.meaning.to_cancel in {ToCancel.ALREADY, ToCancel.FINISHED}

    run = _confirmed(hook, run_id, get_run_patiently(hook, run_id, max_silence=patience), uuid, max_silence=patience)
    if is_ended(run):
        hook.log.info("Run %s is %s: there is nothing to cancel", run_id, run.shown_status)
        return run
    _end(hook, run, hook.cancel_run, is_ended, max_seconds=max_seconds, max_silence=patience)
    hook.log.info("Cancelled run %s, which was %s", run_id, run.shown_status)
    return run


def cancel_run_of_killed_task(hook: OmicsCacheHook, run_id: str, *, uuid: str | None) -> None:
    """Cancel a run within the seconds that a killed task has. Errors are logged and not raised.

    :param hook: the hook.
    :param run_id: id of the run.
    :param uuid: uuid of the run. None: that of the first answer.
    """
    try:
        with hook.limit(KILL_SECONDS):
            cancel_run_once(hook, run_id, uuid=uuid, max_seconds=KILL_SECONDS - LOOK_AGAIN_SECONDS)
    except Exception as error:
        hook.log.error("Run %s was not cancelled", run_id, exc_info=printable(error))


def delete_run_once(
    hook: OmicsCacheHook,
    run_id: str,
    *,
    uuid: str | None,
    max_seconds: float,
    max_silence: float = LONGEST_SILENCE,
) -> Run | None:
    """Delete the metadata of a run that has ended, and wait until the service does not show it.

    :param hook: the hook.
    :param run_id: id of the run.
    :param uuid: uuid of the run. None: that of the first answer.
    :param max_seconds: seconds to try again if the service refuses.
    :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
    :return: the run, as it was before the deletion; None if it does not exist.
    :raises RunConflictError: the run is active.
    :raises OmicsApiError: a call failed, or the service refused.
    """
    run_id = check_id("run_id", run_id)
    answer = if_found(partial(get_run_patiently, hook, run_id, max_silence=max_silence))
    run = None if answer is None else _confirmed(hook, run_id, answer, uuid, max_silence=max_silence)
    if run is None or _is_deleted(run):
        hook.log.info("Run %s does not exist, or is deleted: there is nothing to delete", run_id)
        return None
    if run.meaning.end is None:
        raise RunConflictError(
            f"Run {run_id} is {run.shown_status} and cannot be deleted. Cancel it first (CancelRunOperator), or wait "
            "until it has ended.",
            run_id=run_id,
            status=run.status,
        )
    _end(hook, run, hook.delete_run, _is_deleted, max_seconds=max_seconds, max_silence=max_silence)
    look = partial(_current, hook, run, max_silence=max_silence)
    left = hook.until_seen(look, lambda seen: seen is None or _is_deleted(seen))
    if left is not None and not _is_deleted(left):
        raise RunConflictError(
            f"Run {run_id} was deleted, but GetRun still shows it as {left.shown_status}. Clear the task to delete it "
            "again.",
            run_id=run_id,
            status=left.status,
        )
    hook.log.info("Deleted run %s, which was %s", run_id, run.shown_status)
    return run


def _is_deleted(run: Run) -> bool:
    return run.status == RunStatus.DELETED


def _current(hook: OmicsCacheHook, run: Run, *, max_silence: float) -> Run | None:
    answer = if_found(partial(hook.get_run, run_id=run.id, max_silence=max_silence))
    return None if answer is None else _confirmed(hook, run.id, answer, run.uuid, max_silence=max_silence)


def _confirmed(hook: OmicsCacheHook, run_id: str, answer: Answer, uuid: str | None, *, max_silence: float) -> Run:
    """Make a run from GetRun's answer. If the answer does not show the uuid, get the run again.

    :raises OmicsError: no answer shows the uuid. In this case nothing is cancelled or deleted.
    """
    if answer.get("uuid") is None:
        get = partial(if_found, partial(hook.get_run, run_id=run_id, max_silence=max_silence))
        seen = hook.until_seen(get, lambda run: run is None or run.get("uuid") is not None)
        if seen is None:
            return Run(id=run_id, uuid=uuid, status=RunStatus.DELETED)
        if seen.get("uuid") is None:
            raise OmicsError(f"GetRun does not show the uuid of run {run_id}. Retry the task.", run_id=run_id)
        answer = seen
    return Run.from_answer(run_id, answer, uuid=uuid)


def _end(
    hook: OmicsCacheHook,
    run: Run,
    call: Callable[..., Any],
    is_ended: Callable[[Run], bool],
    *,
    max_seconds: float,
    max_silence: float,
) -> None:
    """Cancel or delete a run whose uuid was confirmed just before. Confirm it again before each further attempt.

    If the answer to an attempt is lost, the id may belong to another run at the next attempt.
    """
    give_up = timing.monotonic() + max_seconds
    is_confirmed = True

    def attempt() -> None:
        nonlocal is_confirmed
        if not is_confirmed:
            current = _current(hook, run, max_silence=max_silence)
            if current is None or is_ended(current):
                return
        is_confirmed = False
        if_found(partial(call, run_id=run.id))

    while True:
        try:
            hook.patiently(attempt, max_silence=max_silence)
        except OmicsApiError as error:
            if error.code not in REFUSALS:
                raise
            current = _current(hook, run, max_silence=max_silence)
            if current is None or is_ended(current):
                return
            if timing.monotonic() + LOOK_AGAIN_SECONDS > give_up:
                text = f"Run {run.id} is {current.shown_status}, and the service refused the request: {error}"
                raise error.with_text(text, run_id=run.id) from error.__cause__
            hook.rest(LOOK_AGAIN_SECONDS)
        else:
            return
