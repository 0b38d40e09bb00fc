"""What cancelling and deleting mean for a batch in each state, and when either is over: pure functions.

They follow `GetBatch <https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html>`__ and the
`guide on batch runs <https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html>`__.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from airflow_provider_omics_cache.healthomics.rounds import Batch, Verdict
from airflow_provider_omics_cache.healthomics.states import BatchStatus


class CancelDecision(StrEnum):
    """What to do to have a batch cancelled."""

    LOOK_AGAIN = "it is too young to be cancelled"
    CANCEL = "cancel it"
    CANCEL_RUNS = "it failed: cancel the runs that live"
    LEAVE = "it is being cancelled, or has been"
    FINISHED = "it has finished: there is nothing to cancel"


class DeleteDecision(StrEnum):
    """What to do to have the runs of a batch deleted."""

    DELETE = "delete its runs"
    DELETE_RUNS = "the service does not delete its runs any more: delete them one by one"
    LEAVE = "its runs are being deleted, or have been"
    ACTIVE = "it is not over: cancel it first"
    UNKNOWN = "its status is not known"


_CANCEL: dict[str, CancelDecision] = {
    BatchStatus.CREATING: CancelDecision.LOOK_AGAIN,
    BatchStatus.PENDING: CancelDecision.CANCEL,
    BatchStatus.SUBMITTING: CancelDecision.CANCEL,
    BatchStatus.INPROGRESS: CancelDecision.CANCEL,
    BatchStatus.STOPPING: CancelDecision.LEAVE,
    BatchStatus.CANCELLED: CancelDecision.LEAVE,
    BatchStatus.FAILED: CancelDecision.CANCEL_RUNS,
    BatchStatus.PROCESSED: CancelDecision.FINISHED,
    BatchStatus.RUNS_DELETING: CancelDecision.FINISHED,
    BatchStatus.RUNS_DELETE_FAILED: CancelDecision.FINISHED,
    BatchStatus.RUNS_DELETED: CancelDecision.FINISHED,
}

_DELETE: dict[str, DeleteDecision] = {
    BatchStatus.CREATING: DeleteDecision.ACTIVE,
    BatchStatus.PENDING: DeleteDecision.ACTIVE,
    BatchStatus.SUBMITTING: DeleteDecision.ACTIVE,
    BatchStatus.INPROGRESS: DeleteDecision.ACTIVE,
    BatchStatus.STOPPING: DeleteDecision.ACTIVE,
    BatchStatus.CANCELLED: DeleteDecision.DELETE,
    BatchStatus.PROCESSED: DeleteDecision.DELETE,
    BatchStatus.FAILED: DeleteDecision.DELETE_RUNS,
    BatchStatus.RUNS_DELETING: DeleteDecision.LEAVE,
    BatchStatus.RUNS_DELETE_FAILED: DeleteDecision.DELETE_RUNS,
    BatchStatus.RUNS_DELETED: DeleteDecision.LEAVE,
}

_CANCELLATION: dict[str, Verdict] = {
    BatchStatus.CANCELLED: Verdict.DONE,
    BatchStatus.FAILED: Verdict.DONE,
    BatchStatus.PROCESSED: Verdict.DONE,
    BatchStatus.RUNS_DELETING: Verdict.DONE,
    BatchStatus.RUNS_DELETE_FAILED: Verdict.DONE,
    BatchStatus.RUNS_DELETED: Verdict.DONE,
}

_DELETION: dict[str, Verdict] = {
    BatchStatus.FAILED: Verdict.DONE,
    BatchStatus.RUNS_DELETE_FAILED: Verdict.FAILED,
    BatchStatus.RUNS_DELETED: Verdict.DONE,
}


def decide_cancel(status: str | None) -> CancelDecision:
    """Decide how to cancel a batch.

    One whose status this version does not know is cancelled, and the service answers: that costs nothing, and runs
    that go on cost money.

    :param status: GetBatch's status.
    """
    return _CANCEL.get(status or "", CancelDecision.CANCEL)


def decide_delete(status: str | None) -> DeleteDecision:
    """Decide how to delete the runs of a batch.

    One whose status this version does not know is left alone: what is deleted does not come back.

    :param status: GetBatch's status.
    """
    return _DELETE.get(status or "", DeleteDecision.UNKNOWN)


def was_cancelled(batch: Mapping[str, Any]) -> bool:
    """Whether the service has cancelled, or tried to cancel, runs of the batch; unknown counts tell of none.

    :param batch: GetBatch's answer.
    """
    summary = batch.get("submissionSummary") or {}
    counts = (summary.get(f"{outcome}CancelSubmissionCount") for outcome in ("successful", "failed"))
    return any(counts)


def decide_cancellation(batch: Batch) -> Verdict:
    """Decide what GetBatch's answer means for a wait on a cancellation that was asked for.

    A state before it is waited out, since answers lag behind; one after it ends the wait, and so does FAILED.
    """
    return _CANCELLATION.get(batch.status or "", Verdict.WAIT)


def decide_deletion(batch: Batch) -> Verdict:
    """Decide what GetBatch's answer means for a wait on a deletion of the runs that was asked for.

    A state before it is waited out, since answers lag behind. The runs of a FAILED batch are deleted one by one, so
    that it never becomes RUNS_DELETED.
    """
    return _DELETION.get(batch.status or "", Verdict.WAIT)


def progress(batch: Batch) -> str:
    """Say where the batch is, for the log."""
    return f"batch {batch.id} is {batch.status or 'without a status'}"
