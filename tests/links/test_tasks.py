"""The console links of each task, there before it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import pytest
from airflow.providers.amazon.aws.links import base_aws

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:
    from airflow.exceptions import TaskDeferred

from airflow_provider_omics_cache.exceptions import TooManyFailedRunsError
from airflow_provider_omics_cache.healthomics.rounds import Batch, Event, EventStatus
from airflow_provider_omics_cache.links.omics import (
    OmicsBatchLink,
    OmicsLogGroupLink,
    OmicsRunCacheS3Link,
    OmicsRunGroupLink,
    OmicsRunLink,
)
from airflow_provider_omics_cache.operators.run_batch import (
    CancelRunBatchOperator,
    DeleteRunBatchOperator,
    StartRunBatchOperator,
)
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator, UpdateRunCacheOperator
from airflow_provider_omics_cache.operators.run_group import CreateRunGroupOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from tests.conftest import AIRFLOW_3, needs_aiobotocore, needs_batches

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

ROLE = "arn:aws:iam::123456789012:role/omics"
RUNS = "https://us-east-1.console.aws.amazon.com/omics/home?region=us-east-1#/runs"
LOGS = (
    "https://console.aws.amazon.com/cloudwatch/home?region=us-east-1"
    "#logsV2:log-groups/log-group/$252Faws$252Fomics$252FWorkflowLog"
)
RUNS_OF_THE_BATCH = RUNS.replace("#", "&batchId=1000001#")
OF_A_BATCH = {"HealthOmics Runs": RUNS_OF_THE_BATCH, "HealthOmics Logs": LOGS}


@pytest.fixture
def local(local_healthomics: LocalHealthOmics) -> LocalHealthOmics:
    boto3.client("s3").create_bucket(Bucket="cohort")
    return local_healthomics


def links_of(operator: Any, context: dict[str, Any]) -> dict[str, str]:
    """Give what Airflow shows of a task by now, by the name of the button."""
    kept = context["ti"].links
    urls = {link.name: link.format_link(**kept.get(link.key, {})) for link in operator.operator_extra_links}
    shown = {name: url for name, url in urls.items() if url}
    if AIRFLOW_3:
        by_key = {link.name: kept.get(link.xcom_key) for link in operator.operator_extra_links}
        assert {name: url for name, url in by_key.items() if url} == shown
    return shown


def start_batch() -> str:
    batch = boto3.client("omics").start_run_batch(
        defaultRunSetting={"workflowId": "1", "roleArn": ROLE, "outputUri": "s3://cohort/"},
        batchRunSettings={"inlineSettings": [{"runSettingId": name} for name in "abcd"]},
    )
    return str(batch["id"])


def test_a_run_cache_leads_to_its_folder_and_its_log_streams(
    local: LocalHealthOmics, task_context: dict[str, Any]
) -> None:
    create = CreateRunCacheOperator(task_id="cache", name="cohort", cache_s3_location="s3://cohort/cache")
    cache_id = create.execute(task_context)
    uri = boto3.client("omics").get_run_cache(id=cache_id)["cacheS3Uri"]
    prefix = uri.removeprefix("s3://cohort/")
    shown = {
        "Run Cache in S3": f"https://console.aws.amazon.com/s3/buckets/cohort?region=us-east-1&prefix={prefix}",
        "HealthOmics Logs": f"{LOGS}$3FlogStreamNameFilter$3DrunCache$252F{cache_id}$252F",
    }
    assert links_of(create, task_context) == shown
    task_context["ti"].links.clear()
    update = UpdateRunCacheOperator(task_id="update", run_cache_id=cache_id, name="other")
    update.execute(task_context)
    assert links_of(update, task_context) == shown


@needs_batches
def test_the_start_of_a_batch_leads_to_the_runs(local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
    start = StartRunBatchOperator(
        task_id="start",
        default_run_setting={"workflowId": "1", "roleArn": ROLE, "outputUri": "s3://cohort/"},
        run_settings=[{"runSettingId": "a"}],
    )
    start.execute(task_context)
    assert links_of(start, task_context) == OF_A_BATCH


@needs_batches
@pytest.mark.parametrize(
    ("task", "seconds"), [(CancelRunBatchOperator, 10), (DeleteRunBatchOperator, 3600)], ids=["cancel", "delete"]
)
def test_the_end_of_a_batch_leads_to_the_runs(
    local: LocalHealthOmics, task_context: dict[str, Any], task: Any, seconds: int
) -> None:
    end = task(task_id="end", batch_id=start_batch(), wait_for_completion=False)
    local.clock.advance(seconds)
    end.execute(task_context)
    assert links_of(end, task_context) == OF_A_BATCH


@needs_batches
def test_a_sensor_leads_to_the_runs_from_its_first_round_on(
    local: LocalHealthOmics, task_context: dict[str, Any]
) -> None:
    sensor = BatchSubmissionSensor(task_id="wait", batch_id=start_batch())
    assert not sensor.poke(task_context)
    assert links_of(sensor, task_context) == OF_A_BATCH


@needs_batches
def test_a_sensor_has_its_links_while_the_service_is_silent(
    local: LocalHealthOmics, task_context: dict[str, Any]
) -> None:
    sensor = BatchSubmissionSensor(
        task_id="wait", batch_id=start_batch(), botocore_config={"retries": {"total_max_attempts": 1}}
    )
    local.faults.throttle("GetBatch", times=1)
    assert not sensor.poke(task_context)
    assert links_of(sensor, task_context) == OF_A_BATCH


@needs_batches
@needs_aiobotocore
def test_no_link_reads_an_xcom_that_does_not_exist(
    local: LocalHealthOmics, task_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3 asks for each link when the process of a task ends, and logs an error for a missing XCom."""

    reads: list[bool] = []

    def stored(*, key: str, ti_key: Any) -> Any:
        reads.append(key in ti_key.links)
        return ti_key.links.get(key)

    monkeypatch.setattr(base_aws.XCom, "get_value", stored)

    def opened(task: Any) -> list[bool]:
        return [bool(link.get_link(task, ti_key=task_context["ti"])) for link in links]

    links = BatchCompletionSensor.operator_extra_links
    batch_id = start_batch()
    silent = BatchCompletionSensor(task_id="wait", batch_id=batch_id, deferrable=True)
    assert opened(silent) == [False, False, False]
    with pytest.raises(TaskDeferred) as deferral:
        silent.execute(task_context)
    assert opened(silent) == [False, True, True]
    local.clock.advance(3600)
    resumed = BatchCompletionSensor(task_id="wait", batch_id=batch_id, deferrable=True)
    batch = Batch.from_answer(batch_id, boto3.client("omics").get_batch(batchId=batch_id))
    event = Event(status=EventStatus.DONE, batch=batch).to_json()
    resumed.resume_execution(deferral.value.method_name, {"event": event}, task_context)
    assert reads == []
    assert opened(resumed) == [False, True, True]
    assert set(reads) == {True}


def test_the_xcoms_of_links_come_last() -> None:
    for link in BatchCompletionSensor.operator_extra_links:
        keys = [link.key, link.xcom_key, "batch", "changed_after_submission", "return_value", "run_counts"]
        assert sorted(keys)[-2:] == sorted([link.key, link.xcom_key])


@needs_batches
@needs_aiobotocore
def test_a_deferred_sensor_leads_to_the_runs(local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
    sensor = BatchSubmissionSensor(task_id="wait", batch_id=start_batch(), deferrable=True)
    with pytest.raises(TaskDeferred):
        sensor.execute(task_context)
    assert links_of(sensor, task_context) == OF_A_BATCH


@needs_batches
def test_a_finished_batch_leads_to_the_first_run_that_failed(
    local: LocalHealthOmics, task_context: dict[str, Any]
) -> None:
    local.faults.fail_submission("a", reason="ValidationException")
    local.faults.fail_run("c", reason="RUN_TASK_FAILED")
    local.faults.fail_run("d", reason="RUN_TASK_FAILED")
    batch_id = start_batch()
    sensor = BatchCompletionSensor(task_id="wait", batch_id=batch_id)
    local.clock.advance(10)
    assert not sensor.poke(task_context)
    assert links_of(sensor, task_context) == OF_A_BATCH
    omics = boto3.client("omics")
    cancelled, failed = (
        omics.list_runs_in_batch(batchId=batch_id, runSettingId=name)["runs"][0]["runId"] for name in "bc"
    )
    omics.cancel_run(id=cancelled)
    local.clock.advance(3600)
    with pytest.raises(TooManyFailedRunsError):
        sensor.poke(task_context)
    assert links_of(sensor, task_context) == {
        "HealthOmics Run": f"{RUNS}/{failed}",
        "HealthOmics Runs": RUNS_OF_THE_BATCH,
        "HealthOmics Logs": f"{LOGS}$3FlogStreamNameFilter$3Drun$252F{failed}",
    }


@needs_batches
def test_a_finished_batch_without_a_failed_run_leads_to_none(
    local: LocalHealthOmics, task_context: dict[str, Any]
) -> None:
    local.faults.fail_submission("a", reason="ValidationException")
    sensor = BatchCompletionSensor(task_id="wait", batch_id=start_batch(), max_failed_runs=1)
    local.clock.advance(3600)
    assert sensor.poke(task_context)
    assert links_of(sensor, task_context) == OF_A_BATCH


@needs_batches
def test_links_are_kept_once_by_a_process(local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
    sensor = BatchSubmissionSensor(task_id="wait", batch_id=start_batch())
    sensor.poke(task_context)
    task_context["ti"].links.clear()
    sensor.poke(task_context)
    assert links_of(sensor, task_context) == {}


@pytest.mark.parametrize(
    ("task", "links"),
    [
        (CreateRunCacheOperator, {OmicsRunCacheS3Link, OmicsLogGroupLink}),
        (UpdateRunCacheOperator, {OmicsRunCacheS3Link, OmicsLogGroupLink}),
        (CreateRunGroupOperator, {OmicsRunGroupLink}),
        (StartRunBatchOperator, {OmicsRunLink, OmicsBatchLink, OmicsLogGroupLink}),
        (CancelRunBatchOperator, {OmicsBatchLink, OmicsLogGroupLink}),
        (DeleteRunBatchOperator, {OmicsBatchLink, OmicsLogGroupLink}),
        (BatchSubmissionSensor, {OmicsBatchLink, OmicsLogGroupLink}),
        (BatchCompletionSensor, {OmicsRunLink, OmicsBatchLink, OmicsLogGroupLink}),
    ],
)
def test_each_task_has_the_links_of_what_it_works_on(task: Any, links: set[type]) -> None:
    assert {type(link) for link in task.operator_extra_links} == links
