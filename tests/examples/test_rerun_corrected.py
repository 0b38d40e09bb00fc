"""Only the samples that failed run again, with the rows of the corrected samplesheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from airflow_provider_omics_cache.tables import read_table
from tests.examples.cohorts import BUCKET, all_of, put_samplesheet

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags

COHORT = Path(__file__).parents[2] / "example_dags" / "cohort.py"
RERUN = Path(__file__).parents[1] / "dags" / "rerun_corrected.py"


def test_only_the_failed_samples_run_again_with_their_corrected_rows(
    local_healthomics: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    samples = [f"HG{number:03}" for number in range(60)]
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    put_samplesheet(samples)
    local_healthomics.register_workflow("1234567")
    local_healthomics.faults.fail_submission("HG002")
    local_healthomics.faults.fail_run("HG003")
    first = local_healthomics_dag_run(COHORT).run()
    assert first.state == "success"
    local_healthomics.faults.clear()
    sheet = s3.get_object(Bucket=BUCKET, Key="samplesheet.csv")["Body"].read().decode()
    corrected = sheet.replace("HG002_1.fq", "HG002_1.corrected.fq").replace("HG003_1.fq", "HG003_1.corrected.fq")
    s3.put_object(Bucket=BUCKET, Key="samplesheet.csv", Body=corrected.encode())

    conf = {
        "failed_results": first.xcom("wait_for_submission").removesuffix("/mapping.jsonl"),
        "samplesheet": f"s3://{BUCKET}/samplesheet.csv",
        "s3_uri": f"s3://{BUCKET}",
    }
    second = local_healthomics_dag_run(RERUN).run(conf)

    assert second.state == "success"
    settings = {setting["runSettingId"]: setting["parameters"] for setting in read_table(second.xcom("save_corrected"))}
    assert {sample: found["reads_1"] for sample, found in settings.items()} == {
        sample: f"s3://{BUCKET}/{sample}_1.corrected.fq" for sample in ("HG002", "HG003")
    }
    before = {setting["runSettingId"]: setting["parameters"] for setting in read_table(first.xcom("save_settings"))}
    assert all(settings[sample].keys() == before[sample].keys() for sample in settings)
    assert len(all_of("list_runs")) == 59 + 2
    assert second.xcom("ensure_run_cache") == first.xcom("ensure_run_cache")
