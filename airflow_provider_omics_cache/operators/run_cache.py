"""Operators for HealthOmics run caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_omics_cache.healthomics.run_caches import (
    change_run_cache,
    check_bucket,
    check_if_exists,
    ensure_run_cache,
    remove_run_cache,
    run_cache_xcom,
)
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import s3_client
from airflow_provider_omics_cache.links.omics import OmicsLogGroupLink, OmicsRunCacheS3Link, persist_links

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class CreateRunCacheOperator(AwsBaseOperator[OmicsCacheHook]):
    """Create a HealthOmics run cache, once: an existing cache of the same name and location is used.

    However often the task is retried, cleared or run side by side with others that ask for the same cache,
    one cache is left. Caches are the same when name, location and bucket owner are; other differences are
    dealt with as ``if_exists`` says.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflow-cache-create.html

    :param name: name of the cache, 1 to 128 characters. (templated)
    :param cache_s3_location: S3 URI for the cache's data, in the Region of the workflows. The service puts
        the cache into a folder of its own below it. (templated)
    :param cache_behavior: ``CACHE_ON_FAILURE`` (the service's default) or ``CACHE_ALWAYS``. (templated)
    :param cache_bucket_owner_id: id of the AWS account that has to own the bucket. Default: the account of
        the connection. (templated)
    :param description: description of the cache, 1 to 256 characters. (templated)
    :param tags: tags of the cache. Other tags of an existing cache are left alone. (templated)
    :param request_id: idempotency token for the creation. Default: derived from name, location, owner and
        Region. (templated)
    :param if_exists: what to do when the cache exists with another behaviour, description or tags:
        ``reuse`` (default) uses it and warns, ``update`` changes it, ``fail`` fails. ``fail`` also refuses to
        make a second cache of the same name at another location.
    :param check_bucket: look first whether the bucket exists and has the right Region and owner, with
        S3's HeadBucket. Default: False.
    :param aws_conn_id: Airflow connection for AWS; None or empty for boto3's own ways. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: whether, or with which CA bundle, TLS certificates are verified. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: id of the cache. XCom key ``run_cache`` holds id, arn, name, status, cache_behavior,
        cache_s3_uri, creation_time, tags and ``created``: whether this try created it.
    :raises OmicsParameterError: a parameter breaks a rule.
    :raises RunCacheError: the cache is not, and cannot be made, what is asked for.
    :raises OmicsApiError: a call to AWS failed.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_if_exists(if_exists)
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
        """Get or create the cache and push what is known of it."""
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


class UpdateRunCacheOperator(AwsBaseOperator[OmicsCacheHook]):
    """Change the name, behaviour, description or tags of a HealthOmics run cache.

    Only what differs is sent; what is not given stays as it is, and so do other tags. At least one of ``name``,
    ``cache_behavior``, ``description`` and ``tags`` has to be given. The S3 location and the bucket's owner of a cache
    cannot be changed: another location is another, empty cache.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflow-cache-update.html

    :param run_cache_id: id of the cache. (templated)
    :param name: new name, 1 to 128 characters. Default: unchanged. (templated)
    :param cache_behavior: ``CACHE_ON_FAILURE`` or ``CACHE_ALWAYS``. Default: unchanged. (templated)
    :param description: new description, 1 to 256 characters. Default: unchanged. (templated)
    :param tags: tags to set. (templated)
    :param aws_conn_id: Airflow connection for AWS; None or empty for boto3's own ways. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: whether, or with which CA bundle, TLS certificates are verified. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: id of the cache, after GetRunCache has shown the update. XCom key ``run_cache`` holds id, arn, name,
        status, cache_behavior, cache_s3_uri, creation_time, tags and ``updated``: the list of what this try changed.
    :raises OmicsParameterError: a parameter breaks a rule, or nothing is asked for; nothing is changed.
    :raises RunCacheError: there is no such cache, or it is DELETED or FAILED.
    :raises OmicsApiError: a call to AWS failed.
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
        run_cache_id: str,
        name: str | None = None,
        cache_behavior: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_cache_id = run_cache_id
        self.name = name
        self.cache_behavior = cache_behavior
        self.description = description
        self.tags = tags

    def execute(self, context: Any) -> str:
        """Change what differs and push what is known of the cache."""
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
    """Delete a HealthOmics run cache; one that is gone already is fine.

    Only the cache is deleted: its data stays in S3, and **cannot be linked to a cache again**, not even to a new one at
    the same location. This is not for the teardown of a DAG run: the next run would start with an empty cache, and
    pay for all tasks again. To free the space, delete the data in S3 too, or let a lifecycle rule do that.

    The service refuses to delete a cache that an active run uses; the error tells so, and a retry may succeed later.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflow-cache-delete.html

    :param run_cache_id: id of the cache. (templated)
    :param aws_conn_id: Airflow connection for AWS; None or empty for boto3's own ways. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: whether, or with which CA bundle, TLS certificates are verified. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: id of the cache, after GetRunCache has stopped showing it as active.
    :raises OmicsParameterError: the id is none.
    :raises OmicsApiError: a call to AWS failed, or the cache is in use.
    """

    aws_hook_class = OmicsCacheHook
    template_fields: Sequence[str] = aws_template_fields("run_cache_id")

    def __init__(self, *, run_cache_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_cache_id = run_cache_id

    def execute(self, context: Any) -> str:
        """Delete the cache."""
        remove_run_cache(self.hook, run_cache_id=self.run_cache_id)
        return str(self.run_cache_id)


def _persist_links(context: Any, operator: Any, run_cache: Mapping[str, Any]) -> None:
    persist_links(
        context,
        operator,
        cache_s3_uri=run_cache.get("cacheS3Uri") or "",
        log_stream_prefix=f"runCache/{run_cache['id']}/",
    )
