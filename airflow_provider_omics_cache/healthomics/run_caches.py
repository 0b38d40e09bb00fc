"""Compare run caches with what a task asks for; create them once, change and delete them.

It follows the guide on `run caches <https://docs.aws.amazon.com/omics/latest/dev/workflows-call-caching.html>`__.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsError, OmicsParameterError, RunCacheError
from airflow_provider_omics_cache.healthomics.identity import run_cache_token
from airflow_provider_omics_cache.healthomics.states import RunCacheStatus, shown
from airflow_provider_omics_cache.hooks.arguments import check_id, check_request_id, check_tags
from airflow_provider_omics_cache.hooks.client import LARGEST_PAGE, LONGEST_SILENCE, VISIBLE_AFTER
from airflow_provider_omics_cache.hooks.errors import as_api_error, if_found
from airflow_provider_omics_cache.hooks.s3 import bucket_and_key

if TYPE_CHECKING:
    from airflow_provider_omics_cache.hooks.client import Answer
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
    from airflow_provider_omics_cache.xcoms import RunCacheXCom

IF_EXISTS = ("reuse", "update", "fail")

_GONE = frozenset({RunCacheStatus.DELETED, RunCacheStatus.FAILED})
_MAX_GENERATIONS = 10
#: Seconds for which an unanswered call to STS is repeated.
_STS_SECONDS = 60

_CACHE_FOLDER = re.compile("(?P<location>.*)/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/?", re.IGNORECASE | re.DOTALL)
_DEFAULT_BEHAVIOR = "CACHE_ON_FAILURE"
_NO_TIME = datetime.max.replace(tzinfo=UTC)


def is_at(cache_s3_uri: str | None, location: str) -> bool:
    """Whether a cache was created at a location. The service appends a UUID folder to the location.

    :param cache_s3_uri: URI of the cache, as the service reports it.
    :param location: the requested S3 location. Trailing slashes make no difference.
    """
    found = _CACHE_FOLDER.fullmatch(cache_s3_uri or "")
    return found is not None and found["location"].rstrip("/") == location.rstrip("/")


def has_owner(run_cache: Mapping[str, Any], owner: str | None) -> bool:
    """Whether a cache expects this owner of its bucket. A cache without an owner expects its own account.

    :param run_cache: GetRunCache's answer.
    :param owner: account id, None for the caller's account.
    """
    account = account_of(run_cache)
    return (run_cache.get("cacheBucketOwnerId") or account) == (owner or account)


def account_of(run_cache: Mapping[str, Any]) -> str | None:
    """Return the account id in a cache's ARN.

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
    """Compare a cache with the wanted values. Parameters that are None are not compared.

    :param run_cache: GetRunCache's answer.
    :param cache_behavior: wanted behaviour.
    :param description: wanted description.
    :param tags: wanted tags. Other tags of the cache are ignored.
    :param name: wanted name.
    :return: found and wanted value, by parameter. Tags that are equal are left out.
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
    """Describe differences in a sentence.

    :param differing: what :func:`differences` returned.
    """
    return "; ".join(
        f"{parameter} is {found!r}, wanted: {wanted!r}" for parameter, (found, wanted) in differing.items()
    )


def run_cache_xcom(run_cache: Mapping[str, Any]) -> RunCacheXCom:
    """Return a cache in the form of the XCom ``run_cache``.

    :param run_cache: GetRunCache's answer.
    """
    creation_time = run_cache.get("creationTime")
    return {
        "id": run_cache["id"],
        "arn": run_cache.get("arn"),
        "name": run_cache.get("name"),
        "status": run_cache.get("status"),
        "cache_behavior": run_cache.get("cacheBehavior"),
        "cache_s3_uri": run_cache.get("cacheS3Uri"),
        "creation_time": creation_time.isoformat() if creation_time else None,
        "tags": run_cache.get("tags") or {},
    }


class RunCacheRequest(NamedTuple):
    """The run cache that a task asks for.

    :param name: name of the cache.
    :param location: S3 location; the service appends a UUID folder to it.
    :param behavior: ``CACHE_ON_FAILURE`` or ``CACHE_ALWAYS``; None if the behaviour does not matter.
    :param owner: account that must own the bucket, None for the caller's account.
    :param description: description, None if it does not matter.
    :param tags: tags; other tags of an existing cache are ignored.
    """

    name: str
    location: str
    behavior: str | None = None
    owner: str | None = None
    description: str | None = None
    tags: Mapping[str, str] | None = None

    @property
    def changeable(self) -> dict[str, Any]:
        """The members that can be changed after the creation."""
        return {"cache_behavior": self.behavior, "description": self.description, "tags": self.tags}

    def is_met_by(self, run_cache: Mapping[str, Any]) -> bool:
        """Whether a cache matches the request, apart from the members that can be changed.

        :param run_cache: GetRunCache's answer.
        """
        return (
            run_cache.get("status") == RunCacheStatus.ACTIVE
            and run_cache.get("name") == self.name
            and is_at(run_cache.get("cacheS3Uri"), self.location)
            and has_owner(run_cache, self.owner)
        )


class EnsuredRunCache(NamedTuple):
    """A run cache that exists.

    :param run_cache: GetRunCache's answer.
    :param created: whether it did not exist before.
    """

    run_cache: Answer
    created: bool


class ChangedRunCache(NamedTuple):
    """A run cache with the requested values.

    :param run_cache: GetRunCache's answer.
    :param updated: the parameters that were changed.
    """

    run_cache: Answer
    updated: list[str]


def check_if_exists(value: Any) -> None:
    """Check the parameter ``if_exists``.

    :param value: the value.
    :raises OmicsParameterError: the value is not ``reuse``, ``update`` or ``fail``.
    """
    if value not in IF_EXISTS:
        raise OmicsParameterError("if_exists", f"must be one of {', '.join(IF_EXISTS)}", value)


def ensure_run_cache(
    hook: OmicsCacheHook,
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
    """Return the run cache with this name, location and bucket owner; create it if it does not exist.

    All tasks that ask for the same cache, even at the same time, get the same one.

    :param hook: the hook.
    :param name: name of the cache.
    :param cache_s3_location: S3 location; the service appends a UUID folder to it.
    :param cache_behavior: ``CACHE_ON_FAILURE`` or ``CACHE_ALWAYS``. It is compared only if it is given.
    :param cache_bucket_owner_id: account that must own the bucket. Default: the caller's account.
    :param description: description. It is compared only if it is given.
    :param tags: tags. Other tags of an existing cache are ignored.
    :param request_id: idempotency token. Default: derived from name, location, owner and Region.
    :param if_exists: what to do with an existing cache whose behaviour, description or tags differ: ``reuse`` it with a
        warning, ``update`` it, or ``fail``. ``fail`` also refuses a second cache of the same name at another location.
    :return: the cache, and whether it was created.
    :raises OmicsParameterError: a parameter breaks a rule.
    :raises RunCacheError: the existing cache differs, or the cache could not be created.
    :raises OmicsApiError: a call failed.
    """
    check_if_exists(if_exists)
    for parameter, value in (("name", name), ("cache_s3_location", cache_s3_location)):
        if not value or not isinstance(value, str):
            raise OmicsParameterError(parameter, "must be a string that is not empty", value)
    _check_is_dict(tags)
    request_id = check_request_id(request_id)
    owner = str(cache_bucket_owner_id) if cache_bucket_owner_id else None
    request = RunCacheRequest(name, cache_s3_location, cache_behavior, owner, description, tags)
    run_cache, others = _find_run_cache(hook, request)
    is_new = run_cache is None
    if run_cache is None:
        _report_same_name(hook, others, request, if_exists)
        run_cache = _create_run_cache_once(hook, request, request_id)
    return EnsuredRunCache(_settle_differences(hook, run_cache, request, if_exists), is_new)


def change_run_cache(
    hook: OmicsCacheHook,
    *,
    run_cache_id: str,
    name: str | None = None,
    cache_behavior: str | None = None,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> ChangedRunCache:
    """Change a run cache. Only what differs is sent.

    :param hook: the hook.
    :param run_cache_id: id of the cache.
    :param name: new name, None to keep it.
    :param cache_behavior: ``CACHE_ON_FAILURE`` or ``CACHE_ALWAYS``, None to keep it.
    :param description: new description, None to keep it.
    :param tags: tags to set; other tags of the cache do not change.
    :return: the cache as GetRunCache shows it, and what was changed.
    :raises OmicsParameterError: a parameter breaks a rule, or none is given; nothing is changed.
    :raises RunCacheError: the cache does not exist.
    :raises OmicsApiError: a call failed.
    """
    run_cache_id = check_id("run_cache_id", run_cache_id)
    _check_is_dict(tags)
    wanted: dict[str, Any] = {
        "name": name,
        "cache_behavior": cache_behavior,
        "description": description,
        "tags": tags or None,
    }
    if all(value is None for value in wanted.values()):
        rule = "or one of cache_behavior, description and tags must be given"
        raise OmicsParameterError("name", rule, name if tags is None else {"tags": {}})
    run_cache = _get_run_cache(hook, run_cache_id)
    status = None if run_cache is None else run_cache.get("status")
    if run_cache is None or status in _GONE:
        raise RunCacheError(
            f"Cannot update run cache {run_cache_id}: it is {status or 'not found'}.",
            run_cache_id=run_cache_id,
            status=status,
        )
    differing = differences(run_cache, **wanted)
    if not differing:
        hook.log.info("Run cache %s needs no update", run_cache_id)
    return ChangedRunCache(_change(hook, run_cache, wanted), list(differing))


def remove_run_cache(hook: OmicsCacheHook, *, run_cache_id: str) -> None:
    """Delete a run cache, unless it is already deleted, and wait until the service no longer shows it as ACTIVE.

    :param hook: the hook.
    :param run_cache_id: id of the cache.
    :raises OmicsApiError: a call failed, or the service refused, for example because a run uses the cache.
    """
    run_cache_id = check_id("run_cache_id", run_cache_id)
    run_cache = _get_run_cache(hook, run_cache_id)
    if _is_deleted(run_cache):
        hook.log.info("Run cache %s is already deleted", run_cache_id)
        return
    try:
        if_found(partial(hook.patiently, partial(hook.delete_run_cache, run_cache_id=run_cache_id)))
    except OmicsApiError as error:
        run_cache = _get_run_cache(hook, run_cache_id)
        if run_cache is not None and not _is_deleted(run_cache):
            status = run_cache.get("status")
            raise error.with_text(
                f"Run cache {run_cache_id} is {shown(status)} and was not deleted: {error}",
                run_cache_id=run_cache_id,
                status=status,
            ) from error.__cause__
    run_cache = hook.until_seen(
        partial(_get_run_cache, hook, run_cache_id),
        lambda seen: seen is None or seen.get("status") != RunCacheStatus.ACTIVE,
    )
    if run_cache is not None and run_cache.get("status") == RunCacheStatus.ACTIVE:
        raise OmicsError(
            f"Run cache {run_cache_id} is still {RunCacheStatus.ACTIVE}, {sum(VISIBLE_AFTER)} s after its deletion",
            run_cache_id=run_cache_id,
            status=RunCacheStatus.ACTIVE,
        )
    hook.log.info("Deleted run cache %s; its data stays in S3", run_cache_id)


def check_bucket(
    hook: OmicsCacheHook, s3: Any, *, cache_s3_location: str, cache_bucket_owner_id: str | None = None
) -> None:
    """Check that the bucket of a location exists, in the right Region and account.

    Denied access is only logged: the role of the runs may have permissions that the worker does not have.

    :param hook: the hook.
    :param s3: the S3 client.
    :param cache_s3_location: S3 location of the cache.
    :param cache_bucket_owner_id: account that must own the bucket. Default: the caller's account.
    :raises OmicsParameterError: the bucket does not exist, is in another Region or has another owner.
    """
    bucket, _ = bucket_and_key(str(cache_s3_location))
    if not bucket:
        raise OmicsParameterError("cache_s3_location", "must be an s3:// URI", cache_s3_location)
    region, owner = hook.client_region, str(cache_bucket_owner_id or _own_account(hook))
    status, bucket_region = _head_bucket(s3, Bucket=bucket, ExpectedBucketOwner=owner)
    if status == 404:
        raise OmicsParameterError("cache_s3_location", "must be in a bucket that exists", cache_s3_location)
    if bucket_region not in {None, region}:
        raise OmicsParameterError(
            "cache_s3_location",
            f"must be in a bucket in {region}, but the bucket is in {bucket_region}",
            cache_s3_location,
        )
    if status == 403:
        if _head_bucket(s3, Bucket=bucket)[0] == 200:
            raise OmicsParameterError("cache_s3_location", f"must be in a bucket of account {owner}", cache_s3_location)
        hook.log.warning("Bucket %s: access denied, its owner was not checked", bucket)


def _head_bucket(s3: Any, **members: Any) -> tuple[int, str | None]:
    """Return the HTTP status, and the bucket's Region as far as S3 reports it."""
    with as_api_error("HeadBucket"):
        try:
            metadata = s3.head_bucket(**members)["ResponseMetadata"]
        except ClientError as error:
            metadata = error.response["ResponseMetadata"]
            if metadata["HTTPStatusCode"] not in {301, 403, 404}:
                raise
    return metadata["HTTPStatusCode"], metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region")


def _check_is_dict(tags: Any) -> None:
    if not isinstance(tags, Mapping | None):
        raise OmicsParameterError("tags", "must be a dict", tags)


def _get_run_cache(hook: OmicsCacheHook, run_cache_id: str) -> Answer | None:
    return if_found(partial(hook.get_run_cache, run_cache_id=run_cache_id, max_silence=LONGEST_SILENCE))


def _is_deleted(run_cache: Answer | None) -> bool:
    return run_cache is None or run_cache.get("status") == RunCacheStatus.DELETED


def _find_run_cache(hook: OmicsCacheHook, request: RunCacheRequest) -> tuple[Answer | None, list[Answer]]:
    """Find the cache, and the other active caches of its name if it does not exist."""
    same_name = [
        _get_run_cache(hook, item["id"])
        for item in hook.list_run_caches(max_results=LARGEST_PAGE, max_silence=LONGEST_SILENCE)
        if item.get("name") == request.name and item.get("status") == RunCacheStatus.ACTIVE
    ]
    active = [cache for cache in same_name if cache and cache.get("status") == RunCacheStatus.ACTIVE]
    matching = oldest_first(filter(request.is_met_by, active))
    if not matching:
        return None, active
    run_cache = matching[0]
    if len(matching) > 1:
        hook.log.warning(
            "Run caches %s have the same name and location; using the oldest, %s",
            ", ".join(cache["id"] for cache in matching),
            run_cache["id"],
        )
    hook.log.info("Run cache %s exists at %s", run_cache["id"], run_cache["cacheS3Uri"])
    return run_cache, []


def _report_same_name(hook: OmicsCacheHook, others: list[Answer], request: RunCacheRequest, if_exists: str) -> None:
    for other in others:
        text = (
            f"run cache {other['id']} of the name {request.name!r} is at {other.get('cacheS3Uri')} with bucket owner "
            f"{other.get('cacheBucketOwnerId') or account_of(other)}"
        )
        if if_exists != "fail":
            hook.log.warning(
                "Another %s. The location and bucket owner of a cache cannot be changed: creating a new cache at %s",
                text,
                request.location,
            )
        elif is_at(other.get("cacheS3Uri"), request.location):
            raise OmicsParameterError(
                "cache_bucket_owner_id", f"must not differ with if_exists='fail': {text}", request.owner
            )
        else:
            raise OmicsParameterError(
                "cache_s3_location", f"must not differ with if_exists='fail': {text}", request.location
            )


def _create_run_cache_once(hook: OmicsCacheHook, request: RunCacheRequest, request_id: str | None) -> Answer:
    token_owner = None if request_id or _is_own_account(hook, request.owner) else request.owner
    for generation in range(1 if request_id else _MAX_GENERATIONS):
        token = request_id or run_cache_token(
            name=request.name,
            location=request.location,
            owner=token_owner,
            region=hook.client_region,
            generation=generation,
        )
        create = partial(
            hook.create_run_cache,
            name=request.name,
            cache_s3_location=request.location,
            cache_behavior=request.behavior,
            cache_bucket_owner_id=request.owner,
            description=request.description,
            tags=request.tags,
            request_id=token,
        )
        try:
            answer = hook.patiently(create)
        except OmicsApiError as error:
            run_cache = _find_run_cache_of_spent_token(hook, error, request, request_id)
            if run_cache is not None:
                return run_cache
            if request_id or error.code != "ConflictException":
                raise
            continue
        if answer.get("status") not in _GONE:
            run_cache = _wait_for_status(hook, answer["id"])
            if run_cache is not None and request.is_met_by(run_cache):
                hook.log.info("Created run cache %s at %s", run_cache["id"], run_cache["cacheS3Uri"])
                return run_cache
        hook.log.info("The request token of generation %s is of a run cache that was deleted or differs", generation)
    which = f"request token {request_id!r} was" if request_id else f"last {_MAX_GENERATIONS} request tokens were"
    raise RunCacheError(
        f"Could not create run cache {request.name!r} at {request.location}: the {which} used by caches that were "
        "deleted or differ. Set another request_id."
    )


def _find_run_cache_of_spent_token(
    hook: OmicsCacheHook, error: OmicsApiError, request: RunCacheRequest, request_id: str | None
) -> Answer | None:
    """Find the cache that was created with a refused token. It may be too new to be listed, and may differ."""
    if error.code not in {"ConflictException", "ValidationException"}:
        return None

    def find() -> Answer | None:
        return _find_run_cache(hook, request)[0]

    is_about_token = error.code == "ConflictException" or "requestId" in (error.reason or "")
    return hook.until_seen(find) if is_about_token and not request_id else find()


def _is_own_account(hook: OmicsCacheHook, owner: str | None) -> bool:
    """Whether an owner is the service's default, so that both ways to ask for it get the same token.

    :raises OmicsApiError: STS is busy for a minute. A guess could make a second cache.
    """
    if owner is None:
        return True
    try:
        return owner == _own_account(hook)
    except OmicsApiError as error:
        if error.is_passing and not error.is_unreachable:
            raise
        hook.log.warning("The account of the connection is not known: %s", error)
        return False


def _own_account(hook: OmicsCacheHook) -> str:
    def get() -> str:
        with as_api_error("GetCallerIdentity"):
            return hook.account_id

    return hook.patiently(get, max_silence=_STS_SECONDS)


def _wait_for_status(hook: OmicsCacheHook, run_cache_id: str) -> Answer | None:
    run_cache = hook.until_seen(
        partial(_get_run_cache, hook, run_cache_id),
        lambda seen: seen is not None and seen.get("status") in frozenset(RunCacheStatus),
    )
    status = None if run_cache is None else run_cache.get("status")
    if status is not None and status not in frozenset(RunCacheStatus):
        raise OmicsError(f"Run cache {run_cache_id} is still {status}", run_cache_id=run_cache_id, status=status)
    return run_cache


def _settle_differences(hook: OmicsCacheHook, run_cache: Answer, request: RunCacheRequest, if_exists: str) -> Answer:
    differing = differences(run_cache, **request.changeable)
    if not differing:
        return run_cache
    run_cache_id, text = run_cache["id"], describe(differing)
    if if_exists == "fail":
        raise RunCacheError(
            f"Run cache {run_cache_id} differs: {text}", run_cache_id=run_cache_id, status=run_cache.get("status")
        )
    if if_exists == "reuse":
        hook.log.warning("Run cache %s is used although it differs: %s", run_cache_id, text)
        return run_cache
    return _change(hook, run_cache, request.changeable)


def _change(hook: OmicsCacheHook, run_cache: Answer, wanted: Mapping[str, Any]) -> Answer:
    """Change what differs, and wait until the service shows it. Rules are checked before the first change."""
    differing = differences(run_cache, **wanted)
    if not differing:
        return run_cache
    run_cache_id, text = run_cache["id"], describe(differing)
    members = {parameter: value for parameter, (_, value) in differing.items()}
    tags = members.pop("tags", None)
    limits = hook.describe_shape("UpdateRunCacheRequest")["members"]
    for parameter in sorted(members.keys() & limits.keys()):
        _check_length(parameter, members[parameter], limits[parameter])
    limits = hook.describe_shape("TagResourceRequest")["members"]["tags"]
    for key, value in (tags or {}).items():
        _check_length("tags: a key", key, limits["key"])
        _check_length(f"tags: the value of {key!r}", value, limits["value"])
    check_tags("tags", tags or {}, present=run_cache.get("tags"))
    if members:
        hook.patiently(partial(hook.update_run_cache, run_cache_id=run_cache_id, **members))
    if tags:
        hook.patiently(partial(hook.tag_resource, resource_arn=run_cache["arn"], tags=tags))
    changed = hook.until_seen(
        partial(_get_run_cache, hook, run_cache_id),
        lambda seen: seen is not None and not differences(seen, **wanted),
    )
    if changed is None or differences(changed, **wanted):
        raise OmicsError(f"Run cache {run_cache_id} does not show its update yet: {text}", run_cache_id=run_cache_id)
    hook.log.info("Updated run cache %s: %s", run_cache_id, text)
    return changed


def _check_length(parameter: str, value: Any, limits: Mapping[str, Any]) -> None:
    low, high = limits["min"], limits["max"]
    if not isinstance(value, str) or not low <= len(value) <= high:
        raise OmicsParameterError(parameter, f"must be a string of {low} to {high} characters", value)
