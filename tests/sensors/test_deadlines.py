"""One deadline for all calls of a task, and lists that are made again when the token of a page expires."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import boto3
import pytest
from airflow import DAG
from airflow.providers.amazon.aws.sensors.s3 import S3KeySensor

from airflow_provider_omics_cache.exceptions import BatchTimeoutError
from airflow_provider_omics_cache.operators.run_batch import CancelRunBatchOperator, DeleteRunBatchOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from airflow_provider_omics_cache.tasks.wait import LAST_LISTING_SECONDS
from tests.conftest import needs_batches
from tests.sensor_modes import each_mode, run_sensor, start_batch

try:
    from airflow.sdk.exceptions import AirflowSensorTimeout
except ImportError:
    from airflow.exceptions import AirflowSensorTimeout

pytestmark = needs_batches

RUNS = 5_000
SLOW_PAGE = 30.0
ONE_ATTEMPT = {"retries": {"total_max_attempts": 1}}

each_sensor = pytest.mark.parametrize("sensor", [BatchSubmissionSensor, BatchCompletionSensor])


def processed_batch(service: Any, client: Any, runs: int = RUNS) -> str:
    """Start a batch and let its runs end; one of them fails."""
    service.settings.submission_rate = 10_000
    service.faults.fail_run("sample-0")
    batch_id = start_batch(client, runs)
    service.clock.advance(1_000)
    assert client.get_batch(batchId=batch_id)["status"] == "PROCESSED"
    return batch_id


def success_of(sensor: Any) -> dict[str, Any]:
    """Return the parameters with which a sensor lists the runs and succeeds."""
    if sensor is BatchSubmissionSensor:
        return {}
    boto3.client("s3").create_bucket(Bucket="results")
    return {"max_failed_runs": 1, "runs_s3_uri": "s3://results/runs.jsonl"}


@each_sensor
def test_the_timeout_of_a_sensor_is_that_of_airflows_sensors(sensor: Any) -> None:
    given = {"task_id": "wait", "batch_id": "1"}
    assert sensor(**given).timeout == S3KeySensor(task_id="airflows", bucket_key="s3://results/key").timeout
    assert sensor(**given, timeout=90.5).timeout == 90.5
    assert sensor(**given, timeout=timedelta(hours=1)).timeout == 3600
    with DAG("cohorts", schedule=None, default_args={"timeout": 60}) as dag:
        sensor(**given)
        sensor.partial(task_id="mapped").expand(batch_id=["1", "2"])
    assert (dag.get_task("wait").timeout, dag.get_task("mapped").unmap({"batch_id": "1"}).timeout) == (60, 60)


@each_mode
@each_sensor
def test_slow_pages_end_at_the_deadline(
    service: Any, client: Any, task_context: dict[str, Any], sensor: Any, mode: str
) -> None:
    batch_id = processed_batch(service, client)
    service.faults.latency("ListRunsInBatch", seconds=SLOW_PAGE)
    began = service.clock.elapsed()
    make = partial(sensor, task_id="wait", batch_id=batch_id, timeout=120, poke_interval=10, **success_of(sensor))
    with pytest.raises(AirflowSensorTimeout, match="runs could not be listed in time"):
        run_sensor(make, mode, task_context, service.clock)
    assert service.clock.elapsed() - began <= 120 + LAST_LISTING_SECONDS + SLOW_PAGE


@each_mode
@each_sensor
def test_throttled_pages_end_at_the_deadline(
    service: Any, client: Any, task_context: dict[str, Any], sensor: Any, mode: str
) -> None:
    batch_id = processed_batch(service, client)
    service.faults.throttle("ListRunsInBatch", rate=0.9, times=None)
    began = service.clock.elapsed()
    parameters = {"botocore_config": ONE_ATTEMPT, **success_of(sensor)}
    make = partial(sensor, task_id="wait", batch_id=batch_id, timeout=600, poke_interval=10, **parameters)
    with pytest.raises(AirflowSensorTimeout, match="runs could not be listed in time"):
        run_sensor(make, mode, task_context, service.clock)
    assert service.clock.elapsed() - began <= 600 + LAST_LISTING_SECONDS


@each_sensor
def test_a_batch_that_ends_in_the_last_round_is_still_listed(
    service: Any, client: Any, task_context: dict[str, Any], sensor: Any
) -> None:
    batch_id = processed_batch(service, client, runs=300)
    service.faults.latency("ListRunsInBatch", seconds=10)
    make = partial(sensor, task_id="wait", batch_id=batch_id, timeout=0, poke_interval=10, **success_of(sensor))
    assert run_sensor(make, "poke", task_context, service.clock)


@pytest.mark.parametrize("operation", ["GetBatch", "ListRuns", "ListRunsInBatch", "GetRun", "CancelRun"])
@pytest.mark.parametrize("teardown", [False, True])
def test_a_cancellation_ends_at_the_deadline(
    service: Any, client: Any, task_context: dict[str, Any], operation: str, teardown: bool
) -> None:
    service.settings.submission_rate = 10_000
    service.settings.run_running_seconds = 1_000_000
    service.faults.fail_batch("It broke", after="SUBMITTING", started_runs=900)
    batch_id = start_batch(client, 1_000)
    service.clock.advance(100)
    service.faults.throttle(operation, rate=0.95, times=None)
    task = CancelRunBatchOperator(task_id="cancel", batch_id=batch_id, timeout=600, botocore_config=ONE_ATTEMPT)
    task.is_teardown = teardown
    task_context["ti"].start_date = service.clock.now()
    began = service.clock.elapsed()
    with pytest.raises(BatchTimeoutError):
        task.execute(task_context)
    assert service.clock.elapsed() - began <= 600 + LAST_LISTING_SECONDS


@pytest.mark.parametrize("operation", ["ListRuns", "ListRunsInBatch", "GetRun", "DeleteRun"])
def test_a_deletion_ends_at_the_deadline(
    service: Any, client: Any, task_context: dict[str, Any], operation: str
) -> None:
    service.settings.submission_rate = 10_000
    service.faults.fail_batch("It broke", after="SUBMITTING", started_runs=900)
    batch_id = start_batch(client, 1_000)
    service.clock.advance(1_000)
    service.faults.throttle(operation, rate=0.95, times=None)
    task = DeleteRunBatchOperator(task_id="delete", batch_id=batch_id, timeout=600, botocore_config=ONE_ATTEMPT)
    task_context["ti"].start_date = service.clock.now()
    began = service.clock.elapsed()
    with pytest.raises(BatchTimeoutError):
        task.execute(task_context)
    assert service.clock.elapsed() - began <= 600 + LAST_LISTING_SECONDS


@each_mode
@each_sensor
@pytest.mark.parametrize("operation", ["ListRunsInBatch", "ListRuns"])
def test_a_token_that_expires_makes_the_sensor_list_again(
    service: Any, client: Any, task_context: dict[str, Any], sensor: Any, mode: str, operation: str
) -> None:
    batch_id = processed_batch(service, client, runs=500)
    calls = 0

    before_call = service.faults.before_call

    def expire(name: str) -> None:
        nonlocal calls
        calls += name == operation
        if name == operation and calls == 3:
            service.faults.error(operation, code="ValidationException", status=400, message="The token has expired")
        before_call(name)

    service.faults.before_call = expire
    make = partial(sensor, task_id="wait", batch_id=batch_id, **success_of(sensor))
    result = run_sensor(make, mode, task_context, service.clock)
    assert result["completed"] == 499 if sensor is BatchCompletionSensor else len(result) == 500
