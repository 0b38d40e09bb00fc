"""The workflow operations, and the checks of what a run is started with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_omics_cache.local.batch import Batch
from airflow_provider_omics_cache.local.course import DEFAULT_TASKS, TaskDefinition
from airflow_provider_omics_cache.local.groups import existing_run_group
from airflow_provider_omics_cache.local.protocol import (
    ServiceError,
    derived_uuid,
    dump_json,
    number_of,
    shorten,
    validation_error,
)
from airflow_provider_omics_cache.local.region import Region, ServiceContext, Workflow

_MAX_PARAMETER_BYTES = 256_000


def get_workflow(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """GetWorkflow."""
    workflow_id, kind = request["id"], request.get("type", "PRIVATE")
    workflow = existing_workflow(region, context, workflow_id, kind)
    if workflow is None:
        raise _no_workflow(workflow_id)
    answer: dict[str, Any] = {
        "arn": region.arn(f"workflow/{workflow_id}"),
        "id": workflow_id,
        "uuid": derived_uuid(f"workflow/{workflow_id}"),
        "status": "ACTIVE",
        "type": kind,
        "creationTime": context.clock.at(workflow.created_at),
        "tags": {},
    }
    if workflow.name is not None:
        answer["name"] = workflow.name
    if workflow.parameter_template:
        answer["parameterTemplate"] = workflow.parameter_template
    return answer


def existing_workflow(
    region: Region, context: ServiceContext, workflow_id: str, kind: str = "PRIVATE"
) -> Workflow | None:
    """Return the workflow with this id and type, or None if it does not exist.

    :param kind: ``PRIVATE`` or ``READY2RUN``.
    """
    unknown = None if context.settings.strict_workflows else Workflow(type=None)
    workflow = context.workflows.get(workflow_id, unknown)
    return workflow if workflow is not None and workflow.type in (None, kind) else None


def tasks_of(region: Region, context: ServiceContext, batch: Batch) -> Sequence[TaskDefinition]:
    """Return the tasks of the runs of a batch."""
    workflow = existing_workflow(region, context, batch.default["workflowId"])
    return DEFAULT_TASKS if workflow is None else workflow.tasks


def checked_workflow(region: Region, context: ServiceContext, setting: dict[str, Any]) -> Workflow:
    """Return the workflow of a run that StartRun starts.

    :param setting: the members of the request, with those of the run that it duplicates.
    :raises ServiceError: the run must not be started.
    """
    if "workflowId" not in setting:
        raise validation_error("Either workflowId or runId is required")
    if not setting["outputUri"].startswith("s3://") or not setting["outputUri"][5:].partition("/")[0]:
        raise validation_error(f"outputUri must begin with s3://bucket; was {shorten(setting['outputUri'])}")
    if "cacheBehavior" in setting and "cacheId" not in setting:
        raise validation_error("cacheBehavior requires cacheId")
    kind = setting.get("workflowType", "PRIVATE")
    if kind == "READY2RUN":
        _check_ready2run(setting)
    workflow = existing_workflow(region, context, setting["workflowId"], kind)
    if workflow is None:
        raise _no_workflow(setting["workflowId"])
    run_group_id, cache_id = setting.get("runGroupId"), setting.get("cacheId")
    if run_group_id is not None and existing_run_group(region, context, run_group_id) is None:
        raise ServiceError("ResourceNotFoundException", f"Run group {run_group_id} not found")
    if cache_id is not None:
        cache = region.run_caches.get(number_of(cache_id))
        if cache is None or cache.deleted:
            raise ServiceError("ResourceNotFoundException", f"Run cache {cache_id} not found")
    kept, limit = region.kept_runs, context.settings.max_runs_kept
    if kept >= limit and setting.get("retentionMode") != "REMOVE":
        raise ServiceError(
            "ServiceQuotaExceededException", f"The Region has {kept} runs but {limit:.0f} runs is the max."
        )
    parameters = setting.get("parameters", {})
    if len(dump_json(parameters)) > _MAX_PARAMETER_BYTES:
        raise validation_error(f"The parameters exceed {_MAX_PARAMETER_BYTES} bytes")
    problem = problem_with_parameters(workflow.parameter_template, parameters)
    if problem is not None:
        raise validation_error(problem)
    return workflow


def problem_with_parameters(template: dict[str, dict[str, Any]] | None, parameters: dict[str, Any]) -> str | None:
    """Return why parameters do not fit a parameter template, None if they do."""
    if template is None:
        return None
    unknown = sorted(parameters.keys() - template.keys())
    if unknown:
        return f"Parameters not in the workflow's template: {_some(unknown)}"
    required = {name for name, about in template.items() if not about.get("optional", False)}
    missing = sorted(required - parameters.keys())
    return f"Parameters missing for the workflow: {_some(missing)}" if missing else None


def _check_ready2run(setting: dict[str, Any]) -> None:
    for name, allowed in (("storageCapacity", None), ("storageType", "DYNAMIC"), ("cacheId", None)):
        if setting.get(name, allowed) != allowed:
            raise validation_error(f"{name} is not supported for READY2RUN workflows; was {setting[name]}")


def _no_workflow(workflow_id: str) -> ServiceError:
    return ServiceError("ResourceNotFoundException", f"Workflow {shorten(workflow_id)} not found")


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:64] for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
