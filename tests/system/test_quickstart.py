"""The quickstart DAG on a real Airflow, in every mode of the sensor, with the service behind HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from airflow_processes import AirflowProcesses
from quickstart import SAMPLES

from airflow_provider_omics_cache.local import LocalHealthOmicsServer
from tests.conftest import needs_aiobotocore, needs_batches

pytestmark = [pytest.mark.system, needs_batches, needs_aiobotocore]

QUICKSTART = Path(__file__).parents[2] / "example_dags" / "quickstart.py"
MODES = {
    "poke": 'mode="poke", deferrable=False',
    "reschedule": 'mode="reschedule", deferrable=False',
    "deferrable": "deferrable=True",
}
SENSOR = "wait_for_submission"


def quickstart_in_mode(mode: str) -> str:
    """Return the example with nothing changed but the DAG's name and the sensor's mode."""
    text = QUICKSTART.read_text()
    for old, new in {
        "omics_quickstart()": f"quickstart_{mode}()",
        "poke_interval=10": f"poke_interval=10, {MODES[mode]}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture
def airflow(local_healthomics_server: LocalHealthOmicsServer, tmp_path: Path) -> Iterator[AirflowProcesses]:
    home, dags = tmp_path / "home", tmp_path / "dags"
    home.mkdir()
    dags.mkdir()
    for mode in MODES:
        (dags / f"quickstart_{mode}.py").write_text(quickstart_in_mode(mode))
    local_healthomics_server.create_bucket("omics-quickstart")
    connection = local_healthomics_server.airflow_connection
    with AirflowProcesses(home, dags, {"AIRFLOW_CONN_AWS_DEFAULT": connection}) as airflow:
        airflow.wait_for_dags(f"quickstart_{mode}" for mode in MODES)
        yield airflow


def test_every_mode_on_real_airflow(
    airflow: AirflowProcesses, local_healthomics_server: LocalHealthOmicsServer
) -> None:
    service = local_healthomics_server
    omics = boto3.client("omics", **service.client_kwargs)

    def all_of(operation: str, key: str = "items", **members: Any) -> list[dict[str, Any]]:
        pages = omics.get_paginator(operation).paginate(**members)
        return [item for page in pages for item in page[key]]

    # Submission takes 25 s, so that each sensor really waits: it pokes, is rescheduled or is deferred.
    service.settings.submission_rate = len(SAMPLES) / 25
    service.clock.speed = 1

    # All modes at once, and one DAG twice: whoever asks for the cache asks at the same moment.
    runs = [(f"quickstart_{mode}", airflow.trigger(f"quickstart_{mode}")) for mode in MODES]
    runs.append(("quickstart_reschedule", airflow.trigger("quickstart_reschedule")))
    waiting_as = {"quickstart_poke": "running", "quickstart_reschedule": "up_for_reschedule"}
    unseen = set(runs)

    def have_shown_links_while_waiting() -> bool:
        for dag_id, run_id in list(unseen):
            links = airflow.links(dag_id, run_id, SENSOR)
            if airflow.task(dag_id, run_id, SENSOR)["state"] == waiting_as.get(dag_id, "deferred") and all(
                links[name] for name in ("HealthOmics Runs", "HealthOmics Logs")
            ):
                unseen.remove((dag_id, run_id))
        return not unseen

    airflow.wait(have_shown_links_while_waiting, "links of the waiting sensors", timeout=120)
    assert set(airflow.wait_for_runs(runs, timeout=240).values()) == {"success"}
    assert service.calls["StartRunBatch"] == len(runs)
    assert service.calls["ListRunsInBatch"] == len(runs)
    assert service.calls["GetBatch"] <= len(runs) * 7

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
    for dag_id, run_id in runs[:3]:
        airflow.clear(dag_id, run_id)
    assert set(airflow.wait_for_runs(runs, timeout=120).values()) == {"success"}
    assert [found["id"] for found in all_of("list_run_caches")] == [cache["id"]]
    assert {batch["id"] for batch in all_of("list_batch")} == set(batches.values())
    assert service.calls["StartRunBatch"] == len(runs)
    for dag_id, run_id in runs[:3]:
        assert airflow.task(dag_id, run_id, SENSOR)["try_number"] == 2
        assert airflow.xcom(dag_id, run_id, "start_batch", "batch")["reattached"] is True
