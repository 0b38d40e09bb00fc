"""What the package does with S3: URIs, clients, uploads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import IO, Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import S3Transfer, TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.hooks.errors import api_error, as_api_error

_S3_URI = re.compile(r"s3://(?P<bucket>[^/]+)(?:/(?P<key>.*))?", re.DOTALL)
_BUCKET = re.compile("[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
#: Codes with which S3 refuses to write an object that is not as it was seen.
_CHANGED = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"})
_PART_BY_PART = TransferConfig(use_threads=False)


def s3_client(**parameters: Any) -> Any:
    """Make a client of S3.

    :param parameters: those of :class:`~airflow.providers.amazon.aws.hooks.s3.S3Hook`.
    """
    with as_api_error("CreateClient"):
        return S3Hook(**parameters).conn


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Take an ``s3://`` URI apart; both parts are empty if it is none."""
    found = _S3_URI.fullmatch(uri)
    return (found["bucket"], found["key"] or "") if found else ("", "")


def check_bucket_name(parameter: str, uri: Any) -> None:
    """Check that a value is an ``s3://`` URI with the name of a bucket that can exist.

    :param parameter: name of the parameter, for the error.
    :param uri: the value.
    :raises OmicsParameterError: it is not.
    """
    bucket = bucket_and_key(uri)[0] if isinstance(uri, str) else ""
    if not bucket:
        raise OmicsParameterError(parameter, "has to be an s3:// URI with a bucket", uri)
    if not _BUCKET.fullmatch(bucket):
        raise OmicsParameterError(
            parameter, "has to name a bucket: 3 to 63 lower case letters, digits, dots and hyphens", uri
        )


def check_object_uri(parameter: str, uri: Any) -> None:
    """Check that a value is the ``s3://`` URI of an object.

    :param parameter: name of the parameter, for the error.
    :param uri: the value.
    :raises OmicsParameterError: it is not.
    """
    check_bucket_name(parameter, uri)
    if not bucket_and_key(uri)[1]:
        raise OmicsParameterError(parameter, "must be s3://bucket/key", uri)


def check_upload_args(s3_extra_args: Any) -> None:
    """Check the options of an upload.

    :param s3_extra_args: the options, None for none.
    :raises OmicsParameterError: boto3's uploads do not know one of them.
    """
    if s3_extra_args is None:
        return
    if not isinstance(s3_extra_args, dict):
        raise OmicsParameterError("s3_extra_args", "must be a dict", type(s3_extra_args).__name__)
    unknown = sorted(s3_extra_args.keys() - set(S3Transfer.ALLOWED_UPLOAD_ARGS))
    if unknown:
        raise OmicsParameterError("s3_extra_args", "must hold only options of boto3's uploads", unknown)


def head_object(uri: str, *, s3: Any, extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """Look at an object.

    :param uri: the ``s3://`` URI of the object.
    :param s3: client of S3.
    :param extra_args: options of an upload; those that HeadObject has too are sent.
    :return: HeadObject's answer; what goes wrong is botocore's own error.
    """
    bucket, key = bucket_and_key(uri)
    members = s3.meta.service_model.operation_model("HeadObject").input_shape.members
    known = {name: value for name, value in extra_args.items() if name in members}
    found: dict[str, Any] = s3.head_object(Bucket=bucket, Key=key, **known)
    return found


def upload(file: IO[bytes], uri: str, *, parameter: str, s3: Any, extra_args: Mapping[str, Any] | None) -> None:
    """Upload a file from its beginning, part by part: no more than one of its parts is held in memory.

    :param file: the file.
    :param uri: the ``s3://`` URI of the object.
    :param parameter: name of the parameter that holds the URI, for the error.
    :param s3: client of S3.
    :param extra_args: options of the upload.
    :raises OmicsApiError: S3 refuses it.
    """
    bucket, key = bucket_and_key(uri)
    file.seek(0)
    try:
        s3.upload_fileobj(file, bucket, key, ExtraArgs=extra_args, Config=_PART_BY_PART)
    except (BotoCoreError, Boto3Error, ClientError) as error:
        failure = api_error(error, "PutObject", s3.meta.region_name, s3.meta.endpoint_url)
        raise failure.with_text(f"{parameter} must be writable; got {uri!r}: {failure}") from error


def put_if_unchanged(
    file: IO[bytes], uri: str, *, parameter: str, s3: Any, extra_args: Mapping[str, Any], etag: str | None
) -> bool:
    """Upload a file from its beginning, unless somebody else has written the object meanwhile.

    :param file: the file, of at most 5 GiB.
    :param uri: the ``s3://`` URI of the object.
    :param parameter: name of the parameter that holds the URI, for the error.
    :param s3: client of S3.
    :param extra_args: options of an upload; those that PutObject has too are sent.
    :param etag: ETag of the object as it was seen, None if there was none.
    :return: whether it was uploaded.
    :raises OmicsApiError: S3 refuses it.
    """
    bucket, key = bucket_and_key(uri)
    members = s3.meta.service_model.operation_model("PutObject").input_shape.members
    known = {name: value for name, value in extra_args.items() if name in members}
    condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    file.seek(0)
    try:
        s3.put_object(**known, **condition, Bucket=bucket, Key=key, Body=file)
    except (BotoCoreError, ClientError) as error:
        failure = api_error(error, "PutObject", s3.meta.region_name, s3.meta.endpoint_url)
        if failure.code in _CHANGED:
            return False
        raise failure.with_text(f"{parameter} must be writable; got {uri!r}: {failure}") from error
    return True
