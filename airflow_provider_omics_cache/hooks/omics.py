"""The hook for AWS HealthOmics."""

from __future__ import annotations

from airflow_provider_omics_cache.hooks.cancel_batch import CancelBatchHook
from airflow_provider_omics_cache.hooks.delete_batch import DeleteBatchHook
from airflow_provider_omics_cache.hooks.ensure_run_cache import EnsuredRunCache, EnsureRunCacheHook, check_if_exists
from airflow_provider_omics_cache.hooks.errors import api_error, check_id, check_tags
from airflow_provider_omics_cache.hooks.start_batch_once import StartBatchOnceHook

__all__ = ["EnsuredRunCache", "OmicsCacheHook", "api_error", "check_id", "check_if_exists", "check_tags"]


class OmicsCacheHook(EnsureRunCacheHook, StartBatchOnceHook, CancelBatchHook, DeleteBatchHook):
    """Talk to AWS HealthOmics: run caches, batches, their runs and tags.

    One method per API operation, named as the operation, with the operation's members in snake_case. Only
    what is given is sent. Answers are botocore's dictionaries without ``ResponseMetadata``; lists are lazy
    iterators over all pages.

    A configured endpoint (the connection's ``endpoint_url`` or ``service_config``, ``AWS_ENDPOINT_URL``,
    the AWS config file) is called as it is: the SDK's host prefix (``workflows-``, ``tags-``) is left away
    unless ``inject_host_prefix`` is set by the user.

    Additional arguments (such as ``aws_conn_id``, ``region_name``, ``verify`` and ``config``) are passed
    down to :class:`~airflow.providers.amazon.aws.hooks.base_aws.AwsBaseHook`; ``config`` is merged over the
    connection's ``config_kwargs``.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_Operations_Amazon_Omics.html
    """
