from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_omics_cache.local import LocalHealthOmics, mock_healthomics
from tests.conftest import needs_batches
from tests.local.conftest import DEFAULT_RUN_SETTING, code_of, new_client, run_settings, s3_client

pytestmark = needs_batches

RUN_STATES = ("PENDING", "STARTING", "RUNNING", "STOPPING", "COMPLETED", "FAILED", "CANCELLED")
IN_STATE = {"CREATING": 0.0, "PENDING": 1.0, "SUBMITTING": 3.0, "INPROGRESS": 3.5, "PROCESSED": 100.0}


def start(omics: Any, number: int = 10, default: dict[str, Any] | None = None, **kwargs: Any) -> str:
    kwargs.setdefault("batchRunSettings", {"inlineSettings": run_settings(number)})
    answer = omics.start_run_batch(defaultRunSetting={**DEFAULT_RUN_SETTING, **(default or {})}, **kwargs)
    batch_id: str = answer["id"]
    return batch_id


def stage(settings_file: Any) -> dict[str, str]:
    body = settings_file if isinstance(settings_file, bytes) else json.dumps(settings_file).encode()
    s3_client().put_object(Bucket="results", Key="settings.json", Body=body)
    return {"s3UriSettings": "s3://results/settings.json"}


def rows(omics: Any, batch_id: str, **filters: str) -> dict[str, dict[str, Any]]:
    pages = omics.get_paginator("list_runs_in_batch").paginate(batchId=batch_id, **filters)
    return {row["runSettingId"]: row for page in pages for row in page["runs"]}


def counts(batch: dict[str, Any], summary: str) -> dict[str, int]:
    return {name: count for name, count in batch.get(summary, {}).items() if count}


def test_a_batch_goes_through_its_states(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics, 10, batchName="cohort", tags={"a": "b"})
    seen = []
    for seconds in (0, 1, 2, 0.25, 0.25, 2, 3, 20, 5):
        local_healthomics.clock.advance(seconds)
        batch = omics.get_batch(batchId=batch_id)
        seen.append((batch["status"], counts(batch, "submissionSummary"), counts(batch, "runSummary")))

    pending, started = "pendingStartSubmissionCount", "successfulStartSubmissionCount"
    assert seen == [
        ("CREATING", {pending: 10}, {}),
        ("PENDING", {pending: 10}, {}),
        ("SUBMITTING", {pending: 10}, {}),
        ("SUBMITTING", {started: 5, pending: 5}, {"pendingRunCount": 5}),
        ("INPROGRESS", {started: 10}, {"pendingRunCount": 10}),
        ("INPROGRESS", {started: 10}, {"startingRunCount": 10}),
        ("INPROGRESS", {started: 10}, {"runningRunCount": 10}),
        ("INPROGRESS", {started: 10}, {"stoppingRunCount": 10}),
        ("PROCESSED", {started: 10}, {"completedRunCount": 10}),
    ]
    assert (batch["name"], batch["tags"], batch["totalRuns"]) == ("cohort", {"a": "b"}, 10)
    assert batch["defaultRunSetting"] == DEFAULT_RUN_SETTING
    times = [batch[name] for name in ("creationTime", "submittedTime", "processedTime")]
    assert [(later - times[0]).total_seconds() for later in times] == [0, 3.5, 33.5]


def test_runs_are_listed_once_they_are_submitted(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics, 10)
    assert rows(omics, batch_id) == {}

    local_healthomics.clock.advance(3.25)
    assert list(rows(omics, batch_id)) == [f"sample-{index}" for index in range(5)]

    local_healthomics.settings.list_unsubmitted_runs = True
    late_id = start(omics, 2)
    local_healthomics.clock.advance(3)
    assert rows(omics, late_id) == {f"sample-{index}": {"runSettingId": f"sample-{index}"} for index in range(2)}
    assert rows(omics, late_id, submissionStatus="SUCCESS") == {}


def test_a_row_leads_to_its_run(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    inline = [
        {
            "runSettingId": "a",
            "name": "run-a",
            "priority": 7,
            "parameters": {"reads": ["1", "2"], "depth": 3},
            "runTags": {"sample": "a"},
        }
    ]
    default = {"parameters": {"genome": "hg38", "depth": 1}, "runTags": {"team": "x", "sample": "?"}, "priority": 1}
    batch_id = start(omics, default=default, batchRunSettings={"inlineSettings": inline})
    local_healthomics.clock.advance(5)
    row = rows(omics, batch_id)["a"]

    run = omics.get_run(id=row["runId"])

    assert (run["uuid"], run["arn"], run["batchId"]) == (row["runInternalUuid"], row["runArn"], batch_id)
    assert (run["name"], run["priority"], run["workflowId"]) == ("run-a", 7, "4711")
    assert run["parameters"] == {"genome": "hg38", "depth": 3, "reads": ["1", "2"]}
    assert run["tags"] == {"team": "x", "sample": "a"}
    assert run["runOutputUri"] == f"s3://results/out/{run['id']}/{run['uuid']}"
    omics.tag_resource(resourceArn=run["arn"], tags={"late": "1"})
    assert omics.get_run(id=row["runId"])["tags"] == {"team": "x", "sample": "a", "late": "1"}


def test_rows_are_paged_and_filtered(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.faults.fail_submission("sample-3", reason="AccessDeniedException", message="no ECR")
    batch_id = start(omics, 7)
    local_healthomics.clock.advance(10)

    pages = list(omics.get_paginator("list_runs_in_batch").paginate(batchId=batch_id, PaginationConfig={"PageSize": 3}))
    failed = rows(omics, batch_id, submissionStatus="FAILED")

    assert [len(page["runs"]) for page in pages] == [3, 3, 1]
    assert failed == {
        "sample-3": {
            "runSettingId": "sample-3",
            "submissionStatus": "FAILED",
            "submissionFailureReason": "AccessDeniedException",
            "submissionFailureMessage": "no ECR",
        }
    }
    assert len(rows(omics, batch_id, submissionStatus="SUCCESS")) == 6
    run_id = rows(omics, batch_id, runSettingId="sample-5")["sample-5"]["runId"]
    assert list(rows(omics, batch_id, runId=run_id)) == ["sample-5"]
    assert rows(omics, batch_id, runSettingId="absent") == {}
    for other in ("x", "1" * 5_000, "\u0661", f"0{run_id}", "\xb2"):
        assert rows(omics, batch_id, runId=other) == {}


@pytest.mark.parametrize("size", [1, 2, 3, 8, 97, 100])
def test_a_shuffled_listing_holds_every_run_once(omics: Any, local_healthomics: LocalHealthOmics, size: int) -> None:
    local_healthomics.settings.listing_order = "shuffled"
    batch_id = start(omics, size)
    local_healthomics.clock.advance(10)

    pages = omics.get_paginator("list_runs_in_batch").paginate(batchId=batch_id, PaginationConfig={"PageSize": 7})
    listed = [row["runSettingId"] for page in pages for row in page["runs"]]

    expected = [setting["runSettingId"] for setting in run_settings(size)]
    assert sorted(listed) == sorted(expected)
    assert size < 4 or listed != expected


def test_two_filters_are_refused(omics: Any) -> None:
    batch_id = start(omics)
    for call in (
        lambda: omics.list_runs_in_batch(batchId=batch_id, runId="1", submissionStatus="FAILED"),
        lambda: omics.list_batch(name="x", status="FAILED"),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code_of(error) == ("ValidationException", 400)


def test_batches_are_listed_by_one_filter(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    old = start(omics, batchName="a")
    local_healthomics.clock.advance(100)
    new = start(omics, batchName="a", default={"runGroupId": "5"})
    start(omics, batchName="b")

    def ids(**filters: str) -> list[str]:
        pages = omics.get_paginator("list_batch").paginate(**filters, PaginationConfig={"PageSize": 1})
        return [item["id"] for page in pages for item in page["items"]]

    assert ids(name="a") == [old, new]
    assert ids(status="PROCESSED") == [old]
    assert ids(runGroupId="5") == [new]
    assert len(ids()) == 3


@pytest.mark.parametrize(
    ("state", "cancel", "delete_runs", "delete"),
    [
        ("CREATING", False, False, False),
        ("PENDING", True, False, False),
        ("SUBMITTING", True, False, False),
        ("INPROGRESS", True, False, False),
        ("PROCESSED", False, True, True),
        ("STOPPING", False, False, False),
        ("CANCELLED", False, True, True),
        ("FAILED", False, False, True),
        ("RUNS_DELETING", False, False, False),
        ("RUNS_DELETED", False, False, True),
        ("RUNS_DELETE_FAILED", False, False, True),
    ],
)
@pytest.mark.parametrize("operation", ["cancel_run_batch", "delete_run_batch", "delete_batch"])
def test_what_a_state_allows(
    omics: Any,
    local_healthomics: LocalHealthOmics,
    state: str,
    cancel: bool,
    delete_runs: bool,
    delete: bool,
    operation: str,
) -> None:
    batch_id = batch_in_state(omics, local_healthomics, state)
    allowed = {"cancel_run_batch": cancel, "delete_run_batch": delete_runs, "delete_batch": delete}[operation]

    if allowed:
        assert getattr(omics, operation)(batchId=batch_id)["ResponseMetadata"]["HTTPStatusCode"] == 202
        return
    with pytest.raises(ClientError) as error:
        getattr(omics, operation)(batchId=batch_id)
    assert code_of(error) == ("ConflictException", 409)
    assert omics.get_batch(batchId=batch_id)["status"] == state


def batch_in_state(omics: Any, local: LocalHealthOmics, state: str) -> str:
    if state == "FAILED":
        local.faults.fail_batch()
    if state == "RUNS_DELETE_FAILED":
        local.faults.fail_delete(["sample-0"])
    batch_id = start(omics)
    if state in IN_STATE:
        local.clock.advance(IN_STATE[state])
    elif state in ("STOPPING", "CANCELLED"):
        local.clock.advance(3.2)
        omics.cancel_run_batch(batchId=batch_id)
        local.clock.advance(0 if state == "STOPPING" else 2)
    else:
        local.clock.advance(100)
        if state.startswith("RUNS_"):
            omics.delete_run_batch(batchId=batch_id)
            local.clock.advance(0 if state == "RUNS_DELETING" else 2)
    assert omics.get_batch(batchId=batch_id)["status"] == state
    return batch_id


def test_a_cancelled_batch_starts_nothing_more(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.faults.fail_cancel(["sample-1"])
    batch_id = start(omics, 10)
    local_healthomics.clock.advance(3.25)

    omics.cancel_run_batch(batchId=batch_id)
    stopping = omics.get_batch(batchId=batch_id)
    local_healthomics.clock.advance(2)
    cancelled = omics.get_batch(batchId=batch_id)

    assert counts(stopping, "runSummary") == {"stoppingRunCount": 4, "pendingRunCount": 1}
    assert cancelled["status"] == "CANCELLED"
    assert cancelled["submissionSummary"] == {
        "successfulStartSubmissionCount": 5,
        "failedStartSubmissionCount": 0,
        "pendingStartSubmissionCount": 5,
        "successfulCancelSubmissionCount": 4,
        "failedCancelSubmissionCount": 1,
    }
    listed = rows(omics, batch_id)
    assert len(listed) == 5
    assert listed["sample-1"]["submissionStatus"] == "CANCEL_FAILED"
    assert {omics.get_run(id=row["runId"])["status"] for row in listed.values()} == {"CANCELLED", "STARTING"}
    local_healthomics.clock.advance(100)
    assert counts(omics.get_batch(batchId=batch_id), "runSummary") == {"cancelledRunCount": 4, "completedRunCount": 1}


def test_runs_that_a_cancelled_batch_never_submitted_can_be_listed(
    omics: Any, local_healthomics: LocalHealthOmics
) -> None:
    local_healthomics.settings.cancelled_before_submission = "listed"
    batch_id = start(omics, 10)
    local_healthomics.clock.advance(3.25)

    omics.cancel_run_batch(batchId=batch_id)

    listed = rows(omics, batch_id, submissionStatus="CANCEL_SUCCESS")
    assert len(listed) == 10
    assert sum("runId" in row for row in listed.values()) == 5


def test_runs_of_a_batch_that_is_cancelled_before_submission_can_be_listed(
    omics: Any, local_healthomics: LocalHealthOmics
) -> None:
    local_healthomics.settings.cancelled_before_submission = "listed"
    batch_id = start(omics, 10)
    local_healthomics.clock.advance(2)

    omics.cancel_run_batch(batchId=batch_id)

    listed = rows(omics, batch_id, submissionStatus="CANCEL_SUCCESS")
    assert len(listed) == 10
    assert not any("runId" in row for row in listed.values())
    local_healthomics.clock.advance(100)
    batch = omics.get_batch(batchId=batch_id)
    assert (batch["status"], counts(batch, "runSummary")) == ("CANCELLED", {})
    assert batch["submissionSummary"]["successfulCancelSubmissionCount"] == 10


def test_deleting_the_runs_can_fail_for_some(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.faults.fail_delete(["sample-0", "sample-2"])
    batch_id = start(omics, 3)
    local_healthomics.clock.advance(100)
    run_ids = {name: row["runId"] for name, row in rows(omics, batch_id).items()}

    omics.delete_run_batch(batchId=batch_id)
    local_healthomics.clock.advance(2)

    batch = omics.get_batch(batchId=batch_id)
    assert batch["status"] == "RUNS_DELETE_FAILED"
    assert counts(batch, "runSummary") == {"completedRunCount": 2, "deletedRunCount": 1}
    assert batch["submissionSummary"]["failedDeleteSubmissionCount"] == 2
    assert list(rows(omics, batch_id, submissionStatus="DELETE_SUCCESS")) == ["sample-1"]
    assert {item["id"] for item in omics.list_runs()["items"]} == {run_ids["sample-0"], run_ids["sample-2"]}
    with pytest.raises(ClientError) as error:
        omics.get_run(id=run_ids["sample-1"])
    assert code_of(error) == ("ResourceNotFoundException", 404)


def test_the_time_of_processing_stays_when_the_runs_are_deleted(
    omics: Any, local_healthomics: LocalHealthOmics
) -> None:
    batch_id = start(omics, 3)
    local_healthomics.clock.advance(100)
    before = omics.get_batch(batchId=batch_id)["processedTime"]
    omics.delete_run(id=rows(omics, batch_id)["sample-2"]["runId"])
    assert omics.get_batch(batchId=batch_id)["processedTime"] == before

    omics.delete_run_batch(batchId=batch_id)
    local_healthomics.clock.advance(100)

    deleted = omics.get_batch(batchId=batch_id)
    assert (deleted["status"], deleted["processedTime"]) == ("RUNS_DELETED", before)


def test_counts_can_wait_for_the_submission(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.counts_before_submitting = False
    batch_id = start(omics, 3)
    local_healthomics.clock.advance(2)
    assert not {"totalRuns", "submissionSummary", "runSummary"} & omics.get_batch(batchId=batch_id).keys()

    local_healthomics.clock.advance(1)

    assert omics.get_batch(batchId=batch_id)["submissionSummary"]["pendingStartSubmissionCount"] == 3


def test_a_deleted_batch_is_gone_and_its_runs_stay(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics, 2)
    local_healthomics.clock.advance(100)

    omics.delete_batch(batchId=batch_id)

    for operation in ("get_batch", "list_runs_in_batch", "cancel_run_batch", "delete_run_batch", "delete_batch"):
        with pytest.raises(ClientError) as error:
            getattr(omics, operation)(batchId=batch_id)
        assert code_of(error) == ("ResourceNotFoundException", 404)
    assert omics.list_batch()["items"] == []
    assert [item["batchId"] for item in omics.list_runs()["items"]] == [batch_id, batch_id]


def test_single_runs_are_cancelled_and_deleted(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics, 3)
    local_healthomics.clock.advance(4)
    run_id = rows(omics, batch_id)["sample-1"]["runId"]

    with pytest.raises(ClientError) as error:
        omics.delete_run(id=run_id)
    assert code_of(error) == ("ConflictException", 409)
    omics.cancel_run(id=run_id)
    assert omics.get_run(id=run_id)["status"] == "STOPPING"
    with pytest.raises(ClientError) as error:
        omics.get_run(id="999")
    assert code_of(error) == ("ResourceNotFoundException", 404)
    local_healthomics.clock.advance(100)
    assert omics.get_run(id=run_id)["status"] == "CANCELLED"
    with pytest.raises(ClientError) as error:
        omics.cancel_run(id=run_id)
    assert code_of(error) == ("ConflictException", 409)
    batch = omics.get_batch(batchId=batch_id)
    assert (batch["status"], counts(batch, "runSummary")) == (
        "PROCESSED",
        {"completedRunCount": 2, "cancelledRunCount": 1},
    )

    omics.delete_run(id=run_id)

    assert len(omics.list_runs(batchId=batch_id)["items"]) == 2
    assert counts(omics.get_batch(batchId=batch_id), "runSummary") == {"completedRunCount": 2, "deletedRunCount": 1}


def test_run_ids_can_be_reused(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.reuse_run_ids = True
    first_id = start(omics, 1, {"runTags": {"batch": "first"}})
    local_healthomics.clock.advance(100)
    old = rows(omics, first_id)["sample-0"]
    omics.delete_run(id=old["runId"])
    for call in (omics.list_tags_for_resource, lambda **arn: omics.tag_resource(**arn, tags={"late": "1"})):
        with pytest.raises(ClientError) as error:
            call(resourceArn=old["runArn"])
        assert code_of(error) == ("ResourceNotFoundException", 404)
    second_id = start(omics, 1, {"runTags": {"batch": "second"}})
    local_healthomics.clock.advance(100)

    new = rows(omics, second_id)["sample-0"]

    assert new["runId"] == old["runId"]
    assert omics.list_tags_for_resource(resourceArn=new["runArn"])["tags"] == {"batch": "second"}
    assert new["runInternalUuid"] != old["runInternalUuid"]
    assert omics.get_run(id=new["runId"])["batchId"] == second_id


def test_a_run_that_is_stopping_can_be_cancelled(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics, 1)
    local_healthomics.clock.advance(30)
    run_id = rows(omics, batch_id)["sample-0"]["runId"]
    assert omics.get_run(id=run_id)["status"] == "STOPPING"

    for _ in range(2):
        omics.cancel_run(id=run_id)

    local_healthomics.clock.advance(100)
    assert omics.get_run(id=run_id)["status"] == "CANCELLED"


def test_small_steps_of_the_clock_add_up(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics)
    for status in ("PENDING", "PENDING", "SUBMITTING"):
        for _ in range(10):
            local_healthomics.clock.advance(0.1)
        assert omics.get_batch(batchId=batch_id)["status"] == status


def test_a_failed_run_is_no_failed_submission(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics, 3)
    local_healthomics.clock.advance(20)
    local_healthomics.faults.fail_run("sample-1", reason="OUT_OF_MEMORY_ERROR")
    local_healthomics.clock.advance(100)

    batch = omics.get_batch(batchId=batch_id)

    assert batch["status"] == "PROCESSED"
    assert counts(batch, "runSummary") == {"completedRunCount": 2, "failedRunCount": 1}
    assert batch["submissionSummary"]["failedStartSubmissionCount"] == 0
    failed = omics.list_runs(batchId=batch_id, status="FAILED")["items"]
    assert omics.get_run(id=failed[0]["id"])["failureReason"] == "OUT_OF_MEMORY_ERROR"


def test_a_batch_without_any_run_is_processed_at_once_or_later(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.delete_run_group("5")
    for seconds, status in ((0, "PROCESSED"), (30, "INPROGRESS")):
        local_healthomics.settings.seconds_in_progress_without_runs = seconds
        batch_id = start(omics, 2, {"runGroupId": "5"})
        local_healthomics.clock.advance(3.1)
        assert omics.get_batch(batchId=batch_id)["status"] == status
        local_healthomics.clock.advance(30)
        assert omics.get_batch(batchId=batch_id)["status"] == "PROCESSED"


@pytest.mark.parametrize(
    ("after", "started_runs", "left"),
    [("CREATING", 0, 0), ("PENDING", 0, 0), ("SUBMITTING", 0, 0), ("SUBMITTING", 4, 4)],
)
def test_a_failed_batch_can_leave_runs_behind(
    omics: Any, local_healthomics: LocalHealthOmics, after: Any, started_runs: int, left: int
) -> None:
    local_healthomics.faults.fail_batch("transient", after=after, started_runs=started_runs)
    batch_id = start(omics, 10)
    local_healthomics.clock.advance(100)

    batch = omics.get_batch(batchId=batch_id)
    again = start(omics, 1)
    local_healthomics.clock.advance(100)

    assert (batch["status"], batch["failureReason"]) == ("FAILED", "transient")
    assert batch["failedTime"] > batch["creationTime"]
    assert len(omics.list_runs(batchId=batch_id)["items"]) == left
    assert omics.get_batch(batchId=again)["status"] == "PROCESSED"


@pytest.mark.parametrize(
    ("after", "seen_after", "status"),
    [("CREATING", 1, "PROCESSED"), ("PENDING", 3, "PROCESSED"), ("PENDING", 1, "FAILED")],
)
def test_a_batch_does_not_fail_in_a_state_that_it_has_left(
    omics: Any, local_healthomics: LocalHealthOmics, after: Any, seen_after: float, status: str
) -> None:
    batch_id = start(omics)
    local_healthomics.clock.advance(seen_after)
    omics.get_batch(batchId=batch_id)

    local_healthomics.faults.fail_batch(after=after)

    local_healthomics.clock.advance(100)
    assert omics.get_batch(batchId=batch_id)["status"] == status


@pytest.mark.parametrize("after", ["CREATING", "PENDING"])
def test_a_batch_can_fail_in_a_state_that_lasts_no_time(
    omics: Any, local_healthomics: LocalHealthOmics, after: Any
) -> None:
    local_healthomics.settings.creating_seconds = local_healthomics.settings.pending_seconds = 0
    local_healthomics.faults.fail_batch(after=after)

    assert omics.get_batch(batchId=start(omics))["status"] == "FAILED"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (run_settings(3) + run_settings(1), "Expected 4 unique runSettingIds but there were 3"),
        (b"{not json", "Invalid JSON format in run configurations"),
        (b'[{"runSettingId": "a", "parameters": {"x": NaN}}]', "Invalid JSON format in run configurations"),
        (b'[{"runSettingId": "a", "parameters": {"x": 1e999}}]', "Invalid JSON format in run configurations"),
        (b"[" * 100_000, "Invalid JSON format in run configurations"),
        ({"inlineSettings": []}, "Invalid JSON format in run configurations"),
        (b'[{"name": "no id"}, {]', "Invalid JSON format in run configurations"),
        (b'[{"runSettingId": "a"}] x', "Invalid JSON format in run configurations"),
        (b" [ ] ", "Batch has 0 runs but 1 run is the min."),
        ([{"name": "no id"}] * 6, "Batch has 6 runs but 5 runs is the max."),
        (run_settings(6), "Batch has 6 runs but 5 runs is the max."),
        ([{"name": "no id"}], "runConfigurations.1.member.runSettingId"),
        ([{"runSettingId": "a", "priority": "high"}], "runConfigurations.1.member.priority"),
        ([{"runSettingId": "a", "parameters": [1]}], "parameters must be a JSON object"),
    ],
)
def test_a_bad_settings_file_fails_the_batch_late(
    omics: Any, local_healthomics: LocalHealthOmics, content: Any, reason: str
) -> None:
    local_healthomics.settings.max_runs_in_batch = 5
    batch_id = start(omics, batchRunSettings=stage(content))
    local_healthomics.clock.advance(2.9)
    assert omics.get_batch(batchId=batch_id)["status"] == "PENDING"

    local_healthomics.clock.advance(0.1)

    batch = omics.get_batch(batchId=batch_id)
    assert batch["status"] == "FAILED"
    assert reason in batch["failureReason"]
    assert "totalRuns" not in batch
    assert rows(omics, batch_id) == {}


def test_inline_duplicates_fail_the_batch_late(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics, batchRunSettings={"inlineSettings": run_settings(1) * 2})
    local_healthomics.clock.advance(3)

    assert omics.get_batch(batchId=batch_id)["failureReason"] == "Expected 2 unique runSettingIds but there were 1"


def test_a_settings_file_must_not_change(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics, batchRunSettings=stage(run_settings(1)))
    stage(run_settings(2))
    local_healthomics.clock.advance(3)

    assert omics.get_batch(batchId=batch_id)["failureReason"].startswith("Expected s3UriConfigs etag: ")


@pytest.mark.parametrize("uri", ["s3://results/absent", "s3://absent/x", "s3://results", "results/x", "http://x/y"])
def test_a_settings_file_that_cannot_be_read_is_refused_at_once(omics: Any, uri: str) -> None:
    with pytest.raises(ClientError) as error:
        start(omics, batchRunSettings={"s3UriSettings": uri})

    assert code_of(error) == ("ValidationException", 400)
    assert omics.list_batch()["items"] == []


def test_runs_of_a_settings_file_are_counted_once_it_was_read(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics, batchRunSettings=stage(run_settings(150)))
    assert "totalRuns" not in omics.get_batch(batchId=batch_id)

    local_healthomics.clock.advance(3)

    assert omics.get_batch(batchId=batch_id)["totalRuns"] == 150
    local_healthomics.clock.advance(100)
    assert len(rows(omics, batch_id)) == 150


@pytest.mark.parametrize("missing", ["cache", "deleted cache", "run group"])
def test_what_is_missing_fails_each_submission(omics: Any, local_healthomics: LocalHealthOmics, missing: str) -> None:
    default = {"cacheId": "99"}
    if missing == "deleted cache":
        default = {"cacheId": omics.create_run_cache(cacheS3Location="s3://caches")["id"]}
    if missing == "run group":
        local_healthomics.settings.strict_run_groups = True
        default = {"runGroupId": "1"}
    batch_id = start(omics, 2, default)
    if missing == "deleted cache":
        omics.delete_run_cache(id=default["cacheId"])
    local_healthomics.clock.advance(10)

    batch = omics.get_batch(batchId=batch_id)

    assert batch["status"] == "PROCESSED"
    assert batch["submissionSummary"]["failedStartSubmissionCount"] == 2
    assert {row["submissionFailureReason"] for row in rows(omics, batch_id).values()} == {"ResourceNotFoundException"}


def test_runs_without_the_bucket_of_their_outputs_fail_at_their_end(
    omics: Any, local_healthomics: LocalHealthOmics
) -> None:
    local_healthomics.settings.check_output_bucket = True
    lost = omics.start_run_batch(
        defaultRunSetting={**DEFAULT_RUN_SETTING, "outputUri": "s3://no-such-bucket/out"},
        batchRunSettings={"inlineSettings": [*run_settings(2), {"runSettingId": "kept", "outputUri": "s3://results/"}]},
    )["id"]
    kept = start(omics, 2)
    local_healthomics.clock.advance(10)
    assert omics.get_batch(batchId=lost)["submissionSummary"]["successfulStartSubmissionCount"] == 3
    local_healthomics.clock.advance(100)

    summary = omics.get_batch(batchId=lost)["runSummary"]
    assert (summary["failedRunCount"], summary["completedRunCount"]) == (2, 1)
    for item in omics.list_runs(batchId=lost, status="FAILED")["items"]:
        run = omics.get_run(id=item["id"])
        assert run["failureReason"] == "EXPORT_FAILED"
        assert run["statusMessage"] == "The bucket no-such-bucket of the outputUri does not exist"
    assert omics.get_batch(batchId=kept)["runSummary"]["completedRunCount"] == 2


def test_registered_workflows_and_run_groups_exist(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.strict_workflows = True
    local_healthomics.settings.strict_run_groups = True
    local_healthomics.register_workflow("4711")
    local_healthomics.register_run_group("5")
    batch_id = start(omics, 2, {"runGroupId": "5"})
    local_healthomics.clock.advance(10)

    assert omics.get_batch(batchId=batch_id)["submissionSummary"]["successfulStartSubmissionCount"] == 2


def test_parameters_are_checked_against_the_template(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.register_workflow("4711", parameter_template={"reads": {}, "depth": {"optional": True}})
    inline = [
        {"runSettingId": "good", "parameters": {"reads": "x"}},
        {"runSettingId": "misspelt", "parameters": {"reads": "x", "dept": 3}},
        {"runSettingId": "missing", "parameters": {"depth": 3}},
    ]
    batch_id = start(omics, batchRunSettings={"inlineSettings": inline})
    local_healthomics.clock.advance(10)

    listed = rows(omics, batch_id)

    assert listed["good"]["submissionStatus"] == "SUCCESS"
    assert listed["misspelt"]["submissionFailureReason"] == "ValidationException"
    assert "dept" in listed["misspelt"]["submissionFailureMessage"]
    assert "reads" in listed["missing"]["submissionFailureMessage"]


def test_a_run_needs_an_output_uri_and_small_parameters(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    default = {"workflowId": "4711", "roleArn": "arn:aws:iam::123456789012:role/omics"}
    inline = [
        {"runSettingId": "good", "outputUri": "s3://results/x"},
        {"runSettingId": "nowhere"},
        {"runSettingId": "large", "outputUri": "s3://results/x", "parameters": {"x": "y" * 256_000}},
    ]
    answer = omics.start_run_batch(defaultRunSetting=default, batchRunSettings={"inlineSettings": inline})
    local_healthomics.clock.advance(10)

    reasons = {name: row.get("submissionFailureReason") for name, row in rows(omics, answer["id"]).items()}

    assert reasons == {"good": None, "nowhere": "ValidationException", "large": "ValidationException"}


@pytest.mark.parametrize("template", [None, {"reads": {}, "genome": {}}])
@pytest.mark.parametrize("letter", ["x", "é", "\ud800"])
@pytest.mark.parametrize(("excess", "reason"), [(0, None), (1, "ValidationException")])
def test_merged_parameters_are_measured_as_compact_utf8(
    omics: Any, local_healthomics: LocalHealthOmics, template: Any, letter: str, excess: int, reason: str | None
) -> None:
    if template is not None:
        local_healthomics.register_workflow("4711", parameter_template=template)
    around = len(b'{"genome":"","reads":""}')
    letters = letter * ((256_000 - around) // len(letter.encode("utf-8", "surrogatepass")))
    rest = "y" * (256_000 - around - len(letters.encode("utf-8", "surrogatepass")) + excess)
    inline = [{"runSettingId": "a", "parameters": {"reads": rest}}]
    batch_id = start(omics, default={"parameters": {"genome": letters}}, batchRunSettings={"inlineSettings": inline})
    local_healthomics.clock.advance(10)

    assert rows(omics, batch_id)["a"].get("submissionFailureReason") == reason


@pytest.mark.parametrize(
    "default", [{"cacheBehavior": "CACHE_ALWAYS"}, {"parameters": ["x"]}, {"runTags": {"aws:x": "y"}}]
)
def test_a_default_setting_that_no_run_can_have_is_refused(omics: Any, default: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as error:
        start(omics, 1, default)

    assert code_of(error) == ("ValidationException", 400)


def test_a_batch_can_be_found_late(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.batch_visible_after = 5
    batch_id = start(omics)

    with pytest.raises(ClientError) as error:
        omics.get_batch(batchId=batch_id)
    assert code_of(error) == ("ResourceNotFoundException", 404)
    assert omics.list_batch()["items"] == []

    local_healthomics.clock.advance(5)
    assert omics.get_batch(batchId=batch_id)["id"] == batch_id


def test_completed_runs_are_reported_once(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    reported: list[dict[str, Any]] = []
    local_healthomics.on_run_completed = reported.append
    local_healthomics.faults.fail_run("sample-2")
    batch_id = start(omics, 40)
    seen = []
    for seconds in (33, 0.5, 0, 100):
        local_healthomics.clock.advance(seconds)
        omics.get_batch(batchId=batch_id)
        seen.append(len(reported))

    assert seen == [0, 9, 9, 39]
    assert "sample-2" not in [run["runSettingId"] for run in reported]
    assert reported[0]["status"] == "COMPLETED"
    assert reported[0]["runOutputUri"].startswith("s3://results/out/")


def test_a_run_is_not_completed_before_it_was_reported(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    reported: list[str] = []

    def refuse_one(run: dict[str, Any]) -> None:
        if run["runSettingId"] == "sample-1":
            raise AssertionError("no disk")
        reported.append(run["runSettingId"])

    local_healthomics.on_run_completed = refuse_one
    batch_id = start(omics, 3)
    local_healthomics.clock.advance(100)
    for _ in range(2):
        with pytest.raises(ClientError, match=r"on_run_completed failed: AssertionError.*no disk") as error:
            omics.get_batch(batchId=batch_id)
        assert code_of(error) == ("CallbackFailed", 400)
    assert reported == ["sample-0"]

    local_healthomics.on_run_completed = lambda run: reported.append(run["runSettingId"])

    assert omics.get_batch(batchId=batch_id)["status"] == "PROCESSED"
    assert reported == ["sample-0", "sample-1", "sample-2"]


def test_runs_are_held_back_from_others_while_they_are_reported(
    omics: Any, local_healthomics: LocalHealthOmics
) -> None:
    reached, released = threading.Event(), threading.Event()

    def write_slowly(run: dict[str, Any]) -> None:
        if run["runSettingId"] == "sample-1":
            reached.set()
            assert released.wait(30)

    local_healthomics.on_run_completed = write_slowly
    batch_id = start(omics, 3)
    local_healthomics.clock.advance(100)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(omics.get_batch, batchId=batch_id)
        try:
            assert reached.wait(30)
            meanwhile = omics.get_batch(batchId=batch_id)
            states = [run["status"] for run in omics.list_runs(batchId=batch_id)["items"]]
            listed = [len(omics.list_runs(status=state)["items"]) for state in ("COMPLETED", "STOPPING")]
        finally:
            released.set()

    assert (meanwhile["status"], "processedTime" in meanwhile) == ("INPROGRESS", False)
    assert counts(meanwhile, "runSummary") == {"completedRunCount": 1, "stoppingRunCount": 2}
    assert states == ["COMPLETED", "STOPPING", "STOPPING"]
    assert listed == [1, 2]
    assert first.result()["status"] == omics.get_batch(batchId=batch_id)["status"] == "PROCESSED"


def test_runs_that_are_held_back_are_let_go_with_the_callback(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.on_run_completed = lambda run: run[0]
    batch_id = start(omics, 3)
    local_healthomics.clock.advance(100)
    with pytest.raises(ClientError, match="KeyError"):
        omics.get_batch(batchId=batch_id)

    local_healthomics.on_run_completed = None

    assert omics.get_batch(batchId=batch_id)["status"] == "PROCESSED"


def test_a_run_that_is_cancelled_before_it_was_reported_has_not_completed(
    omics: Any, local_healthomics: LocalHealthOmics
) -> None:
    reported: list[str] = []

    def cancel_the_others(run: dict[str, Any]) -> None:
        reported.append(run["runSettingId"])
        for other in omics.list_runs(status="STOPPING")["items"]:
            if other["id"] != run["id"]:
                omics.cancel_run(id=other["id"])

    local_healthomics.on_run_completed = cancel_the_others
    batch_id = start(omics, 3)
    local_healthomics.clock.advance(100)
    omics.get_batch(batchId=batch_id)
    local_healthomics.clock.advance(100)

    assert counts(omics.get_batch(batchId=batch_id), "runSummary") == {"completedRunCount": 1, "cancelledRunCount": 2}
    assert reported == ["sample-0"]


def test_no_run_is_kept_for_the_callback(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics, batchRunSettings=stage(run_settings(10_000)))
    local_healthomics.clock.advance(600)
    omics.get_batch(batchId=batch_id)
    reported: list[None] = []
    local_healthomics.on_run_completed = lambda run: reported.append(None)

    tracemalloc.start()
    try:
        omics.get_batch(batchId=batch_id)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(reported) == 10_000
    assert peak < 1_000_000


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.integers(1, 30),
    rate=st.sampled_from([0.7, 3.0, 20.0, 1000.0, float("inf")]),
    shared_rate=st.sampled_from([None, 0.9, 5.0, float("inf")]),
    failing=st.sets(st.integers(0, 29)),
    refused=st.sets(st.integers(0, 29)),
    steps=st.lists(
        st.one_of(
            st.floats(0, 40),
            st.sampled_from(["cancel_batch", "delete_runs", "cancel_run", "delete_run", "start_another"]),
        ),
        max_size=12,
    ),
)
def test_counts_are_what_the_listings_show(
    number: int,
    rate: float,
    shared_rate: float | None,
    failing: set[int],
    refused: set[int],
    steps: list[float | str],
) -> None:
    with mock_healthomics() as local:
        omics = new_client("omics")
        local.settings.submission_rate = rate
        if shared_rate is not None:
            local.settings.rate_limits = {"StartRun": shared_rate}
        for index in failing:
            local.faults.fail_run(f"sample-{index}")
        for index in refused:
            local.faults.fail_submission(f"sample-{index}")
            local.faults.fail_cancel([f"sample-{index + 1}"])
            local.faults.fail_delete([f"sample-{index + 2}"])
        batch_id = start(omics, number)
        for step in steps:
            change(omics, local, batch_id, step)
            batch = omics.get_batch(batchId=batch_id)
            listed = rows(omics, batch_id)
            runs = omics.list_runs(batchId=batch_id)["items"]
            summary, states = batch["submissionSummary"], counts(batch, "runSummary")
            started = sum("runId" in row for row in listed.values())
            assert summary["successfulStartSubmissionCount"] == started
            assert summary["failedStartSubmissionCount"] == len(listed) - started
            assert summary["pendingStartSubmissionCount"] == number - len(listed)
            assert sum(states.values()) == started
            for state in RUN_STATES:
                in_state = [run for run in runs if run["status"] == state]
                assert omics.list_runs(batchId=batch_id, status=state)["items"] == in_state
                assert states.get(f"{state.lower()}RunCount", 0) == len(in_state)
            if batch["status"] == "PROCESSED":
                assert all(run["status"] in ("COMPLETED", "FAILED", "CANCELLED") for run in runs)


def change(omics: Any, local: LocalHealthOmics, batch_id: str, step: float | str) -> None:
    if not isinstance(step, str):
        local.clock.advance(step)
        return
    with contextlib.suppress(omics.exceptions.ConflictException):
        if step == "cancel_batch":
            omics.cancel_run_batch(batchId=batch_id)
        elif step == "delete_runs":
            omics.delete_run_batch(batchId=batch_id)
        elif step == "start_another":
            start(omics, 5)
        else:
            runs = omics.list_runs(batchId=batch_id)["items"]
            for run in runs[: len(runs) // 2]:
                getattr(omics, step)(id=run["id"])


@pytest.mark.large
def test_a_hundred_thousand_runs_are_normal(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    small_id = start(omics, batchRunSettings=stage(settings_of_samples(1_000)))
    local_healthomics.clock.advance(3)
    omics.list_batch()  # loads what is loaded once, too
    source = stage(settings_of_samples(100_000))
    file_size = s3_client().head_object(Bucket="results", Key="settings.json")["ContentLength"]
    tracemalloc.start()
    try:
        batch_id = start(omics, batchRunSettings=source)
        local_healthomics.clock.advance(3)
        omics.get_batch(batchId=batch_id)
        local_healthomics.clock.advance(5_100)
        omics.get_batch(batchId=batch_id)
        size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size < 30_000_000
    assert peak < 2 * file_size + 10_000_000
    assert peak < file_size + 60_000_000
    pages = omics.get_paginator("list_runs_in_batch").paginate(batchId=batch_id)
    token = next(itertools.islice(pages, 300, None))["nextToken"]
    for call, late in (
        (omics.get_batch, {}),
        (omics.list_runs_in_batch, {}),
        (omics.list_runs_in_batch, {"startingToken": token}),
        (omics.list_runs, {}),
        *((omics.list_runs, {"status": state}) for state in RUN_STATES),
    ):
        few = {name: value for name, value in late.items() if name != "startingToken"}
        assert costs_as_much(partial(call, batchId=small_id, **few), partial(call, batchId=batch_id, **late)), late


@pytest.mark.large
@pytest.mark.parametrize(
    ("report", "rate_limits", "status"),
    [(None, {}, "INPROGRESS"), (lambda run: None, {}, "INPROGRESS"), (None, {"StartRun": 5.0}, "SUBMITTING")],
)
def test_a_thousand_active_batches_are_normal(
    omics: Any, local_healthomics: LocalHealthOmics, report: Any, rate_limits: dict[str, float], status: str
) -> None:
    local_healthomics.on_run_completed = report
    local_healthomics.settings.rate_limits = rate_limits
    local_healthomics.settings.run_running_seconds = 1_000
    few = new_client("omics", "eu-west-1")
    for client, number in ((few, 100), (omics, 1_000)):
        batch_ids = [start(client) for _ in range(number)]
    few_id = few.list_batch()["items"][-1]["id"]
    local_healthomics.clock.advance(500)
    listed = [item for page in omics.get_paginator("list_batch").paginate() for item in page["items"]]

    assert [item["id"] for item in listed] == batch_ids
    assert {item["status"] for item in listed} == {status}
    token = list(omics.get_paginator("list_batch").paginate())[-2]["nextToken"]
    assert costs_as_much(partial(few.get_batch, batchId=few_id), partial(omics.get_batch, batchId=batch_ids[-1]))
    assert costs_as_much(few.list_batch, omics.list_batch)
    assert costs_as_much(few.list_batch, partial(omics.list_batch, startingToken=token))
    assert costs_as_much(few.list_runs, omics.list_runs)


def settings_of_samples(number: int) -> list[dict[str, Any]]:
    return [
        {
            "runSettingId": f"sample-{index:06d}",
            "parameters": {name: f"s3://reads/{'cohort/' * 20}sample-{index:06d}/{name}.gz" for name in ("1", "2")},
        }
        for index in range(number)
    ]


def costs_as_much(small: Callable[[], Any], large: Callable[[], Any]) -> bool:
    """Whether the second call takes about as long as the first one, which has far less before it."""
    for call in (small, large):
        call()
    times = [(seconds(small), seconds(large)) for _ in range(20)]
    return min(large for _, large in times) < 4 * min(small for small, _ in times)


def seconds(call: Callable[[], Any]) -> float:
    started_at = time.perf_counter()
    call()
    return time.perf_counter() - started_at
