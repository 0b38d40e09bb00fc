from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from airflow_provider_omics_cache.local import LocalHealthOmics
from tests.conftest import needs_batches
from tests.local.conftest import DEFAULT_RUN_SETTING, run_settings


def start(omics: Any, number: int = 10) -> str:
    answer = omics.start_run_batch(
        batchName="cohort",
        defaultRunSetting=DEFAULT_RUN_SETTING,
        batchRunSettings={"inlineSettings": run_settings(number)},
    )
    batch_id: str = answer["id"]
    return batch_id


def test_a_throttled_call_has_no_effect_and_is_counted(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.faults.throttle("CreateRunCache", times=2)

    for _ in range(2):
        with pytest.raises(omics.exceptions.ThrottlingException) as error:
            omics.create_run_cache(cacheS3Location="s3://caches")
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert omics.list_run_caches()["items"] == []
    omics.create_run_cache(cacheS3Location="s3://caches")

    assert local_healthomics.calls == {"CreateRunCache": 3, "ListRunCaches": 1}


def test_botocore_retries_what_it_should(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.faults.throttle("ListRunCaches", times=1)
    patient = boto3.client("omics", config=Config(retries={"mode": "standard", "total_max_attempts": 2}))

    assert patient.list_run_caches()["ResponseMetadata"]["RetryAttempts"] == 1


def test_a_rate_of_errors_strikes_about_that_share(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.faults.error("ListRunCaches", code="InternalServerException", rate=0.3, times=None)
    failed = 0
    for _ in range(200):
        try:
            omics.list_run_caches()
        except omics.exceptions.InternalServerException:
            failed += 1

    assert 30 < failed < 90


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("InternalServerException", None, 500),
        ("RequestTimeoutException", None, 408),
        ("AccessDeniedException", None, 403),
        ("ServiceQuotaExceededException", None, 402),
        ("SomethingNew", 418, 418),
    ],
)
def test_any_error_can_be_answered(
    omics: Any, local_healthomics: LocalHealthOmics, code: str, status: int | None, expected: int
) -> None:
    local_healthomics.faults.error("*", code=code, status=status, message="on demand")

    with pytest.raises(ClientError) as error:
        omics.list_run_caches()

    assert error.value.response["Error"] == {"Code": code, "Message": "on demand"}
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == expected


@pytest.mark.parametrize(("after_effect", "left"), [(True, 1), (False, 0)])
def test_a_connection_drops_before_or_after_the_effect(
    omics: Any, local_healthomics: LocalHealthOmics, after_effect: bool, left: int
) -> None:
    local_healthomics.faults.drop_connection("CreateRunCache", after_effect=after_effect)

    with pytest.raises(ConnectionClosedError):
        omics.create_run_cache(cacheS3Location="s3://caches", requestId="x")

    assert len(omics.list_run_caches()["items"]) == left
    omics.create_run_cache(cacheS3Location="s3://caches", requestId="x")
    assert len(omics.list_run_caches()["items"]) == 1


def test_a_connection_is_dropped_after_an_effect_only(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.faults.drop_connection("CreateRunCache")
    local_healthomics.faults.throttle("CreateRunCache")

    with pytest.raises(omics.exceptions.ThrottlingException):
        omics.create_run_cache(cacheS3Location="s3://caches")
    with pytest.raises(omics.exceptions.ValidationException):
        omics.create_run_cache(cacheS3Location="s3://missing")
    with pytest.raises(ConnectionClosedError):
        omics.create_run_cache(cacheS3Location="s3://caches")

    assert len(omics.list_run_caches()["items"]) == 1


def test_latency_passes_on_the_clock(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.faults.latency("ListRunCaches", seconds=7, times=1)
    before = local_healthomics.clock.elapsed()

    omics.list_run_caches()
    omics.list_run_caches()

    assert local_healthomics.clock.elapsed() == before + 7


def test_every_request_can_move_the_clock(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.clock.tick = 5
    before = local_healthomics.clock.elapsed()

    for _ in range(3):
        omics.list_run_caches()

    assert local_healthomics.clock.elapsed() == before + 15


def test_cleared_faults_strike_no_more(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.faults.throttle(times=None)
    local_healthomics.faults.drop_connection(times=None)
    local_healthomics.faults.clear()

    omics.list_run_caches()


@needs_batches
def test_counts_can_be_stale_while_the_status_is_not(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics)
    local_healthomics.clock.advance(4)
    local_healthomics.faults.stale_counts(seconds=0.75, times=1)

    stale, fresh = omics.get_batch(batchId=batch_id), omics.get_batch(batchId=batch_id)

    assert stale["status"] == fresh["status"] == "INPROGRESS"
    assert stale["submissionSummary"]["pendingStartSubmissionCount"] == 5
    assert fresh["submissionSummary"]["pendingStartSubmissionCount"] == 0


@needs_batches
def test_the_oldest_of_stale_counts_is_shown(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.faults.stale_counts(seconds=0.25)
    local_healthomics.faults.stale_counts(seconds=10, times=1)
    batch_id = start(omics)
    local_healthomics.clock.advance(3.5)

    pending = [omics.get_batch(batchId=batch_id)["submissionSummary"]["pendingStartSubmissionCount"] for _ in range(2)]

    assert pending == [10, 5]


@needs_batches
@pytest.mark.parametrize("change", ["cancel_run_batch", "delete_run_batch"])
def test_stale_counts_know_what_was_before_a_change(
    omics: Any, local_healthomics: LocalHealthOmics, change: str
) -> None:
    local_healthomics.faults.fail_run("sample-0")
    batch_id = start(omics, 40)
    local_healthomics.clock.advance(8)
    run_ids = [row["runId"] for row in omics.list_runs_in_batch(batchId=batch_id)["runs"]]
    omics.cancel_run(id=run_ids[1])
    local_healthomics.clock.advance(26.02 if change == "cancel_run_batch" else 100)
    before = omics.get_batch(batchId=batch_id)["runSummary"]
    assert (before["failedRunCount"], before["cancelledRunCount"]) == (1, 1)

    getattr(omics, change)(batchId=batch_id)
    local_healthomics.clock.advance(3)
    assert omics.get_batch(batchId=batch_id)["runSummary"] != before
    local_healthomics.faults.stale_counts(seconds=3.01)

    assert omics.get_batch(batchId=batch_id)["runSummary"] == before


@needs_batches
def test_a_listing_can_lag_for_some_calls(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics)
    local_healthomics.clock.advance(4)
    local_healthomics.faults.lagging_listing(rows=3, times=2)

    listed = [len(omics.list_runs_in_batch(batchId=batch_id)["runs"]) for _ in range(3)]

    assert listed == [7, 7, 10]


@needs_batches
def test_a_listing_can_lag_for_some_time(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics)
    local_healthomics.clock.advance(4)
    local_healthomics.faults.lagging_listing(rows=30, seconds=5)
    assert omics.list_runs_in_batch(batchId=batch_id)["runs"] == []

    local_healthomics.clock.advance(5)

    assert len(omics.list_runs_in_batch(batchId=batch_id)["runs"]) == 10


@needs_batches
def test_a_submission_can_fail_in_the_first_batch_only(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.faults.fail_submission("sample-1", reason="ServiceQuotaExceededException", times=1)
    failed = []
    for _ in range(2):
        batch_id = start(omics)
        local_healthomics.clock.advance(10)
        failed.append(omics.list_runs_in_batch(batchId=batch_id, submissionStatus="FAILED")["runs"])

    assert [[row["submissionFailureReason"] for row in rows] for rows in failed] == [
        ["ServiceQuotaExceededException"],
        [],
    ]


@needs_batches
def test_only_the_named_batch_fails(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.faults.fail_batch(batch_name="other", times=None)
    batch_id = start(omics)
    local_healthomics.clock.advance(100)

    assert omics.get_batch(batchId=batch_id)["status"] == "PROCESSED"


@pytest.mark.parametrize(
    ("fault", "arguments", "parameter"),
    [
        ("throttle", {"operation": "GetBatches"}, "operation"),
        ("throttle", {"times": 0}, "times"),
        ("error", {"times": "2"}, "times"),
        ("drop_connection", {"rate": 0}, "rate"),
        ("error", {"rate": 1.1}, "rate"),
        ("latency", {"seconds": -1}, "seconds"),
        ("stale_counts", {"seconds": float("nan")}, "seconds"),
        ("lagging_listing", {"rows": 0}, "rows"),
        ("lagging_listing", {"rows": 1, "seconds": "1"}, "seconds"),
        ("fail_submission", {"run_setting_id": ""}, "run_setting_id"),
        ("fail_run", {"run_setting_id": None}, "run_setting_id"),
        ("fail_cancel", {"run_setting_ids": [1]}, "run_setting_ids"),
        ("fail_delete", {"run_setting_ids": [""]}, "run_setting_ids"),
        ("error", {"status": "teapot"}, "status"),
        ("error", {"status": 200}, "status"),
        ("error", {"status": 600}, "status"),
        ("error", {"code": ""}, "code"),
        ("error", {"message": 5}, "message"),
        ("fail_submission", {"run_setting_id": "a", "reason": 5}, "reason"),
        ("fail_submission", {"run_setting_id": "a", "message": None}, "message"),
        ("fail_run", {"run_setting_id": "a", "reason": ""}, "reason"),
        ("fail_batch", {"reason": None}, "reason"),
        ("fail_batch", {"batch_name": 5}, "batch_name"),
        ("fail_batch", {"after": "PROCESSED"}, "after"),
        ("fail_batch", {"started_runs": 1}, "started_runs"),
        ("fail_batch", {"after": "SUBMITTING", "started_runs": -1}, "started_runs"),
    ],
)
def test_a_fault_that_could_never_strike_is_refused(
    omics: Any, local_healthomics: LocalHealthOmics, fault: str, arguments: dict[str, Any], parameter: str
) -> None:
    with pytest.raises(ValueError, match=f"^{parameter} must be"):
        getattr(local_healthomics.faults, fault)(**arguments)

    omics.list_run_caches()
