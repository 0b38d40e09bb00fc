"""The operator that checks a batch of HealthOmics runs before it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_omics_cache.healthomics.preflight import SAMPLE_SIZE, check_sample_size
from airflow_provider_omics_cache.hooks.connections import check_connection
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import s3_client
from airflow_provider_omics_cache.tasks.session_policies import PolicyHidingTask, with_policies
from airflow_provider_omics_cache.tasks.starting import look_before_start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_omics_cache.xcoms import PreflightFinding


class PreflightOperator(PolicyHidingTask, AwsBaseOperator[OmicsCacheHook]):
    """Check a batch of HealthOmics runs before it is started, and report everything that is wrong at once.

    HealthOmics checks the settings of a batch only after it has accepted the batch, and the inputs of a run only after
    the run has started. This operator checks before the start: the settings, the workflow and its parameter template,
    the run cache, the run group, the configuration, the role, the buckets, a sample of the inputs, and the quotas. It
    writes and starts nothing. The number of calls is limited, also for 100,000 runs.

    Each finding is an error or a warning. The task logs each warning. If a finding is an error, the task fails without
    a retry. If the permissions of the connection do not allow a check, a warning names the permission.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflows-run-errors.html

    :param default_run_setting: settings that all runs share, as for StartRunBatchOperator. (templated)
    :param run_settings: settings of each run, as for StartRunBatchOperator. The file at an ``s3://`` URI is read.
        (templated)
    :param settings_s3_prefix: ``s3://`` URI below which StartRunBatchOperator uploads more than 100 settings. Its
        bucket is checked. Default: none. (templated)
    :param s3_conn_id: Airflow connection for S3. Default: ``aws_conn_id``. (templated)
    :param sample_size: maximum number of ``s3://`` values of parameters that are checked. They are spread over the
        batch. 0 checks no value. Default 100.
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's Region, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: options of the botocore client as a dict, merged over the connection's. Default: none.

    :return: the findings, all of which are warnings: a list of
        :class:`~airflow_provider_omics_cache.xcoms.PreflightFinding`. It is empty if everything is right.
    :raises PreflightError: a finding is an error. The text lists every error.
    :raises OmicsParameterError: a parameter is not valid.
    :raises OmicsVersionError: the installed botocore does not know batches.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: HealthOmics or S3 did not answer a call.
    """

    aws_hook_class = OmicsCacheHook
    template_fields: Sequence[str] = aws_template_fields(
        "default_run_setting", "run_settings", "settings_s3_prefix", "s3_conn_id"
    )
    template_fields_renderers = {"default_run_setting": "json", "run_settings": "json"}  # noqa: RUF012
    settings_with_policies = ("default_run_setting", "run_settings")

    def __init__(
        self,
        *,
        default_run_setting: dict[str, Any],
        run_settings: list[dict[str, Any]] | str,
        settings_s3_prefix: str | None = None,
        s3_conn_id: str | None = None,
        sample_size: int = SAMPLE_SIZE,
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
        check_sample_size(sample_size)
        self.default_run_setting = default_run_setting
        self.run_settings = run_settings
        self.settings_s3_prefix = settings_s3_prefix
        self.s3_conn_id = s3_conn_id
        self.sample_size = sample_size

    def execute(self, context: Any) -> list[PreflightFinding]:
        """Make all checks, log the warnings, and fail if there is an error.

        :param context: Airflow's context of the task.
        """
        if self.s3_conn_id:
            check_connection("s3_conn_id", self.s3_conn_id)
        # For the preflight, None stands for a single run. Here it is a mistake that the check of the settings explains.
        run_settings = "None" if self.run_settings is None else with_policies(self.run_settings)
        return look_before_start(
            self.hook,
            with_policies(self.default_run_setting),
            run_settings,
            settings_s3_prefix=self.settings_s3_prefix or None,
            s3=s3_client(aws_conn_id=self.s3_conn_id) if self.s3_conn_id else None,
            sample_size=self.sample_size,
        )
