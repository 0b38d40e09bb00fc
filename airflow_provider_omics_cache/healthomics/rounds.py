"""One wait for a batch or a single run, round by round: what an answer or a failed call means. No calls are made here.

A round is one GetBatch or GetRun call. Tasks (in the worker) and triggers (in the triggerer) make the calls and pass
the outcome to a :class:`Wait`. At the end of the wait it returns an :class:`Event`.
"""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from airflow_provider_omics_cache.healthomics.awaited_run import Run
from airflow_provider_omics_cache.healthomics.progress import Mark, Progress, with_pace
from airflow_provider_omics_cache.healthomics.states import (
    BATCH_STATUSES,
    ENDED_RUN_STATUSES,
    End,
    Meaning,
    RunStatus,
    Verdict,
    meaning_of,
    shown,
)
from airflow_provider_omics_cache.healthomics.stored import member, time_member
from airflow_provider_omics_cache.xcoms import BatchXCom, batch_xcom

if TYPE_CHECKING:
    from airflow_provider_omics_cache.exceptions import OmicsApiError

#: Number of rounds in which the service must report the batch as not found before it counts as not existing. A round
#: that returns the batch resets the number. A round without an answer does not.
NOT_FOUND_ROUNDS = 3
#: Shortest time between two rounds, in seconds.
SHORTEST_INTERVAL = 1.0
#: Seconds for which the counts and listings of a batch may lag behind what has happened.
CONSISTENCY_SECONDS = 300
#: Shortest time between two log lines about the progress of a batch in the same status, in seconds.
PROGRESS_SECONDS = 60
#: Number of log lines over which the rate is calculated.
_MAX_MARKS = 10
#: Seconds for which GetBatch's count of active runs is used before the runs are listed again.
TRUST_SECONDS = 600

# Codes of events that end a wait without a batch.
NOT_FOUND = "BatchNotFound"
SILENCE = "MaxSilence"
DEADLINE = "Deadline"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one answer of GetBatch says. Members that the answer lacks are None.

    ``run_counts`` has the counts of ``runSummary`` that are present, by the lower-case status of the runs. ``seen_at``
    is when the answer came, in epoch seconds.
    """

    noun: ClassVar[str] = "Batch"
    operation: ClassVar[str] = "GetBatch"
    key: ClassVar[str] = "batch"

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
    failed_time: datetime | None = None
    failure_reason: str | None = None
    seen_at: float | None = None

    @property
    def meaning(self) -> Meaning:
        """What the batch's status means."""
        return meaning_of(self.status)

    @property
    def shown_status(self) -> str:
        """The status, as messages show it."""
        return shown(self.status)

    @property
    def has_known_status(self) -> bool:
        """Whether this version of the package knows the status."""
        return self.status in BATCH_STATUSES

    @property
    def expected_runs(self) -> int | None:
        """Number of runs of the batch: totalRuns, else the sum of the three submission counts if all are known."""
        if self.total_runs is not None:
            return self.total_runs
        if self.submitted is None or self.failed is None or self.pending is None:
            return None
        return self.submitted + self.failed + self.pending

    @property
    def settled_time(self) -> datetime | None:
        """When the batch changed last, None if the service does not report it.

        It does not report when a batch was cancelled, or when its runs were deleted. After a deletion, this is the time
        at which the batch was processed.
        """
        if self.meaning.end in {End.PROCESSED, End.DELETED}:
            return self.processed_time
        return self.failed_time if self.meaning.end == End.FAILED else None

    @classmethod
    def from_answer(cls, batch_id: str, answer: Mapping[str, Any], *, seen_at: float | None = None) -> Batch:
        """Make a batch from GetBatch's answer. ``processedTime`` replaces a missing ``submittedTime``.

        :param batch_id: id of the batch.
        :param answer: GetBatch's answer.
        :param seen_at: when the answer came, in epoch seconds.
        """
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
            failed_time=answer.get("failedTime"),
            failure_reason=answer.get("failureReason"),
            seen_at=seen_at,
        )

    def to_xcom(self, **known: Any) -> BatchXCom:
        """Return the batch as the XCom ``batch``.

        :param known: what the task knows beyond GetBatch's answer.
        """
        return batch_xcom(self.id, arn=self.arn, uuid=self.uuid, status=self.status, **known)

    def to_json(self) -> dict[str, Any]:
        """Return the batch in the form in which an event carries it."""
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
            "failed_time": self.failed_time.isoformat() if self.failed_time else None,
            "failure_reason": self.failure_reason,
            "seen_at": self.seen_at,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Batch:
        """Make a batch from what an event carries.

        :param value: what :meth:`to_json` returned, perhaps in another version of this package.
        :raises ValueError: a member has the wrong type.
        """
        counts = member(value, "counts", Mapping) or {}
        run_counts = member(value, "run_counts", Mapping) or {}
        batch_id = member(value, "id", str)
        if not batch_id:
            raise ValueError("the trigger's event has no batch id")
        return cls(
            id=batch_id,
            arn=member(value, "arn", str),
            uuid=member(value, "uuid", str),
            status=member(value, "status", str),
            total_runs=member(value, "total_runs", int),
            submitted=member(counts, "submitted", int),
            failed=member(counts, "failed", int),
            pending=member(counts, "pending", int),
            run_counts={status: member(run_counts, status, int) for status in run_counts},
            submitted_time=time_member(value, "submitted_time"),
            processed_time=time_member(value, "processed_time"),
            failed_time=time_member(value, "failed_time"),
            seen_at=member(value, "seen_at", (int, float)),
            failure_reason=member(value, "failure_reason", str),
        )


@dataclass(frozen=True, kw_only=True)
class FirstSeen:
    """When a wait first saw the batch in a status. It is used if the service does not report that time.

    :param status: the status, as messages show it.
    :param at: the time, in epoch seconds.
    """

    status: str
    at: float

    def to_json(self) -> dict[str, Any]:
        """Return it in the form in which triggers and events carry it."""
        return {"status": self.status, "at": self.at}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> FirstSeen | None:
        """Make it from what a trigger or an event carries, None if it carries nothing that can be used.

        :param value: what :meth:`to_json` returned, perhaps in another version of this package.
        :raises ValueError: a member has the wrong type.
        """
        status = member(value or {}, "status", str)
        at = member(value or {}, "at", (int, float))
        return None if status is None or at is None else cls(status=status, at=at)


class EventStatus(StrEnum):
    """How a wait ended."""

    DONE = "done"
    FAILED = "failed"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Event:
    """The end of a wait. A trigger sends it to its task as JSON.

    :param status: how the wait ended.
    :param message: what happened, as a text for logs and errors.
    :param code: the service's error code, or one of the codes of this module.
    :param deadline: deadline of the wait, in epoch seconds.
    :param batch: the batch, as GetBatch showed it last. Only its id is known when the wait had no answer.
    :param run: the single run, as GetRun showed it last. An event has a batch or a run, not both.
    :param first_seen: the status in which an earlier event of the same task showed the batch, and when. None if there
        was no such event, or if the status is not needed.
    """

    status: EventStatus
    message: str = ""
    code: str = ""
    deadline: float | None = None
    batch: Batch | None = None
    run: Run | None = None
    first_seen: FirstSeen | None = None

    @property
    def subject(self) -> Batch | Run | None:
        """The batch or run that the event is about."""
        return self.batch or self.run

    def to_json(self) -> dict[str, Any]:
        """Return the event in the form in which a trigger sends it."""
        value: dict[str, Any] = {
            "status": str(self.status),
            "message": self.message,
            "code": self.code,
            "deadline": self.deadline,
            "batch": self.batch.to_json() if self.batch else None,
        }
        if self.run:
            value["run"] = self.run.to_json()
        return {**value, "first_seen": self.first_seen.to_json()} if self.first_seen else value

    @classmethod
    def from_json(cls, value: object) -> Event:
        """Make an event from what a trigger sent, perhaps in another version of this package.

        :param value: what the trigger sent.
        :raises ValueError: the value is not an event.
        """
        if not isinstance(value, Mapping):
            raise ValueError(f"the trigger's event is {type(value).__name__}, not a mapping")
        status = member(value, "status", str)
        if status not in set(EventStatus):
            raise ValueError(f"the trigger's event has the unknown status {status!r}")
        batch = member(value, "batch", Mapping)
        run = member(value, "run", Mapping)
        if batch is None and run is None and status in {EventStatus.DONE, EventStatus.FAILED}:
            raise ValueError("the trigger's event has no batch")
        message = member(value, "message", str) or ""
        if status == EventStatus.FAILED and batch is not None and "failure_reason" not in batch:
            # In events of older versions the message is the failure reason.
            batch = {**batch, "failure_reason": message or None}
        return cls(
            status=EventStatus(status),
            message=message,
            code=member(value, "code", str) or "",
            deadline=member(value, "deadline", (int, float)),
            batch=None if batch is None else Batch.from_json(batch),
            run=None if run is None else Run.from_json(run),
            first_seen=FirstSeen.from_json(member(value, "first_seen", Mapping)),
        )


@dataclass(frozen=True, kw_only=True)
class Silence:
    """The consecutive rounds that did not return the batch or run.

    :param since: when the first of them was, in epoch seconds.
    :param not_found: how many of them did not find the batch or run.
    :param no_answer: how many of them had no answer.
    """

    since: float
    not_found: int = 0
    no_answer: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the silence in the form in which a rescheduled task stores it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Silence:
        """Make the silence from what a task stored, perhaps in another version of this package.

        :param value: what :meth:`to_json` returned.
        :raises ValueError: the value is not a silence.
        """
        if not isinstance(value, Mapping):
            raise ValueError(f"it is {type(value).__name__}, not a mapping")
        since = value.get("since")
        if isinstance(since, bool) or not isinstance(since, (int, float)) or not math.isfinite(since):
            raise ValueError(f"since is {since!r}, not a time")
        return cls(since=since, not_found=_rounds(value, "not_found"), no_answer=_rounds(value, "no_answer"))


def _rounds(value: Mapping[str, Any], name: str) -> int:
    rounds = value.get(name)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 0:
        raise ValueError(f"{name} is {rounds!r}, not a number of rounds")
    return rounds


def _no_silence() -> Silence | None:
    return None


Awaited = TypeVar("Awaited", bound=Batch | Run)


class Wait(Generic[Awaited]):
    """The rounds of one wait for a batch or a single run in one process.

    :param subject: the batch or run, of which only the id is known.
    :param decide: function that returns what an answer means.
    :param progress: function that describes the progress. It is logged when it changes, at most once in
        :data:`PROGRESS_SECONDS` for each status, with the rate and the remaining time.
    :param max_silence: seconds without an answer about the batch or run after which the wait ends.
    :param deadline: when the wait ends at the latest, in epoch seconds; None for never.
    :param first_round: whether the next round is the first one of the task. In the first round, an endpoint that cannot
        be reached ends the wait, because its URL may be misspelt.
    """

    def __init__(
        self,
        *,
        subject: Awaited,
        decide: Callable[[Awaited], Verdict],
        progress: Callable[[Awaited], Progress],
        max_silence: float,
        deadline: float | None,
        first_round: bool = False,
    ) -> None:
        self._subject = subject
        self.deadline = deadline
        self._decide = decide
        self._progress = progress
        self._max_silence = max_silence
        self._first_round = first_round
        #: Returns the silence that the previous process stored. Called at most once, in the first round that does not
        #: return the batch or run, and not after a round that returned it.
        self.recall: Callable[[], Silence | None] = _no_silence
        self.silence: Silence | None = None
        self._warned_of_silence = False
        self._unknown_statuses: set[str] = set()
        self._last_line = ""
        #: The progress that was logged last, with its rate and remaining time.
        self.shown_progress = ""
        self._shown = Progress("")
        self._shown_status: str | None = None
        self._next_progress_at = -math.inf
        #: Counts from which the rate is calculated: 0 at the creation, then those of the last log lines.
        self._marks: deque[Mark] = deque(maxlen=_MAX_MARKS)
        self._lines: list[tuple[int, str]] = []

    @property
    def subject(self) -> Awaited:
        """The batch or run, as the service showed it last."""
        return self._subject

    @property
    def is_disturbed(self) -> bool:
        """Whether the last round did not return the batch or run."""
        return self.silence is not None

    def take_lines(self) -> list[tuple[int, str]]:
        """Return the new log lines (level, text), and remove them, so that each is returned once."""
        lines, self._lines = self._lines, []
        return lines

    def answered(self, answer: Mapping[str, Any], now: float) -> Event | None:
        """Process an answer of GetBatch or GetRun.

        :param answer: the answer.
        :param now: when it came, in epoch seconds.
        :return: the end of the wait, None if the wait continues.
        """
        self._first_round = False
        self.recall = _no_silence
        self.silence = None
        self._warned_of_silence = False
        subject = self._subject = self._read(answer, now)
        verdict = self._decide(subject)
        self._report(subject, answer.get("creationTime"), now, is_over=verdict != Verdict.WAIT)
        if verdict == Verdict.WAIT:
            return None
        status = EventStatus.FAILED if verdict == Verdict.FAILED else EventStatus.DONE
        return self._event(status, message=self._last_line)

    def failed(self, failure: OmicsApiError, now: float) -> Event | None:
        """Process a failed call of GetBatch or GetRun.

        :param failure: the failure.
        :param now: when it came, in epoch seconds.
        :return: the end of the wait, None if the wait continues.
        """
        first_round, self._first_round = self._first_round, False
        is_passing = failure.is_passing and not (first_round and failure.is_unreachable)
        if not (is_passing or failure.is_not_found):
            return self._event(EventStatus.ERROR, message=str(failure), code=failure.code)
        recall, self.recall = self.recall, _no_silence
        silence = self.silence or recall() or Silence(since=now)
        if failure.is_not_found:
            silence = replace(silence, not_found=silence.not_found + 1)
        else:
            silence = replace(silence, no_answer=silence.no_answer + 1)
        self.silence = silence
        if silence.not_found >= NOT_FOUND_ROUNDS:
            return self._event(EventStatus.ERROR, message=str(failure), code=NOT_FOUND)
        # If every round had an answer (not found), only the number of rounds counts, however long the interval is.
        if silence.no_answer and now - silence.since >= self._max_silence:
            return self._event(EventStatus.ERROR, message=self._silence_text(silence, failure, now), code=SILENCE)
        if failure.is_not_found:
            self._note(logging.WARNING, f"{self._title} is not found; it may be too new, asking again")
        elif not self._warned_of_silence:
            self._warned_of_silence = True
            self._note(logging.WARNING, f"{self._title}: no answer, asking again: {failure}")
        return None

    def _silence_text(self, silence: Silence, failure: OmicsApiError, now: float) -> str:
        operation = self._subject.operation
        seconds = f"{now - silence.since:,.0f} s"
        if not silence.not_found:
            return f"{self._title}: no answer for {seconds}. Last error: {failure}"
        return (
            f"{self._title}: {operation} has not returned the {self._subject.key} for {seconds}; calls without an "
            f"answer: {silence.no_answer:,}, calls that did not find the {self._subject.key}: {silence.not_found}. "
            f"Last error: {failure}"
        )

    def overdue(self, now: float) -> Event | None:
        """Return the end of the wait if its deadline has passed.

        :param now: the time, in epoch seconds.
        """
        if self.deadline is None or now < self.deadline:
            return None
        known = self._last_line or f"{self._title}: no answer yet"
        return self._event(EventStatus.TIMEOUT, message=f"Timed out. {known}", code=DEADLINE)

    @property
    def _title(self) -> str:
        return f"{self._subject.noun} {self._subject.id}"

    @abstractmethod
    def _read(self, answer: Mapping[str, Any], now: float) -> Awaited:
        """Read an answer of GetBatch or GetRun."""

    def _event(self, status: EventStatus, *, message: str, code: str = "") -> Event:
        subject: dict[str, Any] = {self._subject.key: self._subject}
        return Event(status=status, message=message, code=code, deadline=self.deadline, **subject)

    def _report(self, subject: Awaited, created: datetime | None, now: float, *, is_over: bool) -> None:
        status = subject.shown_status
        if not subject.has_known_status and status not in self._unknown_statuses:
            self._unknown_statuses.add(status)
            self._note(
                logging.WARNING, f"{self._title} is {status}. This version of the package does not know this status."
            )
        progress = self._progress(subject)
        self._last_line = progress.text
        is_due = is_over or status != self._shown_status or now >= self._next_progress_at
        if progress.text == self._shown.text or not is_due:
            return
        if progress.counted != self._shown.counted:
            self._marks.clear()
            if created:
                self._marks.append(Mark(created.timestamp(), 0))
        self.shown_progress = with_pace(progress, self._marks[0] if self._marks else None, now)
        self._note(logging.INFO, self.shown_progress)
        self._shown, self._shown_status = progress, status
        self._next_progress_at = now + PROGRESS_SECONDS
        if progress.done is not None:
            self._marks.append(Mark(now, progress.done))

    def _note(self, level: int, text: str) -> None:
        self._lines.append((level, text))


class BatchWait(Wait[Batch]):
    """The rounds of one wait for a batch in one process; see :class:`Wait`.

    :param batch_id: id of the batch.
    """

    def __init__(self, *, batch_id: str, **arguments: Any) -> None:
        super().__init__(subject=Batch(id=batch_id), **arguments)

    def _read(self, answer: Mapping[str, Any], now: float) -> Batch:
        return Batch.from_answer(self._subject.id, answer, seen_at=now)


class RunWait(Wait[Run]):
    """The rounds of one wait for a single run in one process; see :class:`Wait`.

    :param run_id: id of the run.
    :param run_uuid: uuid of the run. Default: that of the first answer.
    """

    def __init__(self, *, run_id: str, run_uuid: str | None = None, **arguments: Any) -> None:
        super().__init__(subject=Run(id=run_id, uuid=run_uuid), **arguments)

    def _read(self, answer: Mapping[str, Any], now: float) -> Run:
        return Run.from_answer(self._subject.id, answer, uuid=self._subject.uuid, seen_at=now)


@dataclass(kw_only=True)
class RunsWait:
    """The wait for active runs of a batch that has ended. Each round calls GetRun for one of them.

    :param batch_id: id of the batch.
    :param run_ids: ids of the active runs.
    :param only_stopping: whether the wait ends as soon as a run is active and not STOPPING, because it must be
        cancelled (again).
    :param until: when the wait ends at the latest, in epoch seconds; None for no limit.
    :param max_silence: seconds without an answer after which the wait ends.
    """

    batch_id: str
    run_ids: list[str]
    only_stopping: bool = False
    until: float | None = None
    max_silence: float = math.inf
    #: Whether GetRun was refused, so that another source must say whether runs are active.
    is_refused: bool = False
    _silent_since: float | None = None

    @property
    def run_id(self) -> str | None:
        """Id of the run to ask for next, None when the wait is over."""
        return self.run_ids[0] if self.run_ids else None

    def answered(self, run: Mapping[str, Any], now: float) -> None:
        """Process an answer of GetRun.

        HealthOmics reuses the ids of deleted runs: a run of another batch shows that the batch's own run is gone.

        :param run: the answer.
        :param now: when it came, in epoch seconds.
        """
        self._silent_since = None
        status, batch_id = run.get("status"), run.get("batchId")
        if status in ENDED_RUN_STATUSES or batch_id not in {None, self.batch_id}:
            self.run_ids = self.run_ids[1:]
        elif batch_id is None or (self.only_stopping and status != RunStatus.STOPPING) or self._is_late(now):
            self.run_ids = []

    def failed(self, failure: OmicsApiError, now: float) -> None:
        """Process a failed call of GetRun.

        :param failure: the failure.
        :param now: when it came, in epoch seconds.
        """
        if failure.is_not_found:
            self._silent_since = None
            self.run_ids = self.run_ids[1:]
            return
        if self._silent_since is None:
            self._silent_since = now
        self.is_refused = not failure.is_passing
        if self.is_refused or now - self._silent_since >= self.max_silence or self._is_late(now):
            self.run_ids = []

    def _is_late(self, now: float) -> bool:
        return self.until is not None and now >= self.until

    def to_json(self) -> dict[str, Any] | None:
        """Return the wait in the form in which a trigger stores it, None when it is over."""
        if not self.run_ids:
            return None
        return {"run_ids": self.run_ids, "only_stopping": self.only_stopping, "until": self.until}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None, *, batch_id: str, max_silence: float) -> RunsWait:
        """Make the wait from what a trigger stored.

        :param value: what :meth:`to_json` returned.
        :param batch_id: id of the batch.
        :param max_silence: seconds without an answer after which the wait ends.
        """
        stored = value or {}
        return cls(
            batch_id=batch_id,
            run_ids=list(stored.get("run_ids") or ()),
            only_stopping=bool(stored.get("only_stopping")),
            until=stored.get("until"),
            max_silence=max_silence,
        )


def count_active(batch: Batch) -> int | None:
    """Return how many runs have not ended by GetBatch's counts, None if it reports no counts.

    :param batch: the batch.
    """
    if not batch.run_counts:
        return None
    return sum(count for name, count in batch.run_counts.items() if name.upper() not in ENDED_RUN_STATUSES)


def may_trust_counts(now: float, interval: float) -> bool:
    """Whether this round uses GetBatch's count of active runs instead of listing the runs.

    Counts may stay stale. One round in each :data:`TRUST_SECONDS` therefore lists the runs, whichever process makes it.

    :param now: the time, in epoch seconds.
    :param interval: seconds between two rounds.
    """
    return now % TRUST_SECONDS >= interval
