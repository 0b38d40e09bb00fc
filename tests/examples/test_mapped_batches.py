"""Three batches with mapped tasks, as the documentation shows them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest

from tests.examples.cohorts import all_of, states_of

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

DAGS = Path(__file__).parents[1] / "dags"
SAMPLES = {"lung": 2, "liver": 101, "skin": 1}


def test_each_samplesheet_has_its_batch(local_healthomics: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(DAGS))
    monkeypatch.syspath_prepend(DAGS)
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="omics-mapped")
    for tissue, number in SAMPLES.items():
        sheet = "\n".join(["sample", *(f"{tissue}-{n}" for n in range(number))])
        s3.put_object(Bucket="omics-mapped", Key=f"{tissue}.csv", Body=sheet.encode())
    local_healthomics.register_workflow("1234567")
    local_healthomics.clock.tick = 300

    dag_run = import_module("mapped_batches").omics_mapped_batches().test()

    assert dag_run.state == "success"
    assert states_of(dag_run)["start_batch"] == ["success"] * 3
    assert dag_run.get_task_instance("count_runs").xcom_pull("count_runs") == list(SAMPLES.values())
    assert local_healthomics.calls["StartRunBatch"] == 3
    runs = {
        run["runSettingId"]
        for batch in all_of("list_batch")
        for run in all_of("list_runs_in_batch", "runs", batchId=batch["id"])
    }
    assert runs == {f"{tissue}-{n}" for tissue, number in SAMPLES.items() for n in range(number)}
