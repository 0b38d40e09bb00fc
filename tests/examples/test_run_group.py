from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
from run_group import omics_run_group

from tests.examples.cohorts import all_of, put_samplesheet, read_json_lines

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics


def test_two_cohorts_share_one_group_with_the_limits_of_the_params(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet([f"HG{number:03}" for number in range(30)])
    omics = boto3.client("omics")
    assert omics_run_group().test().state == "success"
    (group,) = all_of("list_run_groups")
    assert {name: group[name] for name in ("name", "maxCpus", "maxRuns", "maxDuration")} == {
        "name": "cohort",
        "maxCpus": 1_000,
        "maxRuns": 40,
        "maxDuration": 1_440,
    }
    (batch,) = all_of("list_batch")
    assert omics.get_batch(batchId=batch["id"])["defaultRunSetting"]["runGroupId"] == group["id"]
    records = read_json_lines("runs.jsonl")
    assert len(records) == 30
    for record in records:
        assert record["run_output_uri"] == omics.get_run(id=record["run_id"])["runOutputUri"]
    cohort_service.forget_tokens()
    dag_run = omics_run_group().test(run_conf={"max_runs": 5, "delete_run_group": True})
    assert dag_run.state == "success"
    ti = dag_run.get_task_instance("ensure_run_group")
    pushed = ti.xcom_pull("ensure_run_group", key="run_group")
    assert (pushed["id"], pushed["max_runs"], pushed["max_cpus"]) == (group["id"], 5, 1_000)
    assert cohort_service.calls["CreateRunGroup"] == cohort_service.calls["DeleteRunGroup"] == 1
    assert all_of("list_run_groups") == []
