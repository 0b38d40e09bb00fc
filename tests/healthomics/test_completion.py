from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.healthomics import completion
from airflow_provider_omics_cache.healthomics.completion import (
    Judgement,
    ListedRuns,
    RunCounts,
    RunOutcomes,
    is_same_run,
    join,
)
from airflow_provider_omics_cache.healthomics.rounds import Batch
from airflow_provider_omics_cache.healthomics.states import BatchStatus, RunStatus, Verdict

OVER = {
    BatchStatus.FAILED,
    BatchStatus.CANCELLED,
    BatchStatus.RUNS_DELETING,
    BatchStatus.RUNS_DELETE_FAILED,
    BatchStatus.RUNS_DELETED,
}
counts = st.none() | st.integers(0, 1_000)
run_counts = st.builds(
    RunCounts,
    total=counts,
    completed=counts,
    failed=counts,
    cancelled=counts,
    deleted=counts,
    not_submitted=counts,
)


@pytest.mark.parametrize("status", [*BatchStatus, "REHYDRATING", None])
@given(
    numbers=st.fixed_dictionaries(dict.fromkeys(("total_runs", "submitted", "failed", "pending"), counts)),
    ended=st.dictionaries(st.sampled_from([status.lower() for status in RunStatus]), st.integers(0, 1_000)),
)
def test_the_status_alone_decides(status: str | None, numbers: dict[str, Any], ended: dict[str, int]) -> None:
    verdict = completion.decide(Batch(id="1", status=status, run_counts=ended, **numbers))
    if status == BatchStatus.PROCESSED:
        assert verdict == Verdict.DONE
    else:
        assert verdict == (Verdict.FAILED if status in OVER else Verdict.WAIT)


@given(counts=run_counts, allowed=st.integers(0, 1_000))
def test_success_needs_enough_runs_that_are_known_to_be_completed(counts: RunCounts, allowed: int) -> None:
    enough = counts.total is not None and counts.completed is not None and counts.completed >= counts.total - allowed
    assert (counts.judge(allowed) == Judgement.COMPLETED) == (enough and counts.late == 0)


@given(counts=run_counts, allowed=st.integers(0, 1_000))
def test_counts_that_account_for_every_run_are_never_waited_for(counts: RunCounts, allowed: int) -> None:
    known = counts.total is not None and counts.completed is not None
    if known and counts.late == 0:
        assert counts.judge(allowed) != Judgement.UNKNOWN


@given(counts=run_counts)
def test_no_verdict_comes_from_counts_that_lack_runs(counts: RunCounts) -> None:
    if counts.judge(0) != Judgement.UNKNOWN:
        assert counts.late == 0


def test_counts_of_a_batch() -> None:
    batch = Batch.from_answer(
        "7",
        {
            "status": "PROCESSED",
            "totalRuns": 96,
            "submissionSummary": {"successfulStartSubmissionCount": 94, "failedStartSubmissionCount": 2},
            "runSummary": {"completedRunCount": 90, "failedRunCount": 3, "cancelledRunCount": 1, "deletedRunCount": 0},
        },
    )
    counts = RunCounts.of_batch(batch)
    assert counts.to_json() == {
        "total": 96,
        "completed": 90,
        "failed": 3,
        "cancelled": 1,
        "deleted": 0,
        "not_submitted": 2,
    }
    assert (counts.not_completed, counts.late) == (6, 0)
    assert [counts.judge(allowed) for allowed in (5, 6)] == [Judgement.FAILED, Judgement.COMPLETED]


def test_counts_that_are_absent_are_unknown() -> None:
    counts = RunCounts.of_batch(Batch.from_answer("7", {"status": "PROCESSED"}))
    assert set(counts.to_json().values()) == {None}
    assert counts.judge(1_000) == Judgement.UNKNOWN


def test_progress() -> None:
    batch = Batch(id="7", status="INPROGRESS", total_runs=96, failed=2, run_counts={"completed": 12, "failed": 1})
    assert completion.progress(batch) == (
        "Batch 7 is INPROGRESS: completed 12 of 96, 1 failed, 2 not submitted",
        "completed",
        15,
        96,
    )
    assert completion.progress(Batch(id="7", status="CREATING")).text == "Batch 7 is CREATING"
    assert completion.progress(Batch(id="7", status="X", run_counts={"cancelled": 3})).text == (
        "Batch 7 is X: completed 0, 0 failed, 3 cancelled"
    )


ROW = {"runSettingId": "s1", "runId": "11", "runInternalUuid": "u-1"}
TIME = datetime(2026, 11, 20, tzinfo=UTC)


def test_join_takes_the_most_exact_source() -> None:
    listed = {"status": "STOPPING", "creationTime": TIME, "stopTime": None}
    run = {
        "status": "FAILED",
        "uuid": "u-1",
        "batchId": "7",
        "failureReason": "SERVICE_ERROR",
        "runOutputUri": "s3://b/k",
    }
    assert join(ROW, listed, run, batch_id="7") == {
        "run_setting_id": "s1",
        "run_id": "11",
        "run_uuid": "u-1",
        "status": "FAILED",
        "creation_time": "2026-11-20T00:00:00+00:00",
        "start_time": None,
        "stop_time": None,
        "failure_reason": "SERVICE_ERROR",
        "status_message": None,
        "run_output_uri": "s3://b/k",
        "output_source": "exact",
    }


@pytest.mark.parametrize("other", [{"uuid": "u-2", "batchId": "7"}, {"uuid": "u-1", "batchId": "8"}])
def test_another_run_with_the_id_of_a_deleted_one_is_not_taken_for_it(other: dict[str, str]) -> None:
    assert not is_same_run(ROW, other, batch_id="7")
    joined = join(ROW, {"status": "COMPLETED"}, {"status": "COMPLETED", **other}, batch_id="7")
    assert joined["status"] == "DELETED"


@pytest.mark.parametrize("later", ["RUNNING", "RESTING", None])
def test_a_run_that_has_ended_stays_ended(later: str | None) -> None:
    run = {"status": later, "failureReason": "SERVICE_ERROR"}
    joined = join(ROW, {"status": "FAILED"}, run, batch_id="7")
    assert (joined["status"], joined["failure_reason"]) == ("FAILED", "SERVICE_ERROR")
    assert join(ROW, {"status": "FAILED"}, {"status": "DELETED"}, batch_id="7")["status"] == "DELETED"
    assert join(ROW, {"status": "RESTING"}, {"status": "STOPPING"}, batch_id="7")["status"] == "STOPPING"


def test_a_run_that_was_never_submitted_has_the_reasons_of_its_submission() -> None:
    row = {"runSettingId": "s1", "submissionFailureReason": "ThrottlingException", "submissionFailureMessage": "Slow"}
    joined = join(row, None, None, batch_id="7")
    assert (joined["status"], joined["failure_reason"], joined["status_message"]) == (
        "NOT_SUBMITTED",
        "ThrottlingException",
        "Slow",
    )


def outcome(number: int, status: str, reason: str | None = None) -> dict[str, Any]:
    return {
        "run_setting_id": f"s{number}",
        "run_id": str(number),
        "run_uuid": None,
        "status": status,
        "failure_reason": reason,
        "status_message": None,
    }


@given(st.lists(st.sampled_from([*RunStatus, "NOT_SUBMITTED", "REHYDRATING"])))
def test_what_is_not_completed_counts_as_failed(statuses: list[str]) -> None:
    outcomes = RunOutcomes()
    for number, status in enumerate(statuses):
        outcomes.add(outcome(number, status))
    assert outcomes.counts.total == len(statuses)
    assert outcomes.counts.not_completed == len(outcomes.failed) == len(statuses) - statuses.count("COMPLETED")


def test_failures_are_summed_up_by_reason_and_capped() -> None:
    outcomes = RunOutcomes()
    for number in range(1_200):
        outcomes.add(outcome(number, "FAILED", "RUN_TASK_FAILED"))
    outcomes.add(outcome(1_200, "CANCELLED"))
    outcomes.add(outcome(1_201, "NOT_SUBMITTED", "ThrottlingException"))
    outcomes.add_unlisted(3)
    assert len(outcomes.failed) == 1_000
    assert outcomes.counts.not_submitted == 4
    assert outcomes.failure_summary() == (
        "RUN_TASK_FAILED (s0, s1, s2, s3, s4 and 1,195 more); not submitted (3 runs); CANCELLED (s1200); "
        "1 more with not submitted, ThrottlingException"
    )


@given(
    st.builds(
        RunCounts,
        total=st.integers(0, 9),
        completed=st.integers(0, 9),
        failed=st.integers(0, 9),
        cancelled=st.integers(0, 9),
        deleted=st.integers(0, 9),
        not_submitted=st.integers(0, 9),
    ),
    st.integers(0, 9),
)
def test_late_counts_decide_nothing(counts: RunCounts, allowed: int) -> None:
    judgement = counts.judge(allowed)
    assert (judgement == Judgement.UNKNOWN) == (counts.late > 0)
    if judgement != Judgement.UNKNOWN:
        assert (judgement == Judgement.COMPLETED) == (counts.not_completed <= allowed)


def counted(total: int, completed: int, deleted: int = 0, failed: int = 0) -> RunCounts:
    return RunCounts(total=total, completed=completed, failed=failed, cancelled=0, deleted=deleted, not_submitted=0)


@pytest.mark.parametrize(
    ("counts", "listed", "agrees"),
    [
        (counted(5, 5), counted(5, 5), True),
        (counted(5, 5), counted(5, 4, failed=1), False),
        (counted(5, 4, failed=1), counted(5, 5), False),
        (counted(5, 5), counted(5, 3, deleted=2), True),
        (counted(5, 3, deleted=2), counted(5, 2, deleted=2), False),
        (counted(5, 4), counted(5, 4, failed=1), True),
        (counted(5, 4), counted(5, 3, deleted=2), False),
    ],
    ids=["equal", "fewer", "more", "deleted since", "deleted before", "late and equal", "late and deleted"],
)
def test_listed_runs_confirm_the_counts(counts: RunCounts, listed: RunCounts, agrees: bool) -> None:
    assert counts.agrees_with(listed) is agrees


def test_runs_that_are_listed_twice_are_found() -> None:
    listed = ListedRuns()
    assert listed.add({"runSettingId": "A", "runId": "1"})
    assert listed.add({"runSettingId": "B"})
    assert listed.add({"runId": "2"})
    assert [listed.add({"runSettingId": None, "runId": None}) for _ in range(3)] == [True, True, True]
    for repeated in ({"runSettingId": "A"}, {"runId": "1"}, {"runSettingId": "B", "runId": "3"}, {"runId": "2"}):
        assert not listed.add(repeated)
    assert listed.add({"runSettingId": "1", "runId": "A"}), "other ids with the same text"


def test_a_failed_run_without_a_run_setting_id_is_counted_and_not_named() -> None:
    outcomes = RunOutcomes()
    outcomes.add(outcome(1, "FAILED", "SERVICE_ERROR"))
    outcomes.add({**outcome(2, "FAILED", "SERVICE_ERROR"), "run_setting_id": None})
    assert outcomes.counts.failed == 2
    assert outcomes.failure_summary() == "SERVICE_ERROR (s1 and 1 more)"
    assert outcomes.failure_summary(5) == "SERVICE_ERROR (s1 and 1 more); 3 more without details"


def test_a_submitted_run_without_a_run_id_is_not_reported_as_never_submitted() -> None:
    row = {"runSettingId": "s1", "submissionStatus": "SUCCESS"}
    assert join(row, None, None, batch_id="7")["status"] == "UNKNOWN"
