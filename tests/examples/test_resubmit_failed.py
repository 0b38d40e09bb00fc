from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from resubmit_failed import omics_resubmit_failed

from tests.examples.cohorts import all_of, put_samplesheet, read_json_lines, states_of

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics


def runs_by_sample() -> Counter[str]:
    """How many runs the service has started for each sample, by its own listing."""
    return Counter(
        run["runSettingId"]
        for batch in all_of("list_batch")
        for run in all_of("list_runs_in_batch", "runs", batchId=batch["id"])
        if run.get("runId")
    )


def test_half_of_three_thousand_samples_is_submitted_again_and_none_twice(cohort_service: LocalHealthOmics) -> None:
    samples = [f"HG{number:04}" for number in range(3_000)]
    put_samplesheet(samples)
    for sample in samples[::2]:
        cohort_service.faults.fail_submission(sample, reason="ThrottlingException", times=1)
    for sample in samples[:20]:
        cohort_service.faults.fail_run(sample)

    assert omics_resubmit_failed().test().state == "success"

    assert cohort_service.calls["StartRunBatch"] == 2
    assert runs_by_sample() == dict.fromkeys(samples, 1)
    assert len(all_of("list_runs")) == 3_000
    mapping = {record["run_setting_id"]: record["run_id"] for record in read_json_lines("mapping.jsonl")}
    assert list(mapping) == samples
    assert len(set(mapping.values())) == 3_000
    assert None not in mapping.values()
    assert set(mapping.values()) == {run["id"] for run in all_of("list_runs")}


def test_nothing_to_submit_again_skips_the_second_batch(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet(["HG001", "HG002"])
    dag_run = omics_resubmit_failed().test()
    assert dag_run.state == "success"
    states = states_of(dag_run)
    assert states["resubmission.start_batch"] == states["completion.wait_for_second_batch"] == ["skipped"]
    assert states["report"] == ["success"]
    assert cohort_service.calls["StartRunBatch"] == 1
    assert [record["run_setting_id"] for record in read_json_lines("mapping.jsonl")] == ["HG001", "HG002"]


@pytest.mark.parametrize(("reason", "batches"), [("ValidationException", 1), ("ThrottlingException", 2)])
def test_gives_up_with_a_report(
    cohort_service: LocalHealthOmics, capfd: pytest.CaptureFixture[str], reason: str, batches: int
) -> None:
    put_samplesheet(["HG001", "HG002", "HG003"])
    cohort_service.faults.fail_submission("HG002", reason=reason, message="as told")
    dag_run = omics_resubmit_failed().test()
    assert dag_run.state == "failed"
    assert states_of(dag_run)["report"] == ["failed"]
    assert cohort_service.calls["StartRunBatch"] == batches
    assert runs_by_sample() == {"HG001": 1, "HG003": 1}
    printed = capfd.readouterr()
    assert f"not submitted: HG002 {reason} as told" in printed.out + printed.err
    assert f"1 samples were not submitted and 0 runs failed: {{'{reason}': 1}}" in printed.out + printed.err


def test_too_many_failed_runs_fail_the_report(cohort_service: LocalHealthOmics) -> None:
    samples = [f"HG{number:03}" for number in range(60)]
    put_samplesheet(samples)
    for sample in samples[:51]:
        cohort_service.faults.fail_run(sample)
    dag_run = omics_resubmit_failed().test()
    assert states_of(dag_run)["report"] == ["failed"]
    assert cohort_service.calls["StartRunBatch"] == 1
    assert runs_by_sample() == dict.fromkeys(samples, 1)
