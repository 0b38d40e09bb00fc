"""The run operations."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from airflow_provider_omics_cache.healthomics.states import RunStatus
from airflow_provider_omics_cache.local.batch import FINISHED_RUN_STATES, Batch
from airflow_provider_omics_cache.local.batches import RegionSubmitter, check_documents
from airflow_provider_omics_cache.local.cache_entries import TASKS_PER_RUN
from airflow_provider_omics_cache.local.course import Course, Task
from airflow_provider_omics_cache.local.planning import plan_course
from airflow_provider_omics_cache.local.protocol import (
    ServiceError,
    derived_uuid,
    new_uuid,
    not_found,
    number_of,
    page,
    start_of_page,
)
from airflow_provider_omics_cache.local.region import Region, ServiceContext, check_tags
from airflow_provider_omics_cache.local.run_of_batch import RunOfBatch
from airflow_provider_omics_cache.local.run_rules import NO_PREFIX
from airflow_provider_omics_cache.local.single_run import SingleRun
from airflow_provider_omics_cache.local.start_rules import check_run
from airflow_provider_omics_cache.local.workflows import tasks_of

# A position in ListRuns is the batch's id times this number, plus the run's number in the batch.
_RUNS_PER_BATCH = 1_000_000
#: GiB of static storage of a run without ``storageCapacity``.
_DEFAULT_STORAGE_CAPACITY = 1200
_FROM_SETTING = (
    "workflowId",
    "workflowType",
    "workflowOwnerId",
    "workflowVersionName",
    "runId",
    "roleArn",
    "name",
    "cacheId",
    "cacheBehavior",
    "runGroupId",
    "priority",
    "parameters",
    "outputUri",
    "storageCapacity",
    "storageType",
    "logLevel",
    "retentionMode",
    "networkingMode",
    "scratchStorageMode",
    "sessionPolicy",
    "engineSettings",
    "outputUriPrefixMode",
)
_NOT_REPEATED = frozenset({"runId", "tags", "runTags", "runSettingId", "outputBucketOwnerId"})


class Run(Protocol):
    """A run: a single run, or one of a batch."""

    number: int
    uuid: str
    batch_number: int | None

    def setting(self) -> dict[str, Any]:
        """Return the effective settings, as the members of StartRun."""

    def course(self) -> Course:
        """Return the tasks, times and states."""

    def status(self, now: float) -> RunStatus:
        """Return the state."""

    def failure(self) -> tuple[str, str] | None:
        """Return failureReason and statusMessage of a run that fails, None of another."""

    def tags(self) -> dict[str, str]:
        """Return the tags."""

    def changeable_tags(self) -> dict[str, str]:
        """Return the tags; changes of the result are kept."""

    def cancel(self, now: float) -> None:
        """Cancel the run."""

    def delete(self) -> None:
        """Delete the run."""


def start_run(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """StartRun."""
    now, settings = context.now, context.settings
    replayed = region.tokens.find("StartRun", request, now=now, settings=settings)
    if replayed is not None:
        run = region.single_runs.get(int(replayed["id"]))
        if settings.replayed_status == "current" and run is not None:
            replayed["status"] = run.status(now)
        return replayed
    check_tags(request.get("tags", {}))
    setting = check_documents({name: value for name, value in request.items() if name != "requestId"})
    if "runId" in setting:
        setting = {**_repeatable(region, context, setting["runId"]), **setting}
    workflow = check_run(region, context, setting)
    number = RegionSubmitter(region, context).new_run_number()
    course = plan_course(
        region,
        context,
        setting,
        name=setting.get("name"),
        tasks=workflow.tasks,
        submitted_at=now,
        settings=settings.copy(),
    )
    run = SingleRun(number=number, uuid=new_uuid(), setting=setting, course=course)
    region.add_run(run)
    described = describe_run(region, context, run, run.status(now))
    names = ("arn", "id", "status", "tags", "uuid", "runOutputUri", "configuration", "networkingMode")
    answer = {name: described[name] for name in names if name in described}
    region.tokens.remember("StartRun", request, answer, now=now, settings=settings)
    return answer


def get_run(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """GetRun."""
    run, now = any_run(region, context, request["id"])
    return describe_run(region, context, run, run.status(now))


def describe_run(region: Region, context: ServiceContext, run: Run, status: RunStatus) -> dict[str, Any]:
    """Return the answer of GetRun for a run in this state."""
    setting, run_id = run.setting(), str(run.number)
    batch = {} if run.batch_number is None else {"batchId": str(run.batch_number)}
    answer = {
        "arn": region.arn(f"run/{run_id}"),
        "id": run_id,
        "uuid": run.uuid,
        **batch,
        "runOutputUri": run_output_uri(run),
        "startedBy": region.arn("user/local").replace(":omics:", ":iam:").replace(f":{region.name}:", "::"),
        "tags": dict(run.tags()),
        "logLocation": _log_location(region, run_id),
        **_effective(region, context, setting),
        **{name: setting[name] for name in _FROM_SETTING if name in setting},
        **_configuration(region, setting),
        **_progress(context, run.course(), status),
    }
    failure = run.failure()
    if status == RunStatus.FAILED and failure is not None:
        answer["failureReason"], answer["statusMessage"] = failure
    return answer


def run_output_uri(run: Run) -> str:
    """Return the folder of the outputs of a run."""
    setting = run.setting()
    if setting.get("outputUriPrefixMode") == NO_PREFIX:
        return str(setting["outputUri"])
    return f"{setting['outputUri'].rstrip('/')}/{run.number}/{run.uuid}"


def _configuration(region: Region, setting: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run with its ARN and uuid."""
    name = setting.get("configurationName")
    if name is None:
        return {}
    arn = region.arn(f"configuration/{name}")
    created = region.configurations.get(name)
    uuid = derived_uuid(arn) if created is None else created.shown["uuid"]
    return {"configuration": {"name": name, "arn": arn, "uuid": uuid}}


def _effective(region: Region, context: ServiceContext, setting: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults for the members that the settings of a run may lack."""
    answer: dict[str, Any] = {
        "workflowType": "PRIVATE",
        "retentionMode": "RETAIN",
        "outputUriPrefixMode": "SERVICE_DEFINED",
    }
    if setting.get("workflowType") != "READY2RUN":
        storage_type = setting.get("storageType", context.settings.default_storage_type)
        answer["storageType"] = storage_type
        if storage_type == "STATIC":
            answer["storageCapacity"] = _DEFAULT_STORAGE_CAPACITY
    cache = region.run_caches.get(number_of(setting.get("cacheId", "")))
    if cache is not None:
        answer["cacheBehavior"] = cache.behavior
    return answer


def list_runs(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """ListRuns."""
    after = start_of_page("ListRuns", request)
    rows = _rows(region, context, after, request)
    return page("ListRuns", request, rows, size="maxResults", key="items")


def cancel_run(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """CancelRun."""
    run, now = any_run(region, context, request["id"])
    status = run.status(now)
    if status in FINISHED_RUN_STATES:
        raise _wrong_state(context, request["id"], status, "cancelled")
    run.cancel(now)
    return {}


def delete_run(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteRun."""
    run, now = any_run(region, context, request["id"])
    status = run.status(now)
    if status not in FINISHED_RUN_STATES:
        raise _wrong_state(context, request["id"], status, "deleted")
    run.delete()
    region.deleted_runs.append(run)
    region.single_runs.pop(run.number, None)
    region.free_runs([run.number])
    region.free_removed_batches()
    return {}


def list_run_tasks(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """ListRunTasks."""
    run, now = any_run(region, context, request["id"])
    after = start_of_page("ListRunTasks", request)

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for task in run.course().tasks_at(now):
            if task.number > after and request.get("status", task.status) == task.status:
                yield task.number, _task_item(context, run, task)

    return page("ListRunTasks", request, rows(), size="maxResults", key="items")


def get_run_task(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """GetRunTask."""
    run, now = any_run(region, context, request["id"])
    for task in run.course().tasks_at(now):
        if task_id_of(run, task) == request["taskId"]:
            answer = _task_item(context, run, task)
            if task.cache_uri is None:
                answer["logStream"] = (
                    f"{_log_location(region, str(run.number))['runLogStream']}/task/{answer['taskId']}"
                )
            if task.definition.image is not None:
                answer["imageDetails"] = {"image": task.definition.image}
            if task.failure is not None:
                answer["failureReason"], answer["statusMessage"] = task.failure
            return answer
    raise not_found("Task", request["taskId"])


def any_run(region: Region, context: ServiceContext, run_id: str) -> tuple[SingleRun | RunOfBatch, float]:
    """Return a run, and the time.

    :raises ServiceError: there is no such run.
    """
    single = region.single_runs.get(number_of(run_id))
    if single is not None:
        return single, context.now
    batch, index, now = find_run(region, context, run_id)
    return RunOfBatch(batch, index, tasks_of(region, context, batch)), now


def find_run(region: Region, context: ServiceContext, run_id: str) -> tuple[Batch, int, float]:
    """Return the batch of a run, the number of the run in it, and the time.

    :raises ServiceError: no batch has such a run.
    """
    now, number, submitter = context.now, number_of(run_id), RegionSubmitter(region, context)
    for batch in region.every_batch():
        index = batch.run_indexes.get(number)
        if index is not None and batch.run_status(index, now) != RunStatus.DELETED:
            batch.advance(now, submitter)
            return batch, index, now
    # A batch that was not yet advanced to the present time may have started the run.
    for batch in region.every_batch():
        batch.advance(now, submitter)
        index = batch.run_indexes.get(number)
        if index is not None and batch.run_status(index, now) != RunStatus.DELETED:
            return batch, index, now
    raise not_found("Run", run_id)


def _rows(
    region: Region, context: ServiceContext, after: int, request: dict[str, Any]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the runs, in the order in which they or their batches were started."""
    groups: list[Batch | SingleRun] = [*region.every_batch(), *region.single_runs.values()]
    for group in sorted(groups, key=lambda group: group.number):
        first = group.number * _RUNS_PER_BATCH
        if after >= first + _RUNS_PER_BATCH:
            continue
        if isinstance(group, Batch):
            yield from _rows_of_batch(region, context, group, after, request)
        elif after < first and "batchId" not in request and _is_listed(group, context.now, request):
            yield first, _item(region, context, group, group.status(context.now))


def _is_listed(run: SingleRun, now: float, request: dict[str, Any]) -> bool:
    setting = run.setting()
    filters = {"status": run.status(now), "name": setting.get("name"), "runGroupId": setting.get("runGroupId")}
    return all(request.get(name, value) == value for name, value in filters.items())


def _rows_of_batch(
    region: Region, context: ServiceContext, batch: Batch, after: int, request: dict[str, Any]
) -> Iterator[tuple[int, dict[str, Any]]]:
    first, now = batch.number * _RUNS_PER_BATCH, context.now
    if request.get("batchId", str(batch.number)) != str(batch.number):
        return
    if request.get("runGroupId", batch.default.get("runGroupId")) != batch.default.get("runGroupId"):
        return
    batch.advance(now, RegionSubmitter(region, context))
    if not batch.has_runs:
        return
    tasks = tasks_of(region, context, batch)
    runs = batch.runs_to_list(request.get("status"), now)
    for index in islice(runs, bisect_left(runs, max(0, after - first)), None):
        status = batch.run_status(index, now)
        if status == RunStatus.DELETED or request.get("status", status) != status:
            continue
        merged = batch.merged_setting(index)
        if request.get("name", merged.get("name")) == merged.get("name"):
            yield first + index + 1, _item(region, context, RunOfBatch(batch, index, tasks), status)


def _item(region: Region, context: ServiceContext, run: Run, status: RunStatus) -> dict[str, Any]:
    setting = run.setting()
    names = ("name", "priority", "workflowId", "workflowVersionName", "storageCapacity", "storageType")
    batch = {} if run.batch_number is None else {"batchId": str(run.batch_number)}
    return {
        "arn": region.arn(f"run/{run.number}"),
        "id": str(run.number),
        **batch,
        **{name: setting[name] for name in names if name in setting},
        **_progress(context, run.course(), status),
    }


def _progress(context: ServiceContext, course: Course, status: RunStatus) -> dict[str, Any]:
    progress: dict[str, Any] = {"status": status, "creationTime": context.clock.at(course.submitted_at)}
    if course.started_at <= min(context.now, course.ended_at):
        progress["startTime"] = context.clock.at(course.started_at)
    if status in FINISHED_RUN_STATES:
        progress["stopTime"] = context.clock.at(course.ended_at)
    return progress


def task_id_of(run: Run, task: Task) -> str:
    """Return the id of a task."""
    return str(run.number * TASKS_PER_RUN + task.number)


def _task_item(context: ServiceContext, run: Run, task: Task) -> dict[str, Any]:
    task_id, definition = task_id_of(run, task), task.definition
    item: dict[str, Any] = {
        "taskId": task_id,
        "uuid": derived_uuid(f"{run.uuid}/{task_id}"),
        "name": definition.name,
        "status": task.status,
        "creationTime": context.clock.at(task.created_at),
        "cacheHit": task.cache_uri is not None,
        "cpus": definition.cpus,
        "memory": definition.memory,
        "gpus": definition.gpus,
    }
    if task.cache_uri is not None:
        return {**item, "cacheS3Uri": task.cache_uri}
    item["instanceType"] = definition.instance_type
    times = {"startTime": task.started_at, "stopTime": task.stopped_at}
    item.update({name: context.clock.at(time) for name, time in times.items() if time is not None})
    return item


def _repeatable(region: Region, context: ServiceContext, run_id: str) -> dict[str, Any]:
    """Return the settings that a run which duplicates another run takes from it."""
    run, _ = any_run(region, context, run_id)
    return {name: value for name, value in run.setting().items() if name not in _NOT_REPEATED}


def _log_location(region: Region, run_id: str) -> dict[str, str]:
    group = region.arn("log-group:/aws/omics/WorkflowLog").replace(":omics:", ":logs:")
    return {
        "engineLogStream": f"{group}:log-stream:run/{run_id}/engine",
        "runLogStream": f"{group}:log-stream:run/{run_id}",
    }


def _wrong_state(context: ServiceContext, run_id: str, status: str, change: str) -> ServiceError:
    return ServiceError(context.settings.wrong_state_error, f"Run {run_id} is {status} and cannot be {change}")
