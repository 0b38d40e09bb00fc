"""Extra links from tasks to the AWS console."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.amazon.aws.links.base_aws import BASE_AWS_CONSOLE_LINK, BaseAwsLink

from airflow_provider_omics_cache.redaction import printable

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

#: CloudWatch log group to which HealthOmics writes the logs of runs and run caches.
LOG_GROUP = "/aws/omics/WorkflowLog"

_HEALTHOMICS_CONSOLE = "https://{region_name}.console.{aws_domain}/omics/home?region={region_name}"


class LinkedTask:
    """Base of a task whose links :func:`persist_links` stores."""

    #: Values of the links that this process has stored. None if a process before a deferral has stored them.
    link_values: Mapping[str, str | None] | None = MappingProxyType({})


class OmicsLink(BaseAwsLink):
    """Base class of the links. There is no link in a partition whose console domain is not known."""

    #: XCom with the values of all links of a task. Airflow sorts XComs by their keys: these come last.
    key = "zz_omics_links"

    @property
    def xcom_key(self) -> str:
        """Key of the XCom in which Airflow 3 keeps the URL."""
        return f"zz_link_{type(self).__name__}"

    def format_link(self, **kwargs: Any) -> str:
        """Return the URL, or an empty string if a value is missing.

        :param kwargs: the values that :func:`persist_links` stored.
        """
        return str(super().format_link(**kwargs)) if kwargs.get("aws_domain") else ""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the URL, or an empty string if the task has no such link.

        Airflow 3 calls this method in the worker when the task ends. It logs an error if the method reads an XCom that
        does not exist.

        :param operator: the task. It knows the values if they were stored in this process.
        :param ti_key: the task instance.
        """
        values = getattr(operator, "link_values", None)
        if values is not None:
            return self.format_link(**values)
        return str(super().get_link(operator, ti_key=ti_key))


class OmicsRunLink(OmicsLink):
    """Link to a run in the HealthOmics console. Needs ``run_id``."""

    name = "HealthOmics Run"
    format_str = _HEALTHOMICS_CONSOLE + "#/runs/{run_id}"


class OmicsBatchLink(OmicsLink):
    """Link to the list of runs in the HealthOmics console, which includes the runs of the batch. Needs ``batch_id``.

    The console has no known page for a single batch. The URL names the batch for the reader only.
    """

    name = "HealthOmics Runs"
    format_str = _HEALTHOMICS_CONSOLE + "&batchId={batch_id}#/runs"


class OmicsRunGroupLink(OmicsLink):
    """Link to the list of runs in the HealthOmics console, which includes the runs of the group. Needs
    ``run_group_id``.

    No console page for a single run group is known. The URL contains the id of the group for the reader.
    """

    name = "HealthOmics Run Group"
    format_str = _HEALTHOMICS_CONSOLE + "&runGroupId={run_group_id}#/runs"


class OmicsRunCacheS3Link(OmicsLink):
    """Link to the folder of a run cache in the S3 console. Needs ``cache_s3_uri``."""

    name = "Run Cache in S3"
    format_str = BASE_AWS_CONSOLE_LINK + "/s3/buckets/{bucket}?region={region_name}&prefix={prefix}"

    def format_link(self, **kwargs: Any) -> str:
        """Return the URL, or an empty string if a value is missing.

        :param kwargs: the values that :func:`persist_links` stored.
        """
        if not kwargs.get("cache_s3_uri"):
            return ""
        bucket, _, prefix = kwargs["cache_s3_uri"].removeprefix("s3://").partition("/")
        return super().format_link(bucket=bucket, prefix=quote(prefix), **kwargs)


class OmicsLogGroupLink(OmicsLink):
    """Link to HealthOmics' log group in the CloudWatch console.

    With ``log_stream_prefix`` the page lists only the log streams of one run or run cache. A batch has no log streams
    of its own.
    """

    name = "HealthOmics Logs"
    format_str = BASE_AWS_CONSOLE_LINK + "/cloudwatch/home?region={region_name}#logsV2:log-groups/log-group/{log_group}"

    def format_link(self, **kwargs: Any) -> str:
        """Return the URL, or an empty string if a value is missing.

        :param kwargs: the values that :func:`persist_links` stored.
        """
        log_group = _escape(_quote(LOG_GROUP))
        if kwargs.get("log_stream_prefix"):
            log_group += _escape("?logStreamNameFilter=") + _escape(_quote(kwargs["log_stream_prefix"]))
        return super().format_link(log_group=log_group, **kwargs)


def persist_links(context: Context, operator: Any, **known: str) -> None:
    """Store the operator's links as XComs, so that the web UI shows them while the task is running.

    An error is logged and never fails the task. Call this function after the first call to AWS: the client then exists
    and its Region and partition are known. Creating a client can need a call to STS. A link is left out if a value
    that it needs is missing. All links of a task share one XCom with their values.

    :param context: Airflow's context of the task.
    :param operator: operator or sensor with a ``hook``. The links in its ``operator_extra_links`` are stored.
    :param known: values for the links: ``batch_id``, ``run_id``, ``run_group_id``, ``cache_s3_uri``,
        ``log_stream_prefix``.
    """
    if not operator.do_xcom_push:
        return
    try:
        ti = context["ti"]
        domain = OmicsLink.get_aws_domain(operator.hook.conn_partition)
        values = {"region_name": operator.hook.conn_region_name, "aws_domain": domain, **known}
        ti.xcom_push(key=OmicsLink.key, value=values)
        operator.link_values = values
        if not hasattr(BaseAwsLink, "xcom_key"):
            return
        for link in operator.operator_extra_links:
            url = link.format_link(**values) if isinstance(link, OmicsLink) else ""
            if url:
                # Airflow 3 reads the link from this XCom. Airflow itself writes it only when the task ends or defers.
                ti.xcom_push(key=link.xcom_key, value=url)
    except Exception as error:
        log.debug("Could not store the links of task %s", operator.task_id, exc_info=printable(error))


def _quote(text: str) -> str:
    return quote(text, safe="")


def _escape(text: str) -> str:
    """Escape the fragment of a CloudWatch URL: after ``#`` the console uses ``$`` instead of ``%``."""
    return _quote(text).replace("%", "$")
