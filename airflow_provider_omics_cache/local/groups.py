"""The run group operations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_omics_cache.local.protocol import ServiceError, not_found, number_of, page, start_of_page
from airflow_provider_omics_cache.local.region import Region, RunGroup, ServiceContext, check_tags

_MAX_RUN_GROUPS = 1_000
_LIMITS = ("maxCpus", "maxRuns", "maxDuration", "maxGpus")


def create_run_group(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """CreateRunGroup."""
    now, settings = context.now, context.settings
    replayed = region.tokens.find("CreateRunGroup", request, now=now, settings=settings)
    if replayed is not None:
        return replayed
    check_tags(request.get("tags", {}))
    if sum(not group.deleted for group in region.run_groups.values()) >= _MAX_RUN_GROUPS:
        raise ServiceError("ServiceQuotaExceededException", f"The limit of {_MAX_RUN_GROUPS} run groups is reached")
    number = next(context.ids)
    limits = {name: request[name] for name in _LIMITS if name in request}
    group = RunGroup(str(number), now, request.get("name"), limits, dict(request.get("tags", {})))
    region.run_groups[number] = group
    answer = {"arn": region.arn(f"runGroup/{group.id}"), "id": group.id, "tags": dict(group.tags)}
    region.tokens.remember("CreateRunGroup", request, answer, now=now, settings=settings)
    return answer


def get_run_group(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """GetRunGroup."""
    group = find_run_group(region, context, request["id"])
    return {**_item(region, context, group), "tags": dict(group.tags)}


def list_run_groups(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """ListRunGroups."""
    after = start_of_page("ListRunGroups", request)
    for run_group_id in context.run_groups:
        existing_run_group(region, context, run_group_id)

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for number in sorted(region.run_groups):
            group = existing_run_group(region, context, str(number))
            if number > after and group is not None and request.get("name", group.name) == group.name:
                yield number, _item(region, context, group)

    return page("ListRunGroups", request, rows(), size="maxResults", key="items")


def update_run_group(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """UpdateRunGroup."""
    group = find_run_group(region, context, request["id"])
    group.name = request.get("name", group.name)
    group.limits.update({name: request[name] for name in _LIMITS if name in request})
    return {}


def delete_run_group(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteRunGroup."""
    find_run_group(region, context, request["id"]).deleted = True
    return {}


def find_run_group(region: Region, context: ServiceContext, run_group_id: str) -> RunGroup:
    """Return a run group.

    :raises ServiceError: there is no such run group.
    """
    group = existing_run_group(region, context, run_group_id)
    if group is None:
        raise not_found("Run group", run_group_id)
    return group


def existing_run_group(region: Region, context: ServiceContext, run_group_id: str) -> RunGroup | None:
    """Return the run group with this id, or None if it does not exist.

    A run group that a test registers exists in every Region.
    """
    number, registered = number_of(run_group_id), context.run_groups.get(run_group_id)
    if number == -1 or registered is False:
        return None
    group = region.run_groups.get(number)
    if group is None:
        if not registered and context.settings.strict_run_groups:
            return None
        group = region.run_groups[number] = RunGroup(run_group_id, context.now)
    return None if group.deleted else group


def _item(region: Region, context: ServiceContext, group: RunGroup) -> dict[str, Any]:
    name = {} if group.name is None else {"name": group.name}
    return {
        "arn": region.arn(f"runGroup/{group.id}"),
        "id": group.id,
        **name,
        **group.limits,
        "creationTime": context.clock.at(group.created_at),
    }
