"""What the local HealthOmics uses from moto: storage of its state, accounts of callers, and objects in S3.

The state is kept in a moto backend, so that resetting moto resets the local HealthOmics too.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError
from moto.core.base_backend import BackendDict, BaseBackend, backend_lock
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.models import botocore_stubber
from moto.iam.models import get_account_id_from
from moto.s3.models import s3_backends

from airflow_provider_omics_cache.local.protocol import ServiceError, shorten
from airflow_provider_omics_cache.local.region import Region

#: Servers that run in this process. All of them share moto's backends.
RUNNING_SERVERS: set[Any] = set()
_EVENTS_PER_CALL = 10
#: moto accepts any key.
_ANY_KEY = "local"


class OmicsBackend(BaseBackend):
    """State of one account in one Region."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.region = Region(account_id, region_name, self.partition)


class State:
    """State of all accounts and Regions."""

    def __init__(self) -> None:
        self._backends: BackendDict[OmicsBackend] = BackendDict(OmicsBackend, "omics")

    def region(self, account_id: str, region_name: str) -> Region:
        """Return the state of an account in a Region."""
        try:
            backend = self._backends[account_id][region_name]
        except KeyError:
            raise ServiceError(
                "AccessDeniedException", f"HealthOmics is not offered in Region {shorten(region_name)}"
            ) from None
        return backend.region

    def regions(self) -> list[Region]:
        """Return the state of every account and Region that has been used."""
        return [backend.region for account in self._backends.values() for backend in account.values()]

    def reset(self) -> None:
        """Remove all state."""
        for account in self._backends.values():
            account.reset()
        self._backends.clear()


class _ServerWatch:
    """Warns if a mock resets moto's services while a server of this process uses them.

    moto resets this object like its own services.
    """

    def values(self) -> list[_ServerWatch]:
        """Return the objects that moto resets."""
        return [self]

    def clear(self) -> None:
        """Do nothing, because this object has no state."""

    def reset(self) -> None:
        """Warn if a mock has caused the reset."""
        level = _frames_to_mock_start()
        if RUNNING_SERVERS and level is not None:
            test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
            urls = ", ".join(sorted(server.url for server in RUNNING_SERVERS))
            warnings.warn(
                f"mock_aws(){f' in {test}' if test else ''} deleted the state of the local HealthOmics at {urls} and "
                "of its S3, because both use moto's services of this process. Start the server inside the mock, or use "
                "no mock.",
                stacklevel=level,
            )


_WATCH = _ServerWatch()


def watch_for_mocks() -> None:
    """Warn from now on if a mock resets moto's services."""
    resets: list[Any] = BackendDict._instances  # type: ignore[misc]
    with backend_lock:
        if _WATCH not in resets:
            resets.append(_WATCH)


def _frames_to_mock_start() -> int | None:
    """Return the stack level of the caller that starts a mock of moto, None if no mock is being started."""
    frame, level, is_start = sys._getframe(1), 1, False
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        is_start = is_start or (module == "moto.core.models" and frame.f_code.co_name == "start")
        if is_start and not module.startswith(("moto.", "contextlib")):
            return level
        frame, level = frame.f_back, level + 1  # type: ignore[assignment]
    return None


def account_of(access_key: str, header: str | None) -> str:
    """Return the account of a caller, as moto determines it.

    :param access_key: access key id that the request was signed with.
    :param header: value of the ``x-moto-account-id`` header.
    """
    account_id: str = os.environ.get("MOTO_ACCOUNT_ID") or header or get_account_id_from(access_key)
    return account_id


def read_object(account_id: str, uri: str) -> tuple[bytes, str]:
    """Return content and ETag of an S3 object.

    :raises LookupError: the account cannot read such an object.
    """
    answer = _call_s3("get_object", account_id, **_bucket_and_key(uri))
    return answer["Body"].read(), answer["ETag"]


def etag_of_object(account_id: str, uri: str) -> str:
    """Return the ETag of an S3 object.

    :raises LookupError: the account cannot read such an object.
    """
    etag: str = _call_s3("head_object", account_id, **_bucket_and_key(uri))["ETag"]
    return etag


class EntryStore:
    """The objects of the entries of run caches.

    :param account_id: account that writes and reads them.
    """

    def __init__(self, account_id: str) -> None:
        self._account_id = account_id

    def write(self, uri: str, content: bytes) -> None:
        """Write an object.

        :raises LookupError: the bucket does not exist.
        """
        _call_s3("put_object", self._account_id, **_bucket_and_key(uri), Body=content)

    def exists(self, uri: str) -> bool:
        """Return whether an object exists."""
        try:
            etag_of_object(self._account_id, uri)
        except LookupError:
            return False
        return True


def send_events(account_id: str, region_name: str, events: Sequence[dict[str, Any]]) -> None:
    """Send events to the default event bus.

    :param events: entries of PutEvents.
    """
    client = moto_client("events", account_id, region_name)
    for first in range(0, len(events), _EVENTS_PER_CALL):
        client.put_events(Entries=events[first : first + _EVENTS_PER_CALL])


def write_log(account_id: str, region_name: str, group: str, stream: str, lines: Sequence[tuple[float, str]]) -> None:
    """Write lines to a log stream, which is created if it does not exist.

    :param lines: times in seconds since 1970, and texts.
    """
    client = moto_client("logs", account_id, region_name)
    with suppress(client.exceptions.ResourceAlreadyExistsException):
        client.create_log_group(logGroupName=group)
    with suppress(client.exceptions.ResourceAlreadyExistsException):
        client.create_log_stream(logGroupName=group, logStreamName=stream)
    events = [{"timestamp": int(at * 1000), "message": text} for at, text in lines]
    client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def owner_of_bucket(bucket: str) -> str:
    """Return the account that owns a bucket.

    :raises LookupError: there is no such bucket.
    """
    for account_id, partitions in list(s3_backends.items()):
        if any(bucket in backend.buckets for backend in list(partitions.values())):
            return str(account_id)
    raise LookupError(bucket)


def region_of_bucket(account_id: str, bucket: str) -> str:
    """Return the Region of a bucket.

    :raises LookupError: there is no such bucket.
    """
    answer = _call_s3("get_bucket_location", account_id, Bucket=bucket)
    return answer.get("LocationConstraint") or "us-east-1"


def _bucket_and_key(uri: str) -> dict[str, str]:
    bucket, slash, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not slash or not key:
        raise LookupError(uri)
    return {"Bucket": bucket, "Key": key}


def _call_s3(operation: str, account_id: str, **parameters: Any) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = getattr(moto_client("s3", account_id), operation)(**parameters)
    except (ClientError, ParamValidationError) as error:
        raise LookupError(str(error)) from None
    return answer


@functools.lru_cache(maxsize=16)
def moto_client(service: str, account_id: str, region_name: str = "us-east-1") -> Any:
    """Return a client that always reaches moto, inside a mock and outside."""
    endpoint = "https://s3.amazonaws.com" if service == "s3" else f"https://{service}.{region_name}.amazonaws.com"
    session: Any = boto3.session.Session()
    client: Any = session.client(
        service,
        region_name=region_name,
        endpoint_url=endpoint,
        aws_access_key_id=_ANY_KEY,
        aws_secret_access_key=_ANY_KEY,
        config=Config(retries={"total_max_attempts": 1}),
    )
    stubber = BotocoreStubber()
    stubber.enabled = True

    def name_the_account(request: Any, **_: Any) -> None:
        request.headers["x-moto-account-id"] = account_id

    client.meta.events.register_first(f"before-send.{service}", name_the_account)

    def answer_outside_a_mock(**event: Any) -> Any:
        # Inside a mock, moto answers by itself. Answering twice would write an object twice.
        return None if botocore_stubber.enabled else stubber(**event)

    client.meta.events.register("before-send", answer_outside_a_mock)
    return client
