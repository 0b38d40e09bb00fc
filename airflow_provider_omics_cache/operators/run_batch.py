"""Operators for HealthOmics batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache._compat import PokeReturnValue
from airflow_provider_omics_cache.configuration import is_set
from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchConflictError,
    BatchError,
    OmicsError,
    OmicsParameterError,
)
from airflow_provider_omics_cache.healthomics.completion import RunCounts
from airflow_provider_omics_cache.healthomics.end import (
    LOOK_AGAIN_SECONDS,
    cancel_active_runs,
    cancel_batch_of_killed_task,
    cancel_batch_once,
    delete_batch_once,
    delete_existing_runs,
    delete_runs_once,
    get_deletable_batch,
    is_batch_visible,
    was_cancelled,
)
from airflow_provider_omics_cache.healthomics.identity import TASK_TAGS, request_digest
from airflow_provider_omics_cache.healthomics.once import Started
from airflow_provider_omics_cache.healthomics.outputs import own_output_uris
from airflow_provider_omics_cache.healthomics.rounds import CONSISTENCY_SECONDS, Batch, count_active
from airflow_provider_omics_cache.healthomics.settings import check_cache_behavior, check_member, unknown_key_rule
from airflow_provider_omics_cache.healthomics.staging import (
    CheckedSettings,
    StagingArea,
    check_settings,
    stage_settings,
)
from airflow_provider_omics_cache.healthomics.start import OWN_TAGS, BatchRequest, StartBatchOnce
from airflow_provider_omics_cache.healthomics.states import (
    ENDED_RUN_STATUSES,
    End,
    RunStatus,
    ToCancel,
    ToDelete,
    meaning_of,
    shown,
)
from airflow_provider_omics_cache.hooks.arguments import check_id, check_request_id, check_tags
from airflow_provider_omics_cache.hooks.client import LONGEST_SILENCE
from airflow_provider_omics_cache.links.omics import OmicsBatchLink, OmicsLogGroupLink, OmicsRunLink, persist_links
from airflow_provider_omics_cache.tasks.ending import EndRunBatchOperator
from airflow_provider_omics_cache.tasks.mapping import MappingSavingOperator
from airflow_provider_omics_cache.tasks.outcome import RunOutcomeTask
from airflow_provider_omics_cache.tasks.parameters import DEFAULT_DEFERRABLE, check_effect, check_flags
from airflow_provider_omics_cache.tasks.session_policies import PolicyHidingTask, with_policies
from airflow_provider_omics_cache.tasks.starting import (
    check_own_tags,
    checked_tags,
    look_before_start,
    request_members,
    task_identity,
)
from airflow_provider_omics_cache.tasks.wait import WAITER_DELAY, WEEK, BatchWaitOperator, seconds
from airflow_provider_omics_cache.triggers.run_batch import (
    BatchCancellationTrigger,
    BatchDeletionTrigger,
    StartRunBatchTrigger,
)

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_omics_cache.xcoms import BatchXCom

_IDS = ("workflowId", "cacheId", "runGroupId")
_SPOOLED_BYTES = 1024**2
#: Maximum seconds to cancel the batch at ``timeout`` or after ``fail_fast``, including the wait for a batch that cannot
#: be cancelled yet.
CANCEL_SECONDS = 300.0


class StartRunBatchOperator(PolicyHidingTask, RunOutcomeTask, BatchWaitOperator):
    """Start a batch of HealthOmics runs, once: a retry finds the batch that an earlier try started.

    One batch belongs to one task of one DAG run (and to one ``map_index``). Retries and cleared tasks find it, even if
    the answer of StartRunBatch was lost. The newest batch of the task decides:

    - An active or processed batch with the same settings is used.
    - A new batch replaces one that failed before it started a run, and a processed one with other settings.
    - The task fails without a retry if the batch is active with other settings, failed after it started runs, was
      cancelled, or its runs were deleted. The error says what to do.

    The order of the settings, and of the keys inside them, makes no difference.

    ``batch_name`` must be the same for all tries. After a change the batch is not found: the task fails, or starts a
    second batch if the service has forgotten the token of the first.

    With ``wait_for_completion=True`` the task waits until every run has ended, as BatchCompletionSensor does. It pushes
    the XCom ``batch`` before it waits. A retry finds the batch and waits for it.

    Up to 100 run settings are part of the request. More than 100 are uploaded as one JSON array below
    ``settings_s3_prefix``. The file is named after the SHA-256 of its content and never overwritten. The package does
    not delete it: use a lifecycle rule of the bucket.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html

    :param default_run_setting: settings that all runs share, with the members of AWS's ``DefaultRunSetting``
        (camelCase). ``workflowId`` and ``roleArn`` are required. Airflow shows a ``sessionPolicy`` as ``***``.
        (templated)
    :param run_settings: settings of each run: a list of at most 100,000 dicts with the members of AWS's
        ``InlineSetting``, each with a unique ``runSettingId``; or the ``s3://`` URI of a JSON array of them. The
        package does not read the file at the URI, except with ``preflight=True``. The file must not change until the
        batch is submitted, and must exist for every try. (templated)
    :param batch_name: beginning of the batch's name; at most 47 characters of it are used. The name ends in a hash of
        what the batch belongs to. Default: the DAG id and the task id, shortened if they are longer. (templated)
    :param tags: tags of the batch, at most 42, because the operator adds up to eight. With ``[omics_cache]
        tag_with_task = False`` the operator does not add the DAG id, the run id, the task id and the map index, and
        46 tags are allowed. Runs do not inherit the tags. (templated)
    :param run_tags: tags of every run, merged over ``runTags`` of ``default_run_setting``; at most 50 together.
        (templated)
    :param settings_s3_prefix: ``s3://`` URI below which more than 100 settings are uploaded. The role of the runs must
        be able to read there. (templated)
    :param s3_conn_id: Airflow connection for S3. Giving it with a list as ``run_settings``, and without
        ``settings_s3_prefix`` and ``runs_s3_uri``, is an error, because the task then does not use S3. Default:
        ``aws_conn_id``. (templated)
    :param s3_extra_args: arguments of uploads to S3, such as ``ServerSideEncryption``, ``SSEKMSKeyId``,
        ``BucketKeyEnabled`` or ``ExpectedBucketOwner``. HeadObject gets those that it also takes. Giving them is an
        error in the same case as for ``s3_conn_id``. Default: if the settings are in the bucket of ``outputUri``, the
        expected owner is ``outputBucketOwnerId``. (templated)
    :param request_id: idempotency token, at most 128 characters. Default: derived from the DAG run, the task and
        ``rerun_key``. (templated)
    :param rerun_key: any string. A different string starts another batch in the same DAG run. (templated)
    :param preflight: whether to make the checks of PreflightOperator before a new batch is started and its settings are
        uploaded. If a finding is an error, the task fails without a retry. Warnings are logged. A batch of an earlier
        try is used without these checks. Default False.
    :param wait_for_completion: whether to wait for the end of the runs. Without it, the parameters of the wait must not
        be given, because they have no effect; only ``default_args`` may contain them. Default False.
    :param waiter_delay: seconds between two GetBatch calls, at least 1, or a timedelta. Default 60.
    :param timeout: seconds of waiting after which the task fails, or a timedelta. Default: 7 days.
    :param deferrable: whether to wait in the triggerer; needs aiobotocore. Default: ``[operators]
        default_deferrable``.
    :param max_failed_runs: how many runs may fail to complete, as for BatchCompletionSensor: a number, or a share of
        all runs such as ``"5%"``. Default 0. (templated)
    :param fail_fast: whether to end the wait in the first round in which GetBatch counts more failed runs than
        ``max_failed_runs`` allows, as BatchCompletionSensor does. Default False.
    :param cancel_on_failure: whether to cancel the batch when ``fail_fast`` ends the wait. Needs ``fail_fast=True``.
        Default False.
    :param runs_s3_uri: S3 URI of the object to which a record of each run is written, as by BatchCompletionSensor. In a
        mapped task it must differ for each map index. (templated)
    :param include_outputs: whether the records have the location of the outputs: True or ``"exact"``, as for
        BatchCompletionSensor. If ``run_settings`` is a list, locations are derived even for run settings that have
        their own ``outputUri``. Default False.
    :param consistency_timeout: seconds after the end of the batch, or a timedelta, for which the task waits until the
        counts and listings include every run. Default 300.
    :param max_silence: seconds of waiting without an answer after which the task fails, or a timedelta. Default 3600.
    :param cancel_on_kill: whether to cancel the batch when the task is killed while it waits: marked, cleared, or
        stopped by ``execution_timeout``. For deferred tasks, marking and clearing are detected on Airflow 3.3 and
        newer; ``execution_timeout`` acts like ``timeout``. Default False.
    :param cancel_on_timeout: whether to cancel the batch at ``timeout``. The task is not retried then, unless the batch
        had ended before the cancellation. Default False.
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: id of the batch. The XCom ``batch`` (:class:`~airflow_provider_omics_cache.xcoms.BatchXCom`) has:

        * ``id``, ``arn``, ``uuid``, ``status``, ``name``: as GetBatch shows them;
        * ``expected_runs``: number of run settings, None if the task did not read them;
        * ``request_id``: idempotency token of the batch;
        * ``settings_s3_uri``: where the settings are, None for inline settings. If an earlier try started the batch
          with the settings in another order, the batch reads a file of another name;
        * ``reattached``: whether an earlier try started the batch. It is False if the service does not list that batch
          yet, and returns it only for the same token.

        After a wait, ``status`` is the last one that GetBatch showed, and ``total_runs``, ``submitted`` and ``failed``
        are its counts. The XComs ``run_counts``, ``failed_runs`` and ``failed_run_count`` are those of
        BatchCompletionSensor.
    :raises OmicsParameterError: a parameter breaks a rule; nothing was started or uploaded.
    :raises PreflightError: with ``preflight=True``: a finding is an error; nothing was started or uploaded.
    :raises OmicsVersionError: the installed botocore does not know batches.
    :raises BatchError: the batch of an earlier try can neither be used nor replaced. After a wait: the batch failed,
        was cancelled or its runs were deleted, or (TooManyFailedRunsError) too many runs did not complete.
    :raises BatchTimeoutError: the batch had not ended at ``timeout``. A retry waits for the same batch.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: a call to AWS failed.
    """

    trigger_class = StartRunBatchTrigger
    #: Finds the batch of an earlier try, or starts a new one.
    start_once_class: ClassVar[type[StartBatchOnce]] = StartBatchOnce
    template_fields: Sequence[str] = aws_template_fields(
        "default_run_setting",
        "run_settings",
        "batch_name",
        "tags",
        "run_tags",
        "settings_s3_prefix",
        "s3_conn_id",
        "s3_extra_args",
        "request_id",
        "rerun_key",
        "max_failed_runs",
        "runs_s3_uri",
    )
    template_fields_renderers = {  # noqa: RUF012
        "default_run_setting": "json",
        "run_settings": "json",
        "tags": "json",
        "run_tags": "json",
        "s3_extra_args": "json",
    }
    operator_extra_links = (OmicsRunLink(), OmicsBatchLink(), OmicsLogGroupLink())

    settings_with_policies = ("default_run_setting", "run_settings")
    batch_id = ""
    #: XCom ``batch``, as it was pushed last.
    _known_batch: BatchXCom | None = None

    def __init__(
        self,
        *,
        default_run_setting: dict[str, Any],
        run_settings: list[dict[str, Any]] | str,
        batch_name: str | None = None,
        tags: dict[str, str] | None = None,
        run_tags: dict[str, str] | None = None,
        settings_s3_prefix: str | None = None,
        s3_conn_id: str | None = None,
        s3_extra_args: dict[str, Any] | None = None,
        request_id: str | None = None,
        rerun_key: str | None = None,
        preflight: bool = False,
        wait_for_completion: bool = False,
        waiter_delay: float | timedelta = WAITER_DELAY,
        timeout: float | timedelta = WEEK,
        max_silence: float | timedelta = LONGEST_SILENCE,
        deferrable: bool = DEFAULT_DEFERRABLE,
        max_failed_runs: int | str = 0,
        fail_fast: bool = False,
        cancel_on_failure: bool = False,
        runs_s3_uri: str | None = None,
        include_outputs: bool | Literal["exact"] = False,
        consistency_timeout: float | timedelta = CONSISTENCY_SECONDS,
        cancel_on_kill: bool = False,
        cancel_on_timeout: bool = False,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            waiter_delay=waiter_delay,
            timeout=timeout,
            max_silence=max_silence,
            deferrable=deferrable,
            aws_conn_id=aws_conn_id,
            region_name=region_name,
            verify=verify,
            botocore_config=botocore_config,
            **kwargs,
        )
        check_flags(
            preflight=preflight,
            wait_for_completion=wait_for_completion,
            fail_fast=fail_fast,
            cancel_on_failure=cancel_on_failure,
            cancel_on_kill=cancel_on_kill,
            cancel_on_timeout=cancel_on_timeout,
        )
        self.default_run_setting = default_run_setting
        self.run_settings = run_settings
        self.batch_name = batch_name
        self.tags = tags
        self.run_tags = run_tags
        self.settings_s3_prefix = settings_s3_prefix
        self.s3_conn_id = s3_conn_id
        self.s3_extra_args = s3_extra_args
        self.request_id = request_id
        self.rerun_key = rerun_key
        self.preflight = preflight
        self.wait_for_completion = wait_for_completion
        self.max_failed_runs = max_failed_runs
        self.fail_fast = fail_fast
        self.cancel_on_failure = cancel_on_failure
        self.runs_s3_uri = runs_s3_uri
        self.include_outputs = include_outputs
        self.consistency_timeout = seconds("consistency_timeout", consistency_timeout)
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.check_outcome_limits()
        check_given = partial(
            check_effect, StartRunBatchOperator.__init__, default_args=kwargs.get("default_args") or {}
        )
        if not wait_for_completion:
            given = {
                "waiter_delay": waiter_delay,
                "timeout": timeout,
                "max_silence": max_silence,
                "deferrable": deferrable,
                "max_failed_runs": max_failed_runs,
                "fail_fast": fail_fast,
                "cancel_on_failure": cancel_on_failure,
                "runs_s3_uri": runs_s3_uri,
                "include_outputs": include_outputs,
                "consistency_timeout": consistency_timeout,
                "cancel_on_kill": cancel_on_kill,
                "cancel_on_timeout": cancel_on_timeout,
            }
            check_given(given, needs="wait_for_completion=True")
        if isinstance(run_settings, list) and settings_s3_prefix is None and runs_s3_uri is None:
            without_effect = {"s3_conn_id": s3_conn_id or None, "s3_extra_args": s3_extra_args or None}
            if preflight:
                del without_effect["s3_conn_id"]
            check_given(without_effect, needs="settings_s3_prefix or runs_s3_uri")
        if not fail_fast:
            check_given({"cancel_on_failure": cancel_on_failure}, needs="fail_fast=True")

    def execute(self, context: Context) -> str:
        """Start or find the batch, push its XCom, and wait for its runs if ``wait_for_completion`` is set.

        :param context: Airflow's context of the task.
        """
        self.check_outcome_parameters()
        if self.wait_for_completion and self.deferrable:
            self.check_deferral()
        batch_id = self._start(context)
        if self.wait_for_completion:
            if self.do_xcom_push:
                # A teardown needs the id, even if the wait fails.
                context["ti"].xcom_push(key="return_value", value=batch_id)
            # The timeout begins now. The time that the start took does not count.
            self._began_at = timing.time()
            self.wait(context)
        return batch_id

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral, with the batch that the task pushed before it.

        :param next_method: method that Airflow resumes the task with.
        :param next_kwargs: arguments of that method.
        :param context: Airflow's context of the task.
        """
        ti = context["ti"]
        batch = ti.xcom_pull(task_ids=ti.task_id, key="batch", map_indexes=ti.map_index)
        if not batch:
            raise OmicsError(
                "The XCom batch of this task does not exist. The next try finds the batch and waits for it."
            )
        self.batch_id = batch["id"]
        self._known_batch = batch
        return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Cancel the batch if ``cancel_on_kill`` is set and the batch is known. Errors are logged."""
        if not (self.cancel_on_kill and self.wait_for_completion):
            return
        if self.batch_id:
            cancel_batch_of_killed_task(self.hook, self.batch_id)
        else:
            self.log.warning("Nothing is cancelled: no batch of this task is known yet")

    def own_output_uris(self) -> Mapping[str, str]:
        """Return the ``outputUri`` of the settings that have their own; empty if ``run_settings`` is not a list.

        After a deferral ``run_settings`` may differ from the settings of the batch. The digest then differs from the
        batch's tag, and no location is derived.
        """
        return own_output_uris(self.run_settings) if isinstance(self.run_settings, list) else {}

    def result(self, batch: Batch, counts: RunCounts) -> str:
        """Return the task's return value: the id of the batch.

        :param batch: the batch.
        :param counts: how its runs have ended.
        """
        return batch.id

    def trigger_arguments(self) -> dict[str, Any]:
        """Return the arguments that only this task's trigger takes."""
        return {**super().trigger_arguments(), "cancel_on_kill": self.cancel_on_kill}

    def give_up(self, message: str) -> Exception:
        """Cancel the batch at the deadline if ``cancel_on_timeout`` is set, and return the error.

        :param message: what the task was waiting for.
        """
        if not self.cancel_on_timeout:
            return super().give_up(message)
        text, status = self._cancel("cancel_on_timeout")
        to_cancel = meaning_of(status).to_cancel
        if status is not None and to_cancel in {ToCancel.FINISHED, ToCancel.CANCEL_RUNS}:
            return super().give_up(f"{message}; {text}")
        is_cancelled = status is not None and to_cancel != ToCancel.LATER
        error_class = BatchCancelledError if is_cancelled else BatchError
        return error_class(f"{message}; {text}", batch_id=self.batch_id, status=status)

    def settle_active_batch(self) -> str:
        """Cancel the batch if ``cancel_on_failure`` is set, and say what was done."""
        return self._cancel("cancel_on_failure")[0] if self.cancel_on_failure else super().settle_active_batch()

    def _cancel(self, parameter: str) -> tuple[str, str | None]:
        """Cancel the batch because a parameter asks for it; return what happened, and the status before it.

        The status is None if the batch could not be cancelled.
        """
        try:
            with self.hook.limit(CANCEL_SECONDS):
                batch = cancel_batch_once(self.hook, self.batch_id, max_seconds=CANCEL_SECONDS - LOOK_AGAIN_SECONDS)
        except OmicsError as error:
            return f"the batch could not be cancelled: {error}", None
        status = shown(batch.get("status"))
        to_cancel = meaning_of(status).to_cancel
        if to_cancel == ToCancel.FINISHED:
            return f"the batch was not cancelled, because it has ended with the status {status}", status
        if to_cancel == ToCancel.LATER:
            return f"it is still {status} and could not be cancelled", status
        if to_cancel == ToCancel.CANCEL_RUNS:
            return f"the batch is {status}, and {parameter} cancelled those of its runs that were active", status
        cancelled = "it was cancelled before" if to_cancel == ToCancel.ALREADY else f"{parameter} cancelled it"
        return f"{cancelled}. Set a new rerun_key to start a new batch.", status

    def _start(self, context: Context) -> str:
        """Find the batch of an earlier try, or check, stage and start a new one."""
        members = request_members(self.hook, "StartRunBatch")
        default_run_setting = self._checked_default_run_setting(members["defaultRunSetting"])
        tags = checked_tags("tags", self.tags, members["tags"])
        identity = task_identity(context, self.rerun_key)
        tags_with_task = is_set("tag_with_task")
        check_own_tags(tags, OWN_TAGS.union(TASK_TAGS if tags_with_task else ()))
        self.check_s3_connection()
        area = StagingArea(self.hook, lambda: self._s3, self.settings_s3_prefix, self.s3_extra_args)
        with SpooledTemporaryFile(max_size=_SPOOLED_BYTES) as file:
            spool: IO[bytes] = file
            settings = check_settings(
                area,
                with_policies(self.run_settings),
                default_run_setting=default_run_setting,
                members=members["batchRunSettings"]["members"],
                file=spool,
            )
            request = BatchRequest(
                identity=identity,
                batch_name=str(self.batch_name or identity.default_name),
                digest=request_digest(default_run_setting=default_run_setting, settings_digest=settings.digest),
                default_run_setting=default_run_setting,
                tags={**tags, **identity.task_tags()} if tags_with_task else tags,
                etag=settings.etag,
                own_output_uris=settings.own_output_uris,
                request_id=check_request_id(self.request_id),
                number_of_runs=settings.count,
            )
            push = partial(self._push_batch, context, settings)
            once = self.start_once_class(self.hook, request)
            found = once.find()
            if found.answer is not None:
                started = once.reattach(found.answer)
            else:
                if self.preflight:
                    look_before_start(
                        self.hook,
                        default_run_setting,
                        with_policies(self.run_settings),
                        settings_s3_prefix=self.settings_s3_prefix or None,
                        s3=self._s3,
                    )
                once.batch_run_settings = stage_settings(area, settings)
                started = once.start(found=found, on_answer=push)
        batch_id = str(started.answer["id"])
        persist_links(context, self, batch_id=batch_id)
        push(started)
        self.batch_id = batch_id
        return batch_id

    def _push_batch(self, context: Context, settings: CheckedSettings, started: Started) -> None:
        batch_id = str(started.answer["id"])
        if started.request_id != self.request_id:
            # A request_id of the user may belong to a foreign batch, which a kill must not cancel.
            self.batch_id = batch_id
        batch = Batch.from_answer(batch_id, started.answer)
        value = batch.to_xcom(
            name=started.answer.get("name"),
            expected_runs=settings.count,
            request_id=started.request_id,
            settings_s3_uri=settings.s3_uri,
            reattached=started.reattached,
        )
        context["ti"].xcom_push(key="batch", value=value)
        self._known_batch = value

    def push_last_answer(self, batch: Batch, context: Context) -> None:
        """Push the XCom ``batch`` again, with the status and the counts at the end of the wait.

        :param batch: the batch.
        :param context: Airflow's context of the task.
        """
        counts = {"total_runs": batch.total_runs, "submitted": batch.submitted, "failed": batch.failed}
        context["ti"].xcom_push(key="batch", value={**(self._known_batch or {}), "status": batch.status, **counts})

    def _checked_default_run_setting(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        given = with_policies(self.default_run_setting)
        if not isinstance(given, dict):
            raise OmicsParameterError("default_run_setting", "must be a dict", type(given).__name__)
        setting = dict(given)
        for name in _IDS:
            if name in setting:
                setting[name] = check_id(f"default_run_setting.{name}", setting[name])
        run_tags = checked_tags("run_tags", self.run_tags, shape["members"]["runTags"])
        check_member(
            "default_run_setting", setting, shape=shape, unknown_rule=unknown_key_rule("DefaultRunSetting")
        ).raise_if_any()
        check_cache_behavior("default_run_setting", setting)
        default_tags = setting.get("runTags", {})
        check_tags("default_run_setting.runTags", default_tags)
        check_tags("run_tags", run_tags, present=default_tags)
        if run_tags:
            setting["runTags"] = {**default_tags, **run_tags}
        return setting


class CancelRunBatchOperator(EndRunBatchOperator):
    """Cancel a batch of HealthOmics runs, and wait until all its runs have stopped.

    The task can run several times: it cancels the batch once. What it does depends on the status of the batch:

    - CREATING: it waits until the batch can be cancelled, for at most 10 minutes and never past ``timeout``.
    - PENDING, SUBMITTING, INPROGRESS: it cancels the batch.
    - STOPPING, CANCELLED: the batch was cancelled before, perhaps by an earlier try.
    - FAILED: it cancels the active runs one by one, because the service does not cancel a FAILED batch.
    - PROCESSED or RUNS_*: the task fails, unless GetBatch counts runs that were cancelled with the batch. If the last
      runs ended while the batch was being cancelled, GetBatch counts no such run: the try that cancelled the batch
      succeeds with a warning, and a later try fails.

    The service may cancel only some of the runs. When the batch is CANCELLED, the task cancels the remaining active
    runs one by one. It cancels a run only after GetRun has confirmed batch and uuid, because HealthOmics reuses the ids
    of deleted runs. Runs that have ended do not change. The task calls GetRun for runs that ListRuns does not show yet.
    For 5 minutes it also waits for runs that GetBatch counts as active, and for runs that are not listed yet.

    As a teardown (``operator.as_teardown(setups=...)``) the task succeeds if there is nothing to cancel: the batch has
    finished, is not found for 5 minutes (with a warning), or ``batch_id`` is empty.

    A mapped teardown must be inside a mapped task group. Otherwise it cancels the batches of all map indexes if one of
    them fails.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html

    :param batch_id: id of the batch, as StartRunBatchOperator returns it. (templated)
    :param wait_for_completion: whether to wait until the runs have stopped. Otherwise the task succeeds as soon as the
        service has accepted the request. Default True.
    :param waiter_delay: seconds between two GetBatch calls, at least 1, or a timedelta. Default 60.
    :param timeout: seconds after which the task fails if runs are still active, or a timedelta. A retry continues.
        No call begins after ``timeout``, or after 2 more minutes if the batch ends directly before it. Default: 7 days.
    :param max_silence: seconds without an answer (throttling, server errors, lost connections) after which the task
        fails, or a timedelta. Default 3600.
    :param deferrable: whether to wait in the triggerer; needs aiobotocore. Default: ``[operators]
        default_deferrable``.
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: id of the batch; None in a teardown without a batch. The XCom ``batch``
        (:class:`~airflow_provider_omics_cache.xcoms.BatchXCom`) has:

        * ``id``, ``arn``, ``uuid``, ``status``: as GetBatch shows them; without waiting, the status is the one before
          the cancellation;
        * ``cancelled``, ``not_cancelled``: number of started runs that are CANCELLED, and number of started runs that
          ended otherwise; None without waiting.
    :raises OmicsParameterError: a parameter breaks a rule.
    :raises BatchConflictError: the batch has finished; there is nothing to cancel.
    :raises BatchNotFoundError: the service does not know the batch.
    :raises OmicsError: active runs could not be cancelled; the error names them.
    :raises BatchTimeoutError: runs were still active at ``timeout``.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: a call to AWS failed.
    """

    template_fields: Sequence[str] = aws_template_fields("batch_id")
    trigger_class = BatchCancellationTrigger

    def __init__(
        self,
        *,
        batch_id: str | XComArg,
        wait_for_completion: bool = True,
        waiter_delay: float | timedelta = WAITER_DELAY,
        timeout: float | timedelta = WEEK,
        max_silence: float | timedelta = LONGEST_SILENCE,
        deferrable: bool = DEFAULT_DEFERRABLE,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            batch_id=batch_id,
            wait_for_completion=wait_for_completion,
            waiter_delay=waiter_delay,
            timeout=timeout,
            max_silence=max_silence,
            deferrable=deferrable,
            aws_conn_id=aws_conn_id,
            region_name=region_name,
            verify=verify,
            botocore_config=botocore_config,
            **kwargs,
        )

    def request(self, context: Context) -> dict[str, Any]:
        """Cancel the batch, or its runs if it has FAILED.

        :param context: Airflow's context of the task.
        """
        max_seconds = self.request_seconds(context)
        if self.is_teardown:
            self._was_seen = is_batch_visible(self.hook, self.batch_id, max_silence=self.max_silence)
            self._has_looked = True
        batch = cancel_batch_once(self.hook, self.batch_id, max_seconds=max_seconds, max_silence=self.max_silence)
        status = batch.get("status")
        if meaning_of(status).to_cancel == ToCancel.LATER:
            raise OmicsError(
                f"Batch {self.batch_id} is still {status} after {max_seconds:,.0f} s and cannot be cancelled yet",
                batch_id=self.batch_id,
                status=status,
            )
        if self.is_over(batch) and not self.is_teardown:
            raise BatchConflictError(
                f"Batch {self.batch_id} has already finished ({status}); there is nothing to cancel.",
                batch_id=self.batch_id,
                status=status,
            )
        return batch

    def is_over(self, batch: dict[str, Any]) -> bool:
        """Whether the batch has finished without having been cancelled.

        :param batch: GetBatch's answer.
        """
        return meaning_of(batch.get("status")).to_cancel == ToCancel.FINISHED and not was_cancelled(batch)

    def is_settled_without_batch(self) -> bool:
        """Whether a missing batch counts as success."""
        return self.is_teardown

    def conclude(self, batch: Batch, context: Context, *, has_failed: bool) -> PokeReturnValue | None:
        """Cancel the runs that are still active, and succeed when no run is active.

        :param batch: the batch, as GetBatch showed it last.
        :param context: Airflow's context of the task.
        :param has_failed: not used; a FAILED batch may have active runs.
        """
        runs = cancel_active_runs(self.hook, batch.id, gone=self._gone, max_silence=self.max_silence)
        statuses = runs.statuses
        active = [run_id for run_id, status in statuses.items() if status not in ENDED_RUN_STATUSES]
        if active:
            # Lists may lag behind. When ``until`` is reached, the runs are listed again, to find more runs to cancel.
            until = self._wait_began_at(context) + CONSISTENCY_SECONDS
            self.wait_for_runs(batch, active, only_stopping=True, until=until if timing.time() < until else None)
            return None
        counted = count_active(batch)
        if counted and self.may_lag(context):
            self.log.info("Batch %s: GetBatch counts %s runs that have not ended yet", batch.id, f"{counted:,}")
            return None
        if batch.meaning.end != End.PROCESSED and self.may_list_more(batch, runs.listing, context):
            return None
        cancelled = sum(status == RunStatus.CANCELLED for status in statuses.values())
        if batch.meaning.end == End.PROCESSED:
            self.log.warning(
                "Batch %s is %s, not CANCELLED: its last runs ended before the cancellation", batch.id, batch.status
            )
        ended = len(statuses) - cancelled
        self.log.info("Batch %s: %s runs are cancelled, %s ended otherwise", batch.id, f"{cancelled:,}", f"{ended:,}")
        return PokeReturnValue(is_done=True, xcom_value=self.push(context, batch, cancelled, ended))

    def push(
        self, context: Context, batch: Batch, cancelled: int | None = None, not_cancelled: int | None = None
    ) -> str:
        """Push the XCom ``batch``, and return the batch's id.

        :param context: Airflow's context of the task.
        :param batch: the batch.
        :param cancelled: number of started runs that are CANCELLED.
        :param not_cancelled: number of started runs that have ended otherwise.
        """
        context["ti"].xcom_push(
            key="batch",
            value=batch.to_xcom(cancelled=cancelled, not_cancelled=not_cancelled),
        )
        return batch.id


class DeleteRunBatchOperator(MappingSavingOperator):
    """Delete the runs of a batch that has ended, wait until they are gone, and optionally delete the batch too.

    Runs count towards the account's limit until they are deleted. Deleting a run removes its metadata. Its outputs in
    S3 and its logs stay. The task can run several times, and the result is the same. What it does depends on the status
    of the batch:

    - PROCESSED, CANCELLED: it deletes the runs of the batch.
    - RUNS_DELETING, RUNS_DELETED: the runs were deleted before, perhaps by an earlier try.
    - FAILED, RUNS_DELETE_FAILED: it deletes the existing runs one by one, because the service refuses to delete them as
      a batch.
    - Any other status: the task fails. Cancel the batch first, with CancelRunBatchOperator.

    If the service could not delete every run, the task deletes the remaining runs one by one. It deletes a run only
    after GetRun has confirmed batch and uuid, because HealthOmics reuses the ids of deleted runs.

    With ``delete_batch=True`` the task also deletes the batch's metadata when no run is left. The mapping from
    runSettingId to runId is lost with it, so ``save_mapping_s3_uri`` must be set. The task writes the mapping before it
    deletes anything. If the batch is PROCESSED and its listing shows every run, the task saves the listing at once. Any
    other listing may be late. The task repeats it for up to 6 minutes, until the listing is complete, equals the one
    before, and was made 5 minutes after the last change of the batch. The service does not report when a batch was
    cancelled: the 5 minutes then count from the first listing of the try. The task keeps a mapping that an earlier try
    saved, unless the service now lists more runs. It checks this before it deletes a run, and again before it deletes
    the batch. The metadata of the S3 object names the batch. If the object at the URI is not the mapping of this batch,
    the task fails and does not overwrite it.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html

    :param batch_id: id of the batch, as StartRunBatchOperator returns it. (templated)
    :param delete_batch: whether to delete the batch's metadata too. Default False.
    :param save_mapping_s3_uri: S3 URI of the object to which the listing of the batch is written before anything is
        deleted: one JSON document per line, as in BatchSubmissionSensor's ``mapping_s3_uri``. (templated)
    :param s3_conn_id: Airflow connection for ``save_mapping_s3_uri``. Giving it without that URI is an error. Default:
        ``aws_conn_id``. (templated)
    :param s3_extra_args: arguments of the upload, such as ``ServerSideEncryption`` or ``ExpectedBucketOwner``. Giving
        them without that URI is an error. (templated)
    :param wait_for_completion: whether to wait until the runs are deleted. Otherwise the task succeeds as soon as the
        service has accepted the request. Must be True for ``delete_batch``. Default True.
    :param waiter_delay: seconds between two GetBatch calls, at least 1, or a timedelta. Default 60.
    :param timeout: seconds after which the task fails if the runs are still being deleted, or a timedelta. A retry
        continues. No call begins after ``timeout``, or after 2 more minutes if the batch ends directly before it.
        Default: 7 days.
    :param max_silence: seconds without an answer (throttling, server errors, lost connections) after which the task
        fails, or a timedelta. Default 3600.
    :param deferrable: whether to wait in the triggerer; needs aiobotocore. Default: ``[operators]
        default_deferrable``.
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: id of the batch. The XCom ``batch`` (:class:`~airflow_provider_omics_cache.xcoms.BatchXCom`) has:

        * ``id``, ``arn``, ``uuid``, ``status``: as GetBatch shows them; without waiting, the status is the one before
          the deletion; None except ``id`` if an earlier try deleted the batch;
        * ``batch_deleted``: whether the batch was deleted too;
        * ``mapping_s3_uri``: where the mapping was saved.
    :raises OmicsParameterError: a parameter breaks a rule, or the object at ``save_mapping_s3_uri`` is not the mapping
        of this batch; nothing is deleted.
    :raises BatchConflictError: the batch is active, or its status is not known; nothing is deleted.
    :raises BatchNotFoundError: the service does not know the batch, and no saved mapping shows that an earlier try
        deleted it.
    :raises IncompleteListingError: the listing of the batch is incomplete, contradicts itself, or may be late; nothing
        more is deleted.
    :raises OmicsError: runs could not be deleted (the error names them), or the saved mapping is gone; the batch is not
        deleted.
    :raises BatchTimeoutError: the runs were still being deleted at ``timeout``.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: a call to AWS failed.
    """

    template_fields: Sequence[str] = aws_template_fields(
        "batch_id", "save_mapping_s3_uri", "s3_conn_id", "s3_extra_args"
    )
    template_fields_renderers = {"s3_extra_args": "json"}  # noqa: RUF012
    trigger_class = BatchDeletionTrigger

    def __init__(
        self,
        *,
        batch_id: str | XComArg,
        delete_batch: bool = False,
        save_mapping_s3_uri: str | None = None,
        s3_conn_id: str | None = None,
        s3_extra_args: dict[str, Any] | None = None,
        wait_for_completion: bool = True,
        waiter_delay: float | timedelta = WAITER_DELAY,
        timeout: float | timedelta = WEEK,
        max_silence: float | timedelta = LONGEST_SILENCE,
        deferrable: bool = DEFAULT_DEFERRABLE,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            batch_id=batch_id,
            wait_for_completion=wait_for_completion,
            waiter_delay=waiter_delay,
            timeout=timeout,
            max_silence=max_silence,
            deferrable=deferrable,
            aws_conn_id=aws_conn_id,
            region_name=region_name,
            verify=verify,
            botocore_config=botocore_config,
            **kwargs,
        )
        check_flags(delete_batch=delete_batch)
        self.delete_batch = delete_batch
        self.save_mapping_s3_uri = save_mapping_s3_uri
        self.s3_conn_id = s3_conn_id
        self.s3_extra_args = s3_extra_args
        self.check_s3_effect(DeleteRunBatchOperator.__init__, "save_mapping_s3_uri", kwargs.get("default_args"))
        self.check_differs_for_map_index("save_mapping_s3_uri")
        self._check_deletion()

    def check_parameters(self) -> None:
        """Check the parameters before the first call."""
        super().check_parameters()
        self._check_deletion()
        self.check_s3_output("save_mapping_s3_uri")

    def _check_deletion(self) -> None:
        if self.delete_batch and self.save_mapping_s3_uri is None:
            raise OmicsParameterError(
                "save_mapping_s3_uri",
                "must be set for delete_batch=True, because the mapping is deleted with the batch",
                self.save_mapping_s3_uri,
            )
        if self.delete_batch and not self.wait_for_completion:
            raise OmicsParameterError(
                "wait_for_completion",
                "must be True for delete_batch=True, because the batch is deleted after its runs",
                self.wait_for_completion,
            )

    def request(self, context: Context) -> dict[str, Any]:
        """Save the mapping, then delete the runs.

        :param context: Airflow's context of the task.
        """
        batch = get_deletable_batch(self.hook, self.batch_id, max_silence=self.max_silence)
        self.save_mapping(context, batch)
        return delete_runs_once(
            self.hook,
            self.batch_id,
            batch,
            gone=self._gone,
            max_seconds=self.request_seconds(context),
            max_silence=self.max_silence,
        )

    def is_settled_without_batch(self) -> bool:
        """Whether a missing batch counts as success. It does if an earlier try saved its mapping and deleted it."""
        return self.delete_batch and self.is_mapping_saved()

    def conclude(self, batch: Batch, context: Context, *, has_failed: bool) -> PokeReturnValue | None:
        """Delete the runs that still exist, and then the batch.

        :param batch: the batch, as GetBatch showed it last.
        :param context: Airflow's context of the task.
        :param has_failed: not used; the runs of such a batch are deleted one by one.
        """
        runs = delete_existing_runs(self.hook, batch.id, gone=self._gone, max_silence=self.max_silence)
        is_each_deleted = batch.meaning.to_delete == ToDelete.DELETE_EACH_RUN
        if is_each_deleted and self.may_list_more(batch, runs.listing, context):
            return None
        self.log.info("Batch %s: all its runs are deleted", batch.id)
        if self.delete_batch:
            if self.save_mapping_again(batch, context):
                return None
            delete_batch_once(
                self.hook, batch.id, max_seconds=self.request_seconds(context), max_silence=self.max_silence
            )
        return PokeReturnValue(is_done=True, xcom_value=self.push(context, batch))

    def push(self, context: Context, batch: Batch) -> str:
        """Push the XCom ``batch``, and return the batch's id.

        :param context: Airflow's context of the task.
        :param batch: the batch.
        """
        context["ti"].xcom_push(
            key="batch",
            value=batch.to_xcom(batch_deleted=self.delete_batch, mapping_s3_uri=self.save_mapping_s3_uri),
        )
        return batch.id
