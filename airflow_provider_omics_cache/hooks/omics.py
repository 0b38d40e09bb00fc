"""The hook: the only module that talks to AWS HealthOmics."""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore
from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper
from botocore import xform_name
from botocore.config import Config
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004
    HTTPClientError,
    ParamValidationError,
)

from airflow_provider_omics_cache import run_caches
from airflow_provider_omics_cache.batch_start import (
    DIGEST_TAG,
    GENERATION_TAG,
    StartDecision,
    StartedBatch,
    decide_start,
    generation_of,
)
from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchConflictError,
    BatchDeletedError,
    BatchFailedError,
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
    OmicsRequestError,
    OmicsVersionError,
    RunCacheError,
)
from airflow_provider_omics_cache.idempotency import run_cache_token
from airflow_provider_omics_cache.states import BatchStatus, RunCacheStatus
from airflow_provider_omics_cache.waiting import is_passing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from botocore.model import ServiceModel
    from botocore.session import Session

    from airflow_provider_omics_cache.idempotency import BatchIdentity

Answer = dict[str, Any]
_T = TypeVar("_T")

_BATCH_OPERATIONS = frozenset(
    {
        "StartRunBatch",
        "GetBatch",
        "ListBatch",
        "ListRunsInBatch",
        "CancelRunBatch",
        "DeleteRunBatch",
        "DeleteBatch",
    }
)
_REQUEST_ERROR_CODES = frozenset({"ValidationException", "ParamValidationError"})
_LONGEST_SHOWN_VALUE = 200

IF_EXISTS = ("reuse", "update", "fail")
_GONE = frozenset({RunCacheStatus.DELETED, RunCacheStatus.FAILED})
_MAX_GENERATIONS = 10
#: Seconds to wait, one after the other, until GetRunCache shows what was just written.
_CONSISTENCY_DELAYS = (1, 2, 4, 8)


class EnsuredRunCache(NamedTuple):
    """A run cache that exists.

    :param run_cache: GetRunCache's answer.
    :param created: whether it was not there before.
    """

    run_cache: Answer
    created: bool


#: Seconds between two attempts at a call whose answer is worth waiting for.
_FIRST_DELAY = 1.0
_LONGEST_DELAY = 30.0
#: Seconds after which a throttled call is given up.
_LONGEST_THROTTLING = 3600.0

#: Seconds to wait, one after the other, until the service shows a batch that was started.
_VISIBLE_AFTER = (1, 2, 4, 8, 15, 30, 60, 60, 60, 60)
#: Batches of one task that may fail before they start a run, until the task fails.
_MAX_FAILED_STARTS = 3
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def check_id(parameter: str, value: Any) -> str:
    """Return the id of a HealthOmics resource as a string.

    :param parameter: name of the parameter, for the error.
    :param value: the id: 1 to 18 digits, as a string or an integer.
    :raises OmicsParameterError: the value is no id.
    """
    text = str(value)
    if not re.fullmatch("[0-9]{1,18}", text):
        raise OmicsParameterError(parameter, "has to be an id of 1 to 18 digits", value)
    return text


def api_error(
    error: Exception,
    operation: str,
    region: str | None = None,
    endpoint_url: str | None = None,
    members: Mapping[str, Any] | None = None,
) -> OmicsApiError:
    """Translate a failed AWS call into the package's error; raise the result ``from error``.

    :param error: botocore's error.
    :param operation: name of the API operation.
    :param region: AWS Region of the client.
    :param endpoint_url: endpoint of the client; named when no answer came.
    :param members: what was sent; a refusal is told with the values it is about.
    """
    code, text, http_status, request_id = type(error).__name__, str(error), None, None
    if isinstance(error, ClientError):
        operation = error.operation_name
        answer, metadata = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        code, text = answer.get("Code", code), answer.get("Message", "")
        http_status, request_id = metadata.get("HTTPStatusCode"), metadata.get("RequestId")
        if code == "ValidationException":
            text += _values_of(text, members or {})
    elif isinstance(error, ParamValidationError):
        text = _without_payloads(error.kwargs["report"])
        text += _values_of(text, members or {})
    elif isinstance(error, ConnectionError | HTTPClientError):
        text = f"{text} (endpoint {endpoint_url}, Region {region})"
    message = f"{operation} failed: {code}: {text}"
    if request_id:
        message += f" (request id {request_id})"
    error_class = OmicsRequestError if code in _REQUEST_ERROR_CODES else OmicsApiError
    return error_class(
        message, code=code, http_status=http_status, operation=operation, request_id=request_id, reason=text
    )


def _values_of(text: str, members: Mapping[str, Any]) -> str:
    """Show the values of the members that a refusal names, or of all if it names none."""
    plain = {name: value for name, value in members.items() if isinstance(value, str | int) and name != "requestId"}
    named = {name: value for name, value in plain.items() if name in text} or plain
    shown = [
        f"{name} was {str(value)[:_LONGEST_SHOWN_VALUE]!r}" for name, value in named.items() if str(value) not in text
    ]
    return f" ({', '.join(shown)})" if shown else ""


def _without_session_policy(error: ClientError) -> ClientError:
    """Take a session policy, which the service repeats when it refuses one, out of an error."""
    answer = error.response.get("Error", {})
    text = answer.get("Message", "")
    if "sessionPolicy" not in text:
        return error
    shown = "sessionPolicy is refused; the text is not shown, since it holds the policy"
    response: Any = {**error.response, "Error": {**answer, "Message": shown}}
    return ClientError(response, error.operation_name)


def _without_payloads(report: str) -> str:
    """Take long, structured and confidential values out of botocore's report on a request."""

    def shown(found: re.Match[str]) -> str:
        name, value, rest = found["name"], found["value"], found["rest"]
        if name.endswith("sessionPolicy") or len(value) > _LONGEST_SHOWN_VALUE or value[:1] in "[{(":
            value = "(not shown)"
        return f"{name}, value: {value}{rest}"

    return re.sub(r"(?P<name>\S+), value: (?P<value>.*?)(?P<rest>, type: <class)", shown, report, flags=re.S)


class OmicsCacheHook(AwsBaseHook):
    """Talk to AWS HealthOmics: run caches, batches, their runs and tags.

    One method per API operation, named as the operation, with the operation's members in snake_case. Only
    what is given is sent. Answers are botocore's dictionaries without ``ResponseMetadata``; lists are lazy
    iterators over all pages.

    A configured endpoint (the connection's ``endpoint_url`` or ``service_config``, ``AWS_ENDPOINT_URL``,
    the AWS config file) is called as it is: the SDK's host prefix (``workflows-``, ``tags-``) is left away
    unless ``inject_host_prefix`` is set by the user.

    Additional arguments (such as ``aws_conn_id``, ``region_name``, ``verify`` and ``config``) are passed
    down to :class:`~airflow.providers.amazon.aws.hooks.base_aws.AwsBaseHook`; ``config`` is merged over the
    connection's ``config_kwargs``.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_Operations_Amazon_Omics.html
    """

    _sleep: Callable[[float], None] = staticmethod(time.sleep)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["client_type"] = "omics"
        super().__init__(*args, **kwargs)

    # How clients are made

    @cached_property
    def conn_config(self) -> AwsConnectionWrapper:
        """The Airflow connection; its ``config_kwargs`` merged with the hook's ``config``."""
        wrapper = super().conn_config
        config_kwargs = wrapper.extra_config.get("config_kwargs")
        if self._config and config_kwargs:
            connection = AwsConnectionWrapper.from_connection_metadata(extra={"config_kwargs": config_kwargs})
            wrapper.botocore_config = _merge_config(connection.botocore_config, self._config)
        return wrapper

    def get_session(self, region_name: str | None = None, deferrable: bool = False) -> Any:
        """Make the session with which clients are created, with our defaults under the user's settings."""
        session = super().get_session(region_name=region_name, deferrable=deferrable)
        core = session._session if isinstance(session, boto3.session.Session) else session
        if "AWS_RETRY_MODE" not in os.environ and "retry_mode" not in core.get_scoped_config():
            core.set_config_variable("retry_mode", "standard")
        if self._has_foreign_endpoint(core):
            default = Config(inject_host_prefix=False)
            core.set_default_client_config(default.merge(core.get_default_client_config() or Config()))
        return session

    def _has_foreign_endpoint(self, session: Session) -> bool:
        if session.get_config_variable("disable_host_prefix_injection") is not None:
            return False
        config: Any = self.config
        ignored = config.ignore_configured_endpoint_urls
        if ignored is None:
            ignored = session.get_config_variable("ignore_configured_endpoint_urls")
        endpoint_url: str | None = self.conn_config.get_service_endpoint_url("omics")
        if endpoint_url is None and not ignored:
            endpoint_url = ConfiguredEndpointProvider(
                full_config=session.full_config,
                scoped_config=session.get_scoped_config(),
                client_name="omics",
            ).provide()
        return bool(endpoint_url) and not _is_sdk_host(urlsplit(str(endpoint_url)).hostname or "", session)

    # Calls

    @property
    def _model(self) -> ServiceModel:
        client: Any = self.conn
        model: ServiceModel = client.meta.service_model
        return model

    def _call(self, operation: str, **members: Any) -> Answer:
        given = {name: value for name, value in members.items() if value is not None}
        region = endpoint_url = None
        try:
            client: Any = self.conn
            region, endpoint_url = client.meta.region_name, client.meta.endpoint_url
            self._check_model(operation, given)
            answer: Answer = getattr(client, xform_name(operation))(**given)
        except ParamValidationError as error:
            shown = ParamValidationError(report=_without_payloads(error.kwargs["report"]))
            raise api_error(shown, operation, region, endpoint_url, given) from shown
        except ClientError as error:
            told = _without_session_policy(error)
            raise api_error(told, operation, region, endpoint_url, given) from told
        except BotoCoreError as error:
            raise api_error(error, operation, region, endpoint_url) from error
        answer.pop("ResponseMetadata", None)
        return answer

    def _call_patiently(self, operation: str, max_silence: float, **members: Any) -> Answer:
        """Call until an answer comes, through throttles, faults and lost connections, for ``max_silence`` seconds."""
        give_up = time.monotonic() + max_silence
        delay = _FIRST_DELAY
        while True:
            try:
                return self._call(operation, **members)
            except OmicsApiError as error:
                if not is_passing(error) or time.monotonic() + delay > give_up:
                    raise
                self.log.log(logging.INFO if delay == _FIRST_DELAY else logging.DEBUG, "Calling again: %s", error)
                time.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(2 * delay, _LONGEST_DELAY)

    def _items(
        self, operation: str, key: str, token: str | None, *, max_silence: float = 0, **members: Any
    ) -> Iterator[Answer]:
        while True:
            page = self._call_patiently(operation, max_silence, startingToken=token, **members)
            yield from page.get(key) or ()
            previous, token = token, page.get("nextToken")
            if not token:
                return
            if token == previous:
                raise OmicsApiError(f"{operation} gave the same nextToken twice", operation=operation)

    def _check_model(self, operation: str, members: Mapping[str, Any]) -> None:
        model = self._model
        if operation not in model.operation_names:
            if operation in _BATCH_OPERATIONS:
                self.check_batches()
            raise OmicsVersionError(
                f"botocore {botocore.__version__} does not know {operation} of HealthOmics; upgrade boto3"
            )
        shape: Any = model.operation_model(operation).input_shape
        unknown = sorted(set(members) - set(shape.members))
        if unknown:
            raise OmicsVersionError(
                f"botocore {botocore.__version__} does not know {', '.join(unknown)} of {operation}; upgrade boto3"
            )

    def check_batches(self) -> None:
        """Check that the installed botocore knows the batch operations.

        :raises OmicsVersionError: it does not; the message names the versions to upgrade to.
        """
        if "StartRunBatch" not in self._model.operation_names:
            raise OmicsVersionError(
                "HealthOmics batches need boto3>=1.42.74, and aiobotocore>=3.4.0 where tasks are deferred, "
                f"but botocore {botocore.__version__} is installed: install airflow-provider-omics-cache[batch]"
            )

    def describe_shape(self, name: str) -> dict[str, Any]:
        """Describe a shape of the installed botocore's HealthOmics model as plain data.

        ``type`` is botocore's type name. A structure has ``members`` (by name) and ``required`` (names), a
        list has ``member``, a map ``key`` and ``value``; ``min`` and ``max`` are there where the model
        limits the length, the number of entries or the value. A JSON document has ``type`` "document".

        :param name: name of the shape, such as ``DefaultRunSetting`` or ``InlineSetting``.
        :raises OmicsVersionError: the installed botocore does not know the shape.
        """
        model = self._model
        if name not in model.shape_names:
            self.check_batches()
            raise OmicsVersionError(
                f"botocore {botocore.__version__} does not know {name} of HealthOmics; upgrade boto3"
            )
        return _describe(model.shape_for(name))

    # Run caches

    def create_run_cache(
        self,
        *,
        cache_s3_location: str,
        name: str | None = None,
        cache_behavior: str | None = None,
        cache_bucket_owner_id: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Create a run cache.

        :param cache_s3_location: S3 URI under which the service makes the cache's folder.
        :param name: name of the cache; not unique.
        :param cache_behavior: ``CACHE_ON_FAILURE`` (the service's default) or ``CACHE_ALWAYS``.
        :param cache_bucket_owner_id: account that has to own the bucket; the service takes the caller's.
        :param description: description of the cache.
        :param tags: tags of the cache.
        :param request_id: idempotency token; botocore makes a new one for each call that has none.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_CreateRunCache.html
        """
        return self._call(
            "CreateRunCache",
            cacheS3Location=cache_s3_location,
            name=name,
            cacheBehavior=cache_behavior,
            cacheBucketOwnerId=cache_bucket_owner_id,
            description=description,
            tags=tags,
            requestId=request_id,
        )

    def get_run_cache(self, *, run_cache_id: str) -> Answer:
        """Get a run cache.

        :param run_cache_id: id of the cache.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetRunCache.html
        """
        return self._call("GetRunCache", id=check_id("run_cache_id", run_cache_id))

    def list_run_caches(self, *, max_results: int | None = None, starting_token: str | None = None) -> Iterator[Answer]:
        """List the run caches of the account and Region.

        :param max_results: caches per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page, to go on behind it.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRunCaches.html
        """
        return self._items("ListRunCaches", "items", starting_token, maxResults=max_results)

    def update_run_cache(
        self,
        *,
        run_cache_id: str,
        name: str | None = None,
        cache_behavior: str | None = None,
        description: str | None = None,
    ) -> Answer:
        """Change a run cache; what is not given stays as it is.

        :param run_cache_id: id of the cache.
        :param name: new name.
        :param cache_behavior: ``CACHE_ON_FAILURE`` or ``CACHE_ALWAYS``.
        :param description: new description.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_UpdateRunCache.html
        """
        return self._call(
            "UpdateRunCache",
            id=check_id("run_cache_id", run_cache_id),
            name=name,
            cacheBehavior=cache_behavior,
            description=description,
        )

    def delete_run_cache(self, *, run_cache_id: str) -> Answer:
        """Delete a run cache. Its data stays in S3 and cannot be linked to a cache again.

        :param run_cache_id: id of the cache.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_DeleteRunCache.html
        """
        return self._call("DeleteRunCache", id=check_id("run_cache_id", run_cache_id))

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
        region, owner = self.conn_region_name, str(cache_bucket_owner_id or self._own_account())
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
        try:
            metadata = self._s3_client.head_bucket(**members)["ResponseMetadata"]
        except ClientError as error:
            metadata = error.response["ResponseMetadata"]
            if metadata["HTTPStatusCode"] not in {301, 403, 404}:
                raise api_error(error, "HeadBucket") from error
        except BotoCoreError as error:
            raise api_error(error, "HeadBucket", self.conn_region_name) from error
        return metadata["HTTPStatusCode"], metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region")

    @cached_property
    def _s3_client(self) -> Any:
        return S3Hook(
            aws_conn_id=self.aws_conn_id, region_name=self._region_name, verify=self._verify, config=self._config
        ).conn

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

    def _get_run_cache_or_none(self, run_cache_id: str) -> Answer | None:
        try:
            return self.get_run_cache(run_cache_id=run_cache_id)
        except OmicsApiError as error:
            if error.code != "ResourceNotFoundException":
                raise
            return None

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
        refusal = ""
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
                # The token may belong to the same cache with, say, another description, made a moment ago.
                if error.code == "ConflictException":
                    run_cache = self._wait_for(lambda: self._find_run_cache(name, location, owner)[0])
                elif error.code == "ValidationException":
                    run_cache, _ = self._find_run_cache(name, location, owner)
                else:
                    raise
                if run_cache is not None:
                    return run_cache
                if request_id or (error.code == "ValidationException" and refusal == error.reason):
                    raise
                refusal = error.reason or ""
                continue
            if answer.get("status") not in _GONE:
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
        try:
            return self.account_id
        except (BotoCoreError, ClientError) as error:
            raise api_error(error, "GetCallerIdentity", self.conn_region_name) from error

    def _wait_for_state(self, run_cache_id: str) -> Answer | None:
        run_cache = self._wait_for(
            lambda: self._get_run_cache_or_none(run_cache_id),
            lambda seen: seen.get("status") in frozenset(RunCacheStatus),
        )
        status = None if run_cache is None else run_cache.get("status")
        if status is not None and status not in frozenset(RunCacheStatus):
            raise OmicsError(f"run cache {run_cache_id} is still {status}", run_cache_id=run_cache_id, status=status)
        return run_cache

    def _wait_for(self, look: Callable[[], Answer | None], is_seen: Callable[[Answer], bool] = bool) -> Answer | None:
        """Look again, for a little while, until the service shows what was just written."""
        for delay in _CONSISTENCY_DELAYS:
            run_cache = look()
            if run_cache is not None and is_seen(run_cache):
                return run_cache
            self._sleep(delay)
        return look()

    def _settle_differences(self, run_cache: Answer, wanted: Mapping[str, Any], if_exists: str) -> Answer:
        differing = run_caches.differences(run_cache, **wanted)
        if not differing:
            return run_cache
        run_cache_id = run_cache["id"]
        text = "; ".join(
            f"{parameter} is {found!r}, asked for is {asked!r}" for parameter, (found, asked) in differing.items()
        )
        if if_exists == "fail":
            raise RunCacheError(
                f"run cache {run_cache_id} differs: {text}",
                run_cache_id=run_cache_id,
                status=run_cache.get("status"),
            )
        if if_exists == "reuse":
            self.log.warning("Run cache %s is used as it is: %s", run_cache_id, text)
            return run_cache
        members = {parameter: asked for parameter, (_, asked) in differing.items()}
        tags = members.pop("tags", None)
        limits = self.describe_shape("UpdateRunCacheRequest")["members"]
        if "description" in members:
            _check_length("description", members["description"], limits["description"])
        limits = self.describe_shape("TagResourceRequest")["members"]["tags"]
        for key, value in (tags or {}).items():
            _check_length("tags: a key", key, limits["key"])
            _check_length(f"tags: the value of {key!r}", value, limits["value"])
        if members:
            self.update_run_cache(run_cache_id=run_cache_id, **members)
        if tags:
            self.tag_resource(resource_arn=run_cache["arn"], tags=tags)
        updated = self._wait_for(
            lambda: self._get_run_cache_or_none(run_cache_id), lambda seen: not run_caches.differences(seen, **wanted)
        )
        if updated is None or run_caches.differences(updated, **wanted):
            raise OmicsError(
                f"run cache {run_cache_id} does not show its update yet: {text}", run_cache_id=run_cache_id
            )
        self.log.info("Updated run cache %s: %s", run_cache_id, text)
        return updated

    # Batches

    def start_run_batch(
        self,
        *,
        default_run_setting: Mapping[str, Any],
        batch_run_settings: Mapping[str, Any],
        batch_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Start a batch of runs.

        :param default_run_setting: what all runs have in common, as ``DefaultRunSetting`` of the API.
        :param batch_run_settings: ``{"inlineSettings": [...]}`` or ``{"s3UriSettings": "s3://..."}``.
        :param batch_name: name of the batch; not unique.
        :param tags: tags of the batch; runs do not inherit them.
        :param request_id: idempotency token; botocore makes a new one for each call that has none.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_StartRunBatch.html
        """
        return self._call(
            "StartRunBatch",
            defaultRunSetting=default_run_setting,
            batchRunSettings=batch_run_settings,
            batchName=batch_name,
            tags=tags,
            requestId=request_id,
        )

    def get_batch(self, *, batch_id: str) -> Answer:
        """Get a batch: its status, counts and times.

        :param batch_id: id of the batch.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html
        """
        return self._call("GetBatch", batchId=check_id("batch_id", batch_id))

    def list_batch(
        self,
        *,
        status: str | None = None,
        name: str | None = None,
        run_group_id: str | None = None,
        max_items: int | None = None,
        starting_token: str | None = None,
    ) -> Iterator[Answer]:
        """List batches; at most one of the filters can be given.

        :param status: only batches in this status.
        :param name: only batches of this name.
        :param run_group_id: only batches of this run group.
        :param max_items: batches per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page, to go on behind it.
        :raises OmicsParameterError: more than one filter.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListBatch.html
        """
        _check_one_filter("list_batch", status=status, name=name, run_group_id=run_group_id)
        return self._items(
            "ListBatch",
            "items",
            starting_token,
            status=status,
            name=name,
            runGroupId=run_group_id if run_group_id is None else check_id("run_group_id", run_group_id),
            maxItems=max_items,
        )

    def list_runs_in_batch(
        self,
        *,
        batch_id: str,
        submission_status: str | None = None,
        run_setting_id: str | None = None,
        run_id: str | None = None,
        max_items: int | None = None,
        starting_token: str | None = None,
    ) -> Iterator[Answer]:
        """List the submissions of a batch; at most one of the filters can be given.

        :param batch_id: id of the batch.
        :param submission_status: only submissions in this status.
        :param run_setting_id: only the submission of this run setting.
        :param run_id: only the submission that became this run.
        :param max_items: submissions per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page, to go on behind it.
        :raises OmicsParameterError: more than one filter.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRunsInBatch.html
        """
        _check_one_filter(
            "list_runs_in_batch",
            submission_status=submission_status,
            run_setting_id=run_setting_id,
            run_id=run_id,
        )
        return self._items(
            "ListRunsInBatch",
            "runs",
            starting_token,
            batchId=check_id("batch_id", batch_id),
            submissionStatus=submission_status,
            runSettingId=run_setting_id,
            runId=run_id if run_id is None else check_id("run_id", run_id),
            maxItems=max_items,
        )

    def list_submissions(self, *, batch_id: str, max_silence: float = 3600) -> Iterator[Answer]:
        """List all runs of a batch, going on at the page it was at after a throttle or a lost connection.

        :param batch_id: id of the batch.
        :param max_silence: for how many seconds one page may stay without an answer.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRunsInBatch.html
        """
        batch_id = check_id("batch_id", batch_id)
        return self._items("ListRunsInBatch", "runs", None, max_silence=max_silence, batchId=batch_id, maxItems=100)

    def cancel_run_batch(self, *, batch_id: str) -> Answer:
        """Cancel a batch that is PENDING, SUBMITTING or INPROGRESS, and its runs.

        :param batch_id: id of the batch.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_CancelRunBatch.html
        """
        return self._call("CancelRunBatch", batchId=check_id("batch_id", batch_id))

    def delete_run_batch(self, *, batch_id: str) -> Answer:
        """Delete the runs of a batch that is PROCESSED or CANCELLED; the batch stays.

        :param batch_id: id of the batch.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_DeleteRunBatch.html
        """
        return self._call("DeleteRunBatch", batchId=check_id("batch_id", batch_id))

    def delete_batch(self, *, batch_id: str) -> Answer:
        """Delete a batch's metadata, and with it the link from run settings to runs; the runs stay.

        :param batch_id: id of the batch.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_DeleteBatch.html
        """
        return self._call("DeleteBatch", batchId=check_id("batch_id", batch_id))

    # A batch that is started once

    def start_batch_once(
        self,
        *,
        identity: BatchIdentity,
        batch_name: str,
        request_digest: str,
        default_run_setting: Mapping[str, Any],
        batch_run_settings: Callable[[], Mapping[str, Any]],
        tags: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> StartedBatch:
        """Start the batch of a task, or find the one that an earlier try of the task has started.

        The batch is found by its name, which ends in a hash of ``identity``; a tag tells whether it was started
        with the same request. GetBatch decides, never StartRunBatch's answer, which may be a replay. Throttling is
        waited out.

        :param identity: what the batch belongs to.
        :param batch_name: beginning of the batch's name.
        :param request_digest: digest of what decides the runs.
        :param default_run_setting: what all runs have in common, as ``DefaultRunSetting`` of the API.
        :param batch_run_settings: gives ``{"inlineSettings": [...]}`` or ``{"s3UriSettings": "s3://..."}``; called
            only if a batch has to be started.
        :param tags: tags of the batch.
        :param request_id: idempotency token in place of the derived one.
        :return: the batch as GetBatch shows it.
        :raises BatchError: the batch that is there can neither be taken nor replaced.
        """
        name = identity.batch_name(batch_name)

        def token(generation: int) -> str:
            return request_id or identity.batch_token(request_digest=request_digest, generation=generation)

        batch, generation = self._find_batch(name, request_digest)
        settings: Mapping[str, Any] | None = None
        failed = 0
        while batch is None:
            settings = settings or batch_run_settings()
            own_tags = {DIGEST_TAG: request_digest}
            if not request_id:
                own_tags[GENERATION_TAG] = str(generation)
            start = partial(
                self.start_run_batch,
                default_run_setting=default_run_setting,
                batch_run_settings=settings,
                batch_name=name,
                tags={**(tags or {}), **own_tags},
                request_id=token(generation),
            )
            try:
                batch_id = self._wait_out_throttling(start)["id"]
            except OmicsApiError as error:
                batch, generation = self._find_batch_of_spent_token(error, name, request_digest, generation, request_id)
                continue
            started = self._get_started_batch(batch_id)
            if self._judge_batch(started, request_digest, is_own=not request_id) == StartDecision.REATTACH:
                self.log.info("Started batch %s (%s), which is %s", batch_id, name, started.get("status"))
                return StartedBatch(batch=started, request_id=token(generation), reattached=False)
            failed += 1
            details = {"batch_id": batch_id, "status": started.get("status"), "reason": started.get("failureReason")}
            if request_id:
                raise BatchConflictError(
                    f"request_id {request_id!r} belongs to batch {batch_id}, which is {started.get('status')}; "
                    "give another request_id, or none",
                    **details,
                )
            if failed == _MAX_FAILED_STARTS:
                raise BatchFailedError(
                    f"batch {name} failed {failed} times before it started a run, the last time as {batch_id}: "
                    f"{started.get('failureReason')}",
                    **details,
                )
            self.log.info("The request token of generation %s belongs to batch %s, which failed", generation, batch_id)
            generation += 1
        self.log.info(
            "Batch %s (%s) is %s already: an earlier try started it. Set rerun_key to pay for a new one.",
            batch["id"],
            name,
            batch.get("status"),
        )
        return StartedBatch(batch=batch, request_id=token(generation_of(batch.get("tags"))), reattached=True)

    def _find_batch(self, name: str, request_digest: str) -> tuple[Answer | None, int]:
        """Find the batch to take, newest first; also give the generation that the next batch would have."""
        items = self._wait_out_throttling(lambda: list(self.list_batch(name=name)))
        own = [item for item in items if item.get("name") == name]
        own.sort(key=lambda item: (item.get("createdAt") or _LONG_AGO, int(item["id"])), reverse=True)
        generation = 0
        for item in own:
            batch = self._get_started_batch(item["id"])
            if self._judge_batch(batch, request_digest) == StartDecision.REATTACH:
                return batch, generation
            generation = max(generation, generation_of(batch.get("tags")) + 1)
        return None, generation

    def _find_batch_of_spent_token(
        self, error: OmicsApiError, name: str, request_digest: str, generation: int, request_id: str | None
    ) -> tuple[Answer | None, int]:
        """Find what a refused token stands for: another try may be faster, or had other tags or another file.

        :raises OmicsApiError: nothing is found. The token is not replaced then: a batch that is not listed yet
            would be paid for twice.
        """
        if error.code not in {"ConflictException", "ValidationException"}:
            raise error
        is_late = error.code == "ConflictException" and not request_id
        for delay in (*(_VISIBLE_AFTER if is_late else ()), None):
            batch, next_generation = self._find_batch(name, request_digest)
            if batch or next_generation > generation:
                return batch, next_generation
            if delay is not None:
                self._sleep(delay)
        if error.code == "ValidationException":
            raise error
        raise OmicsApiError(
            f"{error}; the request token may belong to a batch that was renamed or deleted: "
            f"set {'another request_id' if request_id else 'rerun_key'} to start a new one",
            code=error.code,
            http_status=error.http_status,
            operation=error.operation,
            request_id=error.request_id,
        ) from error

    def _get_started_batch(self, batch_id: str) -> Answer:
        """Get a batch that is known to exist; wait until the service shows it."""
        for delay in _VISIBLE_AFTER:
            try:
                return self._wait_out_throttling(lambda: self.get_batch(batch_id=batch_id))
            except OmicsApiError as error:
                if error.code != "ResourceNotFoundException":
                    raise
                not_found = error
            self._sleep(delay)
        raise OmicsError(
            f"batch {batch_id} was started, but GetBatch did not find it for {sum(_VISIBLE_AFTER)} s: the next try of "
            "the task looks for it again; if somebody has deleted it, set rerun_key to start a new batch",
            batch_id=batch_id,
        ) from not_found

    def _judge_batch(self, batch: Answer, request_digest: str, *, is_own: bool = False) -> StartDecision:
        """Decide whether to take a batch or to start a new one.

        :raises BatchError: neither.
        """
        batch_id, status, reason = batch["id"], batch.get("status"), batch.get("failureReason")
        runs_started = self._count_started_runs(batch) if status == BatchStatus.FAILED else 0
        decision = decide_start(
            status,
            request_digest=request_digest,
            found_digest=(batch.get("tags") or {}).get(DIGEST_TAG, request_digest if is_own else None),
            runs_started=runs_started,
        )
        text = f"batch {batch_id} ({batch.get('name')}) of this task is {status}"
        details = {"batch_id": batch_id, "status": status, "reason": reason}
        if decision == StartDecision.REFUSE_RUNS_STARTED:
            raise BatchFailedError(
                f"{text} ({reason}) after at least {runs_started:,} of its runs were started: cancel those, or leave "
                "them out of run_settings, and set rerun_key to start a new batch",
                **details,
            )
        if decision == StartDecision.REFUSE_CANCELLED:
            raise BatchCancelledError(f"{text}: somebody cancelled it; set rerun_key to start a new batch", **details)
        if decision == StartDecision.REFUSE_DELETED:
            raise BatchDeletedError(f"{text}: it was cleaned up; set rerun_key to start a new batch", **details)
        if decision == StartDecision.REFUSE_OTHER_SETTINGS:
            raise BatchConflictError(
                f"{text}, and was started with other settings: cancel it, or set rerun_key to start a new batch",
                **details,
            )
        return decision

    def _count_started_runs(self, batch: Answer) -> int:
        """Count the runs that a FAILED batch has started, at least: its counts may be absent or late."""
        counted = (batch.get("submissionSummary") or {}).get("successfulStartSubmissionCount")
        if counted:
            return int(counted)
        rows = self._wait_out_throttling(
            lambda: list(islice(self.list_runs_in_batch(batch_id=batch["id"], submission_status="SUCCESS"), 100))
        )
        return len(rows)

    def _wait_out_throttling(self, call: Callable[[], _T]) -> _T:
        """Call until the service does not throttle; anything else that fails is raised."""
        delay, waited = _FIRST_DELAY, 0.0
        while True:
            try:
                return call()
            except OmicsApiError as error:
                if error.http_status != 429 or waited > _LONGEST_THROTTLING:
                    raise
                if not waited:
                    self.log.info("Waiting, since %s is throttled", error.operation)
            pause = delay * random.uniform(0.5, 1.5)
            self._sleep(pause)
            waited += pause
            delay = min(2 * delay, _LONGEST_DELAY)

    # Runs

    def get_run(self, *, run_id: str, export: Sequence[str] | None = None) -> Answer:
        """Get a run.

        :param run_id: id of the run.
        :param export: what else to put into the answer, such as ``["DEFINITION"]``.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetRun.html
        """
        return self._call("GetRun", id=check_id("run_id", run_id), export=export)

    def list_runs(
        self,
        *,
        name: str | None = None,
        run_group_id: str | None = None,
        batch_id: str | None = None,
        status: str | None = None,
        max_results: int | None = None,
        starting_token: str | None = None,
    ) -> Iterator[Answer]:
        """List runs.

        :param name: only runs of this name.
        :param run_group_id: only runs of this run group.
        :param batch_id: only runs of this batch.
        :param status: only runs in this status.
        :param max_results: runs per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page, to go on behind it.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRuns.html
        """
        return self._items(
            "ListRuns",
            "items",
            starting_token,
            name=name,
            runGroupId=run_group_id if run_group_id is None else check_id("run_group_id", run_group_id),
            batchId=batch_id if batch_id is None else check_id("batch_id", batch_id),
            status=status,
            maxResults=max_results,
        )

    def cancel_run(self, *, run_id: str) -> Answer:
        """Cancel a run.

        :param run_id: id of the run.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_CancelRun.html
        """
        return self._call("CancelRun", id=check_id("run_id", run_id))

    def delete_run(self, *, run_id: str) -> Answer:
        """Delete a run's metadata; its outputs and logs stay.

        :param run_id: id of the run.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_DeleteRun.html
        """
        return self._call("DeleteRun", id=check_id("run_id", run_id))

    # Tags

    def tag_resource(self, *, resource_arn: str, tags: Mapping[str, str]) -> Answer:
        """Set tags of a resource; its other tags stay.

        :param resource_arn: ARN of the resource.
        :param tags: tags to set.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_TagResource.html
        """
        return self._call("TagResource", resourceArn=resource_arn, tags=tags)

    def untag_resource(self, *, resource_arn: str, tag_keys: Sequence[str]) -> Answer:
        """Remove tags from a resource.

        :param resource_arn: ARN of the resource.
        :param tag_keys: keys of the tags to remove.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_UntagResource.html
        """
        return self._call("UntagResource", resourceArn=resource_arn, tagKeys=tag_keys)

    def list_tags_for_resource(self, *, resource_arn: str) -> Answer:
        """List the tags of a resource.

        :param resource_arn: ARN of the resource.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListTagsForResource.html
        """
        return self._call("ListTagsForResource", resourceArn=resource_arn)


def _check_one_filter(method: str, **filters: Any) -> None:
    given = {name: value for name, value in filters.items() if value is not None}
    if len(given) > 1:
        raise OmicsParameterError(method, f"takes at most one of {', '.join(filters)}", given)


def check_if_exists(value: str) -> None:
    """Check the parameter ``if_exists`` of a run cache.

    :param value: what was given.
    :raises OmicsParameterError: it is none of ``reuse``, ``update`` and ``fail``.
    """
    if value not in IF_EXISTS:
        raise OmicsParameterError("if_exists", f"has to be one of {', '.join(IF_EXISTS)}", value)


def _check_length(parameter: str, value: Any, limits: Mapping[str, Any]) -> None:
    low, high = limits["min"], limits["max"]
    if not isinstance(value, str) or not low <= len(value) <= high:
        raise OmicsParameterError(parameter, f"has to be a string of {low} to {high} characters", value)


def _is_cache_of(run_cache: Answer, name: str, location: str, owner: str | None) -> bool:
    return (
        run_cache.get("status") == RunCacheStatus.ACTIVE
        and run_cache.get("name") == name
        and run_caches.is_at(run_cache.get("cacheS3Uri"), location)
        and run_caches.has_owner(run_cache, owner)
    )


def _is_sdk_host(host: str, session: Session) -> bool:
    """Whether the SDK itself builds this host, in front of which it puts the host prefix."""
    partitions = session.get_component("data_loader").load_data("partitions")["partitions"]
    suffixes = {partition["outputs"][name] for partition in partitions for name in ("dnsSuffix", "dualStackDnsSuffix")}
    found = re.fullmatch(r"omics(-fips)?\.[a-z0-9-]+\.(?P<suffix>.+)", host)
    return found is not None and found["suffix"] in suffixes


def _merge_config(base: Any, over: Any) -> Any:
    """Merge client configurations, their retry settings included."""
    merged = base.merge(over)
    if not (base.retries and over.retries):
        return merged
    retries: Any = dict(base.retries)
    if {"max_attempts", "total_max_attempts"} & set(over.retries):
        retries.pop("max_attempts", None)
        retries.pop("total_max_attempts", None)
    retries.update(over.retries)
    return merged.merge(Config(retries=retries))


def _describe(shape: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"type": shape.type_name}
    described.update({limit: shape.metadata[limit] for limit in ("min", "max") if limit in shape.metadata})
    if getattr(shape, "is_document_type", False):
        described["type"] = "document"
    elif shape.type_name == "structure":
        described["members"] = {name: _describe(member) for name, member in shape.members.items()}
        described["required"] = list(shape.required_members)
    elif shape.type_name == "list":
        described["member"] = _describe(shape.member)
    elif shape.type_name == "map":
        described["key"], described["value"] = _describe(shape.key), _describe(shape.value)
    return described
