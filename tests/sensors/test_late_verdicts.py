"""Sensors wait for late counts and lists before each verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_omics_cache._compat import AirflowFailException
from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchFailedError,
    OmicsError,
    TooManyFailedRunsError,
    UnknownOutcomeError,
)
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from tests.conftest import RecordedTaskInstance, needs_batches
from tests.late_answers import Late, cancel, late_lists, later, mapping_of, start_slow_batch, submit
from tests.sensor_modes import each_mode, run_sensor, start_batch

pytestmark = needs_batches

BUCKET = "results"
URI = f"s3://{BUCKET}/runs.jsonl"
WEEK = 7 * 24 * 3_600


@pytest.fixture(autouse=True)
def _bucket(service: Any) -> None:
    boto3.client("s3").create_bucket(Bucket=BUCKET)


@pytest.fixture
def wait(service: Any) -> Callable[..., Any]:
    """Run a sensor in a mode until it ends; ``wait.xcoms`` has what it pushed."""

    def run(sensor: type[Any], mode: str, batch_id: str, **arguments: Any) -> Any:
        def make(**mode_arguments: Any) -> Any:
            everything = {"task_id": "wait", "poke_interval": 20, "timeout": WEEK, **arguments, **mode_arguments}
            return sensor(batch_id=batch_id, **everything)

        ti = RecordedTaskInstance()
        run.xcoms = ti.xcoms  # type: ignore[attr-defined]
        return run_sensor(make, mode, {"ti": ti, "task_instance": ti, "run_id": ti.run_id}, service.clock)

    return run


def records() -> list[dict[str, Any]]:
    body = boto3.client("s3").get_object(Bucket=BUCKET, Key="runs.jsonl")["Body"].read()
    return [json.loads(line) for line in body.splitlines()]


def counts_of(client: Any, batch_id: str) -> dict[str, int]:
    """The counts as they are; counts of GetBatch must not be late now."""
    batch = client.get_batch(batchId=batch_id)
    names = ("completed", "failed", "cancelled", "deleted")
    counts = {name: batch["runSummary"][f"{name}RunCount"] for name in names}
    return {
        "total": batch["totalRuns"],
        **counts,
        "not_submitted": batch["totalRuns"] - sum(counts.values()),
    }


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in {"processedTime", "failedTime"}}


# The mapping of a batch that ended early


@each_mode
@pytest.mark.parametrize("late", ["absent", "unsubmitted", "without run id"])
@pytest.mark.parametrize(("counts", "lists"), [(0, 60), (60, 60)])
def test_the_mapping_of_a_cancelled_batch_is_whole(
    counts: float,
    lists: float,
    late: Late,
    mode: str,
    service: Any,
    client: Any,
    wait: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is cancelled when the sensor has waited for longer than ``consistency_timeout``."""
    batch_id = start_slow_batch(service, client, 60)
    later(service, monkeypatch, 3.5 + 400, lambda: client.cancel_run_batch(batchId=batch_id))
    service.faults.stale_counts(seconds=counts)
    with (
        late_lists(service, batch_id, client, lists, late),
        pytest.raises(BatchCancelledError, match=r"; 4[0-9] runs were submitted$"),
    ):
        wait(BatchSubmissionSensor, mode, batch_id)
    run_ids = mapping_of(client, batch_id)
    assert 40 <= len(run_ids) < 60
    assert wait.xcoms["return_value"] == run_ids
    batch = wait.xcoms["batch"]
    assert (batch["total_runs"], batch["submitted"], batch["failed"]) == (60, len(run_ids), 60 - len(run_ids))


@each_mode
def test_the_mapping_of_a_failed_batch_is_whole(mode: str, service: Any, client: Any, wait: Any) -> None:
    service.faults.fail_batch("broken", after="SUBMITTING", started_runs=3)
    batch_id = start_slow_batch(service, client, 10)
    service.faults.stale_counts(seconds=60)
    with late_lists(service, batch_id, client, 60), pytest.raises(BatchFailedError, match="at least 3 runs"):
        wait(BatchSubmissionSensor, mode, batch_id)
    assert wait.xcoms["return_value"] == mapping_of(client, batch_id)
    assert wait.xcoms["failed_submission_count"] == 7


def test_a_batch_that_failed_before_its_runs_are_known_is_reported_at_once(
    service: Any, client: Any, wait: Any
) -> None:
    service.faults.fail_batch("Invalid JSON format in run configurations")
    batch_id = start_batch(client, 10)
    before = service.clock.elapsed()
    with pytest.raises(BatchFailedError, match="Invalid JSON format"):
        wait(BatchSubmissionSensor, "poke", batch_id)
    assert service.clock.elapsed() - before <= 40


@each_mode
def test_a_mapping_that_stays_incomplete_is_pushed_and_the_error_has_the_number(
    mode: str, service: Any, client: Any, wait: Any
) -> None:
    batch_id = start_slow_batch(service, client, 12)
    submit(service, 9)
    cancel(service, client, batch_id)
    run_ids = mapping_of(client, batch_id)
    service.faults.lagging_listing(rows=3)
    before = service.clock.elapsed()
    with pytest.raises(BatchCancelledError, match=r"; 9 runs were submitted; 3 of them are not listed with a runId$"):
        wait(BatchSubmissionSensor, mode, batch_id)
    assert 300 <= service.clock.elapsed() - before <= 300 + 2 * 22
    pushed = wait.xcoms["return_value"]
    assert len(pushed) == 6
    assert pushed.items() < run_ids.items()
    assert wait.xcoms["failed_submission_count"] == 3


@each_mode
def test_what_is_known_is_pushed_before_the_timeout(mode: str, service: Any, client: Any, wait: Any) -> None:
    batch_id = start_slow_batch(service, client, 12)
    submit(service, 9)
    cancel(service, client, batch_id)
    service.faults.lagging_listing(rows=3)
    with pytest.raises(BatchCancelledError, match="3 of them are not listed"):
        wait(BatchSubmissionSensor, mode, batch_id, timeout=100)
    assert len(wait.xcoms["return_value"]) == 6


# Counts of a batch that is PROCESSED


@each_mode
@pytest.mark.parametrize("answer", ["with times", "without times"])
@pytest.mark.parametrize("to_s3", [True, False])
def test_any_number_of_failures_does_not_take_late_counts(
    to_s3: bool, answer: str, mode: str, service: Any, client: Any, wait: Any, answer_with: Callable[..., None]
) -> None:
    """The wait begins long before the runs end."""
    service.settings.run_running_seconds = 1_000
    service.faults.fail_run("sample-1")
    service.faults.fail_submission("sample-2")
    batch_id = start_batch(client, 7)
    service.faults.stale_counts(seconds=100)
    if answer == "without times":
        answer_with("GetBatch", without_times)
    arguments = {"runs_s3_uri": URI} if to_s3 else {}
    returned = wait(BatchCompletionSensor, mode, batch_id, max_failed_runs="100%", **arguments)
    service.faults.clear()
    service.clock.advance(200)
    assert returned == wait.xcoms["run_counts"] == counts_of(client, batch_id)
    assert (returned["completed"], returned["failed"], returned["not_submitted"]) == (5, 1, 1)
    if to_s3:
        assert [record["status"] for record in records()].count("COMPLETED") == 5


@each_mode
def test_records_that_are_late_are_not_written(mode: str, service: Any, client: Any, wait: Any) -> None:
    batch_id = start_batch(client, 5)
    with late_lists(service, batch_id, client, 100):
        returned = wait(BatchCompletionSensor, mode, batch_id, max_failed_runs="100%", runs_s3_uri=URI)
    assert returned["completed"] == 5
    assert {record["status"] for record in records()} == {"COMPLETED"}


def test_a_processed_batch_that_was_cancelled_in_part_is_judged_by_its_listing(
    service: Any, client: Any, wait: Any, answer_with: Callable[..., None]
) -> None:
    batch_id = start_slow_batch(service, client, 12)
    submit(service, 9)
    cancel(service, client, batch_id)
    run_ids = mapping_of(client, batch_id)
    answer_with("GetBatch", lambda answer: {**answer, "status": "PROCESSED"})
    completed = counts_of(client, batch_id)["completed"]
    returned = wait(BatchCompletionSensor, "poke", batch_id, max_failed_runs="100%", runs_s3_uri=URI)
    assert returned["total"] == 12
    assert returned["completed"] == completed > 0
    assert returned["not_submitted"] == 12 - len(run_ids) > 0
    assert [record["status"] for record in records()].count("COMPLETED") == completed
    with pytest.raises(TooManyFailedRunsError, match=f"{12 - completed} runs? did not complete"):
        wait(BatchCompletionSensor, "poke", batch_id)


@each_mode
@pytest.mark.parametrize("allowed", [0, "100%"])
def test_late_counts_that_the_listing_contradicts_for_good_are_no_verdict(
    allowed: int | str, mode: str, service: Any, client: Any, wait: Any, answer_with: Callable[..., None]
) -> None:
    batch_id = start_batch(client, 5)
    service.clock.advance(600)
    stale = {"status": "PROCESSED", "totalRuns": 5, "runSummary": {"completedRunCount": 0, "runningRunCount": 5}}
    answer_with("GetBatch", stale)
    before = service.clock.elapsed()
    with pytest.raises(
        UnknownOutcomeError, match=r"GetBatch counts 0 completed runs, but ListRuns shows 5\. Retry the task"
    ) as caught:
        wait(BatchCompletionSensor, mode, batch_id, max_failed_runs=allowed, runs_s3_uri=URI, include_outputs="exact")
    assert not isinstance(caught.value, AirflowFailException)
    # The sensor asks for the locations of outputs only after the listing is confirmed.
    assert service.calls["GetRun"] == 0
    assert 300 <= service.clock.elapsed() - before <= 300 + 2 * 22
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket=BUCKET)


def test_late_counts_without_a_listing_are_no_verdict(
    service: Any, client: Any, wait: Any, answer_with: Callable[..., None]
) -> None:
    batch_id = start_batch(client, 5)
    service.clock.advance(600)
    answer_with("GetBatch", {"status": "PROCESSED", "totalRuns": 5, "runSummary": {"completedRunCount": 0}})
    service.faults.error("ListRuns", code="AccessDeniedException", status=403, times=None)
    with pytest.raises(OmicsError, match="AccessDenied") as caught:
        wait(BatchCompletionSensor, "poke", batch_id)
    assert not isinstance(caught.value, AirflowFailException)


# Runs of a batch that ended early


@each_mode
@pytest.mark.parametrize("status", ["CANCELLED", "FAILED"])
def test_no_run_of_a_batch_that_ended_early_is_reported_as_never_submitted(
    status: str, mode: str, service: Any, client: Any, wait: Any
) -> None:
    """Three runs of a FAILED batch continue."""
    service.settings.run_running_seconds = 200
    if status == "FAILED":
        service.faults.fail_batch("broken", after="SUBMITTING", started_runs=9)
    batch_id = start_slow_batch(service, client, 12)
    submit(service, 9)
    if status == "CANCELLED":
        cancel(service, client, batch_id)
    service.faults.stale_counts(seconds=60)
    error = BatchCancelledError if status == "CANCELLED" else BatchFailedError
    with late_lists(service, batch_id, client, 60), pytest.raises(error):
        wait(BatchCompletionSensor, mode, batch_id, runs_s3_uri=URI)
    service.faults.clear()
    assert wait.xcoms["run_counts"] == counts_of(client, batch_id)
    assert wait.xcoms["run_counts"]["not_submitted"] == 3
    statuses = {record["run_id"]: record["status"] for record in records()}
    assert statuses == {run["id"]: run["status"] for run in client.list_runs(batchId=batch_id)["items"]}


def test_runs_that_are_never_listed_are_not_reported_as_never_submitted(service: Any, client: Any, wait: Any) -> None:
    batch_id = start_slow_batch(service, client, 12)
    submit(service, 9)
    cancel(service, client, batch_id)
    service.clock.advance(100)
    service.faults.lagging_listing(rows=2)
    with pytest.raises(BatchCancelledError, match=r"; 2 runs were submitted, but are not listed$"):
        wait(BatchCompletionSensor, "poke", batch_id)
    assert wait.xcoms["run_counts"]["total"] == 12
    assert wait.xcoms["run_counts"]["not_submitted"] == 3


@given(
    runs=st.integers(1, 6),
    failed=st.sets(st.integers(0, 5), max_size=2),
    not_submitted=st.sets(st.integers(0, 5), max_size=2),
    counts=st.integers(0, 300),
    lists=st.integers(0, 300),
    late=st.sampled_from(["absent", "unsubmitted", "without run id"]),
    allowed=st.sampled_from([0, 2, "50%", "100%"]),
    to_s3=st.booleans(),
    begin=st.integers(0, 400),
    mode=st.sampled_from(["poke", "reschedule"]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_success_has_the_counts_as_they_are(
    service: Any,
    client: Any,
    wait: Any,
    runs: int,
    failed: set[int],
    not_submitted: set[int],
    counts: int,
    lists: int,
    late: Late,
    allowed: int | str,
    to_s3: bool,
    begin: int,
    mode: str,
) -> None:
    service.faults.clear()
    for number in failed:
        service.faults.fail_run(f"sample-{number}")
    for number in not_submitted:
        service.faults.fail_submission(f"sample-{number}")
    batch_id = start_slow_batch(service, client, runs)
    service.clock.advance(begin)
    service.faults.stale_counts(seconds=counts)
    arguments = {"runs_s3_uri": URI} if to_s3 else {}
    with late_lists(service, batch_id, client, lists, late):
        try:
            returned = wait(BatchCompletionSensor, mode, batch_id, max_failed_runs=allowed, **arguments)
        except TooManyFailedRunsError:
            returned = None
    service.clock.advance(300)
    truth = counts_of(client, batch_id)
    least = {0: 0, 2: 2, "50%": runs // 2, "100%": runs}[allowed]
    assert (returned is None) == (truth["total"] - truth["completed"] > least)
    assert wait.xcoms["run_counts"] == truth
    if to_s3 and returned is not None:
        assert len(records()) == runs
        assert [record["status"] for record in records()].count("COMPLETED") == truth["completed"]
