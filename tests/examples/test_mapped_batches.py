"""A batch for each of three samplesheets, each in its own map index of a task group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from airflow_provider_omics_cache.tables import read_table
from tests.examples.cohorts import BUCKET, all_of, put_samplesheet

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags

DAG_FILE = Path(__file__).parents[2] / "example_dags" / "mapped_batches.py"
SAMPLES = {"lung": 40, "liver": 101, "skin": 1}


@pytest.fixture(autouse=True)
def _samplesheets(local_healthomics: LocalHealthOmics) -> None:
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    for tissue, number in SAMPLES.items():
        put_samplesheet([f"{tissue}-{n}" for n in range(number)], f"{tissue}.csv")
    local_healthomics.register_workflow("1234567")


def batches() -> Iterator[dict[str, Any]]:
    """Yield GetBatch's answer of each batch, in the order of the map indexes."""
    omics = boto3.client("omics")
    found = [omics.get_batch(batchId=batch["id"]) for batch in all_of("list_batch")]
    yield from sorted(found, key=lambda batch: str(batch["tags"]["airflow-map-index"]))


def test_each_samplesheet_has_its_batch_and_all_runs_are_in_one_table(
    local_healthomics: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    local_healthomics.faults.drop_connection("StartRunBatch", times=1)
    for sample in ("lung-1", "lung-2", "liver-1"):  # within 5 % of each batch
        local_healthomics.faults.fail_run(sample)

    run = local_healthomics_dag_run(DAG_FILE).run()

    assert run.state == "success"
    assert {batch["totalRuns"] for batch in batches()} == set(SAMPLES.values())
    assert local_healthomics.calls["CreateRunCache"] == 1
    assert local_healthomics.calls["CancelRunBatch"] == 0
    caches = {boto3.client("omics").get_run(id=listed["id"])["cacheId"] for listed in all_of("list_runs")}
    assert caches == {str(run.xcom("ensure_run_cache"))}
    table = list(read_table(run.xcom("join_runs")))
    samples = [f"{tissue}-{n}" for tissue, number in SAMPLES.items() for n in range(number)]
    assert sorted(record["run_setting_id"] for record in table) == sorted(samples)
    assert all(f"/{record['run_setting_id'].split('-')[0]}.csv" in record["samplesheet"] for record in table)


def test_a_batch_that_fails_is_cancelled_and_the_others_complete(
    local_healthomics: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    put_samplesheet([f"liver-{number}" for number in range(1_000)], "liver.csv")
    for number in range(60):
        local_healthomics.faults.fail_submission(f"liver-{number}")
    local_healthomics.settings.submission_rate = 1

    run = local_healthomics_dag_run(DAG_FILE).run()

    assert run.state == "failed"
    states = {name.removeprefix("run_samplesheet."): state for name, state in run.states.items()}
    assert [states[f"wait_for_submission[{n}]"] for n in range(3)] == ["success", "failed", "success"]
    assert [states[f"wait_for_completion[{n}]"] for n in range(3)] == ["success", "upstream_failed", "success"]
    assert states["join_runs"] == "upstream_failed"
    assert [batch["status"] for batch in batches()] == ["PROCESSED", "CANCELLED", "PROCESSED"]
    assert [batch["runSummary"].get("completedRunCount", 0) for batch in batches()] == [40, 0, 1]
    assert [record["status"] for record in all_of("list_runs")].count("CANCELLED") > 0
    assert local_healthomics.calls["CancelRunBatch"] == 1
