from __future__ import annotations

from enum import StrEnum

import botocore.session
import pytest

from airflow_provider_omics_cache.healthomics import states, submission
from airflow_provider_omics_cache.healthomics.rounds import Batch
from airflow_provider_omics_cache.healthomics.states import Verdict
from tests.conftest import needs_batches

OMICS = botocore.session.Session().get_service_model("omics")


@pytest.mark.parametrize(
    ("shape", "ours"),
    [
        ("RunCacheStatus", states.RunCacheStatus),
        ("RunStatus", states.RunStatus),
        pytest.param("BatchStatus", states.BatchStatus, marks=needs_batches),
        pytest.param("SubmissionStatus", states.SubmissionStatus, marks=needs_batches),
    ],
)
def test_every_state_of_botocore_is_known(shape: str, ours: type[StrEnum]) -> None:
    assert set(OMICS.shape_for(shape).enum) <= set(ours)


def test_the_table_has_one_row_for_each_batch_status() -> None:
    assert set(states.BATCH_STATUSES) == set(states.BatchStatus)


def test_a_status_of_a_run_is_either_active_or_ended() -> None:
    active = set(states.ACTIVE_RUN_STATUSES)
    assert len(active) == len(states.ACTIVE_RUN_STATUSES)
    assert active.isdisjoint(states.ENDED_RUN_STATUSES)
    assert active | states.ENDED_RUN_STATUSES == set(states.RunStatus)


@pytest.mark.parametrize("status", [None, "", "RUNS_ARCHIVED"])
def test_a_batch_of_an_unknown_status_counts_as_active_and_is_never_deleted(status: str | None) -> None:
    meaning = states.meaning_of(status)
    assert (meaning.end, meaning.when_found) == (None, states.WhenFound.TAKE)
    assert (meaning.to_cancel, meaning.to_delete) == (states.ToCancel.CANCEL_BATCH, states.ToDelete.UNKNOWN)
    assert {meaning.completion, meaning.cancellation, meaning.deletion} == {Verdict.WAIT}
    assert meaning.submission == Verdict.DONE_IF_NOTHING_PENDING


@pytest.mark.parametrize("status", states.BatchStatus)
def test_a_batch_that_ended_early_fails_both_sensors(status: states.BatchStatus) -> None:
    meaning = states.meaning_of(status)
    is_over = meaning.end not in {None, states.End.PROCESSED} and status != states.BatchStatus.STOPPING
    assert (meaning.submission == Verdict.FAILED) == (meaning.completion == Verdict.FAILED) == is_over


@pytest.mark.parametrize(
    ("status", "text"), [("FAILED", "FAILED"), ("", "without a status"), (None, "without a status")]
)
def test_a_missing_status_is_described(status: str | None, text: str) -> None:
    assert states.shown(status) == text


ACTIVE = {
    states.BatchStatus.CREATING,
    states.BatchStatus.PENDING,
    states.BatchStatus.SUBMITTING,
    states.BatchStatus.INPROGRESS,
    states.BatchStatus.STOPPING,
}


@pytest.mark.parametrize("status", states.BatchStatus)
def test_every_batch_state_is_classified(status: states.BatchStatus) -> None:
    verdict = submission.decide(Batch(id="1", status=status, pending=7))
    if status in ACTIVE:
        assert verdict == Verdict.WAIT
    elif status == states.BatchStatus.PROCESSED:
        assert verdict == Verdict.DONE
    else:
        assert verdict == Verdict.FAILED
