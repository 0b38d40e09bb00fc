"""Operators for HealthOmics run groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_omics_cache.healthomics.resources import check_if_exists
from airflow_provider_omics_cache.healthomics.run_groups import ensure_run_group, remove_run_group, run_group_xcom
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.links.omics import LinkedTask, OmicsRunGroupLink, persist_links
from airflow_provider_omics_cache.tasks.ending import EMPTY_IDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import XComArg


class CreateRunGroupOperator(LinkedTask, AwsBaseOperator[OmicsCacheHook]):
    """Create a HealthOmics run group, or reuse the existing group of the same name.

    A run group limits what its runs use together, and so what they cost per hour. For a batch, put the returned id into
    ``default_run_setting`` as ``runGroupId``. For a single run, it is the parameter ``run_group_id``. Runs above a
    limit wait as PENDING until others have ended.

    Retries, cleared tasks and tasks that run at the same time never create a second group. If the service does not show
    whether the group exists, the task fails and can be retried. If the existing group has other limits or tags,
    ``if_exists`` decides what to do.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/creating-run-groups.html

    :param name: name of the group, 1 to 128 characters. (templated)
    :param max_cpus: CPUs that the active runs of the group may use together, 1 to 100,000. Default: no limit for a new
        group. Limits that are not given are not compared and not changed. A limit can also be a string, because
        templates return strings. (templated)
    :param max_gpus: GPUs that the active runs of the group may use together, 1 to 100,000. Default: as for
        ``max_cpus``. (templated)
    :param max_runs: number of runs of the group that may be active together, 1 to 100,000. Default: as for
        ``max_cpus``. (templated)
    :param max_duration: minutes that a run of the group may take, 1 to 100,000. The service fails a run that takes
        longer. Default: as for ``max_cpus``. (templated)
    :param tags: tags of the group, as a dict. Other tags of an existing group do not change. Default: none. (templated)
    :param request_id: idempotency token of the creation, 1 to 128 characters. Set it if an error asks for it. Default:
        derived from name and Region. (templated)
    :param if_exists: what to do if the group exists with other limits or tags: ``reuse`` uses it and logs a warning,
        ``update`` changes it, ``fail`` fails the task. Default: ``reuse``.
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's Region, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: options of the botocore client as a dict, merged over the connection's. Default: none.

    :return: id of the group. The XCom ``run_group`` (:class:`~airflow_provider_omics_cache.xcoms.RunGroupXCom`) has:

        * ``id``, ``arn``, ``name`` and ``tags`` of the group
        * ``max_cpus``, ``max_gpus``, ``max_runs``, ``max_duration``: its limits; None where it has no limit
        * ``creation_time``: in ISO 8601
        * ``created``: True if the group did not exist before this try

    :raises OmicsParameterError: a parameter is not valid, for example a limit is below 1. Nothing was created.
    :raises RunGroupError: ``if_exists`` is ``fail`` and the existing group differs, or the group could not be created.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: AWS refused or did not answer a call.
    :raises OmicsError: within 5 minutes the service did not show whether the group exists, or its changes. No other
        group is created.
    """

    aws_hook_class = OmicsCacheHook
    template_fields: Sequence[str] = aws_template_fields(
        "name", "max_cpus", "max_gpus", "max_runs", "max_duration", "tags", "request_id"
    )
    template_fields_renderers = {"tags": "json"}  # noqa: RUF012
    operator_extra_links = (OmicsRunGroupLink(),)

    def __init__(
        self,
        *,
        name: str,
        max_cpus: int | str | None = None,
        max_gpus: int | str | None = None,
        max_runs: int | str | None = None,
        max_duration: int | str | None = None,
        tags: Mapping[str, str] | None = None,
        request_id: str | None = None,
        if_exists: str = "reuse",
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
        self.name = name
        self.max_cpus = max_cpus
        self.max_gpus = max_gpus
        self.max_runs = max_runs
        self.max_duration = max_duration
        self.tags = tags
        self.request_id = request_id
        self.if_exists = if_exists

    def execute(self, context: Any) -> str:
        """Find or create the group, push the XCom ``run_group`` and return the group's id.

        :param context: Airflow's context of the task.
        """
        run_group, created = ensure_run_group(
            self.hook,
            name=self.name,
            max_cpus=self.max_cpus,
            max_gpus=self.max_gpus,
            max_runs=self.max_runs,
            max_duration=self.max_duration,
            tags=self.tags,
            request_id=self.request_id,
            if_exists=self.if_exists,
        )
        persist_links(context, self, run_group_id=run_group["id"])
        context["ti"].xcom_push(key="run_group", value=run_group_xcom(run_group, created=created))
        return str(run_group["id"])


class DeleteRunGroupOperator(AwsBaseOperator[OmicsCacheHook]):
    """Delete a HealthOmics run group. A group that is already deleted counts as success.

    The runs of the group, their outputs and their logs are not deleted. Delete a group after its runs have ended. If
    the service refuses to delete the group, the task fails. A retry can succeed after the runs have ended.

    As a teardown (``operator.as_teardown(setups=...)``) the task succeeds if ``run_group_id`` is empty, because no
    group was created.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_DeleteRunGroup.html

    :param run_group_id: id of the group, as CreateRunGroupOperator returns it. (templated)
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's Region, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: options of the botocore client as a dict, merged over the connection's. Default: none.

    :return: id of the group, after GetRunGroup no longer finds it; None in a teardown without a group.
    :raises OmicsParameterError: ``run_group_id`` is not a HealthOmics id (1 to 18 digits).
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: AWS refused or did not answer a call.
    :raises OmicsError: GetRunGroup still found the group after its deletion.
    """

    aws_hook_class = OmicsCacheHook
    template_fields: Sequence[str] = aws_template_fields("run_group_id")

    def __init__(
        self,
        *,
        run_group_id: str | XComArg,
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
        self.run_group_id = cast("str", run_group_id)

    def execute(self, context: Any) -> str | None:
        """Delete the group and return its id.

        :param context: Airflow's context of the task.
        """
        if self.is_teardown and self.run_group_id in EMPTY_IDS:
            self.log.info("Nothing to do: run_group_id is %r, no run group was created", self.run_group_id)
            return None
        remove_run_group(self.hook, run_group_id=self.run_group_id)
        return str(self.run_group_id)
