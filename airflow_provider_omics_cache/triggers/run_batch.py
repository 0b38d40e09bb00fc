"""Triggers that wait for HealthOmics batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache._compat import task_state
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
from airflow_provider_omics_cache.hooks.client import LONGEST_SILENCE
from airflow_provider_omics_cache.hooks.errors import api_error
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.redaction import printable
from airflow_provider_omics_cache.triggers.clients import Connection
from airflow_provider_omics_cache.triggers.poller import GET_RUN, Watcher, shared_poller


class BatchTrigger(BaseTrigger):
    """Calls GetBatch until the wait is over, then fires one event.

    The event is a :class:`~airflow_provider_omics_cache.healthomics.rounds.Event` as a dict. A trigger does not cancel
    a batch, except :class:`StartRunBatchTrigger` when its task is killed. Keyword arguments that this version does not
    know are ignored, so that a trigger row survives an upgrade.

    :param batch_id: id of the batch.
    :param poke_interval: seconds between two rounds, at least 1. Default 60.
    :param deadline: when the wait ends at the latest, in epoch seconds. Default: no limit.
    :param max_silence: seconds without an answer after which the wait ends. Default 3600.
    :param runs_wait: active runs of a batch that has ended, in the JSON form of
        :class:`~airflow_provider_omics_cache.healthomics.rounds.RunsWait`. The trigger waits for their end first, with
        one GetRun a round. Default: none.
    :param first_seen: the status in which the task last saw the batch, and when it first saw that status, in the JSON
        form of :class:`~airflow_provider_omics_cache.healthomics.rounds.FirstSeen`. The event carries it. Default:
        none.
    :param aws_conn_id: Airflow connection for AWS. Default ``aws_default``.
    :param region_name: AWS Region. Default: the connection's.
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True.
    :param botocore_config: settings of the botocore client.
    """

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
        poke_interval: float = 60,
        deadline: float | None = None,
        max_silence: float = LONGEST_SILENCE,
        runs_wait: dict[str, Any] | None = None,
        first_seen: dict[str, Any] | None = None,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch_id = batch_id
        self.poke_interval = poke_interval
        self.deadline = deadline
        self.max_silence = max_silence
        self.runs_wait = runs_wait
        self.first_seen = first_seen
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the keyword arguments from which Airflow recreates this trigger."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "batch_id": self.batch_id,
            "poke_interval": self.poke_interval,
            "deadline": self.deadline,
            "max_silence": self.max_silence,
            "runs_wait": self.runs_wait,
            **({"first_seen": self.first_seen} if self.first_seen else {}),
            **self._hook_parameters,
        }

    @property
    def _hook_parameters(self) -> dict[str, Any]:
        return {
            "aws_conn_id": self.aws_conn_id,
            "region_name": self.region_name,
            "verify": self.verify,
            "botocore_config": self.botocore_config,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event when the wait is over."""
        wait = BatchWait(
            batch_id=self.batch_id,
            decide=self._decision(),
            progress=self.progress,
            max_silence=self.max_silence,
            deadline=self.deadline,
        )
        try:
            async with shared_poller().hold(Connection.of(self._hook_parameters)):
                trusts_counts = await self._wait_for_runs()
                event = await self._wait(wait, trusts_counts=trusts_counts)
        except Exception as error:
            self.log.error("Batch %s: the wait failed", self.batch_id, exc_info=printable(error))
            failure = api_error(error, "GetBatch", self.region_name)
            event = Event(
                status=EventStatus.ERROR,
                message=str(failure),
                code=failure.code,
                deadline=self.deadline,
                batch=Batch(id=self.batch_id),
            )
        first_seen = FirstSeen.from_json(self.first_seen)
        yield TriggerEvent(replace(event, first_seen=first_seen).to_json())

    def _decision(self) -> Callable[[Batch], Verdict]:
        return self.decision()

    def _watch(self, subject_id: str, **arguments: Any) -> AbstractAsyncContextManager[Watcher]:
        return shared_poller().watch(
            subject_id,
            interval=self.poke_interval,
            deadline=self.deadline,
            connection=Connection.of(self._hook_parameters),
            **arguments,
        )

    async def _wait_for_runs(self) -> bool:
        """Wait until the active runs have ended. Return True if GetRun is refused and cannot show it."""
        wait = RunsWait.from_json(self.runs_wait, batch_id=self.batch_id, max_silence=self.max_silence)
        is_first = True
        while run_id := wait.run_id:
            async with self._watch(run_id, operation=GET_RUN, at_once=not is_first) as watcher:
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

    async def _wait(self, wait: BatchWait, *, trusts_counts: bool) -> Event:
        trusted_until = timing.time() + TRUST_SECONDS if trusts_counts else 0.0
        async with self._watch(self.batch_id) as watcher:
            while True:
                outcome = await watcher.next_outcome()
                event = None
                if isinstance(outcome, OmicsApiError):
                    event = wait.failed(outcome, timing.time())
                elif outcome is not None:
                    event = wait.answered(outcome, timing.time())
                for level, line in wait.take_lines():
                    self.log.log(level, "%s", line)
                if event and event.status == EventStatus.FAILED and event.batch and timing.time() < trusted_until:
                    event = None if count_active(event.batch) else event
                event = event or wait.overdue(timing.time())
                if event:
                    return event


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


class StartRunBatchTrigger(BatchCompletionTrigger):
    """Waits for the batch that StartRunBatchOperator started; can cancel it when the task is killed.

    :param cancel_on_kill: cancel the batch when the deferred task is marked or cleared (Airflow 3.3 and newer).
        Default False.
    """

    def __init__(self, *, cancel_on_kill: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the keyword arguments from which Airflow recreates this trigger."""
        path, kwargs = super().serialize()
        return path, {**kwargs, "cancel_on_kill": self.cancel_on_kill}

    async def on_kill(self) -> None:
        """Cancel the batch if ``cancel_on_kill`` is set. Errors are logged."""
        if self.cancel_on_kill:
            # In a thread, so that other tasks that are killed at the same time do not wait for this one.
            await sync_to_async(self._cancel, thread_sensitive=False)()

    def _cancel(self) -> None:
        if self._is_still_deferred():
            self.log.info(
                "Batch %s is not cancelled: the task was not killed, and another triggerer waits", self.batch_id
            )
            return
        hook = OmicsCacheHook(
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            config=self.botocore_config,
        )
        end.cancel_batch_of_killed_task(hook, self.batch_id)

    def _is_still_deferred(self) -> bool:
        """Whether the trigger was stopped although the task was not killed.

        If another triggerer has taken over the triggers of a paused triggerer, Airflow stops them in the
        paused one as if their tasks were killed.
        """
        try:
            return task_state(self.task_instance) == "deferred"
        except Exception as error:
            self.log.warning("Airflow did not report the task's state; assuming that it was killed: %r", error)
            return False


class BatchCancellationTrigger(BatchTrigger):
    """Waits until a batch that was cancelled has stopped; see :class:`BatchTrigger`."""

    decide = staticmethod(end.decide_cancellation)
    progress = staticmethod(end.progress)


class BatchDeletionTrigger(BatchTrigger):
    """Waits until the runs of a batch were deleted; see :class:`BatchTrigger`."""

    decide = staticmethod(end.decide_deletion)
    progress = staticmethod(end.progress)
