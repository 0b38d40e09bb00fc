"""Announce the states of batches, runs and tasks: as events in EventBridge, and as lines in CloudWatch Logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from airflow_provider_omics_cache.healthomics.states import BatchStatus, RunStatus
from airflow_provider_omics_cache.local.batch import Batch
from airflow_provider_omics_cache.local.batches import RegionSubmitter
from airflow_provider_omics_cache.local.cache_entries import TASKS_PER_RUN
from airflow_provider_omics_cache.local.course import Task
from airflow_provider_omics_cache.local.moto_backend import send_events, write_log
from airflow_provider_omics_cache.local.region import Region, ServiceContext
from airflow_provider_omics_cache.local.run_of_batch import RunOfBatch
from airflow_provider_omics_cache.local.runs import Run, run_output_uri, task_id_of
from airflow_provider_omics_cache.local.workflows import existing_workflow, tasks_of

LOG_GROUP = "/aws/omics/WorkflowLog"
_VERSION = "1.0.0"
# HealthOmics announces every state of a batch except this one.
_NOT_ANNOUNCED = BatchStatus.RUNS_DELETE_FAILED
_INVALID = "VALIDATION_EXCEPTION"
# AWS documents only the code above. This one is assumed.
_TRANSIENT = "INTERNAL_SERVER_EXCEPTION"
_ENDED = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED})


def announce(region: Region, context: ServiceContext) -> None:
    """Announce every state that was not announced before.

    :param region: account and Region, brought up to the present time.
    :param context: what the Regions share, with the present time and the settings.
    """
    events: list[dict[str, Any]] = []
    for batch in list(region.batches.values()):
        batch.advance(context.now, RegionSubmitter(region, context))
        events += _events_of_batch(region, context, batch)
        tasks = tasks_of(region, context, batch)
        for index in batch.started_runs():
            events += _events_of_run(region, context, RunOfBatch(batch, index, tasks))
    for run in list(region.single_runs.values()):
        events += _events_of_run(region, context, run)
    events += [_event_of_deletion(region, context, run) for run in region.deleted_runs]
    if context.settings.send_events:
        send_events(region.account_id, region.name, events)


def _events_of_batch(region: Region, context: ServiceContext, batch: Batch) -> Iterator[dict[str, Any]]:
    arn = region.arn(f"runBatch/{batch.number}")
    for at, status in _new(region, ("batch", batch.number), batch.states_until(context.now)):
        if status == _NOT_ANNOUNCED:
            continue
        workflow_id, cache_id = batch.default["workflowId"], batch.default.get("cacheId")
        workflow_arn, version_name = region.arn(f"workflow/{workflow_id}"), batch.default.get("workflowVersionName")
        counts = {**batch.submission_summary(at), **batch.run_summary(at)}
        total = batch.total_runs()
        detail = {
            "omicsVersion": _VERSION,
            "arn": arn,
            "batchId": batch.number,
            "uuid": batch.uuid,
            "status": status,
            "batchName": batch.name,
            "totalRuns": total,
            **{name: count for name, count in counts.items() if "Cancel" not in name and "Delete" not in name},
            "workflowId": workflow_id,
            "workflowArn": workflow_arn,
            "workflowVersionArn": None if version_name is None else f"{workflow_arn}/version/{version_name}",
            "workflowOwnerId": batch.default.get("workflowOwnerId"),
            "runCache": None if cache_id is None else region.arn(f"runCache/{cache_id}"),
            "runCacheBehavior": batch.default.get("cacheBehavior"),
        }
        if status == BatchStatus.FAILED:
            detail["failureReason"] = _TRANSIENT if batch.failure_is_transient else _INVALID
            detail["failureMessage"] = batch.failure_reason
        yield _event(context, "RunBatch Status Change", arn, at, detail)


def _events_of_run(region: Region, context: ServiceContext, run: Run) -> Iterator[dict[str, Any]]:
    if run.status(context.now) == RunStatus.DELETED:
        return
    course = run.course()
    states = course.states_until(context.now)
    new = list(_new(region, ("run", run.number), states))
    if not new and states[-1][1] in _ENDED:
        return
    arn, common = region.arn(f"run/{run.number}"), _common_detail(region, context, run)
    for at, status in new:
        yield _event_of_run(context, run, arn, at, status, common)
        _log(region, context, f"run/{run.number}", at, {"status": status, "runId": str(run.number)})
        if status == RunStatus.RUNNING:
            _log(region, context, f"run/{run.number}/engine", at, {"message": "The engine started"})
        if status in _ENDED:
            manifest = {"arn": arn, "uuid": run.uuid, "status": status}
            _log(region, context, f"manifest/run/{run.number}/{run.uuid}", at, manifest)
    for task in course.tasks_at(context.now):
        task_id = task_id_of(run, task)
        task_arn = region.arn(f"task/{task_id}")
        for at, status in _new(region, ("task", int(task_id)), _states_of_task(task)):
            detail = {"arn": task_arn, "status": status, "runArn": arn, "runUuid": run.uuid}
            yield _event(context, "Task Status Change", task_arn, at, {**common, **detail})
            if task.cache_uri is None:
                message = {"task": task.definition.name, "status": status}
                _log(region, context, f"run/{run.number}/task/{task_id}", at, message)


def _event_of_deletion(region: Region, context: ServiceContext, run: Run) -> dict[str, Any]:
    """Return the event of a deleted run. Forget its announced states, because another run may get its id."""
    region.announced.pop(("run", run.number), None)
    for number in range(1, len(run.course().tasks) + 1):
        region.announced.pop(("task", run.number * TASKS_PER_RUN + number), None)
    arn, common = region.arn(f"run/{run.number}"), _common_detail(region, context, run)
    return _event_of_run(context, run, arn, context.now, RunStatus.DELETED, common)


def _common_detail(region: Region, context: ServiceContext, run: Run) -> dict[str, Any]:
    """Return what the events of a run and of its tasks have in common."""
    setting = run.setting()
    workflow = existing_workflow(region, context, setting["workflowId"], setting.get("workflowType", "PRIVATE"))
    return {
        "omicsVersion": _VERSION,
        "runId": run.number,
        "runName": setting.get("name"),
        "workflowId": setting["workflowId"],
        "workflowName": None if workflow is None else workflow.shown.get("name"),
    }


def _event_of_run(
    context: ServiceContext, run: Run, arn: str, at: float, status: RunStatus, common: dict[str, Any]
) -> dict[str, Any]:
    detail = {"arn": arn, "uuid": run.uuid, "status": status, "runOutputUri": run_output_uri(run)}
    return _event(context, "Run Status Change", arn, at, {**common, **detail})


def _states_of_task(task: Task) -> list[tuple[float, RunStatus]]:
    if task.started_at is None:
        return [(task.created_at, task.status)]
    running = [(task.started_at, RunStatus.RUNNING)]
    return running if task.stopped_at is None else [*running, (task.stopped_at, task.status)]


def _new(region: Region, key: tuple[str, int], states: list[tuple[float, Any]]) -> Iterator[tuple[float, Any]]:
    """Yield the states that were not announced, and count them as announced."""
    announced = region.announced.get(key, 0)
    region.announced[key] = max(announced, len(states))
    yield from states[announced:]


def _event(context: ServiceContext, detail_type: str, arn: str, at: float, detail: dict[str, Any]) -> dict[str, Any]:
    texts = {name: str(value) for name, value in detail.items() if value is not None}
    return {
        "Source": "aws.omics",
        "DetailType": detail_type,
        "Resources": [arn],
        "Time": context.clock.at(at),
        "Detail": json.dumps(texts),
    }


def _log(region: Region, context: ServiceContext, stream: str, at: float, message: dict[str, Any]) -> None:
    if context.settings.write_logs:
        line = context.clock.at(at).timestamp(), json.dumps(message)
        write_log(region.account_id, region.name, LOG_GROUP, stream, [line])
