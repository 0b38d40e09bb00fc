"""S3 clients, URIs, arguments of uploads, calls and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import IO, Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from boto3.s3.transfer import S3Transfer
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.parsers import ResponseParserError

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsParameterError
from airflow_provider_omics_cache.hooks.answers import check_error, check_members
from airflow_provider_omics_cache.hooks.connections import ExistingConnectionHook
from airflow_provider_omics_cache.hooks.errors import api_error, as_api_error
from airflow_provider_omics_cache.redaction import printable

#: Keys that ``s3_extra_args`` can have: the arguments of PutObject that describe the object and the access to it.
UPLOAD_ARGS = frozenset(S3Transfer.ALLOWED_UPLOAD_ARGS) - {"ChecksumType", "MpuObjectSize"} | {"BucketKeyEnabled"}

_S3_URI = re.compile(r"s3://(?P<bucket>[^/]+)(?:/(?P<key>.*))?", re.DOTALL)
_BUCKET = re.compile("[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
#: Error codes with which S3 refuses a conditional write.
_CHANGED = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"})


class _S3Hook(ExistingConnectionHook, S3Hook):
    """Airflow's hook for S3."""


def s3_client(**parameters: Any) -> Any:
    """Make an S3 client.

    :param parameters: parameters of :class:`~airflow.providers.amazon.aws.hooks.s3.S3Hook`.
    :raises OmicsApiError: no client can be made, for example because a role cannot be assumed.
    """
    with as_api_error("CreateClient"):
        return _S3Hook(**parameters).conn


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Split an ``s3://`` URI. Both parts are empty for any other text.

    :param uri: the URI.
    """
    found = _S3_URI.fullmatch(uri)
    return (found["bucket"], found["key"] or "") if found else ("", "")


def check_bucket_uri(parameter: str, uri: Any) -> None:
    """Check that a value is an ``s3://`` URI with a valid bucket name.

    :param parameter: name of the parameter, for the error.
    :param uri: the value.
    :raises OmicsParameterError: the value is not such a URI.
    """
    bucket = bucket_and_key(uri)[0] if isinstance(uri, str) else ""
    if not bucket:
        raise OmicsParameterError(parameter, "must be an s3:// URI with a bucket", uri)
    if "@" in bucket:
        rule = "must not name an Airflow connection before the @: give the connection its own parameter"
        raise OmicsParameterError(parameter, rule, shown_uri(uri))
    if not _BUCKET.fullmatch(bucket):
        raise OmicsParameterError(
            parameter, "must have a bucket name of 3 to 63 lower case letters, digits, dots and hyphens", uri
        )


def check_object_uri(parameter: str, uri: Any) -> None:
    """Check that a value is the ``s3://`` URI of an object.

    :param parameter: name of the parameter, for the error.
    :param uri: the value.
    :raises OmicsParameterError: the value is not such a URI.
    """
    check_bucket_uri(parameter, uri)
    if not bucket_and_key(uri)[1]:
        raise OmicsParameterError(parameter, "must be s3://bucket/key", uri)
    if "\0" in uri:
        raise OmicsParameterError(parameter, "must not have the character NUL", uri)


def shown_uri(uri: str) -> str:
    """Return a path or URI for an error, without the parts that can be a credential.

    The part before an @ in the authority is hidden. The query is hidden unless the URI begins with s3: it can be the
    signature of a presigned URL.

    :param uri: the path or URI.
    """
    head, separator, rest = uri.partition("://")
    if not separator:
        return uri
    if not head.lower().startswith("s3"):
        rest, query, _ = rest.partition("?")
        rest += "?***" if query else ""
    authority, slash, path = rest.partition("/")
    _, at, host = authority.rpartition("@")
    return f"{head}://{'***@' if at else ''}{host}{slash}{path}"


def check_upload_args(s3_extra_args: Any) -> None:
    """Check the parameter ``s3_extra_args``, which is the same for every task that writes to S3.

    :param s3_extra_args: the value, None if it is not given.
    :raises OmicsParameterError: the value is not a dict, or has a key that is not in :data:`UPLOAD_ARGS`.
    """
    if s3_extra_args is None:
        return
    if not isinstance(s3_extra_args, dict):
        raise OmicsParameterError("s3_extra_args", "must be a dict", type(s3_extra_args).__name__)
    unknown = sorted(str(name) for name in s3_extra_args.keys() - UPLOAD_ARGS)
    if unknown:
        raise OmicsParameterError(
            "s3_extra_args",
            "must have only keys of S3 uploads, for example "
            "ServerSideEncryption, SSEKMSKeyId, ExpectedBucketOwner, Tagging",
            unknown,
        )


def with_metadata(extra_args: Mapping[str, Any], metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return upload arguments with additional metadata of the object.

    :param extra_args: upload arguments. ``Metadata`` that is not a dict stays as it is, and PutObject refuses it.
    :param metadata: metadata keys and values to add.
    """
    given = extra_args.get("Metadata") or {}
    return {**extra_args, "Metadata": {**given, **metadata} if isinstance(given, Mapping) else given}


def head_object(uri: str, *, s3: Any, extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """Look up an object.

    :param uri: the ``s3://`` URI of the object.
    :param s3: the S3 client.
    :param extra_args: upload arguments. Only those that HeadObject also takes are sent.
    :return: HeadObject's answer.
    :raises OmicsApiError: S3 refused the call, or did not answer; ``http_status`` is 404 if there is no object.
    """
    return _call("head_object", uri, s3=s3, extra_args=extra_args)


def put_object(
    file: IO[bytes],
    uri: str,
    *,
    parameter: str,
    s3: Any,
    extra_args: Mapping[str, Any] | None,
    condition: Mapping[str, str] | None = None,
) -> str | None:
    """Upload a file from its beginning with one PutObject.

    :param file: the file, of at most 5 GiB.
    :param uri: the ``s3://`` URI of the object.
    :param parameter: name of the parameter that the URI comes from, for the error.
    :param s3: the S3 client.
    :param extra_args: upload arguments.
    :param condition: ``{"IfNoneMatch": "*"}`` writes only if the object does not exist. ``{"IfMatch": etag}`` writes
        only if the object has this ETag.
    :return: None if the object was written, else the error code with which S3 refused the conditional write.
    :raises OmicsParameterError: a value in ``extra_args`` has the wrong type.
    :raises OmicsApiError: S3 refused the upload, or did not answer.
    """
    file.seek(0)
    try:
        _call("put_object", uri, s3=s3, extra_args=extra_args or {}, **(condition or {}), Body=file)
    except OmicsApiError as error:
        if condition and error.code in _CHANGED:
            return error.code
        raise error.with_text(f"Cannot write {parameter} {uri!r}: {error}") from error.__cause__
    return None


@contextmanager
def open_object(uri: str, *, parameter: str, s3: Any) -> Iterator[tuple[IO[bytes], int | None]]:
    """Open an object for reading inside the ``with`` block. The part that is not read is not transferred.

    The ``with`` block gets the body, and the size in bytes that S3 announced.

    :param uri: the ``s3://`` URI of the object.
    :param parameter: name of the parameter that the URI comes from, for the error.
    :param s3: the S3 client.
    :raises OmicsParameterError: there is no such object.
    :raises OmicsApiError: S3 refused the call, did not answer, or sent less than it announced.
    """
    try:
        answer = _call("get_object", uri, s3=s3, extra_args={})
        with closing(answer["Body"]) as body, _as_s3_error("GetObject", s3):
            yield body, answer.get("ContentLength")
    except OmicsApiError as error:
        if error.http_status == 404:
            raise OmicsParameterError(parameter, f"must exist in S3 ({error.code})", uri) from error.__cause__
        raise error.with_text(f"Cannot read {parameter} {uri!r}: {error}") from error.__cause__


def _call(method: str, uri: str, *, s3: Any, extra_args: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    bucket, key = bucket_and_key(uri)
    operation = s3.meta.method_to_api_mapping[method]
    known = s3.meta.service_model.operation_model(operation).input_shape.members
    arguments = {name: value for name, value in extra_args.items() if name in known}
    with _as_s3_error(operation, s3):
        try:
            answer: dict[str, Any] = getattr(s3, method)(**arguments, **members, Bucket=bucket, Key=key)
        except (ParamValidationError, TypeError):
            # botocore's report shows the values, which may include a customer's encryption key. botocore hashes that
            # key before it checks its type, hence the TypeError.
            rule = f"must have values of the types that {operation} takes"
            raise OmicsParameterError("s3_extra_args", rule, sorted(arguments)) from None
        except ClientError as error:
            if not operation.startswith("Head"):
                check_error(error.response)
            raise
        check_members(operation, answer)
    return answer


@contextmanager
def _as_s3_error(operation: str, s3: Any) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError, ResponseParserError) as error:
        raise api_error(error, operation, s3.meta.region_name, s3.meta.endpoint_url) from printable(error)
