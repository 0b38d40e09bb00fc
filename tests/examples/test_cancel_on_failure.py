from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
import pytest
from cancel_on_failure import omics_cancel_on_failure

from airflow_provider_omics_cache.testing.service_time import airflow_sensors
from tests.examples.cohorts import all_of, put_samplesheet, states_of
from tests.sensor_modes import use_service_time_in_tasks

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

SAMPLES = [f"HG{number:03}" for number in range(20)]


@pytest.mark.large
def test_too_many_failures_cancel_the_batch_while_most_is_not_submitted(
    cohort_service: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [f"HG{number:03}" for number in range(100)]
    put_samplesheet(samples, "failing.csv")
    monkeypatch.setattr(airflow_sensors, "time", use_service_time_in_tasks(monkeypatch, cohort_service))
    cohort_service.clock.tick = 1
    cohort_service.settings.submission_rate = 1
    for sample in samples[:34:2]:
        cohort_service.faults.fail_submission(sample)
    dag_run = omics_cancel_on_failure().test()
    assert dag_run.state == "failed"
    states = states_of(dag_run)
    assert states["wait_for_submission"] == ["failed"]
    assert states["cancel_batch"] == ["success"]
    (batch,) = all_of("list_batch")
    assert batch["status"] == "CANCELLED"
    assert 0 < len(all_of("list_runs")) < 50
    assert {run["status"] for run in all_of("list_runs")} == {"CANCELLED"}


def test_a_failure_cancels_the_runs_that_are_left(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet(SAMPLES, "failing.csv")
    cohort_service.settings.run_running_seconds = 10_000_000
    for sample in SAMPLES[:2]:
        cohort_service.faults.fail_submission(sample)
    dag_run = omics_cancel_on_failure().test()
    assert dag_run.state == "failed"
    states = states_of(dag_run)
    assert states["wait_for_submission"] == ["failed"]
    assert states["wait_for_completion"] == ["upstream_failed"]
    assert states["cancel_batch"] == ["success"]
    (batch,) = all_of("list_batch")
    assert batch["status"] == "CANCELLED"
    assert {run["status"] for run in all_of("list_runs")} == {"CANCELLED"}


def test_a_batch_that_has_finished_is_left_alone(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet(SAMPLES, "failing.csv")
    dag_run = omics_cancel_on_failure().test()
    assert dag_run.state == "success"
    assert states_of(dag_run)["cancel_batch"] == ["success"]
    assert cohort_service.calls["CancelRunBatch"] == 0
    (batch,) = all_of("list_batch")
    assert boto3.client("omics").get_batch(batchId=batch["id"])["runSummary"]["completedRunCount"] == 20


def test_nothing_is_cancelled_where_nothing_was_started(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet(["HG001", "HG001"], "failing.csv")
    dag_run = omics_cancel_on_failure().test()
    assert dag_run.state == "failed"
    assert states_of(dag_run)["cancel_batch"] == ["upstream_failed"]
