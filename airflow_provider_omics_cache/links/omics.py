"""Links from tasks to AWS's console."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.amazon.aws.links.base_aws import BASE_AWS_CONSOLE_LINK, BaseAwsLink

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

#: Where HealthOmics writes the logs of runs and run caches.
LOG_GROUP = "/aws/omics/WorkflowLog"

_HEALTHOMICS_CONSOLE = "https://{region_name}.console.{aws_domain}/omics/home?region={region_name}"


class OmicsLink(BaseAwsLink):
    """Base of the links: there is none in a partition whose console is not known."""

    def format_link(self, **kwargs: Any) -> str:
        """Give the URL, or an empty string.

        :param kwargs: what :func:`persist_links` stored.
        """
        return str(super().format_link(**kwargs)) if kwargs.get("aws_domain") else ""


class OmicsRunLink(OmicsLink):
    """The run in the console of HealthOmics; needs ``run_id``."""

    name = "HealthOmics Run"
    key = "_omics_run"
    format_str = _HEALTHOMICS_CONSOLE + "#/runs/{run_id}"


class OmicsBatchLink(OmicsLink):
    """The runs of the Region in the console of HealthOmics, those of the batch among them.

    No page of the console that shows one batch is known: this is the nearest one.
    """

    name = "HealthOmics Runs"
    key = "_omics_batch"
    format_str = _HEALTHOMICS_CONSOLE + "#/runs"


class OmicsRunCacheS3Link(OmicsLink):
    """The folder of a run cache in the console of S3; needs ``cache_s3_uri``."""

    name = "Run Cache in S3"
    key = "_omics_run_cache_s3"
    format_str = BASE_AWS_CONSOLE_LINK + "/s3/buckets/{bucket}?region={region_name}&prefix={prefix}"

    def format_link(self, **kwargs: Any) -> str:
        """Give the URL, or an empty string.

        :param kwargs: what :func:`persist_links` stored.
        """
        if not kwargs.get("cache_s3_uri"):
            return ""
        bucket, _, prefix = kwargs["cache_s3_uri"].removeprefix("s3://").partition("/")
        return super().format_link(bucket=bucket, prefix=quote(prefix), **kwargs)


class OmicsLogGroupLink(OmicsLink):
    """HealthOmics' log group in the console of CloudWatch.

    With ``log_stream_prefix`` its list of streams is narrowed to those of a run or a run cache; a batch has none.
    """

    name = "HealthOmics Logs"
    key = "_omics_log_group"
    format_str = BASE_AWS_CONSOLE_LINK + "/cloudwatch/home?region={region_name}#logsV2:log-groups/log-group/{log_group}"

    def format_link(self, **kwargs: Any) -> str:
        """Give the URL, or an empty string.

        :param kwargs: what :func:`persist_links` stored.
        """
        log_group = _escape(_quote(LOG_GROUP))
        if kwargs.get("log_stream_prefix"):
            log_group += _escape("?logStreamNameFilter=") + _escape(_quote(kwargs["log_stream_prefix"]))
        return super().format_link(log_group=log_group, **kwargs)


def persist_links(context: Context, operator: Any, **known: str) -> None:
    """Store the operator's links, for people to follow while the task waits. What goes wrong never fails the task.

    Call it after the first call to AWS: that has made the client which knows Region and partition, and making one may
    cost a call to STS. A link that lacks something is left out.

    :param context: Airflow's context of the task.
    :param operator: operator or sensor with a ``hook``; the links in its ``operator_extra_links`` are stored.
    :param known: what the links are made of: ``run_id``, ``cache_s3_uri``, ``log_stream_prefix``.
    """
    if not operator.do_xcom_push:
        return
    try:
        ti = context["ti"]
        region_name, partition = operator.hook.conn_region_name, operator.hook.conn_partition
        for link in operator.operator_extra_links:
            if not isinstance(link, OmicsLink):
                continue
            values = {"region_name": region_name, "aws_domain": link.get_aws_domain(partition), **known}
            url = link.format_link(**values)
            if url:
                ti.xcom_push(key=link.key, value=values)
                if hasattr(link, "xcom_key"):
                    # Airflow 3 shows what is here, and writes it itself only when the task ends or defers.
                    ti.xcom_push(key=link.xcom_key, value=url)
    except Exception:
        log.debug("The links of task %s are not stored", operator.task_id, exc_info=True)


def _quote(text: str) -> str:
    return quote(text, safe="")


def _escape(text: str) -> str:
    """Escape what stands behind the ``#`` of CloudWatch's URLs, where the console has ``$`` for ``%``."""
    return _quote(text).replace("%", "$")
