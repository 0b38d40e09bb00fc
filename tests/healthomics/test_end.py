from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_omics_cache.healthomics import end, states
from airflow_provider_omics_cache.healthomics.completion import ENDED_RUN_STATES
from airflow_provider_omics_cache.healthomics.end import CancelDecision, DeleteDecision
from airflow_provider_omics_cache.healthomics.rounds import Batch, Verdict
from airflow_provider_omics_cache.healthomics.states import BatchStatus
from airflow_provider_omics_cache.local import batches as service
from tests.conftest import HAS_BATCHES, needs_batches
from tests.healthomics.test_states import OMICS

EVERY_STATUS = sorted({*BatchStatus, *(OMICS.shape_for("BatchStatus").enum if HAS_BATCHES else ())})
UNKNOWN = ["RUNS_ARCHIVED", "", None]


@needs_batches
@pytest.mark.parametrize("status", EVERY_STATUS)
def test_every_state_of_botocore_is_decided_on(status: str) -> None:
    assert status in end._CANCEL
    assert status in end._DELETE


@pytest.mark.parametrize("status", EVERY_STATUS)
def test_the_service_is_asked_to_cancel_where_it_does(status: str) -> None:
    assert (end.decide_cancel(status) == CancelDecision.CANCEL) == (status in service._CANCELLABLE)


@pytest.mark.parametrize("status", EVERY_STATUS)
def test_the_service_is_asked_to_delete_where_it_does(status: str) -> None:
    assert (end.decide_delete(status) == DeleteDecision.DELETE) == (status in service._RUNS_DELETABLE)


@pytest.mark.parametrize("status", EVERY_STATUS)
def test_what_runs_can_be_cancelled_and_not_deleted(status: str) -> None:
    is_active = status in states.ACTIVE_BATCH_STATES
    assert (end.decide_cancel(status) in {CancelDecision.CANCEL, CancelDecision.LOOK_AGAIN}) == is_active
    may_run = is_active or status == BatchStatus.STOPPING
    assert (end.decide_delete(status) == DeleteDecision.ACTIVE) == may_run


@pytest.mark.parametrize("status", EVERY_STATUS)
def test_a_state_in_which_nothing_is_left_to_ask_for_ends_the_wait(status: str) -> None:
    batch = Batch(id="7", status=status)
    if end.decide_cancel(status) in {CancelDecision.FINISHED, CancelDecision.CANCEL_RUNS}:
        assert end.decide_cancellation(batch) == Verdict.DONE
    if end.decide_delete(status) == DeleteDecision.DELETE_RUNS:
        assert end.decide_deletion(batch) != Verdict.WAIT


@pytest.mark.parametrize(
    ("status", "cancellation", "deletion"),
    [
        ("CREATING", "wait", "wait"),
        ("PENDING", "wait", "wait"),
        ("SUBMITTING", "wait", "wait"),
        ("INPROGRESS", "wait", "wait"),
        ("STOPPING", "wait", "wait"),
        ("CANCELLED", "done", "wait"),
        ("PROCESSED", "done", "wait"),
        ("FAILED", "done", "done"),
        ("RUNS_DELETING", "done", "wait"),
        ("RUNS_DELETE_FAILED", "done", "failed"),
        ("RUNS_DELETED", "done", "done"),
        *((status, "wait", "wait") for status in UNKNOWN),
    ],
)
def test_when_a_wait_is_over(status: str | None, cancellation: str, deletion: str) -> None:
    batch = Batch(id="7", status=status)
    assert end.decide_cancellation(batch) == cancellation
    assert end.decide_deletion(batch) == deletion
    assert end.progress(batch) == f"batch 7 is {status or 'without a status'}"


@pytest.mark.parametrize("status", UNKNOWN)
def test_an_unknown_state_is_cancelled_and_not_deleted(status: str | None) -> None:
    assert end.decide_cancel(status) == CancelDecision.CANCEL
    assert end.decide_delete(status) == DeleteDecision.UNKNOWN


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({}, False),
        ({"submissionSummary": None}, False),
        ({"submissionSummary": {"successfulStartSubmissionCount": 7}}, False),
        ({"submissionSummary": {"successfulCancelSubmissionCount": 0, "failedCancelSubmissionCount": 0}}, False),
        ({"submissionSummary": {"successfulCancelSubmissionCount": 1}}, True),
        ({"submissionSummary": {"failedCancelSubmissionCount": 1}}, True),
    ],
)
def test_the_counts_tell_of_a_cancellation(answer: dict[str, Any], expected: bool) -> None:
    assert end.was_cancelled(answer) is expected


def test_every_run_state_of_botocore_is_ended_or_alive() -> None:
    alive = {"PENDING", "STARTING", "RUNNING", "STOPPING"}
    assert set(OMICS.shape_for("RunStatus").enum) == alive | ENDED_RUN_STATES
    assert not alive & ENDED_RUN_STATES
