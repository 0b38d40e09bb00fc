"""A whole cohort as one task group."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

try:
    from airflow.sdk import TaskGroup
except ImportError:  # Airflow 2
    from airflow.utils.task_group import TaskGroup  # type: ignore[no-redef]

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.healthomics.cohort import parse_max_failed
from airflow_provider_omics_cache.healthomics.preflight import SAMPLE_SIZE
from airflow_provider_omics_cache.hooks.s3 import check_bucket_uri, check_object_uri, check_upload_args
from airflow_provider_omics_cache.operators.run_batch import CancelRunBatchOperator
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.resubmission import (
    RERUN_KEY,
    RESUMABLE_RUN_FAILURES,
    RETRYABLE_SUBMISSION_FAILURES,
)
from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor
from airflow_provider_omics_cache.task_groups.cohort_tasks import (
    ChooseNextRoundOperator,
    CohortCompletionSensor,
    CohortPreflightOperator,
    CohortResultsOperator,
    FreezeRunSettingsOperator,
    StartCohortBatchOperator,
    check_results_uri,
)
from airflow_provider_omics_cache.task_groups.samplesheet import Samplesheet
from airflow_provider_omics_cache.tasks.parameters import DEFAULT_DEFERRABLE, DEFAULT_SENSOR_TIMEOUT, check_flags
from airflow_provider_omics_cache.tasks.wait import WAITER_DELAY

if TYPE_CHECKING:
    from airflow.sdk import XComArg

__all__ = ["OmicsCohortTaskGroup", "RunCache", "Samplesheet"]

#: Maximum number of batches of a cohort.
MAX_ROUNDS = 10

#: Trigger rule of the tasks that must not run after a task that failed or was skipped. Another rule in ``default_args``
#: applies to the first task of the group only.
_ALL_SUCCESS = "all_success"

_FORMATS = ("jsonl", "csv")


@dataclass(frozen=True, kw_only=True)
class RunCache:
    """A run cache that the cohort creates, or reuses if it exists, as CreateRunCacheOperator does.

    :param name: name of the cache. (templated)
    :param cache_s3_location: S3 URI for the cache's data. (templated)
    :param cache_behavior: ``CACHE_ON_FAILURE`` or ``CACHE_ALWAYS``. Default: the service's default,
        ``CACHE_ON_FAILURE``. (templated)
    :param cache_bucket_owner_id: id of the AWS account that must own the bucket. Default: the account of the
        connection. (templated)
    :param description: description of the cache. Default: none. (templated)
    :param tags: tags of the cache. Default: none. (templated)
    :param if_exists: what to do if the cache exists with other values: ``reuse``, ``update`` or ``fail``. Default:
        ``reuse``.
    """

    name: str
    cache_s3_location: str
    cache_behavior: str | None = None
    cache_bucket_owner_id: str | None = None
    description: str | None = None
    tags: Mapping[str, str] | None = None
    if_exists: str = "reuse"


class OmicsCohortTaskGroup(TaskGroup):
    """Run a workflow for each sample of a cohort, run again what can succeed, and write one record for each sample.

    The tasks of the group:

    * ``freeze_settings`` writes the run settings to S3, once for a DAG run and ``rerun_key``. A retry, a cleared DAG
      run and a changed samplesheet find the same settings.
    * ``ensure_run_cache`` creates or finds the run cache, with a :class:`RunCache`.
    * ``preflight`` looks for what would fail, before anything is started. It checks nothing if the first batch exists.
    * ``round_1.start_batch``, ``wait_for_submission`` and ``wait_for_completion`` run the batch of all samples.
    * ``round_2.choose_samples`` writes the settings of the samples to submit again, because their submission failed for
      a reason that can pass, and of those to resume from the run cache, because their run failed for a reason of AWS.
      If there is none, the round is skipped. The other tasks of the round, and further rounds, follow.
    * ``round_1.cancel_batch`` and so on, with ``cancel_on_failure``: a teardown that cancels a batch that is still
      active when its waits have ended, because a wait failed or timed out, or somebody marked it.
    * ``results`` always runs. It writes one record for each sample, and fails without a retry if more than
      ``max_failed`` samples have no completed run.

    A sample gets a new run only if its record shows that its last submission or run failed. Nothing is started again by
    a cleared DAG run: a round that has a batch uses it, whatever its status. Set ``rerun_key`` to start all over.

    Settings and records pass through S3 only. Everything is written below ``staging_s3_prefix``, and nothing is
    deleted: use a lifecycle rule of the bucket.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html

    :param group_id: id of the group.
    :param staging_s3_prefix: ``s3://`` URI below which the group writes. The role of the runs must be able to read
        there. (templated)
    :param samplesheet: the samplesheet. Give either this or ``run_settings``.
    :param run_settings: the run settings: a list of dicts with the members of AWS's ``InlineSetting``, the output of a
        task, or the ``s3://`` URI of a JSON array of them. (templated)
    :param workflow_id: id of the workflow. This and the next two can also be in ``default_run_setting``. (templated)
    :param role_arn: ARN of the role of the runs. (templated)
    :param output_uri: S3 URI below which the runs write their outputs. (templated)
    :param default_run_setting: other settings that all runs share, with the members of AWS's ``DefaultRunSetting``.
        Default: none. (templated)
    :param run_cache: the run cache: a :class:`RunCache`, or the id of a cache. Default: None. Without a run cache
        nothing is resumed, and only failed submissions are submitted again. (an id is templated)
    :param rounds: maximum number of batches, 1 to 10: the first one, and those of what failed. Default 3.
    :param max_failed: how many samples need not complete: a number, or a share of all samples such as ``"2%"``,
        rounded down. Default 0. (templated)
    :param resume_reasons: failure reasons of runs after which a sample is resumed. It needs a run cache. Default:
        :data:`~airflow_provider_omics_cache.resubmission.RESUMABLE_RUN_FAILURES`.
    :param resubmit_reasons: reasons of failed submissions after which a sample is submitted again. Default:
        :data:`~airflow_provider_omics_cache.resubmission.RETRYABLE_SUBMISSION_FAILURES`.
    :param results_s3_uri: S3 URI of the results, below ``staging_s3_prefix``. Default: ``results.jsonl`` or
        ``results.csv`` in the folder of the DAG run. (templated)
    :param results_format: ``jsonl``: one :class:`~airflow_provider_omics_cache.xcoms.CohortRecord` per line. ``csv``:
        its members except ``history``, and the parameters of the run. Default: ``jsonl``.
    :param preflight: whether to check the first batch before it is started, as PreflightOperator does. Default True.
    :param sample_size: how many ``s3://`` values of parameters the preflight looks at. Default 100.
    :param fail_fast: whether the first batch is cancelled as soon as its submission is over and GetBatch counts more
        failed runs, failed submissions among them, than ``max_failed`` allows. No further round is started then, also
        not for runs that could be resumed. Needs ``cancel_on_failure=True``. Default False.
    :param cancel_on_failure: whether a teardown cancels a batch whose wait failed. Default False.
    :param tags: tags of the batches, as for StartRunBatchOperator. (templated)
    :param run_tags: tags of every run. (templated)
    :param rerun_key: any string. Another string starts the cohort all over in the same DAG run. Default:
        :data:`~airflow_provider_omics_cache.resubmission.RERUN_KEY`. (templated)
    :param deferrable: whether all waits are in the triggerer; needs aiobotocore. Otherwise each wait occupies a worker
        slot, unless ``default_args`` has ``mode="reschedule"``. Default: ``[operators] default_deferrable``.
    :param poke_interval: seconds between two GetBatch calls, or a timedelta. Default 60.
    :param timeout: seconds after which a wait fails, or a timedelta. Default: ``[sensors] default_timeout``, 7 days
        unless it is set.
    :param s3_conn_id: Airflow connection for S3. Default: ``aws_conn_id``. (templated)
    :param s3_extra_args: arguments of uploads to S3, such as ``ServerSideEncryption``. (templated)
    :param aws_conn_id: Airflow connection for AWS. Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.
    :param kwargs: other parameters of Airflow's TaskGroup, such as ``default_args`` and ``tooltip``. ``default_args``
        of the group or the DAG decide about the connection and the waits if the parameters above are not given.
    :raises OmicsParameterError: a parameter breaks a rule. Parameters that are templates are checked by
        ``freeze_settings``, before anything is written.
    """

    #: URI of the results, when ``results`` has succeeded.
    results: XComArg
    #: XCom ``summary``, a :class:`~airflow_provider_omics_cache.xcoms.CohortSummary`.
    summary: XComArg

    def __init__(
        self,
        group_id: str,
        *,
        staging_s3_prefix: str,
        samplesheet: Samplesheet | None = None,
        run_settings: list[dict[str, Any]] | XComArg | str | None = None,
        workflow_id: str | None = None,
        role_arn: str | None = None,
        output_uri: str | None = None,
        default_run_setting: Mapping[str, Any] | None = None,
        run_cache: RunCache | XComArg | str | None = None,
        rounds: int = 3,
        max_failed: int | str = 0,
        resume_reasons: Iterable[str] | None = None,
        resubmit_reasons: Iterable[str] = RETRYABLE_SUBMISSION_FAILURES,
        results_s3_uri: str | None = None,
        results_format: str = "jsonl",
        preflight: bool = True,
        sample_size: int = SAMPLE_SIZE,
        fail_fast: bool = False,
        cancel_on_failure: bool = False,
        tags: dict[str, str] | None = None,
        run_tags: dict[str, str] | None = None,
        rerun_key: str | None = RERUN_KEY,
        deferrable: bool = DEFAULT_DEFERRABLE,
        poke_interval: float | timedelta = WAITER_DELAY,
        timeout: float | timedelta = DEFAULT_SENSOR_TIMEOUT,
        s3_conn_id: str | None = None,
        s3_extra_args: dict[str, Any] | None = None,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_flags(
            preflight=preflight, fail_fast=fail_fast, cancel_on_failure=cancel_on_failure, deferrable=deferrable
        )
        if fail_fast and not cancel_on_failure:
            raise OmicsParameterError("fail_fast", "needs cancel_on_failure=True: it cancels the batch", fail_fast)
        _check_one_source(samplesheet, run_settings)
        _check_rounds(rounds)
        if _is_known(max_failed):
            parse_max_failed(max_failed)
        if not isinstance(staging_s3_prefix, str) or _is_known(staging_s3_prefix):
            check_bucket_uri("staging_s3_prefix", staging_s3_prefix)
        check_upload_args(s3_extra_args)
        if results_format not in _FORMATS:
            raise OmicsParameterError("results_format", f"must be one of {', '.join(_FORMATS)}", results_format)
        setting = _default_run_setting(
            default_run_setting, workflowId=workflow_id, roleArn=role_arn, outputUri=output_uri
        )
        if isinstance(run_cache, str | int) and run_cache and _is_known(run_cache):
            _check_cache_id(run_cache)
        if run_cache and "cacheId" in setting:
            raise OmicsParameterError(
                "run_cache", "must not be given twice: default_run_setting has cacheId", run_cache
            )
        if resume_reasons and not (run_cache or "cacheId" in setting):
            rule = "needs a run cache, without which a new run computes every task again: set run_cache"
            raise OmicsParameterError("resume_reasons", rule, resume_reasons)
        resumed = _reasons("resume_reasons", RESUMABLE_RUN_FAILURES if resume_reasons is None else resume_reasons)
        resubmitted = _reasons("resubmit_reasons", resubmit_reasons)
        super().__init__(group_id, **kwargs)
        folder = self._folder(staging_s3_prefix, rerun_key)
        results_s3_uri = results_s3_uri or f"{folder}/results.{results_format}"
        _check_results(results_s3_uri, staging_s3_prefix)
        connection = _chosen(
            aws_conn_id=aws_conn_id, region_name=region_name, verify=verify, botocore_config=botocore_config
        )
        s3_connection = _chosen(s3_conn_id=s3_conn_id)
        files = {**s3_connection, **_chosen(s3_extra_args=s3_extra_args), **connection}
        deferral = _chosen(deferrable=deferrable)
        wait = {**deferral, **_chosen(poke_interval=poke_interval, timeout=timeout)}
        settings_uris = [f"{folder}/round_{number}_settings.json" for number in range(1, rounds + 1)]
        runs_uris = [f"{folder}/round_{number}_runs.jsonl" for number in range(1, rounds + 1)]
        with self:
            freeze = FreezeRunSettingsOperator(
                task_id="freeze_settings",
                settings_s3_uri=settings_uris[0],
                run_settings=run_settings,
                rows=samplesheet.rows if samplesheet else None,
                samplesheet=samplesheet,
                staging_s3_prefix=staging_s3_prefix,
                results_s3_uri=results_s3_uri,
                max_failed=max_failed,
                **files,
            )
            ready: Any = freeze
            if isinstance(run_cache, RunCache):
                cache = CreateRunCacheOperator(
                    task_id="ensure_run_cache", trigger_rule=_ALL_SUCCESS, **vars(run_cache), **connection
                )
                freeze >> cache
                run_cache = cache.output
            if run_cache:
                setting["cacheId"] = run_cache
            if preflight:
                ready = CohortPreflightOperator(
                    task_id="preflight",
                    start_task_id=cast("Any", self).child_id("round_1.start_batch"),
                    rerun_key=rerun_key,
                    default_run_setting=setting,
                    run_settings=settings_uris[0],
                    settings_s3_prefix=staging_s3_prefix,
                    sample_size=sample_size,
                    trigger_rule=_ALL_SUCCESS,
                    **s3_connection,
                    **connection,
                )
                freeze >> ready
            writers: list[Any] = [freeze]
            starts: list[Any] = []
            completions: list[Any] = []
            ends: list[Any] = []
            for number, settings_uri, runs_uri in zip(range(1, rounds + 1), settings_uris, runs_uris, strict=True):
                with TaskGroup(f"round_{number}"):
                    if starts:
                        choose = ChooseNextRoundOperator(
                            task_id="choose_samples",
                            batch_id=starts[-1].output,
                            settings_s3_uri=settings_uris[number - 2],
                            runs_s3_uri=runs_uris[number - 2],
                            settings_task_id=writers[-1].task_id,
                            settings_result=writers[-1].output,
                            runs_task_id=completions[-1].task_id,
                            runs_result=completions[-1].output,
                            next_settings_s3_uri=settings_uri,
                            resume_reasons=resumed if "cacheId" in setting else [],
                            resubmit_reasons=resubmitted,
                            # The wait before fails if the batch was cancelled or has failed.
                            trigger_rule="all_done",
                            **files,
                        )
                        ready >> choose
                        ready = choose
                        writers.append(choose)
                    start = StartCohortBatchOperator(
                        task_id="start_batch",
                        default_run_setting=setting,
                        run_settings=settings_uri,
                        tags=tags,
                        run_tags=run_tags,
                        rerun_key=rerun_key,
                        # The group finds its batches by their default names and tokens, whatever default_args have.
                        batch_name=None,
                        request_id=None,
                        do_xcom_push=True,
                        wait_for_completion=False,
                        trigger_rule=_ALL_SUCCESS,
                        **files,
                    )
                    submission = BatchSubmissionSensor(
                        task_id="wait_for_submission",
                        batch_id=start.output,
                        max_failed_submissions="100%",
                        mapping_s3_uri=f"{folder}/round_{number}_submissions.jsonl",
                        trigger_rule=_ALL_SUCCESS,
                        **wait,
                        **files,
                    )
                    completion = CohortCompletionSensor(
                        task_id="wait_for_completion",
                        batch_id=start.output,
                        max_failed_runs="100%",
                        max_failed_samples=max_failed,
                        fail_fast=fail_fast and number == 1,
                        runs_s3_uri=runs_uri,
                        include_outputs=True,
                        # The wait for the submission fails if the batch was cancelled or has failed.
                        trigger_rule="all_done",
                        **wait,
                        **files,
                    )
                    ready >> start
                    submission >> completion
                    ready = completion
                    starts.append(start)
                    completions.append(completion)
                    ends.append(completion)
                    if cancel_on_failure:
                        cancel = CancelRunBatchOperator(
                            task_id="cancel_batch",
                            batch_id=start.output,
                            waiter_delay=poke_interval,
                            **deferral,
                            **connection,
                        ).as_teardown()
                        completion >> cancel
                        ends.append(cancel)
            results = CohortResultsOperator(
                task_id="results",
                settings_s3_uris=settings_uris,
                runs_s3_uris=runs_uris,
                batch_ids=[start.output for start in starts],
                settings_task_ids=[writer.task_id for writer in writers],
                settings_results=[writer.output for writer in writers],
                start_task_ids=[start.task_id for start in starts],
                runs_task_ids=[completion.task_id for completion in completions],
                runs_results=[completion.output for completion in completions],
                results_s3_uri=results_s3_uri,
                staging_s3_prefix=staging_s3_prefix,
                results_format=results_format,
                max_failed=max_failed,
                rerun_key=rerun_key,
                do_xcom_push=True,
                trigger_rule="all_done",
                **files,
            )
            [freeze, *ends] >> results
        self.results = results.output
        self.summary = cast("Any", results.output)["summary"]

    def _folder(self, staging_s3_prefix: str, rerun_key: str | None) -> str:
        """Return the URI below which a DAG run, or a map index of it, has its files."""
        is_mapped = any(True for _ in self.iter_mapped_task_groups())
        map_index = "/{{ ti.map_index }}" if is_mapped else ""
        return (
            f"{staging_s3_prefix.rstrip('/')}/{{{{ ti.dag_id }}}}/{{{{ run_id }}}}/{self.group_id}{map_index}"
            f"/rerun_key={rerun_key or ''}"
        )


def _chosen(**parameters: Any) -> dict[str, Any]:
    """Return the parameters that do not have their defaults, so that ``default_args`` decide about the others."""
    defaults = inspect.signature(OmicsCohortTaskGroup.__init__).parameters
    return {name: value for name, value in parameters.items() if value != defaults[name].default}


def _check_one_source(samplesheet: Any, run_settings: Any) -> None:
    if (samplesheet is None) == (run_settings is None):
        raise OmicsParameterError("samplesheet", "must be given, or else run_settings, and not both", samplesheet)
    if samplesheet is not None and not isinstance(samplesheet, Samplesheet):
        raise OmicsParameterError("samplesheet", "must be a Samplesheet", samplesheet)
    if isinstance(run_settings, list) and not run_settings:
        raise OmicsParameterError("run_settings", "must have at least one run setting", run_settings)


def _check_cache_id(run_cache: str | int) -> None:
    if not re.fullmatch("[0-9]{1,18}", str(run_cache)):
        raise OmicsParameterError("run_cache", "must be a RunCache, or the id of a cache (1 to 18 digits)", run_cache)


def _check_rounds(rounds: Any) -> None:
    if not isinstance(rounds, int) or isinstance(rounds, bool) or not 1 <= rounds <= MAX_ROUNDS:
        raise OmicsParameterError("rounds", f"must be an integer from 1 to {MAX_ROUNDS}", rounds)


def _is_known(value: Any) -> bool:
    """Whether a value is known when the DAG is parsed: it is neither a template nor the output of a task."""
    return value is None or (isinstance(value, str | int | float) and "{" not in str(value))


def _check_results(results_s3_uri: str, staging_s3_prefix: str) -> None:
    if _is_known(results_s3_uri):
        check_object_uri("results_s3_uri", results_s3_uri)
    if _is_known(results_s3_uri) and _is_known(staging_s3_prefix):
        check_results_uri(results_s3_uri, staging_s3_prefix)


def _default_run_setting(given: Any, **members: Any) -> dict[str, Any]:
    """Return the default run setting with the members that were given as parameters."""
    if given is not None and not isinstance(given, Mapping):
        raise OmicsParameterError("default_run_setting", "must be a dict", type(given).__name__)
    setting = dict(given or {})
    for name, value in members.items():
        if value is not None and name in setting:
            raise OmicsParameterError(f"default_run_setting.{name}", "must not be given twice", value)
        if value is not None:
            setting[name] = value
    for name in ("workflowId", "roleArn"):
        if not setting.get(name):
            raise OmicsParameterError(f"default_run_setting.{name}", "must be given", setting.get(name))
    return setting


def _reasons(parameter: str, reasons: Any) -> list[str]:
    given: list[Any] = [None] if isinstance(reasons, str) or not isinstance(reasons, Iterable) else list(reasons)
    if not all(isinstance(reason, str) and reason for reason in given):
        raise OmicsParameterError(parameter, "must be a list of reasons", reasons)
    return sorted(given)
