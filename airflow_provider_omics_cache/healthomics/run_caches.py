"""Which run cache is the one asked for, and what differs from it: pure functions on GetRunCache's answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

_CACHE_FOLDER = re.compile("(?P<location>.*)/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/?", re.IGNORECASE | re.DOTALL)
_DEFAULT_BEHAVIOR = "CACHE_ON_FAILURE"
_NO_TIME = datetime.max.replace(tzinfo=UTC)


def is_at(cache_s3_uri: str | None, location: str) -> bool:
    """Whether a cache was made at a location: the service puts each cache into a UUID folder below it.

    :param cache_s3_uri: where the service says the cache is.
    :param location: the S3 location that was asked for; trailing slashes make no difference.
    """
    found = _CACHE_FOLDER.fullmatch(cache_s3_uri or "")
    return found is not None and found["location"].rstrip("/") == location.rstrip("/")


def has_owner(run_cache: Mapping[str, Any], owner: str | None) -> bool:
    """Whether a cache expects this owner of its bucket; no owner stands for the cache's own account.

    :param run_cache: GetRunCache's answer.
    :param owner: account id, None for the caller's own.
    """
    account = account_of(run_cache)
    return (run_cache.get("cacheBucketOwnerId") or account) == (owner or account)


def account_of(run_cache: Mapping[str, Any]) -> str | None:
    """Give the account id in a cache's ARN.

    :param run_cache: GetRunCache's answer, or an item of ListRunCaches.
    """
    parts = (run_cache.get("arn") or "").split(":")
    return parts[4] if len(parts) > 4 else None


def oldest_first(run_caches: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort caches by creation time, then by id.

    :param run_caches: GetRunCache's answers.
    """
    return sorted(run_caches, key=lambda cache: (cache.get("creationTime") or _NO_TIME, int(cache["id"])))


def differences(
    run_cache: Mapping[str, Any],
    *,
    cache_behavior: str | None,
    description: str | None,
    tags: Mapping[str, str] | None,
    name: str | None = None,
) -> dict[str, tuple[Any, Any]]:
    """Compare a cache with what is asked for; what is not given is not compared.

    :param run_cache: GetRunCache's answer.
    :param cache_behavior: behaviour asked for.
    :param description: description asked for.
    :param tags: tags asked for; other tags of the cache do not count.
    :param name: name asked for.
    :return: found and wanted value by parameter; of tags only those that differ.
    """
    differing: dict[str, tuple[Any, Any]] = {}
    if name is not None and name != run_cache.get("name"):
        differing["name"] = (run_cache.get("name"), name)
    found_behavior = run_cache.get("cacheBehavior") or _DEFAULT_BEHAVIOR
    if cache_behavior is not None and cache_behavior != found_behavior:
        differing["cache_behavior"] = (found_behavior, cache_behavior)
    if description is not None and description != run_cache.get("description"):
        differing["description"] = (run_cache.get("description"), description)
    found_tags = run_cache.get("tags") or {}
    wanted_tags = {key: value for key, value in (tags or {}).items() if found_tags.get(key) != value}
    if wanted_tags:
        differing["tags"] = ({key: found_tags.get(key) for key in wanted_tags}, wanted_tags)
    return differing


def describe(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Tell differences in a sentence.

    :param differing: what :func:`differences` gives.
    """
    return "; ".join(
        f"{parameter} is {found!r}, asked for is {asked!r}" for parameter, (found, asked) in differing.items()
    )
