"""The decision "has every run of the batch finished, and well?", as pure functions.

It follows `GetBatch <https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html>`__, `ListRuns
<https://docs.aws.amazon.com/omics/latest/api/API_ListRuns.html>`__ and `GetRun
<https://docs.aws.amazon.com/omics/latest/api/API_GetRun.html>`__. A batch that is PROCESSED has ended, well or not:
what is not known to be completed counts as failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from airflow_provider_omics_cache.healthomics import submission
from airflow_provider_omics_cache.healthomics.failures import MAX_LISTED_RUNS, Failures
from airflow_provider_omics_cache.healthomics.rounds import Batch, Verdict
from airflow_provider_omics_cache.healthomics.states import DELETED_BATCH_STATES, BatchStatus, RunStatus

#: What the status of a run is called that was never submitted.
NOT_SUBMITTED = "NOT_SUBMITTED"

ENDED_RUN_STATES = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.DELETED})

_FAILED = {BatchStatus.FAILED, BatchStatus.CANCELLED, *DELETED_BATCH_STATES}
_FAILED_RUN_MEMBERS = ("run_setting_id", "run_id", "run_uuid", "status", "failure_reason", "status_message")


def decide(batch: Batch) -> Verdict:
    """Decide what GetBatch's answer means for a wait on completion: the status alone tells, since counts lag behind."""
    if batch.status == BatchStatus.PROCESSED:
        return Verdict.DONE
    return Verdict.FAILED if batch.status in _FAILED else Verdict.WAIT


def progress(batch: Batch) -> str:
    """Say how far the runs are, as far as the counts are known."""
    if not any(batch.run_counts.values()):
        return submission.progress(batch)
    counts = RunCounts.of_batch(batch)
    text = f"batch {batch.id} is {batch.status}: completed {counts.completed or 0:,}"
    if counts.total is not None:
        text += f" of {counts.total:,}"
    text += f", {counts.failed or 0:,} failed"
    for name in ("cancelled", "deleted", "not_submitted"):
        if number := getattr(counts, name):
            text += f", {number:,} {name.replace('_', ' ')}"
    return text


def may_be_active(run: Mapping[str, Any]) -> bool:
    """Tell whether a run, as ListRuns lists it, has not ended; a status that is not known counts as active."""
    return run.get("status") not in ENDED_RUN_STATES


class Judgement(StrEnum):
    """What the counts of a processed batch mean."""

    COMPLETED = "enough runs have completed"
    FAILED = "too many runs have not completed"
    UNKNOWN = "the counts do not tell yet"


@dataclass(frozen=True, kw_only=True)
class RunCounts:
    """How many runs of a batch have ended, and how; None where nothing tells."""

    total: int | None
    completed: int | None
    failed: int | None
    cancelled: int | None
    deleted: int | None
    not_submitted: int | None

    @classmethod
    def of_batch(cls, batch: Batch) -> RunCounts:
        """Read the counts out of GetBatch's answer."""
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
        """How many runs are not known to be completed."""
        return max(0, (self.total or 0) - (self.completed or 0))

    @property
    def late(self) -> int:
        """How many runs are in none of the counts."""
        ends = (self.completed, self.failed, self.cancelled, self.deleted, self.not_submitted)
        return max(0, (self.total or 0) - sum(count or 0 for count in ends))

    def judge(self, allowed: int) -> Judgement:
        """Judge a batch that is PROCESSED.

        :param allowed: how many runs may fail.
        """
        if self.total is None or self.completed is None:
            return Judgement.UNKNOWN
        if self.not_completed <= allowed:
            return Judgement.COMPLETED
        return Judgement.UNKNOWN if self.late else Judgement.FAILED

    def to_json(self) -> dict[str, int | None]:
        """Give the counts as an XCom holds them."""
        return asdict(self)


def join(
    row: Mapping[str, Any], listed: Mapping[str, Any] | None, run: Mapping[str, Any] | None, *, batch_id: str
) -> dict[str, Any]:
    """Join what is known of one run of a batch.

    :param row: its entry of ListRunsInBatch.
    :param listed: its entry of ListRuns; None if it has none, as a deleted run.
    :param run: GetRun's answer; None if it was not asked for, or does not know the run. One that is about another
        run, to which the id of a deleted one was given, is not used.
    :param batch_id: the batch.
    """
    run_id = row.get("runId") or None
    if run and not is_same_run(row, run, batch_id=batch_id):
        listed = run = None
    known = {**(listed or {}), **(run or {})}
    return {
        "run_setting_id": row.get("runSettingId"),
        "run_id": run_id,
        "run_uuid": row.get("runInternalUuid") or None,
        "status": NOT_SUBMITTED if run_id is None else known.get("status") or str(RunStatus.DELETED),
        "creation_time": _text(known.get("creationTime")),
        "start_time": _text(known.get("startTime")),
        "stop_time": _text(known.get("stopTime")),
        "failure_reason": known.get("failureReason") if run_id else row.get("submissionFailureReason"),
        "status_message": known.get("statusMessage") if run_id else row.get("submissionFailureMessage"),
        "run_output_uri": known.get("runOutputUri"),
    }


def is_same_run(row: Mapping[str, Any], run: Mapping[str, Any], *, batch_id: str) -> bool:
    """Tell whether GetRun's answer is about the run that the batch has started: ids of deleted runs are used again.

    :param row: the run's entry of ListRunsInBatch.
    :param run: GetRun's answer.
    :param batch_id: the batch.
    """
    uuid, found = row.get("runInternalUuid"), run.get("uuid")
    return run.get("batchId") in {None, batch_id} and (not uuid or not found or uuid == found)


class RunOutcomes:
    """How the runs of a batch have ended, taken in one by one."""

    def __init__(self) -> None:
        self.failed: list[dict[str, Any]] = []
        self._statuses: Counter[str] = Counter()
        self._failures = Failures()

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in a run, as :func:`join` gives it."""
        status = record["status"]
        self._statuses[status] += 1
        if status == RunStatus.COMPLETED:
            return
        if len(self.failed) < MAX_LISTED_RUNS:
            self.failed.append({name: record[name] for name in _FAILED_RUN_MEMBERS})
        reason = record["failure_reason"] or status
        if status == NOT_SUBMITTED:
            reason = f"not submitted, {record['failure_reason']}" if record["failure_reason"] else "not submitted"
        self._failures.add(reason, str(record["run_setting_id"]))

    def add_unlisted(self, number: int) -> None:
        """Count runs that were never submitted and that the service does not list."""
        if number > 0:
            self._statuses[NOT_SUBMITTED] += number
            self._failures.add_unnamed("not submitted", number)

    def failure_summary(self) -> str:
        """Sum up by reason what did not complete, with the first few ids of each."""
        return self._failures.summary()

    @property
    def counts(self) -> RunCounts:
        """How the runs have ended, by this listing."""
        return RunCounts(
            total=sum(self._statuses.values()),
            completed=self._statuses[RunStatus.COMPLETED],
            failed=self._statuses[RunStatus.FAILED],
            cancelled=self._statuses[RunStatus.CANCELLED],
            deleted=self._statuses[RunStatus.DELETED],
            not_submitted=self._statuses[NOT_SUBMITTED],
        )


def _text(time: Any) -> str | None:
    return time.isoformat() if isinstance(time, datetime) else time
