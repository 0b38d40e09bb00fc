"""Reads moto's S3, in a mock and in a server alike."""

from __future__ import annotations

import functools
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError
from moto.core.botocore_stubber import BotocoreStubber
from moto.s3.models import s3_backends


class MotoObjectStore:
    """The S3 that the service looks into."""

    def read(self, account_id: str, uri: str) -> tuple[bytes, str]:
        """Return content and ETag of an object; raise LookupError when there is none."""
        answer = _call("get_object", account_id, **_place(uri))
        return answer["Body"].read(), answer["ETag"]

    def etag(self, account_id: str, uri: str) -> str:
        """Return the ETag of an object; raise LookupError when there is none."""
        etag: str = _call("head_object", account_id, **_place(uri))["ETag"]
        return etag

    def bucket_owner(self, bucket: str) -> str:
        """Return the account of a bucket; raise LookupError when there is none."""
        for account_id, partitions in list(s3_backends.items()):
            if any(bucket in backend.buckets for backend in list(partitions.values())):
                return str(account_id)
        raise LookupError(bucket)

    def bucket_region(self, account_id: str, bucket: str) -> str:
        """Return the Region of a bucket; raise LookupError when there is none."""
        answer = _call("get_bucket_location", account_id, Bucket=bucket)
        return answer.get("LocationConstraint") or "us-east-1"


def _place(uri: str) -> dict[str, str]:
    bucket, slash, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not slash or not key:
        raise LookupError(uri)
    return {"Bucket": bucket, "Key": key}


def _call(operation: str, account_id: str, **parameters: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = getattr(_client(account_id), operation)(**parameters)
    except (ClientError, ParamValidationError) as error:
        raise LookupError(str(error)) from None
    return answer


@functools.lru_cache(maxsize=16)
def _client(account_id: str) -> Any:
    client: Any = boto3.session.Session().client(
        "s3",
        region_name="us-east-1",
        endpoint_url="https://s3.amazonaws.com",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"total_max_attempts": 1}),
    )
    stubber = BotocoreStubber()
    stubber.enabled = True

    def name_the_account(request: Any, **_: Any) -> None:
        request.headers["x-moto-account-id"] = account_id

    client.meta.events.register_first("before-send.s3", name_the_account)
    client.meta.events.register("before-send", stubber)
    return client
