"""RunCompletionSensor in each of its modes, against the local HealthOmics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from airflow_provider_omics_cache._compat import AirflowSensorTimeout
from airflow_provider_omics_cache.exceptions import (
    OmicsParameterError,
    RunCancelledError,
    RunDeletedError,
    RunFailedError,
    RunNotFoundError,
    RunSilenceError,
    TriggerEventError,
)
from airflow_provider_omics_cache.healthomics.awaited_run import Run
from airflow_provider_omics_cache.healthomics.rounds import DEADLINE, Event, EventStatus
from airflow_provider_omics_cache.sensors.run import RunCompletionSensor
from airflow_provider_omics_cache.triggers.run import RunCompletionTrigger
from tests.conftest import needs_aiobotocore, needs_batches
from tests.sensor_modes import each_mode, run_sensor, use_service_time

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

pytestmark = needs_batches

Context = dict[str, Any]


@pytest.fixture
def local(local_healthomics: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch) -> LocalHealthOmics:
    """The local HealthOmics. The package uses the service's clock."""
    use_service_time(monkeypatch, local_healthomics)
    return local_healthomics


@pytest.fixture
def client(local: LocalHealthOmics) -> Any:
    return boto3.client("omics")


def start(client: Any, name: str = "sample") -> dict[str, Any]:
    run: dict[str, Any] = client.start_run(
        workflowId="1234567",
        roleArn="arn:aws:iam::123456789012:role/omics",
        outputUri="s3://results/runs",
        name=name,
        requestId=name,
    )
    return run


def wait(run_id: Any, mode: str, context: Context, local: LocalHealthOmics, **given: Any) -> Any:
    make = partial(RunCompletionSensor, task_id="wait", run_id=run_id, **{"poke_interval": 20, **given})
    return run_sensor(make, mode, context, local.clock)


@each_mode
def test_a_run_that_completes(mode: str, local: LocalHealthOmics, client: Any, task_context: Context) -> None:
    local.settings.run_running_seconds = 300
    run = start(client)
    assert wait(int(run["id"]), mode, task_context, local) == run["id"]
    xcom = task_context["ti"].xcoms["run"]
    assert (xcom["status"], xcom["uuid"], xcom["run_output_uri"]) == ("COMPLETED", run["uuid"], run["runOutputUri"])
    assert xcom["stop_time"] > xcom["start_time"] > xcom["creation_time"]
    assert local.calls["GetRun"] <= 20
    assert run["id"] in str(task_context["ti"].links)


@each_mode
@pytest.mark.parametrize(
    ("end", "error", "text"),
    [
        ("fail", RunFailedError, "failed: RUN_TASK_FAILED: The run failed on demand"),
        ("cancel", RunCancelledError, "was cancelled"),
        ("reuse", RunDeletedError, "was deleted"),
        ("delete", RunNotFoundError, "was not found in account 123456789012, Region us-east-1, connection"),
    ],
)
def test_a_run_that_does_not_complete(
    mode: str,
    end: str,
    error: type[Exception],
    text: str,
    local: LocalHealthOmics,
    client: Any,
    task_context: Context,
) -> None:
    local.settings.reuse_run_ids = True
    run = start(client)
    if end == "fail":
        local.faults.fail_run("sample")
    else:
        client.cancel_run(id=run["id"])
    if end in {"reuse", "delete"}:
        local.clock.advance(100)
        client.delete_run(id=run["id"])
    if end == "reuse":
        assert start(client, "theirs")["id"] == run["id"]
    with pytest.raises(error, match=text):
        wait(run["id"], mode, task_context, local, run_uuid=run["uuid"])


@pytest.mark.parametrize("is_known", [False, True])
def test_the_last_look_knows_the_uuid_that_the_trigger_learned(
    is_known: bool, local: LocalHealthOmics, client: Any, task_context: Context
) -> None:
    """The run is deleted, and its id is used again, between the trigger's last answer and the resumed task."""
    theirs = start(client, "theirs")
    local.clock.advance(1_000)
    sensor = RunCompletionSensor(task_id="wait", run_id=theirs["id"], deferrable=True)
    event = Event(
        status=EventStatus.TIMEOUT,
        message="Timed out.",
        code=DEADLINE,
        deadline=local.clock.now().timestamp(),
        run=Run(id=theirs["id"], uuid="ours" if is_known else None, status="RUNNING"),
    )
    if is_known:
        with pytest.raises(RunDeletedError, match="was deleted"):
            sensor.execute_complete(task_context, event.to_json())
    else:
        assert sensor.execute_complete(task_context, event.to_json()) == theirs["id"]


@needs_aiobotocore
def test_the_timeout(local: LocalHealthOmics, client: Any, task_context: Context) -> None:
    local.settings.run_running_seconds = 10_000
    run = start(client)
    with pytest.raises(AirflowSensorTimeout):
        wait(run["id"], "deferrable", task_context, local, timeout=200)
    assert client.get_run(id=run["id"])["status"] == "RUNNING"


@each_mode
def test_the_silence(mode: str, local: LocalHealthOmics, client: Any, task_context: Context) -> None:
    local.settings.run_running_seconds = 10_000
    run = start(client)
    client.get_run(id=run["id"])
    local.faults.throttle("GetRun", times=None)
    with pytest.raises(RunSilenceError, match=f"Run {run['id']}: no answer for"):
        wait(run["id"], mode, task_context, local, max_silence=300)


@each_mode
def test_a_status_of_tomorrow_is_waited_for(
    mode: str, local: LocalHealthOmics, client: Any, task_context: Context, changed_status: Callable[[str], None]
) -> None:
    run = start(client)
    changed_status("RESTING")
    assert wait(run["id"], mode, task_context, local) == run["id"]


@pytest.fixture
def changed_status(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the first two answers about a run show another status."""
    from airflow_provider_omics_cache.healthomics.awaited_run import Run

    original = Run.from_answer.__func__  # type: ignore[attr-defined]

    def change(status: str) -> None:
        left = [status, status]

        def from_answer(cls: type[Run], run_id: str, answer: dict[str, Any], **known: Any) -> Run:
            return original(cls, run_id, {**answer, **({"status": left.pop()} if left else {})}, **known)

        monkeypatch.setattr(Run, "from_answer", classmethod(from_answer))

    return change


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"run_id": None}, "run_id must be an id of 1 to 18 digits; got None"),
        ({"run_id": "x"}, "run_id must be an id of 1 to 18 digits; got 'x'"),
        ({"run_id": "1", "run_uuid": "None"}, "run_uuid must be the uuid of a run"),
    ],
)
def test_bad_input(given: dict[str, Any], text: str, local: LocalHealthOmics, task_context: Context) -> None:
    with pytest.raises(OmicsParameterError, match=text):
        RunCompletionSensor(task_id="wait", **given).execute(task_context)
    assert local.calls.total() == 0


def test_an_event_of_another_run(local: LocalHealthOmics, task_context: Context) -> None:
    for event in (
        {"status": "done", "run": {"id": "2"}},
        {"status": "done", "batch": {"id": "1"}},
        {"status": "done"},
        {"status": "done", "run": {"id": "1", "stop_time": 5}},
    ):
        with pytest.raises(TriggerEventError):
            RunCompletionSensor(task_id="wait", run_id="1").execute_complete(task_context, event)


def test_the_triggers_class_path_and_arguments_are_final() -> None:
    path, kwargs = RunCompletionTrigger(run_id="1", colour="red").serialize()
    assert path == "airflow_provider_omics_cache.triggers.run.RunCompletionTrigger"
    assert kwargs == {
        "run_id": "1",
        "run_uuid": None,
        "poke_interval": 60,
        "deadline": None,
        "max_silence": 3600.0,
        "aws_conn_id": "aws_default",
        "region_name": None,
        "verify": None,
        "botocore_config": None,
    }
