"""Runs that failed for a reason of AWS continue in a second batch, from the run cache."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from airflow_provider_omics_cache.healthomics.cohort import Cohort, CohortResult
from airflow_provider_omics_cache.tables import read_table
from tests.examples.cohorts import BUCKET, all_of, read_json_lines

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags

DAG = Path(__file__).parents[1] / "dags" / "resume_failed.py"


def test_runs_that_failed_for_a_reason_of_aws_are_resumed(
    local_healthomics: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    local_healthomics.register_workflow("1234567", tasks=[{"name": name} for name in ("qc", "align", "call")])
    faults = local_healthomics.faults
    faults.fail_task("call", run_name="HG002", reason="SERVICE_ERROR")
    faults.fail_task("call", run_name="HG003", reason="RUN_TASK_FAILED")

    dag_run = local_healthomics_dag_run(DAG).run()

    assert dag_run.state == "success"
    assert [setting["runSettingId"] for setting in read_table(dag_run.xcom("save_resumable"))] == ["HG002"]
    assert len(all_of("list_runs")) == 4 + 1
    cohort = Cohort(["HG001", "HG002", "HG003", "HG004"])
    for name, ids in {"first": ["HG001", "HG002", "HG003", "HG004"], "second": ["HG002"]}.items():
        runs = read_json_lines(f"{name}_runs.jsonl")
        hits = {
            run["run_setting_id"]: sum(task["cacheHit"] for task in all_of("list_run_tasks", id=run["run_id"]))
            for run in runs
        }
        file = io.BytesIO("\n".join(map(json.dumps, runs)).encode())
        cohort.add_round(dag_run.xcom(f"start_{name}_batch"), ids, file, cache_hits=hits)
    result = CohortResult(cohort.batch_ids)
    records = {record["run_setting_id"]: record for record in result.count(cohort.records())}
    assert {name: (record["status"], record["round"]) for name, record in records.items()} == {
        "HG001": ("COMPLETED", 1),
        "HG002": ("COMPLETED", 2),
        "HG003": ("FAILED", 1),
        "HG004": ("COMPLETED", 1),
    }
    assert records["HG002"]["cache_hits"] == 2
    assert [run["failure_reason"] for run in records["HG002"]["history"]] == ["SERVICE_ERROR"]
    first, second = result.summary()["rounds"]
    assert (first["cache_hits"], second["cache_hits"]) == (0, 2)
    assert second["seconds"] < first["seconds"]
