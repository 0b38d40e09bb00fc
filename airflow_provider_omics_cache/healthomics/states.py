"""The states of the HealthOmics API, and the groups that decisions are made on.

An answer may hold a state that is not listed here, since AWS adds states: callers take states as plain
strings and compare them with these members (every member equals its string).
"""

from __future__ import annotations

from enum import StrEnum


class RunCacheStatus(StrEnum):
    """Status of a run cache (``GetRunCache.status``)."""

    ACTIVE = "ACTIVE"
    DELETED = "DELETED"
    FAILED = "FAILED"


class BatchStatus(StrEnum):
    """Status of a batch (``GetBatch.status``)."""

    CREATING = "CREATING"
    PENDING = "PENDING"
    SUBMITTING = "SUBMITTING"
    INPROGRESS = "INPROGRESS"
    STOPPING = "STOPPING"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    PROCESSED = "PROCESSED"
    RUNS_DELETING = "RUNS_DELETING"
    RUNS_DELETE_FAILED = "RUNS_DELETE_FAILED"
    RUNS_DELETED = "RUNS_DELETED"


class SubmissionStatus(StrEnum):
    """Submission outcome of one run of a batch (``ListRunsInBatch.runs[].submissionStatus``)."""

    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCEL_SUCCESS = "CANCEL_SUCCESS"
    CANCEL_FAILED = "CANCEL_FAILED"
    DELETE_SUCCESS = "DELETE_SUCCESS"
    DELETE_FAILED = "DELETE_FAILED"


class RunStatus(StrEnum):
    """Status of a run (``GetRun.status``)."""

    PENDING = "PENDING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    COMPLETED = "COMPLETED"
    DELETED = "DELETED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


#: The batch has not finished submitting or executing, and nobody has stopped it.
ACTIVE_BATCH_STATES = frozenset(
    {BatchStatus.CREATING, BatchStatus.PENDING, BatchStatus.SUBMITTING, BatchStatus.INPROGRESS}
)

#: Somebody is cancelling the batch, or has.
CANCELLED_BATCH_STATES = frozenset({BatchStatus.STOPPING, BatchStatus.CANCELLED})

#: Somebody is deleting the batch's runs, or has.
DELETED_BATCH_STATES = frozenset({BatchStatus.RUNS_DELETING, BatchStatus.RUNS_DELETE_FAILED, BatchStatus.RUNS_DELETED})

#: The submission of a run has an outcome in each of these.
TERMINAL_SUBMISSION_STATES = frozenset(SubmissionStatus)

#: Something happened to a run after its submission.
CHANGED_AFTER_SUBMISSION_STATES = TERMINAL_SUBMISSION_STATES - {
    SubmissionStatus.SUCCESS,
    SubmissionStatus.FAILED,
}
