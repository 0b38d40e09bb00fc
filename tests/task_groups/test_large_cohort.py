"""2,000 samples, of which some fail in each way, also if somebody cancels the second round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import pytest

from airflow_provider_omics_cache.task_groups.cohort_tasks import StartCohortBatchOperator
from tests.conftest import needs_batches
from tests.task_groups import test_cohort_runs
from tests.task_groups.large_cohort import (
    MAX_FAILED,
    RESUMED,
    SAMPLES,
    batches_and_runs,
    expected_outcomes,
    expected_runs,
    let_fail,
    outcomes_of,
)
from tests.task_groups.test_cohort_runs import RESULTS, WHEN, cohort_dag, put_sheet, read

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags

pytestmark = [needs_batches, pytest.mark.large]

service = test_cohort_runs.service


def completed_runs(omics: Any, batch_id: str) -> int:
    summary: dict[str, int] = omics.get_batch(batchId=batch_id).get("runSummary") or {}
    return summary.get("completedRunCount", 0)


def test_two_thousand_samples(
    service: LocalHealthOmics, local_healthomics_dag_run: LocalDags, capfd: pytest.CaptureFixture[str]
) -> None:
    put_sheet(SAMPLES)
    let_fail(service)
    dag_run = local_healthomics_dag_run(cohort_dag(max_failed=MAX_FAILED, sample_size=0)).run()
    assert dag_run.state == "success"
    printed = capfd.readouterr()
    # Airflow 3.0 prints each XCom at the level debug.
    lines = [line for line in (printed.out + printed.err).splitlines() if "[debug" not in line]
    assert [line[:200] for line in lines if len(line) >= 5_000] == []
    assert outcomes_of(read(dag_run.xcom(RESULTS))) == expected_outcomes()
    assert batches_and_runs(boto3.client("omics")) == (2, expected_runs())


def test_a_second_round_that_somebody_cancels(
    service: LocalHealthOmics, local_healthomics_dag_run: LocalDags, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_sheet(SAMPLES)
    let_fail(service)
    execute = StartCohortBatchOperator.execute

    def start_and_cancel(operator: StartCohortBatchOperator, context: Any) -> str:
        batch_id = execute(operator, context)
        if "round_2" in operator.task_id:
            omics = boto3.client("omics")
            # The runs that are resumed end first: the run cache has two of their three tasks.
            while completed_runs(omics, batch_id) < len(RESUMED):
                service.clock.advance(1)
            omics.cancel_run_batch(batchId=batch_id)
        return batch_id

    with monkeypatch.context() as patched:
        patched.setattr(StartCohortBatchOperator, "execute", start_and_cancel)
        dag_run = local_healthomics_dag_run(cohort_dag(max_failed=MAX_FAILED)).run(date=WHEN)

    error = "160 of 2,000 samples did not complete; max_failed is 3%: "
    assert error in str(dag_run.errors[RESULTS])
    assert dag_run.states["cohort.round_3.choose_samples"] == "skipped"
    outcomes = expected_outcomes(throttled="CANCELLED")
    assert outcomes_of(read(dag_run.xcom(RESULTS))) == outcomes
    assert batches_and_runs(boto3.client("omics")) == (2, expected_runs())

    cleared = local_healthomics_dag_run(cohort_dag(max_failed=MAX_FAILED)).run(date=WHEN)
    assert error in str(cleared.errors[RESULTS])
    assert outcomes_of(read(cleared.xcom(RESULTS))) == outcomes
    assert batches_and_runs(boto3.client("omics")) == (2, expected_runs())
