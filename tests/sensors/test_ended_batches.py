"""BatchCompletionSensor on batches that FAILED or were CANCELLED, and its deadline while it asks for single runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import boto3
import pytest

from airflow_provider_omics_cache._compat import AirflowFailException, AirflowSensorTimeout
from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchFailedError,
    BatchSilenceError,
    TooManyFailedRunsError,
)
from airflow_provider_omics_cache.healthomics.rounds import CONSISTENCY_SECONDS, TRUST_SECONDS, RunsWait
from airflow_provider_omics_cache.healthomics.states import ACTIVE_RUN_STATUSES
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor
from airflow_provider_omics_cache.tables import read_table
from airflow_provider_omics_cache.tasks.wait import LAST_LISTING_SECONDS
from airflow_provider_omics_cache.triggers.run_batch import BatchCompletionTrigger
from tests.conftest import needs_aiobotocore, needs_batches
from tests.sensor_modes import each_mode, fire, run_sensor, start_batch

pytestmark = [needs_batches, pytest.mark.newest]

INTERVAL = 20
RUNS = 2_000
PAGES = RUNS // 100
#: What a wait may cost beside its rounds.
MOST_OTHER_CALLS = 2 * PAGES + 5
REASON = "The role cannot be assumed"
ERRORS: dict[str, type[Exception]] = {"FAILED": BatchFailedError, "CANCELLED": BatchCancelledError}

each_end = pytest.mark.parametrize("status", ERRORS)


@pytest.fixture
def wait(service: Any, task_context: dict[str, Any]) -> Callable[..., Any]:
    """Run the sensor in a mode until it ends."""

    def run(mode: str, batch_id: str, **arguments: Any) -> Any:
        def make(**mode_arguments: Any) -> BatchCompletionSensor:
            everything = {"task_id": "wait", "poke_interval": INTERVAL, "timeout": 3_600, **arguments, **mode_arguments}
            return BatchCompletionSensor(batch_id=batch_id, **everything)

        return run_sensor(make, mode, task_context, service.clock)

    return run


@pytest.fixture
def ended_batch(service: Any, client: Any) -> Callable[..., str]:
    """Return a function that starts a batch which ends early while some of its runs continue for about 40 rounds."""

    def make(
        status: str,
        *,
        runs: int = RUNS,
        active: Collection[int] = (7,),
        seconds: float = 800,
        submitted_per_second: float = math.inf,
    ) -> str:
        service.settings.submission_rate = submitted_per_second
        service.settings.run_running_seconds = seconds
        if status == "FAILED":
            service.faults.fail_batch(REASON, after="SUBMITTING", started_runs=runs)
        batch_id = start_batch(client, runs)
        service.clock.advance(15 + runs / submitted_per_second)
        if status == "CANCELLED":
            service.faults.fail_cancel([f"sample-{number}" for number in active])
            client.cancel_run_batch(batchId=batch_id)
        else:
            for page in client.get_paginator("list_runs_in_batch").paginate(batchId=batch_id):
                for row in page["runs"]:
                    if int(row["runSettingId"].rpartition("-")[2]) not in active:
                        client.cancel_run(id=row["runId"])
        service.clock.advance(10)
        assert client.get_batch(batchId=batch_id)["status"] == status
        assert len(active_runs(client, batch_id)) == len(active)
        service.calls.clear()
        return batch_id

    return make


def active_runs(client: Any, batch_id: str) -> list[str]:
    pages = client.get_paginator("list_runs").paginate(batchId=batch_id, status="RUNNING")
    return [run["id"] for page in pages for run in page["items"]]


def rounds(service: Any) -> int:
    return int(service.calls["GetBatch"] + service.calls["GetRun"])


# One run that is still active


@each_end
@needs_aiobotocore
def test_a_deferred_wait_for_the_last_run_costs_its_rounds_and_two_listings(
    status: str,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    ended_batch: Callable[..., str],
    task_context: dict[str, Any],
) -> None:
    batch_id = ended_batch(status)
    before = service.clock.elapsed()
    with pytest.raises(ERRORS[status], match=f"1 of {RUNS:,} runs completed"):
        wait("deferrable", batch_id)
    elapsed = service.clock.elapsed() - before
    assert 700 < elapsed < 900
    assert elapsed / INTERVAL * 0.85 < rounds(service) < elapsed / INTERVAL * 1.15 + 5
    assert sum(service.calls.values()) <= rounds(service) + MOST_OTHER_CALLS
    assert len(task_context["events"]) <= 2
    assert task_context["ti"].xcoms["run_counts"]["completed"] == 1
    assert active_runs(client, batch_id) == []


@each_end
@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_a_wait_for_the_last_run_never_lists_all_runs_in_every_round(
    mode: str, status: str, service: Any, client: Any, wait: Callable[..., Any], ended_batch: Callable[..., str]
) -> None:
    batch_id = ended_batch(status)
    before = service.clock.elapsed()
    with pytest.raises(ERRORS[status], match=f"1 of {RUNS:,} runs completed"):
        wait(mode, batch_id)
    elapsed = service.clock.elapsed() - before
    assert 700 < elapsed < 900
    assert rounds(service) < elapsed / INTERVAL + 5
    assert service.calls["ListRunsInBatch"] == PAGES
    # A rescheduled task forgets which runs are active. It lists the few in each active status again after a while.
    looks = 1 + elapsed // TRUST_SECONDS + 1 if mode == "reschedule" else 1
    assert service.calls["ListRuns"] <= PAGES + len(ACTIVE_RUN_STATUSES) * looks


@each_mode
def test_more_active_runs_than_a_trigger_waits_for(
    mode: str,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    ended_batch: Callable[..., str],
    task_context: dict[str, Any],
) -> None:
    batch_id = ended_batch("CANCELLED", runs=250, active=range(10, 160), seconds=600, submitted_per_second=1)
    with pytest.raises(BatchCancelledError, match="150 of 250 runs completed"):
        wait(mode, batch_id)
    assert active_runs(client, batch_id) == []
    assert len(task_context.get("events", ())) <= 4
    counts = task_context["ti"].xcoms["run_counts"]
    assert (counts["completed"], counts["cancelled"]) == (150, 100)


@each_mode
@each_end
def test_counts_of_active_runs_that_list_runs_does_not_show_are_waited_for_until_it_has_caught_up(
    mode: str, status: str, service: Any, client: Any, wait: Callable[..., Any], ended_batch: Callable[..., str]
) -> None:
    batch_id = ended_batch(status, runs=20, seconds=100)
    service.clock.advance(200)
    service.faults.stale_counts(seconds=200)
    counts = client.get_batch(batchId=batch_id)["runSummary"]
    assert counts["runningRunCount"] > 0
    before = service.clock.elapsed()
    with pytest.raises(ERRORS[status], match="1 of 20 runs completed"):
        wait(mode, batch_id)
    # A rescheduled sensor remembers no runs, and believes the counts for ten minutes.
    longest = TRUST_SECONDS if mode == "reschedule" else CONSISTENCY_SECONDS
    assert service.clock.elapsed() - before <= longest + 2 * INTERVAL


def reused_run_id(service: Any, client: Any, batch_id: str) -> str:
    """Delete the active run of a batch, and start a run of another batch that gets its id."""
    service.settings.reuse_run_ids = True
    [run_id] = active_runs(client, batch_id)
    client.cancel_run(id=run_id)
    service.clock.advance(10)
    client.delete_run(id=run_id)
    service.settings.run_running_seconds = 100_000
    other = start_batch(client, 1)
    service.clock.advance(10)
    run = client.get_run(id=run_id)
    assert (run["batchId"], run["status"]) == (other, "RUNNING")
    return run_id


@each_end
@needs_aiobotocore
def test_a_trigger_does_not_wait_for_a_run_of_another_batch(
    status: str, service: Any, client: Any, ended_batch: Callable[..., str]
) -> None:
    batch_id = ended_batch(status, runs=20)
    run_id = reused_run_id(service, client, batch_id)
    before = service.clock.elapsed()
    event = fire(BatchCompletionTrigger(batch_id=batch_id, poke_interval=INTERVAL, runs_wait={"run_ids": [run_id]}))
    assert (event["status"], event["batch"]["status"]) == ("failed", status)
    assert service.clock.elapsed() - before <= 3 * INTERVAL


@each_end
def test_a_task_does_not_wait_for_a_run_of_another_batch(
    status: str, service: Any, client: Any, ended_batch: Callable[..., str], task_context: dict[str, Any]
) -> None:
    batch_id = ended_batch(status, runs=20)
    run_id = reused_run_id(service, client, batch_id)
    sensor = BatchCompletionSensor(task_id="wait", batch_id=batch_id)
    sensor.runs_wait = RunsWait(batch_id=batch_id, run_ids=[run_id])
    with pytest.raises(ERRORS[status], match="0 of 20 runs completed"):
        sensor.poke(task_context)


GET_RUN_FAULTS: dict[str, Callable[[Any], None]] = {
    "denied": lambda faults: faults.error("GetRun", code="AccessDeniedException", status=403, times=None),
    "throttled": lambda faults: faults.throttle("GetRun", times=None),
    "throttled for a while": lambda faults: faults.throttle("GetRun", times=8),
    "broken": lambda faults: faults.error("GetRun", times=None),
    "silent": lambda faults: faults.drop_connection("GetRun", times=None),
}


@each_mode
@pytest.mark.parametrize("fault", GET_RUN_FAULTS)
def test_a_failing_get_run_does_not_end_the_wait(
    fault: str,
    mode: str,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    ended_batch: Callable[..., str],
    task_context: dict[str, Any],
) -> None:
    batch_id = ended_batch("CANCELLED", runs=20, seconds=400)
    GET_RUN_FAULTS[fault](service.faults)
    before = service.clock.elapsed()
    with pytest.raises(BatchCancelledError, match="1 of 20 runs completed"):
        wait(mode, batch_id, max_silence=100)
    assert 300 < service.clock.elapsed() - before < 1_000
    assert active_runs(client, batch_id) == []
    if fault == "throttled for a while":
        assert len(task_context.get("events", ())) <= 2


@each_mode
def test_a_service_that_is_silent_during_the_wait_for_a_run_is_reported(
    mode: str, service: Any, wait: Callable[..., Any], ended_batch: Callable[..., str]
) -> None:
    batch_id = ended_batch("FAILED", runs=20, seconds=100_000)
    service.faults.throttle("GetRun", times=None)
    service.faults.throttle("ListRuns", times=None)
    service.faults.throttle("GetBatch", times=None)
    with pytest.raises(BatchSilenceError, match="ThrottlingException") as caught:
        wait(mode, batch_id, max_silence=300)
    assert not isinstance(caught.value, AirflowFailException)


@each_end
@needs_aiobotocore
def test_the_deadline_holds_during_the_wait_for_a_run(
    status: str, service: Any, wait: Callable[..., Any], ended_batch: Callable[..., str]
) -> None:
    batch_id = ended_batch(status, runs=20, seconds=100_000)
    before = service.clock.elapsed()
    with pytest.raises(AirflowSensorTimeout):
        wait("deferrable", batch_id, timeout=600)
    assert 600 <= service.clock.elapsed() - before < 600 + 2 * INTERVAL
    assert service.calls["CancelRun"] == service.calls["CancelRunBatch"] == 0


# Without omics:ListRuns


@each_mode
@pytest.mark.parametrize("goes_on", [True, False])
def test_without_list_runs_the_error_has_the_reason_of_the_service(
    goes_on: bool,
    mode: str,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    task_context: dict[str, Any],
) -> None:
    service.faults.fail_batch(REASON, after="SUBMITTING", started_runs=3)
    batch_id = start_batch(client, 10)
    service.clock.advance(5 if goes_on else 600)
    service.faults.error("ListRuns", code="AccessDeniedException", status=403, times=None)
    with pytest.raises(BatchFailedError, match=REASON) as caught:
        wait(mode, batch_id)
    assert isinstance(caught.value, AirflowFailException)
    assert (caught.value.reason, caught.value.status) == (REASON, "FAILED")
    assert "details of its runs could not be fetched: ListRuns failed: AccessDeniedException" in str(caught.value)
    assert task_context["ti"].xcoms["run_counts"]["total"] == 10


# The deadline while the task asks for single runs


def failed_runs(service: Any, client: Any, monkeypatch: pytest.MonkeyPatch, number: int) -> str:
    """Start a batch of which all runs fail; GetRun is asked for one of them a second."""
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND", "1")
    boto3.client("s3").create_bucket(Bucket="results")
    for index in range(number):
        service.faults.fail_run(f"sample-{index}")
    service.settings.submission_rate = math.inf
    return start_batch(client, number)


@each_mode
@pytest.mark.parametrize("include_outputs", [False, True])
def test_the_deadline_holds_between_the_calls_for_single_runs(
    include_outputs: bool,
    mode: str,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    task_context: dict[str, Any],
) -> None:
    batch_id = failed_runs(service, client, monkeypatch, 600)
    before = service.clock.elapsed()
    with pytest.raises(AirflowSensorTimeout, match="runs could not be listed in time"):
        wait(
            mode,
            batch_id,
            timeout=200,
            max_failed_runs="100%",
            runs_s3_uri="s3://results/runs.jsonl",
            include_outputs=include_outputs,
        )
    assert service.clock.elapsed() - before <= 200 + LAST_LISTING_SECONDS + 3
    assert 100 <= service.calls["GetRun"] <= 200 + LAST_LISTING_SECONDS + 3
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="results")
    assert "return_value" not in task_context["ti"].xcoms


@each_mode
def test_the_deadline_does_not_hide_that_too_many_runs_failed(
    mode: str,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    task_context: dict[str, Any],
) -> None:
    batch_id = failed_runs(service, client, monkeypatch, 600)
    before = service.clock.elapsed()
    text = r"600 runs did not complete.*could not be listed in time"
    with pytest.raises(TooManyFailedRunsError, match=text) as caught:
        wait(mode, batch_id, timeout=200, runs_s3_uri="s3://results/runs.jsonl")
    assert isinstance(caught.value, AirflowFailException)
    assert service.clock.elapsed() - before <= 200 + LAST_LISTING_SECONDS + 3
    assert service.calls["GetRun"] <= 200 + 3
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="results")
    xcoms = task_context["ti"].xcoms
    assert (xcoms["failed_run_count"], xcoms["failed_runs"]) == (600, [])
    assert xcoms["return_value"]["failed"] == 600


def test_a_run_that_is_listed_twice_has_one_record(
    client: Any, wait: Callable[..., Any], ended_batch: Callable[..., str], answer_with: Callable[..., None]
) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    batch_id = ended_batch("FAILED", runs=3, active=(1,), seconds=100)
    answer_with("ListRunsInBatch", lambda answer: {**answer, "runs": [*answer["runs"], *answer["runs"][:2]]})
    with pytest.raises(BatchFailedError):
        wait("poke", batch_id, runs_s3_uri="s3://results/runs.jsonl")
    records = read_table("s3://results/runs.jsonl")
    assert [record["run_setting_id"] for record in records] == ["sample-0", "sample-1", "sample-2"]
