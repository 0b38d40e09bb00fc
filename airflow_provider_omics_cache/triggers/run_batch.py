"""Triggers that wait for HealthOmics batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.healthomics import completion, end, submission
from airflow_provider_omics_cache.healthomics.failures import parse_allowance
from airflow_provider_omics_cache.healthomics.progress import Progress
from airflow_provider_omics_cache.healthomics.rounds import (
    TRUST_SECONDS,
    Batch,
    BatchWait,
    Event,
    EventStatus,
    FirstSeen,
    RunsWait,
    count_active,
)
from airflow_provider_omics_cache.healthomics.states import Verdict
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.triggers.poller import GET_BATCH, GET_RUN
from airflow_provider_omics_cache.triggers.waiting import CancellingTrigger, WaitTrigger


class BatchTrigger(WaitTrigger):
    """Calls GetBatch until the wait is over, then fires one event.

    A trigger does not cancel a batch, except :class:`StartRunBatchTrigger` when its task is killed.

    :param batch_id: id of the batch.
    :param runs_wait: active runs of a batch that has ended, in the JSON form of
        :class:`~airflow_provider_omics_cache.healthomics.rounds.RunsWait`. The trigger waits for their end first, with
        one GetRun a round. Default: none.
    :param first_seen: the status in which the task last saw the batch, and when it first saw that status, in the JSON
        form of :class:`~airflow_provider_omics_cache.healthomics.rounds.FirstSeen`. The event carries it. Default:
        none.
    :param kwargs: arguments of :class:`~airflow_provider_omics_cache.triggers.waiting.WaitTrigger`.
    """

    kind = Batch
    operation = GET_BATCH
    _trusted_until = 0.0

    @staticmethod
    @abstractmethod
    def decide(batch: Batch) -> Verdict:
        """Decide what GetBatch's answer means for the wait."""

    @classmethod
    def decision(cls, max_failed: int | str | None = None) -> Callable[[Batch], Verdict]:
        """Return the function that decides what GetBatch's answer means for the wait.

        :param max_failed: how many failures are allowed before the wait ends early: a number, or a share such as
            ``"5%"``. None: the wait does not end early.
        """
        return cls.decide

    @staticmethod
    @abstractmethod
    def progress(batch: Batch) -> Progress:
        """Describe the progress of the batch, for the log."""

    def __init__(
        self,
        *,
        batch_id: str,
        runs_wait: dict[str, Any] | None = None,
        first_seen: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.batch_id = batch_id
        self.runs_wait = runs_wait
        self.first_seen = first_seen

    @property
    def subject_id(self) -> str:
        """Id of the batch."""
        return self.batch_id

    def serialized_wait(self) -> dict[str, Any]:
        """Return the keyword arguments that only a trigger of a batch takes."""
        return {
            "batch_id": self.batch_id,
            "runs_wait": self.runs_wait,
            **({"first_seen": self.first_seen} if self.first_seen else {}),
        }

    def new_wait(self) -> BatchWait:
        """Return the wait of this trigger."""
        return BatchWait(
            batch_id=self.batch_id,
            decide=self._decision(),
            progress=self.progress,
            max_silence=self.max_silence,
            deadline=self.deadline,
        )

    def _decision(self) -> Callable[[Batch], Verdict]:
        return self.decision()

    def completed(self, event: Event) -> Event:
        """Return the event with ``first_seen``.

        :param event: the end of the wait.
        """
        return replace(event, first_seen=FirstSeen.from_json(self.first_seen))

    def continues(self, event: Event) -> bool:
        """Return whether to wait longer, because trusted counts of a batch that has ended show active runs.

        :param event: the end of the wait.
        """
        is_trusted = event.status == EventStatus.FAILED and timing.time() < self._trusted_until
        return bool(is_trusted and event.batch and count_active(event.batch))

    async def wait_before_rounds(self) -> None:
        """Wait for the active runs of a batch that has ended."""
        trusts_counts = await self._wait_for_runs()
        self._trusted_until = timing.time() + TRUST_SECONDS if trusts_counts else 0.0

    async def _wait_for_runs(self) -> bool:
        """Wait until the active runs have ended. Return True if GetRun is refused and cannot show it."""
        wait = RunsWait.from_json(self.runs_wait, batch_id=self.batch_id, max_silence=self.max_silence)
        is_first = True
        while run_id := wait.run_id:
            async with self._watch(run_id, GET_RUN, at_once=not is_first) as watcher:
                is_first = False
                while wait.run_id == run_id:
                    outcome = await watcher.next_outcome()
                    if isinstance(outcome, OmicsApiError):
                        wait.failed(outcome, timing.time())
                    elif outcome is not None:
                        wait.answered(outcome, timing.time())
                    if outcome is None or (self.deadline is not None and timing.time() >= self.deadline):
                        return False
        return wait.is_refused


class FailFastTrigger(BatchTrigger):
    """Calls GetBatch until the wait is over, or until it counts too many failures; see :class:`BatchTrigger`.

    :param max_failed: how many failures are allowed before the wait ends early: a number, or a share of all runs such
        as ``"5%"``. Default: the wait does not end early.
    """

    decide: ClassVar[Callable[..., Verdict]]

    def __init__(self, *, max_failed: int | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_failed = max_failed

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the keyword arguments from which Airflow recreates this trigger."""
        path, kwargs = super().serialize()
        return path, kwargs if self.max_failed is None else {**kwargs, "max_failed": self.max_failed}

    @classmethod
    def decision(cls, max_failed: int | str | None = None) -> Callable[[Batch], Verdict]:
        """Return the function that decides what GetBatch's answer means for the wait.

        :param max_failed: how many failures are allowed before the wait ends early: a number, or a share such as
            ``"5%"``. None: the wait does not end early.
        """
        return cls.decide if max_failed is None else partial(cls.decide, max_failed=parse_allowance(max_failed))

    def _decision(self) -> Callable[[Batch], Verdict]:
        return self.decision(self.max_failed)


class BatchSubmissionTrigger(FailFastTrigger):
    """Waits until every run of a batch was submitted; see :class:`FailFastTrigger`."""

    decide = staticmethod(submission.decide)
    progress = staticmethod(submission.progress)


class BatchCompletionTrigger(FailFastTrigger):
    """Waits until every run of a batch has ended; see :class:`FailFastTrigger`."""

    decide = staticmethod(completion.decide)
    progress = staticmethod(completion.progress)


class StartRunBatchTrigger(CancellingTrigger, BatchCompletionTrigger):
    """Waits for the batch that StartRunBatchOperator started; can cancel it when the task is killed.

    :param cancel_on_kill: cancel the batch when the deferred task is marked or cleared (Airflow 3.3 and newer).
        Default False.
    """

    def cancel(self, hook: OmicsCacheHook) -> None:
        """Cancel the batch. Log an error, and do not raise it.

        :param hook: the hook.
        """
        end.cancel_batch_of_killed_task(hook, self.batch_id)


class BatchCancellationTrigger(BatchTrigger):
    """Waits until a batch that was cancelled has stopped; see :class:`BatchTrigger`."""

    decide = staticmethod(end.decide_cancellation)
    progress = staticmethod(end.progress)


class BatchDeletionTrigger(BatchTrigger):
    """Waits until the runs of a batch were deleted; see :class:`BatchTrigger`."""

    decide = staticmethod(end.decide_deletion)
    progress = staticmethod(end.progress)
