"""Save run settings in S3 for StartRunBatchOperator, so that they pass through no XCom and no task log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.healthomics.identity import digest
from airflow_provider_omics_cache.healthomics.outputs import OWN_OUTPUT_URIS
from airflow_provider_omics_cache.healthomics.settings import check_run_settings, unknown_key_rule
from airflow_provider_omics_cache.healthomics.staging import check_file_size, write_once
from airflow_provider_omics_cache.hooks.connections import hook_parameters
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import (
    check_object_uri,
    check_upload_args,
    head_object,
    s3_client,
    with_metadata,
)

RunSettings = Sequence[dict[str, Any]]

_SPOOLED_BYTES = 1024**2
#: HTTP statuses of HeadObject for a missing object. S3 returns 403 if the role is not allowed to list the bucket.
_NOT_SEEN = frozenset({403, 404})
#: Stands for the default setting of the batch, which is not known here. StartRunBatch checks the outputUri.
_DEFAULT_RUN_SETTING = {"outputUri": "s3://"}


def save_run_settings(
    run_settings: RunSettings | Callable[[], RunSettings],
    settings_s3_uri: str,
    *,
    conn_id: str | None = None,
    s3_extra_args: dict[str, Any] | None = None,
) -> str:
    """Save run settings in S3 once, and return the URI, for ``run_settings`` of StartRunBatchOperator.

    If the object exists, it is not changed, and ``run_settings`` is neither called nor checked: a retry or a cleared
    task returns the settings that the first try saved. For other settings, use another URI.

    The metadata of the object has a digest of the ``outputUri`` of each setting that has its own.
    ``include_outputs=True`` needs this digest to derive the locations of outputs.

    The settings are checked as StartRunBatchOperator checks a list, without the default setting of the batch.

    :param run_settings: the run settings: a list of at most 100,000 dicts with the members of AWS's ``InlineSetting``,
        each with a unique ``runSettingId``; or a function without parameters that returns the list. The function is
        called only if the object does not exist.
    :param settings_s3_uri: ``s3://`` URI of the JSON object. The role of the runs must be able to read it.
    :param conn_id: Airflow connection for S3. Default: ``aws_default``.
    :param s3_extra_args: arguments of uploads to S3, such as ``ServerSideEncryption``, ``SSEKMSKeyId``,
        ``BucketKeyEnabled`` or ``ExpectedBucketOwner``. HeadObject gets those that it also takes. Default: only the
        content type.
    :return: ``settings_s3_uri``.
    :raises OmicsParameterError: a parameter or a setting breaks a rule, or the bucket does not exist. Nothing was
        written.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsVersionError: the installed botocore does not know batches.
    :raises OmicsError: another task writes the object at the same time.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    check_object_uri("settings_s3_uri", settings_s3_uri)
    check_upload_args(s3_extra_args)
    connection = hook_parameters(conn_id)
    hook, s3 = OmicsCacheHook(**connection), s3_client(**connection)
    extra_args = {"ContentType": "application/json", **(s3_extra_args or {})}
    try:
        hook.patiently(partial(head_object, settings_s3_uri, s3=s3, extra_args=extra_args), service="s3")
    except OmicsApiError as error:
        if error.http_status not in _NOT_SEEN:
            raise
    else:
        hook.log.info("The run settings are already in %s", settings_s3_uri)
        return settings_s3_uri
    with SpooledTemporaryFile(max_size=_SPOOLED_BYTES) as spool:
        file: IO[bytes] = spool
        found = check_run_settings(
            run_settings() if callable(run_settings) else run_settings,
            shape=hook.describe_shape("InlineSetting"),
            default_run_setting=_DEFAULT_RUN_SETTING,
            file=file,
            unknown_rule=unknown_key_rule("InlineSetting"),
        )
        found.broken.raise_if_any()
        check_file_size(found.size)
        is_new = write_once(
            hook,
            file,
            settings_s3_uri,
            parameter="settings_s3_uri",
            value=settings_s3_uri,
            s3=s3,
            extra_args=with_metadata(extra_args, {OWN_OUTPUT_URIS: digest(found.own_output_uris)}),
        )
    if is_new:
        hook.log.info("Saved %s run settings in %s (%s bytes)", f"{found.count:,}", settings_s3_uri, f"{found.size:,}")
    else:
        hook.log.info("Another task has saved the run settings in %s meanwhile", settings_s3_uri)
    return settings_s3_uri
