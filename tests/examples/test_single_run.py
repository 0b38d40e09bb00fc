from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
import pytest
from single_run import omics_single_run

from tests.conftest import needs_aiobotocore

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags


@pytest.fixture
def service(local_healthomics: LocalHealthOmics) -> LocalHealthOmics:
    boto3.client("s3").create_bucket(Bucket="omics-quickstart")
    local_healthomics.register_workflow("1234567")
    return local_healthomics


@needs_aiobotocore
def test_prints_where_the_outputs_are(
    service: LocalHealthOmics, local_healthomics_dag_run: LocalDags, capfd: pytest.CaptureFixture[str]
) -> None:
    client = boto3.client("omics")
    dag_run = local_healthomics_dag_run(omics_single_run()).run({"sample": "HG002"})
    (listed,) = client.list_runs()["items"]
    run = client.get_run(id=listed["id"])
    assert (run["status"], run["parameters"]) == ("COMPLETED", {"sample": "HG002"})
    assert run["cacheId"] == client.list_run_caches()["items"][0]["id"]
    assert f"Run {run['id']} has written its outputs to {run['runOutputUri']}" in capfd.readouterr().out
    assert dag_run.states["delete_run"] == "skipped"
    assert {dag_run.states[name] for name in ("wait_for_run", "cancel_run", "print_outputs")} == {"success"}
    assert service.calls["CancelRun"] == 0


@needs_aiobotocore
def test_a_run_that_is_started_and_not_seen_is_cancelled(
    service: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    """`start_run` fails in its last try, because GetRun does not find the run. The run must not go on."""
    service.settings.run_running_seconds = 100_000
    dag = omics_single_run()
    dag.get_task("start_run").retries = 0
    service.faults.error("GetRun", code="ResourceNotFoundException", message="Run not found", times=11)
    dag_run = local_healthomics_dag_run(dag).run()
    (run,) = boto3.client("omics").list_runs()["items"]
    assert (dag_run.states["start_run"], dag_run.states["cancel_run"]) == ("failed", "success")
    assert run["status"] == "CANCELLED"
