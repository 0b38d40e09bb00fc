"""The run cache operations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_omics_cache.healthomics.states import RunCacheStatus
from airflow_provider_omics_cache.local.batches import RegionSubmitter
from airflow_provider_omics_cache.local.cache_entries import CacheEntries
from airflow_provider_omics_cache.local.moto_backend import EntryStore, owner_of_bucket, region_of_bucket
from airflow_provider_omics_cache.local.protocol import (
    ServiceError,
    conflict,
    new_uuid,
    not_found,
    number_of,
    page,
    start_of_page,
    validation_error,
)
from airflow_provider_omics_cache.local.region import Region, RunCache, ServiceContext, check_tags


def create_run_cache(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """CreateRunCache."""
    now, settings = context.now, context.settings
    replayed = region.tokens.find("CreateRunCache", request, now=now, settings=settings)
    if replayed is not None:
        cache = region.run_caches.get(int(replayed["id"]))
        if settings.replayed_status == "current" and cache is not None:
            replayed["status"] = _status(cache)
        return replayed
    check_tags(request.get("tags", {}))
    if settings.check_cache_bucket:
        _check_bucket(region, request)
    if sum(not cache.deleted for cache in region.run_caches.values()) >= settings.max_run_caches:
        raise ServiceError(
            "ServiceQuotaExceededException", f"The limit of {settings.max_run_caches} run caches is reached"
        )
    number = next(context.ids)
    arn, location = region.arn(f"runCache/{number}"), request["cacheS3Location"]
    uri = f"{location.removesuffix('/')}/{new_uuid()}/"
    cache = RunCache(
        id=str(number),
        arn=arn,
        location=location,
        uri=uri,
        entries=CacheEntries(EntryStore(region.account_id), uri, arn),
        behavior=request.get("cacheBehavior", "CACHE_ON_FAILURE"),
        created_at=now,
        tags=dict(request.get("tags", {})),
        name=request.get("name"),
        description=request.get("description"),
        bucket_owner_id=request.get("cacheBucketOwnerId"),
    )
    region.run_caches[number] = cache
    answer = {"arn": cache.arn, "id": cache.id, "status": _status(cache), "tags": dict(cache.tags)}
    region.tokens.remember("CreateRunCache", request, answer, now=now, settings=settings)
    return answer


def get_run_cache(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """GetRunCache."""
    cache = _visible(region, context, request["id"])
    optional = {
        "name": cache.name,
        "description": cache.description,
        "cacheBucketOwnerId": cache.bucket_owner_id,
    }
    return {
        **_item(context, cache),
        "tags": dict(cache.tags),
        **{name: value for name, value in optional.items() if value is not None},
    }


def list_run_caches(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """ListRunCaches."""
    after = start_of_page("ListRunCaches", request)
    newest_first = context.settings.run_cache_order == "newest_first"

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, cache in reversed(region.run_caches.items()) if newest_first else region.run_caches.items():
            is_next = after == 0 or (number < after if newest_first else number > after)
            if is_next and _is_visible(context, cache):
                name = {} if cache.name is None else {"name": cache.name}
                yield number, {**_item(context, cache), **name}

    return page("ListRunCaches", request, rows(), size="maxResults", key="items")


def update_run_cache(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """UpdateRunCache."""
    cache = _existing(region, context, request["id"])
    cache.name = request.get("name", cache.name)
    cache.description = request.get("description", cache.description)
    cache.behavior = request.get("cacheBehavior", cache.behavior)
    return {}


def delete_run_cache(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteRunCache."""
    cache = _existing(region, context, request["id"])
    now, submitter = context.now, RegionSubmitter(region, context)
    if any(run.setting().get("cacheId") == cache.id for run in region.active_runs.values()):
        raise conflict(f"Run cache {cache.id} is used by an active run")
    for batch in region.every_batch():
        batch.advance(now, submitter)
        if batch.uses_cache(cache.id, now):
            raise conflict(f"Run cache {cache.id} is used by an active run")
    cache.deleted = True
    return {}


def _check_bucket(region: Region, request: dict[str, Any]) -> None:
    bucket = request["cacheS3Location"].removeprefix("s3://").partition("/")[0]
    try:
        owner = owner_of_bucket(bucket)
        bucket_region = region_of_bucket(region.account_id, bucket)
    except LookupError:
        raise validation_error(f"The bucket {bucket} of cacheS3Location cannot be accessed") from None
    expected = request.get("cacheBucketOwnerId", region.account_id)
    if owner != expected:
        raise validation_error(f"The bucket {bucket} of cacheS3Location is not owned by {expected}")
    if bucket_region != region.name:
        raise validation_error(f"The bucket {bucket} of cacheS3Location is in {bucket_region}, not in {region.name}")


def _item(context: ServiceContext, cache: RunCache) -> dict[str, Any]:
    return {
        "arn": cache.arn,
        "id": cache.id,
        "cacheBehavior": cache.behavior,
        "cacheS3Uri": cache.uri,
        "creationTime": context.clock.at(cache.created_at),
        "status": _status(cache),
    }


def _status(cache: RunCache) -> str:
    return RunCacheStatus.DELETED if cache.deleted else RunCacheStatus.ACTIVE


def _is_visible(context: ServiceContext, cache: RunCache) -> bool:
    if cache.deleted and not context.settings.show_deleted_run_caches:
        return False
    return context.now >= cache.created_at + context.settings.run_cache_visible_after


def _visible(region: Region, context: ServiceContext, run_cache_id: str) -> RunCache:
    cache = region.run_caches.get(number_of(run_cache_id))
    if cache is None or not _is_visible(context, cache):
        raise not_found("Run cache", run_cache_id)
    return cache


def _existing(region: Region, context: ServiceContext, run_cache_id: str) -> RunCache:
    cache = _visible(region, context, run_cache_id)
    if cache.deleted:
        raise not_found("Run cache", run_cache_id)
    return cache
