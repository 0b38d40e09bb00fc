"""How clients of AWS HealthOmics are made, and how one call is made."""

from __future__ import annotations

import inspect
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore
from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper
from asgiref.sync import sync_to_async
from botocore import xform_name
from botocore.config import Config
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsVersionError
from airflow_provider_omics_cache.healthomics.rounds import is_passing
from airflow_provider_omics_cache.hooks.errors import api_error, as_api_error, without_payloads, without_session_policy

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

#: Seconds to wait, one after the other, until the service shows what was just written.
VISIBLE_AFTER = (1, 2, 4, 8, 15, 30, 60, 60, 60, 60)
#: Seconds between two attempts at a call whose answer is worth waiting for.
_FIRST_DELAY = 1.0
_LONGEST_DELAY = 30.0


class OmicsClientHook(AwsBaseHook):
    """Make HealthOmics clients, and calls that end in an answer or in one of the package's errors."""

    _sleep: Callable[[float], None] = staticmethod(time.sleep)
    _clock: Callable[[], float] = staticmethod(time.monotonic)
    _conn_config: AwsConnectionWrapper | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["client_type"] = "omics"
        super().__init__(*args, **kwargs)

    # How clients are made

    @property
    def conn_config(self) -> AwsConnectionWrapper:
        """The Airflow connection; its ``config_kwargs`` merged with the hook's ``config``."""
        if self._conn_config is None:
            self._conn_config = self._read_connection()
        return self._conn_config

    def _read_connection(self) -> AwsConnectionWrapper:
        # Not through the cached property itself: until Python 3.12 all hooks of a process share its lock.
        wrapper: AwsConnectionWrapper = inspect.getattr_static(AwsBaseHook, "conn_config").func(self)
        config_kwargs = wrapper.extra_config.get("config_kwargs")
        if self._config and config_kwargs:
            connection = AwsConnectionWrapper.from_connection_metadata(extra={"config_kwargs": config_kwargs})
            wrapper.botocore_config = _merge_config(connection.botocore_config, self._config)
        return wrapper

    @property
    def config(self) -> Config:
        """The client's settings, as a copy: botocore writes into the retry settings that it is given."""
        return deepcopy(super().config)

    def get_session(self, region_name: str | None = None, deferrable: bool = False) -> Any:
        """Make the session with which clients are created, with our defaults under the user's settings."""
        session = super().get_session(region_name=region_name, deferrable=deferrable)
        core = session._session if isinstance(session, boto3.session.Session) else session
        if deferrable:
            _refresh_in_a_thread(session)
        if "AWS_RETRY_MODE" not in os.environ and "retry_mode" not in core.get_scoped_config():
            core.set_config_variable("retry_mode", "standard")
        if self._has_foreign_endpoint(core):
            default = Config(inject_host_prefix=False)
            core.set_default_client_config(default.merge(core.get_default_client_config() or Config()))
        return session

    async def get_async_conn(self) -> Any:
        """Get an aiobotocore client.

        It is made in a thread of its own: one whose role takes long to assume does not hold up the others.
        """

        def make() -> Any:
            return self.get_client_type(region_name=self.region_name, deferrable=True)

        return await sync_to_async(make, thread_sensitive=False)()

    @property
    def has_connection(self) -> bool:
        """Whether Airflow has found the connection; without it botocore looks for credentials on its own."""
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
        return bool(endpoint_url) and not _is_sdk_host(urlsplit(str(endpoint_url)).hostname or "", session)

    # Calls

    @property
    def _client(self) -> Any:
        with as_api_error("CreateClient"):
            return self.conn

    @property
    def _model(self) -> ServiceModel:
        model: ServiceModel = self._client.meta.service_model
        return model

    def _call(self, operation: str, **members: Any) -> Answer:
        given = {name: value for name, value in members.items() if value is not None}
        self._check_model(operation, given)
        client = self._client
        region, endpoint_url = client.meta.region_name, client.meta.endpoint_url
        try:
            answer: Answer = getattr(client, xform_name(operation))(**given)
        except ParamValidationError as error:
            shown = ParamValidationError(report=without_payloads(error.kwargs["report"]))
            raise api_error(shown, operation, region, endpoint_url, given) from shown
        except ClientError as error:
            told = without_session_policy(error)
            raise api_error(told, operation, region, endpoint_url, given) from told
        except BotoCoreError as error:
            raise api_error(error, operation, region, endpoint_url) from error
        answer.pop("ResponseMetadata", None)
        return answer

    def _patiently(
        self,
        call: Callable[[], T],
        *,
        max_seconds: float,
        is_worth_waiting: Callable[[OmicsApiError], bool] = is_passing,
    ) -> T:
        """Call until an answer comes, through failures that pass, for ``max_seconds`` at most."""
        give_up = self._clock() + max_seconds
        delay = _FIRST_DELAY
        while True:
            try:
                return call()
            except OmicsApiError as error:
                if not is_worth_waiting(error) or self._clock() + delay > give_up:
                    raise
                if delay == _FIRST_DELAY:
                    self.log.info("Waiting to call again: %s", error)
            self._sleep(delay * random.uniform(0.5, 1.0))
            delay = min(2 * delay, _LONGEST_DELAY)

    def _look_again(self, look: Callable[[], T], is_seen: Callable[[T], object] = bool) -> T:
        """Look until what was just written is seen; give what the last look saw."""
        for delay in VISIBLE_AFTER:
            seen = look()
            if is_seen(seen):
                return seen
            self._sleep(delay)
        return look()

    def _if_found(self, get: Callable[[], T]) -> T | None:
        try:
            return get()
        except OmicsApiError as error:
            if error.code != "ResourceNotFoundException":
                raise
            return None

    def _items(
        self, operation: str, key: str, token: str | None, *, max_silence: float = 0, **members: Any
    ) -> Iterator[Answer]:
        while True:
            page = self._patiently(
                partial(self._call, operation, startingToken=token, **members), max_seconds=max_silence
            )
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


def _refresh_in_a_thread(session: Any) -> None:
    """Keep the event loop free while a role is assumed anew: the amazon provider does that with blocking calls."""
    credentials: Any = getattr(session, "_credentials", None)
    refresh = getattr(credentials, "_refresh_using", None)
    if refresh and not inspect.iscoroutinefunction(refresh):
        credentials._refresh_using = sync_to_async(refresh, thread_sensitive=False)


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
