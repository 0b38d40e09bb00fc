"""Shared by the operators that start a batch or a single run: the identity of their task, and checks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_omics_cache.configuration import setting
from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.healthomics.findings import described, raise_if_any
from airflow_provider_omics_cache.healthomics.identity import TaskIdentity
from airflow_provider_omics_cache.healthomics.preflight import preflight
from airflow_provider_omics_cache.healthomics.settings import check_member
from airflow_provider_omics_cache.hooks.arguments import check_tags

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
    from airflow_provider_omics_cache.xcoms import PreflightFinding


def request_members(hook: OmicsCacheHook, operation: str) -> dict[str, Any]:
    """Return the descriptions of the members of a request.

    The first use of the hook makes its client, which may call STS for credentials. If STS fails, the call is repeated.

    :param hook: the hook.
    :param operation: name of the operation.
    """
    describe = partial(hook.describe_shape, f"{operation}Request")
    members: dict[str, Any] = hook.patiently(describe, service="sts")["members"]
    return members


def task_identity(context: Context, rerun_key: Any) -> TaskIdentity:
    """Return the identity of a task, to which its batch or run belongs.

    :param context: Airflow's context of the task.
    :param rerun_key: the user's key, None or empty if it is not given.
    """
    ti = context["ti"]
    return TaskIdentity(
        token_namespace=setting("token_namespace"),
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        rerun_key=None if rerun_key in (None, "") else str(rerun_key),
    )


def checked_tags(parameter: str, tags: Any, shape: Mapping[str, Any]) -> dict[str, str]:
    """Return tags as a new dict.

    :param parameter: name of the parameter, for the error.
    :param tags: the tags, None if they are not given.
    :param shape: description of their shape.
    :raises OmicsParameterError: the tags do not fit the shape.
    """
    if tags is None:
        return {}
    check_member(parameter, tags, shape=shape).raise_if_any()
    return dict(tags)


def check_own_tags(tags: Mapping[str, str], own_tags: Collection[str]) -> None:
    """Check that the user's tags leave room for the tags that the operator sets.

    :param tags: the user's tags.
    :param own_tags: keys of the tags that the operator sets.
    :raises OmicsParameterError: a key is one that the operator sets, or there are too many tags.
    """
    if taken := set(own_tags) & tags.keys():
        raise OmicsParameterError("tags", "must not have keys that the operator sets", sorted(taken))
    check_tags("tags", tags, reserved=len(own_tags))


def look_before_start(
    hook: OmicsCacheHook, default_run_setting: Mapping[str, Any], run_settings: Any, **options: Any
) -> list[PreflightFinding]:
    """Run the preflight, and log its warnings.

    :param hook: the hook.
    :param default_run_setting: the settings that all runs share.
    :param run_settings: the settings of each run, None for a single run.
    :param options: other parameters of :func:`~airflow_provider_omics_cache.healthomics.preflight.preflight`.
    :return: the findings, which are all warnings.
    :raises PreflightError: a finding is an error.
    """
    findings = preflight(hook, default_run_setting, run_settings, **options)
    for finding in findings:
        if finding["level"] == "warning":
            hook.log.warning("%s", described(finding))
    raise_if_any(findings)
    hook.log.info("The preflight found no errors")
    return findings
