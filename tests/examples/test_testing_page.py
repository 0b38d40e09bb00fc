"""The test of the page on testing, in a folder as the page describes it."""

import shutil
from pathlib import Path

import pytest

# isort: split
# [START dag]
import boto3

from airflow_provider_omics_cache.tables import read_table

DAG_FILE = "dags/cohort.py"


def test_one_failed_run_of_300_is_tolerated(local_healthomics, local_healthomics_dag_run):
    samples = [f"HG{number:03}" for number in range(300)]
    sheet = "\n".join(["sample,fastq_1,fastq_2", *(f"{sample},s3://reads/{sample}.fq.gz," for sample in samples)])
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="omics-quickstart")
    s3.put_object(Bucket="omics-quickstart", Key="samplesheet.csv", Body=sheet.encode())
    local_healthomics.register_workflow("1234567")
    local_healthomics.faults.fail_run("HG007", reason="OUT_OF_MEMORY_ERROR")

    run = local_healthomics_dag_run(DAG_FILE).run()

    assert run.state == "success"
    assert run.states["wait_for_completion"] == "success"
    assert len(run.xcom("wait_for_submission", "failed_submissions")) == 0
    assert local_healthomics.calls["StartRunBatch"] == 1
    results = list(read_table(run.xcom("join_outputs")))
    assert [result["sample"] for result in results] == samples
    assert [result["sample"] for result in results if result["status"] != "COMPLETED"] == ["HG007"]
    assert all(result["output_uri"].startswith("s3://omics-quickstart/runs/") for result in results)
    # [END dag]


@pytest.fixture(autouse=True)
def _dags_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the DAG where the page says."""
    (tmp_path / "dags").mkdir()
    shutil.copy(Path(__file__).parents[2] / "example_dags" / "cohort.py", tmp_path / "dags")
    monkeypatch.chdir(tmp_path)
