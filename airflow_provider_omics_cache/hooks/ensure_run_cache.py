"""A run cache that exists once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsError, OmicsParameterError, RunCacheError
from airflow_provider_omics_cache.healthomics import run_caches
from airflow_provider_omics_cache.healthomics.identity import run_cache_token
from airflow_provider_omics_cache.healthomics.states import RunCacheStatus
from airflow_provider_omics_cache.hooks.change_run_cache import GONE, ChangeRunCacheHook
from airflow_provider_omics_cache.hooks.client import Answer
from airflow_provider_omics_cache.hooks.errors import as_api_error, check_request_id
from airflow_provider_omics_cache.hooks.s3 import s3_client

IF_EXISTS = ("reuse", "update", "fail")
_MAX_GENERATIONS = 10


class EnsuredRunCache(NamedTuple):
    """A run cache that exists.

    :param run_cache: GetRunCache's answer.
    :param created: whether it was not there before.
    """

    run_cache: Answer
    created: bool


class EnsureRunCacheHook(ChangeRunCacheHook):
    """Find the run cache that is asked for, or create it."""

    def ensure_run_cache(
        self,
        *,
        name: str,
        cache_s3_location: str,
        cache_behavior: str | None = None,
        cache_bucket_owner_id: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        request_id: str | None = None,
        if_exists: str = "reuse",
    ) -> EnsuredRunCache:
        """Get the run cache of this name, location and bucket owner; create it if there is none.

        However often and from however many tasks this is asked for, one cache is left.

        :param name: name of the cache.
        :param cache_s3_location: S3 URI; the service puts the cache into a UUID folder below it.
        :param cache_behavior: ``CACHE_ON_FAILURE`` or ``CACHE_ALWAYS``; compared only if given.
        :param cache_bucket_owner_id: account that has to own the bucket, by default the caller's.
        :param description: description; compared only if given.
        :param tags: tags; other tags of an existing cache stay and do not count as a difference.
        :param request_id: idempotency token in place of the derived one.
        :param if_exists: what to do when the cache exists with another behaviour, description or tags:
            ``reuse`` it with a warning, ``update`` it, or ``fail``; ``fail`` also refuses to make a second
            cache of the same name elsewhere.
        :return: the cache as GetRunCache shows it, and whether it was created.
        :raises OmicsParameterError: a parameter is missing or breaks a rule.
        :raises RunCacheError: the cache is not, and cannot be made, what is asked for.
        """
        check_if_exists(if_exists)
        for parameter, value in (("name", name), ("cache_s3_location", cache_s3_location)):
            if not value or not isinstance(value, str):
                raise OmicsParameterError(parameter, "has to be a string that is not empty", value)
        if not isinstance(tags, Mapping | None):
            raise OmicsParameterError("tags", "has to be a dictionary", tags)
        request_id = check_request_id(request_id)
        owner = str(cache_bucket_owner_id) if cache_bucket_owner_id else None
        created = False
        run_cache, others = self._find_run_cache(name, cache_s3_location, owner)
        if run_cache is None:
            self._report_same_name(others, name, cache_s3_location, owner, if_exists)
            run_cache = self._create_run_cache_once(
                request_id=request_id,
                name=name,
                cache_s3_location=cache_s3_location,
                cache_behavior=cache_behavior,
                cache_bucket_owner_id=owner,
                description=description,
                tags=tags,
            )
            created = True
        wanted = {"cache_behavior": cache_behavior, "description": description, "tags": tags}
        return EnsuredRunCache(self._settle_differences(run_cache, wanted, if_exists), created)

    def check_bucket(self, *, cache_s3_location: str, cache_bucket_owner_id: str | None = None) -> None:
        """Check that the bucket of a location exists, in the right Region and account.

        That access is denied is only a warning: the role of the runs may see what the worker does not.

        :param cache_s3_location: S3 URI.
        :param cache_bucket_owner_id: account that has to own the bucket, by default the caller's.
        :raises OmicsParameterError: the bucket does not exist, is in another Region or has another owner.
        """
        location = urlsplit(str(cache_s3_location))
        bucket = location.netloc
        if location.scheme != "s3" or not bucket:
            raise OmicsParameterError("cache_s3_location", "has to be an s3:// URI", cache_s3_location)
        region, owner = self._client.meta.region_name, str(cache_bucket_owner_id or self._own_account())
        status, bucket_region = self._head_bucket(Bucket=bucket, ExpectedBucketOwner=owner)
        if status == 404:
            raise OmicsParameterError("cache_s3_location", "has to name a bucket that exists", cache_s3_location)
        if bucket_region not in {None, region}:
            raise OmicsParameterError(
                "cache_s3_location",
                f"has to name a bucket in {region}, this one is in {bucket_region}",
                cache_s3_location,
            )
        if status == 403:
            if self._head_bucket(Bucket=bucket)[0] == 200:
                raise OmicsParameterError(
                    "cache_s3_location", f"has to name a bucket of account {owner}", cache_s3_location
                )
            self.log.warning("Access to bucket %s is denied here, so its owner is not known", bucket)

    def _head_bucket(self, **members: Any) -> tuple[int, str | None]:
        """Give the HTTP status and the bucket's Region, as far as S3 tells it."""
        with as_api_error("HeadBucket"):
            try:
                metadata = self._s3_client.head_bucket(**members)["ResponseMetadata"]
            except ClientError as error:
                metadata = error.response["ResponseMetadata"]
                if metadata["HTTPStatusCode"] not in {301, 403, 404}:
                    raise
        return metadata["HTTPStatusCode"], metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region")

    @cached_property
    def _s3_client(self) -> Any:
        return s3_client(
            aws_conn_id=self.aws_conn_id, region_name=self._region_name, verify=self._verify, config=self._config
        )

    def _find_run_cache(self, name: str, location: str, owner: str | None) -> tuple[Answer | None, list[Answer]]:
        """Find the cache among the account's; also give the caches of its name that are elsewhere."""
        same_name = [
            self._get_run_cache_or_none(item["id"])
            for item in self.list_run_caches(max_results=100)
            if item.get("name") == name and item.get("status") == RunCacheStatus.ACTIVE
        ]
        active = [cache for cache in same_name if cache and cache.get("status") == RunCacheStatus.ACTIVE]
        matching = run_caches.oldest_first(cache for cache in active if _is_cache_of(cache, name, location, owner))
        if len(matching) > 1:
            self.log.warning(
                "Run caches %s have the same name and location; taking the oldest, %s",
                ", ".join(cache["id"] for cache in matching),
                matching[0]["id"],
            )
        if matching:
            self.log.info("Run cache %s exists at %s", matching[0]["id"], matching[0]["cacheS3Uri"])
            return matching[0], []
        return None, active

    def _report_same_name(
        self, others: list[Answer], name: str, location: str, owner: str | None, if_exists: str
    ) -> None:
        for other in others:
            text = (
                f"the run cache {name!r} ({other['id']}) is at {other.get('cacheS3Uri')} "
                f"with bucket owner {other.get('cacheBucketOwnerId') or run_caches.account_of(other)}"
            )
            if if_exists == "fail":
                if run_caches.is_at(other.get("cacheS3Uri"), location):
                    raise OmicsParameterError("cache_bucket_owner_id", f"cannot be another one: {text}", owner)
                raise OmicsParameterError("cache_s3_location", f"cannot be another one: {text}", location)
            self.log.warning("%s; a cache cannot be moved, so %s gets its own", text, location)

    def _create_run_cache_once(self, *, request_id: str | None, **members: Any) -> Answer:
        name, location = members["name"], members["cache_s3_location"]
        owner = members["cache_bucket_owner_id"]
        token_owner = None if request_id or self._is_own_account(owner) else owner
        for generation in range(1 if request_id else _MAX_GENERATIONS):
            token = request_id or run_cache_token(
                name=name,
                location=location,
                owner=token_owner,
                region=self.conn_region_name,
                generation=generation,
            )
            try:
                answer = self.create_run_cache(request_id=token, **members)
            except OmicsApiError as error:
                run_cache = self._find_run_cache_of_spent_token(error, name, location, owner, request_id)
                if run_cache is not None:
                    return run_cache
                if request_id or error.code != "ConflictException":
                    raise
                continue
            if answer.get("status") not in GONE:
                run_cache = self._wait_for_state(answer["id"])
                if run_cache is not None and _is_cache_of(run_cache, name, location, owner):
                    self.log.info("Created run cache %s at %s", run_cache["id"], run_cache["cacheS3Uri"])
                    return run_cache
            self.log.info("The request token of generation %s belongs to a cache that is gone", generation)
        raise RunCacheError(
            f"run cache {name!r} at {location} could not be created: the request "
            + (f"token {request_id!r} belongs" if request_id else f"tokens of {_MAX_GENERATIONS} generations belong")
            + " to caches that are gone or are others; set another request_id"
        )

    def _find_run_cache_of_spent_token(
        self, error: OmicsApiError, name: str, location: str, owner: str | None, request_id: str | None
    ) -> Answer | None:
        """Find what a refused token may stand for: the same cache with, say, another description, made a moment ago."""

        def look() -> Answer | None:
            return self._find_run_cache(name, location, owner)[0]

        if error.code not in {"ConflictException", "ValidationException"}:
            return None
        is_about_token = error.code == "ConflictException" or "requestId" in (error.reason or "")
        return self._look_again(look) if is_about_token and not request_id else look()

    def _is_own_account(self, owner: str | None) -> bool:
        """Whether an owner is what the service takes anyway, so that both ways to ask get the same token."""
        if owner is None:
            return True
        try:
            return owner == self._own_account()
        except OmicsApiError as error:
            self.log.warning("The connection's account is not known: %s", error)
            return False

    def _own_account(self) -> str:
        with as_api_error("GetCallerIdentity"):
            return self.account_id

    def _wait_for_state(self, run_cache_id: str) -> Answer | None:
        run_cache = self._look_again(
            lambda: self._get_run_cache_or_none(run_cache_id),
            lambda seen: seen is not None and seen.get("status") in frozenset(RunCacheStatus),
        )
        status = None if run_cache is None else run_cache.get("status")
        if status is not None and status not in frozenset(RunCacheStatus):
            raise OmicsError(f"run cache {run_cache_id} is still {status}", run_cache_id=run_cache_id, status=status)
        return run_cache

    def _settle_differences(self, run_cache: Answer, wanted: Mapping[str, Any], if_exists: str) -> Answer:
        differing = run_caches.differences(run_cache, **wanted)
        if not differing:
            return run_cache
        run_cache_id = run_cache["id"]
        text = run_caches.describe(differing)
        if if_exists == "fail":
            raise RunCacheError(
                f"run cache {run_cache_id} differs: {text}",
                run_cache_id=run_cache_id,
                status=run_cache.get("status"),
            )
        if if_exists == "reuse":
            self.log.warning("Run cache %s is used as it is: %s", run_cache_id, text)
            return run_cache
        return self._change(run_cache, wanted)


def check_if_exists(value: str) -> None:
    """Check the parameter ``if_exists`` of a run cache.

    :param value: what was given.
    :raises OmicsParameterError: it is none of ``reuse``, ``update`` and ``fail``.
    """
    if value not in IF_EXISTS:
        raise OmicsParameterError("if_exists", f"has to be one of {', '.join(IF_EXISTS)}", value)


def _is_cache_of(run_cache: Answer, name: str, location: str, owner: str | None) -> bool:
    return (
        run_cache.get("status") == RunCacheStatus.ACTIVE
        and run_cache.get("name") == name
        and run_caches.is_at(run_cache.get("cacheS3Uri"), location)
        and run_caches.has_owner(run_cache, owner)
    )
