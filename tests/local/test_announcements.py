"""Events in moto's EventBridge and log streams in moto's CloudWatch Logs: both only on demand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_omics_cache.local import LocalHealthOmics
from tests.conftest import needs_batches
from tests.local.conftest import DEFAULT_RUN_SETTING, new_client, run_settings
from tests.local.test_single_runs import start

GROUP = "/aws/omics/WorkflowLog"


@pytest.fixture
def queue(omics: Any) -> str:
    """A queue that gets every event of HealthOmics."""
    sqs, events = new_client("sqs"), new_client("events")
    url: str = sqs.create_queue(QueueName="omics")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="omics", EventPattern=json.dumps({"source": ["aws.omics"]}))
    events.put_targets(Rule="omics", Targets=[{"Id": "queue", "Arn": arn}])
    return url


def received(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while messages := new_client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        found += [json.loads(message["Body"]) for message in messages]
    return found


def of_kind(events: list[dict[str, Any]], kind: str) -> list[str]:
    return [event["detail"]["status"] for event in events if event["detail-type"] == kind]


def test_nothing_is_announced_by_default(omics: Any, local_healthomics: LocalHealthOmics, queue: str) -> None:
    run_id = start(omics)
    local_healthomics.clock.advance(100)
    omics.get_run(id=run_id)
    assert received(queue) == []
    assert new_client("logs").describe_log_groups()["logGroups"] == []


def test_events_of_runs_and_tasks(omics: Any, local_healthomics: LocalHealthOmics, queue: str) -> None:
    local_healthomics.settings.send_events = True
    local_healthomics.register_workflow("4711", name="germline", tasks=[{"name": "A"}])
    run_id = start(omics, name="one")
    assert of_kind(received(queue), "Run Status Change") == ["PENDING"]
    local_healthomics.clock.advance(100)
    run = omics.get_run(id=run_id)
    events = received(queue)
    assert of_kind(events, "Run Status Change") == ["STARTING", "RUNNING", "STOPPING", "COMPLETED"]
    assert of_kind(events, "Task Status Change") == ["RUNNING", "COMPLETED"]
    detail = next(event["detail"] for event in events if event["detail"]["status"] == "STOPPING")
    assert detail == {
        "omicsVersion": "1.0.0",
        "arn": run["arn"],
        "uuid": run["uuid"],
        "status": "STOPPING",
        "runId": run_id,
        "runName": "one",
        "runOutputUri": run["runOutputUri"],
        "workflowId": "4711",
        "workflowName": "germline",
    }
    omics.get_run(id=run_id)
    assert received(queue) == []
    cancelled = start(omics)
    omics.cancel_run(id=cancelled)
    local_healthomics.clock.advance(100)
    omics.list_runs()
    omics.delete_run(id=cancelled)
    events = received(queue)
    assert of_kind(events, "Run Status Change") == ["PENDING", "STOPPING", "CANCELLED", "DELETED"]
    assert events[-1]["detail"]["runId"] == cancelled
    local_healthomics.settings.reuse_run_ids = True
    assert start(omics) == cancelled
    assert of_kind(received(queue), "Run Status Change") == ["PENDING"]


@needs_batches
def test_events_of_batches(omics: Any, local_healthomics: LocalHealthOmics, queue: str) -> None:
    local_healthomics.settings.send_events = True
    local_healthomics.register_workflow("4711")
    local_healthomics.register_workflow_version("4711", "v2")
    version = {"workflowVersionName": "v2", "workflowOwnerId": "210987654321"}
    batch_id = omics.start_run_batch(
        batchName="cohort",
        defaultRunSetting={**DEFAULT_RUN_SETTING, **version},
        batchRunSettings={"inlineSettings": run_settings(2)},
    )["id"]
    local_healthomics.clock.advance(100)
    omics.delete_run_batch(batchId=batch_id)
    local_healthomics.clock.advance(100)
    omics.get_batch(batchId=batch_id)
    events = received(queue)
    assert of_kind(events, "Run Status Change").count("DELETED") == 2
    assert of_kind(events, "RunBatch Status Change") == [
        "CREATING",
        "PENDING",
        "SUBMITTING",
        "INPROGRESS",
        "PROCESSED",
        "RUNS_DELETING",
        "RUNS_DELETED",
    ]
    processed = next(event["detail"] for event in events if event["detail"]["status"] == "PROCESSED")
    assert all(isinstance(value, str) for value in processed.values())
    assert (processed["batchName"], processed["totalRuns"], processed["completedRunCount"]) == ("cohort", "2", "2")
    workflow_arn = "arn:aws:omics:us-east-1:123456789012:workflow/4711"
    assert (processed["workflowArn"], processed["workflowVersionArn"]) == (workflow_arn, f"{workflow_arn}/version/v2")
    assert processed["workflowOwnerId"] == "210987654321"


@needs_batches
def test_logs_of_a_run_with_the_id_of_a_deleted_run(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.write_logs = local_healthomics.settings.reuse_run_ids = True
    request = {"defaultRunSetting": DEFAULT_RUN_SETTING, "batchRunSettings": {"inlineSettings": run_settings(1)}}
    batch_id = omics.start_run_batch(**request)["id"]
    local_healthomics.clock.advance(100)
    omics.delete_run_batch(batchId=batch_id)
    run_id = start(omics)
    local_healthomics.clock.advance(100)
    uuid = omics.get_run(id=run_id)["uuid"]
    manifests = new_client("logs").describe_log_streams(logGroupName=GROUP, logStreamNamePrefix="manifest/")
    assert f"manifest/run/{run_id}/{uuid}" in [stream["logStreamName"] for stream in manifests["logStreams"]]


@needs_batches
def test_why_a_batch_failed_is_a_code(omics: Any, local_healthomics: LocalHealthOmics, queue: str) -> None:
    local_healthomics.settings.send_events = True
    local_healthomics.faults.fail_batch()
    for setting_ids in (("a",), ("a", "a")):
        settings = [{"runSettingId": setting_id} for setting_id in setting_ids]
        omics.start_run_batch(defaultRunSetting=DEFAULT_RUN_SETTING, batchRunSettings={"inlineSettings": settings})
        local_healthomics.clock.advance(100)
        batch = omics.list_batch(status="FAILED")["items"][-1]
        detail = received(queue)[-1]["detail"]
        code = "INTERNAL_SERVER_EXCEPTION" if len(settings) == 1 else "VALIDATION_EXCEPTION"
        assert (detail["status"], detail["failureReason"]) == ("FAILED", code)
        assert detail["failureMessage"] == omics.get_batch(batchId=batch["id"])["failureReason"]


def test_log_streams(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.write_logs = True
    local_healthomics.register_workflow("4711", tasks=[{"name": "A"}])
    run_id = start(omics)
    local_healthomics.clock.advance(100)
    run = omics.get_run(id=run_id)
    logs = new_client("logs")
    streams = {stream["logStreamName"] for stream in logs.describe_log_streams(logGroupName=GROUP)["logStreams"]}
    task = omics.list_run_tasks(id=run_id)["items"][0]
    assert streams == {
        f"run/{run_id}",
        f"run/{run_id}/engine",
        f"run/{run_id}/task/{task['taskId']}",
        f"manifest/run/{run_id}/{run['uuid']}",
    }
    shown = omics.get_run_task(id=run_id, taskId=task["taskId"])["logStream"]
    for arn in (run["logLocation"]["runLogStream"], run["logLocation"]["engineLogStream"], shown):
        assert arn.partition(":log-stream:")[2] in streams
    lines = logs.get_log_events(logGroupName=GROUP, logStreamName=f"run/{run_id}")["events"]
    assert [json.loads(line["message"])["status"] for line in lines] == [
        "PENDING",
        "STARTING",
        "RUNNING",
        "STOPPING",
        "COMPLETED",
    ]
