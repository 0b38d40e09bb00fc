"""The operations of configurations of runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_omics_cache.local.protocol import conflict, new_uuid, not_found, page, start_of_page
from airflow_provider_omics_cache.local.region import Configuration, Region, ServiceContext, check_tags


def create_configuration(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """CreateConfiguration."""
    now, settings = context.now, context.settings
    replayed = region.tokens.find("CreateConfiguration", request, now=now, settings=settings)
    if replayed is not None:
        return {**replayed, "creationTime": context.clock.at(replayed["creationTime"])}
    tags, name = dict(request.get("tags", {})), request["name"]
    check_tags(tags)
    if name in region.configurations:
        raise conflict(f"Configuration {name} exists already")
    arn = region.arn(f"configuration/{name}")
    shown = {"arn": arn, "uuid": new_uuid(), "name": name}
    shown.update({member: request[member] for member in ("description", "runConfigurations") if member in request})
    region.configurations[name] = Configuration(shown, now, tags)
    answer = {**shown, "status": "ACTIVE", "creationTime": now, "tags": dict(tags)}
    region.tokens.remember("CreateConfiguration", request, answer, now=now, settings=settings)
    return {**answer, "creationTime": context.clock.at(now)}


def get_configuration(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """GetConfiguration."""
    return _described(context, find_configuration(region, request["name"]))


def list_configurations(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """ListConfigurations."""
    after = start_of_page("ListConfigurations", request)
    names = ("arn", "name", "description", "status", "creationTime")

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for position, configuration in enumerate(region.configurations.values(), start=1):
            if position > after:
                described = _described(context, configuration)
                yield position, {name: described[name] for name in names if name in described}

    return page("ListConfigurations", {"maxResults": 10, **request}, rows(), size="maxResults", key="items")


def delete_configuration(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteConfiguration."""
    find_configuration(region, request["name"])
    del region.configurations[request["name"]]
    return {}


def find_configuration(region: Region, name: str) -> Configuration:
    """Return a configuration.

    :raises ServiceError: there is no such configuration.
    """
    if name not in region.configurations:
        raise not_found("Configuration", name)
    return region.configurations[name]


def _described(context: ServiceContext, configuration: Configuration) -> dict[str, Any]:
    return {
        **configuration.shown,
        "status": "ACTIVE",
        "creationTime": context.clock.at(configuration.created_at),
        "tags": dict(configuration.tags),
    }
