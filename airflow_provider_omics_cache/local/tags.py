"""The tag operations."""

from __future__ import annotations

import re
from typing import Any

from airflow_provider_omics_cache.local.errors import not_found, validation_error
from airflow_provider_omics_cache.local.ids import number_of
from airflow_provider_omics_cache.local.region import Region, Surroundings
from airflow_provider_omics_cache.local.runs import find_run

_MAX_TAGS = 50
_ARN = re.compile(r"arn:[^:]+:omics:[^:]*:[^:]*:(runCache|runBatch|run)/([0-9]{1,18})")


def check_tags(tags: dict[str, str]) -> None:
    """Raise a ValidationException for tags that no resource can have."""
    if len(tags) > _MAX_TAGS:
        raise validation_error(f"A resource has at most {_MAX_TAGS} tags; there were {len(tags)}")
    if any(key.lower().startswith("aws:") for key in tags):
        raise validation_error("Tag keys that start with aws: are reserved")


def tag_resource(region: Region, around: Surroundings, request: dict[str, Any]) -> dict[str, Any]:
    """TagResource."""
    tags = _tags_of(region, around, request["resourceArn"])
    check_tags({**tags, **request["tags"]})
    tags.update(request["tags"])
    return {}


def untag_resource(region: Region, around: Surroundings, request: dict[str, Any]) -> dict[str, Any]:
    """UntagResource."""
    tags = _tags_of(region, around, request["resourceArn"])
    for key in request["tagKeys"]:
        tags.pop(key, None)
    return {}


def list_tags_for_resource(region: Region, around: Surroundings, request: dict[str, Any]) -> dict[str, Any]:
    """ListTagsForResource."""
    return {"tags": dict(_tags_of(region, around, request["resourceArn"]))}


def _tags_of(region: Region, around: Surroundings, arn: str) -> dict[str, str]:
    match = _ARN.fullmatch(arn)
    if match is None:
        raise validation_error("The resourceArn is not the ARN of a run cache, a batch or a run")
    kind, number = match[1], number_of(match[2])
    if arn == region.arn(f"{kind}/{match[2]}"):
        if kind == "runCache" and number in region.run_caches and not region.run_caches[number].deleted:
            return region.run_caches[number].tags
        if kind == "runBatch" and number in region.batches:
            return region.batches[number].tags
        if kind == "run":
            batch, index, _ = find_run(region, around, match[2])
            return batch.run_tags.setdefault(index, batch.tags_of_run(index))
    raise not_found("Resource", arn)
