"""A batch that is started once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchConflictError,
    BatchDeletedError,
    BatchFailedError,
    OmicsApiError,
    OmicsError,
)
from airflow_provider_omics_cache.healthomics.start import (
    DIGEST_TAG,
    GENERATION_TAG,
    StartDecision,
    StartedBatch,
    decide_start,
    generation_of,
)
from airflow_provider_omics_cache.healthomics.states import BatchStatus
from airflow_provider_omics_cache.hooks.client import VISIBLE_AFTER, Answer, T
from airflow_provider_omics_cache.hooks.errors import check_request_id
from airflow_provider_omics_cache.hooks.operations import OmicsOperationsHook

if TYPE_CHECKING:
    from airflow_provider_omics_cache.healthomics.identity import BatchIdentity

#: Seconds after which a throttled call is given up.
_LONGEST_THROTTLING = 3600.0
#: Batches of one task that may fail before they start a run, until the task fails.
_MAX_FAILED_STARTS = 3
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class StartBatchOnceHook(OmicsOperationsHook):
    """Find the batch that an earlier try of a task has started, or start it."""

    def start_batch_once(
        self,
        *,
        identity: BatchIdentity,
        batch_name: str,
        request_digest: str,
        default_run_setting: Mapping[str, Any],
        batch_run_settings: Callable[[], Mapping[str, Any]],
        tags: Mapping[str, str] | None = None,
        request_id: str | None = None,
        on_started: Callable[[str], None] | None = None,
    ) -> StartedBatch:
        """Start the batch of a task, or find the one that an earlier try of the task has started.

        The batch is found by its name, which ends in a hash of ``identity``; a tag tells whether it was started
        with the same request. GetBatch decides, never StartRunBatch's answer, which may be a replay. Throttling is
        waited out.

        :param identity: what the batch belongs to.
        :param batch_name: beginning of the batch's name.
        :param request_digest: digest of what decides the runs.
        :param default_run_setting: what all runs have in common, as ``DefaultRunSetting`` of the API.
        :param batch_run_settings: gives ``{"inlineSettings": [...]}`` or ``{"s3UriSettings": "s3://..."}``; called
            only if a batch has to be started.
        :param tags: tags of the batch.
        :param request_id: idempotency token in place of the derived one.
        :param on_started: told the id of a batch as soon as the service has answered, before GetBatch shows it.
        :return: the batch as GetBatch shows it.
        :raises BatchError: the batch that is there can neither be taken nor replaced.
        """
        request_id = check_request_id(request_id)
        name = identity.batch_name(batch_name)

        def token(generation: int) -> str:
            return request_id or identity.batch_token(request_digest=request_digest, generation=generation)

        batch, generation = self._find_batch(name, request_digest)
        settings: Mapping[str, Any] | None = None
        failed = 0
        while batch is None:
            settings = settings or batch_run_settings()
            own_tags = {DIGEST_TAG: request_digest}
            if not request_id:
                own_tags[GENERATION_TAG] = str(generation)
            start = partial(
                self.start_run_batch,
                default_run_setting=default_run_setting,
                batch_run_settings=settings,
                batch_name=name,
                tags={**(tags or {}), **own_tags},
                request_id=token(generation),
            )
            try:
                batch_id = self._wait_out_throttling(start)["id"]
            except OmicsApiError as error:
                batch, generation = self._find_batch_of_spent_token(error, name, request_digest, generation, request_id)
                continue
            if on_started:
                on_started(batch_id)
            started = self._get_started_batch(batch_id)
            if self._judge_batch(started, request_digest, is_own=not request_id) == StartDecision.REATTACH:
                self.log.info("Started batch %s (%s), which is %s", batch_id, name, started.get("status"))
                return StartedBatch(batch=started, request_id=token(generation), reattached=False)
            failed += 1
            details = {"batch_id": batch_id, "status": started.get("status"), "reason": started.get("failureReason")}
            if request_id:
                raise BatchConflictError(
                    f"request_id {request_id!r} belongs to batch {batch_id}, which is {started.get('status')}; "
                    "give another request_id, or none",
                    **details,
                )
            if failed == _MAX_FAILED_STARTS:
                raise BatchFailedError(
                    f"batch {name} failed {failed} times before it started a run, the last time as {batch_id}: "
                    f"{started.get('failureReason')}",
                    **details,
                )
            self.log.info("The request token of generation %s belongs to batch %s, which failed", generation, batch_id)
            generation += 1
        self.log.info(
            "Batch %s (%s) is %s already: an earlier try started it. Set rerun_key to pay for a new one.",
            batch["id"],
            name,
            batch.get("status"),
        )
        return StartedBatch(batch=batch, request_id=token(generation_of(batch.get("tags"))), reattached=True)

    def _find_batch(self, name: str, request_digest: str) -> tuple[Answer | None, int]:
        """Find the batch to take, newest first; also give the generation that the next batch would have."""
        items = self._wait_out_throttling(lambda: list(self.list_batch(name=name)))
        own = [item for item in items if item.get("name") == name]
        own.sort(key=lambda item: (item.get("createdAt") or _LONG_AGO, int(item["id"])), reverse=True)
        generation = 0
        for item in own:
            batch = self._get_started_batch(item["id"])
            if self._judge_batch(batch, request_digest) == StartDecision.REATTACH:
                return batch, generation
            generation = max(generation, generation_of(batch.get("tags")) + 1)
        return None, generation

    def _find_batch_of_spent_token(
        self, error: OmicsApiError, name: str, request_digest: str, generation: int, request_id: str | None
    ) -> tuple[Answer | None, int]:
        """Find what a refused token stands for: another try may be faster, or had other tags or another file.

        :raises OmicsApiError: nothing is found. The token is not replaced then: a batch that is not listed yet
            would be paid for twice.
        """
        if error.code not in {"ConflictException", "ValidationException"}:
            raise error

        def look() -> tuple[Answer | None, int]:
            return self._find_batch(name, request_digest)

        def is_seen(found: tuple[Answer | None, int]) -> bool:
            return found[0] is not None or found[1] > generation

        is_late = error.code == "ConflictException" and not request_id
        found = self._look_again(look, is_seen) if is_late else look()
        if is_seen(found):
            return found
        if error.code == "ValidationException":
            raise error
        raise error.with_text(
            f"{error}; the request token may belong to a batch with another batch_name, or to a deleted one: "
            f"give the batch_name of the first try, or set {'another request_id' if request_id else 'rerun_key'} "
            "to start a new one"
        ) from error

    def _get_started_batch(self, batch_id: str) -> Answer:
        """Get a batch that is known to exist; wait until the service shows it."""
        get = partial(self._wait_out_throttling, partial(self.get_batch, batch_id=batch_id))
        batch = self._look_again(partial(self._if_found, get))
        if batch is None:
            raise OmicsError(
                f"batch {batch_id} was started, but GetBatch did not find it for {sum(VISIBLE_AFTER)} s: the next try "
                "of the task looks for it again; if somebody has deleted it, set rerun_key to start a new batch",
                batch_id=batch_id,
            )
        return batch

    def _judge_batch(self, batch: Answer, request_digest: str, *, is_own: bool = False) -> StartDecision:
        """Decide whether to take a batch or to start a new one.

        :raises BatchError: neither.
        """
        batch_id, status, reason = batch["id"], batch.get("status"), batch.get("failureReason")
        runs_started = self._count_started_runs(batch) if status == BatchStatus.FAILED else 0
        decision = decide_start(
            status,
            request_digest=request_digest,
            found_digest=(batch.get("tags") or {}).get(DIGEST_TAG, request_digest if is_own else None),
            runs_started=runs_started,
        )
        text = f"batch {batch_id} ({batch.get('name')}) of this task is {status}"
        details = {"batch_id": batch_id, "status": status, "reason": reason}
        if decision == StartDecision.REFUSE_RUNS_STARTED:
            raise BatchFailedError(
                f"{text} ({reason}) after at least {runs_started:,} of its runs were started: cancel those, or leave "
                "them out of run_settings, and set rerun_key to start a new batch",
                **details,
            )
        if decision == StartDecision.REFUSE_CANCELLED:
            raise BatchCancelledError(f"{text}: somebody cancelled it; set rerun_key to start a new batch", **details)
        if decision == StartDecision.REFUSE_DELETED:
            raise BatchDeletedError(f"{text}: it was cleaned up; set rerun_key to start a new batch", **details)
        if decision == StartDecision.REFUSE_OTHER_SETTINGS:
            raise BatchConflictError(
                f"{text}, and was started with other settings: cancel it, or set rerun_key to start a new batch",
                **details,
            )
        return decision

    def _count_started_runs(self, batch: Answer) -> int:
        """Count the runs that a FAILED batch has started, at least: its counts may be absent or late."""
        counted = (batch.get("submissionSummary") or {}).get("successfulStartSubmissionCount")
        if counted:
            return int(counted)
        rows = self._wait_out_throttling(
            lambda: list(islice(self.list_runs_in_batch(batch_id=batch["id"], submission_status="SUCCESS"), 100))
        )
        return len(rows)

    def _wait_out_throttling(self, call: Callable[[], T]) -> T:
        """Call until the service does not throttle; anything else that fails is raised."""
        return self._patiently(
            call, max_seconds=_LONGEST_THROTTLING, is_worth_waiting=lambda error: error.http_status == 429
        )
