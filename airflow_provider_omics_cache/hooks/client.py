"""Create HealthOmics clients, and make single calls."""

from __future__ import annotations

import inspect
import math
import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import boto3
import botocore
from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper
from asgiref.sync import sync_to_async
from botocore import xform_name
from botocore.config import Config
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import (
    OmicsApiError,
    OmicsRequestError,
    OmicsTimeLimitError,
    OmicsVersionError,
    PageTokenError,
)
from airflow_provider_omics_cache.hooks.answers import LostAnswerError, notice_lost_answers
from airflow_provider_omics_cache.hooks.connections import ExistingConnectionHook
from airflow_provider_omics_cache.hooks.errors import (
    api_error,
    as_api_error,
    without_payloads,
    without_session_policy,
)
from airflow_provider_omics_cache.redaction import mask, passwords_in, printable

if TYPE_CHECKING:
    from botocore.model import ServiceModel
    from botocore.session import Session

Answer = dict[str, Any]
T = TypeVar("T")

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

#: Default of ``max_silence``: seconds for which an unanswered call is repeated. The call must be safe to repeat.
LONGEST_SILENCE = 3600.0
#: Maximum number of items on a page of each list.
LARGEST_PAGE = 100
#: Seconds between the repeated reads of a task that waits until the service shows what was just written.
VISIBLE_AFTER = (1, 2, 4, 8, 15, 30, 60, 60, 60, 60)
#: Operations that can affect another run if they are repeated, because HealthOmics reuses the ids of deleted runs.
#: The SDK must not repeat them: the caller must confirm the run before each attempt.
_SINGLE_ATTEMPT_OPERATIONS = frozenset({"CancelRun", "DeleteRun"})
#: Seconds for which a call is repeated if the service has never answered this task and its endpoint cannot be reached:
#: the URL of the endpoint may be misspelt.
_MISSPELT_SECONDS = 60.0
#: Operations that fetch credentials. A client calls them before or during a call to its own service. An error of
#: ``CreateClient`` comes from a call for credentials that was made while the package created a client.
_CREDENTIAL_OPERATIONS = frozenset(
    {
        "CreateClient",
        "AssumeRole",
        "AssumeRoleWithSAML",
        "AssumeRoleWithWebIdentity",
        "GetCallerIdentity",
        "GetRoleCredentials",
        "GetSessionToken",
    }
)
#: Maximum number of attempts to list everything if the service refuses the token of a page.
_MOST_LISTINGS = 3
#: First and longest delay, in seconds, before an unanswered call is repeated.
_FIRST_DELAY = 1.0
_LONGEST_DELAY = 30.0


class OmicsClientHook(ExistingConnectionHook):
    """Creates HealthOmics clients and makes calls. A failed call raises one of the package's errors."""

    #: End of the time limit for the calls, by the monotonic clock. Infinite if there is no limit.
    _ends_at = math.inf
    _conn_config: AwsConnectionWrapper | None = None
    _single_attempt_conn: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["client_type"] = "omics"
        super().__init__(*args, **kwargs)
        #: Services that have answered a call of this task. The URLs of their endpoints are then known to be correct.
        self.answered: set[str] = set()

    # Clients

    @property
    def conn_config(self) -> AwsConnectionWrapper:
        """The Airflow connection. The hook's ``config`` is merged over the connection's ``config_kwargs``."""
        if self._conn_config is None:
            self._conn_config = self._read_connection()
        return self._conn_config

    def _read_connection(self) -> AwsConnectionWrapper:
        # Do not use the cached property: before Python 3.12 all hooks of a process share its lock.
        wrapper: AwsConnectionWrapper = inspect.getattr_static(AwsBaseHook, "conn_config").func(self)
        config_kwargs = wrapper.extra_config.get("config_kwargs")
        if self._config and config_kwargs:
            connection = AwsConnectionWrapper.from_connection_metadata(extra={"config_kwargs": config_kwargs})
            wrapper.botocore_config = _merge_config(connection.botocore_config, self._config)
        mask(passwords_in([getattr(self._config, "proxies", None), getproxies()]))
        return wrapper

    @property
    def config(self) -> Config:
        """The client's settings. This is a copy, because botocore changes the retry settings that it gets."""
        return deepcopy(super().config)

    def get_session(self, region_name: str | None = None, deferrable: bool = False) -> Any:
        """Make the session that creates clients; the user's settings override the package's defaults."""
        session = super().get_session(region_name=region_name, deferrable=deferrable)
        core = session._session if isinstance(session, boto3.session.Session) else session
        notice_lost_answers(core)
        if deferrable:
            _refresh_in_a_thread(session)
        if "AWS_RETRY_MODE" not in os.environ and "retry_mode" not in core.get_scoped_config():
            core.set_config_variable("retry_mode", "standard")
        if self._has_foreign_endpoint(core):
            default = Config(inject_host_prefix=False)
            core.set_default_client_config(default.merge(core.get_default_client_config() or Config()))
        return session

    async def get_async_conn(self) -> Any:
        """Make an aiobotocore client in a thread, so that a slow STS does not block the event loop."""

        def make() -> Any:
            return self.get_client_type(region_name=self.region_name, deferrable=True)

        return await sync_to_async(make, thread_sensitive=False)()

    @property
    def has_connection(self) -> bool:
        """Whether Airflow found the connection. Without it, botocore searches for credentials itself."""
        return bool(self._conn_config)

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
        mask(passwords_in(endpoint_url))
        return bool(endpoint_url) and not _is_sdk_host(urlsplit(str(endpoint_url)).hostname or "", session)

    # Calls

    @property
    def _client(self) -> Any:
        with as_api_error("CreateClient"):
            return self.conn

    @property
    def single_attempt_conn(self) -> Any:
        """The client for operations that the SDK must not repeat."""
        if self._single_attempt_conn is None:
            config = _merge_config(self.config, Config(retries={"total_max_attempts": 1}))
            with as_api_error("CreateClient"):
                self._single_attempt_conn = self.get_client_type(region_name=self.region_name, config=config)
        return self._single_attempt_conn

    @property
    def client_region(self) -> str:
        """AWS Region of the client."""
        return str(self._client.meta.region_name)

    @property
    def _model(self) -> ServiceModel:
        model: ServiceModel = self._client.meta.service_model
        return model

    def _call(self, operation: str, *, max_silence: float = 0, **members: Any) -> Answer:
        given = {name: value for name, value in members.items() if value is not None}
        return self.patiently(partial(self._call_once, operation, given), max_silence=max_silence)

    def _call_once(self, operation: str, members: Mapping[str, Any]) -> Answer:
        self.check_model(operation, members)
        client = self.single_attempt_conn if operation in _SINGLE_ATTEMPT_OPERATIONS else self._client
        region, endpoint_url = client.meta.region_name, client.meta.endpoint_url
        try:
            answer: Answer = getattr(client, xform_name(operation))(**members)
        except ParamValidationError as error:
            shown = ParamValidationError(report=without_payloads(error.kwargs["report"]))
            raise api_error(shown, operation, region, endpoint_url, members) from shown
        except ClientError as error:
            shown_error = without_session_policy(error, members)
            raise api_error(shown_error, operation, region, endpoint_url, members) from printable(shown_error)
        except BotoCoreError as error:
            raise api_error(error, operation, region, endpoint_url) from printable(error)
        answer.pop("ResponseMetadata", None)
        return answer

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Limit the time for the calls inside the ``with`` block. This limit replaces an outer one.

        No call begins after the limit, and the hook does not sleep beyond it. A call that has begun is not interrupted.

        :param seconds: the limit, from now.
        """
        outer, self._ends_at = self._ends_at, timing.monotonic() + seconds
        try:
            yield
        finally:
            self._ends_at = outer

    def rest(self, seconds: float) -> None:
        """Sleep before the next call.

        :param seconds: duration of the sleep.
        :raises OmicsTimeLimitError: the time limit ends before the sleep does.
        """
        if timing.monotonic() + seconds > self._ends_at:
            raise OmicsTimeLimitError("No time is left for another call")
        timing.sleep(seconds)

    def patiently(self, call: Callable[[], T], *, service: str = "omics", max_silence: float = LONGEST_SILENCE) -> T:
        """Repeat a call while it is throttled, the service fails, or the connection is lost.

        If the service has never answered this task, and its endpoint cannot be reached or its answers are damaged, the
        URL of the endpoint may be misspelt: the call is then repeated for at most a minute. An answer of STS to a call
        for credentials does not count as an answer of the service.

        :param call: the call; repeating it must be safe.
        :param service: boto3's name of the service that is called.
        :param max_silence: seconds after which the last error is raised. Default: an hour. 0 makes one attempt.
        :raises OmicsApiError: the call failed.
        :raises OmicsTimeLimitError: the time limit is over.
        """
        gives_up_at = timing.monotonic() + max_silence
        called_first_at: dict[str, float] = {}
        delay = _FIRST_DELAY
        while True:
            called_at = timing.monotonic()
            if called_at >= self._ends_at:
                raise OmicsTimeLimitError("No time is left for another call")
            try:
                result = call()
            except OmicsApiError as error:
                called = "sts" if error.operation in _CREDENTIAL_OPERATIONS else service
                first_at = called_first_at.setdefault(called, called_at)
                if not error.is_unreachable and error.code != LostAnswerError.__name__:
                    self.answered.add(called)
                misspelt_at = math.inf if called in self.answered else first_at + _MISSPELT_SECONDS
                if not error.is_passing or timing.monotonic() + delay > min(gives_up_at, misspelt_at):
                    raise
                if timing.monotonic() + delay > self._ends_at:
                    raise OmicsTimeLimitError(f"No time is left for another call: {error}") from error.__cause__
                if delay == _FIRST_DELAY:
                    self.log.info("Calling again: %s", error)
            else:
                self.answered.add(service)
                return result
            timing.sleep(delay * random.uniform(0.5, 1.0))  # nosec B311  # jitter is not a secret
            delay = min(2 * delay, _LONGEST_DELAY)

    def until_seen(self, look: Callable[[], T], is_seen: Callable[[T], object] = bool) -> T:
        """Repeat a read for up to 5 minutes, until it shows what was just written.

        :param look: function that reads.
        :param is_seen: function that returns whether a result of ``look`` shows what was written.
        :return: the last result of ``look``.
        :raises OmicsTimeLimitError: the time limit is over.
        """
        for delay in VISIBLE_AFTER:
            seen = look()
            if is_seen(seen):
                return seen
            self.rest(delay)
        return look()

    def list_whole(self, list_once: Callable[[], T]) -> T:
        """List everything. If the service refuses the token of a page, list again from the first page.

        :param list_once: function that lists all pages.
        :raises PageTokenError: the list could not be read to its end in three attempts.
        """
        for _ in range(_MOST_LISTINGS - 1):
            try:
                return list_once()
            except PageTokenError as error:
                self.log.info("Listing again from the first page: %s", error)
        return list_once()

    def _items(
        self, operation: str, key: str, starting_token: str | None, *, max_silence: float = 0, **members: Any
    ) -> Iterator[Answer]:
        token = starting_token
        seen: set[str | None] = {starting_token}
        while True:
            try:
                page = self._call(operation, max_silence=max_silence, startingToken=token, **members)
            except OmicsRequestError as error:
                if token == starting_token:
                    raise
                raise PageTokenError.of(error) from error.__cause__
            yield from page.get(key) or ()
            token = page.get("nextToken")
            if not token:
                return
            if token in seen:
                raise PageTokenError(
                    f"{operation} returned the same nextToken twice, so that the list has no end. Retry the task.",
                    operation=operation,
                )
            seen.add(token)

    def check_model(self, operation: str, members: Iterable[str]) -> None:
        """Check that the installed botocore knows an operation and members of its request.

        :param operation: name of the API operation.
        :param members: names of the members.
        :raises OmicsVersionError: botocore is too old.
        """
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

        :raises OmicsVersionError: botocore is too old; the message names the versions to upgrade to.
        """
        if "StartRunBatch" not in self._model.operation_names:
            raise OmicsVersionError(
                "HealthOmics batches need boto3>=1.42.74, and aiobotocore>=3.4.0 for deferred tasks, but botocore "
                f"{botocore.__version__} is installed. Install airflow-provider-omics-cache[batch]."
            )

    def describe_shape(self, name: str) -> dict[str, Any]:
        """Describe a shape of the installed botocore's HealthOmics model as plain data.

        ``type`` is botocore's type name, or "document" for a JSON document. A structure has ``members`` (by name) and
        ``required`` (names). A list has ``member``. A map has ``key`` and ``value``. ``min`` and ``max`` are present
        when the model limits the length, the number of entries or the value.

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


def _refresh_in_a_thread(session: Any) -> None:
    """Refresh an assumed role in a thread: the amazon provider's refresh blocks the event loop."""
    credentials: Any = getattr(session, "_credentials", None)
    refresh = getattr(credentials, "_refresh_using", None)
    if refresh and not inspect.iscoroutinefunction(refresh):
        credentials._refresh_using = sync_to_async(refresh, thread_sensitive=False)


def _is_sdk_host(host: str, session: Session) -> bool:
    """Whether the host is one that the SDK builds itself; only such hosts get the SDK's host prefix."""
    partitions = session.get_component("data_loader").load_data("partitions")["partitions"]
    suffixes = {partition["outputs"][name] for partition in partitions for name in ("dnsSuffix", "dualStackDnsSuffix")}
    found = re.fullmatch(r"omics(-fips)?\.[a-z0-9-]+\.(?P<suffix>.+)", host)
    return found is not None and found["suffix"] in suffixes


def _merge_config(base: Any, over: Any) -> Any:
    """Merge client configurations, including their retry settings."""
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
