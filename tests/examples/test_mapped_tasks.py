"""What a task that is expanded over the sensor's mapping gets, in Airflow's own hands."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

DAGS = Path(__file__).parents[1] / "dags"


@pytest.fixture
def mapped(local_healthomics: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module with the DAGs, in Airflow's DAGs folder."""
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(DAGS))
    monkeypatch.syspath_prepend(DAGS)
    boto3.client("s3").create_bucket(Bucket="omics-mapped")
    local_healthomics.clock.tick = 300
    return import_module("mapped")


def states_of(dag_run: Any) -> dict[tuple[str, int], str]:
    return {(ti.task_id, ti.map_index): str(ti.state) for ti in dag_run.get_task_instances()}


def test_expanding_over_the_mapping_gives_pairs(mapped: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert mapped.omics_run_by_run().test(run_conf={"runs": 3}).state == "success"
    (batch,) = boto3.client("omics").list_batch()["items"]
    runs = boto3.client("omics").list_runs_in_batch(batchId=batch["id"])["runs"]
    printed = dict(re.findall(r"run (sample-\d+)=(\d+)", capfd.readouterr().out))
    assert printed == {run["runSettingId"]: run["runId"] for run in runs}


def test_more_pairs_than_airflow_maps_fail_the_sensor(mapped: Any, capfd: pytest.CaptureFixture[str]) -> None:
    dag_run = mapped.omics_run_by_run().test(run_conf={"runs": 1_025})
    assert dag_run.state == "failed"
    assert states_of(dag_run)["wait_for_submission", -1] == "failed"
    assert len(boto3.client("omics").list_batch()["items"]) == 1


def test_groups_work_for_any_number_of_runs(mapped: Any, capfd: pytest.CaptureFixture[str]) -> None:
    dag_run = mapped.omics_in_groups().test(run_conf={"runs": 2_000})
    assert dag_run.state == "success"
    assert re.findall(r"group of (\d+)", capfd.readouterr().out) == ["500"] * 4
