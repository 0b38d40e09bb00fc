"""Base of the tasks that wait for a batch or a single run: rounds, deadlines, deferral."""

from __future__ import annotations

import importlib.util
import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, cast

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache._compat import (
    AirflowFailException,
    AirflowOptionalProviderFeatureException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    PokeReturnValue,
    first_reschedule_date,
    show_in_task_state,
)
from airflow_provider_omics_cache.exceptions import (
    BatchNotFoundError,
    BatchSilenceError,
    BatchTimeoutError,
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
    OmicsTimeLimitError,
    TriggerEventError,
)
from airflow_provider_omics_cache.healthomics import rounds
from airflow_provider_omics_cache.healthomics.awaited_run import Run
from airflow_provider_omics_cache.healthomics.end import get_batch_patiently
from airflow_provider_omics_cache.healthomics.rounds import (
    SHORTEST_INTERVAL,
    Awaited,
    Batch,
    BatchWait,
    Event,
    EventStatus,
    RunsWait,
    Wait,
)
from airflow_provider_omics_cache.hooks.arguments import check_deferred_config, check_id
from airflow_provider_omics_cache.hooks.client import LONGEST_SILENCE
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.links.omics import LinkedTask, OmicsBatchLink, OmicsLogGroupLink, persist_links
from airflow_provider_omics_cache.tasks.parameters import DEFAULT_DEFERRABLE, check_flags
from airflow_provider_omics_cache.tasks.silence import keep_silence, kept_silence
from airflow_provider_omics_cache.triggers.run_batch import BatchTrigger

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.utils.mixins import AwsBaseHookMixin
    from airflow.sdk import BaseOperatorLink, Context, XComArg

    AwsTask = AwsBaseHookMixin[OmicsCacheHook]
else:
    AwsTask = object

#: Seconds between the deadline, at which the trigger ends the wait, and Airflow's own timeout of the deferral.
DEFER_TIMEOUT_MARGIN = 300
#: Seconds for which a task that resumes at its deadline repeats its last GetBatch call.
LAST_LOOK_SECONDS = 20
#: Airflow 2 ends a deferred task at its execution timeout. The wait ends earlier, by this number of seconds or by a
#: tenth of the timeout if that is less.
EXECUTION_TIMEOUT_MARGIN = 60
#: Minimum seconds to list the runs at the end of a wait, even if the deadline is nearer or has passed.
LAST_LISTING_SECONDS = 120
#: Seconds for which a rescheduled task keeps its worker slot while no answer about the batch comes.
LONGEST_SLOT_SECONDS = 300
#: Maximum number of active runs that a trigger waits for.
MOST_ACTIVE_RUNS = 100

#: Key of the task state (Airflow 3.3) that shows the progress of the batch.
PROGRESS_KEY = "omics_cache_progress"
#: Default seconds between two rounds.
WAITER_DELAY = 60
WEEK = 7 * 24 * 3600


class WaitErrors(NamedTuple):
    """The error classes of a wait for a batch or a single run.

    :param not_found: the service does not know the batch or run.
    :param silence: no answer came for too long.
    :param timeout: the operator's deadline has come.
    """

    not_found: type[OmicsError]
    silence: type[OmicsError]
    timeout: type[OmicsError]


class WaitTask(LinkedTask, Generic[Awaited], AwsTask):
    """Waits for a batch or a single run in this process or in the triggerer, with one call in each round.

    In both cases the wait ends with an :class:`~airflow_provider_omics_cache.healthomics.rounds.Event`.
    :meth:`conclude` turns the event into a result or an error.
    """

    trigger_class: ClassVar[type[Any]]
    #: What the task waits for.
    kind: ClassVar[type[Batch] | type[Run]]
    #: Name of the attribute with its id.
    id_name: ClassVar[str]
    errors: ClassVar[WaitErrors]

    max_silence: float
    deferrable: bool
    timeout: float
    execution_timeout: timedelta | None
    defer: Callable[..., Any]
    do_xcom_push: bool
    log: Any

    _wait: Wait[Awaited] | None = None
    _has_links = False
    _shown_progress = ""
    #: When the wait began, in epoch seconds. None if it began with the task.
    _began_at: float | None = None
    #: Deadline in epoch seconds, if it is not calculated from the beginning of the wait.
    _fixed_deadline: float | None = None

    def check_parameters(self) -> None:
        """Check the parameters before the first call.

        :raises OmicsParameterError: a parameter breaks a rule.
        """
        setattr(self, self.id_name, check_id(self.id_name, getattr(self, self.id_name)))

    @property
    def subject_id(self) -> str:
        """Id of the batch or run that the task waits for."""
        return str(getattr(self, self.id_name))

    @property
    def subject_title(self) -> str:
        """The batch or run, as messages name it."""
        return f"{self.kind.noun} {self.subject_id}"

    @property
    def _details(self) -> dict[str, Any]:
        """Attribute of an error that names the batch or run."""
        return {self.id_name: self.subject_id}

    def link_members(self) -> dict[str, str]:
        """Return the values of the task's links."""
        return {self.id_name: self.subject_id}

    @abstractmethod
    def get(self) -> dict[str, Any]:
        """Call GetBatch or GetRun once."""

    @abstractmethod
    def get_at_deadline(self) -> dict[str, Any]:
        """Call GetBatch or GetRun once more when the deadline has come, for up to :data:`LAST_LOOK_SECONDS`."""

    @abstractmethod
    def conclude(self, subject: Awaited, context: Context, *, has_failed: bool) -> PokeReturnValue | None:
        """Turn the end of the wait into the task's result.

        :param subject: the batch or run, as the service showed it last.
        :param context: Airflow's context of the task.
        :param has_failed: whether the batch or run can no longer reach the state that the task waits for.
        :return: the result, None to continue the wait.
        """

    @property
    @abstractmethod
    def interval(self) -> float:
        """Seconds between two rounds."""

    @abstractmethod
    def timeout_error(self, message: str) -> Exception:
        """Return the error for a wait that has reached its deadline.

        :param message: what the task was waiting for.
        """

    def give_up(self, message: str) -> Exception:
        """Handle the deadline of the task, and return the error to raise.

        :param message: what the task was waiting for.
        """
        return self.timeout_error(message)

    def trigger_arguments(self) -> dict[str, Any]:
        """Return the arguments that only this task's trigger takes."""
        return {}

    @abstractmethod
    def new_wait(self, **arguments: Any) -> Wait[Awaited]:
        """Return a new wait.

        :param arguments: arguments of :class:`~airflow_provider_omics_cache.healthomics.rounds.Wait`.
        """

    def waits_before_round(self) -> bool:
        """Whether the task waits for something else before its next call. Default: it does not."""
        return False

    def _task_started_at(self, context: Context) -> float:
        started = context["ti"].start_date
        return timing.at(started) if started else timing.time()

    def _wait_began_at(self, context: Context) -> float:
        """Return when the wait began, in epoch seconds."""
        return self._task_started_at(context) if self._began_at is None else self._began_at

    def _longest_run(self) -> float:
        """Return for how many seconds the task may run, including the wait.

        ``execution_timeout`` of a task that is not deferred limits each process; Airflow enforces it. For a deferred
        task it ends the wait a little early, because Airflow 2 does not resume a task after its execution timeout.
        """
        if not (self.deferrable and self.execution_timeout):
            return math.inf
        seconds = self.execution_timeout.total_seconds()
        return seconds - min(EXECUTION_TIMEOUT_MARGIN, seconds / 10)

    def _deadline(self, context: Context) -> float:
        """Return when the wait ends at the latest, in epoch seconds."""
        if self._fixed_deadline is not None:
            return self._fixed_deadline
        return min(self._wait_began_at(context) + self.timeout, self._task_started_at(context) + self._longest_run())

    @property
    def must_trust_counts(self) -> bool:
        """Whether each round is made by a new process, which cannot remember the active runs of a batch."""
        return False

    def _is_first_round(self, context: Context) -> bool:
        return "omics" not in self.hook.answered

    def _started_wait(self, context: Context) -> Wait[Awaited]:
        if self._wait is None:
            self.check_parameters()
            self._wait = self._new_wait(self._deadline(context), first_round=self._is_first_round(context))
        return self._wait

    def _new_wait(self, deadline: float | None, *, first_round: bool = False) -> Wait[Awaited]:
        return self.new_wait(max_silence=self.max_silence, deadline=deadline, first_round=first_round)

    def _round(self, context: Context) -> Event | None:
        wait = self._started_wait(context)
        if self.waits_before_round():
            return None
        try:
            answer = self.get()
        except OmicsApiError as error:
            event = wait.failed(error, timing.time())
            if event:
                self._note_end(event, context)
                raise self._error(event, error) from error.__cause__
        else:
            event = wait.answered(answer, timing.time())
        if not self._has_links:
            self._has_links = True
            persist_links(context, self, **self.link_members())
        self._log_lines(wait)
        self._show_progress(context, wait.shown_progress)
        return event

    def _log_lines(self, wait: Wait[Awaited]) -> None:
        for level, line in wait.take_lines():
            self.log.log(level, "%s", line)

    def _show_progress(self, context: Context, text: str) -> None:
        """Show the progress in Airflow's task state store if it has changed. An error never fails the task."""
        if text and text != self._shown_progress:
            self._shown_progress = text
            try:
                show_in_task_state(context, PROGRESS_KEY, text)
            except Exception as error:
                self.log.debug("%s: Airflow did not store its progress: %s", self.subject_title, error)

    def _look(self, context: Context) -> PokeReturnValue | None:
        event = self._round(context)
        return self._conclude(event, context) if event else None

    def _conclude(self, event: Event, context: Context) -> PokeReturnValue | None:
        if event.status == EventStatus.TIMEOUT:
            event = self._last_look(event)
        if event.status == EventStatus.TIMEOUT:
            raise self._give_up(event, context)
        self._note_end(event, context)
        subject = self._subject_of(event)
        if event.status == EventStatus.ERROR or subject is None:
            raise self._error(event)
        self._show_progress(context, self._shown_progress or event.message)
        with self.until_deadline(context, at_least=LAST_LISTING_SECONDS):
            return self.conclude(subject, context, has_failed=event.status == EventStatus.FAILED)

    def _give_up(self, event: Event, context: Context) -> Exception:
        error = self.give_up(event.message)
        self._note_end(event, context)
        return error

    def _subject_of(self, event: Event) -> Awaited | None:
        subject: Any = event.subject
        return cast("Awaited | None", subject if isinstance(subject, self.kind) else None)

    def _note_end(self, event: Event, context: Context) -> None:
        subject = self._subject_of(event)
        if subject and subject.status:
            self.push_last_answer(subject, context)

    def push_last_answer(self, subject: Awaited, context: Context) -> None:
        """Push what the service showed last, before the wait ends with a result or an error. Default: nothing.

        :param subject: the batch or run.
        :param context: Airflow's context of the task.
        """

    @contextmanager
    def until_deadline(self, context: Context, *, at_least: float) -> Iterator[None]:
        """Begin no call inside the ``with`` block after the task's deadline.

        :param context: Airflow's context of the task.
        :param at_least: seconds for the calls even if the deadline is nearer or has passed.
        :raises Exception: the deadline has passed; the error is that of :meth:`give_up`.
        """
        try:
            with self.hook.limit(max(self._deadline(context) - timing.time(), at_least)):
                yield
        except OmicsTimeLimitError as error:
            raise self.give_up(f"Timed out. {self.subject_title}: {error}") from error

    def _event_of_a_late_trigger(self) -> dict[str, Any]:
        subject: dict[str, Any] = {self.kind.key: self.kind(id=self.subject_id)}
        return Event(
            status=EventStatus.TIMEOUT,
            message=f"{self.subject_title}: the trigger did not end the wait in time",
            code=rounds.DEADLINE,
            deadline=timing.time(),
            **subject,
        ).to_json()

    def _last_look(self, overdue: Event) -> Event:
        """Call once more at the deadline, because the triggerer may have been stopped or busy."""
        wait = self._new_wait(overdue.deadline)
        try:
            answer = self.get_at_deadline()
        except Exception as error:
            if isinstance(error, OmicsApiError) and error.is_not_found:
                return replace(overdue, status=EventStatus.ERROR, message=str(error), code=rounds.NOT_FOUND)
            self.log.warning(
                "%s: the last %s before the timeout failed: %s", self.subject_title, self.kind.operation, error
            )
            return overdue
        event = wait.answered(answer, timing.time()) or wait.overdue(timing.time()) or overdue
        self._log_lines(wait)
        return event

    def _resume(self, event: dict[str, Any] | None, began_at: float | None) -> Event:
        """Read the trigger's event, and restore the deadline and the start of the wait.

        Airflow 3.0 and 3.1 reset the start date of the task at each resume.

        :param event: the trigger's event.
        :param began_at: when the wait began, in epoch seconds. None if it began with the task.
        """
        try:
            parsed = Event.from_json(event)
        except ValueError as error:
            raise TriggerEventError(str(error), **self._details) from error
        subject = parsed.subject
        if subject is not None and (subject.key, subject.id) != (self.kind.key, self.subject_id):
            raise TriggerEventError(
                f"the trigger's event is about {subject.key} {subject.id}, not {self.subject_id}", **self._details
            )
        if parsed.deadline is not None:
            self._fixed_deadline = parsed.deadline
            self._began_at = parsed.deadline - min(self.timeout, self._longest_run()) if began_at is None else began_at
        self.hook.answered.add("omics")
        return parsed

    def _expect_stored_links(self) -> None:
        """Let Airflow read the links that the process before the deferral has stored."""
        if self.do_xcom_push:
            self.link_values = None

    def _defer_again(self, context: Context) -> None:
        """Defer until the same deadline as before."""
        deadline = self._deadline(context)
        if timing.time() >= deadline:
            raise self.give_up(f"Timed out. {self.subject_title}: {self.reason_to_wait()}")
        self._defer(deadline)

    def reason_to_wait(self) -> str:
        """Return why the task would be deferred again."""
        return "the service is still catching up"

    def check_deferral(self) -> None:
        """Check what a deferral needs, before anything is started.

        :raises AirflowOptionalProviderFeatureException: aiobotocore is not installed.
        :raises OmicsParameterError: ``botocore_config`` holds a password.
        """
        check_aiobotocore()
        check_deferred_config(self.botocore_config)

    def stored_wait(self) -> dict[str, Any]:
        """Return the arguments by which the trigger continues the wait of this process. Default: none."""
        return {}

    def _defer(self, deadline: float) -> None:
        self.check_deferral()
        remaining = max(0.0, deadline - timing.time())
        self.defer(
            trigger=self.trigger_class(
                poke_interval=self.interval,
                deadline=deadline,
                max_silence=self.max_silence,
                aws_conn_id=self.aws_conn_id,
                region_name=self.region_name,
                verify=self.verify,
                botocore_config=self.botocore_config,
                **self._details,
                **self.stored_wait(),
                **self.trigger_arguments(),
            ),
            method_name="execute_complete",
            kwargs={"began_at": self._began_at},
            timeout=timedelta(seconds=remaining + DEFER_TIMEOUT_MARGIN),
        )

    def _error(self, event: Event, failure: OmicsApiError | None = None) -> Exception:
        if event.code == rounds.NOT_FOUND:
            account = None
            with suppress(Exception):
                account = self.hook.account_id
            return self.errors.not_found(
                f"{self.subject_title} was not found in account {account or 'unknown'}, Region "
                f"{self.hook.conn_region_name}, connection {self.aws_conn_id!r}: {event.message}",
                **self._details,
            )
        if event.code == rounds.SILENCE:
            return self.errors.silence(event.message, **self._details)
        failure = failure or OmicsApiError(event.message, code=event.code, operation=self.kind.operation)
        return failure.with_text(event.message, **self._details)


class WaitOperator(WaitTask[Awaited], AwsBaseOperator[OmicsCacheHook]):
    """Base of the operators that wait for a batch or a single run."""

    aws_hook_class = OmicsCacheHook

    def __init__(
        self,
        *,
        waiter_delay: float | timedelta = WAITER_DELAY,
        timeout: float | timedelta = WEEK,
        max_silence: float | timedelta = LONGEST_SILENCE,
        deferrable: bool = DEFAULT_DEFERRABLE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_flags(deferrable=deferrable)
        self.waiter_delay = seconds("waiter_delay", waiter_delay)
        self.timeout = seconds("timeout", timeout)
        self.max_silence = seconds("max_silence", max_silence)
        self.deferrable = deferrable

    @property
    def interval(self) -> float:
        """Seconds between two rounds."""
        return max(SHORTEST_INTERVAL, self.waiter_delay)

    def timeout_error(self, message: str) -> Exception:
        """Return the error for a wait that has reached its deadline. A retry continues the wait.

        :param message: what the task was waiting for.
        """
        return self.errors.timeout(message, **self._details)

    def wait(self, context: Context) -> Any:
        """Wait in this process, or defer.

        :param context: Airflow's context of the task.
        :return: what :meth:`conclude` returned.
        """
        result = self._look(context)
        if result is None and self.deferrable:
            self._defer(self._deadline(context))
        while result is None:
            wait = self._started_wait(context)
            timing.sleep(min(self.interval, max(0.0, (wait.deadline or math.inf) - timing.time())))
            result = self._look(context)
            overdue = wait.overdue(timing.time())
            if result is None and overdue:
                raise self._give_up(overdue, context)
        return result.xcom_value

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral. If Airflow timed out the deferral, the wait has reached its deadline.

        :param next_method: method that Airflow resumes the task with.
        :param next_kwargs: arguments of that method.
        :param context: Airflow's context of the task.
        """
        self._expect_stored_links()
        if _is_deferral_timeout(next_method, next_kwargs):
            return self.execute_complete(context, self._event_of_a_late_trigger())
        return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, began_at: float | None = None
    ) -> Any:
        """Turn the trigger's event into the task's result, or defer again if the service is still catching up.

        :param context: Airflow's context of the task.
        :param event: the trigger's event.
        :param began_at: when the wait began, in epoch seconds. Default: it is derived from the deadline.
        """
        result = self._conclude(self._resume(event, began_at), context)
        if result is None:
            self._defer_again(context)
            return None
        return result.xcom_value


class WaitSensor(WaitTask[Awaited], AwsBaseSensor[OmicsCacheHook]):
    """Base of the sensors that wait for a batch or a single run."""

    aws_hook_class = OmicsCacheHook

    def __init__(
        self,
        *,
        max_silence: float | timedelta = LONGEST_SILENCE,
        poke_interval: float | timedelta = WAITER_DELAY,
        deferrable: bool = DEFAULT_DEFERRABLE,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        check_flags(deferrable=deferrable)
        self.max_silence = seconds("max_silence", max_silence)
        self.deferrable = deferrable

    @property
    def interval(self) -> float:
        """Seconds between two rounds."""
        return max(SHORTEST_INTERVAL, self.poke_interval)

    def timeout_error(self, message: str) -> Exception:
        """Return the error for a wait that has reached its deadline.

        :param message: what the sensor was waiting for.
        """
        return AirflowSensorTimeout(message)

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Make one round. If it ends the wait, return the task's result.

        A rescheduled task makes further rounds while no round has an answer. After :data:`LONGEST_SLOT_SECONDS` it
        gives up its worker slot, and its next process continues to count the rounds.

        :param context: Airflow's context of the task.
        """
        slot_until = timing.time() + LONGEST_SLOT_SECONDS
        wait = self._started_wait(context)
        if self.reschedule:
            wait.recall = partial(kept_silence, context, self._details)
        event = self._round(context)
        while event is None and self.reschedule and wait.silence:
            if timing.time() + self.interval > slot_until and keep_silence(context, self._details, wait.silence):
                break
            timing.sleep(self.interval)
            event = wait.overdue(timing.time()) or self._round(context)
        return (event is not None and self._conclude(event, context)) or False

    def execute(self, context: Context) -> Any:
        """Wait in this process, by rescheduling, or in the triggerer.

        :param context: Airflow's context of the task.
        """
        if not self.deferrable:
            return super().execute(context)
        with self._failure_flags():
            check_deferred_config(self.botocore_config)
            result = self._unless_silent(lambda: self._look(context))
            if result:
                return result.xcom_value
            self._defer(self._deadline(context))

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, began_at: float | None = None
    ) -> Any:
        """Turn the trigger's event into the task's result, or defer again if the service is still catching up.

        :param context: Airflow's context of the task.
        :param event: the trigger's event.
        :param began_at: when the wait began, in epoch seconds. Default: it is derived from the deadline.
        """
        with self._failure_flags():
            self.check_parameters()
            parsed = self._resume(event, began_at)
            result = self._unless_silent(lambda: self._conclude(parsed, context))
            if result:
                return result.xcom_value
            self._defer_again(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral, with the same ``soft_fail`` and ``never_fail`` as in the other modes.

        With ``soft_fail``, Airflow's own method skips the task on every error. In the other modes Airflow skips the
        task only on final errors.

        :param next_method: method that Airflow resumes the task with.
        :param next_kwargs: arguments of that method.
        :param context: Airflow's context of the task.
        """
        self._expect_stored_links()
        with self._failure_flags():
            if _is_deferral_timeout(next_method, next_kwargs):
                return self.execute_complete(context, self._event_of_a_late_trigger())
            try:
                return super().resume_execution(next_method, next_kwargs, context)
            except AirflowSkipException as skip:
                if self.soft_fail and isinstance(skip.__cause__, Exception) and not _is_final(skip.__cause__):
                    raise skip.__cause__ from skip.__cause__.__cause__
                raise

    def _unless_silent(self, look: Callable[[], PokeReturnValue | None]) -> PokeReturnValue | None:
        """Poke once. With ``silent_fail``, log a retryable error and continue the wait."""
        try:
            return look()
        except Exception as error:
            if not self.silent_fail or _is_final(error):
                raise
            self.log.error("%s: a round failed: %s", self.subject_title, error)
            return None

    @contextmanager
    def _failure_flags(self) -> Iterator[None]:
        try:
            yield
        except AirflowSkipException:
            raise
        except (Exception, AirflowTaskTimeout) as error:
            if self.never_fail or (self.soft_fail and _is_final(error)):
                raise AirflowSkipException(f"Skipping instead of failing: {error}") from error
            raise

    def _wait_began_at(self, context: Context) -> float:
        """Return when the wait began, in epoch seconds. For a rescheduled task this is its first poke."""
        first = first_reschedule_date(context) if self.reschedule else None
        return timing.at(first) if first else super()._wait_began_at(context)

    @property
    def must_trust_counts(self) -> bool:
        """Whether each round is made by a new process, which cannot remember the active runs of a batch."""
        return bool(self.reschedule) and not self.deferrable

    def _is_first_round(self, context: Context) -> bool:
        return not self.reschedule or first_reschedule_date(context) is None


class BatchWaitTask(WaitTask[Batch]):
    """Waits for a batch."""

    kind = Batch
    id_name = "batch_id"
    errors = WaitErrors(BatchNotFoundError, BatchSilenceError, BatchTimeoutError)
    trigger_class: ClassVar[type[BatchTrigger]]

    batch_id: str

    operator_extra_links: Collection[BaseOperatorLink] = (OmicsBatchLink(), OmicsLogGroupLink())

    #: The wait for runs that are still active although the batch has ended. The task calls GetBatch again after it.
    runs_wait: RunsWait | None = None

    @property
    def max_failed(self) -> int | str | None:
        """Number or share of failures that are allowed before the wait ends early. None: it never ends early."""
        return None

    def get(self) -> dict[str, Any]:
        """Call GetBatch once."""
        return self.hook.get_batch(batch_id=self.batch_id)

    def get_at_deadline(self) -> dict[str, Any]:
        """Call GetBatch once more when the deadline has come."""
        return get_batch_patiently(self.hook, self.batch_id, max_silence=LAST_LOOK_SECONDS)

    def new_wait(self, **arguments: Any) -> BatchWait:
        """Return a new wait.

        :param arguments: arguments of :class:`~airflow_provider_omics_cache.healthomics.rounds.Wait`.
        """
        return BatchWait(
            batch_id=self.batch_id,
            decide=self.trigger_class.decision(self.max_failed),
            progress=self.trigger_class.progress,
            **arguments,
        )

    def wait_for_runs(self, batch: Batch, run_ids: Sequence[str], **arguments: Any) -> None:
        """Wait for the end of active runs before the next GetBatch.

        :param batch: the batch.
        :param run_ids: ids of its active runs. The task waits for at most 100 of them, and then lists the runs again.
        :param arguments: arguments of :class:`~airflow_provider_omics_cache.healthomics.rounds.RunsWait`.
        """
        at_least = "at least " if len(run_ids) >= MOST_ACTIVE_RUNS else ""
        self.log.info(
            "Batch %s is %s; waiting for the end of %s%s active runs",
            batch.id,
            batch.shown_status,
            at_least,
            f"{len(run_ids):,}",
        )
        self.runs_wait = RunsWait(
            batch_id=self.batch_id, run_ids=list(run_ids[:MOST_ACTIVE_RUNS]), max_silence=self.max_silence, **arguments
        )

    def waits_before_round(self) -> bool:
        """Get the active runs one by one. Return True as soon as one of them is still active."""
        wait = self.runs_wait
        while wait and (run_id := wait.run_id):
            try:
                run = self.hook.get_run(run_id=run_id)
            except OmicsApiError as error:
                wait.failed(error, timing.time())
            else:
                wait.answered(run, timing.time())
            if wait.run_id == run_id:
                return True
        return False

    def reason_to_wait(self) -> str:
        """Return why the task would be deferred again."""
        return "runs are still active" if self.runs_wait and self.runs_wait.run_id else super().reason_to_wait()

    def stored_wait(self) -> dict[str, Any]:
        """Return the arguments by which the trigger continues the wait of this process."""
        return {"runs_wait": self.runs_wait.to_json() if self.runs_wait else None}


class BatchWaitOperator(BatchWaitTask, WaitOperator[Batch]):
    """Base of the operators that wait for a batch."""


class BatchWaitSensor(BatchWaitTask, WaitSensor[Batch]):
    """Base of the sensors that wait for a batch."""

    def __init__(self, *, batch_id: str | XComArg, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch_id = cast("str", batch_id)


def check_aiobotocore() -> None:
    """Check that aiobotocore, which deferred tasks need, is installed.

    :raises AirflowOptionalProviderFeatureException: aiobotocore is not installed.
    """
    if importlib.util.find_spec("aiobotocore") is None:
        raise AirflowOptionalProviderFeatureException(
            "deferrable=True needs aiobotocore: install airflow-provider-omics-cache[batch]"
        )


def seconds(parameter: str, value: float | timedelta) -> float:
    """Return a duration in seconds.

    :param parameter: name of the parameter, for the error.
    :param value: seconds, or a timedelta.
    :raises OmicsParameterError: the value is neither, or negative.
    """
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < math.inf:
        raise OmicsParameterError(parameter, "must be a number of seconds of at least 0, or a timedelta", value)
    return number


def _is_deferral_timeout(next_method: str, next_kwargs: dict[str, Any] | None) -> bool:
    """Whether Airflow resumes a task only because its trigger did not fire in time."""
    return next_method == "__fail__" and "timeout" in str((next_kwargs or {}).get("error", "")).lower()


def _is_final(error: BaseException) -> bool:
    """Whether Airflow's sensors treat an error as final, and not as an error to retry."""
    return isinstance(error, (AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout))
