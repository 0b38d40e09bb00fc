from __future__ import annotations

import itertools
import json
from typing import Any

import boto3
import pytest

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.triggers.clients import Connection
from airflow_provider_omics_cache.triggers.run_batch import BatchSubmissionTrigger
from tests.conftest import needs_aiobotocore, needs_batches
from tests.sensor_modes import fire, start_batch, use_service_time

CLASS_PATH = "airflow_provider_omics_cache.triggers.run_batch.BatchSubmissionTrigger"
EVERYTHING: dict[str, Any] = {
    "batch_id": "42",
    "poke_interval": 30,
    "deadline": 1_800_000_000.5,
    "max_silence": 900,
    "runs_wait": {"run_ids": ["11", "12"], "only_stopping": False, "until": None},
    "aws_conn_id": "genomics",
    "region_name": "eu-west-1",
    "verify": False,
    "botocore_config": {"retries": {"mode": "adaptive"}, "read_timeout": 7},
}


def test_the_class_path_and_the_arguments_are_final() -> None:
    path, kwargs = BatchSubmissionTrigger(**EVERYTHING).serialize()
    assert (path, kwargs) == (CLASS_PATH, EVERYTHING)
    assert json.loads(json.dumps(kwargs)) == EVERYTHING


def test_what_the_task_has_seen_first_is_an_argument_only_if_it_matters() -> None:
    seen = {"status": "CANCELLED", "at": 1_800_000_000.5}
    kwargs = BatchSubmissionTrigger(**EVERYTHING, first_seen=seen).serialize()[1]
    assert kwargs == {**EVERYTHING, "first_seen": seen}


def test_a_row_of_another_version_is_understood() -> None:
    trigger = BatchSubmissionTrigger(batch_id="42", colour="red")
    kwargs = trigger.serialize()[1]
    assert "colour" not in kwargs
    assert kwargs == {
        "batch_id": "42",
        "poke_interval": 60,
        "deadline": None,
        "max_silence": 3600,
        "runs_wait": None,
        "aws_conn_id": "aws_default",
        "region_name": None,
        "verify": None,
        "botocore_config": None,
    }


@needs_batches
@needs_aiobotocore
def test_every_connection_argument_reaches_the_client(local_healthomics: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GENOMICS", "aws://id:secret@/?region_name=us-east-1")
    client = Connection.of(BatchSubmissionTrigger(**EVERYTHING)._hook_parameters).hook()
    assert client.aws_conn_id == "genomics"
    assert client.region_name == "eu-west-1"
    assert client.verify is False
    assert client.config.read_timeout == 7
    assert client.config.retries["mode"] == "adaptive"


@pytest.fixture
def service(local_healthomics: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    use_service_time(monkeypatch, local_healthomics)
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
    assert (service.clock.now() - start).total_seconds() == pytest.approx(100, abs=1.5)


@needs_batches
@needs_aiobotocore
def test_intervals_vary_by_a_tenth(service: Any, monkeypatch: Any) -> None:
    service.settings.pending_seconds = 2_000
    batch_id = start_batch(boto3.client("omics"))
    asked: list[float] = []
    sleep = timing.async_sleep

    async def sleep_and_look(seconds: float) -> None:
        await sleep(seconds)
        if service.calls["GetBatch"] > len(asked):
            asked.append(service.clock.now().timestamp())

    monkeypatch.setattr(timing, "async_sleep", sleep_and_look)
    fire(BatchSubmissionTrigger(batch_id=batch_id, poke_interval=100))
    intervals = [after - before for before, after in itertools.pairwise(asked)]
    assert len(intervals) > 10
    assert all(89 <= seconds <= 111 for seconds in intervals)
    assert len({round(seconds) for seconds in intervals}) > 5


def test_the_allowed_failures_are_an_argument_only_if_the_task_fails_fast() -> None:
    assert BatchSubmissionTrigger(**EVERYTHING, max_failed="5%").serialize()[1] == {**EVERYTHING, "max_failed": "5%"}
    assert BatchSubmissionTrigger(**EVERYTHING, max_failed=0).serialize()[1] == {**EVERYTHING, "max_failed": 0}
