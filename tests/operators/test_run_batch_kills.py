"""StartRunBatchOperator whose task is killed while it waits, in this process or in the triggerer."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache._compat import AirflowTaskTimeout
from airflow_provider_omics_cache.exceptions import BatchCancelledError
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.triggers.run_batch import StartRunBatchTrigger
from tests.conftest import AIRFLOW_3, needs_aiobotocore, needs_batches
from tests.operators.batch_states import batch_in, runs_of, status_of
from tests.operators.waiting_task import Context, Later, waiting_task
from tests.sensor_modes import TaskDeferred, start_batch

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

pytestmark = needs_batches


def kill_worker(batch_id: str, **parameters: Any) -> None:
    """Kill the task while it waits for the batch in its own process."""
    task = waiting_task(**parameters)
    task.batch_id = batch_id
    task.on_kill()


def kill_deferred(batch_id: str, **parameters: Any) -> None:
    """Kill the task while it is deferred."""
    asyncio.run(StartRunBatchTrigger(batch_id=batch_id, **parameters).on_kill())


each_kill = pytest.mark.parametrize("kill", [kill_worker, kill_deferred])
EVERY_STATE = pytest.mark.parametrize(
    ("status", "then"),
    [
        ("CREATING", "STOPPING"),
        ("PENDING", "STOPPING"),
        ("SUBMITTING", "STOPPING"),
        ("INPROGRESS", "STOPPING"),
        ("STOPPING", "STOPPING"),
        ("CANCELLED", "CANCELLED"),
        ("FAILED", "FAILED"),
        ("PROCESSED", "PROCESSED"),
        ("RUNS_DELETING", "RUNS_DELETING"),
        ("RUNS_DELETE_FAILED", "RUNS_DELETE_FAILED"),
        ("RUNS_DELETED", "RUNS_DELETED"),
    ],
)


@each_kill
@EVERY_STATE
def test_a_kill_cancels_only_if_that_is_wanted(
    kill: Callable[..., None], status: str, then: str, local: LocalHealthOmics, client: Any
) -> None:
    batch_id = batch_in(status, local, client)
    local.calls.clear()
    kill(batch_id)
    assert local.calls.total() == 0
    kill(batch_id, cancel_on_kill=True)
    asks = status in {"CREATING", "PENDING", "SUBMITTING", "INPROGRESS"}
    assert status_of(client, batch_id) == then
    assert local.calls["CancelRunBatch"] == asks
    kill(batch_id, cancel_on_kill=True)
    assert local.calls["CancelRunBatch"] == asks
    assert local.calls["CancelRun"] == (2 if status == "FAILED" else 0)
    local.clock.advance(60)
    left = set(runs_of(client, batch_id).values())
    assert left <= ({"CANCELLED"} if asks or status in {"STOPPING", "CANCELLED", "FAILED"} else {"COMPLETED"})


EVERYTHING: dict[str, Any] = {
    "batch_id": "42",
    "poke_interval": 30,
    "deadline": 1_800_000_000.5,
    "max_silence": 900,
    "runs_wait": {"run_ids": ["7", "8"], "only_stopping": False, "until": None},
    "aws_conn_id": "genomics",
    "region_name": "eu-west-1",
    "verify": False,
    "botocore_config": {"retries": {"max_attempts": 7}},
    "cancel_on_kill": True,
}


def test_the_triggers_class_path_and_arguments_are_final() -> None:
    path, kwargs = StartRunBatchTrigger(**EVERYTHING).serialize()
    assert path == "airflow_provider_omics_cache.triggers.run_batch.StartRunBatchTrigger"
    assert json.loads(json.dumps(kwargs)) == EVERYTHING
    assert StartRunBatchTrigger(**kwargs).serialize() == (path, kwargs)


def test_a_trigger_row_of_another_version_cancels_nothing() -> None:
    kwargs = StartRunBatchTrigger(batch_id="42", colour="red").serialize()[1]
    assert kwargs.keys() == EVERYTHING.keys()
    assert kwargs["cancel_on_kill"] is False


def test_a_kill_before_there_is_a_batch(
    local: LocalHealthOmics, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting_task(cancel_on_kill=True).on_kill()
    assert local.calls.total() == 0
    assert "failed" not in caplog.text + capsys.readouterr().out


def test_a_kill_of_a_task_that_does_not_wait(local: LocalHealthOmics, task_context: Context) -> None:
    task = waiting_task(wait_for_completion=False)
    task.execute(task_context)
    task.on_kill()
    assert local.calls["CancelRunBatch"] == 0


def test_a_kill_before_the_service_shows_the_batch(
    local: LocalHealthOmics, later: Later, client: Any, the_batch: Callable[[], str], task_context: Context
) -> None:
    local.settings.batch_visible_after = 8
    task = waiting_task(cancel_on_kill=True)
    later(1, task.on_kill)
    with pytest.raises(BatchCancelledError):
        task.execute(task_context)
    assert local.calls["CancelRunBatch"] == 1
    assert set(runs_of(client, the_batch()).values()) <= {"STOPPING", "CANCELLED"}


def test_a_kill_while_the_task_waits(
    local: LocalHealthOmics, later: Later, client: Any, the_batch: Callable[[], str], task_context: Context
) -> None:
    task = waiting_task(cancel_on_kill=True)
    later(12, task.on_kill)
    with pytest.raises(BatchCancelledError):
        task.execute(task_context)
    assert local.calls["CancelRunBatch"] == 1
    assert set(runs_of(client, the_batch()).values()) <= {"CANCELLED"}


@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_an_execution_timeout_kills_a_task_that_is_not_deferred(
    cancel_on_kill: bool,
    local: LocalHealthOmics,
    later: Later,
    client: Any,
    the_batch: Callable[[], str],
    task_context: Context,
) -> None:
    def time_out() -> None:
        raise AirflowTaskTimeout("Timeout")

    task = waiting_task(cancel_on_kill=cancel_on_kill)
    later(12, time_out)
    with pytest.raises(AirflowTaskTimeout):
        task.execute(task_context)
    task.on_kill()  # as Airflow does
    assert status_of(client, the_batch()) == ("STOPPING" if cancel_on_kill else "INPROGRESS")


@needs_aiobotocore
def test_a_kill_while_the_resumed_task_lists_the_runs(
    local: LocalHealthOmics, client: Any, task_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TaskDeferred):
        waiting_task(deferrable=True).execute(task_context)
    local.faults.fail_batch("It broke", after="SUBMITTING", started_runs=2)
    local.clock.advance(10)
    batch_id = task_context["ti"].xcoms["batch"]["id"]
    task = waiting_task(deferrable=True, cancel_on_kill=True)
    list_runs = OmicsCacheHook.list_runs

    def killed(self: OmicsCacheHook, **members: Any) -> Any:
        monkeypatch.setattr(OmicsCacheHook, "list_runs", list_runs)
        task.on_kill()
        return list_runs(self, **members)

    monkeypatch.setattr(OmicsCacheHook, "list_runs", killed)
    event = {"status": "failed", "batch": {"id": batch_id, "status": "FAILED", "total_runs": 4}}
    with pytest.raises(TaskDeferred):
        task.resume_execution("execute_complete", {"event": event}, task_context)
    local.clock.advance(60)
    assert set(runs_of(client, batch_id).values()) == {"CANCELLED"}


@each_kill
@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("GetBatch", "AccessDeniedException"),
        ("GetBatch", "ThrottlingException"),
        ("GetBatch", "InternalServerException"),
        ("GetBatch", "ResourceNotFoundException"),
        ("GetBatch", "dropped"),
        ("CancelRunBatch", "AccessDeniedException"),
        ("CancelRunBatch", "ThrottlingException"),
        ("CancelRunBatch", "ConflictException"),
        ("CancelRunBatch", "ValidationException"),
        ("CancelRunBatch", "ResourceNotFoundException"),
        ("CancelRunBatch", "dropped"),
    ],
)
def test_what_goes_wrong_in_a_kill_is_logged_and_not_raised(
    kill: Callable[..., None],
    operation: str,
    fault: str,
    local: LocalHealthOmics,
    client: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    local.settings.run_running_seconds = 10_000
    batch_id = batch_in("INPROGRESS", local, client)
    if fault == "dropped":
        local.faults.drop_connection(operation, times=None, after_effect=False)
    else:
        local.faults.error(operation, code=fault, times=None)
    before = local.clock.elapsed()
    kill(batch_id, cancel_on_kill=True)
    assert local.clock.elapsed() - before < 60
    assert f"Batch {batch_id} was not cancelled" in caplog.text + capsys.readouterr().out
    local.faults.clear()
    assert status_of(client, batch_id) == "INPROGRESS"


@each_kill
@pytest.mark.parametrize("fault", ["throttled", "lost answer", "not found"])
def test_a_kill_gets_through_what_passes(
    kill: Callable[..., None], fault: str, local: LocalHealthOmics, client: Any
) -> None:
    local.settings.run_running_seconds = 10_000
    batch_id = batch_in("INPROGRESS", local, client)
    if fault == "throttled":
        local.faults.throttle("GetBatch", times=4)
        local.faults.throttle("CancelRunBatch", times=4)
    elif fault == "not found":
        local.faults.error("GetBatch", code="ResourceNotFoundException", times=2)
    else:
        local.faults.drop_connection("CancelRunBatch", after_effect=True)
    kill(batch_id, cancel_on_kill=True)
    assert status_of(client, batch_id) in {"STOPPING", "CANCELLED"}


@each_kill
def test_a_kill_that_could_not_cancel_is_logged(
    kill: Callable[..., None],
    local: LocalHealthOmics,
    client: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    local.settings.creating_seconds = 10_000
    batch_id = batch_in("CREATING", local, client)
    before = local.clock.elapsed()
    kill(batch_id, cancel_on_kill=True)
    assert local.clock.elapsed() - before < 25, "Airflow gives it half a minute"
    assert f"Batch {batch_id} is still CREATING" in caplog.text + capsys.readouterr().out
    assert local.calls["CancelRunBatch"] == 0


@each_kill
def test_a_kill_with_a_connection_that_is_gone(
    kill: Callable[..., None],
    local: LocalHealthOmics,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kill("42", cancel_on_kill=True, aws_conn_id="aws_gone", region_name="")
    assert "Batch 42 was not cancelled" in caplog.text + capsys.readouterr().out


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 does not report a kill to triggers")
@pytest.mark.parametrize("map_index", [-1, 7])
@pytest.mark.parametrize(
    ("state", "cancels"), [("deferred", False), ("failed", True), ("success", True), ("running", True), (None, True)]
)
def test_a_trigger_that_another_triggerer_has_taken_over_cancels_nothing(
    state: str | None, cancels: bool, map_index: int, local: LocalHealthOmics, client: Any, monkeypatch: Any
) -> None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    def get_task_states(*, dag_id: str, task_ids: list[str], run_ids: list[str], map_index: int) -> dict[str, Any]:
        (task_id,), (run_id,) = task_ids, run_ids
        assert (dag_id, task_id, run_id) == ("cohort", "start_batch", "manual")
        return {run_id: {task_id if map_index < 0 else f"{task_id}_{map_index}": state}}

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(get_task_states))
    batch_id = batch_in("INPROGRESS", local, client)
    trigger = StartRunBatchTrigger(batch_id=batch_id, cancel_on_kill=True)
    trigger.task_instance = SimpleNamespace(
        dag_id="cohort", task_id="start_batch", run_id="manual", map_index=map_index
    )
    asyncio.run(trigger.on_kill())
    assert status_of(client, batch_id) == ("STOPPING" if cancels else "INPROGRESS")


def test_many_deferred_tasks_are_killed_side_by_side(
    local: LocalHealthOmics, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [start_batch(client) for _ in range(4)]
    barrier = threading.Barrier(len(batches), action=lambda: local.clock.advance(5))

    def wait_for_the_others(seconds: float) -> None:
        barrier.wait(timeout=20)

    monkeypatch.setattr(timing, "sleep", wait_for_the_others)

    async def kill_all() -> None:
        triggers = [StartRunBatchTrigger(batch_id=batch_id, cancel_on_kill=True) for batch_id in batches]
        await asyncio.gather(*(trigger.on_kill() for trigger in triggers))

    asyncio.run(kill_all())
    assert {status_of(client, batch_id) for batch_id in batches} == {"STOPPING"}
