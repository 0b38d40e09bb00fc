"""Operators for single HealthOmics runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache._compat import PokeReturnValue
from airflow_provider_omics_cache.configuration import is_set
from airflow_provider_omics_cache.exceptions import (
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
    RunCancelledError,
    RunConflictError,
    RunError,
)
from airflow_provider_omics_cache.healthomics.awaited_run import Run
from airflow_provider_omics_cache.healthomics.end import LOOK_AGAIN_SECONDS, is_visible
from airflow_provider_omics_cache.healthomics.end_run import (
    cancel_run_of_killed_task,
    cancel_run_once,
    delete_run_once,
)
from airflow_provider_omics_cache.healthomics.identity import TASK_TAGS, canonical_json, run_request_digest
from airflow_provider_omics_cache.healthomics.once import Started
from airflow_provider_omics_cache.healthomics.rounds import NOT_FOUND, Event, EventStatus
from airflow_provider_omics_cache.healthomics.settings import MAX_PARAMETERS_BYTES, check_member
from airflow_provider_omics_cache.healthomics.start_run import (
    OWN_RUN_TAGS,
    RunRequest,
    StartRunOnce,
    check_combinations,
)
from airflow_provider_omics_cache.healthomics.states import RunStatus, ToCancel
from airflow_provider_omics_cache.hooks.arguments import check_id, check_request_id
from airflow_provider_omics_cache.hooks.client import LONGEST_SILENCE
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.links.omics import persist_links
from airflow_provider_omics_cache.tasks.ending import EMPTY_IDS, REQUEST_SECONDS
from airflow_provider_omics_cache.tasks.parameters import DEFAULT_DEFERRABLE, check_effect, check_flags
from airflow_provider_omics_cache.tasks.run_wait import RunWaitOperator, check_run_uuid, links_of_run, run_error
from airflow_provider_omics_cache.tasks.session_policies import PolicyHidingTask, without_hiding
from airflow_provider_omics_cache.tasks.starting import (
    check_own_tags,
    checked_tags,
    look_before_start,
    request_members,
    task_identity,
)
from airflow_provider_omics_cache.tasks.wait import LAST_LOOK_SECONDS, WAITER_DELAY, WEEK, seconds
from airflow_provider_omics_cache.triggers.run import RunCancellationTrigger, StartRunTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_omics_cache.xcoms import RunXCom

#: Maximum seconds to cancel the run at ``timeout``.
CANCEL_SECONDS = 300.0
#: Members of StartRun's request that determine what runs, by the parameter of the operator.
_MEMBERS = {
    "role_arn": "roleArn",
    "output_uri": "outputUri",
    "workflow_id": "workflowId",
    "workflow_type": "workflowType",
    "workflow_owner_id": "workflowOwnerId",
    "workflow_version_name": "workflowVersionName",
    "run_id": "runId",
    "parameters": "parameters",
    "cache_id": "cacheId",
    "cache_behavior": "cacheBehavior",
    "run_group_id": "runGroupId",
    "priority": "priority",
    "storage_type": "storageType",
    "storage_capacity": "storageCapacity",
    "log_level": "logLevel",
    "retention_mode": "retentionMode",
    "networking_mode": "networkingMode",
    "scratch_storage_mode": "scratchStorageMode",
    "configuration_name": "configurationName",
    "output_uri_prefix_mode": "outputUriPrefixMode",
    "session_policy": "sessionPolicy",
    "engine_settings": "engineSettings",
}
_OBJECTS = frozenset({"parameters", "engine_settings"})
_IDS = frozenset({"workflow_id", "run_id", "cache_id", "run_group_id"})


class StartRunOperator(PolicyHidingTask, RunWaitOperator):
    """Start a single HealthOmics run, once: a retry finds the run that an earlier try started.

    One run belongs to one task of one DAG run (and to one ``map_index``). Retries and cleared tasks find it, even if
    the answer of StartRun was lost. The newest run of the task decides:

    - An active or completed run with the same parameters is used.
    - A new run replaces one that failed before it was RUNNING, and a completed one with other parameters.
    - The task fails without a retry if the run is active with other parameters, failed after it was started, was
      cancelled, or is shown as deleted. The error says what to do.

    A run that the service no longer shows is not found. If the service has also forgotten its request token, a retried
    or cleared task starts a new run, and you pay for it. This also happens if the deleted run was cancelled. Do not
    clear the task of a deleted run.

    ``name`` must be the same for all tries. After a change the run is not found: the task fails, or starts a second run
    if the service has forgotten the token of the first.

    With ``wait_for_completion=True`` the task waits until the run has ended, as RunCompletionSensor does. It pushes the
    XCom ``run`` before it waits. A retry finds the run and waits for it.

    The parameters are those of the API, in snake_case. Only the given ones are sent. Either ``workflow_id`` or
    ``run_id`` must be given.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_StartRun.html

    :param role_arn: service role of the run. (templated)
    :param output_uri: S3 URI under which the service makes the folder with the run's outputs. (templated)
    :param workflow_id: id of the workflow. (templated)
    :param workflow_type: ``PRIVATE`` (the service's default) or ``READY2RUN``. (templated)
    :param workflow_owner_id: account that owns a shared workflow. (templated)
    :param workflow_version_name: version of the workflow. Default: the workflow's default version. (templated)
    :param run_id: id of a run to repeat with its settings. The other parameters override the settings. (templated)
    :param name: beginning of the run's name; at most 111 characters of it are used. The name ends in a hash of what the
        run belongs to. Default: the DAG id and the task id, shortened if they are longer. (templated)
    :param parameters: parameters of the workflow, at most 256,000 bytes of JSON. (templated)
    :param cache_id: id of the run cache, as CreateRunCacheOperator returns it. It must not be given for a READY2RUN
        workflow. (templated)
    :param cache_behavior: ``CACHE_ON_FAILURE`` or ``CACHE_ALWAYS``. Without ``run_id`` it needs ``cache_id``. Default:
        the cache's behavior. (templated)
    :param run_group_id: id of the run group. (templated)
    :param priority: priority among the runs of the group, 0 to 100,000.
    :param storage_type: ``STATIC`` or ``DYNAMIC``. It must not be ``STATIC`` for a READY2RUN workflow. (templated)
    :param storage_capacity: capacity of static storage, in GiB. It must be given for ``STATIC`` unless ``run_id`` is
        given. It must not be given for a READY2RUN workflow.
    :param log_level: ``OFF``, ``FATAL``, ``ERROR`` or ``ALL``. (templated)
    :param retention_mode: ``RETAIN`` (the service's default) or ``REMOVE``. With ``REMOVE`` the service itself
        deletes the oldest runs when the account has reached its limit of runs. (templated)
    :param networking_mode: ``RESTRICTED`` (the service's default) or ``VPC``. Without ``run_id``, ``VPC`` needs
        ``configuration_name``. (templated)
    :param scratch_storage_mode: ``LOCAL`` or ``SHARED`` (the service's default). (templated)
    :param configuration_name: name of the configuration. (templated)
    :param output_uri_prefix_mode: with ``SERVICE_DEFINED`` (the service's default), the outputs are in a folder of the
        run below ``output_uri``. With ``NONE_WITH_OVERWRITE`` they are directly below it, and existing objects are
        overwritten. It needs boto3 1.43.123 or newer. (templated)
    :param session_policy: IAM policy, as JSON, that limits the role of the run. Airflow shows it as ``***``.
        (templated)
    :param engine_settings: settings of the workflow engine. (templated)
    :param tags: tags of the run, at most 44, because the operator adds up to six. With ``[omics_cache] tag_with_task =
        False`` the operator does not add the DAG id, the run id, the task id and the map index, and 48 tags are
        allowed. (templated)
    :param request_id: idempotency token, at most 128 characters. Default: derived from the DAG run, the task and
        ``rerun_key``. (templated)
    :param rerun_key: any string. A different string starts another run in the same DAG run. (templated)
    :param preflight: whether to make the checks of PreflightOperator before a new run is started. If a finding is an
        error, the task fails without a retry. Warnings are logged. A run of an earlier try is used without these
        checks. With ``run_id``, the settings of the repeated run are not checked. Default False.
    :param wait_for_completion: whether to wait for the end of the run. Without it, the parameters of the wait must not
        be given, because they have no effect; only ``default_args`` may contain them. Default False.
    :param waiter_delay: seconds between two GetRun calls, at least 1, or a timedelta. Default 60.
    :param timeout: seconds of waiting after which the task fails, or a timedelta. Default: 7 days.
    :param max_silence: seconds of waiting without an answer after which the task fails, or a timedelta. Default 3600.
    :param deferrable: whether to wait in the triggerer; needs aiobotocore. Default: ``[operators]
        default_deferrable``.
    :param cancel_on_kill: whether to cancel the run when the task is killed while it waits: marked, cleared, or stopped
        by ``execution_timeout``. For deferred tasks, marking and clearing are detected on Airflow 3.3 and newer;
        ``execution_timeout`` acts like ``timeout``. Default False.
    :param cancel_on_timeout: whether to cancel the run at ``timeout``. The task is not retried then, unless the run has
        already ended or is STOPPING. Default False.
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: id of the run. The XCom ``run`` (:class:`~airflow_provider_omics_cache.xcoms.RunXCom`) has ``id``, ``arn``,
        ``uuid``, ``status``, ``name``, ``workflow_id``, ``run_output_uri`` (where the outputs are), the times,
        ``failure_reason`` and ``status_message`` as GetRun shows them, ``request_id`` (idempotency token of the run)
        and ``reattached`` (whether an earlier try started the run). After a wait they are those at its end.
    :raises OmicsParameterError: a parameter breaks a rule; nothing was started.
    :raises PreflightError: with ``preflight=True``: a finding is an error; nothing was started.
    :raises OmicsVersionError: the installed botocore does not know a member.
    :raises RunError: the run of an earlier try can neither be used nor replaced. After a wait: the run failed
        (RunFailedError), was cancelled (RunCancelledError) or was deleted (RunDeletedError).
    :raises RunTimeoutError: the run had not ended at ``timeout``. A retry waits for the same run.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: a call to AWS failed.
    """

    trigger_class = StartRunTrigger
    template_fields: Sequence[str] = aws_template_fields(
        "role_arn",
        "output_uri",
        "workflow_id",
        "workflow_type",
        "workflow_owner_id",
        "workflow_version_name",
        "run_id",
        "parameters",
        "cache_id",
        "cache_behavior",
        "run_group_id",
        "storage_type",
        "log_level",
        "retention_mode",
        "networking_mode",
        "scratch_storage_mode",
        "configuration_name",
        "output_uri_prefix_mode",
        "session_policy",
        "engine_settings",
        "name",
        "tags",
        "request_id",
        "rerun_key",
    )
    template_fields_renderers = {  # noqa: RUF012
        "parameters": "json",
        "engine_settings": "json",
        "tags": "json",
    }

    policies = ("session_policy",)
    #: Id and uuid of the run that this task works with.
    started_run_id = ""
    run_uuid = None
    #: XCom ``run``, as it was pushed last.
    _known_run: RunXCom | None = None

    def __init__(
        self,
        *,
        role_arn: str,
        output_uri: str,
        workflow_id: str | XComArg | None = None,
        workflow_type: str | None = None,
        workflow_owner_id: str | None = None,
        workflow_version_name: str | None = None,
        run_id: str | XComArg | None = None,
        parameters: dict[str, Any] | XComArg | None = None,
        cache_id: str | XComArg | None = None,
        cache_behavior: str | None = None,
        run_group_id: str | XComArg | None = None,
        priority: int | None = None,
        storage_type: str | None = None,
        storage_capacity: int | None = None,
        log_level: str | None = None,
        retention_mode: str | None = None,
        networking_mode: str | None = None,
        scratch_storage_mode: str | None = None,
        configuration_name: str | None = None,
        output_uri_prefix_mode: str | None = None,
        session_policy: str | None = None,
        engine_settings: dict[str, Any] | None = None,
        name: str | None = None,
        tags: dict[str, str] | None = None,
        request_id: str | None = None,
        rerun_key: str | None = None,
        preflight: bool = False,
        wait_for_completion: bool = False,
        waiter_delay: float | timedelta = WAITER_DELAY,
        timeout: float | timedelta = WEEK,
        max_silence: float | timedelta = LONGEST_SILENCE,
        deferrable: bool = DEFAULT_DEFERRABLE,
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
            cancel_on_kill=cancel_on_kill,
            cancel_on_timeout=cancel_on_timeout,
        )
        self.role_arn = role_arn
        self.output_uri = output_uri
        self.workflow_id = workflow_id
        self.workflow_type = workflow_type
        self.workflow_owner_id = workflow_owner_id
        self.workflow_version_name = workflow_version_name
        self.run_id = run_id
        self.parameters = parameters
        self.cache_id = cache_id
        self.cache_behavior = cache_behavior
        self.run_group_id = run_group_id
        self.priority = priority
        self.storage_type = storage_type
        self.storage_capacity = storage_capacity
        self.log_level = log_level
        self.retention_mode = retention_mode
        self.networking_mode = networking_mode
        self.scratch_storage_mode = scratch_storage_mode
        self.configuration_name = configuration_name
        self.output_uri_prefix_mode = output_uri_prefix_mode
        self.session_policy = session_policy
        self.engine_settings = engine_settings
        self.name = name
        self.tags = tags
        self.request_id = request_id
        self.rerun_key = rerun_key
        self.preflight = preflight
        self.wait_for_completion = wait_for_completion
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        if not wait_for_completion:
            given = {
                "waiter_delay": waiter_delay,
                "timeout": timeout,
                "max_silence": max_silence,
                "deferrable": deferrable,
                "cancel_on_kill": cancel_on_kill,
                "cancel_on_timeout": cancel_on_timeout,
            }
            check_effect(
                StartRunOperator.__init__,
                given,
                needs="wait_for_completion=True",
                default_args=kwargs.get("default_args") or {},
            )

    @property
    def subject_id(self) -> str:
        """Id of the run that the task waits for. The parameter ``run_id`` is the run to repeat."""
        return self.started_run_id

    def check_parameters(self) -> None:
        """Check the parameters of the wait. The id comes from the service."""

    def execute(self, context: Context) -> str:
        """Start or find the run, push its XCom, and wait for its end if ``wait_for_completion`` is set.

        :param context: Airflow's context of the task.
        """
        if self.wait_for_completion and self.deferrable:
            self.check_deferral()
        run_id = self._start(context)
        if self.wait_for_completion:
            if self.do_xcom_push:
                # A teardown needs the id, even if the wait fails.
                context["ti"].xcom_push(key="return_value", value=run_id)
            # The timeout begins now. It does not include the time of the start.
            self._began_at = timing.time()
            self.wait(context)
        return run_id

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral, with the run that the task pushed before it.

        :param next_method: method that Airflow resumes the task with.
        :param next_kwargs: arguments of that method.
        :param context: Airflow's context of the task.
        """
        ti = context["ti"]
        run = ti.xcom_pull(task_ids=ti.task_id, key="run", map_indexes=ti.map_index)
        if not run:
            raise OmicsError("The XCom run of this task does not exist. The next try finds the run and waits for it.")
        self.started_run_id, self.run_uuid = run["id"], run["uuid"]
        self._known_run = run
        return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Cancel the run if ``cancel_on_kill`` is set and the run is known. Errors are logged."""
        if not (self.cancel_on_kill and self.wait_for_completion):
            return
        if self.started_run_id:
            cancel_run_of_killed_task(self.hook, self.started_run_id, uuid=self.run_uuid)
        else:
            self.log.warning("Nothing is cancelled: no run of this task is known yet")

    def trigger_arguments(self) -> dict[str, Any]:
        """Return the arguments that only this task's trigger takes."""
        return {"cancel_on_kill": self.cancel_on_kill}

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

    def push_last_answer(self, subject: Run, context: Context) -> None:
        """Push the XCom ``run`` again, as the run was at the end of the wait.

        :param subject: the run.
        :param context: Airflow's context of the task.
        """
        known = self._known_run
        kept = {"request_id": known["request_id"], "reattached": known["reattached"]} if known else {}
        context["ti"].xcom_push(key="run", value=subject.to_xcom(**kept))

    def give_up(self, message: str) -> Exception:
        """Cancel the run at the deadline if ``cancel_on_timeout`` is set, and return the error.

        :param message: what the task was waiting for.
        """
        if not self.cancel_on_timeout:
            return super().give_up(message)
        run_id = self.started_run_id
        try:
            with self.hook.limit(CANCEL_SECONDS):
                run = cancel_run_once(
                    self.hook, run_id, uuid=self.run_uuid, max_seconds=CANCEL_SECONDS - LOOK_AGAIN_SECONDS
                )
        except OmicsError as error:
            return RunError(f"{message}; the run could not be cancelled: {error}", run_id=run_id)
        status = run.shown_status
        if run.meaning.to_cancel == ToCancel.FINISHED:
            return super().give_up(
                f"{message}; the run was not cancelled, because it has ended with the status {status}"
            )
        if run.status == RunStatus.STOPPING:
            return super().give_up(f"{message}; the run was not cancelled, because it is {status} and ends soon")
        is_old = run.meaning.to_cancel == ToCancel.ALREADY
        cancelled = "it was cancelled before" if is_old else "cancel_on_timeout cancelled it"
        text = f"{message}; {cancelled}. Set a new rerun_key to start a new run."
        return RunCancelledError(text, run_id=run_id, status=status)

    def _start(self, context: Context) -> str:
        """Find the run of an earlier try, or check the parameters and start a new one."""
        shapes = request_members(self.hook, "StartRun")
        members = self._checked_members(shapes)
        tags = checked_tags("tags", self.tags, shapes["tags"])
        identity = task_identity(context, self.rerun_key)
        tags_with_task = is_set("tag_with_task")
        check_own_tags(tags, OWN_RUN_TAGS.union(TASK_TAGS if tags_with_task else ()))
        request = RunRequest(
            identity=identity,
            run_name=str(self.name or identity.default_name),
            digest=run_request_digest(members),
            members=members,
            tags={**tags, **identity.task_tags()} if tags_with_task else tags,
            request_id=check_request_id(self.request_id),
        )
        once = StartRunOnce(self.hook, request)
        push = partial(self._push_run, context)
        # The user's request_id may belong to the run of another task. That run must not be cancelled.
        push_at_once = (lambda started: None) if request.request_id else push
        found = once.find()
        if found.answer is None and self.preflight:
            look_before_start(self.hook, members, None)
        started = once.reattach(found.answer) if found.answer else once.start(found=found, on_answer=push_at_once)
        run_id = str(started.answer["id"])
        persist_links(context, self, **links_of_run(run_id))
        push(started)
        return run_id

    def _push_run(self, context: Context, started: Started) -> None:
        run_id = str(started.answer["id"])
        run = Run.from_answer(run_id, started.answer)
        self.started_run_id, self.run_uuid = run_id, run.uuid
        value = run.to_xcom(request_id=started.request_id, reattached=started.reattached)
        context["ti"].xcom_push(key="run", value=value)
        self._known_run = value

    def _checked_members(self, shapes: dict[str, Any]) -> dict[str, Any]:
        """Check the members of the request without a call.

        :raises OmicsParameterError: a parameter breaks a rule.
        :raises OmicsVersionError: botocore does not know a member.
        """
        given = {name: without_hiding(getattr(self, name)) for name in _MEMBERS}
        given = {name: value for name, value in given.items() if value is not None}
        self.hook.check_model("StartRun", [_MEMBERS[name] for name in given])
        for name in ("role_arn", "output_uri"):
            if given.get(name) in EMPTY_IDS:
                raise OmicsParameterError(name, "must be given", given.get(name))
        members = {}
        for name in _OBJECTS & given.keys():
            if not isinstance(given[name], dict):
                raise OmicsParameterError(name, "must be a dict", type(given[name]).__name__)
        for name, value in given.items():
            checked = check_id(name, value) if name in _IDS else value
            check_member(name, checked, shape=shapes[_MEMBERS[name]]).raise_if_any()
            members[_MEMBERS[name]] = checked
        check_combinations(members)
        size = len(canonical_json(members.get("parameters", {})))
        if size > MAX_PARAMETERS_BYTES:
            raise OmicsParameterError(
                "parameters", f"must have at most {MAX_PARAMETERS_BYTES:,} bytes of JSON", f"{size:,} bytes"
            )
        return members


class CancelRunOperator(RunWaitOperator):
    """Cancel a single HealthOmics run, and wait until it has stopped.

    The task can run several times: it cancels the run once. What it does depends on the status of the run:

    - PENDING, STARTING, RUNNING: it cancels the run.
    - STOPPING, CANCELLED: it only waits. The run is already ending, or was cancelled before, perhaps by an earlier try.
    - COMPLETED, FAILED, DELETED: it fails, because there is nothing to cancel.

    It cancels a run only after GetRun has confirmed its uuid, because HealthOmics reuses the ids of deleted runs. A
    cancelled run saves no outputs. For the run of a batch, use CancelRunBatchOperator.

    As a teardown (``operator.as_teardown(setups=...)``) the task succeeds if there is nothing to cancel: the run has
    finished, is not found for 5 minutes (with a warning), or ``run_id`` is empty.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/canceling-runs.html

    :param run_id: id of the run, as StartRunOperator returns it. (templated)
    :param run_uuid: uuid of the run, as the XCom ``run`` has it. If it is given, the task never cancels another run
        that has got the same id. Default: the uuid in the first answer of each try. (templated)
    :param wait_for_completion: whether to wait until the run has stopped. Otherwise the task succeeds as soon as the
        service has accepted the request. Default True.
    :param waiter_delay: seconds between two GetRun calls, at least 1, or a timedelta. Default 60.
    :param timeout: seconds after which the task fails if the run is still active, or a timedelta. A retry continues.
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

    :return: id of the run; None in a teardown without a run. The XCom ``run``
        (:class:`~airflow_provider_omics_cache.xcoms.RunXCom`) is the run as GetRun showed it last; without waiting, the
        status is the one before the cancellation.
    :raises OmicsParameterError: a parameter breaks a rule.
    :raises RunConflictError: the run has finished; there is nothing to cancel.
    :raises RunNotFoundError: the service does not know the run.
    :raises RunTimeoutError: the run was still active at ``timeout``.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: a call to AWS failed.
    """

    template_fields: Sequence[str] = aws_template_fields("run_id", "run_uuid")
    trigger_class = RunCancellationTrigger

    def __init__(
        self,
        *,
        run_id: str | XComArg,
        run_uuid: str | XComArg | None = None,
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
        check_flags(wait_for_completion=wait_for_completion)
        self.run_id = cast("str", run_id)
        self.run_uuid = cast("str | None", run_uuid)
        self.wait_for_completion = wait_for_completion
        if not wait_for_completion:
            check_effect(
                CancelRunOperator.__init__,
                {"waiter_delay": waiter_delay, "deferrable": deferrable},
                needs="wait_for_completion=True",
                default_args=kwargs.get("default_args") or {},
            )

    def execute(self, context: Context) -> str | None:
        """Cancel the run, and wait in this process or in the triggerer.

        :param context: Airflow's context of the task.
        """
        if self.is_teardown and self.run_id in EMPTY_IDS:
            self.log.info("Nothing to do: run_id is %r", self.run_id)
            return None
        self.check_parameters()
        if self.wait_for_completion and self.deferrable:
            self.check_deferral()
        run = self._cancel(context)
        if run is None:
            self.log.warning("Nothing to do: run %s was not found", self.run_id)
            self.push_last_answer(Run(id=self.run_id), context)
            return self.run_id
        self.run_uuid = run.uuid
        persist_links(context, self, **links_of_run(self.run_id))
        is_finished = run.meaning.to_cancel == ToCancel.FINISHED
        if is_finished and not self.is_teardown:
            raise RunConflictError(
                f"Run {self.run_id} has already finished ({run.status}); there is nothing to cancel.",
                run_id=self.run_id,
                status=run.status,
            )
        if is_finished or not self.wait_for_completion:
            self.push_last_answer(run, context)
            return self.run_id
        return str(self.wait(context))

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, began_at: float | None = None
    ) -> Any:
        """Turn the trigger's event into the task's result.

        :param context: Airflow's context of the task.
        :param event: the trigger's event.
        :param began_at: when the wait began, in epoch seconds. Default: it is derived from the deadline.
        """
        self.check_parameters()
        return super().execute_complete(context, event, began_at)

    def conclude(self, subject: Run, context: Context, *, has_failed: bool) -> PokeReturnValue:
        """Return the id of the run, which has stopped.

        :param subject: the run, as GetRun showed it last.
        :param context: Airflow's context of the task.
        :param has_failed: not used.
        """
        if subject.status != RunStatus.CANCELLED:
            self.log.warning("Run %s is %s: it ended before the cancellation", subject.id, subject.shown_status)
        return PokeReturnValue(is_done=True, xcom_value=subject.id)

    def _cancel(self, context: Context) -> Run | None:
        """Cancel the run. Return it as it was before the cancellation; None if a teardown does not find it."""
        get = partial(self.hook.get_run, run_id=self.run_id)
        try:
            with self.until_deadline(context, at_least=LAST_LOOK_SECONDS):
                if self.is_teardown and not is_visible(
                    self.hook, get, f"Run {self.run_id}", max_silence=self.max_silence, run_id=self.run_id
                ):
                    return None
                return cancel_run_once(
                    self.hook,
                    self.run_id,
                    uuid=self.run_uuid,
                    max_seconds=min(REQUEST_SECONDS, max(0.0, self._deadline(context) - timing.time())),
                    max_silence=self.max_silence,
                )
        except OmicsApiError as error:
            if not error.is_not_found:
                raise
            event = Event(status=EventStatus.ERROR, message=str(error), code=NOT_FOUND)
            raise self._error(event) from error.__cause__


class DeleteRunOperator(AwsBaseOperator[OmicsCacheHook]):
    """Delete the metadata of a single HealthOmics run that has ended.

    Runs count towards the account's limit until they are deleted. The outputs in S3 and the logs stay. The task can run
    several times: if the run does not exist, or was deleted before, the task succeeds. It deletes a run only after
    GetRun has confirmed its uuid, because HealthOmics reuses the ids of deleted runs. A cleared StartRunOperator cannot
    find a deleted run, and may start a new one. For the runs of a batch, use DeleteRunBatchOperator.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_DeleteRun.html

    :param run_id: id of the run, as StartRunOperator returns it. (templated)
    :param run_uuid: uuid of the run, as the XCom ``run`` has it. If it is given, the task never deletes another run
        that has got the same id. Default: the uuid in the first answer of each try. (templated)
    :param max_silence: seconds for which an unanswered call is repeated, or a timedelta. Default 3600.
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: id of the run. The XCom ``run`` (:class:`~airflow_provider_omics_cache.xcoms.RunXCom`) is the run as it was
        before the deletion, with the status DELETED.
    :raises OmicsParameterError: a parameter breaks a rule.
    :raises RunConflictError: the run is active; cancel it first.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: a call to AWS failed.
    """

    aws_hook_class = OmicsCacheHook
    template_fields: Sequence[str] = aws_template_fields("run_id", "run_uuid")

    def __init__(
        self,
        *,
        run_id: str | XComArg,
        run_uuid: str | XComArg | None = None,
        max_silence: float | timedelta = LONGEST_SILENCE,
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
        self.run_id = cast("str", run_id)
        self.run_uuid = cast("str | None", run_uuid)
        self.max_silence = seconds("max_silence", max_silence)

    def execute(self, context: Context) -> str:
        """Delete the run.

        :param context: Airflow's context of the task.
        """
        run_id, uuid = check_id("run_id", self.run_id), check_run_uuid(self.run_uuid)
        deleted = delete_run_once(
            self.hook, run_id, uuid=uuid, max_seconds=REQUEST_SECONDS, max_silence=self.max_silence
        )
        run = deleted or Run(id=run_id, uuid=uuid)
        context["ti"].xcom_push(key="run", value={**run.to_xcom(), "status": str(RunStatus.DELETED)})
        return run_id
