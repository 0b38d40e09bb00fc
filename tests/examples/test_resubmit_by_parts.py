from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from tests.examples.cohorts import (
    WHEN,
    all_of,
    longest_line,
    put_samplesheet,
    read_json_lines,
)

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDag, LocalDagRun, LocalDags

# Takes 30 s. The waits and reports of its parts have faster tests.
pytestmark = pytest.mark.large

DAG = Path(__file__).parents[1] / "dags" / "resubmit_by_parts.py"


@pytest.fixture
def dag(local_healthomics_dag_run: LocalDags) -> LocalDag:
    """The DAG, whose tasks wait by the service's clock."""
    return local_healthomics_dag_run(DAG)


def run_to_failure(dag: LocalDag) -> tuple[LocalDagRun, str]:
    """Run the DAG, and return its DAG run and the error of its report."""
    dag_run = dag.run()
    assert dag_run.state == "failed"
    return dag_run, str(dag_run.errors["report"])


def runs_by_sample() -> Counter[str]:
    """How many runs the service has started for each sample, by its own listing."""
    return Counter(
        run["runSettingId"]
        for batch in all_of("list_batch")
        for run in all_of("list_runs_in_batch", "runs", batchId=batch["id"])
        if run.get("runId")
    )


def test_half_of_three_thousand_samples_is_submitted_again_and_none_twice(
    cohort_service: LocalHealthOmics, dag: LocalDag, capfd: pytest.CaptureFixture[str]
) -> None:
    samples = [f"HG{number:04}" for number in range(3_000)]
    put_samplesheet(samples)
    for sample in samples[::2]:
        cohort_service.faults.fail_submission(sample, reason="ThrottlingException", times=1)
    for sample in samples[:20]:
        cohort_service.faults.fail_run(sample)

    assert dag.run().state == "success"

    assert longest_line(capfd.readouterr()) < 5_000
    assert cohort_service.calls["StartRunBatch"] == 2
    assert runs_by_sample() == dict.fromkeys(samples, 1)
    assert len(all_of("list_runs")) == 3_000
    mapping = {record["run_setting_id"]: record["run_id"] for record in read_json_lines("mapping.jsonl")}
    assert list(mapping) == samples
    assert len(set(mapping.values())) == 3_000
    assert None not in mapping.values()
    assert set(mapping.values()) == {run["id"] for run in all_of("list_runs")}


def test_nothing_to_submit_again_skips_the_second_batch(cohort_service: LocalHealthOmics, dag: LocalDag) -> None:
    put_samplesheet(["HG001", "HG002"])
    dag_run = dag.run()
    assert dag_run.state == "success"
    states = dag_run.states
    assert states["resubmission.start_batch"] == states["completion.wait_for_second_batch"] == "skipped"
    assert states["report"] == "success"
    assert cohort_service.calls["StartRunBatch"] == 1
    assert [record["run_setting_id"] for record in read_json_lines("mapping.jsonl")] == ["HG001", "HG002"]


def test_a_cleared_dag_run_submits_nothing_again_although_the_sheet_has_changed(
    cohort_service: LocalHealthOmics,
    dag: LocalDag,
) -> None:
    samples = ["HG001", "HG002", "HG003"]
    put_samplesheet(samples)
    cohort_service.faults.fail_submission("HG002", reason="ThrottlingException", times=1)
    assert dag.run(date=WHEN).state == "success"
    put_samplesheet([*samples, "HG004"])
    cohort_service.forget_tokens()
    assert dag.run(date=WHEN).state == "success"
    assert cohort_service.calls["StartRunBatch"] == 2
    assert runs_by_sample() == dict.fromkeys(samples, 1)
    assert [record["run_setting_id"] for record in read_json_lines("mapping.jsonl")] == samples


def around_second_start(
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: Callable[[], Any] = lambda: None,
    after: Callable[[str], Any] = lambda batch_id: None,
) -> None:
    """Let something happen just before the second batch is started, or just after."""
    execute = StartRunBatchOperator.execute

    def execute_around(operator: StartRunBatchOperator, context: Any) -> str:
        is_second = operator.task_id == "resubmission.start_batch"
        if is_second:
            before()
        batch_id = execute(operator, context)
        if is_second:
            after(batch_id)
        return batch_id

    monkeypatch.setattr(StartRunBatchOperator, "execute", execute_around)


@pytest.mark.parametrize(
    ("after", "shown"),
    [
        ("PENDING", "2 samples were not submitted and 0 runs failed: {'ThrottlingException': 2}"),
        ("SUBMITTING", "1 samples were not submitted and 0 runs failed: {'ThrottlingException': 1}"),
    ],
)
def test_a_second_batch_that_fails_leaves_a_report(
    cohort_service: LocalHealthOmics, dag: LocalDag, monkeypatch: pytest.MonkeyPatch, after: Any, shown: str
) -> None:
    put_samplesheet(["HG001", "HG002", "HG003"])
    for sample in ("HG002", "HG003"):
        cohort_service.faults.fail_submission(sample, reason="ThrottlingException", times=1)

    def let_it_fail_after_the_start() -> None:
        cohort_service.clock.tick = 0
        cohort_service.faults.fail_batch("on demand", after=after, started_runs=int(after == "SUBMITTING"))

    def go_on(_: str) -> None:
        cohort_service.clock.tick = 300
        cohort_service.clock.advance(1_000)

    around_second_start(monkeypatch, before=let_it_fail_after_the_start, after=go_on)
    dag_run, error = run_to_failure(dag)
    states = dag_run.states
    assert states["resubmission.wait_for_submission"] == states["completion.wait_for_second_batch"] == "failed"
    assert states["merge_mappings"] == "success"
    mapping = {record["run_setting_id"]: record["run_id"] for record in read_json_lines("mapping.jsonl")}
    assert {sample for sample, run_id in mapping.items() if run_id} == set(runs_by_sample())
    assert shown in error


def test_a_second_batch_that_is_cancelled_leaves_a_report(
    cohort_service: LocalHealthOmics, dag: LocalDag, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    put_samplesheet(["HG001", "HG002", "HG003"])
    cohort_service.faults.fail_submission("HG002", reason="ThrottlingException", times=1)

    def let_runs_last() -> None:
        cohort_service.settings.run_running_seconds = 100_000

    def cancel(batch_id: str) -> None:
        omics = boto3.client("omics")
        while omics.get_batch(batchId=batch_id)["status"] != "INPROGRESS":
            pass
        omics.cancel_run_batch(batchId=batch_id)

    around_second_start(monkeypatch, before=let_runs_last, after=cancel)
    dag_run, error = run_to_failure(dag)
    states = dag_run.states
    assert states["resubmission.wait_for_submission"] == states["completion.wait_for_second_batch"] == "failed"
    assert states["merge_mappings"] == "success"
    assert states["report"] == "failed"
    assert "run CANCELLED: HG002" in capfd.readouterr().out
    assert "0 samples were not submitted and 1 runs failed: {'CANCELLED': 1}" in error


def test_a_first_batch_that_fails_leaves_a_report(cohort_service: LocalHealthOmics, dag: LocalDag) -> None:
    put_samplesheet(["HG001", "HG002"])
    cohort_service.faults.fail_batch("on demand", after="PENDING", times=None)
    dag_run, error = run_to_failure(dag)
    assert dag_run.states["merge_mappings"] == "success"
    assert "2 samples were not submitted and 0 runs failed: {'not listed': 2}" in error


@pytest.mark.parametrize(
    ("reason", "batches"),
    [("ServiceQuotaExceededException", 1), ("ThrottlingException", 2)],
)
def test_gives_up_with_a_report(
    cohort_service: LocalHealthOmics, dag: LocalDag, capfd: pytest.CaptureFixture[str], reason: str, batches: int
) -> None:
    put_samplesheet(["HG001", "HG002", "HG003"])
    cohort_service.faults.fail_submission("HG002", reason=reason, message="on demand")
    dag_run, error = run_to_failure(dag)
    assert dag_run.states["report"] == "failed"
    assert cohort_service.calls["StartRunBatch"] == batches
    assert runs_by_sample() == {"HG001": 1, "HG003": 1}
    assert f"not submitted: HG002 {reason} on demand" in capfd.readouterr().out
    assert f"1 samples were not submitted and 0 runs failed: {{'{reason}': 1}}" in error


def test_too_many_failed_runs_fail_the_report(cohort_service: LocalHealthOmics, dag: LocalDag) -> None:
    samples = [f"HG{number:03}" for number in range(60)]
    put_samplesheet(samples)
    for sample in samples[:51]:
        cohort_service.faults.fail_run(sample)
    dag_run = dag.run()
    assert dag_run.states["report"] == "failed"
    assert cohort_service.calls["StartRunBatch"] == 1
    assert runs_by_sample() == dict.fromkeys(samples, 1)
