"""The checks before a run is started, by StartRun and in a batch."""

from __future__ import annotations

from typing import Any

from airflow_provider_omics_cache.local.groups import existing_run_group
from airflow_provider_omics_cache.local.protocol import ServiceError, number_of, validation_error
from airflow_provider_omics_cache.local.region import Region, ServiceContext, Workflow
from airflow_provider_omics_cache.local.run_rules import check_shared_settings, output_uri_error, parameters_error
from airflow_provider_omics_cache.local.workflows import find_version, find_workflow, status_of


def check_run(region: Region, context: ServiceContext, setting: dict[str, Any]) -> Workflow:
    """Return the workflow of a run that StartRun starts.

    :param setting: the members of the request, with those of the run that it duplicates.
    :raises ServiceError: the run must not be started.
    """
    if "workflowId" not in setting:
        raise validation_error("Either workflowId or runId is required")
    wrong_uri = output_uri_error(setting["outputUri"], prefix_mode=setting.get("outputUriPrefixMode"))
    if wrong_uri is not None:
        raise validation_error(wrong_uri)
    check_shared_settings(setting)
    if setting.get("workflowType") == "READY2RUN":
        _check_ready2run(setting)
    workflow = check_resources(region, context, setting)
    _check_storage(context, setting, workflow)
    kept, limit = region.kept_runs, context.settings.max_runs_kept
    if kept >= limit and setting.get("retentionMode") != "REMOVE":
        raise ServiceError(
            "ServiceQuotaExceededException", f"The Region has {kept} runs but {limit:.0f} runs is the max."
        )
    parameters = setting.get("parameters", {})
    problem = parameters_error(parameters) or problem_with_parameters(template_of(workflow, setting), parameters)
    if problem is not None:
        raise validation_error(problem)
    return workflow


def check_resources(region: Region, context: ServiceContext, setting: dict[str, Any]) -> Workflow:
    """Return the workflow of a run.

    :param setting: the settings of the run, or those that the runs of a batch have in common.
    :raises ServiceError: its workflow, run group, run cache or configuration does not exist or cannot be used.
    """
    workflow_id, version_name = setting["workflowId"], setting.get("workflowVersionName")
    workflow = find_workflow(region, context, workflow_id, setting.get("workflowType", "PRIVATE"))
    used = workflow if version_name is None else find_version(workflow, workflow_id, version_name)
    status = status_of(context, used)
    if status != "ACTIVE":
        version = "" if version_name is None else f", version {version_name},"
        raise ServiceError("ResourceNotFoundException", f"Workflow {workflow_id}{version} is {status}, not ACTIVE")
    run_group_id, cache_id = setting.get("runGroupId"), setting.get("cacheId")
    if run_group_id is not None and existing_run_group(region, context, run_group_id) is None:
        raise ServiceError("ResourceNotFoundException", f"Run group {run_group_id} does not exist")
    if cache_id is not None:
        cache = region.run_caches.get(number_of(cache_id))
        if cache is None or cache.deleted:
            raise ServiceError("ResourceNotFoundException", f"Run cache {cache_id} does not exist")
    name = setting.get("configurationName")
    if name is not None and context.settings.strict_configurations and name not in region.configurations:
        raise ServiceError("ResourceNotFoundException", f"Configuration {name} does not exist")
    return workflow


def template_of(workflow: Workflow, setting: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
    """Return the parameter template for a run, None without one.

    :param workflow: its workflow.
    :param setting: its settings.
    """
    version = workflow.versions.get(setting.get("workflowVersionName", ""), workflow)
    engine_settings = setting.get("engineSettings")
    profile = engine_settings.get("profile") if isinstance(engine_settings, dict) else None
    return version.profile_templates.get(str(profile), version.parameter_template)


def has_templates(workflow: Workflow) -> bool:
    """Return whether the parameters of a run of the workflow may be wrong."""
    return any(
        version.parameter_template is not None or version.profile_templates
        for version in (workflow, *workflow.versions.values())
    )


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


def _check_storage(context: ServiceContext, setting: dict[str, Any], workflow: Workflow) -> None:
    if not context.settings.static_storage_needs_capacity or setting.get("storageType") != "STATIC":
        return
    if "storageCapacity" not in setting and "storageCapacity" not in workflow.shown:
        raise validation_error("storageType STATIC requires storageCapacity")


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:64] for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
