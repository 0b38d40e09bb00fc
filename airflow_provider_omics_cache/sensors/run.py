"""Sensors that wait for single HealthOmics runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_omics_cache._compat import PokeReturnValue
from airflow_provider_omics_cache.hooks.client import LONGEST_SILENCE
from airflow_provider_omics_cache.tasks.parameters import DEFAULT_DEFERRABLE, DEFAULT_SENSOR_TIMEOUT
from airflow_provider_omics_cache.tasks.run_wait import RunWaitSensor, run_error
from airflow_provider_omics_cache.tasks.wait import WAITER_DELAY
from airflow_provider_omics_cache.triggers.run import RunCompletionTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_omics_cache.healthomics.awaited_run import Run


class RunCompletionSensor(RunWaitSensor):
    """Wait until a single run has completed. The sensor fails if the run failed, was cancelled or was deleted.

    It calls GetRun once per round, and never cancels anything. It pushes the XCom ``run``
    (:class:`~airflow_provider_omics_cache.xcoms.RunXCom`) when the wait ends, also before it fails because of the run.
    ``run_output_uri`` is where the outputs are. ``failure_reason`` and ``status_message`` say why a run failed.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetRun.html

    :param run_id: id of the run, as StartRunOperator returns it. (templated)
    :param run_uuid: uuid of the run, as the XCom ``run`` has it. HealthOmics reuses the ids of deleted runs. If the
        uuid is given, the sensor fails if the id belongs to another run. Default: the uuid in the first answer.
        (templated)
    :param max_silence: seconds without an answer about the run (throttling, server errors, lost connections) after
        which the task fails, or a timedelta. Default 3600.
    :param poke_interval: seconds between two GetRun calls, at least 1, or a timedelta. Default 60.
        ``exponential_backoff`` has no effect on a deferred task.
    :param timeout: seconds of waiting after which the task fails with AirflowSensorTimeout, or a timedelta. The run
        continues. Default: ``[sensors] default_timeout``, 7 days unless it is set.
    :param deferrable: whether to wait in the triggerer; needs aiobotocore. Default: ``[operators]
        default_deferrable``.
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: id of the run.
    :raises OmicsParameterError: a parameter breaks a rule.
    :raises RunFailedError: the run failed. The task is not retried after this error or the next three.
    :raises RunCancelledError: the run was cancelled.
    :raises RunDeletedError: GetRun shows the run as deleted, or shows another run with its id.
    :raises RunNotFoundError: the service does not know the run.
    :raises RunSilenceError: no answer about the run came for ``max_silence``.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: a call to AWS failed.
    """

    template_fields: Sequence[str] = aws_template_fields("run_id", "run_uuid")
    trigger_class = RunCompletionTrigger

    def __init__(
        self,
        *,
        run_id: str | XComArg,
        run_uuid: str | XComArg | None = None,
        max_silence: float | timedelta = LONGEST_SILENCE,
        poke_interval: float | timedelta = WAITER_DELAY,
        timeout: float | timedelta = DEFAULT_SENSOR_TIMEOUT,
        deferrable: bool = DEFAULT_DEFERRABLE,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            max_silence=max_silence,
            poke_interval=poke_interval,
            timeout=timeout,
            deferrable=deferrable,
            aws_conn_id=aws_conn_id,
            region_name=region_name,
            verify=verify,
            botocore_config=botocore_config,
            **kwargs,
        )
        self.run_id = cast("str", run_id)
        self.run_uuid = cast("str | None", run_uuid)

    def conclude(self, subject: Run, context: Context, *, has_failed: bool) -> PokeReturnValue:
        """Return the id of the run, or raise the error.

        :param subject: the run, as GetRun showed it last.
        :param context: Airflow's context of the task.
        :param has_failed: whether the run ended without completing.
        """
        if has_failed:
            raise run_error(subject)
        self.log.info("Run %s has completed; its outputs are under %s", subject.id, subject.run_output_uri)
        return PokeReturnValue(is_done=True, xcom_value=subject.id)
