"""BatchCompletionSensor. What it shares with BatchSubmissionSensor is tested for all modes there; here once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import boto3
import pytest

from airflow_provider_omics_cache._compat import AirflowFailException, AirflowSensorTimeout, AirflowSkipException
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
    TooManyFailedRunsError,
    UnknownOutcomeError,
)
from airflow_provider_omics_cache.healthomics.rounds import Event
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor
from tests.conftest import needs_aiobotocore, needs_batches
from tests.sensor_modes import TaskDeferred, each_mode, run_sensor, start_batch

pytestmark = needs_batches


@pytest.fixture
def wait(service: Any, task_context: dict[str, Any]) -> Callable[..., Any]:
    """Run the sensor in a mode until it ends."""

    def run(mode: str, batch_id: str, **arguments: Any) -> Any:
        def make(**mode_arguments: Any) -> BatchCompletionSensor:
            everything = {"task_id": "wait", "poke_interval": 20, "timeout": 3_600, **arguments, **mode_arguments}
            return BatchCompletionSensor(batch_id=batch_id, **everything)

        return run_sensor(make, mode, task_context, service.clock)

    return run


def counts(total: int, completed: int, **others: int) -> dict[str, int]:
    rest = dict.fromkeys(("failed", "cancelled", "deleted", "not_submitted"), 0)
    return {"total": total, "completed": completed, **rest, **others}


def lines_of(uri_key: str) -> list[dict[str, Any]]:
    body = boto3.client("s3").get_object(Bucket="results", Key=uri_key)["Body"].read()
    return [json.loads(line) for line in body.splitlines()]


def start_with_operator(task_context: dict[str, Any], runs: int, own: Collection[int] = (), source: str = "") -> str:
    """Start a batch with StartRunBatchOperator. The settings of the numbers ``own`` have their own ``outputUri``.

    :param source: where the settings are, if they are not a list: "saved" or "uploaded".
    """
    settings: list[dict[str, Any]] = [
        {"runSettingId": f"sample-{n}", **({"outputUri": f"s3://results/own/{n}/"} if n in own else {})}
        for n in range(runs)
    ]
    uri = "s3://results/cohort.json"
    if source == "saved":
        save_run_settings(settings, uri)
    elif source == "uploaded":
        boto3.client("s3").put_object(Bucket="results", Key="cohort.json", Body=json.dumps(settings))
    start = StartRunBatchOperator(
        task_id="start",
        default_run_setting={
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": "s3://results/out",
        },
        run_settings=uri if source else settings,
        settings_s3_prefix="s3://results/settings",
    )
    return start.execute(task_context)  # type: ignore[arg-type]


# Success


@each_mode
def test_every_run_has_completed(
    mode: str, service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    batch_id = start_batch(client, 3)
    service.calls.clear()
    assert wait(mode, batch_id) == counts(3, 3)
    assert client.get_batch(batchId=batch_id)["status"] == "PROCESSED"
    xcoms = task_context["ti"].xcoms
    assert xcoms["return_value"] == xcoms["run_counts"] == counts(3, 3)
    assert (xcoms["failed_runs"], xcoms["failed_run_count"]) == ([], 0)
    assert set(service.calls) == {"GetBatch"}


@each_mode
def test_processed_is_not_success(
    mode: str, service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    service.faults.fail_run("sample-1", reason="SERVICE_ERROR")
    service.faults.fail_submission("sample-2", reason="ThrottlingException", message="Rate exceeded")
    batch_id = start_batch(client, 4)
    with pytest.raises(TooManyFailedRunsError) as caught:
        wait(mode, batch_id)
    assert isinstance(caught.value, AirflowFailException)
    assert (caught.value.batch_id, caught.value.status) == (batch_id, "PROCESSED")
    text = str(caught.value)
    assert text.startswith("2 runs did not complete: SERVICE_ERROR: ")
    assert "(sample-1); not submitted, ThrottlingException: Rate exceeded (sample-2). " in text
    assert text.endswith(f"Batch {batch_id} has 4 runs; max_failed_runs is 0")
    xcoms = task_context["ti"].xcoms
    assert xcoms["return_value"] == xcoms["run_counts"] == counts(4, 2, failed=1, not_submitted=1)
    assert xcoms["failed_run_count"] == 2
    (row,) = client.list_runs_in_batch(batchId=batch_id, runSettingId="sample-1")["runs"]
    assert sorted(xcoms["failed_runs"], key=lambda run: run["run_setting_id"]) == [
        {
            "run_setting_id": "sample-1",
            "run_id": row["runId"],
            "run_uuid": row["runInternalUuid"],
            "status": "FAILED",
            "failure_reason": "SERVICE_ERROR",
            "status_message": client.get_run(id=row["runId"])["statusMessage"],
        },
        {
            "run_setting_id": "sample-2",
            "run_id": None,
            "run_uuid": None,
            "status": "NOT_SUBMITTED",
            "failure_reason": "ThrottlingException",
            "status_message": "Rate exceeded",
        },
    ]


@each_mode
@pytest.mark.parametrize("allowed", [2, "50%"])
def test_failed_runs_within_the_allowance(
    mode: str, allowed: int | str, service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    service.faults.fail_run("sample-1")
    service.faults.fail_submission("sample-2")
    assert wait(mode, start_batch(client, 4), max_failed_runs=allowed) == counts(4, 2, failed=1, not_submitted=1)
    named = {run["run_setting_id"] for run in task_context["ti"].xcoms["failed_runs"]}
    assert named == {"sample-1", "sample-2"}


def test_cancelled_and_deleted_runs_are_counted_apart(
    service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    batch_id = start_batch(client, 4)
    service.clock.advance(10)
    run_ids = {run["runSettingId"]: run["runId"] for run in client.list_runs_in_batch(batchId=batch_id)["runs"]}
    client.cancel_run(id=run_ids["sample-0"])
    service.clock.advance(3_600)
    client.delete_run(id=run_ids["sample-1"])
    with pytest.raises(TooManyFailedRunsError, match=r"CANCELLED.* \(sample-0\); DELETED \(sample-1\)"):
        wait("poke", batch_id)
    xcoms = task_context["ti"].xcoms
    assert xcoms["run_counts"] == counts(4, 2, cancelled=1, deleted=1)
    assert {run["run_setting_id"]: run["status"] for run in xcoms["failed_runs"]} == {
        "sample-0": "CANCELLED",
        "sample-1": "DELETED",
    }


@each_mode
def test_the_runs_in_s3(
    mode: str, service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    service.faults.fail_run("sample-1")
    service.faults.fail_submission("sample-2", reason="ConflictException")
    batch_id = start_with_operator(task_context, 120)
    service.calls.clear()
    wait(mode, batch_id, max_failed_runs=2, runs_s3_uri="s3://results/runs.jsonl", include_outputs=True)
    # GetRun is called for the failed run, and for a sample of the completed runs.
    assert service.calls["GetRun"] == 1 + 20
    found = {line["run_setting_id"]: line for line in lines_of("runs.jsonl")}
    assert len(found) == len(lines_of("runs.jsonl")) == 120
    assert Counter(line["output_source"] for line in found.values()) == {"exact": 21, "derived": 98, None: 1}
    for page in client.get_paginator("list_runs_in_batch").paginate(batchId=batch_id):
        for row in page["runs"]:
            line = found[row["runSettingId"]]
            if row["runSettingId"] == "sample-2":
                assert (line["status"], line["failure_reason"]) == ("NOT_SUBMITTED", "ConflictException")
                continue
            run = client.get_run(id=row["runId"])
            assert line == {
                "run_setting_id": row["runSettingId"],
                "run_id": run["id"],
                "run_uuid": run["uuid"],
                "status": "FAILED" if row["runSettingId"] == "sample-1" else "COMPLETED",
                "creation_time": run["creationTime"].isoformat(),
                "start_time": run["startTime"].isoformat(),
                "stop_time": run["stopTime"].isoformat(),
                "failure_reason": run.get("failureReason"),
                "status_message": run.get("statusMessage"),
                "run_output_uri": run["runOutputUri"],
                "output_source": line["output_source"],
            }


@pytest.mark.parametrize(
    ("include_outputs", "own", "source"),
    [
        ("exact", (), "list"),
        (True, (30,), "list"),
        (True, range(60), "list"),
        (True, (30,), "saved"),
        (True, (), "uploaded"),
        (True, (30,), "another client"),
        (True, (), "another client"),
    ],
)
def test_each_run_is_asked_for_once_where_its_location_does_not_follow(
    include_outputs: Any,
    own: Any,
    source: str,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    task_context: dict[str, Any],
) -> None:
    """Run 30 is not in the sample."""
    boto3.client("s3").create_bucket(Bucket="results")
    service.faults.fail_run("sample-1")
    if source == "another client":
        batch_id = start_batch(client, 60, own)
    else:
        batch_id = start_with_operator(task_context, 60, own, source if source != "list" else "")
    uri = "s3://results/runs.jsonl"
    wait("poke", batch_id, max_failed_runs=1, runs_s3_uri=uri, include_outputs=include_outputs)
    assert service.calls["GetRun"] == 60
    lines = lines_of("runs.jsonl")
    assert {line["output_source"] for line in lines} == {"exact"}
    for line in lines:
        assert line["run_output_uri"] == client.get_run(id=line["run_id"])["runOutputUri"]


@pytest.mark.parametrize(("include_outputs", "exact"), [(True, 20), ("exact", 30)])
def test_only_exact_asks_for_runs_that_were_cancelled(
    include_outputs: Any,
    exact: int,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    task_context: dict[str, Any],
) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    batch_id = start_with_operator(task_context, 30, source="saved")
    service.clock.advance(10)
    run_ids = {run["runSettingId"]: run["runId"] for run in client.list_runs_in_batch(batchId=batch_id)["runs"]}
    client.cancel_run(id=run_ids["sample-0"])
    service.calls.clear()
    uri = "s3://results/runs.jsonl"
    wait("poke", batch_id, max_failed_runs=1, runs_s3_uri=uri, include_outputs=include_outputs)
    assert service.calls["GetRun"] == exact
    lines = {line["run_setting_id"]: line for line in lines_of("runs.jsonl")}
    assert Counter(line["output_source"] for line in lines.values())["exact"] == exact
    cancelled = lines.pop("sample-0")
    assert (cancelled["status"], cancelled["run_output_uri"] is None) == ("CANCELLED", include_outputs is True)
    for line in lines.values():
        assert line["run_output_uri"] == client.get_run(id=line["run_id"])["runOutputUri"]


def test_a_cancelled_batch_costs_no_call_for_each_run(
    service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    service.settings.run_running_seconds = 10_000
    batch_id = start_with_operator(task_context, 30)
    service.clock.advance(20)
    client.cancel_run_batch(batchId=batch_id)
    with pytest.raises(BatchCancelledError):
        wait("poke", batch_id, runs_s3_uri="s3://results/runs.jsonl", include_outputs=True)
    assert {line["status"] for line in lines_of("runs.jsonl")} == {"CANCELLED"}
    assert service.calls["GetRun"] == 0


def test_without_outputs_only_failed_runs_are_asked_for(
    service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    service.faults.fail_run("sample-1")
    batch_id = start_batch(client, 10)
    wait("poke", batch_id, max_failed_runs=1, runs_s3_uri="s3://results/runs.jsonl")
    assert service.calls["GetRun"] == 1
    assert {line["run_output_uri"] for line in lines_of("runs.jsonl")} == {
        None,
        client.get_run(id=task_context["ti"].xcoms["failed_runs"][0]["run_id"])["runOutputUri"],
    }


def test_get_run_is_paced(service: Any, client: Any, wait: Callable[..., Any], monkeypatch: Any) -> None:
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND", "4")
    service.settings.rate_limits = {"GetRun": 4}
    for number in range(40):
        service.faults.fail_run(f"sample-{number}")
    batch_id = start_batch(client, 40)
    service.clock.advance(3_600)
    before = service.clock.now()
    wait("poke", batch_id, max_failed_runs=40)
    assert service.calls["GetRun"] == 40
    assert (service.clock.now() - before).total_seconds() == pytest.approx(39 / 4)


def test_at_most_a_thousand_failed_runs_are_named_and_asked_for(
    service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    for number in range(1_100):
        service.faults.fail_run(f"sample-{number}")
    with pytest.raises(
        TooManyFailedRunsError, match=r"1,100 runs .*TASK_FAILED: .* and 995 more\); FAILED \(.* 95 more\)"
    ):
        wait("poke", start_batch(client, 1_200))
    assert service.calls["GetRun"] == 1_000
    assert task_context["ti"].xcoms["failed_run_count"] == 1_100
    assert len(task_context["ti"].xcoms["failed_runs"]) == 1_000


# Batches that are over


@each_mode
def test_a_cancelled_batch_is_reported_when_its_runs_have_ended(
    mode: str, service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    service.settings.submission_rate = 1.0
    batch_id = start_batch(client, 60)
    service.clock.advance(50)
    service.faults.fail_cancel(["sample-46"])
    client.cancel_run_batch(batchId=batch_id)
    with pytest.raises(
        BatchCancelledError, match=r"was cancelled \(set a new rerun_key to start a new batch\)"
    ) as caught:
        wait(mode, batch_id)
    statuses = {run["status"] for run in client.list_runs(batchId=batch_id)["items"]}
    assert statuses <= {"COMPLETED", "CANCELLED"}
    xcoms = task_context["ti"].xcoms
    found = xcoms["run_counts"]
    assert found["total"] == 60
    assert found["not_submitted"] == 60 - found["completed"] - found["cancelled"] > 0
    assert f"{found['completed']} of 60 runs completed" in str(caught.value)
    assert xcoms["return_value"] == found
    assert service.calls["StartRunBatch"] == 1


@each_mode
def test_a_failed_batch_is_reported_when_its_runs_have_ended(
    mode: str, service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    service.faults.fail_batch("It broke", after="SUBMITTING", started_runs=3)
    batch_id = start_batch(client, 10)
    with pytest.raises(BatchFailedError, match="It broke; 3 of 10 runs completed: not submitted \\(7 runs\\)"):
        wait(mode, batch_id)
    assert task_context["ti"].xcoms["run_counts"] == counts(10, 3, not_submitted=7)


@pytest.mark.parametrize("status", ["RUNS_DELETING", "RUNS_DELETE_FAILED", "RUNS_DELETED"])
def test_a_batch_whose_runs_are_deleted(
    status: str, service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    batch_id = start_batch(client, 3)
    service.clock.advance(3_600)
    if status == "RUNS_DELETE_FAILED":
        service.faults.fail_delete(["sample-1"])
    client.delete_run_batch(batchId=batch_id)
    service.clock.advance(0 if status == "RUNS_DELETING" else 60)
    with pytest.raises(BatchDeletedError, match=f"is {status}: its runs were deleted"):
        wait("poke", batch_id)
    assert task_context["ti"].xcoms["run_counts"]["total"] == 3
    assert service.calls["CancelRunBatch"] == 0


def test_nothing_hides_the_verdict(
    service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    service.faults.fail_run("sample-1")
    service.faults.error("ListRuns", code="AccessDeniedException", times=None)
    with pytest.raises(
        TooManyFailedRunsError,
        match=r"1 run did not complete.*details of its runs could not be fetched: .*AccessDenied",
    ):
        wait("poke", start_batch(client, 3))
    assert task_context["ti"].xcoms["run_counts"] == counts(3, 2, failed=1)


@each_mode
def test_records_that_cannot_be_written_do_not_hide_the_verdict(
    mode: str, service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    service.faults.fail_run("sample-1", reason="SERVICE_ERROR")
    batch_id = start_batch(client, 3)
    with pytest.raises(TooManyFailedRunsError) as caught:
        wait(mode, batch_id, runs_s3_uri="s3://missing/runs")
    text = str(caught.value)
    assert text.startswith("1 run did not complete: SERVICE_ERROR: ")
    assert f" (sample-1). Batch {batch_id} has 3 runs; max_failed_runs is 0; " in text
    assert "; the records of the runs were not written: Cannot write runs_s3_uri 's3://missing/runs': PutObject" in text
    assert "could not be fetched" not in text
    xcoms = task_context["ti"].xcoms
    assert xcoms["return_value"] == xcoms["run_counts"] == counts(3, 2, failed=1)
    assert [run["run_setting_id"] for run in xcoms["failed_runs"]] == ["sample-1"]


def test_records_that_cannot_be_written_do_not_hide_the_end_of_a_batch(
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    task_context: dict[str, Any],
    answer_with: Callable[..., None],
) -> None:
    service.faults.fail_run("sample-1", reason="SERVICE_ERROR")
    batch_id = start_batch(client, 3)
    service.clock.advance(3_600)
    answer_with("GetBatch", {"status": "FAILED", "totalRuns": 3, "failureReason": "broken"})
    with pytest.raises(BatchFailedError, match=r"failed: broken; 2 of 3 runs completed: SERVICE_ERROR.*") as caught:
        wait("poke", batch_id, runs_s3_uri="s3://missing/runs")
    assert "(sample-1); the records of the runs were not written: Cannot write runs_s3_uri" in str(caught.value)
    assert task_context["ti"].xcoms["run_counts"] == counts(3, 2, failed=1)


def test_a_success_whose_file_cannot_be_written_may_be_retried(
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    deny_uploads: Callable[[], None],
    task_context: dict[str, Any],
) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    deny_uploads()
    service.faults.fail_run("sample-1")
    text = "^Cannot write runs_s3_uri 's3://results/runs': PutObject failed: AccessDenied"
    with pytest.raises(OmicsApiError, match=text) as caught:
        wait("poke", start_batch(client, 3), runs_s3_uri="s3://results/runs", max_failed_runs=1)
    assert not isinstance(caught.value, AirflowFailException)
    xcoms = task_context["ti"].xcoms
    assert xcoms["return_value"] == xcoms["run_counts"] == counts(3, 2, failed=1)
    assert (xcoms["failed_run_count"], xcoms["failed_runs"][0]["run_setting_id"]) == (1, "sample-1")


def test_a_success_whose_bucket_does_not_exist_can_be_retried(
    service: Any, client: Any, wait: Callable[..., Any]
) -> None:
    with pytest.raises(OmicsApiError, match=r"Cannot write runs_s3_uri 's3://missing/runs': .*NoSuchBucket") as caught:
        wait("poke", start_batch(client, 3), runs_s3_uri="s3://missing/runs")
    assert not isinstance(caught.value, AirflowFailException)


# Answers that are late


@each_mode
def test_late_counts_are_waited_for(mode: str, service: Any, client: Any, wait: Callable[..., Any]) -> None:
    batch_id = start_batch(client, 3)
    service.clock.advance(40)
    assert client.get_batch(batchId=batch_id)["status"] == "PROCESSED"
    service.faults.stale_counts(seconds=30, times=3)
    assert wait(mode, batch_id) == counts(3, 3)


@each_mode
def test_counts_that_never_come_fail_and_may_be_retried(
    mode: str, answer_with: Callable[..., None], client: Any, wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client, 3)
    answer_with("GetBatch", {"status": "PROCESSED", "totalRuns": 3})
    with pytest.raises(UnknownOutcomeError, match="GetBatch does not report how many of its runs completed") as caught:
        wait(mode, batch_id)
    assert not isinstance(caught.value, AirflowFailException)


def test_counts_that_lack_runs_for_good_count_them_as_failed(
    answer_with: Callable[..., None], client: Any, wait: Callable[..., Any], service: Any
) -> None:
    service.faults.fail_run("sample-1")
    batch_id = start_batch(client, 3)
    service.clock.advance(60)
    answer_with("GetBatch", {"status": "PROCESSED", "totalRuns": 3, "runSummary": {"completedRunCount": 2}})
    with pytest.raises(TooManyFailedRunsError, match="1 run did not complete"):
        wait("poke", batch_id)


def test_counts_that_contradict_the_listing_for_good_may_be_retried(
    answer_with: Callable[..., None], client: Any, wait: Callable[..., Any], service: Any
) -> None:
    batch_id = start_batch(client, 3)
    service.clock.advance(60)
    answer_with("GetBatch", {"status": "PROCESSED", "totalRuns": 3, "runSummary": {"completedRunCount": 2}})
    with pytest.raises(UnknownOutcomeError, match="GetBatch counts 2 completed runs, but ListRuns shows 3") as caught:
        wait("poke", batch_id)
    assert not isinstance(caught.value, AirflowFailException)


@needs_aiobotocore
def test_an_answer_is_judged_by_its_own_time(
    service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    batch_id = start_batch(client, 3)
    service.clock.advance(45)
    processed_time = client.get_batch(batchId=batch_id)["processedTime"]
    late = {"id": batch_id, "status": "PROCESSED", "total_runs": 3, "run_counts": {"completed": 0, "running": 3}}
    late |= {"processed_time": processed_time.isoformat(), "seen_at": processed_time.timestamp() + 5}
    sensor = BatchCompletionSensor(task_id="wait", batch_id=batch_id, deferrable=True)
    service.clock.advance(600)
    with pytest.raises(TaskDeferred):
        sensor.execute_complete(task_context, {"status": "done", "batch": late})


def test_what_was_not_joined_is_not_counted(
    service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    service.faults.fail_run("sample-2")
    batch_id = start_batch(client, 10)
    service.clock.advance(40)
    client.cancel_run_batch(batchId=batch_id) if client.get_batch(batchId=batch_id)["status"] != "PROCESSED" else None
    service.clock.advance(60)
    service.faults.error("GetRun", code="AccessDeniedException", times=None)
    with pytest.raises(BatchError, match="details of its runs could not be fetched"):
        wait("poke", batch_id)
    assert task_context["ti"].xcoms["run_counts"]["total"] == 10


def test_a_run_that_list_runs_lacks_is_asked_for(
    service: Any, client: Any, wait: Callable[..., Any], answer_with: Callable[..., None]
) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    batch_id = start_batch(client, 3)
    answer_with("ListRuns", {"items": []})
    wait("poke", batch_id, runs_s3_uri="s3://results/runs.jsonl")
    assert {line["status"] for line in lines_of("runs.jsonl")} == {"COMPLETED"}


def test_a_second_listing_saves_the_wait(service: Any, client: Any, wait: Callable[..., Any]) -> None:
    service.faults.fail_run("sample-1")
    batch_id = start_batch(client, 5)
    service.clock.advance(3_600)
    service.faults.lagging_listing(rows=2, times=1)
    with pytest.raises(TooManyFailedRunsError, match=r"RUN_TASK_FAILED: .* \(sample-1\)"):
        wait("poke", batch_id)


def test_enough_completed_runs_are_enough_whatever_is_listed(
    service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    service.faults.fail_run("sample-1")
    batch_id = start_batch(client, 5)
    service.clock.advance(3_600)
    service.faults.lagging_listing(rows=2)
    assert wait("poke", batch_id, max_failed_runs=1)["completed"] == 4
    assert task_context["ti"].xcoms["failed_run_count"] == 1


@each_mode
def test_a_listing_that_lags_is_waited_for(mode: str, service: Any, client: Any, wait: Callable[..., Any]) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    service.faults.lagging_listing(rows=2, times=2)
    wait(mode, start_batch(client, 5), runs_s3_uri="s3://results/runs.jsonl")
    assert len(lines_of("runs.jsonl")) == 5


def test_a_listing_that_stays_incomplete_fails_and_may_be_retried(
    service: Any, client: Any, wait: Callable[..., Any]
) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    service.faults.lagging_listing(rows=2)
    with pytest.raises(IncompleteListingError, match="3 runs are listed, but 5 are expected"):
        wait("poke", start_batch(client, 5), runs_s3_uri="s3://results/runs.jsonl")
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="results")


def test_a_run_with_the_id_of_a_deleted_one_is_not_taken_for_it(
    service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    service.settings.reuse_run_ids = True
    batch_id = start_batch(client, 3)
    service.clock.advance(3_600)
    (row,) = client.list_runs_in_batch(batchId=batch_id, runSettingId="sample-1")["runs"]
    client.delete_run(id=row["runId"])
    start_batch(client, 1)
    service.clock.advance(5)
    assert client.get_run(id=row["runId"])["batchId"] != batch_id
    with pytest.raises(TooManyFailedRunsError, match=r"DELETED \(sample-1\)"):
        wait("poke", batch_id)
    assert [run["status"] for run in task_context["ti"].xcoms["failed_runs"]] == ["DELETED"]


# What is shared with the other sensor


@each_mode
def test_a_batch_that_is_not_found(mode: str, service: Any, wait: Callable[..., Any]) -> None:
    with pytest.raises(BatchNotFoundError, match=r"account 123456789012.*us-east-1.*aws_default"):
        wait(mode, "404")


@each_mode
def test_silence(mode: str, service: Any, client: Any, wait: Callable[..., Any]) -> None:
    batch_id = start_batch(client, 3)
    service.faults.throttle("GetBatch", times=None)
    with pytest.raises(BatchSilenceError):
        wait(mode, batch_id, max_silence=300)


@needs_aiobotocore
def test_a_timeout_cancels_nothing(service: Any, client: Any, wait: Callable[..., Any]) -> None:
    service.settings.run_running_seconds = 86_400
    batch_id = start_batch(client, 3)
    with pytest.raises(AirflowSensorTimeout):
        wait("deferrable", batch_id, timeout=600)
    assert client.get_batch(batchId=batch_id)["status"] == "INPROGRESS"
    assert service.calls["CancelRunBatch"] == 0


@each_mode
def test_soft_fail_skips_on_the_verdict(mode: str, service: Any, client: Any, wait: Callable[..., Any]) -> None:
    service.faults.fail_run("sample-1")
    with pytest.raises(AirflowSkipException):
        wait(mode, start_batch(client, 3), soft_fail=True)


@each_mode
def test_a_status_of_the_future_is_waited_on(
    mode: str, answer_with: Callable[..., None], client: Any, wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client, 3)
    processed = {"status": "PROCESSED", "totalRuns": 3, "runSummary": {"completedRunCount": 3}}
    answer_with("GetBatch", *[{"status": "REHYDRATING"}] * 4, processed)
    assert wait(mode, batch_id)["completed"] == 3


@each_mode
def test_a_throttle_in_the_middle_of_the_listings_is_waited_out(
    mode: str, service: Any, client: Any, wait: Callable[..., Any]
) -> None:
    service.faults.fail_run("sample-1")
    batch_id = start_batch(client, 250)
    for operation in ("ListRuns", "ListRunsInBatch", "GetRun"):
        service.faults.throttle(operation, times=6)
    with pytest.raises(TooManyFailedRunsError, match=r"RUN_TASK_FAILED: .* \(sample-1\)"):
        wait(mode, batch_id)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"batch_id": None}, "batch_id must be an id"),
        ({"batch_id": ""}, "batch_id must be an id"),
        ({"max_failed_runs": -1}, "max_failed_runs must be an integer"),
        ({"max_failed_runs": "101%"}, 'max_failed_runs must be .* from "0%" to "100%"; got \'101%\''),
        ({"max_failed_runs": "-5%"}, "max_failed_runs must be"),
        ({"max_failed_runs": True}, "max_failed_runs must be"),
        ({"runs_s3_uri": "results/runs"}, "runs_s3_uri must be an s3:// URI"),
        ({"runs_s3_uri": "s3://results"}, "runs_s3_uri must be s3://bucket/key"),
        ({"include_outputs": True}, "include_outputs needs runs_s3_uri"),
        (
            {"include_outputs": "derived", "runs_s3_uri": "s3://results/runs"},
            "include_outputs must be True, False or 'exact'",
        ),
        (
            {"runs_s3_uri": "s3://results/runs", "s3_extra_args": {"Bogus": 1}},
            r"s3_extra_args must have only keys of S3 uploads.*; got \['Bogus'\]",
        ),
    ],
)
def test_bad_parameters_are_refused_before_the_first_call(
    arguments: dict[str, Any], text: str, service: Any, task_context: dict[str, Any]
) -> None:
    with pytest.raises(OmicsParameterError, match=text):
        BatchCompletionSensor(**{"task_id": "wait", "batch_id": "42", **arguments}).poke(task_context)
    assert not service.calls


def test_a_pace_that_is_not_positive_is_refused(service: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND", "0")
    with pytest.raises(OmicsParameterError, match="max_get_run_per_second must be a number above 0; got '0'"):
        OmicsCacheHook().get_run(run_id="1")
    assert not service.calls


def test_an_upload_is_encrypted_with_a_bucket_key(service: Any, client: Any, wait: Callable[..., Any]) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="results")
    extra_args = {"ServerSideEncryption": "aws:kms", "BucketKeyEnabled": True}
    wait("poke", start_batch(client), runs_s3_uri="s3://results/runs.jsonl", s3_extra_args=extra_args)
    found = s3.head_object(Bucket="results", Key="runs.jsonl")
    assert {name: found.get(name) for name in extra_args} == extra_args


@each_mode
def test_counts_without_a_time_are_waited_for_from_the_beginning_of_the_wait(
    mode: str, service: Any, answer_with: Callable[..., None], client: Any, wait: Callable[..., Any]
) -> None:
    batch_id = start_batch(client, 3)
    answer_with("GetBatch", {"status": "PROCESSED", "totalRuns": 3})
    before = service.clock.elapsed()
    with pytest.raises(UnknownOutcomeError):
        wait(mode, batch_id)
    assert 300 <= service.clock.elapsed() - before <= 300 + 2 * 22


@each_mode
def test_a_listing_without_a_time_is_waited_for_from_the_beginning_of_the_wait(
    mode: str, service: Any, answer_with: Callable[..., None], client: Any, wait: Callable[..., Any]
) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    batch_id = start_batch(client, 5)
    service.clock.advance(600)
    answer_with("GetBatch", {"status": "PROCESSED", "totalRuns": 5, "runSummary": {"completedRunCount": 5}})
    service.faults.lagging_listing(rows=2)
    before = service.clock.elapsed()
    with pytest.raises(IncompleteListingError, match="3 runs are listed, but 5 are expected"):
        wait(mode, batch_id, runs_s3_uri="s3://results/runs.jsonl")
    assert 300 <= service.clock.elapsed() - before <= 300 + 2 * 22


@each_mode
def test_a_listing_gets_no_new_timeout_after_a_resume(
    mode: str, service: Any, answer_with: Callable[..., None], client: Any, wait: Callable[..., Any]
) -> None:
    boto3.client("s3").create_bucket(Bucket="results")
    batch_id = start_batch(client, 3)
    processed = {"status": "PROCESSED", "totalRuns": 3, "runSummary": {"completedRunCount": 3}}
    answer_with("GetBatch", *[{"status": "INPROGRESS"}] * 25, processed)
    service.faults.throttle("ListRunsInBatch", times=None)
    before = service.clock.elapsed()
    with pytest.raises(AirflowSensorTimeout, match="could not be listed"):
        wait(mode, batch_id, timeout=600, runs_s3_uri="s3://results/runs.jsonl")
    assert service.clock.elapsed() - before <= 600 + 60


@pytest.mark.parametrize(("status", "text"), [("RUNS_ARCHIVED", "is RUNS_ARCHIVED;"), (None, "is without a status;")])
def test_an_event_of_an_unknown_status(
    status: str | None, text: str, service: Any, client: Any, task_context: dict[str, Any], caplog: Any, capsys: Any
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(10)
    sensor = BatchCompletionSensor(task_id="wait", batch_id=batch_id)
    batch = {"id": batch_id, "status": status, "total_runs": 3}
    assert sensor._conclude(Event.from_json({"status": "failed", "batch": batch}), task_context) is None
    service.clock.advance(600)
    with pytest.raises(BatchError, match=text) as caught:
        sensor._conclude(Event.from_json({"status": "failed", "batch": batch}), task_context)
    written = caplog.text + capsys.readouterr().out
    assert f"{text[:-1]}; waiting for the end of 3 active runs" in written
    assert "None" not in str(caught.value)


def test_every_error_of_a_batch_is_final() -> None:
    assert issubclass(TooManyFailedRunsError, BatchError)
    assert issubclass(BatchError, AirflowFailException)


def test_every_template_field_is_an_attribute() -> None:
    sensor = BatchCompletionSensor(task_id="wait", batch_id="42")
    named = {"batch_id", "max_failed_runs", "runs_s3_uri", "s3_conn_id", "s3_extra_args", "aws_conn_id"}
    assert named <= set(sensor.template_fields)
    assert all(hasattr(sensor, name) for name in sensor.template_fields)
