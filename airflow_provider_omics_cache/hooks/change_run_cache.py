"""A run cache that is there: changed, or deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsError, OmicsParameterError, RunCacheError
from airflow_provider_omics_cache.healthomics import run_caches
from airflow_provider_omics_cache.healthomics.rounds import is_passing
from airflow_provider_omics_cache.healthomics.states import RunCacheStatus
from airflow_provider_omics_cache.hooks.client import VISIBLE_AFTER, Answer, T
from airflow_provider_omics_cache.hooks.errors import check_id, check_tags
from airflow_provider_omics_cache.hooks.operations import OmicsOperationsHook

#: Seconds after which a call is given up that is throttled or that the service fails to answer.
_LONGEST_SILENCE = 3600
GONE = frozenset({RunCacheStatus.DELETED, RunCacheStatus.FAILED})


class ChangedRunCache(NamedTuple):
    """A run cache that is as asked for.

    :param run_cache: GetRunCache's answer.
    :param updated: what had to be changed, by parameter.
    """

    run_cache: Answer
    updated: list[str]


class ChangeRunCacheHook(OmicsOperationsHook):
    """Change a run cache, or delete it, however often that is asked for."""

    def change_run_cache(
        self,
        *,
        run_cache_id: str,
        name: str | None = None,
        cache_behavior: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ChangedRunCache:
        """Let a run cache be as asked for; only what differs is sent.

        :param run_cache_id: id of the cache.
        :param name: name; None leaves it.
        :param cache_behavior: ``CACHE_ON_FAILURE`` or ``CACHE_ALWAYS``; None leaves it.
        :param description: description; None leaves it.
        :param tags: tags to set; other tags of the cache stay.
        :return: the cache as GetRunCache shows it, and what was changed.
        :raises OmicsParameterError: a parameter breaks a rule, or nothing is asked for; nothing is changed.
        :raises RunCacheError: there is no such cache, or not any more.
        """
        run_cache_id = check_id("run_cache_id", run_cache_id)
        if not isinstance(tags, Mapping | None):
            raise OmicsParameterError("tags", "has to be a dictionary", tags)
        wanted: dict[str, Any] = {
            "name": name,
            "cache_behavior": cache_behavior,
            "description": description,
            "tags": tags or None,
        }
        if all(value is None for value in wanted.values()):
            rule = "or one of cache_behavior, description and tags has to be given"
            raise OmicsParameterError("name", rule, name if tags is None else {"tags": {}})
        run_cache = self._get_run_cache_or_none(run_cache_id)
        status = None if run_cache is None else run_cache.get("status")
        if run_cache is None or status in GONE:
            raise RunCacheError(
                f"run cache {run_cache_id} is {status or 'not found'}: the service refuses to update it",
                run_cache_id=run_cache_id,
                status=status,
            )
        differing = run_caches.differences(run_cache, **wanted)
        if not differing:
            self.log.info("Run cache %s is as asked for already", run_cache_id)
        return ChangedRunCache(self._change(run_cache, wanted), list(differing))

    def remove_run_cache(self, *, run_cache_id: str) -> None:
        """Delete a run cache and wait until the service does not show it as active; one that is gone is fine.

        :param run_cache_id: id of the cache.
        :raises OmicsApiError: the service refuses, for example because a run uses the cache.
        """
        run_cache_id = check_id("run_cache_id", run_cache_id)
        run_cache = self._get_run_cache_or_none(run_cache_id)
        if _is_deleted(run_cache):
            self.log.info("Run cache %s is gone already", run_cache_id)
            return
        try:
            self._if_found(partial(self._unless_busy, partial(self.delete_run_cache, run_cache_id=run_cache_id)))
        except OmicsApiError as error:
            run_cache = self._get_run_cache_or_none(run_cache_id)
            if run_cache is not None and not _is_deleted(run_cache):
                status = run_cache.get("status")
                failure = error.with_text(f"run cache {run_cache_id} is {status} and was not deleted: {error}")
                failure.run_cache_id, failure.status = run_cache_id, status
                raise failure from error.__cause__
        run_cache = self._look_again(
            lambda: self._get_run_cache_or_none(run_cache_id),
            lambda seen: seen is None or seen.get("status") != RunCacheStatus.ACTIVE,
        )
        if run_cache is not None and run_cache.get("status") == RunCacheStatus.ACTIVE:
            raise OmicsError(
                f"run cache {run_cache_id} is still {RunCacheStatus.ACTIVE}, {sum(VISIBLE_AFTER)} s after its deletion",
                run_cache_id=run_cache_id,
                status=RunCacheStatus.ACTIVE,
            )
        self.log.info("Deleted run cache %s; its data stays in S3", run_cache_id)

    def _get_run_cache_or_none(self, run_cache_id: str) -> Answer | None:
        return self._if_found(partial(self._unless_busy, partial(self.get_run_cache, run_cache_id=run_cache_id)))

    def _unless_busy(self, call: Callable[[], T]) -> T:
        """Call until the service neither throttles nor fails; anything else is raised."""
        return self._patiently(
            call,
            max_seconds=_LONGEST_SILENCE,
            is_worth_waiting=lambda error: error.http_status is not None and is_passing(error),
        )

    def _change(self, run_cache: Answer, wanted: Mapping[str, Any]) -> Answer:
        """Change what differs, all or nothing as far as can be told before, and wait until the service shows it."""
        differing = run_caches.differences(run_cache, **wanted)
        if not differing:
            return run_cache
        run_cache_id = run_cache["id"]
        text = run_caches.describe(differing)
        members = {parameter: asked for parameter, (_, asked) in differing.items()}
        tags = members.pop("tags", None)
        limits = self.describe_shape("UpdateRunCacheRequest")["members"]
        for parameter in sorted(members.keys() & limits.keys()):
            _check_length(parameter, members[parameter], limits[parameter])
        limits = self.describe_shape("TagResourceRequest")["members"]["tags"]
        for key, value in (tags or {}).items():
            _check_length("tags: a key", key, limits["key"])
            _check_length(f"tags: the value of {key!r}", value, limits["value"])
        check_tags("tags", tags or {}, there=run_cache.get("tags"))
        if members:
            self._unless_busy(partial(self.update_run_cache, run_cache_id=run_cache_id, **members))
        if tags:
            self._unless_busy(partial(self.tag_resource, resource_arn=run_cache["arn"], tags=tags))
        changed = self._look_again(
            lambda: self._get_run_cache_or_none(run_cache_id),
            lambda seen: seen is not None and not run_caches.differences(seen, **wanted),
        )
        if changed is None or run_caches.differences(changed, **wanted):
            raise OmicsError(
                f"run cache {run_cache_id} does not show its update yet: {text}", run_cache_id=run_cache_id
            )
        self.log.info("Updated run cache %s: %s", run_cache_id, text)
        return changed


def _is_deleted(run_cache: Answer | None) -> bool:
    return run_cache is None or run_cache.get("status") == RunCacheStatus.DELETED


def _check_length(parameter: str, value: Any, limits: Mapping[str, Any]) -> None:
    low, high = limits["min"], limits["max"]
    if not isinstance(value, str) or not low <= len(value) <= high:
        raise OmicsParameterError(parameter, f"has to be a string of {low} to {high} characters", value)
