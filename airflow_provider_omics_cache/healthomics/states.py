"""The statuses of the HealthOmics API, and one table each of what the statuses of a batch and of a run mean.

AWS adds statuses, so an answer may have a status that is not listed here. Statuses are plain strings; every member of
these enums equals its string. A new status of a batch needs only a member of :class:`BatchStatus` and a row of
:data:`BATCH_STATUSES`.

The table follows `GetBatch <https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html>`__ and the `guide on batch
runs <https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html>`__.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import NamedTuple


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


#: Submission statuses of runs that were changed after their submission.
CHANGED_AFTER_SUBMISSION_STATUSES = frozenset(SubmissionStatus) - {SubmissionStatus.SUCCESS, SubmissionStatus.FAILED}

#: Statuses of runs that have ended.
ENDED_RUN_STATUSES = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.DELETED})

#: Statuses of runs that have not ended, in the order in which a run has them. Asking for them in this order misses
#: no run that changes its status meanwhile. A status that is in neither set counts as active.
ACTIVE_RUN_STATUSES = (RunStatus.PENDING, RunStatus.STARTING, RunStatus.RUNNING, RunStatus.STOPPING)


class Verdict(Enum):
    """What GetBatch's answer means for a wait."""

    WAIT = auto()
    #: Done as soon as the counts show that no run is left to submit.
    DONE_IF_NOTHING_PENDING = auto()
    DONE = auto()
    FAILED = auto()


class End(Enum):
    """How a batch has ended."""

    #: Every run has ended, completed or not.
    PROCESSED = auto()
    #: The batch as a whole failed; runs may be active.
    FAILED = auto()
    #: The batch is being cancelled, or was; runs may be active.
    CANCELLED = auto()
    #: The runs are being deleted, or were deleted before.
    DELETED = auto()


class WhenFound(Enum):
    """What a task does when it finds its own batch in a status."""

    #: Use the batch if it was started with the same settings; fail otherwise.
    TAKE = auto()
    #: Use the batch if it was started with the same settings; start a new one otherwise.
    TAKE_OR_REPLACE = auto()
    #: Start a new batch if no run was started; fail otherwise.
    REPLACE_IF_UNUSED = auto()
    #: Fail.
    REFUSE = auto()


class ToCancel(Enum):
    """How a batch in a status is cancelled."""

    LATER = auto()
    CANCEL_BATCH = auto()
    CANCEL_RUNS = auto()
    #: The batch is being cancelled, or was cancelled before.
    ALREADY = auto()
    #: The batch has finished: there is nothing to cancel.
    FINISHED = auto()


class ToDelete(Enum):
    """How the runs of a batch in a status are deleted."""

    DELETE_BATCH_RUNS = auto()
    #: One by one, because the service refuses to delete them as a batch.
    DELETE_EACH_RUN = auto()
    #: The runs are being deleted, or were deleted before.
    ALREADY = auto()
    #: The batch must be cancelled first.
    ACTIVE = auto()
    #: The status is not known. Nothing is deleted, because a deletion cannot be undone.
    UNKNOWN = auto()


class Meaning(NamedTuple):
    """What a status of a batch means.

    :param end: how the batch has ended, None if it is active.
    :param when_found: what a task does when it finds its own batch.
    :param submission: verdict for a wait until every run was submitted.
    :param completion: verdict for a wait until every run has ended.
    :param to_cancel: how the batch is cancelled.
    :param cancellation: verdict for a wait after the batch was cancelled.
    :param to_delete: how its runs are deleted.
    :param deletion: verdict for a wait after its runs were deleted.
    """

    end: End | None
    when_found: WhenFound
    submission: Verdict
    completion: Verdict
    to_cancel: ToCancel
    cancellation: Verdict
    to_delete: ToDelete
    deletion: Verdict


_WAIT, _DONE, _FAILED = Verdict.WAIT, Verdict.DONE, Verdict.FAILED
_IF_NOTHING_PENDING = Verdict.DONE_IF_NOTHING_PENDING

# fmt: off
#: What each status of a batch means. A wait after a cancellation or deletion continues in the earlier statuses, because
#: answers may lag behind. The runs of a FAILED batch are deleted one by one, so it never becomes RUNS_DELETED.
BATCH_STATUSES: dict[str, Meaning] = {
    BatchStatus.CREATING: Meaning(
        None, WhenFound.TAKE, _WAIT, _WAIT,
        ToCancel.LATER, _WAIT, ToDelete.ACTIVE, _WAIT),
    BatchStatus.PENDING: Meaning(
        None, WhenFound.TAKE, _WAIT, _WAIT,
        ToCancel.CANCEL_BATCH, _WAIT, ToDelete.ACTIVE, _WAIT),
    BatchStatus.SUBMITTING: Meaning(
        None, WhenFound.TAKE, _WAIT, _WAIT,
        ToCancel.CANCEL_BATCH, _WAIT, ToDelete.ACTIVE, _WAIT),
    BatchStatus.INPROGRESS: Meaning(
        None, WhenFound.TAKE, _IF_NOTHING_PENDING, _WAIT,
        ToCancel.CANCEL_BATCH, _WAIT, ToDelete.ACTIVE, _WAIT),
    BatchStatus.STOPPING: Meaning(
        End.CANCELLED, WhenFound.REFUSE, _WAIT, _WAIT,
        ToCancel.ALREADY, _WAIT, ToDelete.ACTIVE, _WAIT),
    BatchStatus.CANCELLED: Meaning(
        End.CANCELLED, WhenFound.REFUSE, _FAILED, _FAILED,
        ToCancel.ALREADY, _DONE, ToDelete.DELETE_BATCH_RUNS, _WAIT),
    BatchStatus.FAILED: Meaning(
        End.FAILED, WhenFound.REPLACE_IF_UNUSED, _FAILED, _FAILED,
        ToCancel.CANCEL_RUNS, _DONE, ToDelete.DELETE_EACH_RUN, _DONE),
    BatchStatus.PROCESSED: Meaning(
        End.PROCESSED, WhenFound.TAKE_OR_REPLACE, _DONE, _DONE,
        ToCancel.FINISHED, _DONE, ToDelete.DELETE_BATCH_RUNS, _WAIT),
    BatchStatus.RUNS_DELETING: Meaning(
        End.DELETED, WhenFound.REFUSE, _FAILED, _FAILED,
        ToCancel.FINISHED, _DONE, ToDelete.ALREADY, _WAIT),
    BatchStatus.RUNS_DELETE_FAILED: Meaning(
        End.DELETED, WhenFound.REFUSE, _FAILED, _FAILED,
        ToCancel.FINISHED, _DONE, ToDelete.DELETE_EACH_RUN, _FAILED),
    BatchStatus.RUNS_DELETED: Meaning(
        End.DELETED, WhenFound.REFUSE, _FAILED, _FAILED,
        ToCancel.FINISHED, _DONE, ToDelete.ALREADY, _DONE),
}
#: Meaning of a status that this version does not know. The batch counts as active. It can be cancelled, because active
#: runs cost money. Its runs cannot be deleted, because a deletion cannot be undone.
UNKNOWN_STATUS = Meaning(
    None, WhenFound.TAKE, _IF_NOTHING_PENDING, _WAIT,
    ToCancel.CANCEL_BATCH, _WAIT, ToDelete.UNKNOWN, _WAIT)
# fmt: on


class RunMeaning(NamedTuple):
    """What a status of a single run means.

    :param end: how the run has ended, None if it is active.
    :param when_found: what a task does when it finds its own run.
    :param completion: verdict for a wait until the run has ended.
    :param to_cancel: how the run is cancelled.
    :param cancellation: verdict for a wait after the run was cancelled.
    """

    end: End | None
    when_found: WhenFound
    completion: Verdict
    to_cancel: ToCancel
    cancellation: Verdict


# fmt: off
#: What each status of a single run means. Completed and failed runs are STOPPING before they end, so STOPPING does not
#: mean that the run was cancelled. A run is not charged before it is RUNNING.
RUN_STATUSES: dict[str, RunMeaning] = {
    RunStatus.PENDING: RunMeaning(None, WhenFound.TAKE, _WAIT, ToCancel.CANCEL_RUNS, _WAIT),
    RunStatus.STARTING: RunMeaning(None, WhenFound.TAKE, _WAIT, ToCancel.CANCEL_RUNS, _WAIT),
    RunStatus.RUNNING: RunMeaning(None, WhenFound.TAKE, _WAIT, ToCancel.CANCEL_RUNS, _WAIT),
    RunStatus.STOPPING: RunMeaning(None, WhenFound.TAKE, _WAIT, ToCancel.ALREADY, _WAIT),
    RunStatus.COMPLETED: RunMeaning(
        End.PROCESSED, WhenFound.TAKE_OR_REPLACE, _DONE, ToCancel.FINISHED, _DONE),
    RunStatus.FAILED: RunMeaning(End.FAILED, WhenFound.REPLACE_IF_UNUSED, _FAILED, ToCancel.FINISHED, _DONE),
    RunStatus.CANCELLED: RunMeaning(End.CANCELLED, WhenFound.REFUSE, _FAILED, ToCancel.ALREADY, _DONE),
    RunStatus.DELETED: RunMeaning(End.DELETED, WhenFound.REFUSE, _FAILED, ToCancel.FINISHED, _DONE),
}
# fmt: on
#: Meaning of a status that this version does not know. The run counts as active, and can be cancelled.
UNKNOWN_RUN_STATUS = RunMeaning(None, WhenFound.TAKE, _WAIT, ToCancel.CANCEL_RUNS, _WAIT)


def meaning_of_run(status: str | None) -> RunMeaning:
    """Return what a status of a single run means.

    :param status: the status that GetRun reports, None if it reports none.
    """
    return RUN_STATUSES.get(status or "", UNKNOWN_RUN_STATUS)


def meaning_of(status: str | None) -> Meaning:
    """Return what a status of a batch means.

    :param status: the status that GetBatch reports, None if it reports none.
    """
    return BATCH_STATUSES.get(status or "", UNKNOWN_STATUS)


def shown(status: str | None) -> str:
    """Return a status as messages show it.

    :param status: the status that the service reports, None if it reports none.
    """
    return status or "without a status"
