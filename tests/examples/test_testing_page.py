"""The tests of the page on testing, in a folder as the page describes it."""

import shutil
from pathlib import Path

# isort: split
# [START dag]
import boto3
import pytest

from airflow_provider_omics_cache.exceptions import TooManyFailedRunsError
from airflow_provider_omics_cache.tables import read_table

DAG_FILE = "dags/cohort.py"
SAMPLES = [f"HG{number:03}" for number in range(300)]


@pytest.fixture
def cohort(local_healthomics, local_healthomics_dag_run):
    """The DAG, with one run that fails and one sample whose submission fails."""
    sheet = "\n".join(["sample,fastq_1,fastq_2", *(f"{sample},s3://reads/{sample}.fq.gz," for sample in SAMPLES)])
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="omics-quickstart")
    s3.put_object(Bucket="omics-quickstart", Key="samplesheet.csv", Body=sheet.encode())
    local_healthomics.register_workflow("1234567")
    local_healthomics.faults.fail_run("HG007", reason="OUT_OF_MEMORY_ERROR")
    local_healthomics.faults.fail_submission("HG008", reason="AccessDeniedException")
    return local_healthomics_dag_run(DAG_FILE)


def test_two_failed_samples_of_300_are_tolerated(cohort, local_healthomics):
    run = cohort.run()

    assert run.state == "success"
    assert set(run.states.values()) == {"success"}
    assert local_healthomics.calls["StartRunBatch"] == 1
    results = list(read_table(run.xcom("join_outputs")))
    assert [result["sample_name"] for result in results] == SAMPLES
    failed = {result["sample_name"]: result["status"] for result in results if result["status"] != "COMPLETED"}
    assert failed == {"HG007": "FAILED", "HG008": "NOT_SUBMITTED"}
    assert all(result["output_uri"].startswith("s3://omics-quickstart/runs/") for result in results if result["run_id"])


def test_two_failed_samples_are_too_many_if_one_is_allowed(cohort):
    run = cohort.run({"max_failed": "1"})

    assert run.state == "failed"
    assert run.states["wait_for_submission"] == "success"  # counts only HG008
    assert run.states["wait_for_completion"] == "failed"  # counts both
    assert run.states["join_outputs"] == "upstream_failed"
    assert isinstance(run.errors["wait_for_completion"], TooManyFailedRunsError)
    assert "OUT_OF_MEMORY_ERROR" in str(run.errors["wait_for_completion"])
    assert run.xcom("wait_for_completion", "failed_run_count") == 2
    failed = run.xcom("wait_for_completion", "failed_runs")
    assert {entry["run_setting_id"]: entry["failure_reason"] for entry in failed} == {
        "HG007": "OUT_OF_MEMORY_ERROR",
        "HG008": "AccessDeniedException",
    }
    assert run.xcom("join_outputs") is None
    records = read_table(f"s3://omics-quickstart/cohort/{run.run_id}/1/runs.jsonl")
    assert [record["run_setting_id"] for record in records] == SAMPLES
    # [END dag]


@pytest.fixture(autouse=True)
def _dags_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the DAG where the page says."""
    (tmp_path / "dags").mkdir()
    shutil.copy(Path(__file__).parents[2] / "example_dags" / "cohort_by_parts.py", tmp_path / DAG_FILE)
    monkeypatch.chdir(tmp_path)
