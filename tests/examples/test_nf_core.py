"""The DAGs of the documentation that run an nf-core pipeline."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from airflow_provider_omics_cache.tables import read_table
from tests.conftest import AIRFLOW_3
from tests.examples.cohorts import all_of, put_role_of_runs

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags

DAGS = Path(__file__).parents[1] / "dags"
DOCS = Path(__file__).parents[2] / "docs"
BUCKET = "my-bucket"
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"sample": {"type": "string", "pattern": r"^\S+$", "errorMessage": "A sample has no spaces"}},
        "required": ["sample", "fastq_1"],
    },
}
RULE = "row 2 (line 3), column 'sample' must match the pattern '^\\\\S+$': A sample has no spaces"
SHEET = """sample,fastq_1,fastq_2,strandedness
LIVER,s3://reads/l1_1.fq.gz,,auto
LUNG,s3://reads/u1_1.fq.gz,,auto
LIVER,s3://reads/l2_1.fq.gz,,auto
"""


def put_dag_file(name: str, folder: Path) -> Path:
    """Copy a DAG file of fewer than 30 lines, as it is in this version of Airflow."""
    text = (DAGS / f"{name}.py").read_text()
    code = [line for line in re.split(rf"# \[(?:START|END) {name}\]\n", text)[1].splitlines() if line.strip()]
    assert len(code) < 30
    if not AIRFLOW_3:
        text = re.sub(r"^from airflow\.sdk .*# Airflow 2: (.+)$", r"\1", text, flags=re.MULTILINE)
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


@pytest.fixture
def bucket(local_healthomics: LocalHealthOmics) -> Any:
    """S3 with a schema and a samplesheet that breaks it, and the workflow."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="rnaseq/assets/schema_input.json", Body=json.dumps(SCHEMA))
    s3.put_object(Bucket=BUCKET, Key="samplesheet.csv", Body=SHEET.replace("LUNG", "LU NG"))
    template = {"input": {}, "genome": {}, "outdir": {}}
    local_healthomics.register_workflow("1234567", parameter_template=template)
    return s3


def check_settings(uri: str) -> None:
    """Check that the settings have a run for each sample, with a samplesheet of its own."""
    settings = list(read_table(uri))
    assert [setting["runSettingId"] for setting in settings] == ["LIVER", "LUNG"]
    liver = read_table(settings[0]["parameters"]["input"])
    assert [row["fastq_1"] for row in liver] == ["s3://reads/l1_1.fq.gz", "s3://reads/l2_1.fq.gz"]


def test_an_nf_core_pipeline_runs_for_each_sample(
    bucket: Any, local_healthomics_dag_run: LocalDags, tmp_path: Path
) -> None:
    dag = local_healthomics_dag_run(put_dag_file("nf_core", tmp_path))
    refused = dag.run()
    assert RULE in str(refused.errors["save_samples"])
    assert bucket.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 2

    bucket.put_object(Bucket=BUCKET, Key="samplesheet.csv", Body=SHEET)
    finished = dag.run()
    assert finished.state == "success"
    check_settings(finished.xcom("save_samples"))
    assert len(all_of("list_runs")) == 2


def test_an_nf_core_pipeline_runs_as_a_cohort(
    bucket: Any, local_healthomics: LocalHealthOmics, local_healthomics_dag_run: LocalDags, tmp_path: Path
) -> None:
    put_role_of_runs()
    dag = local_healthomics_dag_run(put_dag_file("nf_core_cohort", tmp_path))
    refused = dag.run()
    assert RULE in str(refused.errors["cohort.freeze_settings"])
    assert bucket.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 2

    bucket.put_object(Bucket=BUCKET, Key="samplesheet.csv", Body=SHEET)
    local_healthomics.faults.fail_task("Report", run_name="LUNG", reason="SERVICE_ERROR")
    finished = dag.run()
    assert finished.errors == {}
    assert finished.state == "success"
    results = finished.xcom("cohort.results")
    check_settings(results.replace("results.jsonl", "round_1_settings.json"))
    assert [(record["status"], record["round"], record["cache_hits"]) for record in read_table(results)] == [
        ("COMPLETED", 1, 0),
        ("COMPLETED", 2, 2),
    ]
    assert len(all_of("list_runs")) == 3
    readme = (DOCS / "iam.rst").read_text().partition(".. _iam-readme:")[2].partition("The service role")[0]
    page = (DOCS / "task_groups" / "cohort.rst").read_text()
    assert [call for call in local_healthomics.calls if f'"omics:{call}"' not in readme] == []
    assert [call for call in local_healthomics.calls if f'"omics:{call}"' not in page] == []
