"""Judges a task with ``fail_fast``, and its ``cancel_on_failure``, by what their documentation promises.

It reads the state of the service, and the whole answers of GetBatch that a try has got.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.faults.oracle import Oracle

#: Seconds for which a task may call GetBatch to cancel the batch: the five minutes of the calls, and a timeout.
CANCELLING = 400.0
#: What the error says of the batch, by the claim.
CLAIMS = {
    "continues": "the batch continues",
    "cancelled": "cancel_on_failure cancelled it",
    "cancelled before": "it was cancelled before",
    "not cancelled": "could not be cancelled",
    "ended": "because it has ended",
}
#: Kinds of faults that leave the answers of GetBatch and of CancelRunBatch as they are.
HARMLESS = frozenset({"fail_run", "fail_submission", "fail_cancel", "late", "list_lag", "stale_counts", "reorder"})
#: Kinds of faults with which a listing, or a row of it, is not complete.
INCOMPLETE_LISTS = frozenset({"late", "list_lag", "absent_in_row", "unknown_status"})

#: Statuses in which submissions and runs fail.
_ACTIVE = ("SUBMITTING", "INPROGRESS")
_ERRORS = {"submissions": "TooManyFailedSubmissionsError", "runs": "TooManyFailedRunsError"}


@dataclass
class Try:
    """What a try knows from unchanged answers.

    :param began_at: when it began, in seconds of service time.
    :param xcoms: its XComs.
    """

    began_at: float
    xcoms: Mapping[str, Any]
    #: Status in the last whole answer.
    status: str = ""
    #: When an answer first counted too many failures, and what it counted.
    exceeded_at: float | None = None
    submitted: int = 0
    failed: int = 0
    #: Batches that the service has cancelled for this try.
    cancelled: set[int] = field(default_factory=set)


@dataclass
class FailFast:
    """The judge of one task.

    :param oracle: what reads the state of the service.
    :param counted: what counts as a failure: ``submissions``, or ``runs`` that did not complete.
    :param max_failed: the number or share that is allowed.
    :param timeout: seconds for which a try waits at the least, if nothing else ends it.
    :param batch_id: id of the batch, None for a task that starts it.
    :param request: the request whose batches the task may start.
    :param cancels: whether the task has ``cancel_on_failure``.
    :param uri: where the task writes the mapping, or the records of the runs.
    """

    oracle: Oracle
    counted: str
    max_failed: int | str
    timeout: float
    batch_id: str | None = None
    request: str | None = None
    cancels: bool = False
    uri: str | None = None
    #: Number of runs that had been cancelled when the task cancelled the batch, by batch.
    _cancelled_before: dict[int, int] = field(default_factory=dict)

    def is_exceeded(self, failed: int, total: int) -> bool:
        """Whether more have failed than are allowed."""
        if isinstance(self.max_failed, str):
            return failed * 100 > float(self.max_failed.rstrip("%")) * total
        return failed > self.max_failed

    def failures(self, number: int) -> int:
        """Return how many failures a batch has."""
        return self.oracle.failures(number, runs=self.counted == "runs")

    # During a try

    def asked(self, attempt: Try, now: float) -> None:
        """Note a GetBatch call of a try."""
        if attempt.exceeded_at is not None and now > attempt.exceeded_at + (CANCELLING if self.cancels else 0.0):
            self.oracle.found("missed-failure", f"{attempt.failed} failures were counted, and GetBatch is called again")

    def answered(self, attempt: Try, answer: Mapping[str, Any], now: float) -> None:
        """Note a whole answer of GetBatch that a try has got."""
        attempt.status = answer["status"]
        # A task that starts its batch looks at it before it waits.
        is_waiting = self.request is None or "return_value" in attempt.xcoms
        counts = answer.get("submissionSummary")
        if not is_waiting or attempt.exceeded_at is not None or now > attempt.began_at + self.timeout or not counts:
            return
        failed = counts["failedStartSubmissionCount"]
        is_active = attempt.status in _ACTIVE
        if self.counted == "runs":
            runs = answer.get("runSummary", {})
            failed += sum(runs.get(f"{name}RunCount", 0) for name in ("failed", "cancelled", "deleted"))
        elif not counts["pendingStartSubmissionCount"]:
            # The listing decides about a batch that has nothing left to submit.
            is_active = False
        if is_active and self.is_exceeded(failed, answer["totalRuns"]):
            attempt.exceeded_at, attempt.failed = now, failed
            attempt.submitted = counts["successfulStartSubmissionCount"]

    def has_cancelled(self, attempt: Try, number: int, failed: int, cancelled_before: int) -> None:
        """Check a batch that the service has cancelled for a try.

        :param number: the batch.
        :param failed: its failures before the cancellation.
        :param cancelled_before: number of its runs that had been cancelled before.
        """
        attempt.cancelled.add(number)
        self._cancelled_before[number] = cancelled_before
        self.check_owner("CancelRunBatch", number)
        if not self.cancels:
            self.oracle.found("wrong-cancellation", f"batch {number} was cancelled without cancel_on_failure")
        elif not self.is_exceeded(failed, self.oracle.batch(number).total_runs() or 0):
            self.oracle.found("wrong-cancellation", f"batch {number} was cancelled with {failed} failures")

    def check_owner(self, operation: str, number: int) -> None:
        """Check that a batch belongs to the task."""
        is_own = str(number) == self.batch_id or self.oracle.request_of.get(number, "") == self.request
        if not is_own:
            self.oracle.found("wrong-cancellation", f"{operation} of batch {number}, which is not the task's")

    # The end of a try

    def ended(self, attempt: Try, error: BaseException | None, faults: Mapping[str, int]) -> None:
        """Check the end of a try, unless it was killed.

        :param error: what it raised; None if it succeeded.
        :param faults: the faults that have happened, by kind.
        """
        number = self.number(attempt)
        if number is None:
            return
        is_own_error = type(error).__name__ == _ERRORS[self.counted]
        total = self.oracle.batch(number).total_runs() or 0
        failed = self.failures(number)
        if error is None and self.is_exceeded(failed, total):
            text = f"batch {number}: success with {failed} failures of {total}; {self.max_failed} are allowed"
            self.oracle.found("ignored-failure", text)
        if is_own_error and not self.is_exceeded(failed, total):
            text = f"batch {number} has {failed} failures of {total}; {self.max_failed} are allowed"
            self.oracle.found("early-failure", text)
        if attempt.exceeded_at is not None and not is_own_error:
            self.oracle.found("missed-failure", f"batch {number}: {attempt.failed} failures were counted, not reported")
        if not is_own_error:
            return
        text = str(error)
        claims = {claim for claim, words in CLAIMS.items() if words in text}
        self._check_claims(attempt, number, claims, faults)
        if attempt.exceeded_at is not None or claims:
            self._check_pushed(attempt, number, text, faults)

    def number(self, attempt: Try) -> int | None:
        """Return the batch that a try waits for, None while it is not known."""
        if self.batch_id is not None:
            return int(self.batch_id)
        pushed = attempt.xcoms.get("batch")
        return pushed and int(pushed["id"])

    def _check_claims(self, attempt: Try, number: int, claims: set[str], faults: Mapping[str, int]) -> None:
        def wrong(text: str) -> None:
            self.oracle.found("false-claim", f"batch {number} is {self.oracle.status(number)}, but the error {text}")

        batch = self.oracle.batch(number)
        if attempt.exceeded_at is not None and not claims:
            wrong("does not say what becomes of it")
        if "continues" in claims and (self.cancels or attempt.cancelled or attempt.status == "STOPPING"):
            wrong(f"says that it continues; GetBatch has shown {attempt.status}")
        # The runs of a FAILED batch are cancelled one by one.
        if "cancelled" in claims and number not in self._cancelled_before and batch.failed_at is None:
            wrong("says that the task has cancelled it")
        if "cancelled before" in claims and batch.cancelled_at is None:
            wrong("says that it was cancelled before")
        if "not cancelled" in claims and not faults.keys() - HARMLESS:
            wrong("says that it could not be cancelled")
        if "ended" in claims and self.oracle.status(number) in ("CREATING", "PENDING", *_ACTIVE):
            wrong("says that it has ended")
        if attempt.cancelled and not claims & {"cancelled", "cancelled before", "not cancelled", "ended"}:
            wrong("does not say that the task has cancelled it")

    def _check_pushed(self, attempt: Try, number: int, text: str, faults: Mapping[str, int]) -> None:
        is_listed = "could not be" not in text.replace(CLAIMS["not cancelled"], "")
        keys = {
            "submissions": ("failed_submissions", "failed_submission_count", "changed_after_submission", "batch"),
            "runs": ("run_counts", "failed_runs", "failed_run_count", "return_value"),
        }[self.counted]
        if absent := [key for key in keys if key not in attempt.xcoms]:
            self._unpushed(number, f"{', '.join(absent)} were not pushed")
            return
        records = attempt.xcoms[f"failed_{self.counted}"]
        count = attempt.xcoms[f"failed_{self.counted[:-1]}_count"]
        if not attempt.failed <= count <= self._most(number):
            text = f"{count} failures were pushed, but {attempt.failed} were counted, and {self._most(number)} are true"
            self._unpushed(number, text)
        self._check_records(number, records, faults)
        if self.counted == "runs":
            self._check_run_counts(attempt, number)
        elif is_listed:
            self._check_mapping(attempt, number, faults)
        if is_listed and not faults.keys() & INCOMPLETE_LISTS and len(records) < attempt.failed:
            self._unpushed(number, f"{attempt.failed} failures were counted, and {len(records)} were pushed")

    def _unpushed(self, number: int, text: str) -> None:
        self.oracle.found("unpushed-failure", f"batch {number}: {text}")

    def _most(self, number: int) -> int:
        """Return how many failures may be reported: not the runs that the task itself has cancelled."""
        if number not in self._cancelled_before:
            return self.failures(number)
        statuses = list(self.oracle.run_statuses(number).values())
        ended = statuses.count("FAILED") + statuses.count("DELETED") + self._cancelled_before[number]
        return ended + len(self.oracle.batch(number).submission_failures)

    def _check_records(self, number: int, records: list[dict[str, Any]], faults: Mapping[str, int]) -> None:
        statuses, mapping = self.oracle.run_statuses(number), self.oracle.mapping(number)
        runs = self.oracle.batch(number).runs
        for record in records:
            name, run_id = record["run_setting_id"], record["run_id"]
            if run_id:
                is_known = statuses.get(name) in (record["status"], "DELETED") or "unknown_status" in faults
                is_true = mapping.get(name) == run_id and is_known
            else:
                is_true = runs is not None and name in runs.ids and name not in mapping
            if not is_true:
                self._unpushed(number, f"{name} is {statuses.get(name)}, but {record['status']} was pushed")

    def _check_run_counts(self, attempt: Try, number: int) -> None:
        pushed, truth = attempt.xcoms["run_counts"], self.oracle.counts(number)
        if any((pushed[name] or 0) > truth[name] for name in ("completed", "failed", "cancelled", "deleted")):
            self._unpushed(number, f"{pushed} was pushed, but {truth}")
        if self.uri and self.oracle.status(number) in _ACTIVE and self.oracle.object_at(self.uri):
            self._unpushed(number, f"{self.uri} was written before the end")

    def _check_mapping(self, attempt: Try, number: int, faults: Mapping[str, int]) -> None:
        result = attempt.xcoms.get("return_value")
        if result is None:
            self._unpushed(number, "return_value was not pushed")
            return
        given, truth = self._mapping(result), self.oracle.mapping(number)
        wrong = given.items() - truth.items()
        late = not faults.keys() & INCOMPLETE_LISTS and len(given) < attempt.submitted
        if wrong or late:
            self._unpushed(number, f"the mapping has {len(given)} of {attempt.submitted} runs, {len(wrong)} wrong")

    def _mapping(self, result: str | dict[str, str]) -> dict[str, str]:
        if not isinstance(result, str):
            return result
        rows = [json.loads(line) for line in (self.oracle.object_at(result) or b"").splitlines()]
        return {row["run_setting_id"]: row["run_id"] for row in rows if row["run_id"]}


def batch_of(url: str) -> str | None:
    """Return the id of the batch that a GetBatch call is about."""
    found = re.search(r"/runBatch/(\d+)$", url.partition("?")[0])
    return found and found[1]
