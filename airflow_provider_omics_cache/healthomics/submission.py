"""Decide whether every run of a batch has been submitted: pure functions.

It follows `GetBatch <https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html>`__ and
`ListRunsInBatch <https://docs.aws.amazon.com/omics/latest/api/API_ListRunsInBatch.html>`__. Their answers may lack any
member: an absent count is unknown, never zero.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fractions import Fraction
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from airflow_provider_omics_cache.healthomics.failures import MAX_LISTED_RUNS, Failures, counted, exceeds
from airflow_provider_omics_cache.healthomics.progress import Progress
from airflow_provider_omics_cache.healthomics.rounds import Batch
from airflow_provider_omics_cache.healthomics.states import (
    CHANGED_AFTER_SUBMISSION_STATUSES,
    SubmissionStatus,
    Verdict,
)

if TYPE_CHECKING:
    from airflow_provider_omics_cache.xcoms import SubmissionRecord

#: Statuses which show that a run without a run id was not submitted.
_NOT_SUBMITTED_STATUSES = frozenset(SubmissionStatus) - {SubmissionStatus.SUCCESS}

#: Number of parts in which run ids are compared with each other.
_PARTS = 8


def decide(batch: Batch, *, max_failed: int | Fraction | None = None) -> Verdict:
    """Decide what GetBatch's answer means for a wait on submission.

    The status is checked before the counts, because counts lag behind.

    :param batch: the batch.
    :param max_failed: number or share of submissions that may fail before the wait ends early. None: it never ends
        early.
    """
    verdict = batch.meaning.submission
    if verdict == Verdict.DONE_IF_NOTHING_PENDING:
        verdict = Verdict.DONE if batch.pending == 0 else Verdict.WAIT
    if verdict == Verdict.WAIT and max_failed is not None and has_too_many_failures(batch, max_failed):
        return Verdict.FAILED
    return verdict


def has_too_many_failures(batch: Batch, max_failed: int | Fraction) -> bool:
    """Whether GetBatch counts more failed submissions of an active batch than are allowed.

    :param batch: the batch.
    :param max_failed: number or share of submissions that may fail.
    """
    return batch.meaning.end is None and exceeds(batch.failed, max_failed, batch.expected_runs)


def progress(batch: Batch) -> Progress:
    """Describe the progress of the submission."""
    text = f"Batch {batch.id} is {batch.shown_status}"
    if batch.submitted is None and batch.failed is None:
        return Progress(text)
    submitted, failed = batch.submitted or 0, batch.failed or 0
    text += f": submitted {submitted:,}"
    if batch.expected_runs is not None:
        text += f" of {batch.expected_runs:,}"
    return Progress(f"{text}, {failed:,} failed", "submitted", submitted + failed, batch.expected_runs)


def counted_as_incomplete(batch: Batch, expected: int | None) -> str | None:
    """Describe how many submissions GetBatch's counts lack. None if they lack none, or if that is not known.

    :param batch: a batch that ended early. Its counts may lag behind.
    :param expected: number of runs of the batch, None if it is not known.
    """
    if expected is None or batch.submitted is None or batch.failed is None:
        return None
    attempted = batch.submitted + batch.failed
    return f"GetBatch counts only {attempted:,} of {expected:,} submissions" if attempted < expected else None


def unlisted_submissions(batch: Batch, listing: Submissions) -> str | None:
    """Describe how many submitted runs are not listed. None if all of them are listed, or if their number is not known.

    :param batch: the batch.
    :param listing: the listing of its runs.
    """
    if listing.submitted_count >= (batch.submitted or 0):
        return None
    return f"{listing.submitted_count:,} runs are listed, but {batch.submitted:,} were submitted"


def doubt_about_end(batch: Batch, listing: Submissions, expected: int | None) -> str | None:
    """Describe why the listing of a batch that ended early may lack submitted runs. None if it has every run.

    :param batch: the batch.
    :param listing: the listing of its runs.
    :param expected: number of runs of the batch, None if it is not known.
    """
    doubt = listing.contradiction() or unlisted_submissions(batch, listing)
    if doubt:
        return doubt
    if expected is not None and listing.rows < expected:
        return f"{listing.rows:,} runs are listed, but {expected:,} are expected"
    if listing.assumed_failures:
        return (
            f"{listing.assumed_failures:,} of {listing.rows:,} listed runs have neither a runId nor a failed submission"
        )
    return None


def doubt_about_existing_runs(batch: Batch, listing: Submissions) -> str | None:
    """Describe why runs of a batch that ended early may exist and not be listed yet. None if every run is listed.

    :param batch: the batch.
    :param listing: the listing of its runs.
    """
    if batch.expected_runs is None:
        return "the service does not report how many runs the batch has"
    return doubt_about_end(batch, listing, batch.expected_runs)


class Submissions:
    """Collects the rows of one listing of a batch. Rows are added one by one.

    :param batch_is_over: whether nothing more will be submitted, so that a run without a run id was not submitted.
    """

    def __init__(self, *, batch_is_over: bool = False) -> None:
        self._batch_is_over = batch_is_over
        self.rows = 0
        #: Number of runs that count as not submitted although their submission status is not FAILED.
        self.assumed_failures = 0
        self.run_ids: dict[str, str] = {}
        self.failed: list[SubmissionRecord] = []
        self.changed: list[SubmissionRecord] = []
        self._not_submitted: set[str] = set()
        self._failed_ids: set[str] = set()
        self._without_id = 0
        self._without_run_id = 0
        self._unfinished = 0
        self._failures = Failures()

    @property
    def submitted_count(self) -> int:
        """Number of runs that were submitted."""
        return len(self.run_ids)

    @property
    def claimed_count(self) -> int:
        """Number of runs that the listing shows as submitted, with or without a run id."""
        return len(self.run_ids) + self._without_run_id

    @property
    def failed_count(self) -> int:
        """Number of runs that were not submitted."""
        return self._failures.count

    @staticmethod
    def record(row: Mapping[str, Any]) -> SubmissionRecord:
        """Return a row in the form in which XComs and files have it.

        :param row: an entry of ListRunsInBatch.
        """
        return {
            "run_setting_id": row.get("runSettingId"),
            "run_id": row.get("runId") or None,
            "run_uuid": row.get("runInternalUuid") or None,
            "status": row.get("submissionStatus"),
            "reason": row.get("submissionFailureReason"),
            "message": row.get("submissionFailureMessage"),
        }

    @classmethod
    def line(cls, row: Mapping[str, Any]) -> bytes:
        """Return a row as a line of JSON, as files have it.

        :param row: an entry of ListRunsInBatch.
        """
        return json.dumps({**cls.record(row), "run_arn": row.get("runArn")}).encode() + b"\n"

    def has(self, row: Mapping[str, Any]) -> bool:
        """Whether an entry repeats one that was added, because the service has listed a run twice.

        :param row: the entry.
        """
        run_setting_id, run_id = row.get("runSettingId"), row.get("runId")
        if not run_setting_id:
            return False
        if run_id:
            return bool(self.run_ids.get(run_setting_id) == run_id)
        return run_setting_id in self._not_submitted or run_setting_id in self.run_ids

    def add(self, row: Mapping[str, Any]) -> None:
        """Add an entry of ListRunsInBatch.

        :param row: the entry.
        """
        self.rows += 1
        run_setting_id = row.get("runSettingId")
        run_id = row.get("runId")
        status = row.get("submissionStatus")
        if not run_setting_id:
            self._without_id += 1
        elif run_id:
            self.run_ids[run_setting_id] = run_id
            if status in CHANGED_AFTER_SUBMISSION_STATUSES and len(self.changed) < MAX_LISTED_RUNS:
                self.changed.append(self.record(row))
            if not status:
                self._unfinished += 1
        else:
            self._not_submitted.add(run_setting_id)
            if status == SubmissionStatus.SUCCESS:
                self._without_run_id += 1
            elif status in _NOT_SUBMITTED_STATUSES or self._batch_is_over:
                if run_setting_id not in self._failed_ids:
                    self._failed_ids.add(run_setting_id)
                    self._add_failed(run_setting_id, row)
                self.assumed_failures += status != SubmissionStatus.FAILED
            else:
                self._unfinished += 1

    def add_unlisted(self, number: int) -> None:
        """Count runs that were never submitted and that the service does not list.

        :param number: number of such runs.
        """
        self._failures.add_unnamed("never submitted", number)

    def _add_failed(self, run_setting_id: str, row: Mapping[str, Any]) -> None:
        if len(self.failed) < MAX_LISTED_RUNS:
            self.failed.append(self.record(row))
        reason = row.get("submissionFailureReason") or row.get("submissionStatus") or "never submitted"
        self._failures.add(reason, run_setting_id, row.get("submissionFailureMessage"))

    def missing(self, expected: int | None, *, at_least: int | None = None) -> str | None:
        """Describe what the listing lacks. Return None if it has every run of the batch with its outcome.

        :param expected: number of runs of the batch, None if it is not known.
        :param at_least: minimum number of listed runs: the service may not list runs that were never submitted.
            Default: ``expected``.
        """
        if not self.rows:
            return "no run is listed"
        if self._unfinished:
            return f"{self._unfinished:,} of {self.rows:,} listed runs have no submission outcome"
        contradiction = self.contradiction()
        if contradiction:
            return contradiction
        if expected is None:
            return f"{self.rows:,} runs are listed, but the number of runs of the batch is not known"
        least = expected if at_least is None else at_least
        if not least <= self.rows <= expected:
            return f"{self.rows:,} runs are listed, but {expected:,} are expected"
        return None

    def contradiction(self) -> str | None:
        """Describe rows that contradict themselves or each other, so that runs are missing. None if there are none."""
        if self._without_run_id:
            return f"{self._without_run_id:,} of {self.rows:,} listed runs have the status SUCCESS but no runId"
        if self._without_id:
            return f"{self._without_id:,} of {self.rows:,} listed runs have no runSettingId"
        in_both = sum(run_setting_id in self.run_ids for run_setting_id in self._not_submitted)
        different = len(self.run_ids) + len(self._not_submitted) - in_both
        if self.rows > different:
            return f"{self.rows - different:,} of {self.rows:,} listed runs repeat a runSettingId"
        shared = len(self.run_ids) - self._count_run_ids()
        if shared:
            return f"{shared:,} of {self.rows:,} listed runs have the runId of another run"
        return None

    def _count_run_ids(self) -> int:
        """Return the number of different run ids. Only a part of them is in a set at a time, to save memory."""
        return sum(
            len({run_id for run_id in self.run_ids.values() if hash(run_id) % _PARTS == part}) for part in range(_PARTS)
        )

    def fingerprint(self) -> bytes:
        """Return a digest of the mapping ``{runSettingId: runId}``. It does not depend on the order of the rows."""
        digest = sha256()
        for run_setting_id in sorted(self.run_ids):
            digest.update(f"{run_setting_id}\0{self.run_ids[run_setting_id]}\0".encode())
        return digest.digest()

    def count_unlisted(self, run_ids: Iterable[str]) -> int:
        """Return how many run ids are not in the mapping ``{runSettingId: runId}``.

        :param run_ids: the run ids.
        """
        unlisted = set(run_ids)
        unlisted.difference_update(self.run_ids.values())
        return len(unlisted)

    def failure_summary(self, total: int | None = None) -> str:
        """Summarise the failed submissions by reason and message, with the first few ids of each group.

        :param total: number of all failed submissions. Default: the number of those that are listed.
        """
        number = self.failed_count if total is None else total
        groups = self._failures.summary(number)
        return f"{counted(number, 'submission')} failed{f': {groups}' if groups else ''}"
