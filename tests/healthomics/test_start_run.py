from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.healthomics.awaited_run import Run
from airflow_provider_omics_cache.healthomics.start_run import check_combinations, decide_start_run, refusal_of
from airflow_provider_omics_cache.healthomics.states import RUN_STATUSES, RunStatus

ACTIVE = ("REATTACH", "REFUSE_OTHER_SETTINGS", "REFUSE_UNKNOWN_SETTINGS")
TABLE = {
    # status: the same request, another request, the request is unknown
    "PENDING": ACTIVE,
    "STARTING": ACTIVE,
    "RUNNING": ACTIVE,
    "STOPPING": ACTIVE,
    "COMPLETED": ("REATTACH", "START", "REFUSE_UNKNOWN_SETTINGS"),
    "CANCELLED": ("REFUSE_CANCELLED",) * 3,
    "DELETED": ("REFUSE_DELETED",) * 3,
    "FAILED": ("START",) * 3,
    "PAUSED": ACTIVE,
}
WORKFLOW = {"workflowId": "1234567", "roleArn": "arn", "outputUri": "s3://bucket/"}


@pytest.mark.parametrize("status", TABLE)
def test_every_row_of_the_table(status: str) -> None:
    digests = ("same", "other", None)
    decisions = [decide_start_run(status, request_digest="same", found_digest=found).name for found in digests]
    assert tuple(decisions) == TABLE[status]
    assert set(TABLE) == {*RunStatus, "PAUSED"}
    assert set(RUN_STATUSES) == set(RunStatus)


@pytest.mark.parametrize("digest", ["same", "other", None])
def test_a_run_that_failed_after_it_was_started_is_never_replaced(digest: str | None) -> None:
    decision = decide_start_run("FAILED", request_digest="same", found_digest=digest, runs_started=1)
    assert decision.name == "REFUSE_RUNS_STARTED"


@pytest.mark.parametrize(
    ("members", "parameter", "rule"),
    [
        ({"workflowId": None}, "workflow_id", "must be given unless run_id is given"),
        ({"runId": "7"}, "workflow_id", "and not together with it; got '1234567'"),
        ({"cacheBehavior": "CACHE_ALWAYS"}, "cache_behavior", "has no effect without cache_id.* got 'CACHE_ALWAYS'"),
        ({"storageType": "STATIC"}, "storage_capacity", "must be given for storage_type STATIC"),
        ({"workflowType": "READY2RUN", "storageCapacity": 1200}, "storage_capacity", "must not be given.* got 1200"),
        ({"workflowType": "READY2RUN", "storageType": "STATIC"}, "storage_type", "must not be given.* got 'STATIC'"),
        ({"workflowType": "READY2RUN", "cacheId": "5"}, "cache_id", "must not be given for a READY2RUN.* got '5'"),
        ({"networkingMode": "VPC"}, "configuration_name", "must be given for networking_mode VPC"),
    ],
)
def test_a_combination_that_cannot_be_started_is_refused(members: dict[str, Any], parameter: str, rule: str) -> None:
    with pytest.raises(OmicsParameterError, match=rf"^{parameter} .*{rule}"):
        check_combinations({**WORKFLOW, **members})


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"storageType": "DYNAMIC"},
        {"storageType": "STATIC", "storageCapacity": 1200},
        {"cacheId": "5", "cacheBehavior": "CACHE_ALWAYS"},
        {"workflowType": "READY2RUN"},
        {"networkingMode": "VPC", "configurationName": "lab"},
        # A repeated run has these members of its own.
        {"workflowId": None, "runId": "7", "storageType": "STATIC", "networkingMode": "VPC"},
        {"workflowId": None, "runId": "7", "cacheBehavior": "CACHE_ALWAYS"},
    ],
)
def test_other_combinations_are_left_to_the_service(members: dict[str, Any]) -> None:
    check_combinations({**WORKFLOW, **members})


@pytest.mark.parametrize(
    ("code", "text", "member"),
    [
        ("ValidationException", "1 validation error detected: the name is too long", None),
        ("ValidationException", "1 validation error detected: workflow 1234567 does not exist", "workflowId"),
        ("ResourceNotFoundException", "Workflow 1234567 not found", "workflowId"),
        ("ResourceNotFoundException", "The specified workflow does not exist", "workflowId"),
        ("ResourceNotFoundException", "Run group not found", "runGroupId"),
        ("ResourceNotFoundException", "Run cache 8 not found", "cacheId"),
        ("ValidationException", "Workflow 1234567 is INACTIVE", "workflowId"),
        ("ValidationException", "runGroupId is not valid", "runGroupId"),
        ("ValidationException", "Run 12345678 is not valid", None),
        ("ValidationException", "The request token was used for workflow 1234567", None),
        ("ValidationException", "The request token was used with other parameters", None),
        ("ValidationException", "Parameters not in the workflow's template: sampel", "parameters"),
        ("ValidationException", "outputUri: the parameter is not valid", None),
        ("ConflictException", "Workflow 1234567", None),
        ("AccessDeniedException", "Workflow 1234567", None),
        ("ValidationException", "outputUri is not valid", None),
    ],
)
def test_a_refusal_of_a_resource_is_recognised(code: str, text: str, member: str | None) -> None:
    refusal = refusal_of(code, text, {**WORKFLOW, "cacheId": "8", "runGroupId": "9", "runId": "1"})
    assert (refusal and refusal.member) == member


@pytest.mark.parametrize(
    ("code", "text", "rule"),
    [
        ("ValidationException", "cacheId is not supported here", ""),
        ("ValidationException", "Run cache 8 is not ACTIVE", "must name an active run cache"),
        ("ResourceNotFoundException", "cacheId", "must name an active run cache"),
    ],
)
def test_a_rule_is_named_only_where_a_resource_is_missing_or_not_active(code: str, text: str, rule: str) -> None:
    assert refusal_of(code, text, {**WORKFLOW, "cacheId": "8"}) == ("cacheId", rule)


def test_another_uuid_shows_that_the_run_is_deleted() -> None:
    answer = {"status": "RUNNING", "uuid": "b", "runOutputUri": "s3://theirs/"}
    run = Run.from_answer("1", answer, uuid="a")
    assert (run.status, run.uuid, run.run_output_uri) == ("DELETED", "a", None)
    assert Run.from_answer("1", answer).status == Run.from_answer("1", {"status": "RUNNING"}, uuid="a").status
    assert Run.from_json(run.to_json()) == run


@pytest.mark.parametrize(
    ("members", "text"),
    [({}, "no reason given"), ({"failureReason": "A"}, "A"), ({"failureReason": "A", "statusMessage": "b"}, "A: b")],
)
def test_a_failure_is_described_by_reason_and_message(members: dict[str, str], text: str) -> None:
    assert Run.from_answer("1", members).failure == text
