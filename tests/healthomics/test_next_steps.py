from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.healthomics.completion import NOT_SUBMITTED, WITHOUT_RUN_ID
from airflow_provider_omics_cache.healthomics.next_steps import Decision, NextStep, Retries, decide, decisive
from airflow_provider_omics_cache.healthomics.run_failures import RUN_FAILURES, NewRun, reasons_of
from airflow_provider_omics_cache.healthomics.states import RunStatus

#: The codes of AWS's page "Run failure reasons", by what the text beside the code asks for.
CODES = {
    NewRun.CAN_SUCCEED: {"INSTANCE_RESERVATION_FAILED", "SERVICE_ERROR"},
    NewRun.UNCERTAIN: {
        "MODIFIED_INPUT_RESOURCE",
        "RUN_TASK_FAILED",
        "RUN_TIMED_OUT",
        "TASK_TIMED_OUT",
        "WORKFLOW_RUN_FAILED",
    },
    NewRun.NEEDS_CORRECTION: {
        "ASSUME_ROLE_FAILED",
        "CANNOT_START_CONTAINER_ERROR",
        "CANNOT_START_CONTAINER_SIZE_ERROR",
        "ECR_PERMISSION_ERROR",
        "EXPORT_FAILED",
        "FILE_SYSTEM_OUT_OF_SPACE",
        "IMAGE_VERIFICATION_FAILURE",
        "IMPORT_FAILED",
        "INACTIVE_OMICS_STORAGE_RESOURCE",
        "INPUT_URI_NOT_FOUND",
        "INVALID_ECR_IMAGE_URI",
        "INVALID_TASK_RESOURCE_VALUE",
        "INVALID_URI_INPUT",
        "OUT_OF_MEMORY_ERROR",
        "UNSUPPORTED_GPU_INSTANCE_TYPE",
        "UNSUPPORTED_INPUT_SIZE",
        "WORKFLOW_VER_VALIDATION_FAILED",
    },
}
#: Codes of other pages of AWS's guide.
OTHER_CODES = {"ALL_PROFILES_INSTANCE_RESERVATION_FAILED": NewRun.CAN_SUCCEED}
RETRIES = Retries(submissions=frozenset({"ThrottlingException"}), runs=frozenset({"SERVICE_ERROR"}))


def test_every_code_of_the_service_has_its_verdict() -> None:
    documented = {code: new_run for new_run, codes in CODES.items() for code in codes} | OTHER_CODES
    assert {code: failure.new_run for code, failure in RUN_FAILURES.items()} == documented
    assert list(RUN_FAILURES) == sorted(RUN_FAILURES)
    assert all(failure.remedy for failure in RUN_FAILURES.values())
    assert frozenset.union(*map(reasons_of, NewRun)) == RUN_FAILURES.keys()


def record(status: str | None, reason: str | None = None, *, run: bool | None = None) -> dict[str, Any]:
    has_run = status not in {NOT_SUBMITTED, WITHOUT_RUN_ID} if run is None else run
    return {"run_setting_id": "S1", "run_id": "9" if has_run else None, "status": status, "failure_reason": reason}


@pytest.mark.parametrize(
    ("given_record", "decision"),
    [
        (record("COMPLETED"), Decision(NextStep.COMPLETED, None)),
        (record(NOT_SUBMITTED, "ThrottlingException"), Decision(NextStep.SUBMIT_AGAIN, "ThrottlingException")),
        (record(NOT_SUBMITTED, "ValidationException"), Decision(NextStep.GIVEN_UP, "ValidationException")),
        (record(NOT_SUBMITTED), Decision(NextStep.GIVEN_UP, "NOT_SUBMITTED")),
        (record("FAILED", "SERVICE_ERROR"), Decision(NextStep.RESUME, "SERVICE_ERROR")),
        (record("FAILED", "RUN_TASK_FAILED"), Decision(NextStep.GIVEN_UP, "RUN_TASK_FAILED")),
        (record("FAILED", "NEW_CODE"), Decision(NextStep.GIVEN_UP, "NEW_CODE")),
        (record("FAILED"), Decision(NextStep.GIVEN_UP, "FAILED")),
        (record("CANCELLED"), Decision(NextStep.GIVEN_UP, "CANCELLED")),
        (record("DELETED"), Decision(NextStep.GIVEN_UP, "DELETED")),
    ],
)
def test_what_comes_next(given_record: dict[str, Any], decision: Decision) -> None:
    assert decide(given_record, RETRIES) == decision


@pytest.mark.parametrize(
    "unknown",
    [
        None,
        record(None),
        record("RUNNING"),
        record("STOPPING"),
        record("NEW_STATUS"),
        record(WITHOUT_RUN_ID),
        record("COMPLETED", run=False),
        record("FAILED", "SERVICE_ERROR", run=False),
        record(NOT_SUBMITTED, "ThrottlingException", run=True),
    ],
)
def test_what_is_not_certain_is_unknown(unknown: dict[str, Any] | None) -> None:
    step, text = decide(unknown, RETRIES)
    assert step == NextStep.UNKNOWN
    assert text


def test_a_cancelled_run_is_resumed_only_if_its_status_is_named() -> None:
    both = Retries(submissions=RETRIES.submissions, runs=RETRIES.runs, statuses=frozenset({"FAILED", "CANCELLED"}))
    assert decide(record("CANCELLED"), both).step == NextStep.RESUME
    assert decide(record("FAILED", "RUN_TASK_FAILED"), both).step == NextStep.GIVEN_UP
    cancelled = Retries(submissions=RETRIES.submissions, runs=RETRIES.runs, statuses=frozenset({"CANCELLED"}))
    assert decide(record("FAILED", "SERVICE_ERROR"), cancelled).step == NextStep.GIVEN_UP


STATUSES = [*RunStatus, NOT_SUBMITTED, WITHOUT_RUN_ID, "NEW_STATUS"]


@given(st.lists(st.sampled_from(STATUSES).map(record), min_size=1, max_size=5))
def test_a_completed_or_active_run_stands_for_its_sample(records: list[dict[str, Any]]) -> None:
    steps = [decide(one, RETRIES).step for one in records]
    chosen = decisive(records)
    for step in (NextStep.COMPLETED, NextStep.UNKNOWN):
        if step in steps:
            assert chosen == max(position for position, found in enumerate(steps) if found == step)
            return
    assert chosen == len(records) - 1
