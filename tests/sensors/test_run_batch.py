from __future__ import annotations

import json
import logging
import sys
import traceback
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import boto3
import botocore.handlers
import pytest

from airflow_provider_omics_cache._compat import (
    AirflowFailException,
    AirflowOptionalProviderFeatureException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchDeletedError,
    BatchError,
    BatchFailedError,
    BatchNotFoundError,
    BatchSilenceError,
    IncompleteListingError,
    OmicsApiError,
    OmicsParameterError,
    TooManyFailedSubmissionsError,
    TriggerEventError,
)
from airflow_provider_omics_cache.healthomics.batch_runs import list_submissions
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor
from airflow_provider_omics_cache.xcoms import BatchXCom
from tests.conftest import needs_aiobotocore, needs_batches
from tests.sensor_modes import MODES, STORE, TaskDeferred, each_mode, run_sensor, start_batch

pytestmark = needs_batches


@pytest.fixture
def wait(service: Any, task_context: dict[str, Any]) -> Callable[..., Any]:
    """Run the sensor in a mode until it ends."""

    def run(mode: str, batch_id: str, **arguments: Any) -> Any:
        def make(**mode_arguments: Any) -> BatchSubmissionSensor:
            everything = {"task_id": "wait", "poke_interval": 20, "timeout": 3_600, **arguments, **mode_arguments}
            return BatchSubmissionSensor(batch_id=batch_id, **everything)

        return run_sensor(make, mode, task_context, service.clock)

    return run


def calls(service: Any, *operations: str) -> dict[str, int]:
    return {operation: service.calls[operation] for operation in operations}


# Success


@each_mode
def test_the_mapping_of_a_submitted_batch(
    mode: str, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    batch_id = start_batch(client, 3)
    mapping = wait(mode, batch_id)
    listed = client.list_runs_in_batch(batchId=batch_id)["runs"]
    assert mapping == {run["runSettingId"]: run["runId"] for run in listed}
    assert sorted(mapping) == ["sample-0", "sample-1", "sample-2"]
    xcoms = task_context["ti"].xcoms
    assert xcoms["return_value"] == mapping
    assert (xcoms["failed_submissions"], xcoms["failed_submission_count"]) == ([], 0)
    assert xcoms["changed_after_submission"] == []
    batch = client.get_batch(batchId=batch_id)
    known = {"arn": batch["arn"], "uuid": batch["uuid"], "status": "INPROGRESS"}
    known |= {"total_runs": 3, "submitted": 3, "failed": 0}
    assert xcoms["batch"] == {**dict.fromkeys(BatchXCom.__annotations__), "id": batch_id, **known}


@each_mode
@pytest.mark.parametrize("runs", [1, 99, 100, 101, 250])
def test_a_wait_costs_its_rounds_and_one_listing(
    mode: str, runs: int, service: Any, answer_with: Callable[..., None], client: Any, wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client, runs)
    service.clock.advance(600)
    rounds = 5
    answer_with("GetBatch", *[{"status": "SUBMITTING"}] * (rounds - 1), {"status": "PROCESSED", "totalRuns": runs})
    service.calls.clear()
    assert len(wait(mode, batch_id)) == runs
    pages = -(-runs // 100)
    assert calls(service, "GetBatch", "ListRunsInBatch") == {"GetBatch": rounds, "ListRunsInBatch": pages}
    assert sum(service.calls.values()) == rounds + pages


@pytest.mark.large
def test_a_hundred_thousand_runs(service: Any, client: Any, wait: Callable[..., Any]) -> None:
    batch_id = start_batch(client, 100_000)
    service.clock.advance(30 * 24 * 3_600)
    service.calls.clear()
    assert len(wait("poke", batch_id)) == 100_000
    assert calls(service, "GetBatch", "ListRunsInBatch") == {"GetBatch": 1, "ListRunsInBatch": 1_000}


def test_a_wait_that_is_over_is_not_deferred(service: Any, client: Any, task_context: dict[str, Any]) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    sensor = BatchSubmissionSensor(task_id="wait", batch_id=batch_id, deferrable=True)
    assert len(sensor.execute(task_context)) == 3


@each_mode
def test_a_mapping_in_s3(
    mode: str, service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    service.faults.fail_submission("sample-1", reason="ValidationException", message="no such sample")
    batch_id = start_batch(client)
    uri = wait(mode, batch_id, mapping_s3_uri="s3://results/maps/1.jsonl", max_failed_submissions=1)
    assert uri == task_context["ti"].xcoms["return_value"] == "s3://results/maps/1.jsonl"
    body = boto3.client("s3").get_object(Bucket="results", Key="maps/1.jsonl")["Body"].read().decode()
    records = {record["run_setting_id"]: record for record in map(json.loads, body.splitlines())}
    run = client.list_runs_in_batch(batchId=batch_id, runSettingId="sample-0")["runs"][0]
    assert records["sample-0"] == {
        "run_setting_id": "sample-0",
        "run_id": run["runId"],
        "run_uuid": run["runInternalUuid"],
        "run_arn": run["runArn"],
        "status": "SUCCESS",
        "reason": None,
        "message": None,
    }
    assert records["sample-1"]["run_id"] is None
    assert records["sample-1"]["message"] == "no such sample"
    assert len(records) == 3


@pytest.mark.large
@pytest.mark.parametrize("uri", [None, "s3://results/map.jsonl"])
def test_a_mapping_takes_at_most_twice_the_memory_of_its_dict(
    uri: str | None, service: Any, client: Any, task_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BatchSubmissionSensor, "write_to_s3", lambda self, file, parameter: getattr(self, parameter))
    batch_id = start_batch(client, 20_000)
    service.clock.advance(30 * 24 * 3_600)
    sensor = BatchSubmissionSensor(task_id="wait", batch_id=batch_id, mapping_s3_uri=uri)
    sensor.poke(task_context)  # makes the client
    tracemalloc.start()
    try:
        sensor.poke(task_context)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    mapping = {row["runSettingId"]: row["runId"] for row in list_submissions(sensor.hook, batch_id)}
    assert len(mapping) == 20_000
    assert peak <= 2 * (sys.getsizeof(mapping) + sum(map(sys.getsizeof, [*mapping, *mapping.values()])))


def test_an_upload_is_encrypted_with_a_bucket_key(service: Any, client: Any, wait: Callable[..., Any]) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="results")
    extra_args = {"ServerSideEncryption": "aws:kms", "BucketKeyEnabled": True}
    wait("poke", start_batch(client), mapping_s3_uri="s3://results/map.jsonl", s3_extra_args=extra_args)
    found = s3.head_object(Bucket="results", Key="map.jsonl")
    assert {name: found.get(name) for name in extra_args} == extra_args


@each_mode
@pytest.mark.parametrize(
    "extra_args",
    [
        {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": ["top-secret"]},
        {"SSECustomerAlgorithm": ["top-secret"], "SSECustomerKey": "k" * 32},
        {"BucketKeyEnabled": "top-secret"},
    ],
)
def test_an_upload_option_of_a_wrong_type_is_refused_and_not_shown(
    extra_args: dict[str, Any], mode: str, service: Any, client: Any, wait: Callable[..., Any]
) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    text = "s3_extra_args must have values of the types that PutObject takes; got "
    with pytest.raises(OmicsParameterError, match=text) as caught:
        wait(mode, start_batch(client), mapping_s3_uri="s3://results/map.jsonl", s3_extra_args=extra_args)
    assert str(caught.value).endswith(f"; got {sorted(extra_args)}")
    assert "top-secret" not in "".join(traceback.format_exception(caught.value))
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="results")


def test_the_upload_has_its_own_connection_and_options(
    service: Any, client: Any, wait: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ARCHIVE", "aws://ARCHIVEKEY:secret@/?region_name=us-east-1")
    boto3.client("s3").create_bucket(Bucket="results")
    sent: list[tuple[str, str]] = []

    def note(request: Any, **_: Any) -> None:
        sent.append((request.headers["Authorization"], request.headers.get("x-amz-expected-bucket-owner", "")))

    handlers = [*botocore.handlers.BUILTIN_HANDLERS, ("before-send.s3.PutObject", note)]
    monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)
    extra = {"ServerSideEncryption": "AES256", "ExpectedBucketOwner": "123456789012"}
    wait(
        "poke",
        start_batch(client),
        mapping_s3_uri="s3://results/map.jsonl",
        s3_conn_id="archive",
        s3_extra_args=extra,
    )
    ((authorization, owner),) = sent
    assert "ARCHIVEKEY" in str(authorization)
    assert str(owner) in {"123456789012", "b'123456789012'"}
    assert boto3.client("s3").head_object(Bucket="results", Key="map.jsonl")["ServerSideEncryption"] == "AES256"


def test_a_mapping_for_a_missing_bucket_is_not_pushed(
    service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    batch_id = start_batch(client)
    text = "Cannot write mapping_s3_uri 's3://nowhere/map.jsonl': .*NoSuchBucket"
    with pytest.raises(OmicsApiError, match=text) as caught:
        wait("poke", batch_id, mapping_s3_uri="s3://nowhere/map.jsonl")
    assert not isinstance(caught.value, AirflowFailException)
    assert "return_value" not in task_context["ti"].xcoms


def test_a_mapping_that_s3_refuses_may_be_retried(
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    task_context: dict[str, Any],
    deny_uploads: Callable[[], None],
) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    deny_uploads()
    text = "Cannot write mapping_s3_uri 's3://results/map.jsonl': PutObject failed: AccessDenied"
    with pytest.raises(OmicsApiError, match=text) as caught:
        wait("poke", start_batch(client), mapping_s3_uri="s3://results/map.jsonl")
    assert not isinstance(caught.value, AirflowFailException)
    assert "return_value" not in task_context["ti"].xcoms


@each_mode
@pytest.mark.parametrize("allowed", [2, "50%"])
def test_failed_submissions_within_the_allowance(
    mode: str,
    allowed: int | str,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    task_context: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for sample in ("sample-1", "sample-2"):
        service.faults.fail_submission(sample, reason="ValidationException", message="no such input")
    batch_id = start_batch(client, 4)
    assert sorted(wait(mode, batch_id, max_failed_submissions=allowed)) == ["sample-0", "sample-3"]
    xcoms = task_context["ti"].xcoms
    assert xcoms["failed_submission_count"] == 2
    assert [run["run_setting_id"] for run in xcoms["failed_submissions"]] == ["sample-1", "sample-2"]
    assert xcoms["failed_submissions"][0]["reason"] == "ValidationException"
    assert xcoms["failed_submissions"][0]["message"] == "no such input"
    written = caplog.text or capsys.readouterr().out  # Airflow 3 logs past the logging module
    (line,) = [line for line in written.splitlines() if "submissions failed:" in line]
    assert "2 submissions failed: ValidationException: no such input (sample-1, sample-2)" in line
    assert "warning" in line.lower()


@each_mode
def test_more_failed_submissions_fail_after_everything_is_pushed(
    mode: str, service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    missing = "Run cache 1008271 does not exist"
    service.faults.fail_submission("sample-1", reason="ResourceNotFoundException", message=missing)
    batch_id = start_batch(client)
    with pytest.raises(TooManyFailedSubmissionsError) as caught:
        wait(mode, batch_id)
    text = str(caught.value)
    assert text.startswith(f"1 submission failed: ResourceNotFoundException: {missing} (sample-1). Batch {batch_id} ")
    assert text.endswith("has 3 runs; max_failed_submissions is 0; 2 runs were submitted; the batch continues")
    assert "ResourceNotFoundException" in f"{type(caught.value).__name__}: {text}"[:80]
    assert caught.value.batch_id == batch_id
    assert sorted(task_context["ti"].xcoms["return_value"]) == ["sample-0", "sample-2"]
    assert task_context["ti"].xcoms["batch"]["failed"] == 1


def test_a_mapping_that_cannot_be_written_does_not_hide_the_verdict(
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    task_context: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service.faults.fail_submission("sample-1", reason="ResourceNotFoundException", message="no such cache")
    batch_id = start_batch(client)
    with pytest.raises(TooManyFailedSubmissionsError) as caught:
        wait("poke", batch_id, mapping_s3_uri="s3://nowhere/map.jsonl")
    text = str(caught.value)
    assert text.startswith("1 submission failed: ResourceNotFoundException: no such cache (sample-1). ")
    assert "; the mapping was not written: Cannot write mapping_s3_uri 's3://nowhere/map.jsonl': PutObject" in text
    assert text.endswith("; 2 runs were submitted; the batch continues")
    xcoms = task_context["ti"].xcoms
    assert (xcoms["failed_submission_count"], len(xcoms["failed_submissions"])) == (1, 1)
    assert sorted(xcoms["return_value"]) == ["sample-0", "sample-2"]

    xcoms.clear()
    monkeypatch.setattr("airflow_provider_omics_cache.sensors.run_batch.LARGE_MAPPING", 1)
    with pytest.raises(TooManyFailedSubmissionsError):
        wait("poke", batch_id, mapping_s3_uri="s3://nowhere/map.jsonl")
    assert xcoms["batch"]["submitted"] == 2
    assert "return_value" not in xcoms


# Each verdict on GetBatch's answer


@each_mode
@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([{"status": "CREATING"}], id="CREATING"),
        pytest.param([{"status": "PENDING"}], id="PENDING"),
        pytest.param([{"status": "STOPPING"}], id="STOPPING"),
        pytest.param(
            [{"status": "SUBMITTING", "submissionSummary": {"pendingStartSubmissionCount": 0}}], id="SUBMITTING"
        ),
        pytest.param([{"status": "INPROGRESS", "submissionSummary": {"pendingStartSubmissionCount": 1}}], id="pending"),
        pytest.param([{"status": "INPROGRESS"}], id="counts unknown"),
        pytest.param([{"status": "REHYDRATING"}], id="unknown, counts unknown"),
        pytest.param([{}], id="nothing known"),
    ],
)
def test_answers_that_are_waited_on(
    mode: str,
    answers: list[dict[str, Any]],
    service: Any,
    client: Any,
    answer_with: Callable[..., None],
    wait: Callable[..., Any],
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    answer_with("GetBatch", *answers, {"status": "PROCESSED", "totalRuns": 3})
    service.calls.clear()
    assert len(wait(mode, batch_id)) == 3
    assert calls(service, "GetBatch", "ListRunsInBatch") == {"GetBatch": len(answers) + 1, "ListRunsInBatch": 1}


@each_mode
@pytest.mark.parametrize(
    "answer",
    [
        {"status": "INPROGRESS", "totalRuns": 3, "submissionSummary": {"pendingStartSubmissionCount": 0}},
        {"status": "REHYDRATING", "totalRuns": 3, "submissionSummary": {"pendingStartSubmissionCount": 0}},
        {"status": "PROCESSED", "totalRuns": 3},
        {
            "status": "PROCESSED",
            "submissionSummary": {
                "successfulStartSubmissionCount": 3,
                "failedStartSubmissionCount": 0,
                "pendingStartSubmissionCount": 0,
            },
        },
    ],
    ids=["INPROGRESS", "unknown", "PROCESSED", "PROCESSED without totalRuns"],
)
def test_answers_that_end_the_wait(
    mode: str,
    answer: dict[str, Any],
    service: Any,
    client: Any,
    answer_with: Callable[..., None],
    wait: Callable[..., Any],
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    answer_with("GetBatch", {"status": "PENDING"}, answer)
    assert len(wait(mode, batch_id)) == 3


@each_mode
@pytest.mark.parametrize("shown", ["hidden", "listed"])
@pytest.mark.parametrize("cancelled_in", ["SUBMITTING", "INPROGRESS"])
def test_a_cancelled_batch(
    mode: str,
    cancelled_in: str,
    shown: str,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    task_context: dict[str, Any],
) -> None:
    service.settings.cancelled_before_submission = shown
    service.settings.submission_rate = 1
    batch_id = start_batch(client, 10)
    while client.get_batch(batchId=batch_id)["status"] != cancelled_in:
        service.clock.advance(0.5)
    if cancelled_in == "SUBMITTING":
        service.clock.advance(3)
    client.cancel_run_batch(batchId=batch_id)
    with pytest.raises(
        BatchCancelledError, match=r"was cancelled \(set a new rerun_key to start a new batch\)"
    ) as caught:
        wait(mode, batch_id)
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.status == "CANCELLED"
    xcoms = task_context["ti"].xcoms
    submitted = len(xcoms["return_value"])
    assert submitted == 10 if cancelled_in == "INPROGRESS" else 1 <= submitted < 10
    assert xcoms["failed_submission_count"] == 10 - submitted
    batch = {key: xcoms["batch"][key] for key in ("status", "total_runs", "submitted", "failed")}
    assert batch == {"status": "CANCELLED", "total_runs": 10, "submitted": submitted, "failed": 10 - submitted}


@each_mode
@pytest.mark.parametrize("status", ["RUNS_DELETING", "RUNS_DELETE_FAILED", "RUNS_DELETED"])
def test_a_batch_whose_runs_are_deleted(
    mode: str,
    status: str,
    service: Any,
    client: Any,
    answer_with: Callable[..., None],
    wait: Callable[..., Any],
    task_context: dict[str, Any],
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    answer_with("GetBatch", {"status": "PENDING"}, {"status": status, "totalRuns": 3})
    with pytest.raises(BatchDeletedError, match=status) as caught:
        wait(mode, batch_id)
    assert isinstance(caught.value, AirflowFailException)
    assert len(task_context["ti"].xcoms["return_value"]) == 3


@each_mode
def test_a_failed_batch(
    mode: str,
    service: Any,
    client: Any,
    answer_with: Callable[..., None],
    wait: Callable[..., Any],
    task_context: dict[str, Any],
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    answer_with(
        "GetBatch",
        {"status": "SUBMITTING"},
        {"status": "FAILED", "failureReason": "Invalid JSON format in run configurations"},
    )
    with pytest.raises(
        BatchFailedError, match=r"Invalid JSON format.*at least 3 runs were submitted and may continue"
    ) as caught:
        wait(mode, batch_id)
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.reason == "Invalid JSON format in run configurations"
    assert len(task_context["ti"].xcoms["return_value"]) == 3


@each_mode
def test_a_failed_batch_whose_runs_cannot_be_listed(
    mode: str, service: Any, client: Any, answer_with: Callable[..., None], wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client)
    answer_with("GetBatch", {"status": "PENDING"}, {"status": "FAILED", "failureReason": "Too many runs"})
    service.faults.error("ListRunsInBatch", code="AccessDeniedException", status=403, times=10)
    with pytest.raises(
        BatchFailedError,
        match=r"Too many runs.*its runs could not be listed: .*AccessDenied",
    ):
        wait(mode, batch_id)


@each_mode
def test_nothing_hides_the_verdict_on_a_failed_batch(
    mode: str,
    service: Any,
    client: Any,
    answer_with: Callable[..., None],
    wait: Callable[..., Any],
    task_context: dict[str, Any],
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    answer_with("GetBatch", {"status": "PENDING"}, {"status": "CANCELLED", "totalRuns": 3})
    text = r"was cancelled.*3 runs were submitted; the mapping was not written: Cannot write mapping_s3_uri .*NoSuchBuc"
    with pytest.raises(BatchCancelledError, match=text):
        wait(mode, batch_id, mapping_s3_uri="s3://nowhere/map.jsonl")
    xcoms = task_context["ti"].xcoms
    assert xcoms["batch"]["submitted"] == len(xcoms["return_value"]) == 3
    service.faults.throttle("ListRunsInBatch", times=1_000_000)
    with pytest.raises(BatchCancelledError, match=r"was cancelled.*ThrottlingException"):
        wait(mode, batch_id)


def test_a_failed_batch_of_a_status_of_the_future(service: Any, client: Any, task_context: dict[str, Any]) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    event = {"status": "failed", "batch": {"id": batch_id, "status": "EXPIRED", "total_runs": 3}}
    sensor = BatchSubmissionSensor(task_id="wait", batch_id=batch_id, deferrable=True)
    with pytest.raises(BatchError, match="is EXPIRED; 3 runs were submitted"):
        sensor.execute_complete(task_context, event)


@pytest.mark.parametrize(("status", "text"), [("RUNS_ARCHIVED", "is RUNS_ARCHIVED;"), (None, "is without a status;")])
def test_a_failed_event_of_an_unknown_status(
    status: str | None, text: str, service: Any, client: Any, task_context: dict[str, Any]
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    event = {"status": "failed", "batch": {"id": batch_id, "status": status, "total_runs": 3}}
    sensor = BatchSubmissionSensor(task_id="wait", batch_id=batch_id, deferrable=True)
    with pytest.raises(BatchError, match=text) as caught:
        sensor.execute_complete(task_context, event)
    assert "None" not in str(caught.value)


def test_a_failed_event_of_an_older_version(service: Any, client: Any, task_context: dict[str, Any]) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    batch = {"id": batch_id, "status": "FAILED", "total_runs": 3}
    sensor = BatchSubmissionSensor(task_id="wait", batch_id=batch_id, deferrable=True)
    with pytest.raises(BatchFailedError, match="failed: Invalid JSON; at least 3 runs were submitted"):
        sensor.execute_complete(task_context, {"status": "failed", "message": "Invalid JSON", "batch": batch})


@needs_aiobotocore
@pytest.mark.parametrize(("answer", "text"), [({"status": "RUNS_ARCHIVED"}, "RUNS_ARCHIVED"), ({}, "without a status")])
def test_a_timeout_shows_an_unknown_status(
    answer: dict[str, Any],
    text: str,
    service: Any,
    client: Any,
    answer_with: Callable[..., None],
    wait: Callable[..., Any],
) -> None:
    batch_id = start_batch(client)
    answer_with("GetBatch", answer)
    with pytest.raises(AirflowSensorTimeout, match=f"Timed out. Batch {batch_id} is {text}") as caught:
        wait("deferrable", batch_id, timeout=100)
    assert "None" not in str(caught.value)


def test_a_listing_error_shows_an_unknown_status(
    service: Any, client: Any, answer_with: Callable[..., None], wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    answer_with("GetBatch", {"totalRuns": 4, "submissionSummary": {"pendingStartSubmissionCount": 0}})
    with pytest.raises(IncompleteListingError, match=f"Batch {batch_id} is without a status, but after") as caught:
        wait("poke", batch_id)
    assert "None" not in str(caught.value)


@needs_aiobotocore
def test_the_reason_of_a_failure_travels_in_the_batch_of_the_event(
    service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    service.settings.pending_seconds = 100
    service.faults.fail_batch("Invalid JSON format")
    batch_id = start_batch(client)
    with pytest.raises(BatchFailedError, match="failed: Invalid JSON format;") as caught:
        wait("deferrable", batch_id)
    assert caught.value.reason == "Invalid JSON format"
    (event,) = task_context["events"]
    assert event["batch"]["failure_reason"] == "Invalid JSON format"
    assert "Invalid JSON format" not in event["message"]


# Calls that fail


@each_mode
def test_a_batch_that_is_not_found(mode: str, service: Any, wait: Callable[..., Any]) -> None:
    with pytest.raises(BatchNotFoundError) as caught:
        wait(mode, "999")
    assert isinstance(caught.value, AirflowFailException)
    for part in ("999", "123456789012", "us-east-1", "'aws_default'"):
        assert part in str(caught.value)
    assert service.calls["GetBatch"] >= 3


@each_mode
def test_a_young_batch_may_be_not_found_twice(mode: str, service: Any, client: Any, wait: Callable[..., Any]) -> None:
    batch_id = start_batch(client)
    service.faults.error("GetBatch", code="ResourceNotFoundException", status=404, times=2)
    assert len(wait(mode, batch_id)) == 3


@each_mode
@pytest.mark.parametrize(
    ("code", "status"),
    [("ThrottlingException", 429), ("InternalServerException", 500), ("RequestTimeoutException", 408)],
)
def test_rounds_without_news_are_waited_out(
    mode: str,
    code: str,
    status: int,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    batch_id = start_batch(client)
    service.faults.error("GetBatch", code=code, status=status, times=40)
    assert len(wait(mode, batch_id)) == 3
    written = caplog.text + capsys.readouterr().out
    assert 1 <= written.count(f"Batch {batch_id}: no answer") <= 2 * 2  # stdout and caplog, worker and triggerer


@each_mode
def test_lost_connections_are_waited_out(mode: str, service: Any, client: Any, wait: Callable[..., Any]) -> None:
    batch_id = start_batch(client)
    service.faults.drop_connection("GetBatch", times=20)
    assert len(wait(mode, batch_id)) == 3


@each_mode
def test_silence_fails_and_may_be_retried(mode: str, service: Any, client: Any, wait: Callable[..., Any]) -> None:
    batch_id = start_batch(client)
    service.faults.throttle("GetBatch", times=1_000_000)
    before = service.clock.now()
    with pytest.raises(BatchSilenceError, match="ThrottlingException") as caught:
        wait(mode, batch_id, max_silence=600)
    assert not isinstance(caught.value, AirflowFailException)
    assert 600 <= (service.clock.now() - before).total_seconds() < 800


@each_mode
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("AccessDeniedException", 403),
        ("ExpiredTokenException", 403),
        ("ValidationException", 400),
        ("ConflictException", 409),
    ],
)
@pytest.mark.parametrize("after_rounds", [0, 1])
def test_a_refused_call_fails_and_may_be_retried(
    mode: str,
    code: str,
    status: int,
    after_rounds: int,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    answer_with: Callable[..., None],
) -> None:
    batch_id = start_batch(client)
    if after_rounds:
        service.faults.error("GetBatch", code="ResourceNotFoundException", status=404, times=1)
    service.faults.error("GetBatch", code=code, status=status, times=10)
    with pytest.raises(OmicsApiError, match=code) as caught:
        wait(mode, batch_id)
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.code == code


@each_mode
def test_an_endpoint_out_of_reach_shows_in_the_first_round(
    mode: str, service: Any, wait: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1", "aws_access_key_id": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", json.dumps({"conn_type": "aws", "extra": extra}))
    monkeypatch.setattr(
        "botocore.handlers.BUILTIN_HANDLERS",
        [entry for entry in botocore.handlers.BUILTIN_HANDLERS if not str(entry[0]).startswith("before-send")],
    )
    with pytest.raises(OmicsApiError, match=r"127\.0\.0\.1:9.*us-east-1") as caught:
        wait(mode, "42", aws_conn_id="NOWHERE")
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.code == "EndpointConnectionError"


@each_mode
def test_a_listing_goes_on_at_its_page_after_a_throttle(
    mode: str, service: Any, client: Any, wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client, 250)
    service.clock.advance(600)
    service.faults.throttle("ListRunsInBatch", times=10)
    service.calls.clear()
    assert len(wait(mode, batch_id)) == 250
    assert calls(service, "GetBatch", "ListRunsInBatch") == {"GetBatch": 1, "ListRunsInBatch": 13}


@each_mode
def test_a_listing_keeps_to_the_deadline(mode: str, service: Any, client: Any, wait: Callable[..., Any]) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    service.faults.throttle("ListRunsInBatch", times=1_000_000)
    before = service.clock.now()
    with pytest.raises(AirflowSensorTimeout, match="could not be listed"):
        wait(mode, batch_id, timeout=600)
    assert (service.clock.now() - before).total_seconds() < 700


@each_mode
def test_a_listing_keeps_to_max_silence(mode: str, service: Any, client: Any, wait: Callable[..., Any]) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    service.faults.throttle("ListRunsInBatch", times=1_000_000)
    before = service.clock.now()
    with pytest.raises(BatchSilenceError, match=r"could not be listed.*Throttling") as caught:
        wait(mode, batch_id, max_silence=300)
    assert not isinstance(caught.value, AirflowFailException)
    assert (service.clock.now() - before).total_seconds() < 400


# The listing


@each_mode
def test_a_listing_that_lags_is_waited_for(
    mode: str, client: Any, service: Any, answer_with: Callable[..., None], wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    now = service.clock.now()
    answer_with(
        "GetBatch",
        {
            "status": "INPROGRESS",
            "submittedTime": now,
            "totalRuns": 3,
            "submissionSummary": {"pendingStartSubmissionCount": 0},
        },
    )
    answer_with("ListRunsInBatch", lambda page: {**page, "runs": page["runs"][:2]}, lambda page: page)
    assert len(wait(mode, batch_id)) == 3
    assert calls(service, "GetBatch", "ListRunsInBatch") == {"GetBatch": 2, "ListRunsInBatch": 2}


@each_mode
@pytest.mark.parametrize("change", ["lost", "blank", "twice"])
def test_a_listing_that_stays_incomplete_fails_after_the_consistency_timeout(
    mode: str,
    change: str,
    client: Any,
    service: Any,
    answer_with: Callable[..., None],
    wait: Callable[..., Any],
    task_context: dict[str, Any],
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    submitted = service.clock.now()
    answer_with("GetBatch", {"status": "PENDING"}, {"status": "PROCESSED", "processedTime": submitted, "totalRuns": 3})

    def damage(page: dict[str, Any]) -> dict[str, Any]:
        first, *others = page["runs"]
        damaged = {"lost": [], "blank": [{"runSettingId": first["runSettingId"]}], "twice": [first, first]}[change]
        return {**page, "runs": [*damaged, *others]}

    answer_with("ListRunsInBatch", damage)
    with pytest.raises(IncompleteListingError) as caught:
        wait(mode, batch_id, consistency_timeout=100)
    assert not isinstance(caught.value, AirflowFailException)
    assert 100 <= (service.clock.now() - submitted).total_seconds() < 200
    assert "return_value" not in task_context["ti"].xcoms


@each_mode
@pytest.mark.parametrize("status", ["INPROGRESS", "PROCESSED"])
def test_an_incomplete_listing_without_a_time_fails_five_minutes_after_the_beginning(
    mode: str,
    status: str,
    client: Any,
    service: Any,
    answer_with: Callable[..., None],
    wait: Callable[..., Any],
) -> None:
    """Airflow 3.0 and 3.1 set the start date of a task anew at each resume."""
    batch_id = start_batch(client)
    service.clock.advance(600)
    nothing_pending = {"submissionSummary": {"pendingStartSubmissionCount": 0}}
    answer_with("GetBatch", {"status": status, "totalRuns": 4, **nothing_pending})
    before = service.clock.elapsed()
    with pytest.raises(IncompleteListingError, match=r"after 300 s .*: 3 runs are listed, but 4 are expected"):
        wait(mode, batch_id)
    assert 300 <= service.clock.elapsed() - before <= 300 + 2 * 22


@each_mode
def test_a_listing_gets_no_new_timeout_after_a_resume(
    mode: str, client: Any, service: Any, answer_with: Callable[..., None], wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client)
    answer_with("GetBatch", *[{"status": "SUBMITTING"}] * 25, {"status": "PROCESSED", "totalRuns": 3})
    service.faults.throttle("ListRunsInBatch", times=None)
    before = service.clock.elapsed()
    with pytest.raises(AirflowSensorTimeout, match="could not be listed"):
        wait(mode, batch_id, timeout=600)
    assert service.clock.elapsed() - before <= 600 + 60


@each_mode
def test_a_second_listing_in_the_last_round_can_save_the_wait(
    mode: str, client: Any, service: Any, answer_with: Callable[..., None], wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(6_000)
    answer_with(
        "GetBatch",
        {"status": "PROCESSED", "processedTime": service.clock.now() - timedelta(seconds=900), "totalRuns": 3},
    )
    answer_with("ListRunsInBatch", lambda page: {**page, "runs": page["runs"][:2]}, lambda page: page)
    assert len(wait(mode, batch_id)) == 3
    assert calls(service, "GetBatch", "ListRunsInBatch") == {"GetBatch": 1, "ListRunsInBatch": 2}


@each_mode
def test_with_no_number_to_expect_a_listing_is_never_complete(
    mode: str, client: Any, service: Any, answer_with: Callable[..., None], wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    answer_with("GetBatch", {"status": "PROCESSED"})
    with pytest.raises(
        IncompleteListingError, match="3 runs are listed, but the number of runs of the batch is not known"
    ):
        wait(mode, batch_id)


@each_mode
def test_expected_runs_goes_before_what_the_service_says(
    mode: str, client: Any, service: Any, answer_with: Callable[..., None], wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    answer_with("GetBatch", {"status": "PROCESSED", "totalRuns": 99})
    assert len(wait(mode, batch_id, expected_runs="3")) == 3


@each_mode
def test_a_run_changed_after_submission_is_reported(
    mode: str, client: Any, service: Any, answer_with: Callable[..., None], wait: Callable[..., Any], task_context: Any
) -> None:
    batch_id = start_batch(client)

    def change(page: dict[str, Any]) -> dict[str, Any]:
        page["runs"][0]["submissionStatus"] = "CANCEL_SUCCESS"
        return page

    answer_with("ListRunsInBatch", change)
    assert len(wait(mode, batch_id)) == 3
    changed = task_context["ti"].xcoms["changed_after_submission"]
    assert [(run["run_setting_id"], run["status"]) for run in changed] == [("sample-0", "CANCEL_SUCCESS")]


# Deadlines, flags, deferral


@needs_aiobotocore
def test_the_timeout_is_the_deadline(
    service: Any, client: Any, answer_with: Callable[..., None], wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client)
    answer_with("GetBatch", {"status": "SUBMITTING"})
    before = service.clock.now()
    with pytest.raises(AirflowSensorTimeout, match="SUBMITTING"):
        wait("deferrable", batch_id, timeout=600)
    assert (service.clock.now() - before).total_seconds() == pytest.approx(600, abs=1)


def test_rounds_without_an_answer_keep_to_the_timeout_of_a_rescheduled_task(
    service: Any, client: Any, wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client)
    service.faults.throttle("GetBatch", times=1_000_000)
    before = service.clock.now()
    with pytest.raises(AirflowSensorTimeout, match=f"Timed out. Batch {batch_id}: no answer yet"):
        wait("reschedule", batch_id, timeout=600)
    assert (service.clock.now() - before).total_seconds() < 700


def test_execution_timeout_is_not_the_deadline_of_a_rescheduled_task(
    service: Any, client: Any, answer_with: Callable[..., None], wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client)
    answer_with("GetBatch", *[{"status": "SUBMITTING"}] * 50, {"status": "PROCESSED", "totalRuns": 3})
    service.clock.advance(600)
    service.faults.error("GetBatch", code="ResourceNotFoundException", status=404, times=1)
    assert len(wait("reschedule", batch_id, execution_timeout=timedelta(seconds=300))) == 3


@pytest.mark.parametrize(
    ("flag", "raised"),
    [(None, AirflowTaskTimeout), ("soft_fail", AirflowSkipException), ("never_fail", AirflowSkipException)],
)
@pytest.mark.parametrize("moment", ["poke", "first check", "resume"])
def test_airflows_own_task_timeout_keeps_to_the_flags(
    moment: str, flag: str | None, raised: type[BaseException], service: Any, task_context: Any, monkeypatch: Any
) -> None:
    def too_slow(*_: Any, **__: Any) -> None:
        raise AirflowTaskTimeout("too slow")

    for method in ("get_batch", "list_runs_in_batch"):
        monkeypatch.setattr(OmicsCacheHook, method, too_slow)
    sensor = BatchSubmissionSensor(
        task_id="wait", batch_id="42", deferrable=moment != "poke", **({flag: True} if flag else {})
    )
    event = {"status": "done", "batch": {"id": "42", "status": "PROCESSED", "total_runs": 3}}
    run = partial(sensor.execute, task_context)
    if moment == "resume":
        run = partial(sensor.resume_execution, "execute_complete", {"event": event}, task_context)
    with pytest.raises(raised):
        run()


@pytest.mark.parametrize("error", ["Trigger timeout", "Trigger/execution timeout"])
@pytest.mark.parametrize(("flag", "raised"), [(None, AirflowSensorTimeout), ("soft_fail", AirflowSkipException)])
def test_airflows_own_deferral_timeout_is_a_sensor_timeout(
    error: str,
    flag: str | None,
    raised: type[BaseException],
    service: Any,
    client: Any,
    task_context: dict[str, Any],
) -> None:
    batch_id = start_batch(client)
    sensor = BatchSubmissionSensor(task_id="wait", batch_id=batch_id, deferrable=True, **({flag: True} if flag else {}))
    with pytest.raises(raised):
        sensor.resume_execution("__fail__", {"error": error}, task_context)


def resume_at_the_deadline(
    way: str, batch_id: Any, task_context: dict[str, Any], service: Any, **arguments: Any
) -> Any:
    """Resume a deferred sensor whose trigger has not asked about the batch lately."""
    sensor = BatchSubmissionSensor(task_id="wait", batch_id=batch_id, deferrable=True, **arguments)
    now = service.clock.now().timestamp()
    event = {"status": "timeout", "message": "the deadline has passed", "deadline": now, "batch": {"id": batch_id}}
    if way == "event":
        return sensor.resume_execution("execute_complete", {"event": event}, task_context)
    return sensor.resume_execution("__fail__", {"error": "Trigger timeout"}, task_context)


each_way = pytest.mark.parametrize("way", ["event", "timeout of the deferral"])


@each_way
def test_at_the_deadline_the_task_asks_itself(
    way: str, service: Any, client: Any, task_context: dict[str, Any]
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    service.faults.throttle("GetBatch", times=5)
    assert len(resume_at_the_deadline(way, batch_id, task_context, service)) == 3


def test_at_the_deadline_an_id_may_be_a_number(service: Any, client: Any, task_context: dict[str, Any]) -> None:
    batch_id = int(start_batch(client))
    service.clock.advance(600)
    assert len(resume_at_the_deadline("timeout of the deferral", batch_id, task_context, service)) == 3


@each_way
def test_a_batch_that_is_gone_at_the_deadline_is_not_found(
    way: str, service: Any, task_context: dict[str, Any]
) -> None:
    with pytest.raises(BatchNotFoundError):
        resume_at_the_deadline(way, "42", task_context, service)


@each_way
def test_a_batch_that_has_failed_by_the_deadline_has_failed(
    way: str, service: Any, client: Any, task_context: dict[str, Any]
) -> None:
    service.faults.fail_batch("Too many runs")
    batch_id = start_batch(client)
    service.clock.advance(600)
    with pytest.raises(BatchFailedError, match="Too many runs"):
        resume_at_the_deadline(way, batch_id, task_context, service)


@each_way
@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 403, "code": "AccessDeniedException"}])
def test_a_last_look_that_fails_is_a_timeout(
    way: str, fault: dict[str, Any], service: Any, client: Any, task_context: dict[str, Any]
) -> None:
    batch_id = start_batch(client)
    service.faults.error("GetBatch", times=None, **fault)
    before = service.clock.elapsed()
    with pytest.raises(AirflowSensorTimeout):
        resume_at_the_deadline(way, batch_id, task_context, service)
    assert service.clock.elapsed() - before <= 30


def test_a_listing_that_is_incomplete_at_the_deadline_is_a_timeout(
    service: Any, client: Any, answer_with: Callable[..., None], task_context: dict[str, Any]
) -> None:
    batch_id = start_batch(client)
    answer_with("GetBatch", {"status": "INPROGRESS", "submissionSummary": {"pendingStartSubmissionCount": 0}})
    with pytest.raises(AirflowSensorTimeout):
        resume_at_the_deadline("event", batch_id, task_context, service, timeout=200, consistency_timeout=300)


@needs_aiobotocore
def test_everything_reaches_the_trigger(
    service: Any, client: Any, task_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = start_batch(client)
    task_context["ti"].start_date = service.clock.now()
    monkeypatch.setenv("AIRFLOW_CONN_GENOMICS", "aws://id:secret@/?region_name=eu-west-1")
    sensor = BatchSubmissionSensor(
        task_id="wait",
        batch_id=batch_id,
        deferrable=True,
        poke_interval=30,
        timeout=1_000,
        max_silence=timedelta(minutes=2),
        aws_conn_id="genomics",
        region_name="us-east-1",
        verify=False,
        botocore_config={"read_timeout": 5},
    )
    with pytest.raises(TaskDeferred) as caught:
        sensor.execute(task_context)
    assert caught.value.trigger.serialize()[1] == {
        "batch_id": batch_id,
        "poke_interval": 30,
        "deadline": service.clock.now().timestamp() + 1_000,
        "max_silence": 120,
        "runs_wait": None,
        "aws_conn_id": "genomics",
        "region_name": "us-east-1",
        "verify": False,
        "botocore_config": {"read_timeout": 5},
    }
    assert caught.value.method_name == "execute_complete"
    assert caught.value.timeout == timedelta(seconds=1_000 + 300)


@pytest.mark.parametrize("wanted", [True, False])
def test_each_xcom_is_pushed_once_and_none_that_is_not_wanted(
    wanted: bool, service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    wait("poke", start_batch(client), do_xcom_push=wanted)
    pushed = task_context["ti"].pushed
    assert len(pushed) == len(set(pushed))
    assert ("return_value" in pushed) == wanted


@pytest.mark.parametrize("wanted", [True, False])
def test_a_task_that_fails_pushes_the_mapping_itself_if_wanted(
    wanted: bool, service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    service.faults.fail_submission("sample-1", reason="ValidationException", message="no such input")
    with pytest.raises(TooManyFailedSubmissionsError):
        wait("poke", start_batch(client), do_xcom_push=wanted)
    assert ("return_value" in task_context["ti"].pushed) == wanted


@needs_aiobotocore
def test_the_deadline_is_the_earlier_of_timeout_and_execution_timeout(
    service: Any, client: Any, answer_with: Callable[..., None], wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client)
    answer_with("GetBatch", {"status": "SUBMITTING"})
    before = service.clock.now()
    with pytest.raises(AirflowSensorTimeout, match="SUBMITTING"):
        wait("deferrable", batch_id, timeout=6_000, execution_timeout=timedelta(seconds=90))
    assert (service.clock.now() - before).total_seconds() == pytest.approx(81, abs=1)  # Airflow 2 stops the task at 90


@needs_aiobotocore
def test_a_deadline_survives_every_deferral(
    service: Any, client: Any, answer_with: Callable[..., None], wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    submitted = {"submissionSummary": {"pendingStartSubmissionCount": 0}, "totalRuns": 4, "status": "INPROGRESS"}
    answer_with("GetBatch", {"status": "SUBMITTING"}, {**submitted, "submittedTime": service.clock.now()})
    before = service.clock.now()
    with pytest.raises(AirflowSensorTimeout):
        wait("deferrable", batch_id, timeout=250, consistency_timeout=10_000)
    deadlines = {event["deadline"] for event in task_context["events"]}
    assert deadlines == {before.timestamp() + 250}
    assert len(task_context["events"]) > 3
    assert (service.clock.now() - before).total_seconds() < 250 + 25


@needs_aiobotocore
def test_no_trigger_fires_within_ten_seconds_of_its_deferral(
    service: Any, client: Any, answer_with: Callable[..., None], wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    answer_with("GetBatch", {"status": "SUBMITTING"}, {"status": "PROCESSED", "totalRuns": 3})
    wait("deferrable", batch_id, poke_interval=1)
    assert min(task_context["event_delays"]) >= 10


@needs_aiobotocore
def test_events_never_carry_the_mapping(
    service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    mapping = wait("deferrable", start_batch(client))
    text = json.dumps(task_context["events"])
    assert task_context["events"]
    assert not any(run_id in text for run_id in mapping.values() if len(run_id) > 4)
    assert set(task_context["events"][0]) == {"status", "message", "code", "deadline", "batch"}


FINAL = "final"
RETRYABLE = "retryable"
DEADLINE = "deadline"


@pytest.mark.parametrize("moment", ["poke", "reschedule", "first check", "resume"])
@pytest.mark.parametrize(
    ("error", "flag", "skips"),
    [
        (FINAL, None, False),
        (FINAL, "soft_fail", True),
        (FINAL, "never_fail", True),
        (RETRYABLE, None, False),
        (RETRYABLE, "soft_fail", False),
        (RETRYABLE, "never_fail", True),
        (DEADLINE, None, False),
        (DEADLINE, "soft_fail", True),
    ],
)
def test_the_flags_agree_in_every_mode(
    moment: str,
    error: str,
    flag: str | None,
    skips: bool,
    service: Any,
    client: Any,
    answer_with: Callable[..., None],
    wait: Callable[..., Any],
) -> None:
    if moment in {"first check", "resume"}:
        pytest.importorskip("aiobotocore")
    if error == DEADLINE and moment == "first check":
        pytest.skip("a first check has no deadline")
    batch_id = start_batch(client)
    first = [{"status": "SUBMITTING"}] if moment == "resume" else []
    if error == FINAL:
        answer_with("GetBatch", *first, {"status": "FAILED", "failureReason": "Too many runs"})
    elif error == DEADLINE:
        answer_with("GetBatch", {"status": "SUBMITTING"})
    elif moment == "resume":
        answer_with(
            "GetBatch",
            {"status": "INPROGRESS", "submissionSummary": {"pendingStartSubmissionCount": 1}},
            {"status": "PROCESSED", "totalRuns": 3},
        )
        service.faults.error("ListRunsInBatch", code="AccessDeniedException", status=403, times=10)
    else:
        service.faults.error("GetBatch", code="AccessDeniedException", status=403, times=10)
    expected: dict[str, type[BaseException]] = {
        FINAL: BatchFailedError,
        RETRYABLE: OmicsApiError,
        DEADLINE: AirflowSensorTimeout,
    }
    mode = moment if moment in MODES else "deferrable"
    arguments: dict[str, Any] = {flag: True} if flag else {}
    if error == DEADLINE:
        arguments["timeout"] = 600 if mode == "deferrable" else 0
    with pytest.raises(AirflowSkipException if skips else expected[error]):
        wait(mode, batch_id, **arguments)


@each_mode
def test_silent_fail_asks_again(mode: str, service: Any, client: Any, wait: Callable[..., Any]) -> None:
    batch_id = start_batch(client)
    service.faults.error("GetBatch", code="AccessDeniedException", status=403, times=2)
    assert len(wait(mode, batch_id, silent_fail=True)) == 3


def test_without_aiobotocore_nothing_is_deferred(
    service: Any, client: Any, task_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    sensor = BatchSubmissionSensor(task_id="wait", batch_id=start_batch(client), deferrable=True)
    with pytest.raises(AirflowOptionalProviderFeatureException, match=r"airflow-provider-omics-cache\[batch\]"):
        sensor.execute(task_context)


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"status": "success"},
        {"status": "done"},
        {"status": "done", "batch": {"id": "42", "total_runs": "3"}},
        {"status": "done", "batch": {"id": "43", "status": "PROCESSED"}},
    ],
)
def test_an_event_of_another_form_is_an_error(event: Any, service: Any, task_context: dict[str, Any]) -> None:
    sensor = BatchSubmissionSensor(task_id="wait", batch_id="42", deferrable=True)
    with pytest.raises(TriggerEventError, match="event"):
        sensor.execute_complete(task_context, event)
    assert not service.calls


def test_a_resumed_task_asks_get_batch_no_more(service: Any, client: Any, task_context: dict[str, Any]) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    sensor = BatchSubmissionSensor(task_id="wait", batch_id=batch_id, deferrable=True)
    event = {"status": "done", "deadline": 9e9, "batch": {"id": batch_id, "status": "PROCESSED", "total_runs": 3}}
    service.calls.clear()
    assert len(sensor.execute_complete(task_context, event)) == 3
    assert dict(service.calls) == {"ListRunsInBatch": 1}


# Parameters


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({"batch_id": None}, "batch_id"),
        ({"batch_id": ""}, "batch_id"),
        ({"batch_id": "None"}, "batch_id"),
        ({"batch_id": "batch-123"}, "batch_id"),
        ({"batch_id": "1234567890123456789"}, "batch_id"),
        ({"batch_id": "{{ ti.xcom_pull('start') }}"}, "batch_id"),
        ({"expected_runs": "many"}, "expected_runs"),
        ({"expected_runs": 0}, "expected_runs"),
        ({"expected_runs": -5}, "expected_runs"),
        ({"max_failed_submissions": "120%"}, "max_failed_submissions"),
        ({"max_failed_submissions": -1}, "max_failed_submissions"),
        ({"max_failed_submissions": 0.5}, "max_failed_submissions"),
        ({"mapping_s3_uri": "results/map.jsonl"}, "mapping_s3_uri"),
        ({"mapping_s3_uri": "s3://bucket"}, "mapping_s3_uri"),
        ({"mapping_s3_uri": "s3://BUCKET/map.jsonl"}, "mapping_s3_uri"),
    ],
)
@pytest.mark.parametrize("deferrable", [False, True])
def test_bad_parameters_name_parameter_rule_and_value(
    arguments: dict[str, Any], parameter: str, deferrable: bool, service: Any, task_context: dict[str, Any]
) -> None:
    with pytest.raises(OmicsParameterError) as caught:
        BatchSubmissionSensor(task_id="wait", deferrable=deferrable, **{"batch_id": "42", **arguments}).execute(
            task_context
        )
    assert caught.value.parameter == parameter
    assert repr(arguments[parameter]) in str(caught.value)
    assert caught.value.rule.startswith(("must be", "must have"))
    assert not service.calls


@pytest.mark.parametrize("extra_args", [{"Bogus": 1}, "ACL=private"])
def test_upload_options_are_checked_before_the_wait(extra_args: Any, service: Any, task_context: Any) -> None:
    sensor = BatchSubmissionSensor(
        task_id="wait", batch_id="42", mapping_s3_uri="s3://results/map.jsonl", s3_extra_args=extra_args
    )
    with pytest.raises(OmicsParameterError, match=r"s3_extra_args must (have only keys of S3 uploads|be a dict)"):
        sensor.execute(task_context)
    assert not service.calls


@pytest.mark.parametrize("parameter", ["max_silence", "consistency_timeout"])
@pytest.mark.parametrize("value", [-5, "x", True, float("nan"), float("inf"), timedelta(seconds=-1)])
def test_a_time_is_a_number_of_seconds_or_a_timedelta(parameter: str, value: Any) -> None:
    with pytest.raises(OmicsParameterError, match=f"{parameter} must be a number of seconds of at least 0"):
        BatchSubmissionSensor(task_id="wait", batch_id="42", **{parameter: value})
    assert (
        BatchSubmissionSensor(
            task_id="wait", batch_id="42", consistency_timeout=timedelta(minutes=5)
        ).consistency_timeout
        == 300
    )


def test_an_id_may_come_as_a_number(service: Any, client: Any, wait: Callable[..., Any]) -> None:
    batch_id = start_batch(client)
    assert len(wait("poke", int(batch_id))) == 3  # as native rendering gives it


@each_mode
def test_progress_is_logged_and_shown_once_a_change(
    mode: str,
    service: Any,
    client: Any,
    answer_with: Callable[..., None],
    wait: Callable[..., Any],
    task_context: dict[str, Any],
    caplog: Any,
    capsys: Any,
) -> None:
    batch_id = start_batch(client)
    created = client.get_batch(batchId=batch_id)["creationTime"]
    service.clock.advance(600)
    halfway = {
        "status": "SUBMITTING",
        "creationTime": created,
        "totalRuns": 3,
        "submissionSummary": {"successfulStartSubmissionCount": 1, "failedStartSubmissionCount": 1},
    }
    done = {"status": "INPROGRESS", "totalRuns": 3, "submissionSummary": {"pendingStartSubmissionCount": 0}}
    answer_with("GetBatch", halfway, halfway, halfway, done)
    with caplog.at_level(logging.INFO):
        wait(mode, batch_id)
    written = caplog.text or capsys.readouterr().out  # Airflow 3 logs past the logging module
    lines = [line for line in written.splitlines() if f"Batch {batch_id}" in line]
    halfway_lines = [line for line in lines if "submitted 1 of 3, 1 failed, " in line]
    processes = {"poke": 1, "reschedule": 3, "deferrable": 2}  # the worker and the triggerer
    assert len(halfway_lines) == processes[mode]
    assert all("/min, about " in line or "/h, about " in line for line in halfway_lines)
    shown = task_context["kept"].progress
    assert bool(shown) == (STORE == "task state store")
    for text in shown[-1:]:
        assert text == f"Batch {batch_id} is INPROGRESS"
        assert f"Batch {batch_id} is SUBMITTING: submitted 1 of 3, 1 failed, " in shown[0]
    assert "3 runs submitted, 0 submissions failed; the runs continue" in lines[-1]


def test_every_template_field_is_an_attribute() -> None:
    sensor = BatchSubmissionSensor(task_id="wait", batch_id="42")
    for field in sensor.template_fields:
        assert hasattr(sensor, field)
    named = {"aws_conn_id", "region_name", "verify", "batch_id", "max_failed_submissions"}
    assert named <= set(sensor.template_fields)
    assert not sensor.template_ext
