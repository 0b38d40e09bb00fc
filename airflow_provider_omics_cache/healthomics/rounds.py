"""One wait for a batch, round by round: what an answer or a failed call means, as pure code.

A round is one GetBatch call. The sensors (in the worker) and the triggers (in the triggerer) make the calls and hand
what came back to a :class:`BatchWait`; it tells when the wait is over, in the form of an :class:`Event`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from airflow_provider_omics_cache.healthomics.states import BatchStatus, RunStatus

#: So many rounds in a row without the batch mean that it does not exist.
NOT_FOUND_ROUNDS = 3

#: Seconds between two rounds, at least.
SHORTEST_INTERVAL = 1.0

NOT_FOUND = "BatchNotFound"
SILENCE = "MaxSilence"
DEADLINE = "Deadline"

_UNREACHABLE = frozenset({"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "SSLError"})
_NO_ANSWER = _UNREACHABLE | {
    "ConnectionClosedError",
    "ConnectionError",
    "HTTPClientError",
    "IncompleteReadError",
    "MetadataRetrievalError",
    "ReadTimeoutError",
    "ResponseStreamingError",
    "TimeoutError",
}
#: Codes that AWS's services, STS among them, answer with any HTTP status.
_PASSING_CODES = frozenset(
    {
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestTimeout",
        "RequestTimeoutException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


class ApiFailure(Protocol):
    """What is needed to know of a failed call."""

    code: str
    http_status: int | None


def is_passing(failure: ApiFailure) -> bool:
    """Tell whether the same call may simply work later: a throttle, a fault of the service, a lost connection."""
    status = failure.http_status
    if status is not None and (status in {408, 429} or status >= 500):
        return True
    return failure.code in _NO_ANSWER or failure.code in _PASSING_CODES


def is_unreachable(failure: ApiFailure) -> bool:
    """Tell whether a call has reached nobody: of the very first one that may mean a misspelt endpoint."""
    return failure.code in _UNREACHABLE


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one GetBatch answer tells; None where it tells nothing.

    ``run_counts`` holds the counts of ``runSummary`` that are told, by the lower-case status of the runs; ``seen_at``
    is when the answer came, in epoch seconds.
    """

    id: str
    arn: str | None = None
    uuid: str | None = None
    status: str | None = None
    total_runs: int | None = None
    submitted: int | None = None
    failed: int | None = None
    pending: int | None = None
    run_counts: Mapping[str, int] = field(default_factory=dict)
    submitted_time: datetime | None = None
    processed_time: datetime | None = None
    failure_reason: str | None = None
    seen_at: float | None = None

    @property
    def counted_runs(self) -> int | None:
        """Sum of the three submission counts, None unless all are known."""
        if self.submitted is None or self.failed is None or self.pending is None:
            return None
        return self.submitted + self.failed + self.pending

    @property
    def expected_runs(self) -> int | None:
        """How many runs the batch has: totalRuns, else the sum of the counts."""
        return self.total_runs if self.total_runs is not None else self.counted_runs

    @classmethod
    def from_answer(cls, batch_id: str, answer: Mapping[str, Any], *, seen_at: float | None = None) -> Batch:
        """Read an answer of GetBatch. A batch without ``submittedTime`` was submitted by its ``processedTime``."""
        summary = answer.get("submissionSummary") or {}
        run_summary = answer.get("runSummary") or {}
        run_counts = {status.lower(): run_summary.get(f"{status.lower()}RunCount") for status in RunStatus}
        return cls(
            id=batch_id,
            arn=answer.get("arn"),
            uuid=answer.get("uuid"),
            status=answer.get("status"),
            total_runs=answer.get("totalRuns"),
            submitted=summary.get("successfulStartSubmissionCount"),
            failed=summary.get("failedStartSubmissionCount"),
            pending=summary.get("pendingStartSubmissionCount"),
            run_counts={status: count for status, count in run_counts.items() if count is not None},
            submitted_time=answer.get("submittedTime") or answer.get("processedTime"),
            processed_time=answer.get("processedTime"),
            failure_reason=answer.get("failureReason"),
            seen_at=seen_at,
        )

    def to_json(self) -> dict[str, Any]:
        """Give the batch as an event carries it."""
        return {
            "id": self.id,
            "arn": self.arn,
            "uuid": self.uuid,
            "status": self.status,
            "total_runs": self.total_runs,
            "counts": {"submitted": self.submitted, "failed": self.failed, "pending": self.pending},
            "run_counts": dict(self.run_counts),
            "submitted_time": self.submitted_time.isoformat() if self.submitted_time else None,
            "processed_time": self.processed_time.isoformat() if self.processed_time else None,
            "seen_at": self.seen_at,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, failure_reason: str | None = None) -> Batch:
        """Read the batch out of an event.

        :raises ValueError: when a member is not of its type.
        """
        counts = _member(value, "counts", Mapping) or {}
        run_counts = _member(value, "run_counts", Mapping) or {}
        batch_id = _member(value, "id", str)
        if not batch_id:
            raise ValueError("the trigger's event names no batch")
        return cls(
            id=batch_id,
            arn=_member(value, "arn", str),
            uuid=_member(value, "uuid", str),
            status=_member(value, "status", str),
            total_runs=_member(value, "total_runs", int),
            submitted=_member(counts, "submitted", int),
            failed=_member(counts, "failed", int),
            pending=_member(counts, "pending", int),
            run_counts={status: _member(run_counts, status, int) for status in run_counts},
            submitted_time=_time(value, "submitted_time"),
            processed_time=_time(value, "processed_time"),
            seen_at=_member(value, "seen_at", (int, float)),
            failure_reason=failure_reason,
        )


class Verdict(StrEnum):
    """What an answer means for the wait."""

    WAIT = "wait"
    DONE = "done"
    FAILED = "failed"


class EventStatus(StrEnum):
    """How a wait ended."""

    DONE = "done"
    FAILED = "failed"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Event:
    """The end of a wait, in the form in which it travels from a trigger to its task.

    ``message`` is for people; of a batch that failed it is the service's failure reason. ``code`` is the service's
    error code, or one of this module's. ``deadline`` is in epoch seconds. Of a wait that ended without an answer about
    the batch, ``batch`` holds the id only.
    """

    status: str
    message: str = ""
    code: str = ""
    deadline: float | None = None
    batch: dict[str, Any] | None = None

    @property
    def batch_id(self) -> str | None:
        """The batch that was waited for."""
        return (self.batch or {}).get("id")

    def to_json(self) -> dict[str, Any]:
        """Give the event as a trigger yields it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Event:
        """Read an event that crossed the database, perhaps from another version of this package.

        :raises ValueError: when it is not such an event.
        """
        if not isinstance(value, Mapping):
            raise ValueError(f"the trigger's event is {type(value).__name__}, not a mapping")
        status = _member(value, "status", str)
        if status not in set(EventStatus):
            raise ValueError(f"the trigger's event has the unknown status {status!r}")
        event = cls(
            status=status,
            message=_member(value, "message", str) or "",
            code=_member(value, "code", str) or "",
            deadline=_member(value, "deadline", (int, float)),
            batch=_member(value, "batch", dict),
        )
        if status in {EventStatus.DONE, EventStatus.FAILED}:
            Batch.from_json(event.batch or {})
        return event


def _time(value: Mapping[str, Any], name: str) -> datetime | None:
    text = _member(value, name, str)
    return datetime.fromisoformat(text) if text else None


def _member(value: Mapping[str, Any], name: str, kind: Any) -> Any:
    member = value.get(name)
    if member is not None and (not isinstance(member, kind) or isinstance(member, bool)):
        raise ValueError(f"{name} in the trigger's event is {type(member).__name__}")
    return member


class BatchWait:
    """The rounds of one wait in one process.

    :param batch_id: the batch.
    :param decide: what an answer means.
    :param progress: how far the batch is, for the log.
    :param max_silence: how many seconds may pass without an answer.
    :param deadline: when the wait ends at the latest, in epoch seconds.
    :param first_round: the next round is the very first of the task, so that a misspelt endpoint shows at once.
    """

    def __init__(
        self,
        *,
        batch_id: str,
        decide: Callable[[Batch], Verdict],
        progress: Callable[[Batch], str],
        max_silence: float,
        deadline: float | None,
        first_round: bool = False,
    ) -> None:
        self.batch_id = batch_id
        self.deadline = deadline
        self._decide = decide
        self._progress = progress
        self._max_silence = max_silence
        self._first_round = first_round
        self._not_found = 0
        self._silent_since: float | None = None
        self._unknown_statuses: set[str] = set()
        self._last_line = ""
        self._lines: list[tuple[int, str]] = []

    @property
    def is_disturbed(self) -> bool:
        """Whether the last round brought no answer about the batch."""
        return self._silent_since is not None or self._not_found > 0

    def take_lines(self) -> list[tuple[int, str]]:
        """Give the log lines (level, text) of what has changed, once."""
        lines, self._lines = self._lines, []
        return lines

    def answered(self, answer: Mapping[str, Any], now: float) -> Event | None:
        """Take in an answer of GetBatch; return the wait's end, or None to go on."""
        self._first_round = False
        self._silent_since = None
        self._not_found = 0
        batch = Batch.from_answer(self.batch_id, answer, seen_at=now)
        self._report(batch)
        verdict = self._decide(batch)
        if verdict == Verdict.WAIT:
            return None
        return self._event(
            EventStatus.DONE if verdict == Verdict.DONE else EventStatus.FAILED,
            message=batch.failure_reason or "",
            batch=batch.to_json(),
        )

    def failed(self, failure: ApiFailure, now: float) -> Event | None:
        """Take in a failed GetBatch; return the wait's end, or None to go on."""
        first_round, self._first_round = self._first_round, False
        if failure.http_status == 404 or failure.code == "ResourceNotFoundException":
            self._silent_since = None
            self._not_found += 1
            if self._not_found < NOT_FOUND_ROUNDS:
                self._note(logging.WARNING, f"batch {self.batch_id} is not found; it may be young, asking again")
                return None
            return self._event(EventStatus.ERROR, message=str(failure), code=NOT_FOUND)
        self._not_found = 0
        if not is_passing(failure) or (first_round and is_unreachable(failure)):
            return self._event(EventStatus.ERROR, message=str(failure), code=failure.code)
        if self._silent_since is None:
            self._silent_since = now
            self._note(logging.WARNING, f"no answer about batch {self.batch_id}, asking again: {failure}")
        silence = now - self._silent_since
        if silence < self._max_silence:
            return None
        message = f"no answer about batch {self.batch_id} for {silence:,.0f} s; the last error: {failure}"
        return self._event(EventStatus.ERROR, message=message, code=SILENCE)

    def overdue(self, now: float) -> Event | None:
        """Return the wait's end when its deadline has passed."""
        if self.deadline is None or now < self.deadline:
            return None
        message = f"the deadline has passed and {self._last_line or f'batch {self.batch_id} does not answer'}"
        return self._event(EventStatus.TIMEOUT, message=message, code=DEADLINE)

    def _event(
        self, status: EventStatus, *, message: str, code: str = "", batch: dict[str, Any] | None = None
    ) -> Event:
        return Event(
            status=str(status),
            message=message,
            code=code,
            deadline=self.deadline,
            batch=batch or {"id": self.batch_id},
        )

    def _report(self, batch: Batch) -> None:
        status = batch.status or "without a status"
        if status not in set(BatchStatus) and status not in self._unknown_statuses:
            self._unknown_statuses.add(status)
            self._note(
                logging.WARNING,
                f"batch {batch.id} is {status}, which this version of the package does not know",
            )
        line = self._progress(batch)
        if line != self._last_line:
            self._last_line = line
            self._note(logging.INFO, line)

    def _note(self, level: int, text: str) -> None:
        self._lines.append((level, text))
