"""Base of the triggers: one wait, deferral and event for a batch or a single run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache._compat import task_state
from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.healthomics.awaited_run import Run
from airflow_provider_omics_cache.healthomics.rounds import Batch, Event, EventStatus, Wait
from airflow_provider_omics_cache.hooks.client import LONGEST_SILENCE
from airflow_provider_omics_cache.hooks.errors import api_error
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.redaction import printable
from airflow_provider_omics_cache.triggers.clients import Connection
from airflow_provider_omics_cache.triggers.poller import Operation, Watcher, shared_poller


class WaitTrigger(BaseTrigger):
    """Makes a call until the wait is over, then fires one event.

    The event is an :class:`~airflow_provider_omics_cache.healthomics.rounds.Event` as a dict. Keyword arguments that
    this version does not know are ignored, so that a trigger row survives an upgrade.

    :param poke_interval: seconds between two rounds, at least 1. Default 60.
    :param deadline: when the wait ends at the latest, in epoch seconds. Default: no limit.
    :param max_silence: seconds without an answer after which the wait ends. Default 3600.
    :param aws_conn_id: Airflow connection for AWS. Default ``aws_default``.
    :param region_name: AWS Region. Default: the connection's.
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True.
    :param botocore_config: settings of the botocore client.
    """

    #: What the trigger waits for.
    kind: ClassVar[type[Batch] | type[Run]]
    #: The operation of a round.
    operation: ClassVar[Operation]

    def __init__(
        self,
        *,
        poke_interval: float = 60,
        deadline: float | None = None,
        max_silence: float = LONGEST_SILENCE,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.poke_interval = poke_interval
        self.deadline = deadline
        self.max_silence = max_silence
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config

    @property
    @abstractmethod
    def subject_id(self) -> str:
        """Id of the batch or run."""

    @abstractmethod
    def new_wait(self) -> Wait[Any]:
        """Return the wait of this trigger."""

    @abstractmethod
    def serialized_wait(self) -> dict[str, Any]:
        """Return the keyword arguments that only this kind of trigger takes."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the keyword arguments from which Airflow recreates this trigger."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            **self.serialized_wait(),
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
        try:
            async with shared_poller().hold(Connection.of(self._hook_parameters)):
                await self.wait_before_rounds()
                event = await self._wait(self.new_wait())
        except Exception as error:
            self.log.error("%s %s: the wait failed", self.kind.noun, self.subject_id, exc_info=printable(error))
            failure = api_error(error, self.kind.operation, self.region_name)
            subject: dict[str, Any] = {self.kind.key: self.kind(id=self.subject_id)}
            event = Event(
                status=EventStatus.ERROR,
                message=str(failure),
                code=failure.code,
                deadline=self.deadline,
                **subject,
            )
        yield TriggerEvent(self.completed(event).to_json())

    async def wait_before_rounds(self) -> None:
        """Wait for something else before the first round. Default: do not wait."""

    def continues(self, event: Event) -> bool:
        """Whether the wait continues although a round has ended it. Default: it does not.

        :param event: the end of the wait.
        """
        return False

    def completed(self, event: Event) -> Event:
        """Return the event with the further members that it must have.

        :param event: the end of the wait.
        """
        return event

    def _watch(self, subject_id: str, operation: Operation, **arguments: Any) -> AbstractAsyncContextManager[Watcher]:
        return shared_poller().watch(
            subject_id,
            operation=operation,
            interval=self.poke_interval,
            deadline=self.deadline,
            connection=Connection.of(self._hook_parameters),
            **arguments,
        )

    async def _wait(self, wait: Wait[Any]) -> Event:
        async with self._watch(self.subject_id, self.operation) as watcher:
            while True:
                outcome = await watcher.next_outcome()
                event = None
                if isinstance(outcome, OmicsApiError):
                    event = wait.failed(outcome, timing.time())
                elif outcome is not None:
                    event = wait.answered(outcome, timing.time())
                for level, line in wait.take_lines():
                    self.log.log(level, "%s", line)
                if event and self.continues(event):
                    event = None
                event = event or wait.overdue(timing.time())
                if event:
                    return event


class CancellingTrigger(WaitTrigger):
    """Waits for the batch or run that its task has started; can cancel it when the task is killed.

    :param cancel_on_kill: cancel it when the deferred task is marked or cleared (Airflow 3.3 and newer). Default False.
    """

    def __init__(self, *, cancel_on_kill: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the keyword arguments from which Airflow recreates this trigger."""
        path, kwargs = super().serialize()
        return path, {**kwargs, "cancel_on_kill": self.cancel_on_kill}

    @abstractmethod
    def cancel(self, hook: OmicsCacheHook) -> None:
        """Cancel the batch or run that the task has started. Log an error, and do not raise it.

        :param hook: the hook.
        """

    async def on_kill(self) -> None:
        """Cancel the batch or run if ``cancel_on_kill`` is set. Errors are logged."""
        if self.cancel_on_kill:
            # In a thread, so that other tasks that are killed at the same time do not wait for this one.
            await sync_to_async(self._cancel, thread_sensitive=False)()

    def _cancel(self) -> None:
        if self._is_still_deferred():
            self.log.info(
                "%s %s is not cancelled: the task was not killed, and another triggerer waits",
                self.kind.noun,
                self.subject_id,
            )
            return
        hook = OmicsCacheHook(
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            config=self.botocore_config,
        )
        self.cancel(hook)

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
