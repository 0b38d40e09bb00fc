"""Decide whether every run of a batch has ended, and how: pure functions.

It follows `GetBatch <https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html>`__, `ListRuns
<https://docs.aws.amazon.com/omics/latest/api/API_ListRuns.html>`__ and `GetRun
<https://docs.aws.amazon.com/omics/latest/api/API_GetRun.html>`__. PROCESSED means that every run has ended, not
that every run completed. Every run that is not known to be COMPLETED counts as failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum, auto
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_omics_cache.healthomics import submission
from airflow_provider_omics_cache.healthomics.failures import MAX_LISTED_RUNS, Failures, exceeds
from airflow_provider_omics_cache.healthomics.outputs import EXACT
from airflow_provider_omics_cache.healthomics.progress import Progress
from airflow_provider_omics_cache.healthomics.rounds import Batch
from airflow_provider_omics_cache.healthomics.states import ENDED_RUN_STATUSES, RunStatus, SubmissionStatus, Verdict

if TYPE_CHECKING:
    from airflow_provider_omics_cache.xcoms import FailedRun, RunCountsXCom, RunRecord

#: Status, in records, of a run that was never submitted.
NOT_SUBMITTED = "NOT_SUBMITTED"
#: Status, in records, of a run that was submitted, but is listed without its id.
WITHOUT_RUN_ID = "UNKNOWN"

_FAILED_RUN_MEMBERS = ("run_setting_id", "run_id", "run_uuid", "status", "failure_reason", "status_message")


def decide(batch: Batch, *, max_failed: int | Fraction | None = None) -> Verdict:
    """Decide what GetBatch's answer means for a wait on completion.

    Only the status shows that every run has ended, because counts lag.

    :param batch: the batch.
    :param max_failed: number or share of runs that may fail before the wait ends early. None: it never ends early.
    """
    verdict = batch.meaning.completion
    if verdict == Verdict.WAIT and max_failed is not None and has_too_many_failures(batch, max_failed):
        return Verdict.FAILED
    return verdict


def has_too_many_failures(batch: Batch, max_failed: int | Fraction) -> bool:
    """Whether, by GetBatch's counts, more runs of an active batch failed to complete than are allowed.

    :param batch: the batch.
    :param max_failed: number or share of runs that may fail.
    """
    return batch.meaning.end is None and exceeds(RunCounts.of_batch(batch).ended_badly, max_failed, batch.expected_runs)


def progress(batch: Batch) -> Progress:
    """Describe the progress of the runs, or of the submission before a run has been started."""
    if not any(batch.run_counts.values()):
        return submission.progress(batch)
    counts = RunCounts.of_batch(batch)
    text = f"Batch {batch.id} is {batch.shown_status}: completed {counts.completed or 0:,}"
    if counts.total is not None:
        text += f" of {counts.total:,}"
    text += f", {counts.failed or 0:,} failed"
    for name in ("cancelled", "deleted", "not_submitted"):
        if number := getattr(counts, name):
            text += f", {number:,} {name.replace('_', ' ')}"
    return Progress(text, "completed", counts.ended, counts.total)


class Judgement(Enum):
    """What the counts of a processed batch mean."""

    #: Enough runs completed.
    COMPLETED = auto()
    #: Too many runs did not complete.
    FAILED = auto()
    #: The counts are not complete yet.
    UNKNOWN = auto()


@dataclass(frozen=True, kw_only=True)
class RunCounts:
    """How the runs of a batch have ended. A count that is not known is None."""

    total: int | None
    completed: int | None
    failed: int | None
    cancelled: int | None
    deleted: int | None
    not_submitted: int | None

    @classmethod
    def of_batch(cls, batch: Batch) -> RunCounts:
        """Return the counts of GetBatch's answer.

        :param batch: the batch.
        """
        return cls(
            total=batch.expected_runs,
            completed=batch.run_counts.get("completed"),
            failed=batch.run_counts.get("failed"),
            cancelled=batch.run_counts.get("cancelled"),
            deleted=batch.run_counts.get("deleted"),
            not_submitted=batch.failed,
        )

    @property
    def not_completed(self) -> int:
        """Number of runs that are not known to be COMPLETED."""
        return max(0, (self.total or 0) - (self.completed or 0))

    @property
    def ended_badly(self) -> int:
        """Number of runs that are known to have failed, or to have been cancelled, deleted or not submitted."""
        return sum(count or 0 for count in (self.failed, self.cancelled, self.deleted, self.not_submitted))

    @property
    def ended(self) -> int:
        """Number of runs that have ended in any way, by the known counts."""
        return (self.completed or 0) + self.ended_badly

    @property
    def late(self) -> int:
        """Number of runs that no count includes yet."""
        return max(0, (self.total or 0) - self.ended)

    def judge(self, allowed: int) -> Judgement:
        """Judge a batch that is PROCESSED. The result is UNKNOWN while counts are late.

        :param allowed: number of runs that may fail.
        """
        if self.total is None or self.completed is None or self.late:
            return Judgement.UNKNOWN
        return Judgement.COMPLETED if self.not_completed <= allowed else Judgement.FAILED

    def agrees_with(self, listed: RunCounts) -> bool:
        """Whether the runs that were listed confirm the number of completed runs.

        Completed runs may have been deleted since they were counted. This explains a difference only if no count is
        late.

        :param listed: counts of the runs that were listed.
        """
        lacking = (self.completed or 0) - (listed.completed or 0)
        deleted_since = 0 if self.late else max(0, (listed.deleted or 0) - (self.deleted or 0))
        return 0 <= lacking <= deleted_since

    def to_json(self) -> RunCountsXCom:
        """Return the counts as an XCom."""
        return cast("RunCountsXCom", asdict(self))


def join(
    row: Mapping[str, Any], listed: Mapping[str, Any] | None, run: Mapping[str, Any] | None, *, batch_id: str
) -> RunRecord:
    """Join what is known of one run of a batch.

    :param row: the run's entry of ListRunsInBatch.
    :param listed: the run's entry of ListRuns; None if there is no entry, for example for a deleted run.
    :param run: GetRun's answer; None if GetRun was not called or did not find the run. If it describes another run,
        which got the id of a deleted run, neither it nor ``listed`` is used.
    :param batch_id: id of the batch.
    """
    run_id = row.get("runId") or None
    if run and not is_same_run(row, run, batch_id=batch_id):
        listed = run = None
    known = {**(listed or {}), **(run or {})}
    without_run_id = WITHOUT_RUN_ID if row.get("submissionStatus") == SubmissionStatus.SUCCESS else NOT_SUBMITTED
    return {
        "run_setting_id": row.get("runSettingId"),
        "run_id": run_id,
        "run_uuid": row.get("runInternalUuid") or None,
        "status": without_run_id if run_id is None else _status(run or {}, listed or {}),
        "creation_time": _text(known.get("creationTime")),
        "start_time": _text(known.get("startTime")),
        "stop_time": _text(known.get("stopTime")),
        "failure_reason": known.get("failureReason") if run_id else row.get("submissionFailureReason"),
        "status_message": known.get("statusMessage") if run_id else row.get("submissionFailureMessage"),
        "run_output_uri": known.get("runOutputUri"),
        "output_source": EXACT if known.get("runOutputUri") else None,
    }


def _status(run: Mapping[str, Any], listed: Mapping[str, Any]) -> str:
    """Return GetRun's status, unless only the listing shows that the run has ended.

    An ended run stays ended: then GetRun's answer is older, or has a status that this package does not know.
    """
    statuses = [status for status in (run.get("status"), listed.get("status")) if status]
    ended = [status for status in statuses if status in ENDED_RUN_STATUSES]
    return str((ended or statuses or [RunStatus.DELETED])[0])


def ended_badly(row: Mapping[str, Any], run_status: str | None, *, only_failed: bool) -> bool:
    """Whether a run of an active batch has ended, or was not submitted, without being COMPLETED.

    :param row: the run's entry of ListRunsInBatch.
    :param run_status: status of the run in ListRuns, None if it is not listed there.
    :param only_failed: whether runs that were cancelled or deleted do not count.
    """
    if not row.get("runId"):
        return row.get("submissionStatus") == SubmissionStatus.FAILED
    if only_failed:
        return run_status == RunStatus.FAILED
    is_deleted = row.get("submissionStatus") == SubmissionStatus.DELETE_SUCCESS
    return is_deleted or (run_status in ENDED_RUN_STATUSES and run_status != RunStatus.COMPLETED)


class ListedRuns:
    """The runs of the rows that were added, to find runs that are listed twice."""

    def __init__(self) -> None:
        self._ids: set[tuple[str, str]] = set()

    def add(self, row: Mapping[str, Any]) -> bool:
        """Add an entry of ListRunsInBatch.

        :param row: the entry. Without a runSettingId and a runId it counts as a run of its own.
        :return: whether no entry of its run was added before.
        """
        ids = {(name, row[name]) for name in ("runSettingId", "runId") if row.get(name)}
        is_new = self._ids.isdisjoint(ids)
        self._ids |= ids
        return is_new


def is_same_run(row: Mapping[str, Any], run: Mapping[str, Any], *, batch_id: str) -> bool:
    """Whether GetRun's answer is about the run that the batch has started. HealthOmics reuses ids of deleted runs.

    :param row: the run's entry of ListRunsInBatch; may be empty.
    :param run: GetRun's answer.
    :param batch_id: id of the batch.
    """
    uuid, found = row.get("runInternalUuid"), run.get("uuid")
    return run.get("batchId") in {None, batch_id} and (not uuid or not found or uuid == found)


class RunOutcomes:
    """Collects how the runs of a batch have ended. Runs are added one by one."""

    def __init__(self) -> None:
        self.failed: list[FailedRun] = []
        self._statuses: Counter[str] = Counter()
        self._failures = Failures()

    def add(self, record: RunRecord) -> None:
        """Add a run.

        :param record: what :func:`join` returned.
        """
        status = record["status"]
        self._statuses[status] += 1
        if status == RunStatus.COMPLETED:
            return
        if len(self.failed) < MAX_LISTED_RUNS:
            members: Mapping[str, Any] = record
            self.failed.append(cast("FailedRun", {name: members[name] for name in _FAILED_RUN_MEMBERS}))
        reason = reason_of(status, record["failure_reason"])
        self._failures.add(reason, record["run_setting_id"], record["status_message"])

    def add_unlisted(self, number: int) -> None:
        """Count runs that were never submitted and that the service does not list.

        :param number: number of such runs.
        """
        if number > 0:
            self._statuses[NOT_SUBMITTED] += number
            self._failures.add_unnamed("not submitted", number)

    def failure_summary(self, total: int | None = None) -> str:
        """Summarise by reason and message the runs that did not complete, with the first few ids of each group.

        :param total: number of all runs that did not complete. Default: the number of those that were added.
        """
        return self._failures.summary(total)

    @property
    def counts(self) -> RunCounts:
        """How the listed runs have ended."""
        return RunCounts(
            total=sum(self._statuses.values()),
            completed=self._statuses[RunStatus.COMPLETED],
            failed=self._statuses[RunStatus.FAILED],
            cancelled=self._statuses[RunStatus.CANCELLED],
            deleted=self._statuses[RunStatus.DELETED],
            not_submitted=self._statuses[NOT_SUBMITTED],
        )


def reason_of(status: str, failure_reason: str | None) -> str:
    """Return why a run did not complete, as summaries show it.

    :param status: status of the run in its record.
    :param failure_reason: failure reason in its record.
    """
    if status == NOT_SUBMITTED:
        return f"not submitted, {failure_reason}" if failure_reason else "not submitted"
    return failure_reason or status


def _text(time: Any) -> str | None:
    return time.isoformat() if isinstance(time, datetime) else time
