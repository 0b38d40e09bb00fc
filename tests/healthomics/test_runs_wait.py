"""The wait for active runs of a batch that has ended, and when GetBatch's counts are believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.healthomics.rounds import (
    TRUST_SECONDS,
    Batch,
    RunsWait,
    count_active,
    may_trust_counts,
)
from airflow_provider_omics_cache.healthomics.states import RunStatus

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "DELETED")


def wait_for(*run_ids: str, **members: Any) -> RunsWait:
    return RunsWait(batch_id="7", run_ids=list(run_ids), **members)


def failure(code: str, status: int | None = None) -> OmicsApiError:
    return OmicsApiError(code, code=code, http_status=status, operation="GetRun")


@pytest.mark.parametrize("status", [*RunStatus, "PAUSED", None])
def test_a_run_is_waited_for_until_it_has_ended(status: str | None) -> None:
    wait = wait_for("1", "2")
    wait.answered({"status": status, "batchId": "7"}, 0)
    assert wait.run_id == ("2" if status in ENDED else "1")


def test_a_run_id_that_was_given_to_a_run_of_another_batch_is_not_waited_for() -> None:
    wait = wait_for("1", "2")
    wait.answered({"status": "RUNNING", "batchId": "8"}, 0)
    assert wait.run_id == "2"


def test_a_run_without_a_batch_ends_the_wait_because_its_id_may_be_reused() -> None:
    wait = wait_for("1", "2")
    wait.answered({"status": "RUNNING"}, 0)
    assert wait.run_id is None


def test_a_run_that_is_not_found_has_ended() -> None:
    wait = wait_for("1", "2")
    wait.failed(failure("ResourceNotFoundException", 404), 0)
    assert wait.run_id == "2"
    assert not wait.is_refused


@pytest.mark.parametrize("status", ["PENDING", "STARTING", "RUNNING", "PAUSED"])
def test_a_cancelled_run_that_does_not_stop_ends_the_wait(status: str) -> None:
    wait = wait_for("1", "2", only_stopping=True)
    wait.answered({"status": "STOPPING", "batchId": "7"}, 0)
    assert wait.run_id == "1"
    wait.answered({"status": status, "batchId": "7"}, 60)
    assert wait.run_id is None


def test_the_wait_ends_at_its_time() -> None:
    wait = wait_for("1", until=300)
    wait.answered({"status": "STOPPING", "batchId": "7"}, 299)
    assert wait.run_id == "1"
    wait.answered({"status": "STOPPING", "batchId": "7"}, 300)
    assert wait.run_id is None


@pytest.mark.parametrize("code", ["ThrottlingException", "ReadTimeoutError"])
def test_a_failure_that_passes_is_waited_out_for_max_silence(code: str) -> None:
    wait = wait_for("1", max_silence=600)
    for now in (0, 300, 599):
        wait.failed(failure(code), now)
        assert wait.run_id == "1"
    wait.answered({"status": "RUNNING", "batchId": "7"}, 620)
    wait.failed(failure(code), 700)
    assert wait.run_id == "1", "an answer ends the silence"
    wait.failed(failure(code), 1_300)
    assert wait.run_id is None
    assert not wait.is_refused


def test_a_run_that_is_not_found_is_an_answer_which_ends_the_silence() -> None:
    wait = wait_for("1", "2", max_silence=600)
    wait.failed(failure("ThrottlingException"), 0)
    wait.failed(failure("ResourceNotFoundException", 404), 500)
    wait.failed(failure("ThrottlingException"), 700)
    wait.failed(failure("ThrottlingException"), 1_299)
    assert wait.run_id == "2"
    wait.failed(failure("ThrottlingException"), 1_300)
    assert wait.run_id is None


def test_a_refused_call_ends_the_wait() -> None:
    wait = wait_for("1", "2")
    wait.failed(failure("AccessDeniedException", 403), 0)
    assert wait.run_id is None
    assert wait.is_refused


@given(
    st.lists(st.text(min_size=1)),
    st.booleans(),
    st.none() | st.floats(min_value=0, max_value=1e12),
)
def test_a_stored_wait_is_the_same_wait(run_ids: list[str], only_stopping: bool, until: float | None) -> None:
    wait = wait_for(*run_ids, only_stopping=only_stopping, until=until, max_silence=60)
    stored = json.loads(json.dumps(wait.to_json()))
    again = RunsWait.from_json(stored, batch_id="7", max_silence=60)
    assert again.run_ids == run_ids
    if run_ids:
        assert again == wait


def test_a_missing_or_older_stored_wait_is_understood() -> None:
    assert RunsWait.from_json(None, batch_id="7", max_silence=60).run_id is None
    assert RunsWait.from_json({}, batch_id="7", max_silence=60).run_id is None
    assert RunsWait.from_json({"run_ids": ["1"], "colour": "red"}, batch_id="7", max_silence=60).run_id == "1"


@pytest.mark.parametrize(
    ("run_counts", "active"),
    [
        ({}, None),
        ({"completed": 3}, 0),
        ({"completed": 3, "failed": 1, "cancelled": 1, "deleted": 1}, 0),
        ({"pending": 1, "starting": 2, "running": 3, "stopping": 4, "completed": 9}, 10),
    ],
)
def test_active_runs_are_counted(run_counts: dict[str, int], active: int | None) -> None:
    assert count_active(Batch(id="7", run_counts=run_counts)) == active


@given(st.floats(min_value=0, max_value=1e10), st.floats(min_value=1, max_value=TRUST_SECONDS))
def test_one_round_in_ten_minutes_does_not_believe_the_counts(start: float, interval: float) -> None:
    rounds = int(TRUST_SECONDS / interval) + 2
    assert not all(may_trust_counts(start + number * interval, interval) for number in range(rounds))
