"""How a batch is started once: find the batch that an earlier try of the task started, or start one.

It follows the `guide on batch runs <https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html>`__.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchConflictError,
    BatchDeletedError,
    BatchError,
    BatchFailedError,
    OmicsApiError,
    OmicsError,
)
from airflow_provider_omics_cache.healthomics.states import End, SubmissionStatus, WhenFound, meaning_of, shown
from airflow_provider_omics_cache.hooks.client import LONGEST_SILENCE, VISIBLE_AFTER
from airflow_provider_omics_cache.hooks.errors import if_found

if TYPE_CHECKING:
    from airflow_provider_omics_cache.healthomics.identity import BatchIdentity
    from airflow_provider_omics_cache.hooks.client import Answer
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook

#: Batch tag with the digest of the request that started the batch.
DIGEST_TAG = "omics-cache-request-digest"
#: Batch tag with the generation that the request token was made of.
GENERATION_TAG = "omics-cache-generation"
OWN_TAGS = frozenset({DIGEST_TAG, GENERATION_TAG})

#: Number of batches of one task that may fail before they start a run; the task fails then.
_MAX_FAILED_STARTS = 3
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class StartDecision(Enum):
    """What to do about a batch that an earlier try of the same task may have started."""

    START = auto()
    REATTACH = auto()
    REFUSE_OTHER_SETTINGS = auto()
    REFUSE_RUNS_STARTED = auto()
    REFUSE_CANCELLED = auto()
    REFUSE_DELETED = auto()


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """The batch that a task asks for.

    :param identity: what the batch belongs to.
    :param batch_name: beginning of the batch's name.
    :param digest: digest of what decides the runs.
    :param default_run_setting: the settings that all runs share (``DefaultRunSetting`` of the API).
    :param tags: tags of the batch.
    :param request_id: idempotency token in place of the derived one.
    """

    identity: BatchIdentity
    batch_name: str
    digest: str
    default_run_setting: Mapping[str, Any]
    tags: Mapping[str, str]
    request_id: str | None = None

    @property
    def name(self) -> str:
        """Name of the batch. It ends in a hash of the identity."""
        return self.identity.batch_name(self.batch_name)

    def token(self, generation: int) -> str:
        """Return the idempotency token.

        :param generation: 0 for the task's first batch; it increases when a new batch replaces an old one.
        """
        return self.request_id or self.identity.batch_token(request_digest=self.digest, generation=generation)


class FoundBatch(NamedTuple):
    """What an earlier try of the task left.

    :param batch: GetBatch's answer, None if there is no batch that the task can take.
    :param generation: generation of that batch, or the one that the next batch gets.
    """

    batch: Answer | None
    generation: int


class StartedBatch(NamedTuple):
    """The batch that a task works with.

    :param batch: GetBatch's answer.
    :param request_id: idempotency token of the batch.
    :param reattached: whether an earlier try had started it.
    """

    batch: Answer
    request_id: str
    reattached: bool


def decide_start(
    status: str | None, *, request_digest: str, found_digest: str | None, runs_started: int
) -> StartDecision:
    """Decide what to do about a batch that has the task's own batch name.

    A batch without its digest tag counts as one with other settings, and is never replaced, so that a missing tag does
    not cost a second batch.

    :param status: GetBatch's status.
    :param request_digest: digest of the current request.
    :param found_digest: digest of the request that started the batch, None if it is not known.
    :param runs_started: number of runs that are known to have been started; used for a FAILED batch.
    """
    meaning = meaning_of(status)
    if meaning.when_found == WhenFound.REPLACE_IF_UNUSED:
        return StartDecision.REFUSE_RUNS_STARTED if runs_started else StartDecision.START
    if meaning.when_found == WhenFound.REFUSE:
        return StartDecision.REFUSE_DELETED if meaning.end == End.DELETED else StartDecision.REFUSE_CANCELLED
    if found_digest == request_digest:
        return StartDecision.REATTACH
    if meaning.when_found == WhenFound.TAKE_OR_REPLACE and found_digest is not None:
        return StartDecision.START
    return StartDecision.REFUSE_OTHER_SETTINGS


def generation_of(tags: Mapping[str, str] | None) -> int:
    """Return the generation of a batch, 0 if its tags do not have it.

    :param tags: tags of the batch.
    """
    text = (tags or {}).get(GENERATION_TAG, "0")
    return int(text) if text.isdecimal() else 0


def find_batch(hook: OmicsCacheHook, request: BatchRequest) -> FoundBatch:
    """Find the batch that an earlier try of the task started.

    The newest batch of the task's batch name decides. Of the older ones, one with the same settings is taken if the
    newest is to be replaced; the others only count for the generation.

    :param hook: the hook.
    :param request: the batch that the task asks for.
    :raises BatchError: the newest batch can neither be taken nor replaced.
    :raises OmicsApiError: a call failed.
    """
    name = request.name
    items = [item for item in hook.list_batch(name=name, max_silence=LONGEST_SILENCE) if item.get("name") == name]
    items.sort(key=lambda item: (item.get("createdAt") or _LONG_AGO, int(item["id"])), reverse=True)
    next_generation = 0
    for number, item in enumerate(items):
        batch = _get_started_batch(hook, item["id"])
        generation = generation_of(batch.get("tags"))
        is_newest = number == 0
        decision, runs_started = _decide(hook, batch, request.digest, count_runs=is_newest)
        if decision == StartDecision.REATTACH:
            return FoundBatch(batch, generation)
        if is_newest and decision != StartDecision.START:
            raise _refusal(request, batch, decision, runs_started)
        next_generation = max(next_generation, generation + 1)
    return FoundBatch(None, next_generation)


def start_batch(
    hook: OmicsCacheHook,
    request: BatchRequest,
    batch_run_settings: Mapping[str, Any],
    *,
    generation: int,
    on_answer: Callable[[StartedBatch], object],
) -> StartedBatch:
    """Start the batch of a task. Another try that does the same at the same time gets the same batch.

    GetBatch's answer decides, because StartRunBatch's may be a replay for a token that is spent.

    :param hook: the hook.
    :param request: the batch that the task asks for.
    :param batch_run_settings: ``{"inlineSettings": [...]}`` or ``{"s3UriSettings": "s3://..."}``.
    :param generation: generation that :func:`find_batch` returned.
    :param on_answer: is called with the batch as soon as the service has answered, before GetBatch shows it.
    :raises BatchError: the service's batch can neither be taken nor replaced.
    :raises OmicsApiError: a call failed.
    """
    for attempt in range(1, _MAX_FAILED_STARTS + 1):
        own_tags = {DIGEST_TAG: request.digest}
        if not request.request_id:
            own_tags[GENERATION_TAG] = str(generation)
        start = partial(
            hook.start_run_batch,
            default_run_setting=request.default_run_setting,
            batch_run_settings=batch_run_settings,
            batch_name=request.name,
            tags={**request.tags, **own_tags},
            request_id=request.token(generation),
        )
        try:
            answer = hook.patiently(start)
        except OmicsApiError as error:
            found = _find_batch_of_spent_token(hook, error, request, generation)
            if found.batch is not None:
                return reattach(hook, request, found.batch)
            generation = found.generation
            continue
        batch_id = answer["id"]
        known = {"id": batch_id, "arn": answer.get("arn"), "uuid": answer.get("uuid"), "name": request.name}
        on_answer(StartedBatch(known, request.token(generation), reattached=False))
        batch = _get_started_batch(hook, batch_id)
        decision, runs_started = _decide(hook, batch, request.digest, is_own=not request.request_id)
        if decision == StartDecision.REATTACH:
            hook.log.info("Started batch %s (%s), which is %s", batch_id, request.name, shown(batch.get("status")))
            return StartedBatch(batch, request.token(generation), reattached=False)
        if decision != StartDecision.START:
            raise _refusal(request, batch, decision, runs_started)
        if request.request_id:
            raise BatchConflictError(
                f"request_id {request.request_id!r} belongs to batch {batch_id}, which is "
                f"{shown(batch.get('status'))}. Set another request_id, or leave it out.",
                **_details(batch),
            )
        hook.log.info("Batch %s of generation %s failed before it started a run", batch_id, generation)
        if attempt == _MAX_FAILED_STARTS:
            raise BatchFailedError(
                f"Batch {request.name} failed {attempt} times before it started a run, the last time as batch "
                f"{batch_id}: {_reason(batch)}",
                **_details(batch),
            )
        generation += 1
    raise OmicsError(f"Batch {request.name} could not be started: other tries of the task started batches meanwhile")


def reattach(hook: OmicsCacheHook, request: BatchRequest, batch: Answer) -> StartedBatch:
    """Take the batch of an earlier try.

    :param hook: the hook.
    :param request: the batch that the task asks for.
    :param batch: the batch that :func:`find_batch` found.
    """
    hook.log.info(
        "Batch %s (%s) of an earlier try is %s; continuing with it. To pay for a new batch, set rerun_key.",
        batch["id"],
        request.name,
        shown(batch.get("status")),
    )
    return StartedBatch(batch, request.token(generation_of(batch.get("tags"))), reattached=True)


def _find_batch_of_spent_token(
    hook: OmicsCacheHook, error: OmicsApiError, request: BatchRequest, generation: int
) -> FoundBatch:
    """Find the batch that a refused token stands for: another try may be faster, or had other tags or another file.

    :raises OmicsApiError: nothing is found. The token is not replaced then, because a batch that is not listed yet
        would be paid for twice.
    """
    if error.code not in {"ConflictException", "ValidationException"}:
        raise error

    def is_seen(found: FoundBatch) -> bool:
        return found.batch is not None or found.generation > generation

    find = partial(find_batch, hook, request)
    may_be_late = error.code == "ConflictException" and not request.request_id
    found = hook.until_seen(find, is_seen) if may_be_late else find()
    if is_seen(found):
        return found
    if error.code == "ValidationException":
        raise error
    raise error.with_text(
        f"{error}. The request token may belong to a batch with another batch_name, or to a deleted batch. Set the "
        f"batch_name of the first try, or set {'another request_id' if request.request_id else 'rerun_key'} to start "
        "a new batch."
    ) from error


def _get_started_batch(hook: OmicsCacheHook, batch_id: str) -> Answer:
    """Get a batch that is known to exist; wait until the service shows it."""
    get = partial(hook.get_batch, batch_id=batch_id, max_silence=LONGEST_SILENCE)
    batch = hook.until_seen(partial(if_found, get))
    if batch is None:
        raise OmicsError(
            f"Batch {batch_id} was started, but GetBatch did not find it for {sum(VISIBLE_AFTER)} s. The next try of "
            "the task looks for it again. If it was deleted, set rerun_key to start a new batch.",
            batch_id=batch_id,
        )
    return batch


def _decide(
    hook: OmicsCacheHook, batch: Answer, request_digest: str, *, is_own: bool = False, count_runs: bool = True
) -> tuple[StartDecision, int]:
    status = batch.get("status")
    may_be_unused = meaning_of(status).when_found == WhenFound.REPLACE_IF_UNUSED
    runs_started = _count_started_runs(hook, batch) if may_be_unused and count_runs else 0
    decision = decide_start(
        status,
        request_digest=request_digest,
        found_digest=(batch.get("tags") or {}).get(DIGEST_TAG, request_digest if is_own else None),
        runs_started=runs_started,
    )
    return decision, runs_started


def _refusal(request: BatchRequest, batch: Answer, decision: StartDecision, runs_started: int) -> BatchError:
    text = f"Batch {batch['id']} ({request.name}) of this task is {shown(batch.get('status'))}"
    details = _details(batch)
    if decision == StartDecision.REFUSE_RUNS_STARTED:
        return BatchFailedError(
            f"{text} ({_reason(batch)}), but at least {runs_started:,} of its runs were started. Cancel "
            "them or leave them out of run_settings, and set rerun_key to start a new batch.",
            **details,
        )
    if decision == StartDecision.REFUSE_CANCELLED:
        return BatchCancelledError(f"{text}: it was cancelled. Set rerun_key to start a new batch.", **details)
    if decision == StartDecision.REFUSE_DELETED:
        return BatchDeletedError(f"{text}: its runs were deleted. Set rerun_key to start a new batch.", **details)
    return BatchConflictError(
        f"{text}, and it was started with other settings. Cancel it, or set rerun_key to start a new batch.", **details
    )


def _reason(batch: Answer) -> str:
    return batch.get("failureReason") or "no reason given"


def _details(batch: Answer) -> dict[str, Any]:
    return {"batch_id": batch["id"], "status": batch.get("status"), "reason": batch.get("failureReason")}


def _count_started_runs(hook: OmicsCacheHook, batch: Answer) -> int:
    """Count the runs that a FAILED batch started, at least: its counts may be absent or late."""
    counted = (batch.get("submissionSummary") or {}).get("successfulStartSubmissionCount")
    if counted:
        return int(counted)
    rows = hook.list_runs_in_batch(
        batch_id=batch["id"], submission_status=SubmissionStatus.SUCCESS, max_items=100, max_silence=LONGEST_SILENCE
    )
    return sum(1 for _ in islice(rows, 100))
