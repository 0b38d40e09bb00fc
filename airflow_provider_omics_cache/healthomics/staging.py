"""Put the run settings of a batch where StartRunBatch reads them: in the request, or in S3.

The service compares the ETag of the S3 file that it read at StartRunBatch with the one it reads later, and fails the
batch if the file has changed. A file is therefore named after its content and never overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsError, OmicsParameterError
from airflow_provider_omics_cache.healthomics.identity import digest
from airflow_provider_omics_cache.healthomics.outputs import OWN_OUTPUT_URIS
from airflow_provider_omics_cache.healthomics.settings import (
    MAX_FILE_BYTES,
    MAX_INLINE_SETTINGS,
    check_run_settings,
    unknown_key_rule,
)
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import (
    bucket_and_key,
    check_bucket_uri,
    check_object_uri,
    check_upload_args,
    head_object,
    put_object,
)

#: Seconds to wait before each new attempt while another try uploads the same settings.
_UPLOAD_CONFLICT_DELAYS = (1, 2, 4)


@dataclass
class StagingArea:
    """Where and how a task writes run settings.

    :param hook: the hook.
    :param get_s3: returns the S3 client. It is not called for inline settings.
    :param prefix: ``s3://`` URI below which the file is written, None if it is not given.
    :param extra_args: upload arguments of the task.
    """

    hook: OmicsCacheHook
    get_s3: Callable[[], Any]
    prefix: str | None
    extra_args: dict[str, Any] | None

    @property
    def s3(self) -> Any:
        """The S3 client."""
        return self.get_s3()


@dataclass(frozen=True, kw_only=True)
class CheckedSettings:
    """Run settings that were checked but not yet staged.

    :param digest: digest of their content, or of the URI of the user's file.
    :param etag: ETag of the user's file, None if there is no such file or the task could not read it.
    :param own_output_uris: digest of the ``outputUri`` of each setting that has its own. None if it is not known.
    :param count: number of settings, None if they were not read.
    :param s3_uri: where they are, or will be, in S3; None for inline settings.
    :param file: the settings as a JSON array, None if they are in S3 already.
    :param size: size of that file in bytes.
    :param extra_args: upload arguments.
    """

    digest: str
    etag: str | None = None
    own_output_uris: str | None = None
    count: int | None = None
    s3_uri: str | None = None
    file: IO[bytes] | None = None
    size: int = 0
    extra_args: Mapping[str, Any] | None = None


def check_settings(
    area: StagingArea,
    run_settings: Any,
    *,
    default_run_setting: Mapping[str, Any],
    members: Mapping[str, Any],
    file: IO[bytes],
) -> CheckedSettings:
    """Check run settings. They are written to a temporary file, and not to S3.

    :param area: where the settings would be written.
    :param run_settings: a list of settings, or the ``s3://`` URI of a JSON array of them.
    :param default_run_setting: the settings that all runs share.
    :param members: description of the members of ``BatchRunSettings``.
    :param file: the temporary file.
    :raises OmicsParameterError: a parameter breaks a rule.
    :raises OmicsApiError: HeadObject failed for the file at the URI. Denied access (403) is not an error.
    """
    prefix = area.prefix or None
    if prefix is not None:
        check_bucket_uri("settings_s3_prefix", prefix)
    if isinstance(run_settings, str) and run_settings.startswith("s3://"):
        return _check_uri(area, run_settings)
    found = check_run_settings(
        run_settings,
        shape=members["inlineSettings"]["member"],
        default_run_setting=default_run_setting,
        file=file,
        unknown_rule=unknown_key_rule("InlineSetting"),
    )
    found.broken.raise_if_any()
    own = digest(found.own_output_uris)
    if found.count <= MAX_INLINE_SETTINGS:
        return CheckedSettings(digest=found.digest, own_output_uris=own, count=found.count, file=file)
    if prefix is None:
        raise OmicsParameterError(
            "settings_s3_prefix",
            f"must be an s3:// URI for more than {MAX_INLINE_SETTINGS} settings; run_settings has {found.count:,}",
            area.prefix,
        )
    check_file_size(found.size)
    s3_uri = f"{prefix.rstrip('/')}/{found.sha256}.json"
    longest = members["s3UriSettings"].get("max")
    if longest and len(s3_uri) > longest:
        raise OmicsParameterError(
            "settings_s3_prefix", f"must have at most {longest - len(s3_uri) + len(prefix)} characters", prefix
        )
    check_upload_args(area.extra_args)
    extra_args = {
        "ContentType": "application/json",
        **_expected_owner(prefix, default_run_setting),
        **(area.extra_args or {}),
    }
    return CheckedSettings(
        digest=found.digest,
        own_output_uris=own,
        count=found.count,
        s3_uri=s3_uri,
        file=file,
        size=found.size,
        extra_args=extra_args,
    )


def stage_settings(area: StagingArea, settings: CheckedSettings) -> dict[str, Any]:
    """Put run settings where the service can read them.

    :param area: where the settings are written.
    :param settings: what :func:`check_settings` returned.
    :return: StartRunBatch's ``batchRunSettings``.
    :raises OmicsParameterError: the bucket does not exist, or ``s3_extra_args`` has a value of the wrong type.
    :raises OmicsError: the object at the settings' URI has other content, or another try writes it at the same time.
    :raises OmicsApiError: S3 refused the upload, or did not answer.
    """
    if settings.file is None:
        return {"s3UriSettings": settings.s3_uri}
    if settings.s3_uri is None:
        settings.file.seek(0)
        return {"inlineSettings": json.loads(settings.file.read())}
    _upload(area, settings.file, settings.s3_uri, settings.size, settings.extra_args or {})
    return {"s3UriSettings": settings.s3_uri}


def _check_uri(area: StagingArea, uri: str) -> CheckedSettings:
    check_object_uri("run_settings", uri)
    check_upload_args(area.extra_args)
    etag = own = None
    try:
        head = partial(head_object, uri, s3=area.s3, extra_args=area.extra_args or {})
        found = area.hook.patiently(head, service="s3")
        etag = found["ETag"].strip('"')
        own = (found.get("Metadata") or {}).get(OWN_OUTPUT_URIS)
    except OmicsApiError as error:
        if error.http_status == 404:
            raise OmicsParameterError("run_settings", "must be an object that exists in S3", uri) from error.__cause__
        if error.http_status != 403:
            raise
        area.hook.log.info("This task cannot read %s; its content is not compared between tries", uri)
    return CheckedSettings(digest=digest([uri]), etag=etag, own_output_uris=own, s3_uri=uri)


def check_file_size(size: int) -> None:
    """Check that run settings fit into one S3 object.

    :param size: size of the settings as JSON, in bytes.
    :raises OmicsParameterError: they do not fit.
    """
    if size > MAX_FILE_BYTES:
        raise OmicsParameterError(
            "run_settings", f"must have at most {MAX_FILE_BYTES:,} bytes as JSON", f"{size:,} bytes"
        )


def write_once(
    hook: OmicsCacheHook,
    file: IO[bytes],
    s3_uri: str,
    *,
    parameter: str,
    value: str | None,
    s3: Any,
    extra_args: Mapping[str, Any],
) -> bool:
    """Write a file to S3, unless the object exists.

    :param hook: the hook.
    :param file: the file.
    :param s3_uri: the ``s3://`` URI of the object.
    :param parameter: name of the parameter that the URI comes from, for the error.
    :param value: value of that parameter.
    :param s3: the S3 client.
    :param extra_args: upload arguments.
    :return: True if the object was written, False if it exists.
    :raises OmicsParameterError: the bucket does not exist, or ``extra_args`` has a value of the wrong type.
    :raises OmicsError: another try writes the object at the same time.
    :raises OmicsApiError: S3 refused the upload, or did not answer.
    """
    put = partial(
        put_object, file, s3_uri, parameter=parameter, s3=s3, extra_args=extra_args, condition={"IfNoneMatch": "*"}
    )
    for delay in (*_UPLOAD_CONFLICT_DELAYS, None):
        try:
            refusal = hook.patiently(put, service="s3")
        except OmicsApiError as error:
            if error.code != "NoSuchBucket":
                raise
            raise OmicsParameterError(parameter, "must be in a bucket that exists", value) from error.__cause__
        if refusal is None:
            return True
        if refusal == "PreconditionFailed":
            return False
        if delay is not None:
            hook.rest(delay)
    raise OmicsError(f"{s3_uri} cannot be written: another try writes it at the same time ({refusal})")


def _upload(area: StagingArea, file: IO[bytes], s3_uri: str, size: int, extra_args: Mapping[str, Any]) -> None:
    is_new = write_once(
        area.hook, file, s3_uri, parameter="settings_s3_prefix", value=area.prefix, s3=area.s3, extra_args=extra_args
    )
    if is_new:
        area.hook.log.info("Uploaded the run settings to %s (%s bytes)", s3_uri, f"{size:,}")
        return
    _check_uploaded(area, s3_uri, size, extra_args)
    area.hook.log.info("The run settings are already in %s", s3_uri)


def _check_uploaded(area: StagingArea, s3_uri: str, size: int, extra_args: Mapping[str, Any]) -> None:
    try:
        head = partial(head_object, s3_uri, s3=area.s3, extra_args=extra_args)
        found = area.hook.patiently(head, service="s3")["ContentLength"]
    except OmicsApiError:  # a role that can write is not always allowed to read
        return
    if found != size:
        raise OmicsError(
            f"{s3_uri} has {found:,} bytes, but these run settings have {size:,}: the file was replaced. Delete it; "
            "the next try uploads it again."
        )


def _expected_owner(settings_s3_prefix: str, default_run_setting: Mapping[str, Any]) -> dict[str, str]:
    """Return the expected owner of the settings' bucket if it is also the bucket of the runs' outputs."""
    owner = default_run_setting.get("outputBucketOwnerId")
    output_bucket, _ = bucket_and_key(default_run_setting.get("outputUri") or "")
    if owner and output_bucket == bucket_and_key(settings_s3_prefix)[0]:
        return {"ExpectedBucketOwner": owner}
    return {}
