"""What tasks that wait for a batch have in common: rounds, deadlines, deferral."""

from __future__ import annotations

import importlib.util
import math
import time
from abc import abstractmethod
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator

from airflow_provider_omics_cache._compat import AirflowOptionalProviderFeatureException, PokeReturnValue, conf
from airflow_provider_omics_cache.exceptions import (
    BatchNotFoundError,
    BatchSilenceError,
    BatchTimeoutError,
    OmicsApiError,
    OmicsParameterError,
    TriggerEventError,
)
from airflow_provider_omics_cache.healthomics import rounds
from airflow_provider_omics_cache.healthomics.rounds import SHORTEST_INTERVAL, Batch, BatchWait, Event, EventStatus
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook, check_id
from airflow_provider_omics_cache.links.omics import OmicsBatchLink, OmicsLogGroupLink, persist_links
from airflow_provider_omics_cache.triggers.run_batch import BatchTrigger

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.utils.mixins import AwsBaseHookMixin
    from airflow.sdk import BaseOperatorLink, Context

    _AwsTask = AwsBaseHookMixin[OmicsCacheHook]
else:
    _AwsTask = object

#: The trigger ends the wait at its deadline; Airflow's own timeout stands behind it.
DEFER_TIMEOUT_MARGIN = 300

#: Seconds for which a task that resumes at its deadline tries to ask about its batch once more.
LAST_LOOK_SECONDS = 20

#: Airflow 2 stops a deferred task at its execution timeout: the wait ends so much earlier, or a tenth of it.
EXECUTION_TIMEOUT_MARGIN = 60

WEEK = 7 * 24 * 3600


class BatchWaitMixin(_AwsTask):
    """Wait for a batch in rounds of one GetBatch, in this process or in the triggerer.

    The wait ends in the same :class:`~airflow_provider_omics_cache.healthomics.rounds.Event` in both,
    which :meth:`conclude` turns into a result or an error.
    """

    trigger_class: ClassVar[type[BatchTrigger]]

    batch_id: str
    max_silence: float
    deferrable: bool
    timeout: float
    execution_timeout: timedelta | None
    defer: Callable[..., Any]
    do_xcom_push: bool
    log: Any

    operator_extra_links: Collection[BaseOperatorLink] = (OmicsBatchLink(), OmicsLogGroupLink())

    _wait: BatchWait | None = None
    _has_links = False

    def check_parameters(self) -> None:
        """Refuse bad parameters before the first call.

        :raises OmicsParameterError: naming the parameter, the rule and the value.
        """
        self.batch_id = check_id("batch_id", self.batch_id)

    @abstractmethod
    def conclude(self, batch: Batch, context: Context, *, has_failed: bool) -> PokeReturnValue | None:
        """Turn the end of the wait into the task's result.

        :param batch: the batch as it was seen last.
        :param context: Airflow's context of the task.
        :param has_failed: the batch will never become what is waited for.
        :return: the result, or None when the service has to catch up first.
        """

    @property
    @abstractmethod
    def interval(self) -> float:
        """Seconds between two rounds."""

    @abstractmethod
    def timeout_error(self, message: str) -> Exception:
        """Give the error of a wait that has reached its deadline.

        :param message: what was waited for.
        """

    def give_up(self, message: str) -> Exception:
        """Do what is to be done at the deadline; give the error.

        :param message: what was waited for.
        """
        return self.timeout_error(message)

    def trigger_arguments(self) -> dict[str, Any]:
        """Give what the trigger needs beyond the wait itself."""
        return {}

    def _started(self, context: Context) -> float:
        """When the wait began, in epoch seconds."""
        started = context["ti"].start_date
        return started.timestamp() if started else time.time()

    def _deadline(self, context: Context) -> float:
        """When the wait ends at the latest.

        ``execution_timeout`` holds for one process where the task is not deferred, and Airflow sees to it. Of a
        deferred task it ends the wait a little early, since Airflow 2 would not let the task resume after it.
        """
        seconds = self.timeout
        if self.deferrable and self.execution_timeout:
            allowed = self.execution_timeout.total_seconds()
            seconds = min(seconds, allowed - min(EXECUTION_TIMEOUT_MARGIN, allowed / 10))
        return self._started(context) + seconds

    def _is_first_round(self, context: Context) -> bool:
        return True

    def _started_wait(self, context: Context) -> BatchWait:
        if self._wait is None:
            self.check_parameters()
            self._wait = self._new_wait(self._deadline(context), first_round=self._is_first_round(context))
        return self._wait

    def _new_wait(self, deadline: float | None, *, first_round: bool = False) -> BatchWait:
        return BatchWait(
            batch_id=self.batch_id,
            decide=self.trigger_class.decide,
            progress=self.trigger_class.progress,
            max_silence=self.max_silence,
            deadline=deadline,
            first_round=first_round,
        )

    def _round(self, context: Context) -> Event | None:
        wait = self._started_wait(context)
        try:
            answer = self.hook.get_batch(batch_id=wait.batch_id)
        except OmicsApiError as error:
            event = wait.failed(error, time.time())
            if event:
                raise self._error(event, error) from error.__cause__
        else:
            event = wait.answered(answer, time.time())
        if not self._has_links:
            self._has_links = True
            persist_links(context, self)
        self._log_lines(wait)
        return event

    def _log_lines(self, wait: BatchWait) -> None:
        for level, line in wait.take_lines():
            self.log.log(level, "%s", line)

    def _look(self, context: Context) -> PokeReturnValue | None:
        event = self._round(context)
        return self._conclude(event, context) if event else None

    def _conclude(self, event: Event, context: Context) -> PokeReturnValue | None:
        if event.status == EventStatus.TIMEOUT:
            event = self._last_look(event)
        if event.status == EventStatus.TIMEOUT:
            raise self.give_up(event.message)
        if event.status == EventStatus.ERROR:
            raise self._error(event)
        batch = Batch.from_json(event.batch or {}, failure_reason=event.message)
        return self.conclude(batch, context, has_failed=event.status == EventStatus.FAILED)

    def _event_of_a_late_trigger(self) -> dict[str, Any]:
        return Event(
            status=EventStatus.TIMEOUT,
            message=f"batch {self.batch_id}: the trigger did not end the wait in time",
            code=rounds.DEADLINE,
            deadline=time.time(),
            batch={"id": str(self.batch_id)},
        ).to_json()

    def _last_look(self, overdue: Event) -> Event:
        """Ask once more at the deadline: a triggerer that was away or busy has not seen the batch of late."""
        wait = self._new_wait(overdue.deadline)
        try:
            answer = self.hook.get_batch_patiently(batch_id=self.batch_id, max_seconds=LAST_LOOK_SECONDS)
        except Exception as error:
            if isinstance(error, OmicsApiError) and error.code == "ResourceNotFoundException":
                return replace(overdue, status=EventStatus.ERROR, message=str(error), code=rounds.NOT_FOUND)
            self.log.warning("The last look at batch %s failed: %s", self.batch_id, error)
            return overdue
        event = wait.answered(answer, time.time()) or wait.overdue(time.time()) or overdue
        self._log_lines(wait)
        return event

    def _resume(self, event: dict[str, Any] | None) -> Event:
        """Read the trigger's event, which has to be about this task's batch."""
        try:
            parsed = Event.from_json(event)
        except ValueError as error:
            raise TriggerEventError(str(error), batch_id=self.batch_id) from error
        if parsed.batch_id not in {None, self.batch_id}:
            raise TriggerEventError(
                f"the trigger's event is about batch {parsed.batch_id}, not {self.batch_id}", batch_id=self.batch_id
            )
        return parsed

    def _defer_again(self, event: Event, context: Context) -> None:
        """Defer until the deadline that the event has brought back."""
        deadline = event.deadline or self._deadline(context)
        if time.time() >= deadline:
            raise self.give_up(f"batch {self.batch_id}: the deadline has passed and runs are missing")
        self._defer(deadline)

    def _defer(self, deadline: float) -> None:
        check_aiobotocore()
        remaining = max(0.0, deadline - time.time())
        self.defer(
            trigger=self.trigger_class(
                batch_id=self.batch_id,
                poke_interval=self.interval,
                deadline=deadline,
                max_silence=self.max_silence,
                aws_conn_id=self.aws_conn_id,
                region_name=self.region_name,
                verify=self.verify,
                botocore_config=self.botocore_config,
                **self.trigger_arguments(),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=remaining + DEFER_TIMEOUT_MARGIN),
        )

    def _error(self, event: Event, failure: OmicsApiError | None = None) -> Exception:
        if event.code == rounds.NOT_FOUND:
            account = None
            with suppress(Exception):
                account = self.hook.account_id
            return BatchNotFoundError(
                f"batch {self.batch_id} is not found in account {account or 'unknown'}, "
                f"Region {self.hook.conn_region_name}, connection {self.aws_conn_id!r}: {event.message}",
                batch_id=self.batch_id,
            )
        if event.code == rounds.SILENCE:
            return BatchSilenceError(event.message, batch_id=self.batch_id)
        failure = failure or OmicsApiError(event.message, code=event.code, operation="GetBatch")
        return failure.with_text(event.message, batch_id=self.batch_id)


class BatchWaitOperator(BatchWaitMixin, AwsBaseOperator[OmicsCacheHook]):
    """Base of the operators that wait for a batch."""

    aws_hook_class = OmicsCacheHook

    _sleep: Callable[[float], None] = staticmethod(time.sleep)

    def __init__(
        self,
        *,
        waiter_delay: float | timedelta = 60,
        timeout: float | timedelta = WEEK,
        max_silence: float | timedelta = 3600,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.waiter_delay = seconds("waiter_delay", waiter_delay)
        self.timeout = seconds("timeout", timeout)
        self.max_silence = seconds("max_silence", max_silence)
        self.deferrable = deferrable

    @property
    def interval(self) -> float:
        """Seconds between two rounds."""
        return max(SHORTEST_INTERVAL, self.waiter_delay)

    def timeout_error(self, message: str) -> Exception:
        """Give the error of a wait that has reached its deadline: a retry may go on waiting."""
        return BatchTimeoutError(message, batch_id=self.batch_id)

    def wait(self, context: Context) -> Any:
        """Wait in this process, or defer.

        :param context: Airflow's context of the task.
        :return: what :meth:`conclude` gives.
        """
        result = self._look(context)
        if result is None and self.deferrable:
            self._defer(self._deadline(context))
        while result is None:
            wait = self._started_wait(context)
            self._sleep(min(self.interval, max(0.0, (wait.deadline or math.inf) - time.time())))
            result = self._look(context)
            overdue = wait.overdue(time.time())
            if result is None and overdue:
                raise self.give_up(overdue.message)
        return result.xcom_value

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after deferral; one that Airflow has ended has reached the deadline."""
        if is_deferral_timeout(next_method, next_kwargs):
            return self.execute_complete(context, self._event_of_a_late_trigger())
        return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Conclude with the trigger's event; defer again when the service has to catch up."""
        parsed = self._resume(event)
        result = self._conclude(parsed, context)
        if result is None:
            self._defer_again(parsed, context)
            return None
        return result.xcom_value


def check_aiobotocore() -> None:
    """Refuse to defer where the triggerer could not make its calls.

    :raises AirflowOptionalProviderFeatureException: aiobotocore is not installed.
    """
    if importlib.util.find_spec("aiobotocore") is None:
        raise AirflowOptionalProviderFeatureException(
            "deferrable=True needs aiobotocore: install airflow-provider-omics-cache[batch]"
        )


def is_deferral_timeout(next_method: str, next_kwargs: dict[str, Any] | None) -> bool:
    """Tell whether Airflow resumes a task only to say that its trigger has not fired in time.

    :param next_method: what Airflow resumes the task with.
    :param next_kwargs: the arguments of that.
    """
    return next_method == "__fail__" and "timeout" in str((next_kwargs or {}).get("error", "")).lower()


def seconds(parameter: str, value: float | timedelta) -> float:
    """Read a duration.

    :param parameter: name of the parameter, for the error.
    :param value: seconds, or a timedelta.
    :raises OmicsParameterError: the value is neither.
    """
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < math.inf:
        raise OmicsParameterError(parameter, "must be a number of seconds from 0, or a timedelta", value)
    return number
