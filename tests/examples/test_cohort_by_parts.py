from __future__ import annotations

import json
from typing import TYPE_CHECKING

import boto3
import pytest
from cohort_by_parts import omics_cohort_by_parts

from tests.examples.cohorts import (
    BUCKET,
    all_of,
    longest_line,
    put_samplesheet,
    read_json_lines,
    run_once_more,
    states_of,
)

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics


@pytest.mark.large
def test_joins_the_outputs_of_two_thousand_samples(
    cohort_service: LocalHealthOmics, capfd: pytest.CaptureFixture[str]
) -> None:
    samples = [f"HG{number:04}" for number in range(2_000)]
    put_samplesheet(samples)
    cohort_service.faults.fail_run("HG0007")
    cohort_service.faults.fail_submission("HG0008")

    dag_run = omics_cohort_by_parts().test()
    assert dag_run.state == "success"

    assert longest_line(capfd.readouterr()) < 5_000
    assert dag_run.get_task_instance("save_settings").xcom_pull("save_settings").endswith("/settings.json")
    assert cohort_service.calls["StartRunBatch"] == 1
    (batch,) = all_of("list_batch")
    (cache,) = all_of("list_run_caches")
    listed = all_of("list_runs_in_batch", "runs", batchId=batch["id"])
    run_ids = {run["runSettingId"]: run["runId"] for run in listed if run.get("runId")}
    results = read_json_lines("samples.jsonl")
    assert [result["sample_name"] for result in results] == samples
    assert {result["sample_name"]: result["run_id"] for result in results} == {"HG0008": None, **run_ids}
    failed = {result["sample_name"]: result["status"] for result in results if result["status"] != "COMPLETED"}
    assert failed == {"HG0007": "FAILED", "HG0008": "NOT_SUBMITTED"}
    assert results[0]["reads_1"] == f"s3://{BUCKET}/HG0000_1.fq"
    for result in (results[0], results[-1]):
        run = boto3.client("omics").get_run(id=result["run_id"])
        assert result["output_uri"] == run["runOutputUri"]
        assert run["cacheId"] == cache["id"]


def test_the_second_read_is_left_out_where_there_is_none(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet(["HG001", "HG002"])
    assert omics_cohort_by_parts().test().state == "success"
    parameters = [boto3.client("omics").get_run(id=run["id"])["parameters"] for run in all_of("list_runs")]
    assert parameters == [
        {"sample_name": "HG001", "reads_1": f"s3://{BUCKET}/HG001_1.fq"},
        {"sample_name": "HG002", "reads_1": f"s3://{BUCKET}/HG002_1.fq", "reads_2": f"s3://{BUCKET}/HG002_2.fq"},
    ]


def test_a_triggered_dag_run_takes_its_params(cohort_service: LocalHealthOmics) -> None:
    rows = [{"sample": number, "fastq_1": f"s3://{BUCKET}/{number}.fq", "fastq_2": None} for number in range(2)]
    boto3.client("s3").put_object(Bucket=BUCKET, Key="samplesheet.json", Body=json.dumps(rows).encode())
    cohort_service.register_workflow("7654321")
    cohort_service.faults.fail_run("1")
    params = {
        "samplesheet": f"s3://{BUCKET}/samplesheet.json",
        "workflow_id": "7654321",
        "role_arn": "arn:aws:iam::123456789012:role/other",
        "s3_uri": f"s3://{BUCKET}/other",
        "max_failed": "1",
    }
    assert omics_cohort_by_parts().test(run_conf=params).state == "success"
    assert [(result["sample_name"], result["status"]) for result in read_json_lines("samples.jsonl")] == [
        (0, "COMPLETED"),
        (1, "FAILED"),
    ]
    run = boto3.client("omics").get_run(id=all_of("list_runs")[0]["id"])
    assert (run["workflowId"], run["roleArn"], run["outputUri"]) == (
        params["workflow_id"],
        params["role_arn"],
        f"{params['s3_uri']}/runs/",
    )


def test_a_cleared_dag_run_finds_its_batch_although_the_sheet_has_changed(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet(["HG001", "HG002"])
    assert run_once_more(omics_cohort_by_parts()).state == "success"
    put_samplesheet(["HG001", "HG002", "HG003"])
    cohort_service.forget_tokens()
    assert run_once_more(omics_cohort_by_parts()).state == "success"
    assert cohort_service.calls["StartRunBatch"] == 1
    assert [result["sample_name"] for result in read_json_lines("samples.jsonl")] == ["HG001", "HG002"]


def test_a_variable_for_the_dag_run_starts_another_batch(
    cohort_service: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_samplesheet(["HG001", "HG002"])
    run_id = run_once_more(omics_cohort_by_parts()).run_id
    put_samplesheet(["HG001", "HG002", "HG003"])
    assert {":", "+"} < set(run_id)
    variable = f"omics_rerun_key_omics_cohort_by_parts_{run_id}".replace(":", "-").replace("+", "-")
    monkeypatch.setenv(f"AIRFLOW_VAR_{variable.upper()}", "2")
    assert run_once_more(omics_cohort_by_parts()).state == "success"
    assert cohort_service.calls["StartRunBatch"] == 2
    assert len(all_of("list_runs")) == 5


def test_a_bad_samplesheet_starts_nothing(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet(["HG001", "HG001"])
    dag_run = omics_cohort_by_parts().test()
    assert dag_run.state == "failed"
    assert states_of(dag_run)["save_settings"] == ["failed"]
    assert cohort_service.calls["StartRunBatch"] == 0
