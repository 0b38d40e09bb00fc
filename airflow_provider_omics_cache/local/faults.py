"""Faults that a test injects into the local HealthOmics."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_omics_cache.local.clock import Clock
from airflow_provider_omics_cache.local.protocol import ConnectionDropped, ServiceError


@dataclass
class _Fault:
    times: int | None
    rate: float = 1.0

    def __post_init__(self) -> None:
        if self.times is not None and not _is_count(self.times):
            raise ValueError(f"times must be None or a whole number of at least 1; got {self.times!r}")
        if not _is_number(self.rate) or not 0 < self.rate <= 1:
            raise ValueError(f"rate must be above 0 and at most 1; got {self.rate!r}")

    def occurs(self, chance: Callable[[], float]) -> bool:
        if self.times == 0 or (self.rate < 1.0 and chance() >= self.rate):
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class _CallFault(_Fault):
    operation: str = "*"
    effect: Literal["error", "latency", "drop_before", "drop_after"] = "error"
    error: ServiceError | None = None
    seconds: float = 0.0

    def matches(self, operation: str) -> bool:
        return self.operation in ("*", operation)


@dataclass
class _SubmissionFault(_Fault):
    reason: str = ""
    message: str = ""


@dataclass
class BatchFault(_Fault):
    """A fault that makes a batch fail."""

    reason: str = ""
    after: str = "PENDING"
    started_runs: int = 0
    batch_name: str | None = None


@dataclass
class TaskFault(_Fault):
    """A fault that makes a task of a run fail."""

    task_name: str = ""
    run_name: str | None = None
    reason: str = ""
    message: str = ""


@dataclass
class _ListingFault(_Fault):
    rows: int = 0
    until: float | None = None


@dataclass
class _CountsFault(_Fault):
    seconds: float = 0.0


class Faults:
    """Faults to inject. A fault occurs at most ``times`` times; :meth:`clear` removes all faults.

    :param clock: the service's clock.
    :param operations: names of the API operations.
    """

    def __init__(self, *, clock: Clock, operations: Iterable[str]) -> None:
        self._clock = clock
        self._operations = frozenset(operations)
        self._lock = threading.RLock()
        self._random = random.Random(0)  # nosec B311  # repeatable on purpose, and not a secret
        self.clear()

    def clear(self) -> None:
        """Remove every fault. Batches and runs that have already failed stay failed."""
        with self._lock:
            self._calls: list[_CallFault] = []
            self._submissions: dict[str, _SubmissionFault] = {}
            self._runs: dict[str, str] = {}
            self._batches: list[BatchFault] = []
            self._tasks: list[TaskFault] = []
            self._listings: list[_ListingFault] = []
            self._counts: list[_CountsFault] = []
            self._cancels: set[str] = set()
            self._deletes: set[str] = set()

    def throttle(self, operation: str = "*", *, times: int | None = 1, rate: float = 1.0) -> None:
        """Throttle calls.

        :param operation: name of the API operation, or ``*`` for all of them.
        :param times: how many calls; None for all. Default 1.
        :param rate: probability of the fault for each call. Default 1.0.
        """
        self.error(operation, code="ThrottlingException", message="Rate exceeded", times=times, rate=rate)

    def error(
        self,
        operation: str = "*",
        *,
        code: str = "InternalServerException",
        status: int | None = None,
        message: str = "The service failed on demand",
        times: int | None = 1,
        rate: float = 1.0,
    ) -> None:
        """Answer calls with an error. The calls have no effect.

        :param operation: name of the API operation, or ``*`` for any.
        :param code: error code. Default InternalServerException.
        :param status: HTTP status. Default: the status that the service uses for ``code``.
        :param message: error message.
        :param times: how many calls; None for all. Default 1.
        :param rate: probability of the fault for each call. Default 1.0.
        """
        _texts("code", [code])
        _texts("message", [message])
        if status is not None and not (_is_count(status) and 400 <= status <= 599):
            raise ValueError(f"status must be None or from 400 to 599; got {status!r}")
        error = ServiceError(code, message, status)
        self._add_call(_CallFault(times, rate, operation, "error", error))

    def drop_connection(
        self, operation: str = "*", *, times: int | None = 1, rate: float = 1.0, after_effect: bool = True
    ) -> None:
        """Close the connection without an answer.

        :param operation: name of the API operation, or ``*`` for all of them.
        :param times: how many calls; None for all. Default 1.
        :param rate: probability of the fault for each call. Default 1.0.
        :param after_effect: whether successful calls take effect before the connection is closed. Calls that the
            service refuses are then answered as usual. Default True.
        """
        effect: Literal["drop_after", "drop_before"] = "drop_after" if after_effect else "drop_before"
        self._add_call(_CallFault(times, rate, operation, effect))

    def latency(self, operation: str = "*", *, seconds: float, times: int | None = None) -> None:
        """Delay answers.

        :param operation: name of the API operation, or ``*`` for all of them.
        :param seconds: delay in seconds of service time. A clock that stands still is advanced instead.
        :param times: how many calls. Default: all.
        """
        self._add_call(_CallFault(times, 1.0, operation, "latency", None, _seconds(seconds)))

    def fail_submission(
        self,
        run_setting_id: str,
        *,
        reason: str = "ValidationException",
        message: str = "The submission failed on demand",
        times: int | None = None,
    ) -> None:
        """Make the submission of a run fail.

        :param run_setting_id: the run's runSettingId.
        :param reason: submissionFailureReason. Default ValidationException.
        :param message: submissionFailureMessage.
        :param times: number of batches in which the submission fails; None for every batch. Default None.
        """
        for name, value in (("run_setting_id", run_setting_id), ("reason", reason), ("message", message)):
            _texts(name, [value])
        with self._lock:
            self._submissions[run_setting_id] = _SubmissionFault(times, 1.0, reason, message)

    def fail_run(self, run_setting_id: str, *, reason: str = "RUN_TASK_FAILED") -> None:
        """Make a run fail after it was started, in every batch, and every single run with this name.

        :param run_setting_id: the run's runSettingId, or the name of a single run.
        :param reason: the run's failureReason. Default RUN_TASK_FAILED.
        """
        _texts("run_setting_id", [run_setting_id])
        _texts("reason", [reason])
        with self._lock:
            self._runs[run_setting_id] = reason

    def fail_task(
        self,
        task_name: str,
        *,
        run_name: str | None = None,
        reason: str = "RUN_TASK_FAILED",
        message: str = "The task failed on demand",
        times: int | None = 1,
    ) -> None:
        """Make a task fail, and with it the run. The run must be submitted after this call.

        A run that finds the task in its run cache does not execute it, and does not fail.

        :param task_name: name of the task.
        :param run_name: the run's runSettingId, or the name of a single run. Default: any run.
        :param reason: failureReason of the task and of the run. Default RUN_TASK_FAILED.
        :param message: statusMessage of the task and of the run.
        :param times: how many runs; None for all. Default 1.
        """
        for name, value in (("task_name", task_name), ("reason", reason), ("message", message)):
            _texts(name, [value])
        _texts("run_name", [] if run_name is None else [run_name])
        with self._lock:
            self._tasks.append(TaskFault(times, 1.0, task_name, run_name, reason, message))

    def fail_batch(
        self,
        reason: str = "There was a transient error in the service. Retry the batch.",
        *,
        after: Literal["CREATING", "PENDING", "SUBMITTING"] = "PENDING",
        started_runs: int = 0,
        batch_name: str | None = None,
        times: int | None = 1,
    ) -> None:
        """Make a batch fail.

        :param reason: the batch's failureReason.
        :param after: last state before ``FAILED``. Default PENDING: no run has been started.
        :param started_runs: number of runs that are started before the batch fails, with ``after="SUBMITTING"``.
        :param batch_name: name of the batch. Default: any batch.
        :param times: how many batches; None for all. Default 1.
        """
        _texts("reason", [reason])
        _texts("batch_name", [] if batch_name is None else [batch_name])
        if after not in ("CREATING", "PENDING", "SUBMITTING"):
            raise ValueError(f"after must be CREATING, PENDING or SUBMITTING; got {after!r}")
        if started_runs != 0 and (after != "SUBMITTING" or not _is_count(started_runs)):
            raise ValueError(
                f"started_runs must be a whole number of at least 0, and 0 unless after is SUBMITTING; "
                f"got {started_runs!r}"
            )
        with self._lock:
            self._batches.append(BatchFault(times, 1.0, reason, after, started_runs, batch_name))

    def fail_cancel(self, run_setting_ids: Iterable[str]) -> None:
        """Make CancelRunBatch fail for some runs. These runs continue.

        :param run_setting_ids: the runs' runSettingIds.
        """
        with self._lock:
            self._cancels.update(_texts("run_setting_ids", run_setting_ids))

    def fail_delete(self, run_setting_ids: Iterable[str]) -> None:
        """Make DeleteRunBatch fail for some runs.

        :param run_setting_ids: the runs' runSettingIds.
        """
        with self._lock:
            self._deletes.update(_texts("run_setting_ids", run_setting_ids))

    def stale_counts(self, *, seconds: float, times: int | None = None) -> None:
        """Make GetBatch return old counts, with the current status.

        :param seconds: age of the counts, in seconds of service time.
        :param times: how many calls. Default: all.
        """
        with self._lock:
            self._counts.append(_CountsFault(times, 1.0, _seconds(seconds)))

    def lagging_listing(self, *, rows: int, times: int | None = None, seconds: float | None = None) -> None:
        """Make ListRunsInBatch leave out its last rows.

        :param rows: how many rows are left out.
        :param times: in how many calls. Default: in all.
        :param seconds: for how many seconds of service time. Default: without end.
        """
        if not _is_count(rows):
            raise ValueError(f"rows must be a whole number of at least 1; got {rows!r}")
        until = None if seconds is None else self._clock.elapsed() + _seconds(seconds)
        with self._lock:
            self._listings.append(_ListingFault(times, 1.0, rows, until))

    # Methods that the service calls

    def before_call(self, operation: str) -> None:
        """Apply the faults that occur before a call takes effect.

        :raises ServiceError: the call must be answered with this error.
        :raises ConnectionDropped: the connection must be closed.
        """
        if not self._calls:
            return
        wait = 0.0
        failure: Exception | None = None
        with self._lock:
            for fault in self._calls:
                if fault.effect == "drop_after" or not fault.matches(operation):
                    continue
                if fault.effect == "latency":
                    wait += fault.seconds if fault.occurs(self._random.random) else 0.0
                elif failure is None and fault.occurs(self._random.random):
                    failure = ConnectionDropped() if fault.error is None else fault.error
        if wait:
            self._clock.wait(wait)
        if failure is not None:
            raise failure

    def after_call(self, operation: str) -> None:
        """Apply the faults that occur after a call took effect.

        :raises ConnectionDropped: the connection must be closed.
        """
        if not self._calls:
            return
        with self._lock:
            for fault in self._calls:
                if fault.effect != "drop_after" or not fault.matches(operation):
                    continue
                if fault.occurs(self._random.random):
                    raise ConnectionDropped()

    def submission_failure(self, run_setting_id: str) -> tuple[str, str] | None:
        """Return reason and message if the submission of this run must fail."""
        fault = self._submissions.get(run_setting_id)
        if fault is not None and fault.occurs(self._random.random):
            return fault.reason, fault.message
        return None

    def run_failures(self) -> dict[str, str]:
        """Return the failure reasons of the runs that must fail, by runSettingId."""
        with self._lock:
            return dict(self._runs)

    def has_task_failures(self) -> bool:
        """Return whether a task must fail."""
        return any(fault.times != 0 for fault in self._tasks)

    def task_failure(self, run_name: str | None, task_names: Collection[str]) -> TaskFault | None:
        """Return the fault for a run that is submitted, if there is one, and count it.

        :param run_name: its runSettingId, or the name of a single run.
        :param task_names: names of the tasks that it executes.
        """
        with self._lock:
            for fault in self._tasks:
                meant = fault.run_name in (None, run_name) and fault.task_name in task_names
                if meant and fault.occurs(self._random.random):
                    return fault
        return None

    def batch_failure(self, batch_name: str | None, after: str) -> BatchFault | None:
        """Return the fault for this batch in this state, if any; :meth:`use_batch_failure` counts it."""
        for fault in self._batches:
            if fault.times != 0 and fault.after == after and fault.batch_name in (None, batch_name):
                return fault
        return None

    def use_batch_failure(self, fault: BatchFault) -> None:
        """Count that a fault made a batch fail."""
        fault.occurs(self._random.random)

    def cancel_fails(self, run_setting_id: str) -> bool:
        """Return whether CancelRunBatch must fail for this run."""
        return run_setting_id in self._cancels

    def delete_fails(self, run_setting_id: str) -> bool:
        """Return whether DeleteRunBatch must fail for this run."""
        return run_setting_id in self._deletes

    def age_of_counts(self) -> float:
        """Return the age of GetBatch's counts in seconds."""
        with self._lock:
            occurred = [fault.seconds for fault in self._counts if fault.occurs(self._random.random)]
        return max(occurred, default=0.0)

    def missing_rows(self) -> int:
        """Return how many rows ListRunsInBatch must leave out."""
        now = self._clock.elapsed()
        with self._lock:
            occurred = [
                fault.rows
                for fault in self._listings
                if (fault.until is None or now < fault.until) and fault.occurs(self._random.random)
            ]
        return max(occurred, default=0)

    def _add_call(self, fault: _CallFault) -> None:
        if fault.operation != "*" and fault.operation not in self._operations:
            names = ", ".join(sorted(self._operations))
            raise ValueError(f"operation must be * or one of {names}; got {fault.operation!r}")
        with self._lock:
            self._calls.append(fault)


def _texts(name: str, values: Iterable[str]) -> list[str]:
    given = [values] if isinstance(values, str) else list(values)
    if not all(isinstance(value, str) and value for value in given):
        raise ValueError(f"{name} must be a non-empty string; got {values!r}")
    return given


def _seconds(value: float) -> float:
    if not _is_number(value) or not 0 <= value < float("inf"):
        raise ValueError(f"seconds must be a number of at least 0; got {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
