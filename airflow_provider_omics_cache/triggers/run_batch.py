"""Triggers that wait for HealthOmics batches."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_omics_cache._compat import task_state
from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.healthomics import completion, end, submission
from airflow_provider_omics_cache.healthomics.batch_runs import is_active
from airflow_provider_omics_cache.healthomics.rounds import Batch, BatchWait, Event, EventStatus
from airflow_provider_omics_cache.healthomics.states import Verdict
from airflow_provider_omics_cache.hooks.errors import api_error
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.triggers.clients import Connection
from airflow_provider_omics_cache.triggers.poller import GET_RUN, shared_poller


class BatchTrigger(BaseTrigger):
    """Asks GetBatch until the wait is over, then fires one event.

    The event is a :class:`~airflow_provider_omics_cache.healthomics.rounds.Event` as a dict. A trigger never cancels a
    batch. Keyword arguments that this version does not know are ignored, so that a trigger row survives an upgrade.

    :param batch_id: id of the batch.
    :param poke_interval: seconds between two rounds, at least 1. Default 60.
    :param deadline: when the wait ends at the latest, in epoch seconds. Default: never.
    :param max_silence: seconds without an answer after which the wait ends. Default 3600.
    :param active_run_ids: ids of runs of a batch that has ended. The trigger first waits until these runs have ended
        (one GetRun a round). Default: none.
    :param aws_conn_id: Airflow connection for AWS. Default ``aws_default``.
    :param region_name: AWS Region. Default: the connection's.
    :param verify: whether, or with which CA bundle, TLS certificates are verified.
    :param botocore_config: settings of the botocore client.
    """

    @staticmethod
    @abstractmethod
    def decide(batch: Batch) -> Verdict:
        """Decide what GetBatch's answer means for the wait."""

    @staticmethod
    @abstractmethod
    def progress(batch: Batch) -> str:
        """Describe how far the batch is, for the log."""

    def __init__(
        self,
        *,
        batch_id: str,
        poke_interval: float = 60,
        deadline: float | None = None,
        max_silence: float = 3600,
        active_run_ids: Sequence[str] | None = None,
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
        self.active_run_ids = list(active_run_ids or ())
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the keyword arguments that make this trigger again."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "batch_id": self.batch_id,
            "poke_interval": self.poke_interval,
            "deadline": self.deadline,
            "max_silence": self.max_silence,
            "active_run_ids": self.active_run_ids,
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
            decide=self.decide,
            progress=self.progress,
            max_silence=self.max_silence,
            deadline=self.deadline,
        )
        try:
            await self._wait_for_runs()
            event = await self._wait(wait)
        except Exception as error:
            self.log.exception("The wait for batch %s failed", self.batch_id)
            failure = api_error(error, "GetBatch", self.region_name)
            event = Event(
                status=EventStatus.ERROR,
                message=str(failure),
                code=failure.code,
                deadline=self.deadline,
                batch=Batch(id=self.batch_id),
            )
        yield TriggerEvent(event.to_json())

    async def _wait_for_runs(self) -> None:
        """Wait until the active runs have ended, one after the other.

        A failure that does not pass, a long silence and the deadline end this wait early. The rounds of GetBatch that
        follow deal with all three.
        """
        for number, run_id in enumerate(self.active_run_ids):
            if not await self._has_ended(run_id, at_once=number > 0):
                return
            self.log.info("Batch %s: run %s has ended", self.batch_id, run_id)

    async def _has_ended(self, run_id: str, *, at_once: bool) -> bool:
        """Wait for the end of a run, and return whether it has ended."""
        silent_since = math.inf
        async with shared_poller().watch(
            run_id,
            operation=GET_RUN,
            interval=self.poke_interval,
            deadline=self.deadline,
            connection=Connection.of(self._hook_parameters),
            at_once=at_once,
        ) as watcher:
            while True:
                outcome = await watcher.next_outcome()
                now = time.time()
                if isinstance(outcome, OmicsApiError):
                    if outcome.is_not_found:
                        return True
                    silent_since = min(silent_since, now)
                    if not outcome.is_passing or now - silent_since >= self.max_silence:
                        self.log.warning("Batch %s: run %s cannot be asked for: %s", self.batch_id, run_id, outcome)
                        return False
                elif outcome is None:
                    return False
                else:
                    silent_since = math.inf
                    is_of_batch = completion.is_same_run({}, outcome, batch_id=self.batch_id)
                    if not is_of_batch or not is_active(outcome):
                        return True
                if self.deadline is not None and now >= self.deadline:
                    return False

    async def _wait(self, wait: BatchWait) -> Event:
        async with shared_poller().watch(
            self.batch_id,
            interval=self.poke_interval,
            deadline=self.deadline,
            connection=Connection.of(self._hook_parameters),
        ) as watcher:
            while True:
                outcome = await watcher.next_outcome()
                event = None
                if isinstance(outcome, OmicsApiError):
                    event = wait.failed(outcome, time.time())
                elif outcome is not None:
                    event = wait.answered(outcome, time.time())
                for level, line in wait.take_lines():
                    self.log.log(level, "%s", line)
                event = event or wait.overdue(time.time())
                if event:
                    return event


class BatchSubmissionTrigger(BatchTrigger):
    """Waits until every run of a batch was submitted; see :class:`BatchTrigger`."""

    decide = staticmethod(submission.decide)
    progress = staticmethod(submission.progress)


class BatchCompletionTrigger(BatchTrigger):
    """Waits until every run of a batch has ended; see :class:`BatchTrigger`."""

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
        """Return the class path and the keyword arguments that make this trigger again."""
        path, kwargs = super().serialize()
        return path, {**kwargs, "cancel_on_kill": self.cancel_on_kill}

    async def on_kill(self) -> None:
        """Cancel the batch if ``cancel_on_kill`` is set. Errors are logged."""
        if self.cancel_on_kill:
            # In a thread: other tasks that are killed at the same time must not wait for this one.
            await sync_to_async(self._cancel, thread_sensitive=False)()

    def _cancel(self) -> None:
        if self._is_still_deferred():
            self.log.info("Batch %s is not cancelled: the task was not killed, another triggerer waits", self.batch_id)
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

        When a triggerer comes back after a pause, Airflow reports triggers that another one has taken over as killed.
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
