from __future__ import annotations

import json
from typing import Any

import boto3
import pytest

from airflow_provider_omics_cache.triggers import run_batch as trigger_module
from airflow_provider_omics_cache.triggers.run_batch import BatchSubmissionTrigger
from tests.conftest import needs_aiobotocore, needs_batches
from tests.sensor_modes import ServiceTime, fire, start_batch

CLASS_PATH = "airflow_provider_omics_cache.triggers.run_batch.BatchSubmissionTrigger"
EVERYTHING: dict[str, Any] = {
    "batch_id": "42",
    "poke_interval": 30,
    "deadline": 1_800_000_000.5,
    "max_silence": 900,
    "aws_conn_id": "genomics",
    "region_name": "eu-west-1",
    "verify": False,
    "botocore_config": {"retries": {"max_attempts": 7}},
}


def test_the_class_path_and_the_arguments_are_final() -> None:
    path, kwargs = BatchSubmissionTrigger(**EVERYTHING).serialize()
    assert (path, kwargs) == (CLASS_PATH, EVERYTHING)
    assert json.loads(json.dumps(kwargs)) == EVERYTHING


def test_a_row_of_another_version_is_understood() -> None:
    trigger = BatchSubmissionTrigger(batch_id="42", colour="red")
    kwargs = trigger.serialize()[1]
    assert "colour" not in kwargs
    assert kwargs == {
        "batch_id": "42",
        "poke_interval": 60,
        "deadline": None,
        "max_silence": 3600,
        "aws_conn_id": "aws_default",
        "region_name": None,
        "verify": None,
        "botocore_config": None,
    }


@needs_batches
@needs_aiobotocore
def test_every_connection_argument_reaches_the_client(local_healthomics: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GENOMICS", "aws://id:secret@/?region_name=us-east-1")
    client = BatchSubmissionTrigger(**EVERYTHING)._hook()
    assert client.aws_conn_id == "genomics"
    assert client.region_name == "eu-west-1"
    assert client.verify is False
    assert client.config.retries["max_attempts"] == 7


@pytest.fixture
def service(local_healthomics: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    clock = ServiceTime(local_healthomics.clock)
    monkeypatch.setattr(trigger_module, "time", clock)
    monkeypatch.setattr("asyncio.sleep", clock.async_sleep)
    return local_healthomics


@needs_batches
@needs_aiobotocore
def test_a_client_that_cannot_be_made_is_an_event(service: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", '{"conn_type": "aws", "extra": {"role_arn": 7}}')
    event = fire(
        BatchSubmissionTrigger(batch_id="42", aws_conn_id="BROKEN", deadline=service.clock.now().timestamp() + 60)
    )
    assert event["status"] == "error"
    assert event["code"]
    assert event["deadline"]


@needs_batches
@needs_aiobotocore
def test_the_timeout_event_comes_at_the_deadline(service: Any) -> None:
    service.settings.pending_seconds = 1_000_000
    batch_id = start_batch(boto3.client("omics"))
    start = service.clock.now()
    event = fire(BatchSubmissionTrigger(batch_id=batch_id, poke_interval=3_600, deadline=start.timestamp() + 100))
    assert event["status"] == "timeout"
    assert (service.clock.now() - start).total_seconds() == pytest.approx(100)


@needs_batches
@needs_aiobotocore
def test_intervals_vary_by_a_tenth(service: Any, monkeypatch: Any) -> None:
    service.settings.pending_seconds = 2_000
    batch_id = start_batch(boto3.client("omics"))
    slept: list[float] = []
    advance = service.clock.advance

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        advance(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    fire(BatchSubmissionTrigger(batch_id=batch_id, poke_interval=100))
    assert len(slept) > 10
    assert all(90 <= seconds <= 110 for seconds in slept)
    assert len(set(slept)) > 5
