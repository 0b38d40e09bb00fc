"""Operators for HealthOmics run caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_omics_cache.healthomics.resources import check_if_exists
from airflow_provider_omics_cache.healthomics.run_caches import (
    change_run_cache,
    check_bucket,
    check_cache_behavior,
    ensure_run_cache,
    remove_run_cache,
    run_cache_xcom,
)
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import s3_client
from airflow_provider_omics_cache.links.omics import LinkedTask, OmicsLogGroupLink, OmicsRunCacheS3Link, persist_links
from airflow_provider_omics_cache.tasks.parameters import check_flags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import XComArg


class CreateRunCacheOperator(LinkedTask, AwsBaseOperator[OmicsCacheHook]):
    """Create a HealthOmics run cache, or reuse the existing cache of the same name, location and bucket owner.

    Retries, cleared tasks and tasks that run at the same time never create a second cache. If the service does not show
    whether the cache exists, the task fails and can be retried. If the existing cache has another behaviour,
    description or tags, ``if_exists`` decides what to do.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflow-cache-create.html

    :param name: name of the cache, 1 to 128 characters. (templated)
    :param cache_s3_location: S3 URI (bucket and optional prefix) for the cache's data. The bucket must be in the Region
        of the workflows. The service creates a folder for the cache at this location. (templated)
    :param cache_behavior: ``CACHE_ON_FAILURE`` or ``CACHE_ALWAYS``. Default: the service's default,
        ``CACHE_ON_FAILURE``. (templated)
    :param cache_bucket_owner_id: id of the AWS account that must own the bucket. Default: the account of the
        connection. (templated)
    :param description: description of the cache, 1 to 256 characters. Default: none. (templated)
    :param tags: tags of the cache, as a dict. Other tags of an existing cache do not change. Default: none. (templated)
    :param request_id: idempotency token of the creation, 1 to 128 characters. Set it if an error asks for it, for
        example to create a cache again shortly after its deletion. Default: derived from name, location, owner and
        Region. (templated)
    :param if_exists: what to do if the cache exists with another behaviour, description or tags: ``reuse`` uses it and
        logs a warning, ``update`` changes it, ``fail`` fails the task. ``fail`` also fails the task if a cache of the
        same name exists at another location or for another bucket owner. Default: ``reuse``.
    :param check_bucket: whether to check first that the bucket exists and has the right Region and owner, with S3's
        HeadBucket. Default: False.
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's Region, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: options of the botocore client as a dict, merged over the connection's. Default: none.

    :return: id of the cache. The XCom ``run_cache`` is a dict with these keys:

        * ``id``, ``arn``, ``name``, ``status``, ``cache_behavior`` and ``tags`` of the cache
        * ``cache_s3_uri``: S3 URI of the cache's own folder
        * ``creation_time``: in ISO 8601
        * ``created``: whether this try created the cache

    :raises OmicsParameterError: a parameter is not valid, for example ``name`` is empty; ``if_exists`` is ``fail`` and
        a cache of the same name exists at another location or for another bucket owner; or ``check_bucket`` is True
        and the bucket does not exist or has another Region or owner.
    :raises RunCacheError: ``if_exists`` is ``fail`` and the existing cache differs, or the cache could not be created
        or changed as requested.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: AWS refused or did not answer a call; or another task has created the cache with other
        values, and ListRunCaches did not show it within 5 minutes.
    :raises OmicsError: within 5 minutes the service did not show whether the cache exists, or GetRunCache did not
        show the new cache with its name, status and location, or its changes; or the new cache is FAILED. No other
        cache is created.
    """

    aws_hook_class = OmicsCacheHook
    template_fields: Sequence[str] = aws_template_fields(
        "name",
        "cache_s3_location",
        "cache_behavior",
        "cache_bucket_owner_id",
        "description",
        "tags",
        "request_id",
    )
    template_fields_renderers = {"tags": "json"}  # noqa: RUF012
    operator_extra_links = (OmicsRunCacheS3Link(), OmicsLogGroupLink())

    def __init__(
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
        check_bucket: bool = False,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            aws_conn_id=aws_conn_id,
            region_name=region_name,
            verify=verify,
            botocore_config=botocore_config,
            **kwargs,
        )
        check_if_exists(if_exists)
        check_flags(check_bucket=check_bucket)
        check_cache_behavior(cache_behavior)
        self.name = name
        self.cache_s3_location = cache_s3_location
        self.cache_behavior = cache_behavior
        self.cache_bucket_owner_id = cache_bucket_owner_id
        self.description = description
        self.tags = tags
        self.request_id = request_id
        self.if_exists = if_exists
        self.check_bucket = check_bucket

    def execute(self, context: Any) -> str:
        """Find or create the cache, push the XCom ``run_cache`` and return the cache's id.

        :param context: Airflow's context of the task.
        """
        if self.check_bucket:
            check_bucket(
                self.hook,
                s3_client(**self._hook_parameters),
                cache_s3_location=self.cache_s3_location,
                cache_bucket_owner_id=self.cache_bucket_owner_id,
            )
        run_cache, created = ensure_run_cache(
            self.hook,
            name=self.name,
            cache_s3_location=self.cache_s3_location,
            cache_behavior=self.cache_behavior,
            cache_bucket_owner_id=self.cache_bucket_owner_id,
            description=self.description,
            tags=self.tags,
            request_id=self.request_id,
            if_exists=self.if_exists,
        )
        _persist_links(context, self, run_cache)
        context["ti"].xcom_push(key="run_cache", value={**run_cache_xcom(run_cache), "created": created})
        return str(run_cache["id"])


class UpdateRunCacheOperator(LinkedTask, AwsBaseOperator[OmicsCacheHook]):
    """Change the name, behaviour, description or tags of a HealthOmics run cache.

    Only values that differ are sent. Values and tags that are not given do not change. At least one of ``name``,
    ``cache_behavior``, ``description`` and ``tags`` must be given. The S3 location and the bucket owner of a cache
    cannot be changed: create a new cache, which is empty, for another location.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflow-cache-update.html

    :param run_cache_id: id of the cache. (templated)
    :param name: new name, 1 to 128 characters. Default: unchanged. (templated)
    :param cache_behavior: ``CACHE_ON_FAILURE`` or ``CACHE_ALWAYS``. Default: unchanged. (templated)
    :param description: new description, 1 to 256 characters. Default: unchanged. (templated)
    :param tags: tags to set, as a dict. Default: unchanged. (templated)
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's Region, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: options of the botocore client as a dict, merged over the connection's. Default: none.

    :return: id of the cache, after GetRunCache has returned the changed values. The XCom ``run_cache`` is a dict with
        these keys:

        * ``id``, ``arn``, ``name``, ``status``, ``cache_behavior`` and ``tags`` of the cache
        * ``cache_s3_uri``: S3 URI of the cache's own folder
        * ``creation_time``: in ISO 8601
        * ``updated``: list of the parameters whose values this try changed

    :raises OmicsParameterError: a parameter is not valid, or none of ``name``, ``cache_behavior``, ``description`` and
        ``tags`` is given. The cache is not changed.
    :raises RunCacheError: the cache does not exist, or its status is DELETED or FAILED.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: AWS refused or did not answer a call.
    :raises OmicsError: GetRunCache did not return the changed values in time, or it returned no ARN and tags are to be
        set.
    """

    aws_hook_class = OmicsCacheHook
    template_fields: Sequence[str] = aws_template_fields(
        "run_cache_id", "name", "cache_behavior", "description", "tags"
    )
    template_fields_renderers = {"tags": "json"}  # noqa: RUF012
    operator_extra_links = (OmicsRunCacheS3Link(), OmicsLogGroupLink())

    def __init__(
        self,
        *,
        run_cache_id: str | XComArg,
        name: str | None = None,
        cache_behavior: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            aws_conn_id=aws_conn_id,
            region_name=region_name,
            verify=verify,
            botocore_config=botocore_config,
            **kwargs,
        )
        check_cache_behavior(cache_behavior)
        self.run_cache_id = cast("str", run_cache_id)
        self.name = name
        self.cache_behavior = cache_behavior
        self.description = description
        self.tags = tags

    def execute(self, context: Any) -> str:
        """Change the values that differ, push the XCom ``run_cache`` and return the cache's id.

        :param context: Airflow's context of the task.
        """
        run_cache, updated = change_run_cache(
            self.hook,
            run_cache_id=self.run_cache_id,
            name=self.name,
            cache_behavior=self.cache_behavior,
            description=self.description,
            tags=self.tags,
        )
        _persist_links(context, self, run_cache)
        context["ti"].xcom_push(key="run_cache", value={**run_cache_xcom(run_cache), "updated": updated})
        return str(run_cache["id"])


class DeleteRunCacheOperator(AwsBaseOperator[OmicsCacheHook]):
    """Delete a HealthOmics run cache. A cache that is already deleted counts as success.

    Only the cache is deleted. Its data stays in S3 and **cannot be linked to a cache again**, not even to a new cache
    at the same location. To free the space, also delete the data in S3, or let a lifecycle rule do it. Do not use this
    operator as the teardown of a DAG run: the next run would start with an empty cache and pay for all tasks again.

    The service refuses to delete a cache that an active run uses. The task then fails; a retry can succeed when the
    run has ended.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflow-cache-delete.html

    :param run_cache_id: id of the cache. (templated)
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's Region, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: options of the botocore client as a dict, merged over the connection's. Default: none.

    :return: id of the cache, after GetRunCache has stopped returning it as active.
    :raises OmicsParameterError: ``run_cache_id`` is not a HealthOmics id (1 to 18 digits).
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: AWS refused or did not answer a call, or an active run uses the cache.
    :raises OmicsError: GetRunCache still returned the cache as active, or without a status, after its deletion.
    """

    aws_hook_class = OmicsCacheHook
    template_fields: Sequence[str] = aws_template_fields("run_cache_id")

    def __init__(
        self,
        *,
        run_cache_id: str | XComArg,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            aws_conn_id=aws_conn_id,
            region_name=region_name,
            verify=verify,
            botocore_config=botocore_config,
            **kwargs,
        )
        self.run_cache_id = cast("str", run_cache_id)

    def execute(self, context: Any) -> str:
        """Delete the cache and return its id.

        :param context: Airflow's context of the task.
        """
        remove_run_cache(self.hook, run_cache_id=self.run_cache_id)
        return str(self.run_cache_id)


def _persist_links(context: Any, operator: Any, run_cache: Mapping[str, Any]) -> None:
    persist_links(
        context,
        operator,
        cache_s3_uri=run_cache.get("cacheS3Uri") or "",
        log_stream_prefix=f"runCache/{run_cache['id']}/",
    )
