"""Decisions about cancelling and deleting, and the cancellation of a killed task's batch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import boto3
import botocore.handlers
import botocore.session
import pytest

from airflow_provider_omics_cache.healthomics import end
from airflow_provider_omics_cache.healthomics.rounds import Batch
from airflow_provider_omics_cache.healthomics.states import (
    BATCH_STATUSES,
    BatchStatus,
    ToCancel,
    ToDelete,
    Verdict,
    meaning_of,
)
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.local import batches as service
from tests.conftest import HAS_BATCHES, needs_batches
from tests.operators.batch_states import ONE_ATTEMPT, runs_of, status_of
from tests.sensor_modes import start_batch, use_service_time

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

OMICS = botocore.session.Session().get_service_model("omics")
EVERY_STATUS = sorted({*BatchStatus, *(OMICS.shape_for("BatchStatus").enum if HAS_BATCHES else ())})
UNKNOWN = ["RUNS_ARCHIVED", "", None]
ACTIVE = {"CREATING", "PENDING", "SUBMITTING", "INPROGRESS"}


@pytest.mark.parametrize("status", EVERY_STATUS)
def test_every_status_of_botocore_has_a_row(status: str) -> None:
    assert status in BATCH_STATUSES


@pytest.mark.parametrize("status", EVERY_STATUS)
def test_the_service_is_asked_to_cancel_where_it_does(status: str) -> None:
    assert (meaning_of(status).to_cancel == ToCancel.CANCEL_BATCH) == (status in service._CANCELLABLE)


@pytest.mark.parametrize("status", EVERY_STATUS)
def test_the_service_is_asked_to_delete_where_it_does(status: str) -> None:
    assert (meaning_of(status).to_delete == ToDelete.DELETE_BATCH_RUNS) == (status in service._RUNS_DELETABLE)


@pytest.mark.parametrize("status", EVERY_STATUS)
def test_an_active_batch_can_be_cancelled_and_not_deleted(status: str) -> None:
    assert (meaning_of(status).to_cancel in {ToCancel.CANCEL_BATCH, ToCancel.LATER}) == (status in ACTIVE)
    may_run = status in ACTIVE or status == BatchStatus.STOPPING
    assert (meaning_of(status).to_delete == ToDelete.ACTIVE) == may_run


@pytest.mark.parametrize("status", EVERY_STATUS)
def test_a_status_in_which_nothing_is_left_to_ask_for_ends_the_wait(status: str) -> None:
    batch = Batch(id="7", status=status)
    if batch.meaning.to_cancel in {ToCancel.FINISHED, ToCancel.CANCEL_RUNS}:
        assert end.decide_cancellation(batch) == Verdict.DONE
    if batch.meaning.to_delete == ToDelete.DELETE_EACH_RUN:
        assert end.decide_deletion(batch) != Verdict.WAIT


WAIT, DONE, FAILED = Verdict.WAIT, Verdict.DONE, Verdict.FAILED


@pytest.mark.parametrize(
    ("status", "cancellation", "deletion"),
    [
        ("CREATING", WAIT, WAIT),
        ("PENDING", WAIT, WAIT),
        ("SUBMITTING", WAIT, WAIT),
        ("INPROGRESS", WAIT, WAIT),
        ("STOPPING", WAIT, WAIT),
        ("CANCELLED", DONE, WAIT),
        ("PROCESSED", DONE, WAIT),
        ("FAILED", DONE, DONE),
        ("RUNS_DELETING", DONE, WAIT),
        ("RUNS_DELETE_FAILED", DONE, FAILED),
        ("RUNS_DELETED", DONE, DONE),
        *((status, WAIT, WAIT) for status in UNKNOWN),
    ],
)
def test_when_a_wait_is_over(status: str | None, cancellation: Verdict, deletion: Verdict) -> None:
    batch = Batch(id="7", status=status)
    assert end.decide_cancellation(batch) == cancellation
    assert end.decide_deletion(batch) == deletion
    assert end.progress(batch).text == f"Batch 7 is {status or 'without a status'}"


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
def test_counts_show_whether_runs_were_cancelled(answer: dict[str, Any], expected: bool) -> None:
    assert end.was_cancelled(answer) is expected


# A killed task, to which Airflow gives half a minute


@pytest.fixture
def local(local_healthomics: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch) -> LocalHealthOmics:
    """The local HealthOmics; a wait advances its clock."""
    use_service_time(monkeypatch, local_healthomics)
    return local_healthomics


def failed_batch(local: LocalHealthOmics) -> str:
    """Start a batch that fails and leaves 300 active runs."""
    client = boto3.client("omics")
    local.settings.run_running_seconds = 10_000
    local.faults.fail_batch("broken", after="SUBMITTING", started_runs=300)
    batch_id = start_batch(client, 301)
    local.clock.advance(60)
    assert status_of(client, batch_id) == "FAILED"
    assert len(runs_of(client, batch_id)) == 300
    return batch_id


@needs_batches
@pytest.mark.parametrize(
    ("seconds", "at_least"), [(0, 50), (0.5, 20)], ids=["calls take no time", "a cancellation takes half a second"]
)
def test_a_kill_cancels_as_many_runs_as_there_is_time_for(
    local: LocalHealthOmics, caplog: Any, capsys: Any, seconds: float, at_least: int
) -> None:
    batch_id = failed_batch(local)
    if seconds:
        local.faults.latency("CancelRun", seconds=seconds)
    began = local.clock.elapsed()
    end.cancel_batch_of_killed_task(OmicsCacheHook(), batch_id)
    assert end.KILL_SECONDS - 1 <= local.clock.elapsed() - began <= end.KILL_SECONDS + 1
    statuses = Counter(runs_of(boto3.client("omics"), batch_id).values())
    assert at_least <= statuses["STOPPING"] + statuses["CANCELLED"] <= 110
    assert statuses["RUNNING"] >= 190
    printed = caplog.text + capsys.readouterr().out
    assert f"Batch {batch_id} was not cancelled" in printed
    assert "No time is left for another call" in printed


@needs_batches
@pytest.mark.parametrize("operation", ["GetRun", "ListRunsInBatch", "CancelRun"])
def test_a_kill_ends_in_time_although_the_service_begins_to_throttle(
    local: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch, caplog: Any, capsys: Any, operation: str
) -> None:
    batch_id = failed_batch(local)
    began = local.clock.elapsed()

    def throttle(**_: Any) -> None:
        if local.clock.elapsed() > began + 15:
            local.faults.throttle(operation, times=1)

    handlers = [*botocore.handlers.BUILTIN_HANDLERS, (f"before-call.omics.{operation}", throttle)]
    monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)
    end.cancel_batch_of_killed_task(OmicsCacheHook(config=ONE_ATTEMPT), batch_id)
    assert 15 < local.clock.elapsed() - began <= end.KILL_SECONDS + 1
    assert f"Batch {batch_id} was not cancelled" in caplog.text + capsys.readouterr().out
    assert set(runs_of(boto3.client("omics"), batch_id).values()) >= {"CANCELLED", "RUNNING"}
