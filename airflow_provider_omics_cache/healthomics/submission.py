"""The decision "has every run of the batch been submitted?", as pure functions.

It follows `GetBatch <https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html>`__ and
`ListRunsInBatch <https://docs.aws.amazon.com/omics/latest/api/API_ListRunsInBatch.html>`__. No member of their
answers is promised: an absent count is unknown, never zero.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

from airflow_provider_omics_cache.healthomics.failures import MAX_LISTED_RUNS, Failures
from airflow_provider_omics_cache.healthomics.rounds import Batch, Verdict
from airflow_provider_omics_cache.healthomics.states import (
    CHANGED_AFTER_SUBMISSION_STATES,
    DELETED_BATCH_STATES,
    TERMINAL_SUBMISSION_STATES,
    BatchStatus,
)

_WAIT = {BatchStatus.CREATING, BatchStatus.PENDING, BatchStatus.SUBMITTING, BatchStatus.STOPPING}
_FAILED = {BatchStatus.FAILED, BatchStatus.CANCELLED, *DELETED_BATCH_STATES}

#: In how many parts hashes are compared: Python objects are made of one part at a time.
_PARTS = 32


def decide(batch: Batch) -> Verdict:
    """Decide what GetBatch's answer means for a wait on submission.

    Status comes before counts, since counts lag behind.
    """
    if batch.status in _WAIT:
        return Verdict.WAIT
    if batch.status in _FAILED:
        return Verdict.FAILED
    if batch.status == BatchStatus.PROCESSED or batch.pending == 0:
        return Verdict.DONE
    return Verdict.WAIT


def progress(batch: Batch) -> str:
    """Say how far the submission is, as far as the counts are known."""
    if batch.submitted is None and batch.failed is None:
        return f"batch {batch.id} is {batch.status or 'without a status'}"
    total = batch.expected_runs
    text = f"batch {batch.id} is {batch.status}: submitted {batch.submitted or 0:,}"
    if total is not None:
        text += f" of {total:,}"
    return f"{text}, {batch.failed or 0:,} failed"


class Submissions:
    """The rows of one listing of a batch, taken in one by one.

    Beside the mapping it keeps 8 bytes of each row: the hash of its runSettingId, to find repeated ones. That two ids
    of 100,000 have the same one happens once in billions of listings.

    :param batch_is_over: nothing more will be submitted, so that a run without a run id failed to be submitted.
    :param keep_run_ids: keep the mapping ``{runSettingId: runId}``. Without it ``run_ids`` stays empty.
    :param keep_hashes: keep 8 bytes more of each row, the hash of its runId, for :meth:`fingerprint` and
        :meth:`count_unlisted`.
    """

    def __init__(self, *, batch_is_over: bool = False, keep_run_ids: bool = True, keep_hashes: bool = False) -> None:
        self._batch_is_over = batch_is_over
        self._keep_run_ids = keep_run_ids
        self._keep_hashes = keep_hashes
        self.rows = 0
        self.run_ids: dict[str, str] = {}
        self.failed: list[dict[str, Any]] = []
        self.changed: list[dict[str, Any]] = []
        self._submitted = array("q")
        self._not_submitted = array("q")
        #: Of each entry of ``_submitted``, the hash of its runId.
        self._run_hashes = array("q")
        self._unfinished = 0
        self._failures = Failures()

    @property
    def submitted_count(self) -> int:
        """How many runs were submitted."""
        return len(self.run_ids) or _count_different(self._submitted)

    @property
    def failed_count(self) -> int:
        """How many runs were not submitted."""
        return self._failures.count

    @staticmethod
    def record(row: Mapping[str, Any]) -> dict[str, Any]:
        """Name the members of one row as XComs and files do."""
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
        """Give one row as a line of JSON, as files hold it."""
        return json.dumps({**cls.record(row), "run_arn": row.get("runArn")}).encode() + b"\n"

    def add(self, row: Mapping[str, Any]) -> None:
        """Take in one entry of ListRunsInBatch."""
        self.rows += 1
        run_setting_id = row.get("runSettingId")
        run_id = row.get("runId")
        status = row.get("submissionStatus")
        if not run_setting_id:
            self._unfinished += 1
            return
        if run_id:
            self._submitted.append(hash(run_setting_id))
            if self._keep_run_ids:
                self.run_ids[run_setting_id] = run_id
            if self._keep_hashes:
                self._run_hashes.append(hash(run_id))
            if status in CHANGED_AFTER_SUBMISSION_STATES and len(self.changed) < MAX_LISTED_RUNS:
                self.changed.append(self.record(row))
            if not status:
                self._unfinished += 1
            return
        self._not_submitted.append(hash(run_setting_id))
        has_failed = status in TERMINAL_SUBMISSION_STATES and status != "SUCCESS"
        if has_failed or self._batch_is_over:
            self._add_failed(run_setting_id, row)
        else:
            self._unfinished += 1

    def add_unlisted(self, number: int) -> None:
        """Count runs that were never submitted and that the service does not list."""
        self._failures.add_unnamed("never submitted", number)

    def _add_failed(self, run_setting_id: str, row: Mapping[str, Any]) -> None:
        if len(self.failed) < MAX_LISTED_RUNS:
            self.failed.append(self.record(row))
        reason = row.get("submissionFailureReason") or row.get("submissionStatus") or "never submitted"
        self._failures.add(reason, run_setting_id)

    def missing(self, expected: int | None) -> str | None:
        """Say what the listing lacks, or None when every run of the batch is in it with its outcome.

        :param expected: how many runs the batch has; None when nothing tells.
        """
        if not self.rows:
            return "no run is listed"
        if self._unfinished:
            return f"{self._unfinished:,} of {self.rows:,} listed runs have no submission outcome"
        repeated = self._count_repeated()
        if repeated:
            return f"{repeated:,} of {self.rows:,} listed runs repeat a runSettingId"
        if expected is None:
            return f"{self.rows:,} runs are listed and nothing tells how many the batch has"
        if self.rows != expected:
            return f"{self.rows:,} runs are listed and {expected:,} are expected"
        return None

    def fingerprint(self) -> bytes:
        """Give a digest that is another one for another mapping ``{runSettingId: runId}``.

        It does not depend on the order of the rows. Only those of one process can be compared.
        """
        digest = sha256()
        for link in self._links():
            digest.update(b"%d %d\n" % link)
        return digest.digest()

    def count_unlisted(self, run_ids: Iterable[str]) -> int:
        """Count the different run ids that are not in the mapping ``{runSettingId: runId}``.

        :param run_ids: the run ids; none of them is held.
        """
        wanted = array("q", map(hash, run_ids))
        listed = array("q", (run for _, run in self._links()))
        return sum(len(_part(wanted, number) - _part(listed, number)) for number in range(_PARTS))

    def _links(self) -> Iterator[tuple[int, int]]:
        """Give the mapping in hashes, in one order; of a repeated runSettingId the last row counts, as in a dict."""
        for number in range(_PARTS):
            links = zip(self._submitted, self._run_hashes, strict=True)
            part = {setting: run for setting, run in links if setting % _PARTS == number}
            for setting in sorted(part):
                yield setting, part[setting]

    def _count_repeated(self) -> int:
        if len(self.run_ids) == self.rows:
            return 0
        listed = self._submitted + self._not_submitted
        return len(listed) - _count_different(listed)

    def failure_summary(self) -> str:
        """Sum up the failed submissions by reason, with the first few ids of each."""
        return self._failures.summary()


def _count_different(hashes: array[int]) -> int:
    return sum(len(_part(hashes, number)) for number in range(_PARTS))


def _part(hashes: array[int], number: int) -> set[int]:
    return {value for value in hashes if value % _PARTS == number}


def expected_number(expected_runs: int | None, batch: Batch) -> int | None:
    """Tell how many runs the batch has: what the author said, else totalRuns, else the sum of the counts."""
    if expected_runs is not None:
        return expected_runs
    return batch.expected_runs
