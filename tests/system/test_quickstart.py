"""The quickstart DAG in every mode of the sensor, and killed tasks, on a real Airflow with the service behind HTTP."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from airflow.triggers.base import BaseTrigger
from airflow_2_processes import Airflow2Processes
from airflow_processes import AirflowProcesses
from quickstart import SAMPLES

from airflow_provider_omics_cache.local import LocalHealthOmicsServer, serve
from tests.conftest import AIRFLOW_3, needs_aiobotocore, needs_batches

pytestmark = [pytest.mark.system, needs_batches, needs_aiobotocore]

QUICKSTART = Path(__file__).parents[2] / "example_dags" / "quickstart.py"
MODES = {
    "poke": 'mode="poke", deferrable=False',
    "reschedule": 'mode="reschedule", deferrable=False',
    "deferrable": "deferrable=True",
}
WAITING_AS = {"poke": "running", "reschedule": "up_for_reschedule", "deferrable": "deferred"}
# All modes at once, and one DAG twice: tasks ask for the cache at the same moment. Airflow 2 with SQLite runs one task
# at a time, so that the sensor that pokes must wait for the others.
MODES_AT_ONCE = [("deferrable", "reschedule", "reschedule", "poke")]
if not AIRFLOW_3:
    MODES_AT_ONCE = [("deferrable", "reschedule"), ("poke",)]
POKE_INTERVAL = 10
SENSOR = "wait_for_submission"
KILLED = Path(__file__).parents[1] / "dags" / "killed.py"


def quickstart_in_mode(mode: str) -> str:
    """Return the example with nothing changed but the DAG's name and the sensor's mode."""
    text = QUICKSTART.read_text()
    for old, new in {
        "omics_quickstart()": f"quickstart_{mode}()",
        f"poke_interval={POKE_INTERVAL}": f"poke_interval={POKE_INTERVAL}, {MODES[mode]}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def running_service() -> Iterator[LocalHealthOmicsServer]:
    with serve(port=0) as server:
        yield server


@pytest.fixture(scope="module")
def airflow(
    running_service: LocalHealthOmicsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowProcesses]:
    home, dags = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("dags")
    for mode in MODES:
        (dags / f"quickstart_{mode}.py").write_text(quickstart_in_mode(mode))
    shutil.copy(KILLED, dags)
    environment = {
        "AIRFLOW_CONN_AWS_DEFAULT": running_service.airflow_connection,
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    }
    processes = AirflowProcesses if AIRFLOW_3 else Airflow2Processes
    with processes(home, dags, environment) as airflow:
        airflow.wait_for_dags(["omics_killed", *(f"quickstart_{mode}" for mode in MODES)])
        yield airflow


@pytest.fixture
def service(running_service: LocalHealthOmicsServer) -> LocalHealthOmicsServer:
    """The service that Airflow's tasks reach, as if it had just started."""
    running_service.reset()
    running_service.clock.speed = 1
    return running_service


def test_every_mode_and_a_killed_triggerer(
    airflow: AirflowProcesses, service: LocalHealthOmicsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.create_bucket("omics-quickstart")
    omics = boto3.client("omics", **service.client_kwargs)

    def all_of(operation: str, key: str = "items", **members: Any) -> list[dict[str, Any]]:
        pages = omics.get_paginator(operation).paginate(**members)
        return [item for page in pages for item in page[key]]

    # No submission ends before every sensor has waited: poked, been rescheduled or been deferred.
    monkeypatch.setattr(service.settings, "submission_rate", len(SAMPLES) / 100_000)

    runs: list[tuple[str, str]] = []
    started_at = time.monotonic()
    for modes in MODES_AT_ONCE:
        unseen = {(f"quickstart_{mode}", airflow.trigger(f"quickstart_{mode}")): WAITING_AS[mode] for mode in modes}
        runs += unseen

        def have_shown_links_while_waiting(unseen: dict[tuple[str, str], str] = unseen) -> bool:
            for run, state in list(unseen.items()):
                links = airflow.links(*run, SENSOR)
                if airflow.task(*run, SENSOR)["state"] == state and all(
                    links[name] for name in ("HealthOmics Runs", "HealthOmics Logs")
                ):
                    del unseen[run]
            return not unseen

        airflow.wait(have_shown_links_while_waiting, "links of the waiting sensors", timeout=600)

    # The deferred sensor outlives its triggerer.
    airflow.wait(
        lambda: airflow.task(*runs[0], SENSOR)["triggerer_job"], "a triggerer to have the trigger", timeout=300
    )
    airflow.replace_triggerer()
    service.clock.advance(200_000)
    assert set(airflow.wait_for_runs(runs, timeout=600).values()) == {"success"}
    assert service.calls["StartRunBatch"] == len(runs)
    assert service.calls["ListRunsInBatch"] == len(runs)
    assert service.calls["GetBatch"] <= len(runs) * ((time.monotonic() - started_at) / POKE_INTERVAL + 2)

    (cache,) = all_of("list_run_caches")
    batches = {}
    for dag_id, run_id in runs:
        assert airflow.xcom(dag_id, run_id, "ensure_run_cache") == cache["id"]
        batch_id = batches[dag_id, run_id] = airflow.xcom(dag_id, run_id, "start_batch")
        listed = all_of("list_runs_in_batch", "runs", batchId=batch_id)
        mapping = airflow.xcom(dag_id, run_id, SENSOR)
        assert mapping == {run["runSettingId"]: run["runId"] for run in listed}
        assert sorted(mapping) == SAMPLES
        assert airflow.xcom(dag_id, run_id, SENSOR, "failed_submission_count") == 0
        # No retry has hidden anything, and each sensor has waited in its own way.
        assert airflow.task(dag_id, run_id, SENSOR)["try_number"] == 1
        log = airflow.task_log(dag_id, run_id, SENSOR)
        assert ("UP_FOR_RESCHEDULE" in log) == (dag_id == "quickstart_reschedule")
        assert ("Pausing task as DEFERRED" in log) == (dag_id == "quickstart_deferrable")
    assert len(set(batches.values())) == len(runs)
    assert {batch["id"] for batch in all_of("list_batch")} == set(batches.values())

    # A cleared DAG run finds its cache and its batch, also when the service has forgotten every token.
    service.forget_tokens()
    cleared = list(dict(runs).items()) if AIRFLOW_3 else runs[:1]
    for dag_id, run_id in cleared:
        airflow.clear(dag_id, run_id)
    assert set(airflow.wait_for_runs(cleared, timeout=600).values()) == {"success"}
    assert [found["id"] for found in all_of("list_run_caches")] == [cache["id"]]
    assert {batch["id"] for batch in all_of("list_batch")} == set(batches.values())
    assert service.calls["StartRunBatch"] == len(runs)
    for dag_id, run_id in cleared:
        assert airflow.task(dag_id, run_id, SENSOR)["try_number"] == 2
        assert airflow.xcom(dag_id, run_id, "start_batch", "batch")["reattached"] is True


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 with SQLite runs one task at a time")
def test_killed_tasks(
    airflow: AirflowProcesses, service: LocalHealthOmicsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.settings, "run_running_seconds", 10_000)
    omics = boto3.client("omics", **service.client_kwargs)
    run = "omics_killed", airflow.trigger("omics_killed")
    killed = {
        "deferred_and_left": "deferred",
        "running_and_left": "running",
        "deferred_and_cancelled": "deferred",
        "running_and_cancelled": "running",
    }
    unharmed = ("deferred_to_the_end", "mapped_to_the_end/0", "mapped_to_the_end/1")
    waits = {**killed, "deferred_to_the_end": "deferred"}

    def all_wait_with_links() -> bool:
        return all(
            airflow.task(*run, task_id)["state"] == state
            and all(airflow.links(*run, task_id)[name] for name in ("HealthOmics Runs", "HealthOmics Logs"))
            for task_id, state in waits.items()
        )

    airflow.wait(all_wait_with_links, "tasks that wait, with links", timeout=600)
    batches = {task_id: airflow.xcom(*run, task_id, "batch")["id"] for task_id in killed}

    def statuses() -> dict[str, str]:
        return {task_id: omics.get_batch(batchId=batch_id)["status"] for task_id, batch_id in batches.items()}

    airflow.wait(lambda: set(statuses().values()) == {"INPROGRESS"}, "batches that are in progress", timeout=600)
    for task_id in killed:
        airflow.mark(*run, task_id, "failed")
    # Airflow before 3.3 does not report to a trigger that its task was marked.
    cancelled = ["running_and_cancelled", *(["deferred_and_cancelled"] if hasattr(BaseTrigger, "on_kill") else [])]
    expected = {task_id: "CANCELLED" if task_id in cancelled else "INPROGRESS" for task_id in killed}
    airflow.wait(lambda: statuses() == expected, f"the batches of {cancelled} to be cancelled", timeout=600)

    service.clock.advance(20_000)
    assert set(airflow.wait_for_runs([run], timeout=600).values()) == {"failed"}
    assert {airflow.task(*run, task_id)["state"] for task_id in killed} == {"failed"}
    assert {airflow.task(*run, task_id)["state"] for task_id in unharmed} == {"success"}
    assert airflow.xcom(*run, "deferred_to_the_end", "run_counts")["completed"] == 2
    assert service.calls["CancelRunBatch"] == len(cancelled)
    assert service.calls["StartRunBatch"] == len(killed) + len(unharmed)
