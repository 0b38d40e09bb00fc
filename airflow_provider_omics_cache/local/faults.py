"""Faults on demand."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
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

    def strikes(self, chance: Callable[[], float]) -> bool:
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

    def concerns(self, operation: str) -> bool:
        return self.operation in ("*", operation)


@dataclass
class _SubmissionFault(_Fault):
    reason: str = ""
    message: str = ""


@dataclass
class BatchFault(_Fault):
    """A batch that fails as a whole."""

    reason: str = ""
    after: str = "PENDING"
    started_runs: int = 0
    batch_name: str | None = None


@dataclass
class _ListingFault(_Fault):
    rows: int = 0
    until: float | None = None


@dataclass
class _CountsFault(_Fault):
    seconds: float = 0.0


class Faults:
    """What shall go wrong. Every fault stays until it has struck ``times`` times, or until :meth:`clear`.

    :param clock: the service's clock, for the faults that last for some seconds.
    :param operations: names of the API operations.
    """

    def __init__(self, *, clock: Clock, operations: Iterable[str]) -> None:
        self._clock = clock
        self._operations = frozenset(operations)
        self._lock = threading.RLock()
        self._random = random.Random(0)
        self.clear()

    def clear(self) -> None:
        """Forget every fault. What has already failed stays failed."""
        with self._lock:
            self._calls: list[_CallFault] = []
            self._submissions: dict[str, _SubmissionFault] = {}
            self._runs: dict[str, str] = {}
            self._batches: list[BatchFault] = []
            self._listings: list[_ListingFault] = []
            self._counts: list[_CountsFault] = []
            self._cancels: set[str] = set()
            self._deletes: set[str] = set()

    def throttle(self, operation: str = "*", *, times: int | None = 1, rate: float = 1.0) -> None:
        """Throttle calls.

        :param operation: name of the API operation, or ``*`` for any.
        :param times: how many calls; None for all. Default 1.
        :param rate: share of the calls that are struck. Default 1.0.
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
        """Answer calls with an error; they have no effect.

        :param operation: name of the API operation, or ``*`` for any.
        :param code: the service's name of the error. Default InternalServerException.
        :param status: HTTP status. Default: the one that the service has for ``code``.
        :param message: the error's text.
        :param times: how many calls; None for all. Default 1.
        :param rate: share of the calls that are struck. Default 1.0.
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

        :param operation: name of the API operation, or ``*`` for any.
        :param times: how many calls; None for all. Default 1.
        :param rate: share of the calls that are struck. Default 1.0.
        :param after_effect: whether the call takes effect before that, which leaves refused calls alone. Default True.
        """
        effect: Literal["drop_after", "drop_before"] = "drop_after" if after_effect else "drop_before"
        self._add_call(_CallFault(times, rate, operation, effect))

    def latency(self, operation: str = "*", *, seconds: float, times: int | None = None) -> None:
        """Answer late.

        :param operation: name of the API operation, or ``*`` for any.
        :param seconds: seconds of service time; a clock that stands still is advanced by them instead.
        :param times: how many calls; None for all, the default.
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
        """Let the submission of a run fail.

        :param run_setting_id: the run's runSettingId.
        :param reason: submissionFailureReason. Default ValidationException.
        :param message: submissionFailureMessage.
        :param times: in how many batches; None for all, the default.
        """
        for name, value in (("run_setting_id", run_setting_id), ("reason", reason), ("message", message)):
            _texts(name, [value])
        with self._lock:
            self._submissions[run_setting_id] = _SubmissionFault(times, 1.0, reason, message)

    def fail_run(self, run_setting_id: str, *, reason: str = "RUN_TASK_FAILED") -> None:
        """Let a run fail after it was started, in every batch.

        :param run_setting_id: the run's runSettingId.
        :param reason: the run's failureReason. Default RUN_TASK_FAILED.
        """
        _texts("run_setting_id", [run_setting_id])
        _texts("reason", [reason])
        with self._lock:
            self._runs[run_setting_id] = reason

    def fail_batch(
        self,
        reason: str = "There was a transient error in the service. Retry the batch.",
        *,
        after: Literal["CREATING", "PENDING", "SUBMITTING"] = "PENDING",
        started_runs: int = 0,
        batch_name: str | None = None,
        times: int | None = 1,
    ) -> None:
        """Let a batch fail as a whole.

        :param reason: the batch's failureReason.
        :param after: the state that it fails in. Default PENDING: no run has been started.
        :param started_runs: with ``after="SUBMITTING"``, how many runs have been started by then.
        :param batch_name: name of the batch. Default: any.
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
        """Let CancelRunBatch fail for some runs: they run on.

        :param run_setting_ids: the runs' runSettingIds.
        """
        with self._lock:
            self._cancels.update(_texts("run_setting_ids", run_setting_ids))

    def fail_delete(self, run_setting_ids: Iterable[str]) -> None:
        """Let DeleteRunBatch fail for some runs.

        :param run_setting_ids: the runs' runSettingIds.
        """
        with self._lock:
            self._deletes.update(_texts("run_setting_ids", run_setting_ids))

    def stale_counts(self, *, seconds: float, times: int | None = None) -> None:
        """Let GetBatch count what was so some time ago; its status stays current.

        :param seconds: age of the counts, in seconds of service time.
        :param times: how many calls; None for all, the default.
        """
        with self._lock:
            self._counts.append(_CountsFault(times, 1.0, _seconds(seconds)))

    def lagging_listing(self, *, rows: int, times: int | None = None, seconds: float | None = None) -> None:
        """Let ListRunsInBatch miss its last rows.

        :param rows: how many rows are missing.
        :param times: for how many calls; None for all, the default.
        :param seconds: for how many seconds of service time. Default: no end.
        """
        if not _is_count(rows):
            raise ValueError(f"rows must be a whole number of at least 1; got {rows!r}")
        until = None if seconds is None else self._clock.elapsed() + _seconds(seconds)
        with self._lock:
            self._listings.append(_ListingFault(times, 1.0, rows, until))

    # What follows is asked by the service.

    def before_call(self, operation: str) -> None:
        """Wait, raise an error, or drop the connection before the call takes effect."""
        if not self._calls:
            return
        wait = 0.0
        failure: Exception | None = None
        with self._lock:
            for fault in self._calls:
                if fault.effect == "drop_after" or not fault.concerns(operation):
                    continue
                if fault.effect == "latency":
                    wait += fault.seconds if fault.strikes(self._random.random) else 0.0
                elif failure is None and fault.strikes(self._random.random):
                    failure = ConnectionDropped() if fault.error is None else fault.error
        if wait:
            self._clock.wait(wait)
        if failure is not None:
            raise failure

    def after_call(self, operation: str) -> None:
        """Drop the connection after the call took effect."""
        if not self._calls:
            return
        with self._lock:
            for fault in self._calls:
                if fault.effect != "drop_after" or not fault.concerns(operation):
                    continue
                if fault.strikes(self._random.random):
                    raise ConnectionDropped()

    def submission_failure(self, run_setting_id: str) -> tuple[str, str] | None:
        """Reason and message when the submission of this run is to fail."""
        fault = self._submissions.get(run_setting_id)
        if fault is not None and fault.strikes(self._random.random):
            return fault.reason, fault.message
        return None

    def run_failures(self) -> dict[str, str]:
        """Reasons of the runs that are to fail, by runSettingId."""
        with self._lock:
            return dict(self._runs)

    def batch_failure(self, batch_name: str | None, after: str) -> BatchFault | None:
        """The fault that lets this batch fail in this state, not yet struck."""
        for fault in self._batches:
            if fault.times != 0 and fault.after == after and fault.batch_name in (None, batch_name):
                return fault
        return None

    def strike_batch(self, fault: BatchFault) -> None:
        """Count that a batch has failed."""
        fault.strikes(self._random.random)

    def cancel_fails(self, run_setting_id: str) -> bool:
        """Whether CancelRunBatch is to fail for this run."""
        return run_setting_id in self._cancels

    def delete_fails(self, run_setting_id: str) -> bool:
        """Whether DeleteRunBatch is to fail for this run."""
        return run_setting_id in self._deletes

    def age_of_counts(self) -> float:
        """Seconds by which GetBatch's counts are late."""
        with self._lock:
            struck = [fault.seconds for fault in self._counts if fault.strikes(self._random.random)]
        return max(struck, default=0.0)

    def missing_rows(self) -> int:
        """How many rows ListRunsInBatch misses."""
        now = self._clock.elapsed()
        with self._lock:
            struck = [
                fault.rows
                for fault in self._listings
                if (fault.until is None or now < fault.until) and fault.strikes(self._random.random)
            ]
        return max(struck, default=0)

    def _add_call(self, fault: _CallFault) -> None:
        if fault.operation != "*" and fault.operation not in self._operations:
            names = ", ".join(sorted(self._operations))
            raise ValueError(f"operation must be * or one of {names}; got {fault.operation!r}")
        with self._lock:
            self._calls.append(fault)


def _texts(name: str, values: Iterable[str]) -> list[str]:
    given = [values] if isinstance(values, str) else list(values)
    if not all(isinstance(value, str) and value for value in given):
        raise ValueError(f"{name} must be text that is not empty; got {values!r}")
    return given


def _seconds(value: float) -> float:
    if not _is_number(value) or not 0 <= value < float("inf"):
        raise ValueError(f"seconds must be a number of at least 0; got {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
