"""Start a batch once: find the batch that an earlier try of the task started, or start a new one.

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
from airflow_provider_omics_cache.hooks.client import LARGEST_PAGE, LONGEST_SILENCE, VISIBLE_AFTER
from airflow_provider_omics_cache.hooks.errors import if_found

if TYPE_CHECKING:
    from airflow_provider_omics_cache.healthomics.identity import BatchIdentity
    from airflow_provider_omics_cache.hooks.client import Answer
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook

#: Batch tag with the digest of the request that started the batch.
DIGEST_TAG = "omics-cache-request-digest"
#: Batch tag with the generation, which is part of the request token.
GENERATION_TAG = "omics-cache-generation"
OWN_TAGS = frozenset({DIGEST_TAG, GENERATION_TAG})

#: Maximum number of batches that a try starts. If each of them fails before it starts a run, the task fails.
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
    :param digest: digest of everything that determines the runs.
    :param default_run_setting: the settings that all runs share (``DefaultRunSetting`` of the API).
    :param tags: tags of the batch.
    :param request_id: the user's idempotency token; it replaces the derived one.
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
    """Result of the search for the batch of an earlier try.

    :param batch: GetBatch's answer, None if there is no batch that the task can use.
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

    A batch without the digest tag counts as a batch with other settings. If it is PROCESSED, it is not replaced: a
    missing tag must not cause a second batch, which would cost twice.

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

    The newest batch with the task's batch name decides. If it is to be replaced, and an older batch has the same
    settings, the older batch is used. The other batches only determine the next generation.

    :param hook: the hook.
    :param request: the batch that the task asks for.
    :raises BatchError: the newest batch can neither be used nor replaced.
    :raises OmicsApiError: a call failed.
    """
    name = request.name
    items = [item for item in hook.list_batch(name=name, max_silence=LONGEST_SILENCE) if item.get("name") == name]
    items.sort(key=lambda item: (item.get("createdAt") or _LONG_AGO, int(item["id"])), reverse=True)
    next_generation = 0
    for number, item in enumerate(items):
        is_newest = number == 0
        batch = _get_started_batch(hook, item["id"]) if is_newest else _get_batch(hook, item["id"])
        if batch is None:  # an older batch that was deleted
            continue
        generation = generation_of(batch.get("tags"))
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
    """Start the batch of a task. Two tries that call this at the same time get the same batch.

    GetBatch's answer decides, because StartRunBatch repeats an old answer if the token was used before.

    :param hook: the hook.
    :param request: the batch that the task asks for.
    :param batch_run_settings: ``{"inlineSettings": [...]}`` or ``{"s3UriSettings": "s3://..."}``.
    :param generation: generation that :func:`find_batch` returned.
    :param on_answer: function that is called with the batch as soon as StartRunBatch has answered.
    :raises BatchError: the service's batch can neither be used nor replaced.
    :raises OmicsApiError: a call failed.
    """
    failed = 0
    while True:
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
        failed += 1
        if failed == _MAX_FAILED_STARTS:
            raise BatchFailedError(
                f"Batch {request.name} failed {failed} times before it started a run, the last time as batch "
                f"{batch_id}: {_reason(batch)}",
                **_details(batch),
            )
        generation += 1


def reattach(hook: OmicsCacheHook, request: BatchRequest, batch: Answer) -> StartedBatch:
    """Use the batch of an earlier try.

    :param hook: the hook.
    :param request: the batch that the task asks for.
    :param batch: the batch that :func:`find_batch` found.
    """
    hook.log.info(
        "Batch %s (%s) of an earlier try is %s; continuing with it. To start, and pay for, a new batch, set rerun_key.",
        batch["id"],
        request.name,
        shown(batch.get("status")),
    )
    return StartedBatch(batch, request.token(generation_of(batch.get("tags"))), reattached=True)


def _find_batch_of_spent_token(
    hook: OmicsCacheHook, error: OmicsApiError, request: BatchRequest, generation: int
) -> FoundBatch:
    """Find the batch that was started with a refused token.

    Another try may have been faster, or may have used other tags or another settings file.

    :raises OmicsApiError: no batch is found. The function does not try another token: if the batch is only not listed
        yet, a second batch would cost twice.
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


def _get_batch(hook: OmicsCacheHook, batch_id: str) -> Answer | None:
    return if_found(partial(hook.get_batch, batch_id=batch_id, max_silence=LONGEST_SILENCE))


def _get_started_batch(hook: OmicsCacheHook, batch_id: str) -> Answer:
    """Get a batch that is known to exist; wait until the service shows it."""
    batch = hook.until_seen(partial(_get_batch, hook, batch_id))
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
    """Return how many runs a FAILED batch started, at least. GetBatch's count may be absent or late."""
    counted = (batch.get("submissionSummary") or {}).get("successfulStartSubmissionCount")
    if counted:
        return int(counted)
    rows = hook.list_runs_in_batch(
        batch_id=batch["id"],
        submission_status=SubmissionStatus.SUCCESS,
        max_items=LARGEST_PAGE,
        max_silence=LONGEST_SILENCE,
    )
    return sum(1 for _ in islice(rows, LARGEST_PAGE))
