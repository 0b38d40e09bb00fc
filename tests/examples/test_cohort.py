from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
from cohort import omics_cohort

from tests.examples.cohorts import BUCKET, all_of, put_samplesheet, read_json_lines, states_of

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics


def test_joins_the_outputs_of_two_thousand_samples(cohort_service: LocalHealthOmics) -> None:
    samples = [f"HG{number:04}" for number in range(2_000)]
    put_samplesheet(samples)
    cohort_service.faults.fail_run("HG0007")

    assert omics_cohort().test().state == "success"

    assert cohort_service.calls["StartRunBatch"] == 1
    (batch,) = all_of("list_batch")
    (cache,) = all_of("list_run_caches")
    run_ids = {run["runSettingId"]: run["runId"] for run in all_of("list_runs_in_batch", "runs", batchId=batch["id"])}
    results = read_json_lines("samples.jsonl")
    assert [result["sample"] for result in results] == samples
    assert {result["sample"]: result["run_id"] for result in results} == run_ids
    assert [result["sample"] for result in results if result["status"] != "COMPLETED"] == ["HG0007"]
    assert results[0]["fastq_1"] == f"s3://{BUCKET}/HG0000_1.fq"
    for result in (results[0], results[-1]):
        run = boto3.client("omics").get_run(id=result["run_id"])
        assert result["output_uri"] == run["runOutputUri"]
        assert run["cacheId"] == cache["id"]


def test_the_second_read_is_left_out_where_there_is_none(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet(["HG001", "HG002"])
    assert omics_cohort().test().state == "success"
    parameters = [boto3.client("omics").get_run(id=run["id"])["parameters"] for run in all_of("list_runs")]
    assert parameters == [
        {"sample": "HG001", "fastq_1": f"s3://{BUCKET}/HG001_1.fq"},
        {"sample": "HG002", "fastq_1": f"s3://{BUCKET}/HG002_1.fq", "fastq_2": f"s3://{BUCKET}/HG002_2.fq"},
    ]


def test_a_bad_samplesheet_starts_nothing(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet(["HG001", "HG001"])
    dag_run = omics_cohort().test()
    assert dag_run.state == "failed"
    assert states_of(dag_run)["read_samplesheet"] == ["failed"]
    assert cohort_service.calls["StartRunBatch"] == 0
