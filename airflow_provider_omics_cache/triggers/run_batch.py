"""Triggers that wait for HealthOmics batches."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_omics_cache._compat import task_state
from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.healthomics import completion, end, submission
from airflow_provider_omics_cache.healthomics.rounds import Batch, BatchWait, Event, EventStatus, Verdict
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook, api_error
from airflow_provider_omics_cache.triggers.clients import Connection
from airflow_provider_omics_cache.triggers.poller import shared_poller


class BatchTrigger(BaseTrigger):
    """Asks GetBatch until the wait is over, then fires one event.

    The event is a :class:`~airflow_provider_omics_cache.healthomics.rounds.Event` as a dict.
    A trigger never cancels a batch. Keyword arguments that this version does not know are ignored, so that a trigger
    row survives an upgrade.

    :param batch_id: the batch.
    :param poke_interval: seconds between two rounds, at least 1. Default 60.
    :param deadline: when the wait ends at the latest, in epoch seconds. Default: never.
    :param max_silence: how many seconds may pass without an answer. Default 3600.
    :param aws_conn_id: the Airflow connection.
    :param region_name: AWS Region.
    :param verify: whether or how to verify certificates.
    :param botocore_config: options of botocore's client.
    """

    @staticmethod
    @abstractmethod
    def decide(batch: Batch) -> Verdict:
        """Decide what GetBatch's answer means for the wait."""

    @staticmethod
    @abstractmethod
    def progress(batch: Batch) -> str:
        """Say how far the batch is, for the log."""

    def __init__(
        self,
        *,
        batch_id: str,
        poke_interval: float = 60,
        deadline: float | None = None,
        max_silence: float = 3600,
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
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the class path and the keyword arguments that make this trigger again."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "batch_id": self.batch_id,
            "poke_interval": self.poke_interval,
            "deadline": self.deadline,
            "max_silence": self.max_silence,
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
            event = await self._wait(wait)
        except Exception as error:
            self.log.exception("Waiting for batch %s failed", self.batch_id)
            failure = api_error(error, "GetBatch", self.region_name)
            event = Event(
                status=EventStatus.ERROR,
                message=str(failure),
                code=failure.code,
                deadline=self.deadline,
                batch={"id": self.batch_id},
            )
        yield TriggerEvent(event.to_json())

    async def _wait(self, wait: BatchWait) -> Event:
        async with shared_poller().watch(
            batch_id=self.batch_id,
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
    """Waits until every run of a batch has been submitted; see :class:`BatchTrigger`."""

    decide = staticmethod(submission.decide)
    progress = staticmethod(submission.progress)


class BatchCompletionTrigger(BatchTrigger):
    """Waits until every run of a batch has ended; see :class:`BatchTrigger`."""

    decide = staticmethod(completion.decide)
    progress = staticmethod(completion.progress)


class StartRunBatchTrigger(BatchCompletionTrigger):
    """Waits for the batch that an operator has started, and cancels it if its author says so and its task is killed.

    :param cancel_on_kill: cancel the batch when somebody marks the deferred task or clears it (Airflow 3.3 and
        later). Default False.
    """

    def __init__(self, *, cancel_on_kill: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the class path and the keyword arguments that make this trigger again."""
        path, kwargs = super().serialize()
        return path, {**kwargs, "cancel_on_kill": self.cancel_on_kill}

    async def on_kill(self) -> None:
        """Cancel the batch, if that is wanted; what goes wrong is logged."""
        if self.cancel_on_kill:
            # In a thread of its own: other tasks that are killed at the same time cannot wait for this one.
            await sync_to_async(self._cancel, thread_sensitive=False)()

    def _cancel(self) -> None:
        if self._is_still_deferred():
            self.log.info("Nobody has killed the task: another triggerer waits for batch %s now", self.batch_id)
            return
        hook = OmicsCacheHook(
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            config=self.botocore_config,
        )
        hook.cancel_batch_of_killed_task(batch_id=self.batch_id)

    def _is_still_deferred(self) -> bool:
        """Whether the trigger was stopped for another reason than a kill.

        A triggerer that comes back after a pause takes triggers that another has taken over for killed ones.
        """
        try:
            return task_state(self.task_instance) == "deferred"
        except Exception as error:
            self.log.warning("Airflow does not tell the state of the task, which counts as killed: %r", error)
            return False


class BatchCancellationTrigger(BatchTrigger):
    """Waits until a batch that somebody cancels has stopped; see :class:`BatchTrigger`."""

    decide = staticmethod(end.decide_cancellation)
    progress = staticmethod(end.progress)


class BatchDeletionTrigger(BatchTrigger):
    """Waits until the runs of a batch have been deleted; see :class:`BatchTrigger`."""

    decide = staticmethod(end.decide_deletion)
    progress = staticmethod(end.progress)
