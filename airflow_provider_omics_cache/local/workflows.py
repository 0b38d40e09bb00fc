"""The operations of workflows and their versions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from airflow_provider_omics_cache.local.batch import Batch, reached
from airflow_provider_omics_cache.local.course import DEFAULT_TASKS, TaskDefinition
from airflow_provider_omics_cache.local.protocol import (
    ServiceError,
    conflict,
    derived_uuid,
    number_of,
    page,
    shorten,
    start_of_page,
    validation_error,
)
from airflow_provider_omics_cache.local.region import Region, ServiceContext, Workflow, WorkflowVersion, check_tags

_SOURCES = ("definitionZip", "definitionUri", "definitionRepository")
# Members of requests that the answers repeat.
_SHOWN = ("name", "description", "engine", "main", "storageType", "storageCapacity", "accelerators", "readmePath")
_SHOWN_IN_LISTS = ("name", "description", "digest", "metadata")


def create_workflow(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """CreateWorkflow."""
    now, settings = context.now, context.settings
    replayed = region.tokens.find("CreateWorkflow", request, now=now, settings=settings)
    if replayed is not None:
        return replayed
    created = _created(context, request)
    number = next(context.ids)
    workflow = region.workflows[number] = Workflow(**vars(created))
    names = ("arn", "id", "status", "tags", "uuid")
    described = _described(region, context, workflow, str(number), "PRIVATE")
    answer = {name: described[name] for name in names}
    region.tokens.remember("CreateWorkflow", request, answer, now=now, settings=settings)
    return answer


def get_workflow(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """GetWorkflow."""
    kind = request.get("type", "PRIVATE")
    workflow = find_workflow(region, context, request["id"], kind)
    return _described(region, context, workflow, request["id"], kind)


def list_workflows(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """ListWorkflows."""
    after, kind = start_of_page("ListWorkflows", request), request.get("type", "PRIVATE")
    numbers = {*region.workflows, *map(int, context.workflows)}

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for number in sorted(number for number in numbers if number > after):
            workflow = existing_workflow(region, context, str(number), kind)
            if workflow is None or request.get("name", workflow.shown.get("name")) != workflow.shown.get("name"):
                continue
            shown = _described(region, context, workflow, str(number), kind)
            names = ("arn", "id", "name", "status", "type", "digest", "creationTime")
            yield number, {name: shown[name] for name in names if name in shown}

    return page("ListWorkflows", request, rows(), size="maxResults", key="items")


def update_workflow(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """UpdateWorkflow."""
    workflow = find_workflow(region, context, request["id"])
    workflow.shown.update({name: request[name] for name in _SHOWN if name in request})
    return {}


def delete_workflow(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteWorkflow."""
    find_workflow(region, context, request["id"])
    if region.workflows.pop(number_of(request["id"]), None) is None:
        context.workflows[request["id"]] = None
    return {}


def create_workflow_version(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """CreateWorkflowVersion."""
    now, settings = context.now, context.settings
    replayed = region.tokens.find("CreateWorkflowVersion", request, now=now, settings=settings)
    if replayed is not None:
        return replayed
    workflow_id, name = request["workflowId"], request["versionName"]
    workflow = find_workflow(region, context, workflow_id)
    version = _created(context, request)
    if name in workflow.versions:
        raise conflict(f"Workflow {workflow_id} has a version {name} already")
    workflow.versions[name] = version
    described = _described_version(region, context, version, workflow_id, name, "PRIVATE")
    names = ("arn", "workflowId", "versionName", "status", "tags", "uuid")
    answer = {name: described[name] for name in names}
    region.tokens.remember("CreateWorkflowVersion", request, answer, now=now, settings=settings)
    return answer


def get_workflow_version(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """GetWorkflowVersion."""
    workflow_id, name, kind = request["workflowId"], request["versionName"], request.get("type", "PRIVATE")
    version = find_version(find_workflow(region, context, workflow_id, kind), workflow_id, name)
    return _described_version(region, context, version, workflow_id, name, kind)


def list_workflow_versions(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """ListWorkflowVersions."""
    after, kind = start_of_page("ListWorkflowVersions", request), request.get("type", "PRIVATE")
    workflow_id = request["workflowId"]
    versions = find_workflow(region, context, workflow_id, kind).versions

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for position, (name, version) in enumerate(versions.items(), start=1):
            if position > after:
                shown = _described_version(region, context, version, workflow_id, name, kind)
                names = ("arn", "workflowId", "versionName", "status", "type", "creationTime", *_SHOWN_IN_LISTS[1:])
                yield position, {name: shown[name] for name in names if name in shown}

    return page("ListWorkflowVersions", request, rows(), size="maxResults", key="items")


def update_workflow_version(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """UpdateWorkflowVersion."""
    workflow = find_workflow(region, context, request["workflowId"])
    version = find_version(workflow, request["workflowId"], request["versionName"])
    version.shown.update({name: request[name] for name in _SHOWN if name in request})
    return {}


def delete_workflow_version(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteWorkflowVersion."""
    workflow = find_workflow(region, context, request["workflowId"])
    find_version(workflow, request["workflowId"], request["versionName"])
    del workflow.versions[request["versionName"]]
    return {}


def existing_workflow(
    region: Region, context: ServiceContext, workflow_id: str, kind: str = "PRIVATE"
) -> Workflow | None:
    """Return the workflow with this id and type, or None if it does not exist.

    A workflow that a test registers exists in every Region.

    :param kind: ``PRIVATE`` or ``READY2RUN``.
    """
    workflow = region.workflows.get(number_of(workflow_id))
    if workflow_id in context.workflows:
        workflow = context.workflows[workflow_id]
    elif workflow is None and not context.settings.strict_workflows:
        workflow = Workflow(type=None)
    return workflow if workflow is not None and workflow.type in (None, kind) else None


def find_workflow(region: Region, context: ServiceContext, workflow_id: str, kind: str = "PRIVATE") -> Workflow:
    """Return a workflow.

    :param kind: ``PRIVATE`` or ``READY2RUN``.
    :raises ServiceError: there is no such workflow.
    """
    workflow = existing_workflow(region, context, workflow_id, kind)
    if workflow is None:
        raise ServiceError("ResourceNotFoundException", f"Workflow {shorten(workflow_id)} not found")
    return workflow


def find_version(workflow: Workflow, workflow_id: str, name: str) -> WorkflowVersion:
    """Return a version of a workflow.

    :raises ServiceError: there is no such version.
    """
    if name not in workflow.versions:
        raise ServiceError("ResourceNotFoundException", f"Workflow {shorten(workflow_id)} has no version {name}")
    return workflow.versions[name]


def status_of(context: ServiceContext, workflow: WorkflowVersion) -> str:
    """Return the state of a workflow or of a version."""
    if workflow.status is not None:
        return workflow.status
    active_at = workflow.created_at + context.settings.workflow_creating_seconds
    return "ACTIVE" if reached(context.now, active_at) else "CREATING"


def tasks_of(region: Region, context: ServiceContext, batch: Batch) -> Sequence[TaskDefinition]:
    """Return the tasks of the runs of a batch."""
    workflow = existing_workflow(region, context, batch.default["workflowId"])
    return DEFAULT_TASKS if workflow is None else workflow.tasks


def _created(context: ServiceContext, request: dict[str, Any]) -> WorkflowVersion:
    """Return the workflow version that a request creates.

    :raises ServiceError: the request is not valid.
    """
    check_tags(request.get("tags", {}))
    given = [name for name in _SOURCES if name in request]
    if len(given) != 1:
        raise validation_error(f"Exactly one of {', '.join(_SOURCES)} is required; there were {len(given)}")
    if "definitionUri" in request and not request["definitionUri"].startswith("s3://"):
        raise validation_error(f"definitionUri must begin with s3://; was {shorten(request['definitionUri'])}")
    if "definitionUri" in request and "parameterTemplatePath" in request:
        raise validation_error("parameterTemplatePath requires definitionRepository")
    shown = {name: request[name] for name in _SHOWN if name in request}
    shown.setdefault("engine", "WDL")
    return WorkflowVersion(
        parameter_template=request.get("parameterTemplate"),
        shown=shown,
        status=None,
        created_at=context.now,
        tags=dict(request.get("tags", {})),
    )


def _described(
    region: Region, context: ServiceContext, workflow: Workflow, workflow_id: str, kind: str
) -> dict[str, Any]:
    return {"id": workflow_id, **_common(region, context, workflow, f"workflow/{workflow_id}", kind)}


def _described_version(
    region: Region, context: ServiceContext, version: WorkflowVersion, workflow_id: str, name: str, kind: str
) -> dict[str, Any]:
    common = _common(region, context, version, f"workflow/{workflow_id}/version/{name}", kind)
    common.pop("name", None)
    return {"workflowId": workflow_id, "versionName": name, **common}


def _common(
    region: Region, context: ServiceContext, workflow: WorkflowVersion, resource: str, kind: str
) -> dict[str, Any]:
    arn = region.arn(resource)
    answer = {
        "arn": arn,
        "uuid": derived_uuid(arn),
        "digest": hashlib.sha256(arn.encode()).hexdigest(),
        "status": status_of(context, workflow),
        "type": kind,
        "creationTime": context.clock.at(workflow.created_at),
        "tags": dict(workflow.tags),
        **workflow.shown,
    }
    if workflow.parameter_template:
        answer["parameterTemplate"] = workflow.parameter_template
    if workflow.profile_templates:
        answer["profiles"] = list(workflow.profile_templates)
        answer["profileParameterTemplates"] = workflow.profile_templates
    return answer
