from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import pytest
from quickstart import SAMPLES, omics_quickstart

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags


@pytest.fixture
def service(local_healthomics: LocalHealthOmics) -> LocalHealthOmics:
    boto3.client("s3").create_bucket(Bucket="omics-quickstart")
    local_healthomics.register_workflow("1234567")
    return local_healthomics


def all_of(operation: str, key: str = "items", **members: Any) -> list[dict[str, Any]]:
    pages = boto3.client("omics").get_paginator(operation).paginate(**members)
    return [item for page in pages for item in page[key]]


def test_prints_the_run_id_of_every_sample(
    service: LocalHealthOmics, local_healthomics_dag_run: LocalDags, capfd: pytest.CaptureFixture[str]
) -> None:
    run = local_healthomics_dag_run(omics_quickstart()).run()
    assert set(run.states.values()) == {"success"}
    (batch,) = all_of("list_batch")
    runs = all_of("list_runs_in_batch", "runs", batchId=batch["id"])
    assert sorted(run["runSettingId"] for run in runs) == SAMPLES
    mapping = {run["runSettingId"]: run["runId"] for run in runs}
    assert run.xcom("wait_for_submission") == mapping
    assert {tuple(line.split()) for line in capfd.readouterr().out.splitlines()} >= set(mapping.items())


def test_three_runs_share_a_cache_and_have_a_batch_each(
    service: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    for _ in range(3):
        assert local_healthomics_dag_run(omics_quickstart()).run().state == "success"
        service.forget_tokens()
    (cache,) = all_of("list_run_caches")
    batches = all_of("list_batch")
    assert len({batch["id"] for batch in batches}) == 3
    assert service.calls["CreateRunCache"] == 1
    assert service.calls["StartRunBatch"] == 3
    for batch in batches:
        found = boto3.client("omics").get_batch(batchId=batch["id"])
        assert found["defaultRunSetting"]["cacheId"] == cache["id"]
