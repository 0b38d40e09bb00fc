"""The DAG of the page about samplesheets that runs an nf-core pipeline."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from airflow_provider_omics_cache.tables import read_table
from tests.conftest import AIRFLOW_3
from tests.examples.cohorts import all_of

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags

DAG_FILE = Path(__file__).parents[1] / "dags" / "nf_core.py"
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
SHEET = """sample,fastq_1,fastq_2,strandedness
LIVER,s3://reads/l1_1.fq.gz,,auto
LUNG,s3://reads/u1_1.fq.gz,,auto
LIVER,s3://reads/l2_1.fq.gz,,auto
"""


def test_an_nf_core_pipeline_runs_for_each_sample(
    local_healthomics: LocalHealthOmics, local_healthomics_dag_run: LocalDags, tmp_path: Path
) -> None:
    text = DAG_FILE.read_text()
    code = [line for line in re.split(r"# \[(?:START|END) nf_core\]\n", text)[1].splitlines() if line.strip()]
    assert len(code) < 30
    if not AIRFLOW_3:
        text = re.sub(r"^from airflow\.sdk .*# Airflow 2: (.+)$", r"\1", text, flags=re.MULTILINE)
    path = tmp_path / "nf_core.py"
    path.write_text(text)
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="rnaseq/assets/schema_input.json", Body=json.dumps(SCHEMA))
    s3.put_object(Bucket=BUCKET, Key="samplesheet.csv", Body=SHEET.replace("LUNG", "LU NG"))
    template = {"input": {}, "genome": {}, "outdir": {}}
    local_healthomics.register_workflow("1234567", parameter_template=template)
    dag = local_healthomics_dag_run(path)

    refused = dag.run()
    rule = "row 2 (line 3), column 'sample' must match the pattern '^\\\\S+$': A sample has no spaces"
    assert rule in str(refused.errors["save_samples"])
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 2

    s3.put_object(Bucket=BUCKET, Key="samplesheet.csv", Body=SHEET)
    finished = dag.run()
    assert finished.state == "success"
    settings = list(read_table(finished.xcom("save_samples")))
    assert [setting["runSettingId"] for setting in settings] == ["LIVER", "LUNG"]
    liver = read_table(settings[0]["parameters"]["input"])
    assert [row["fastq_1"] for row in liver] == ["s3://reads/l1_1.fq.gz", "s3://reads/l2_1.fq.gz"]
    assert len(all_of("list_runs")) == 2
