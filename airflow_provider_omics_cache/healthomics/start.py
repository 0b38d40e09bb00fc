"""Start a batch once: find the batch that an earlier try of the task started, or start a new one.

It follows the `guide on batch runs <https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html>`__.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchConflictError,
    BatchDeletedError,
    BatchError,
    BatchFailedError,
    OmicsApiError,
    OmicsError,
)
from airflow_provider_omics_cache.healthomics.end import was_cancelled
from airflow_provider_omics_cache.healthomics.failures import counted
from airflow_provider_omics_cache.healthomics.rounds import CONSISTENCY_SECONDS
from airflow_provider_omics_cache.healthomics.states import (
    BatchStatus,
    End,
    SubmissionStatus,
    WhenFound,
    meaning_of,
    shown,
)
from airflow_provider_omics_cache.healthomics.tokens import is_token_refused
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
#: Batch tag with the ETag of the user's settings file in S3, if the task could read it.
ETAG_TAG = "omics-cache-settings-etag"
OWN_TAGS = frozenset({DIGEST_TAG, GENERATION_TAG, ETAG_TAG})

#: Maximum number of batches that a try starts. If each of them fails before it starts a run, the task fails.
_MAX_FAILED_STARTS = 3
_UNKNOWN_TIME = datetime.max.replace(tzinfo=UTC)
_CANCELLED_STATUSES = (SubmissionStatus.CANCEL_SUCCESS, SubmissionStatus.CANCEL_FAILED)
#: Submission statuses of runs that were started.
_STARTED_STATUSES = (SubmissionStatus.SUCCESS, SubmissionStatus.DELETE_SUCCESS, SubmissionStatus.DELETE_FAILED)


class StartDecision(Enum):
    """What to do about a batch that an earlier try of the same task may have started."""

    START = auto()
    REATTACH = auto()
    REFUSE_OTHER_SETTINGS = auto()
    REFUSE_UNKNOWN_SETTINGS = auto()
    REFUSE_RUNS_STARTED = auto()
    REFUSE_CANCELLED = auto()
    REFUSE_DELETED = auto()


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """The batch that a task asks for.

    :param identity: what the batch belongs to.
    :param batch_name: beginning of the batch's name.
    :param digest: digest of everything that determines the runs, apart from the content of a settings file of the user.
    :param etag: ETag of that file, None if there is no such file or the task could not read it.
    :param default_run_setting: the settings that all runs share (``DefaultRunSetting`` of the API).
    :param tags: tags of the batch.
    :param request_id: the user's idempotency token; it replaces the derived one.
    :param number_of_runs: number of runs, None if the task did not read their settings.
    """

    identity: BatchIdentity
    batch_name: str
    digest: str
    default_run_setting: Mapping[str, Any]
    tags: Mapping[str, str]
    etag: str | None = None
    request_id: str | None = None
    number_of_runs: int | None = None

    @property
    def name(self) -> str:
        """Name of the batch. It ends in a hash of the identity."""
        return self.identity.batch_name(self.batch_name)

    def token(self, generation: int) -> str:
        """Return the idempotency token.

        :param generation: 0 for the task's first batch; it increases when a new batch replaces an old one.
        """
        return self.request_id or self.identity.batch_token(generation=generation)

    def own_tags(self, generation: int) -> dict[str, str]:
        """Return the tags by which a later try recognises the batch.

        :param generation: generation of the batch.
        """
        tags = {DIGEST_TAG: self.digest}
        if not self.request_id:
            tags[GENERATION_TAG] = str(generation)
        if self.etag:
            tags[ETAG_TAG] = self.etag
        return tags


class FoundBatch(NamedTuple):
    """Result of the search for the batch of an earlier try.

    :param batch: GetBatch's answer, None if there is no batch that the task can use.
    :param generation: generation of that batch, or the one that the next batch gets.
    :param failed_id: id of the newest batch if it FAILED and started no run, and has this generation. The service may
        start it again with its token.
    """

    batch: Answer | None
    generation: int
    failed_id: str | None = None


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
    status: str | None,
    *,
    request_digest: str,
    found_digest: str | None,
    request_etag: str | None = None,
    found_etag: str | None = None,
    runs_started: int = 0,
    is_cancelled: bool = False,
) -> StartDecision:
    """Decide what to do about a batch that has the task's own batch name.

    A batch whose settings must be compared, and whose digest tag is missing, is neither used nor replaced: a missing
    tag must not cause a second batch, which would cost twice. If one of the two ETags is not known, they count as
    equal.

    :param status: GetBatch's status.
    :param request_digest: digest of the current request.
    :param found_digest: digest of the request that started the batch, None if it is not known.
    :param request_etag: ETag of the current request's settings file, None if it is not known.
    :param found_etag: ETag of the batch's settings file, None if it is not known.
    :param runs_started: number of runs that are known to have been started; used for a FAILED batch.
    :param is_cancelled: whether a FAILED batch is known to have been cancelled before it failed.
    """
    meaning = meaning_of(status)
    if meaning.when_found == WhenFound.REPLACE_IF_UNUSED:
        if runs_started:
            return StartDecision.REFUSE_RUNS_STARTED
        return StartDecision.REFUSE_CANCELLED if is_cancelled else StartDecision.START
    if meaning.when_found == WhenFound.REFUSE:
        return StartDecision.REFUSE_DELETED if meaning.end == End.DELETED else StartDecision.REFUSE_CANCELLED
    if found_digest is None:
        return StartDecision.REFUSE_UNKNOWN_SETTINGS
    if found_digest == request_digest and (not request_etag or not found_etag or request_etag == found_etag):
        return StartDecision.REATTACH
    if meaning.when_found == WhenFound.TAKE_OR_REPLACE:
        return StartDecision.START
    return StartDecision.REFUSE_OTHER_SETTINGS


def generation_of(tags: Mapping[str, str] | None) -> int:
    """Return the generation of a batch, 0 if its tags do not have it.

    :param tags: tags of the batch.
    """
    text = (tags or {}).get(GENERATION_TAG, "0")
    return int(text) if text.isdecimal() else 0


def newest_first(batches: Iterable[Answer]) -> list[Answer]:
    """Sort batches by creation time, then by id. A batch whose time of creation is not shown counts as the newest.

    :param batches: GetBatch's answers.
    """
    return sorted(
        batches, key=lambda batch: (batch.get("creationTime") or _UNKNOWN_TIME, int(batch["id"])), reverse=True
    )


def find_batch(hook: OmicsCacheHook, request: BatchRequest) -> FoundBatch:
    """Find the batch that an earlier try of the task started.

    The newest batch with the task's batch name decides. If it is to be replaced, and an older batch has the same
    settings, the older batch is used. The other batches only determine the next generation: it is the generation of a
    newest batch that FAILED before it started a run, because AWS documents that its token starts it again.

    :param hook: the hook.
    :param request: the batch that the task asks for.
    :raises BatchError: the newest batch can neither be used nor replaced.
    :raises OmicsApiError: a call failed.
    """
    batches = _get_batches(hook, request.name)
    used, failed_id, failed_generation = [-1], None, -1
    for number, batch in enumerate(batches):
        is_newest = number == 0
        found = _decide(hook, request, batch, is_newest=is_newest)
        generation = generation_of(found.batch.get("tags"))
        if found.decision == StartDecision.REATTACH:
            return FoundBatch(found.batch, generation)
        if is_newest and found.decision != StartDecision.START:
            raise _refusal(request, found)
        if is_newest and found.has_failed:
            failed_id, failed_generation = found.batch["id"], generation
        else:
            used.append(generation)
    if failed_id is not None and failed_generation >= max(used):
        return FoundBatch(None, failed_generation, failed_id)
    return FoundBatch(None, max(used) + 1)


def _get_batches(hook: OmicsCacheHook, name: str) -> list[Answer]:
    """Get the batches of a name, the newest first. A batch whose name is not shown is one of them."""

    def list_once() -> list[Answer]:
        return list(hook.list_batch(name=name, max_silence=LONGEST_SILENCE))

    items = [item for item in hook.list_whole(list_once) if item.get("name") in {None, name}]
    newest = max((item["createdAt"] for item in items if item.get("createdAt")), default=None)
    batches = []
    for item in items:
        may_be_newest = item.get("createdAt") in {None, newest}
        batch = _get_started_batch(hook, item["id"]) if may_be_newest else _get_batch(hook, item["id"])
        if batch is not None and batch.get("name") in {None, name}:
            batches.append({**batch, "creationTime": batch.get("creationTime") or item.get("createdAt")})
    return newest_first(batches)


def start_batch(
    hook: OmicsCacheHook,
    request: BatchRequest,
    batch_run_settings: Mapping[str, Any],
    *,
    found: FoundBatch,
    on_answer: Callable[[StartedBatch], object],
) -> StartedBatch:
    """Start the batch of a task. Two tries that call this at the same time get the same batch.

    GetBatch's answer decides, because StartRunBatch repeats an old answer if the token was used before. The token of a
    batch that FAILED before it started a run is used once more: AWS documents that it starts the batch again. A new
    token beside it could start a second batch, if another try uses the old one at the same time. If the service
    repeats the FAILED batch instead, the next generation follows.

    :param hook: the hook.
    :param request: the batch that the task asks for.
    :param batch_run_settings: ``{"inlineSettings": [...]}`` or ``{"s3UriSettings": "s3://..."}``.
    :param found: what :func:`find_batch` returned.
    :param on_answer: function that is called with the batch as soon as StartRunBatch has answered.
    :raises BatchError: the service's batch can neither be used nor replaced.
    :raises OmicsApiError: a call failed.
    """
    generation = found.generation
    failed_ids = {found.failed_id}
    failed = 0
    while True:
        start = partial(
            hook.start_run_batch,
            default_run_setting=request.default_run_setting,
            batch_run_settings=batch_run_settings,
            batch_name=request.name,
            tags={**request.tags, **request.own_tags(generation)},
            request_id=request.token(generation),
        )
        try:
            answer = hook.patiently(start)
        except OmicsApiError as error:
            earlier = _find_batch_of_spent_token(hook, error, request, generation)
            if earlier.batch is not None:
                return reattach(hook, request, earlier.batch)
            generation = earlier.generation
            failed_ids.add(earlier.failed_id)
            continue
        batch_id = answer["id"]
        known = {"id": batch_id, "arn": answer.get("arn"), "uuid": answer.get("uuid"), "name": request.name}
        on_answer(StartedBatch(known, request.token(generation), reattached=False))
        decided = _decide(hook, request, _get_started_batch(hook, batch_id))
        batch = decided.batch
        if decided.decision == StartDecision.REATTACH:
            hook.log.info(
                "Started batch %s (%s) with %s", batch_id, request.name, _contents(request, batch_run_settings)
            )
            return StartedBatch(batch, request.token(generation), reattached=False)
        if decided.decision != StartDecision.START:
            raise _refusal(request, decided)
        if decided.has_failed and batch_id not in failed_ids:
            hook.log.info("Batch %s failed before it started a run; starting it again", batch_id)
            failed_ids.add(batch_id)
            failed += 1
            if failed == _MAX_FAILED_STARTS:
                raise BatchFailedError(
                    f"Batch {request.name} failed {failed} times before it started a run, the last time as batch "
                    f"{batch_id}: {_reason(batch)}",
                    **_details(batch),
                )
            continue
        if request.request_id:
            raise BatchConflictError(
                f"request_id {request.request_id!r} belongs to batch {batch_id}, which is "
                f"{shown(batch.get('status'))}. Set another request_id, or leave it out.",
                **_details(batch),
            )
        generation += 1
        hook.log.info(
            "The request token belongs to batch %s, which is %s; starting a new batch with the next token",
            batch_id,
            shown(batch.get("status")),
        )


def _contents(request: BatchRequest, batch_run_settings: Mapping[str, Any]) -> str:
    """Describe for the log what a batch consists of."""
    setting = request.default_run_setting
    runs = f"the runs of {batch_run_settings.get('s3UriSettings')}"
    if request.number_of_runs is not None:
        runs = counted(request.number_of_runs, "run")
    text = f"{runs} of workflow {setting.get('workflowId')}"
    if setting.get("cacheId"):
        text += f", run cache {setting['cacheId']}"
    if setting.get("outputUri"):
        text += f", outputs under {setting['outputUri']}"
    return text


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

    Another try may have been faster, or may have used other tags or another order of the settings.

    :return: the batch, or the next generation: that of the token is used up by a batch that can be replaced.
    :raises OmicsApiError: no batch is found. The function does not try another token: if the batch is only not listed
        yet, a second batch would cost twice.
    """
    if not is_token_refused(hook, error):
        raise error

    def is_seen(found: FoundBatch) -> bool:
        return found.batch is not None or found.generation > generation

    hook.log.info("Looking for a batch of an earlier try, because StartRunBatch refused the request: %s", error)
    found = hook.until_seen(partial(find_batch, hook, request), is_seen)
    if is_seen(found):
        return found
    if found.failed_id is not None and found.generation == generation and not request.request_id:
        return FoundBatch(None, generation + 1)
    raise error.with_text(
        f"{error}. The request token may belong to a batch that is not listed yet, to a batch with another batch_name, "
        "or to a deleted batch. The next try looks for it again. If it does not find it: set the batch_name of the "
        f"first try, or set {'another request_id' if request.request_id else 'rerun_key'} to start a new batch."
    ) from error.__cause__


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


class _Decided(NamedTuple):
    """What to do about a batch.

    :param batch: the newest answer of GetBatch.
    :param decision: the decision.
    :param runs_started: number of runs that a FAILED batch started, at least.
    """

    batch: Answer
    decision: StartDecision
    runs_started: int = 0

    @property
    def has_failed(self) -> bool:
        """Whether the batch is FAILED."""
        return meaning_of(self.batch.get("status")).when_found == WhenFound.REPLACE_IF_UNUSED


def _decide(hook: OmicsCacheHook, request: BatchRequest, batch: Answer, *, is_newest: bool = True) -> _Decided:
    """Decide what to do about a batch. First wait until the service shows what the decision needs.

    :param is_newest: whether the batch is the newest one of its name. The runs of an older batch do not matter.
    """
    runs_started, is_cancelled = 0, False
    if meaning_of(batch.get("status")).when_found == WhenFound.REPLACE_IF_UNUSED and is_newest:
        batch, runs_started, is_cancelled = _wait_for_started_runs(hook, batch)
    batch = _wait_for_digest(hook, batch)
    tags = batch.get("tags") or {}
    decision = decide_start(
        batch.get("status"),
        request_digest=request.digest,
        found_digest=tags.get(DIGEST_TAG),
        request_etag=request.etag,
        found_etag=tags.get(ETAG_TAG),
        runs_started=runs_started,
        is_cancelled=is_cancelled,
    )
    return _Decided(batch, decision, runs_started)


def _wait_for_digest(hook: OmicsCacheHook, batch: Answer) -> Answer:
    """Get a batch again if an answer lacks the digest tag, on which the decision depends."""
    needs_digest = {WhenFound.TAKE, WhenFound.TAKE_OR_REPLACE}

    def is_decidable(seen: Answer | None) -> bool:
        return (
            seen is None
            or DIGEST_TAG in (seen.get("tags") or {})
            or meaning_of(seen.get("status")).when_found not in needs_digest
        )

    if is_decidable(batch):
        return batch
    hook.log.info("GetBatch does not show the tag %s of batch %s; asking again", DIGEST_TAG, batch["id"])
    return hook.until_seen(partial(_get_batch, hook, batch["id"]), is_decidable) or batch


def _wait_for_started_runs(hook: OmicsCacheHook, batch: Answer) -> tuple[Answer, int, bool]:
    """Look for started runs of a FAILED batch until its counts and listings had the time to show them.

    :return: GetBatch's newest answer, the number of started runs (at least), and whether the batch was cancelled.
    """
    batch_id = batch["id"]
    is_cancelled = was_cancelled(batch)

    def look() -> tuple[Answer, int]:
        nonlocal is_cancelled
        seen = _get_batch(hook, batch_id) or batch
        is_cancelled = is_cancelled or was_cancelled(seen) or seen.get("status") == BatchStatus.STOPPING
        return seen, _count_started_runs(hook, seen)

    def is_known(looked: tuple[Answer, int]) -> bool:
        seen, runs_started = looked
        failed_time = seen.get("failedTime")
        is_old = failed_time is not None and timing.time() >= failed_time.timestamp() + CONSISTENCY_SECONDS
        return bool(runs_started) or is_cancelled or is_old

    hook.log.info(
        "Batch %s is %s; looking for runs that it started, for up to %s s after its failure",
        batch_id,
        batch.get("status"),
        CONSISTENCY_SECONDS,
    )
    seen, runs_started = hook.until_seen(look, is_known)
    if not runs_started:
        is_cancelled = is_cancelled or any(_count_rows(hook, batch_id, status) for status in _CANCELLED_STATUSES)
    return seen, runs_started, is_cancelled


def _refusal(request: BatchRequest, found: _Decided) -> BatchError:
    batch, decision, runs_started = found
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
    if decision == StartDecision.REFUSE_UNKNOWN_SETTINGS:
        return BatchConflictError(
            f"{text}, but GetBatch does not show its tag {DIGEST_TAG}, so that its settings cannot be compared. "
            "Clear the task to compare them again. If the tag was removed, cancel the batch if it is active, and set "
            "rerun_key to start, and pay for, a new batch.",
            **details,
        )
    return BatchConflictError(
        f"{text}, and it was started with other settings. Cancel it, or set rerun_key to start a new batch.", **details
    )


def _reason(batch: Answer) -> str:
    return batch.get("failureReason") or "no reason given"


def _details(batch: Answer) -> dict[str, Any]:
    return {"batch_id": batch["id"], "status": batch.get("status"), "reason": batch.get("failureReason")}


def _count_started_runs(hook: OmicsCacheHook, batch: Answer) -> int:
    """Return how many runs a FAILED batch started, at least. GetBatch's count may be absent or late."""
    counts = [(batch.get("submissionSummary") or {}).get("successfulStartSubmissionCount") or 0]
    counts.append(sum(count or 0 for count in (batch.get("runSummary") or {}).values()))
    return max(counts) or sum(_count_rows(hook, batch["id"], status) for status in _STARTED_STATUSES)


def _count_rows(hook: OmicsCacheHook, batch_id: str, status: str) -> int:
    """Return how many submissions of a batch are listed in a status, 100 at most."""
    rows = hook.list_runs_in_batch(
        batch_id=batch_id, submission_status=status, max_items=LARGEST_PAGE, max_silence=LONGEST_SILENCE
    )
    return sum(1 for _ in islice(rows, LARGEST_PAGE))
