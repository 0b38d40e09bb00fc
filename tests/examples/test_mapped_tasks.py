"""Mapped tasks and mapped task groups around a batch, in Airflow's own hands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags

MAPPED = Path(__file__).parents[1] / "dags" / "mapped.py"
RESUBMISSION = MAPPED.with_name("mapped_resubmission.py")


@pytest.fixture(autouse=True)
def _service(local_healthomics: LocalHealthOmics) -> None:
    boto3.client("s3").create_bucket(Bucket="omics-mapped")
    local_healthomics.register_workflow("1234567")


def test_expanding_over_the_mapping_gives_pairs(
    local_healthomics_dag_run: LocalDags, capfd: pytest.CaptureFixture[str]
) -> None:
    assert local_healthomics_dag_run(MAPPED, "omics_run_by_run").run({"runs": 3}).state == "success"
    (batch,) = boto3.client("omics").list_batch()["items"]
    runs = boto3.client("omics").list_runs_in_batch(batchId=batch["id"])["runs"]
    printed = dict(re.findall(r"run (sample-\d+)=(\d+)", capfd.readouterr().out))
    assert printed == {run["runSettingId"]: run["runId"] for run in runs}


def test_more_pairs_than_airflow_maps_fail_the_sensor(local_healthomics_dag_run: LocalDags) -> None:
    run = local_healthomics_dag_run(MAPPED, "omics_run_by_run").run({"runs": 1_025})
    assert run.state == "failed"
    assert run.states["wait_for_submission"] == "failed"
    assert len(boto3.client("omics").list_batch()["items"]) == 1


def test_groups_work_for_any_number_of_runs(
    local_healthomics_dag_run: LocalDags, capfd: pytest.CaptureFixture[str]
) -> None:
    assert local_healthomics_dag_run(MAPPED, "omics_in_groups").run({"runs": 2_000}).state == "success"
    assert re.findall(r"group of (\d+)", capfd.readouterr().out) == ["500"] * 4


def test_in_a_mapped_task_group_only_what_failed_is_submitted_again(
    local_healthomics: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    local_healthomics.faults.fail_submission("A-1", times=1)
    run = local_healthomics_dag_run(RESUBMISSION).run()
    assert run.state == "success"
    second = ("find_failed", "start_second", "wait_for_second")
    assert [run.states[f"submit.{task_id}[0]"] for task_id in second] == ["success"] * 3
    assert [run.states[f"submit.{task_id}[1]"] for task_id in second] == ["skipped"] * 3
    assert local_healthomics.calls["StartRunBatch"] == 3
    assert len(boto3.client("omics").list_runs()["items"]) == 4
