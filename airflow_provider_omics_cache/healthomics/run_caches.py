"""Compare run caches with what a task asks for; create them once, change and delete them.

It follows the guide on `run caches <https://docs.aws.amazon.com/omics/latest/dev/workflows-call-caching.html>`__.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import botocore.session

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsError, OmicsParameterError, RunCacheError
from airflow_provider_omics_cache.healthomics.buckets import look_at_bucket
from airflow_provider_omics_cache.healthomics.identity import run_cache_token
from airflow_provider_omics_cache.healthomics.resources import (
    FEW_READS,
    MAX_GENERATIONS,
    SHOWN_AFTER,
    Resources,
    check_if_exists,
    check_tags_are_a_dict,
    differing_tags,
    oldest_first,
    present,
)
from airflow_provider_omics_cache.healthomics.states import RunCacheStatus, shown
from airflow_provider_omics_cache.healthomics.tokens import is_token_refused
from airflow_provider_omics_cache.hooks.arguments import check_id, check_request_id
from airflow_provider_omics_cache.hooks.client import LARGEST_PAGE, LONGEST_SILENCE
from airflow_provider_omics_cache.hooks.errors import as_api_error
from airflow_provider_omics_cache.hooks.s3 import bucket_and_key

if TYPE_CHECKING:
    from airflow_provider_omics_cache.hooks.client import Answer
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
    from airflow_provider_omics_cache.xcoms import RunCacheXCom

T = TypeVar("T")

CACHE_BEHAVIORS = ("CACHE_ON_FAILURE", "CACHE_ALWAYS")

_STATUSES = frozenset(RunCacheStatus)
_GONE = frozenset({RunCacheStatus.DELETED, RunCacheStatus.FAILED})
#: Seconds for which an unanswered call to STS is repeated.
_STS_SECONDS = 60

_CACHE_FOLDER = re.compile("(?P<location>.*)/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/?", re.IGNORECASE | re.DOTALL)
_DEFAULT_BEHAVIOR = "CACHE_ON_FAILURE"


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
    return differing | differing_tags(run_cache, tags)


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
            and not self.is_ruled_out_by(run_cache)
            and not self.absent_members(run_cache)
        )

    def is_ruled_out_by(self, run_cache: Mapping[str, Any]) -> bool:
        """Whether a cache is not the requested one, whatever its status. An absent member is ignored.

        :param run_cache: GetRunCache's answer, or an item of ListRunCaches.
        """
        name = run_cache.get("name")
        return (bool(name) and name != self.name) or self.is_elsewhere(run_cache)

    def is_elsewhere(self, run_cache: Mapping[str, Any]) -> bool:
        """Whether a cache has another location or bucket owner. An absent member is ignored.

        :param run_cache: GetRunCache's answer, or an item of ListRunCaches.
        """
        uri = run_cache.get("cacheS3Uri")
        if uri and not is_at(uri, self.location):
            return True
        is_known = run_cache.get("cacheBucketOwnerId") and (self.owner or account_of(run_cache))
        return bool(is_known) and not has_owner(run_cache, self.owner)

    def absent_members(self, run_cache: Mapping[str, Any]) -> list[str]:
        """Return the absent members that are needed to decide whether the cache matches.

        :param run_cache: GetRunCache's answer, or an item of ListRunCaches. It is not ruled out.
        """
        absent = [member for member in ("name", "status", "cacheS3Uri") if not run_cache.get(member)]
        if not has_owner(run_cache, self.owner):
            absent.append("arn" if run_cache.get("cacheBucketOwnerId") else "cacheBucketOwnerId")
        return absent


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


def check_cache_behavior(value: Any) -> None:
    """Check the parameter ``cache_behavior`` if it is known before the DAG runs.

    A value that the installed botocore knows is allowed, because AWS may add values.

    :param value: the value. A template, None or the output of a task is not checked.
    :raises OmicsParameterError: the value is neither ``CACHE_ON_FAILURE`` nor ``CACHE_ALWAYS``.
    """
    if not isinstance(value, str) or "{" in value or value in CACHE_BEHAVIORS:
        return
    known = botocore.session.Session().get_service_model("omics").shape_for("CacheBehavior")
    if value not in getattr(known, "enum", ()):
        raise OmicsParameterError("cache_behavior", f"must be one of {', '.join(CACHE_BEHAVIORS)}", value)


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

    All tasks that ask for the same cache, even at the same time, get the same one. If it is not known whether the cache
    exists, no cache is created.

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
    :raises OmicsError: the service did not show in time whether the cache exists, or the cache that it created.
    """
    check_if_exists(if_exists)
    for parameter, value in (("name", name), ("cache_s3_location", cache_s3_location)):
        if not value or not isinstance(value, str):
            raise OmicsParameterError(parameter, "must be a string that is not empty", value)
    check_tags_are_a_dict(tags)
    request_id = check_request_id(request_id)
    owner = str(cache_bucket_owner_id) if cache_bucket_owner_id else None
    request = RunCacheRequest(name, cache_s3_location, cache_behavior, owner, description, tags)
    search = _RunCacheSearch(hook, request)
    run_cache = search.find()
    is_new = run_cache is None
    if run_cache is None:
        _report_same_name(hook, search.others, request, if_exists)
        run_cache = _create_run_cache_once(search, request_id)
    return EnsuredRunCache(_RunCaches(hook).settle(run_cache, request.changeable, if_exists), is_new)


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
    :raises OmicsParameterError: a parameter breaks a rule, or no new value is given. The cache is not changed.
    :raises RunCacheError: the cache does not exist.
    :raises OmicsApiError: a call failed.
    :raises OmicsError: GetRunCache did not show the changes in time.
    """
    run_cache_id = check_id("run_cache_id", run_cache_id)
    check_tags_are_a_dict(tags)
    wanted: dict[str, Any] = {
        "name": name,
        "cache_behavior": cache_behavior,
        "description": description,
        "tags": tags or None,
    }
    if all(value is None for value in wanted.values()):
        parameters = "name, cache_behavior, description, tags"
        rule = "must not all be empty, because the task would change nothing: set at least one of them"
        raise OmicsParameterError(parameters, rule, name if tags is None else {"tags": {}})
    run_caches = _RunCaches(hook)
    run_cache = run_caches.get_existing(run_cache_id)
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
    return ChangedRunCache(run_caches.change(run_cache, wanted), list(differing))


def remove_run_cache(hook: OmicsCacheHook, *, run_cache_id: str) -> None:
    """Delete a run cache, unless it is already deleted, and wait until the service no longer shows it as ACTIVE.

    :param hook: the hook.
    :param run_cache_id: id of the cache.
    :raises OmicsApiError: a call failed, or the service refused, for example because a run uses the cache.
    :raises OmicsError: GetRunCache did not show in time that the cache is deleted.
    """
    if _RunCaches(hook).remove(run_cache_id):
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
    look = look_at_bucket(s3, bucket, region=region, owner=owner)
    if look.rule is not None:
        raise OmicsParameterError("cache_s3_location", look.rule, cache_s3_location)
    if look.is_denied:
        hook.log.warning("Bucket %s: access denied, its owner was not checked", bucket)


class _RunCaches(Resources):
    kind = "run cache"
    id_parameter = "run_cache_id"
    operation = "RunCache"
    error_class = RunCacheError

    def read(self, resource_id: str) -> Answer:
        return self.hook.get_run_cache(run_cache_id=resource_id, max_silence=LONGEST_SILENCE)

    def update(self, resource_id: str, members: Mapping[str, Any]) -> None:
        self.hook.update_run_cache(run_cache_id=resource_id, **members)

    def delete(self, resource_id: str) -> None:
        self.hook.delete_run_cache(run_cache_id=resource_id)

    def differences(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        return differences(found, **wanted)

    def is_deleted(self, found: Answer | None) -> bool:
        return found is None or found.get("status") == RunCacheStatus.DELETED

    def may_be_deleted(self, found: Answer | None) -> bool:
        return found is None or found.get("status") not in {None, RunCacheStatus.ACTIVE}

    def state(self, found: Answer, *, adverb: str = "") -> str:
        return " ".join(filter(None, ("is", adverb, shown(found.get("status")))))


class _RunCacheSearch:
    """Looks for the requested cache, and keeps what ListRunCaches and GetRunCache have shown.

    An answer may lack a member, and each of the two operations may be late. A cache is unclear while its members
    neither rule it out nor show that it is the requested one.
    """

    def __init__(self, hook: OmicsCacheHook, request: RunCacheRequest) -> None:
        self.hook = hook
        self.run_caches = _RunCaches(hook)
        self.request = request
        #: Other caches of the requested name, as the last look found them.
        self.others: list[Answer] = []
        #: Caches of the requested name and location that are DELETED or FAILED, by id.
        self.gone: dict[str, Answer] = {}
        self._matching: list[Answer] = []
        self._unclear: list[str] = []
        self._known: dict[str, Answer] = {}
        self._looks = 0

    def find(self) -> Answer | None:
        """Find the cache.

        :return: the oldest cache that matches, None if there is no such cache.
        :raises OmicsError: a cache may be the requested one, but the service does not show it.
        """
        self.hook.until_seen(self._look, lambda _: bool(self._matching) or not self._unclear)
        return self._found()

    def find_created(self) -> Answer | None:
        """Find a cache that exists for certain, but may be too new to be listed.

        :return: the oldest cache that matches, None if ListRunCaches does not show it in time.
        :raises OmicsError: a cache may be the requested one, but the service does not show it.
        """
        self.hook.until_seen(self._look, lambda _: bool(self._matching))
        return self._found()

    def _found(self) -> Answer | None:
        matching = oldest_first(self._matching)
        if not matching:
            if self._unclear:
                raise OmicsError(
                    f"HealthOmics does not show whether run cache {self.request.name!r} exists at "
                    f"{self.request.location}: {'; '.join(self._unclear)}. No run cache was created. Retry the task."
                )
            return None
        run_cache = matching[0]
        if len(matching) > 1:
            self.hook.log.warning(
                "Run caches %s have the same name and location; using the oldest, %s",
                ", ".join(cache["id"] for cache in matching),
                run_cache["id"],
            )
        self.hook.log.info("Run cache %s exists at %s", run_cache["id"], run_cache["cacheS3Uri"])
        return run_cache

    def _look(self) -> None:
        self._looks += 1
        self._matching, self.others, self._unclear = [], [], []
        listed = self.hook.list_whole(self._list)
        candidates = [cache for cache in self._known.values() if self._is_candidate(cache)]
        named = [cache for cache in candidates if cache.get("name")]
        unnamed = [cache for cache in candidates if not cache.get("name")]
        for run_caches in (named, unnamed):
            for run_cache in run_caches:
                self._judge(run_cache, is_listed=run_cache["id"] in listed)
            if self._matching:
                return

    def _list(self) -> set[str]:
        listed = set()
        for item in self.hook.list_run_caches(max_results=LARGEST_PAGE, max_silence=LONGEST_SILENCE):
            run_cache_id = item.get("id")
            if run_cache_id:
                listed.add(run_cache_id)
                self._learn(run_cache_id, item)
            elif item.get("status") not in _GONE and not self.request.is_ruled_out_by(item):
                self._unclear.append("ListRunCaches shows a run cache without its id")
        return listed

    def _learn(self, run_cache_id: str, answer: Mapping[str, Any]) -> Answer:
        """Add an answer to what is known. A DELETED or FAILED cache keeps that status, because a list can be late."""
        known = self._known.setdefault(run_cache_id, {})
        was_gone = {"status": known["status"]} if known.get("status") in _GONE else {}
        known.update(present(answer) | was_gone)
        is_at_location = is_at(known.get("cacheS3Uri"), self.request.location)
        if known.get("status") in _GONE and known.get("name") == self.request.name and is_at_location:
            self.gone[run_cache_id] = known
        return known

    def _is_candidate(self, run_cache: Answer) -> bool:
        if run_cache.get("status") in _GONE:
            return False
        return run_cache.get("name") == self.request.name or not self.request.is_ruled_out_by(run_cache)

    def _judge(self, run_cache: Answer, *, is_listed: bool) -> None:
        """Get a candidate, and decide whether it matches, is unclear, or is another cache of the requested name."""
        run_cache_id = run_cache["id"]
        answer = self.run_caches.get(run_cache_id)
        if answer is None and not is_listed:
            del self._known[run_cache_id]
            return
        run_cache = self._learn(run_cache_id, answer or {})
        status, has_name = run_cache.get("status"), run_cache.get("name") == self.request.name
        if status in _GONE:
            return
        if self.request.is_ruled_out_by(run_cache):
            if has_name and answer is not None:
                self.others.append(run_cache)
            return
        absent = self.request.absent_members(run_cache)
        if "name" in absent and self._looks >= FEW_READS:
            return
        if answer is None:
            self._unclear.append(f"ListRunCaches shows run cache {run_cache_id}, but GetRunCache does not find it")
        elif status and status not in _STATUSES:
            self._unclear.append(f"run cache {run_cache_id} is still {status}")
        elif absent == ["cacheBucketOwnerId"] and self._looks >= FEW_READS:
            self.others.append(run_cache)
        elif absent:
            self._unclear.append(f"the service shows run cache {run_cache_id} without {', '.join(absent)}")
        else:
            self._matching.append(run_cache)


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


def _create_run_cache_once(search: _RunCacheSearch, request_id: str | None) -> Answer:
    hook, request = search.hook, search.request
    token_owner = None if request_id or _is_own_account(hook, request.owner) else request.owner
    spent: set[str] = set()
    for generation in range(1 if request_id else MAX_GENERATIONS):
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
            run_cache = _find_after_refusal(search, error)
            if run_cache is not None:
                return run_cache
            if request_id or not is_token_refused(hook, error):
                raise
            run_cache_id = _find_gone(search, spent)
            if run_cache_id is None:
                raise error.with_text(
                    f"Run cache {request.name!r} at {request.location} was created before with other values, but "
                    f"ListRunCaches does not show it after {SHOWN_AFTER} s. Retry the task: a later try finds the "
                    f"cache. If the cache was deleted or renamed, set request_id to a new value. {error}"
                ) from error.__cause__
        else:
            run_cache_id = answer["id"]
            run_cache = _get_created(search, answer)
            if request.is_met_by(run_cache):
                hook.log.info("Created run cache %s at %s", run_cache_id, run_cache["cacheS3Uri"])
                return run_cache
            if not request_id:
                _check_token_is_spent(search, run_cache)
        spent.add(run_cache_id)
        hook.log.info(
            "The request token of generation %s belongs to run cache %s, which was deleted or differs",
            generation,
            run_cache_id,
        )
    which = f"request token {request_id!r} was" if request_id else f"last {MAX_GENERATIONS} request tokens were"
    raise RunCacheError(
        f"Could not create run cache {request.name!r} at {request.location}: the {which} used by caches that were "
        "deleted or differ. Set another request_id."
    )


def _find_after_refusal(search: _RunCacheSearch, error: OmicsApiError) -> Answer | None:
    """Find the cache that was created with a refused token, or at the same time by another task."""
    if is_token_refused(search.hook, error):
        return search.find_created()
    return search.find() if error.code == "ValidationException" else None


def _find_gone(search: _RunCacheSearch, spent: set[str]) -> str | None:
    """Return the id of the oldest cache that is gone and that may have used a refused token.

    Each refused token must have its own cache: an old deleted cache does not show that a later one was deleted too.

    :param search: the search.
    :param spent: ids of the caches of the earlier tokens.
    """
    for gone in oldest_first(search.gone.values()):
        run_cache = {**gone, **(search.run_caches.get(gone["id"]) or {})}
        if gone["id"] not in spent and has_owner(run_cache, search.request.owner):
            return str(gone["id"])
    return None


def _get_created(search: _RunCacheSearch, created: Answer) -> Answer:
    """Wait until GetRunCache shows whether the cache of CreateRunCache's answer is the requested one, or gone.

    :param search: the search before the creation.
    :param created: CreateRunCache's answer. It may repeat the answer to an earlier call with the same token.
    :raises OmicsError: GetRunCache does not show all needed members of the cache in time. The cache may exist, so that
        no other cache may be created.
    """
    hook, request, run_cache_id = search.hook, search.request, created["id"]
    if run_cache_id in search.gone:
        return search.gone[run_cache_id]
    if created.get("status") in _GONE:
        return created
    run_cache = present({"id": run_cache_id, "arn": created.get("arn")})

    def look() -> bool:
        answer = search.run_caches.get(run_cache_id)
        run_cache.update(answer or {})
        return answer is not None

    def is_decided() -> bool:
        status = run_cache.get("status")
        if status in _GONE or request.is_ruled_out_by(run_cache):
            return True
        return status in _STATUSES and not request.absent_members(run_cache)

    is_found = hook.until_seen(look, lambda _: is_decided())
    if is_decided():
        return run_cache
    status = run_cache.get("status")
    if status is not None and status not in _STATUSES:
        text = f"Run cache {run_cache_id} is still {status}, {SHOWN_AFTER} s after CreateRunCache returned it."
    elif is_found:
        absent = ", ".join(request.absent_members(run_cache))
        text = f"GetRunCache shows run cache {run_cache_id} without {absent}, {SHOWN_AFTER} s after its creation."
    else:
        text = (
            f"CreateRunCache returned run cache {run_cache_id}, but GetRunCache does not find it after "
            f"{SHOWN_AFTER} s. If the cache was deleted, the service still remembers the request token of its "
            "creation: set request_id to a new value."
        )
    raise OmicsError(
        f"{text} No other run cache was created. Retry the task.", run_cache_id=run_cache_id, status=status
    )


def _check_token_is_spent(search: _RunCacheSearch, run_cache: Answer) -> None:
    """Check that the next token may be used, although the cache of this token does not match.

    The token is derived from name, location and owner. A cache of this token can be deleted or renamed, but the service
    cannot move it to another location or owner.

    :param search: the search before the creation.
    :param run_cache: the cache that CreateRunCache returned for the token.
    """
    request, run_cache_id, status = search.request, run_cache["id"], run_cache.get("status")
    if status == RunCacheStatus.FAILED and run_cache_id not in search.gone:
        raise OmicsError(
            f"Run cache {run_cache_id} is {status} directly after its creation at {request.location}. Check the "
            "location and its bucket, and retry the task. If the retry returns the same run cache, set request_id.",
            run_cache_id=run_cache_id,
            status=status,
        )
    if status not in _GONE and request.is_elsewhere(run_cache):
        raise RunCacheError(
            f"Run cache {run_cache_id} was created at {request.location} with bucket owner "
            f"{request.owner or account_of(run_cache)}, but GetRunCache shows it at {run_cache.get('cacheS3Uri')} with "
            f"bucket owner {run_cache.get('cacheBucketOwnerId') or account_of(run_cache)}. Check cache_s3_location "
            "and cache_bucket_owner_id.",
            run_cache_id=run_cache_id,
            status=status,
        )


def _is_own_account(hook: OmicsCacheHook, owner: str | None) -> bool:
    """Whether an owner is the caller's account, the service's default. Both ways to ask for it get the same token.

    :raises OmicsApiError: STS was throttled or failed for a minute. A wrong guess could cause a second cache.
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

    return hook.patiently(get, service="sts", max_silence=_STS_SECONDS)
