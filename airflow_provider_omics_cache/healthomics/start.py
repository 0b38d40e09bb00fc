"""Start a batch once: find the batch that an earlier try of the task started, or start a new one.

It follows the `guide on batch runs <https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html>`__.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchConflictError,
    BatchDeletedError,
    BatchFailedError,
    OmicsError,
)
from airflow_provider_omics_cache.healthomics.end import was_cancelled
from airflow_provider_omics_cache.healthomics.failures import counted
from airflow_provider_omics_cache.healthomics.once import (
    DIGEST_TAG,
    GENERATION_TAG,
    Decided,
    Found,
    StartDecision,
    StartOnce,
    StartRequest,
    decide,
    generation_of,
    has_same_settings,
    reason_of,
)
from airflow_provider_omics_cache.healthomics.outputs import OWN_OUTPUT_URIS
from airflow_provider_omics_cache.healthomics.rounds import CONSISTENCY_SECONDS
from airflow_provider_omics_cache.healthomics.states import (
    BatchStatus,
    Meaning,
    SubmissionStatus,
    WhenFound,
    meaning_of,
)
from airflow_provider_omics_cache.hooks.client import LARGEST_PAGE, LONGEST_SILENCE
from airflow_provider_omics_cache.hooks.errors import if_found

if TYPE_CHECKING:
    from airflow_provider_omics_cache.hooks.client import Answer
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook

#: Batch tag with the ETag of the user's settings file in S3, if the task could read it.
ETAG_TAG = "omics-cache-settings-etag"
OWN_TAGS = frozenset({DIGEST_TAG, GENERATION_TAG, ETAG_TAG, OWN_OUTPUT_URIS})

_CANCELLED_STATUSES = (SubmissionStatus.CANCEL_SUCCESS, SubmissionStatus.CANCEL_FAILED)
#: Submission statuses of runs that were started.
_STARTED_STATUSES = (SubmissionStatus.SUCCESS, SubmissionStatus.DELETE_SUCCESS, SubmissionStatus.DELETE_FAILED)
_ERRORS = {"conflict": BatchConflictError, "failed": BatchFailedError, "missing": OmicsError}


@dataclass(frozen=True, kw_only=True)
class BatchRequest(StartRequest):
    """The batch that a task asks for.

    The digest covers everything that determines the runs, except the content of the user's settings file.

    :param batch_name: beginning of the batch's name.
    :param etag: ETag of the user's settings file, None if there is no such file or the task could not read it.
    :param own_output_uris: digest of the ``outputUri`` of each setting that has its own, None if it is not known.
    :param default_run_setting: the settings that all runs share (``DefaultRunSetting`` of the API).
    :param number_of_runs: number of runs, None if the task did not read their settings.
    """

    batch_name: str
    default_run_setting: Mapping[str, Any]
    etag: str | None = None
    own_output_uris: str | None = None
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
        """Return the package's own tags of the batch.

        A later try recognises the batch by them. A sensor uses them to derive the ``outputUri`` of each run.

        :param generation: generation of the batch.
        """
        tags = super().own_tags(generation)
        if self.etag:
            tags[ETAG_TAG] = self.etag
        if self.own_output_uris:
            tags[OWN_OUTPUT_URIS] = self.own_output_uris
        return tags


def decide_start(status: str | None, **known: Any) -> StartDecision:
    """Decide what to do about a batch that has the task's own batch name.

    :param status: GetBatch's status.
    :param known: what is known of the request and of the batch; see :func:`~.once.decide`.
    """
    return decide(meaning_of(status), **known)


class StartBatchOnce(StartOnce):
    """Finds or starts the batch of a task.

    :param hook: the hook.
    :param request: the batch that the task asks for.
    """

    noun = "batch"
    start_operation = "StartRunBatch"
    get_operation = "GetBatch"
    name_parameter = "batch_name"
    created_member = "createdAt"

    #: ``{"inlineSettings": [...]}`` or ``{"s3UriSettings": "s3://..."}``. Must be set before the batch is started.
    batch_run_settings: Mapping[str, Any]

    def __init__(self, hook: OmicsCacheHook, request: BatchRequest) -> None:
        super().__init__(hook, request)
        self._batch_request = request

    def list_named(self) -> Iterable[Answer]:
        """List the batches with the request's name."""
        return self.hook.list_batch(name=self.request.name, max_silence=LONGEST_SILENCE)

    def get(self, item: Answer) -> Answer | None:
        """Get a batch; None if the service does not show it.

        :param item: the item of the list, or the answer to the start.
        """
        return _get_batch(self.hook, item["id"])

    def call_start(self, generation: int) -> Answer:
        """Call StartRunBatch.

        :param generation: generation of the batch.
        """
        request = self._batch_request
        return self.hook.start_run_batch(
            default_run_setting=request.default_run_setting,
            batch_run_settings=self.batch_run_settings,
            batch_name=request.name,
            tags={**request.tags, **request.own_tags(generation)},
            request_id=request.token(generation),
        )

    def meaning_of(self, answer: Answer) -> Meaning:
        """Return what the status of a batch means.

        :param answer: GetBatch's answer.
        """
        return meaning_of(answer.get("status"))

    def may_start_again(self, answer: Answer) -> bool:
        """Return whether the request token of a batch that FAILED before it started a run may start it again.

        AWS documents this only for a batch with the same settings. With other settings, the service may refuse the
        token, or start the batch with the old settings.

        :param answer: GetBatch's answer.
        """
        request, tags = self._batch_request, answer.get("tags") or {}
        return has_same_settings(request.digest, tags.get(DIGEST_TAG), request.etag, tags.get(ETAG_TAG))

    def contents(self) -> str:
        """Describe the batch for the log."""
        request = self._batch_request
        setting = request.default_run_setting
        runs = f"the runs of {self.batch_run_settings.get('s3UriSettings')}"
        if request.number_of_runs is not None:
            runs = counted(request.number_of_runs, "run")
        text = f"{runs} of workflow {setting.get('workflowId')}"
        if setting.get("cacheId"):
            text += f", run cache {setting['cacheId']}"
        if setting.get("outputUri"):
            text += f", outputs under {setting['outputUri']}"
        return text

    def failed_start(self, name: str, times: int = 1) -> str:
        """Say that a batch failed before it started a run.

        :param name: its id or name.
        :param times: how often it failed.
        """
        return f"Batch {name} failed {f'{times} times ' if times > 1 else ''}before it started a run"

    def decide(self, answer: Answer, *, is_newest: bool = True) -> Decided:
        """Decide what to do about a batch. First wait until the service shows what the decision needs.

        :param answer: GetBatch's answer.
        :param is_newest: whether the batch is the newest one of its name. The runs of an older batch do not matter.
        """
        request = self._batch_request
        runs_started, is_cancelled = 0, False
        if self.meaning_of(answer).when_found == WhenFound.REPLACE_IF_UNUSED and is_newest:
            answer, runs_started, is_cancelled = _wait_for_started_runs(self.hook, answer)
        answer = self.with_digest(answer)
        tags = answer.get("tags") or {}
        decision = decide_start(
            answer.get("status"),
            request_digest=request.digest,
            found_digest=tags.get(DIGEST_TAG),
            request_etag=request.etag,
            found_etag=tags.get(ETAG_TAG),
            runs_started=runs_started,
            is_cancelled=is_cancelled,
        )
        return Decided(answer, decision, runs_started)

    def refusal(self, found: Decided) -> OmicsError:
        """Return the error for a batch that can neither be used nor replaced.

        :param found: the batch.
        """
        batch, decision, runs_started = found
        text = self.title(batch)
        details = _details(batch)
        if decision == StartDecision.REFUSE_RUNS_STARTED:
            return BatchFailedError(
                f"{text} ({reason_of(batch)}), but at least {runs_started:,} of its runs were started. Cancel "
                "them or leave them out of run_settings, and set rerun_key to start a new batch.",
                **details,
            )
        if decision == StartDecision.REFUSE_CANCELLED:
            return BatchCancelledError(f"{text}: it was cancelled. Set rerun_key to start a new batch.", **details)
        if decision == StartDecision.REFUSE_DELETED:
            return BatchDeletedError(f"{text}: its runs were deleted. Set rerun_key to start a new batch.", **details)
        if decision == StartDecision.REFUSE_UNKNOWN_SETTINGS:
            return self.unknown_settings(batch)
        return self.other_settings(batch)

    def error(self, kind: str, text: str, answer: Answer) -> OmicsError:
        """Return an error about a batch.

        :param kind: ``conflict``, ``failed`` or ``missing``.
        :param text: text of the error.
        :param answer: the answer that shows the batch.
        """
        return _ERRORS[kind](text, **_details(answer))


class StartBatchOfCohortOnce(StartBatchOnce):
    """Finds or starts the batch of one round of a cohort.

    A batch that exists is used whatever its status and its settings are, because a new batch would run samples again.
    """

    def find(self) -> Found:
        """Find the newest batch of the round.

        :raises OmicsApiError: a call failed.
        """
        newest = next(iter(self._answers()), None)
        if newest is None:
            return Found(None, 0)
        return Found(newest, generation_of(newest.get("tags")))

    def decide(self, answer: Answer, *, is_newest: bool = True) -> Decided:
        """Use any batch that StartRunBatch returned, unless it FAILED before it started a run.

        :param answer: GetBatch's answer.
        :param is_newest: whether the batch is the newest one of its name.
        """
        if self._has_failed(answer):
            return super().decide(answer, is_newest=is_newest)
        return Decided(answer, StartDecision.REATTACH)


def _get_batch(hook: OmicsCacheHook, batch_id: str) -> Answer | None:
    return if_found(partial(hook.get_batch, batch_id=batch_id, max_silence=LONGEST_SILENCE))


def _details(batch: Answer) -> dict[str, Any]:
    return {"batch_id": batch["id"], "status": batch.get("status"), "reason": batch.get("failureReason")}


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
