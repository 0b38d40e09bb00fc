"""The samples that are not completed run again, with the rows of the corrected samplesheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3

from airflow_provider_omics_cache.tables import read_table
from tests.examples.cohorts import BUCKET, all_of, put_samplesheet

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags

COHORT = Path(__file__).parents[2] / "example_dags" / "cohort_by_parts.py"
RERUN = Path(__file__).parents[1] / "dags" / "rerun_corrected.py"


#: Parameters of the workflow of omics_cohort_by_parts.
TEMPLATE: dict[str, dict[str, Any]] = {"sample_name": {}, "reads_1": {}, "reads_2": {"optional": True}}
#: Ends that are put into the results of the first DAG run.
OTHER_ENDS = {"HG010": "CANCELLED", "HG011": "DELETED", "HG012": "UNKNOWN"}


def change_statuses(uri: str) -> None:
    """Replace the statuses of some runs in the table that the completion sensor has written."""
    records = [{**run, "status": OTHER_ENDS.get(run["run_setting_id"], run["status"])} for run in read_table(uri)]
    body = "\n".join(map(json.dumps, records)).encode()
    boto3.client("s3").put_object(Bucket=BUCKET, Key=uri.removeprefix(f"s3://{BUCKET}/"), Body=body)


def test_what_is_not_completed_runs_again_with_its_corrected_row(
    local_healthomics: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    samples = [f"HG{number:03}" for number in range(60)]
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    put_samplesheet(samples)
    local_healthomics.register_workflow("1234567", parameter_template=TEMPLATE)
    local_healthomics.faults.fail_submission("HG002")
    local_healthomics.faults.fail_run("HG003")
    first = local_healthomics_dag_run(COHORT).run()
    assert first.state == "success"
    local_healthomics.faults.clear()
    sheet = s3.get_object(Bucket=BUCKET, Key="samplesheet.csv")["Body"].read().decode()
    corrected = sheet.replace("HG002_1.fq", "HG002_1.corrected.fq").replace("HG003_1.fq", "HG003_1.corrected.fq")
    corrected = corrected.replace("HG002,", "HG-2,").replace("HG011,", "HG-11,")
    s3.put_object(Bucket=BUCKET, Key="samplesheet.csv", Body=corrected.encode())
    results = first.xcom("wait_for_submission").removesuffix("/mapping.jsonl")
    change_statuses(f"{results}/runs.jsonl")

    conf = {
        "failed_results": results,
        "samplesheet": f"s3://{BUCKET}/samplesheet.csv",
        "s3_uri": f"s3://{BUCKET}",
    }
    renamed = local_healthomics_dag_run(RERUN).run(conf)
    assert str(renamed.errors["save_corrected"]).startswith("The samplesheet lacks 2 samples: HG002, HG011. ")
    assert len(all_of("list_runs")) == 59

    s3.put_object(Bucket=BUCKET, Key="samplesheet.csv", Body=corrected.replace("HG-2,", "HG002,").encode())
    second = local_healthomics_dag_run(RERUN).run({**conf, "leave_out": ["HG011"]})

    assert second.state == "success"
    settings = {setting["runSettingId"]: setting["parameters"] for setting in read_table(second.xcom("save_corrected"))}
    assert {sample: found["reads_1"] for sample, found in settings.items()} == {
        "HG002": f"s3://{BUCKET}/HG002_1.corrected.fq",
        "HG003": f"s3://{BUCKET}/HG003_1.corrected.fq",
        "HG010": f"s3://{BUCKET}/HG010_1.fq",
        "HG012": f"s3://{BUCKET}/HG012_1.fq",
    }
    before = {setting["runSettingId"]: setting["parameters"] for setting in read_table(first.xcom("save_settings"))}
    assert all(settings[sample].keys() == before[sample].keys() for sample in settings)
    assert len(all_of("list_runs")) == 59 + 4
    assert second.xcom("ensure_run_cache") == first.xcom("ensure_run_cache")
