from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from cohort_by_parts import omics_cohort_by_parts
from housekeeping import omics_housekeeping

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from tests.clocks import NoWaiting
from tests.examples.cohorts import all_of, put_samplesheet, read_json_lines, states_of

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics


@pytest.fixture(autouse=True)
def _no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("housekeeping.GET_BATCH_DELAY", 0)


def start_batch(name: str, **tags: str) -> str:
    """Start a batch without the operator."""
    answer = boto3.client("omics").start_run_batch(
        batchName=name,
        requestId=name,
        tags=tags,
        defaultRunSetting={
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": "s3://omics-quickstart/runs/",
        },
        batchRunSettings={"inlineSettings": [{"runSettingId": "HG001"}]},
    )
    return str(answer["id"])


def test_deletes_what_is_old_and_over_and_keeps_the_mapping(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet(["HG001", "HG002"])
    assert omics_cohort_by_parts().test().state == "success"
    (old,) = all_of("list_batch")
    run_ids = {run["runSettingId"]: run["runId"] for run in all_of("list_runs_in_batch", "runs", batchId=old["id"])}
    foreign = start_batch("of-somebody-else")
    cohort_service.clock.advance(30 * 24 * 3600)
    assert omics_cohort_by_parts().test().state == "success"
    young = {batch["id"] for batch in all_of("list_batch")} - {old["id"], foreign}

    # The service's clock has gone ahead of Airflow's: "older than -10 days" is what began in its first ten days.
    dag_run = omics_housekeeping().test(run_conf={"keep_days": -10})

    assert dag_run.state == "success"
    assert {batch["id"] for batch in all_of("list_batch")} == {*young, foreign}
    assert {run["batchId"] for run in all_of("list_runs")} == {*young, foreign}
    saved: list[dict[str, Any]] = read_json_lines(f"{old['id']}.jsonl")
    assert {record["run_setting_id"]: record["run_id"] for record in saved} == run_ids


def test_batches_of_another_airflow_and_those_that_are_gone_are_left_alone(
    cohort_service: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_samplesheet(["HG001", "HG002"])
    theirs = start_batch("of-another-airflow", **{"managed-by": "another-airflow"})
    ours = start_batch("of-this-airflow", **{"managed-by": "airflow"})
    cohort_service.clock.advance(3600)
    gone = {"id": "9999999", "status": "PROCESSED", "createdAt": datetime(2020, 1, 1, tzinfo=UTC)}
    list_batch = OmicsCacheHook.list_batch
    monkeypatch.setattr(OmicsCacheHook, "list_batch", lambda hook, **given: [gone, *list_batch(hook, **given)])
    assert omics_housekeeping().test(run_conf={"keep_days": -10}).state == "success"
    assert {batch["id"] for batch in all_of("list_batch")} == {theirs}
    assert ours != theirs


def test_throttles_are_waited_out(cohort_service: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch) -> None:
    put_samplesheet(["HG001", "HG002"])
    assert omics_cohort_by_parts().test().state == "success"
    clock = NoWaiting()
    monkeypatch.setattr(timing, "_source", clock)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for operation in ("ListBatch", "GetBatch"):
        cohort_service.faults.throttle(operation, times=12)
    dag_run = omics_housekeeping().test(run_conf={"keep_days": -10})
    assert dag_run.state == "success"
    assert dag_run.get_task_instance("find_old_batches").try_number <= 1
    assert clock.waited > 120
    assert all_of("list_batch") == []


def test_nothing_old_is_nothing_to_do(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet(["HG001", "HG002"])
    assert omics_cohort_by_parts().test().state == "success"
    dag_run = omics_housekeeping().test()
    assert dag_run.state == "success"
    assert states_of(dag_run)["delete_batch"] == ["skipped"]
    assert len(all_of("list_batch")) == 1
