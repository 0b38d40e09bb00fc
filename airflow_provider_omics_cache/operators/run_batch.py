"""Operators for HealthOmics batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any

import botocore
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from airflow_provider_omics_cache._compat import PokeReturnValue, conf
from airflow_provider_omics_cache.batch_end import CancelDecision, decide_cancel, was_cancelled
from airflow_provider_omics_cache.batch_start import OWN_TAGS
from airflow_provider_omics_cache.completion import ENDED_RUN_STATES, RunCounts
from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchConflictError,
    BatchError,
    OmicsError,
    OmicsParameterError,
)
from airflow_provider_omics_cache.hooks.omics import api_error, check_id, check_tags
from airflow_provider_omics_cache.hooks.s3 import bucket_and_key, check_bucket_name, head_object
from airflow_provider_omics_cache.idempotency import BatchIdentity, digest, request_digest
from airflow_provider_omics_cache.links.omics import OmicsBatchLink, OmicsLogGroupLink, OmicsRunLink, persist_links
from airflow_provider_omics_cache.mixins.batch_completion import BatchCompletionMixin
from airflow_provider_omics_cache.mixins.batch_end import EndRunBatchOperator
from airflow_provider_omics_cache.mixins.batch_listing import batch_record
from airflow_provider_omics_cache.mixins.batch_wait import BatchWaitOperator, check_aiobotocore, seconds
from airflow_provider_omics_cache.mixins.saved_mapping import SavedMappingMixin
from airflow_provider_omics_cache.run_settings import (
    MAX_FILE_BYTES,
    MAX_INLINE_SETTINGS,
    BrokenRules,
    check_member,
    check_run_settings,
)
from airflow_provider_omics_cache.states import BatchStatus, RunStatus
from airflow_provider_omics_cache.triggers.run_batch import (
    BatchCancellationTrigger,
    BatchDeletionTrigger,
    StartRunBatchTrigger,
)
from airflow_provider_omics_cache.waiting import Batch

if TYPE_CHECKING:
    from airflow.sdk import Context

_IDS = ("workflowId", "cacheId", "runGroupId")
_SPOOLED_BYTES = 1024**2
#: For how many seconds a batch is tried to be cancelled at the task's timeout.
CANCEL_SECONDS = 300.0
#: Seconds to wait, one after the other, while another try uploads the same settings.
_UPLOAD_CONFLICT_DELAYS = (1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The run settings as they will be sent.

    :param digest: stands for their content.
    :param prepare: puts them where the service can read them, and gives StartRunBatch's ``batchRunSettings``.
    :param count: number of settings, None if unknown.
    :param s3_uri: where in S3 they are, None if they go inline.
    """

    digest: str
    prepare: Callable[[], Mapping[str, Any]]
    count: int | None = None
    s3_uri: str | None = None


class StartRunBatchOperator(BatchCompletionMixin, BatchWaitOperator):
    """Start a batch of HealthOmics runs, once: a retry finds the batch that an earlier try has started.

    One batch belongs to one task of one DAG run (and to one ``map_index``), however often the task is retried or
    cleared, and whatever became of the connection after the service had started the batch. The batch that is there

    - is taken if it is active or processed and was started with the same settings;
    - is replaced if it failed before any run was started, or if it is processed and the settings have changed;
    - makes the task fail, without a retry, if it is active with other settings, failed after runs were started,
      was cancelled, or its runs were deleted. The error tells the ways out.

    The order of the settings and of the keys inside them makes no difference.

    ``batch_name`` has to be the same for all tries: a batch of another name is not found again. A changed one is an
    error, or a second batch once the service has forgotten the token of the first.

    With ``wait_for_completion=True`` it waits until every run has ended, as BatchCompletionSensor does, in this process
    or in the triggerer. The XCom ``batch`` is there before it waits; a retry finds the batch and goes on waiting.

    Up to 100 run settings are sent inline. More are checked and uploaded as one JSON array below
    ``settings_s3_prefix``, under a name that is the SHA-256 of the content; what is there already is never
    overwritten. Nothing is deleted: let a lifecycle rule of the bucket do that.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html

    :param default_run_setting: what all runs have in common, with the members of AWS's ``DefaultRunSetting``
        (camelCase); ``workflowId`` and ``roleArn`` are required. (templated)
    :param run_settings: what each run has of its own: a list of dicts with the members of AWS's ``InlineSetting``,
        at most 100,000, each with a unique ``runSettingId``; or the ``s3://`` URI of a JSON array of them, which is
        passed on unread and must not change until the batch is submitted. It has to exist for every try, also for
        one that finds its batch. (templated)
    :param batch_name: beginning of the batch's name, which ends in a hash of what the batch belongs to; at most
        47 characters of it are used. Default: the task id. (templated)
    :param tags: tags of the batch, at most 48: the operator adds two. Its runs do not inherit them. (templated)
    :param run_tags: tags of every run, merged over ``runTags`` of ``default_run_setting``; at most 50 together.
        (templated)
    :param settings_s3_prefix: ``s3://`` URI below which more than 100 settings are uploaded. The batch's role has to
        be able to read there. (templated)
    :param s3_conn_id: Airflow connection for the upload. Default: ``aws_conn_id``. (templated)
    :param s3_extra_args: more arguments of PutObject, such as ``ServerSideEncryption``, ``SSEKMSKeyId``, ``ACL`` or
        ``ExpectedBucketOwner``; those that HeadObject has too go with each look at a file. Default: where the bucket
        is that of ``outputUri``, ``outputBucketOwnerId`` of ``default_run_setting`` is the expected owner. (templated)
    :param request_id: idempotency token, at most 128 characters. Default: derived from what the batch belongs to and
        from the settings. (templated)
    :param rerun_key: any string; another one makes another batch in the same DAG run. (templated)
    :param wait_for_completion: wait for the end of the batch's runs. Default False.
    :param waiter_delay: seconds between two looks at the batch, at least 1, or a timedelta. Default 60.
    :param timeout: seconds of waiting (or a timedelta) after which the task fails. Default: a week.
    :param deferrable: wait in the triggerer; needs aiobotocore. Default: ``[operators] default_deferrable``. Nothing is
        deferred without ``wait_for_completion``.
    :param max_failed_runs: how many runs may not complete: a number, or a share of all such as ``"5%"``. Default 0.
    :param runs_s3_uri: write what is known of each run to this object, as BatchCompletionSensor does. (templated)
    :param include_outputs: write where the outputs are, too; asks GetRun for every run. Default False.
    :param consistency_timeout: seconds after the batch's end (or a timedelta) during which counts or a listing that
        lack runs are waited for. Default 300.
    :param max_silence: seconds (or a timedelta) of waiting without an answer after which the task fails. Default 3600.
    :param cancel_on_kill: cancel the batch when the task is killed while it waits: marked, cleared, or stopped by
        ``execution_timeout``. Of a deferred task Airflow tells the former two from 3.3 on; its ``execution_timeout``
        is a deadline as ``timeout``. Default False.
    :param cancel_on_timeout: cancel the batch at ``timeout``; the task is not retried then. Default False.
    :param aws_conn_id: Airflow connection for AWS; None or empty for boto3's own ways. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: whether, or with which CA bundle, TLS certificates are verified. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: id of the batch. XCom key ``batch`` holds id, arn, uuid, status, name, expected_runs (None for settings
        that the task has not read), request_id, settings_s3_uri (None for inline settings; where a batch was found
        whose settings had another order, its own file has another name) and ``reattached``: whether the batch of an
        earlier try was found. One that the service does not list yet and gives back for the same token counts as
        started. After a wait, the keys ``run_counts``, ``failed_runs`` and ``failed_run_count`` tell how the runs have
        ended, as those of BatchCompletionSensor do.
    :raises OmicsParameterError: a parameter breaks a rule; nothing was started or uploaded.
    :raises OmicsVersionError: the installed botocore does not know batches.
    :raises BatchError: the batch that is there can neither be taken nor replaced; or, after a wait, it failed, was
        cancelled or deleted, or (TooManyFailedRunsError) too many of its runs did not complete.
    :raises BatchTimeoutError: the batch had not ended at ``timeout``; a retry goes on waiting.
    :raises OmicsApiError: a call to AWS failed.
    """

    trigger_class = StartRunBatchTrigger
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

    batch_id = ""

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
        wait_for_completion: bool = False,
        max_failed_runs: int | str = 0,
        runs_s3_uri: str | None = None,
        include_outputs: bool = False,
        consistency_timeout: float | timedelta = 300,
        cancel_on_kill: bool = False,
        cancel_on_timeout: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
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
        self.wait_for_completion = wait_for_completion
        self.max_failed_runs = max_failed_runs
        self.runs_s3_uri = runs_s3_uri
        self.include_outputs = include_outputs
        self.consistency_timeout = seconds("consistency_timeout", consistency_timeout)
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout

    def execute(self, context: Context) -> str:
        """Start or find the batch, push what is known of it, and wait if that is wanted."""
        self.check_completion_parameters()
        if self.wait_for_completion and self.deferrable:
            check_aiobotocore()
        batch_id = self._start(context)
        if self.wait_for_completion:
            self.batch_id = batch_id
            if self.do_xcom_push:
                # A teardown needs it whatever becomes of the wait.
                context["ti"].xcom_push(key="return_value", value=batch_id)
            self.wait(context)
        return batch_id

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after deferral, with the batch that the task has pushed before it."""
        ti = context["ti"]
        batch = ti.xcom_pull(task_ids=ti.task_id, key="batch", map_indexes=ti.map_index)
        if not batch:
            raise OmicsError("the XCom batch of this task is gone; the next try finds the batch, and waits for it")
        self.batch_id = batch["id"]
        return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Cancel the batch, if that is wanted and it is known; what goes wrong is logged."""
        if not (self.cancel_on_kill and self.wait_for_completion):
            return
        if self.batch_id:
            self.hook.cancel_batch_of_killed_task(batch_id=self.batch_id)
        else:
            self.log.warning("No batch of this task is known yet that could be cancelled")

    def result(self, batch: Batch, counts: RunCounts) -> str:
        """Give what the task returns: the id of the batch."""
        return batch.id

    def trigger_arguments(self) -> dict[str, Any]:
        """Give what the trigger needs beyond the wait itself."""
        return {"cancel_on_kill": self.cancel_on_kill}

    def give_up(self, message: str) -> Exception:
        """Cancel the batch at the deadline if that is wanted; give the error."""
        if not self.cancel_on_timeout:
            return super().give_up(message)
        try:
            batch = self.hook.cancel_batch_once(batch_id=self.batch_id, max_seconds=CANCEL_SECONDS)
        except OmicsError as error:
            return BatchError(f"{message}; cancelling it failed: {error}", batch_id=self.batch_id)
        status = batch.get("status")
        decision = decide_cancel(status)
        if decision == CancelDecision.FINISHED:
            return super().give_up(f"{message}; it is {status} by now")
        if decision == CancelDecision.LOOK_AGAIN:
            return BatchError(
                f"{message}; it is still {status} and could not be cancelled", batch_id=self.batch_id, status=status
            )
        by_whom = "by somebody" if decision == CancelDecision.LEAVE else "as cancel_on_timeout says"
        return BatchCancelledError(
            f"{message}; it is cancelled, {by_whom}; a new rerun_key starts a new batch",
            batch_id=self.batch_id,
            status=status,
        )

    def _start(self, context: Context) -> str:
        ti = context["ti"]
        members = self.hook.describe_shape("StartRunBatchRequest")["members"]
        default_run_setting = self._checked_default_run_setting(members["defaultRunSetting"])
        tags = self._checked_tags("tags", self.tags, members["tags"])
        if OWN_TAGS & tags.keys():
            raise OmicsParameterError("tags", f"cannot hold {', '.join(sorted(OWN_TAGS))}", sorted(tags))
        check_tags("tags", tags, reserved=len(OWN_TAGS))
        identity = BatchIdentity(
            token_namespace=conf.get("omics_cache", "token_namespace", fallback="") or "",
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            rerun_key=None if self.rerun_key in (None, "") else str(self.rerun_key),
        )
        with SpooledTemporaryFile(max_size=_SPOOLED_BYTES) as file:
            settings = self._checked_settings(default_run_setting, members["batchRunSettings"]["members"], file)
            started = self.hook.start_batch_once(
                identity=identity,
                batch_name=str(self.batch_name or ti.task_id),
                request_digest=request_digest(default_run_setting=default_run_setting, settings_digest=settings.digest),
                default_run_setting=default_run_setting,
                batch_run_settings=settings.prepare,
                tags=tags,
                request_id=self.request_id,
                on_started=partial(setattr, self, "batch_id") if self.wait_for_completion else None,
            )
        batch = started.batch
        persist_links(context, self)
        ti.xcom_push(
            key="batch",
            value={
                "id": batch["id"],
                "arn": batch.get("arn"),
                "uuid": batch.get("uuid"),
                "status": batch.get("status"),
                "name": batch.get("name"),
                "expected_runs": settings.count,
                "request_id": started.request_id,
                "settings_s3_uri": settings.s3_uri,
                "reattached": started.reattached,
            },
        )
        return str(batch["id"])

    def _checked_default_run_setting(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(self.default_run_setting, dict):
            raise OmicsParameterError(
                "default_run_setting", "has to be a dict", type(self.default_run_setting).__name__
            )
        setting = dict(self.default_run_setting)
        for name in _IDS:
            if name in setting:
                setting[name] = check_id(f"default_run_setting.{name}", setting[name])
        run_tags = self._checked_tags("run_tags", self.run_tags, shape["members"]["runTags"])
        _raise_broken(
            check_member("default_run_setting", setting, shape=shape, unknown_rule=_unknown_rule("DefaultRunSetting"))
        )
        default_tags = setting.get("runTags", {})
        check_tags("default_run_setting.runTags", default_tags)
        check_tags("run_tags", run_tags, there=default_tags)
        if run_tags:
            setting["runTags"] = {**default_tags, **run_tags}
        return setting

    def _checked_tags(self, parameter: str, tags: Any, shape: Mapping[str, Any]) -> dict[str, str]:
        if tags is None:
            return {}
        _raise_broken(check_member(parameter, tags, shape=shape))
        return dict(tags)

    def _checked_settings(
        self, default_run_setting: dict[str, Any], members: Mapping[str, Any], file: IO[bytes]
    ) -> _Settings:
        """Check everything about the settings, without writing anything but the temporary file."""
        prefix = self.settings_s3_prefix or None
        if prefix is not None:
            check_bucket_name("settings_s3_prefix", prefix)
        if isinstance(self.run_settings, str) and self.run_settings.startswith("s3://"):
            return self._settings_of_uri(self.run_settings)
        found = check_run_settings(
            self.run_settings,
            shape=members["inlineSettings"]["member"],
            default_run_setting=default_run_setting,
            file=file,
            unknown_rule=_unknown_rule("InlineSetting"),
        )
        _raise_broken(found.broken)
        if found.count <= MAX_INLINE_SETTINGS:
            file.seek(0)
            inline = json.loads(file.read())
            return _Settings(digest=found.digest, count=found.count, prepare=lambda: {"inlineSettings": inline})
        if prefix is None:
            raise OmicsParameterError(
                "settings_s3_prefix",
                f"has to be set to an s3:// URI for more than {MAX_INLINE_SETTINGS} settings; run_settings holds "
                f"{found.count:,}",
                self.settings_s3_prefix,
            )
        if found.size > MAX_FILE_BYTES:
            raise OmicsParameterError(
                "run_settings", f"can have at most {MAX_FILE_BYTES:,} bytes as JSON", f"{found.size:,} bytes"
            )
        s3_uri = f"{prefix.rstrip('/')}/{found.sha256}.json"
        longest = members["s3UriSettings"].get("max")
        if longest and len(s3_uri) > longest:
            raise OmicsParameterError(
                "settings_s3_prefix", f"can have at most {longest - len(s3_uri) + len(prefix)} characters", prefix
            )
        self._check_s3_extra_args()
        extra_args = {
            "ContentType": "application/json",
            **_bucket_owner(prefix, default_run_setting),
            **(self.s3_extra_args or {}),
        }

        def upload() -> Mapping[str, Any]:
            self._upload(file, s3_uri, found.size, extra_args)
            return {"s3UriSettings": s3_uri}

        return _Settings(digest=found.digest, count=found.count, s3_uri=s3_uri, prepare=upload)

    def _settings_of_uri(self, uri: str) -> _Settings:
        check_bucket_name("run_settings", uri)
        if not bucket_and_key(uri)[1]:
            raise OmicsParameterError("run_settings", "has to be the s3:// URI of an object", uri)
        self._check_s3_extra_args()
        etag = None
        try:
            etag = self._head_object(uri, self.s3_extra_args or {})["ETag"]
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == 404:
                raise OmicsParameterError("run_settings", "has to be an object that exists in S3", uri) from error
            if status != 403:
                raise self._s3_error(error, "HeadObject") from error
            self.log.info("%s cannot be read by this task; its content is not compared between tries", uri)
        except BotoCoreError as error:
            raise self._s3_error(error, "HeadObject") from error
        return _Settings(digest=digest([uri, etag]), s3_uri=uri, prepare=lambda: {"s3UriSettings": uri})

    def _upload(self, file: IO[bytes], s3_uri: str, size: int, extra_args: Mapping[str, Any]) -> None:
        """Upload the settings unless they are there; the name is their SHA-256."""
        bucket, key = bucket_and_key(s3_uri)
        for delay in (*_UPLOAD_CONFLICT_DELAYS, None):
            file.seek(0)
            try:
                self._s3.put_object(**extra_args, Bucket=bucket, Key=key, Body=file, IfNoneMatch="*")
            except ParamValidationError as error:
                raise OmicsParameterError(
                    "s3_extra_args", "has to hold arguments of PutObject, of the right types", sorted(extra_args)
                ) from error
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code")
                if code == "NoSuchBucket":
                    raise OmicsParameterError(
                        "settings_s3_prefix", "has to name a bucket that exists", self.settings_s3_prefix
                    ) from error
                if code == "PreconditionFailed":
                    self._check_uploaded(s3_uri, size, extra_args)
                    self.log.info("The run settings are in %s already", s3_uri)
                    return
                if code != "ConditionalRequestConflict" or delay is None:
                    raise self._s3_error(error, "PutObject") from error
                self._sleep(delay)
            except BotoCoreError as error:
                raise self._s3_error(error, "PutObject") from error
            else:
                self.log.info("Uploaded the run settings to %s (%s bytes)", s3_uri, f"{size:,}")
                return

    def _check_uploaded(self, s3_uri: str, size: int, extra_args: Mapping[str, Any]) -> None:
        try:
            found = self._head_object(s3_uri, extra_args)["ContentLength"]
        except (BotoCoreError, ClientError):  # a role that may write need not be one that may read
            return
        if found != size:
            raise OmicsError(
                f"{s3_uri} has {found:,} bytes where these run settings have {size:,}: somebody replaced the file; "
                "delete it and try again"
            )

    def _check_s3_extra_args(self) -> None:
        if self.s3_extra_args is None:
            return
        if not isinstance(self.s3_extra_args, dict):
            raise OmicsParameterError("s3_extra_args", "has to be a dict", type(self.s3_extra_args).__name__)
        own = {"Bucket", "Key", "Body", "IfNoneMatch"}
        unknown = self.s3_extra_args.keys() - (self._members_of("PutObject") - own)
        if unknown:
            raise OmicsParameterError(
                "s3_extra_args",
                f"can hold only arguments of PutObject, without {', '.join(sorted(own))}",
                sorted(unknown),
            )

    def _head_object(self, s3_uri: str, extra_args: Mapping[str, Any]) -> dict[str, Any]:
        return head_object(s3_uri, s3=self._s3, extra_args=extra_args)

    def _members_of(self, operation: str) -> set[str]:
        return set(self._s3.meta.service_model.operation_model(operation).input_shape.members)

    def _s3_error(self, error: Exception, operation: str) -> OmicsError:
        return api_error(error, operation, self._s3.meta.region_name, self._s3.meta.endpoint_url)


class CancelRunBatchOperator(EndRunBatchOperator):
    """Cancel a batch of HealthOmics runs, and wait until none of its runs lives.

    However often the task runs, the batch is cancelled once. What happens depends on the state of the batch:

    - CREATING: it is waited, for 10 minutes and until ``timeout`` at most, until the batch can be cancelled;
    - PENDING, SUBMITTING, INPROGRESS: it is cancelled;
    - STOPPING, CANCELLED: somebody has cancelled it already, perhaps an earlier try;
    - FAILED: the runs that live are cancelled one by one, since the service cancels no FAILED batch;
    - PROCESSED or RUNS_*: the task fails, unless GetBatch counts runs that were cancelled as a batch. Where the last
      runs ended by themselves while the batch was cancelled, it counts none: the try that has asked for it succeeds
      with a warning, and a later one fails.

    A cancellation may be partial: when the batch is CANCELLED, the runs that still live are cancelled one by one. A run
    is cancelled only after GetRun has confirmed the batch and the uuid, because HealthOmics reuses the ids of deleted
    runs. Runs that have ended stay as they are. Runs that ListRuns does not show yet are asked for with GetRun, and for
    5 minutes after the task's start runs that GetBatch counts as alive are waited for.

    As a teardown (``operator.as_teardown(setups=...)``) it succeeds where there is nothing to cancel: the batch has
    finished, is not found for 5 minutes (it warns then), or ``batch_id`` is empty because none was started.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html

    :param batch_id: the batch, as StartRunBatchOperator returns it. (templated)
    :param wait_for_completion: wait until the runs have stopped; otherwise succeed once the service has been asked.
        Default: True.
    :param waiter_delay: seconds between two looks, or a timedelta. Default 60.
    :param timeout: seconds (or a timedelta) after which the task fails if runs still live; a retry goes on. Runs that
        are cancelled one by one are gone through to the last one before that. Default: 7 days.
    :param max_silence: seconds (or a timedelta) without an answer (throttled, faults, lost connections) after which
        the task fails. Default 3600.
    :param deferrable: wait in the triggerer; needs aiobotocore. Default: ``[operators] default_deferrable``.
    :param aws_conn_id: Airflow connection for AWS; None or empty for boto3's own ways. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: whether, or with which CA bundle, TLS certificates are verified. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: id of the batch; None in a teardown without one. XCom key ``batch`` holds id, arn, uuid, status, and how
        many of the started runs are ``cancelled`` and ``not_cancelled`` (ended otherwise); without waiting, status is
        that before the request, and the numbers are None.
    :raises OmicsParameterError: a parameter breaks a rule.
    :raises BatchConflictError: the batch has finished, so that there is nothing to cancel.
    :raises BatchNotFoundError: the service does not know the batch.
    :raises OmicsError: runs live that could not be cancelled; it names them.
    :raises BatchTimeoutError: runs still live at ``timeout``.
    :raises OmicsApiError: a call to AWS failed.
    """

    template_fields: Sequence[str] = aws_template_fields("batch_id")
    trigger_class = BatchCancellationTrigger

    def request(self, context: Context) -> dict[str, Any]:
        """Cancel the batch as its state allows."""
        limits = self.request_limits(context)
        if self.is_teardown:
            self.hook.is_batch_visible(batch_id=self.batch_id, max_silence=limits["max_silence"])
        batch = self.hook.cancel_batch_once(batch_id=self.batch_id, **limits)
        status = batch.get("status")
        decision = decide_cancel(status)
        if decision == CancelDecision.LOOK_AGAIN:
            raise OmicsError(
                f"batch {self.batch_id} is still {status} after {limits['max_seconds']:,.0f} s, "
                "and cannot be cancelled yet",
                batch_id=self.batch_id,
                status=status,
            )
        if self.is_over(batch) and not self.is_teardown:
            raise BatchConflictError(
                f"batch {self.batch_id} is {status}: {decision}", batch_id=self.batch_id, status=status
            )
        return batch

    def is_over(self, batch: dict[str, Any]) -> bool:
        """Whether the batch has finished without having been cancelled."""
        return decide_cancel(batch.get("status")) == CancelDecision.FINISHED and not was_cancelled(batch)

    def is_settled_without_batch(self) -> bool:
        """Whether it is fine that the service does not know the batch."""
        return self.is_teardown

    def conclude(self, batch: Batch, context: Context, *, has_failed: bool) -> PokeReturnValue | None:
        """Cancel the runs that still live, and succeed when there are none."""
        statuses = self.hook.cancel_living_runs(batch_id=batch.id, max_silence=self.max_silence)
        living = sum(status not in ENDED_RUN_STATES for status in statuses.values())
        if living:
            self.log.info("batch %s: %s of its runs have not ended yet", batch.id, f"{living:,}")
            return None
        counted = sum(count for name, count in batch.run_counts.items() if name.upper() not in ENDED_RUN_STATES)
        if counted and self.may_lag(context):
            self.log.info("batch %s: GetBatch counts %s runs that have not ended yet", batch.id, f"{counted:,}")
            return None
        cancelled = sum(status == RunStatus.CANCELLED for status in statuses.values())
        if batch.status == BatchStatus.PROCESSED:
            self.log.warning("batch %s is %s, and not CANCELLED: it was almost finished", batch.id, batch.status)
        self.log.info("batch %s: %s runs are cancelled, %s had ended", batch.id, cancelled, len(statuses) - cancelled)
        return PokeReturnValue(is_done=True, xcom_value=self.push(context, batch, cancelled, len(statuses) - cancelled))

    def push(
        self, context: Context, batch: Batch, cancelled: int | None = None, not_cancelled: int | None = None
    ) -> str:
        """Push what is known of the batch; give its id."""
        counts = {"cancelled": cancelled, "not_cancelled": not_cancelled}
        context["ti"].xcom_push(key="batch", value=batch_record(batch, **counts))
        return batch.id


class DeleteRunBatchOperator(SavedMappingMixin):
    """Delete the runs of a batch that is over, wait until they are gone, and delete the batch too if that is wanted.

    Runs count towards the account's limit until they are deleted. Deleting them removes metadata; what they have
    written to S3, and their logs, stay. However often the task runs, it ends in the same state. What happens depends
    on the state of the batch:

    - PROCESSED, CANCELLED: its runs are deleted;
    - RUNS_DELETING, RUNS_DELETED: somebody has asked for that already, perhaps an earlier try;
    - FAILED, RUNS_DELETE_FAILED: what is left is deleted run by run, since the service does not do it as a batch;
    - any other: the task fails; cancel the batch first, with CancelRunBatchOperator.

    Where the service could not delete each run, the rest is deleted run by run. A run is deleted only after GetRun has
    confirmed the batch and the uuid, because HealthOmics reuses the ids of deleted runs.

    With ``delete_batch=True`` the batch's metadata is deleted too, when no run is left. The link from runSettingId to
    runId is lost with it, so that ``save_mapping_s3_uri`` has to be set. The mapping is written before anything is
    deleted, and once: what an earlier try has written is kept, unless more runs are listed by now and none is deleted.
    A listing that lags behind is waited for, up to 5 minutes. The object's metadata name its batch; an object that
    holds anything else is neither overwritten nor taken for the mapping, and it is looked at again before the batch is
    deleted.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html

    :param batch_id: the batch, as StartRunBatchOperator returns it. (templated)
    :param delete_batch: delete the batch's metadata too. Default: False.
    :param save_mapping_s3_uri: write the listing of the batch to this object before anything is deleted, one JSON
        document a line, in the form of BatchSubmissionSensor's ``mapping_s3_uri``. (templated)
    :param s3_conn_id: connection for that object. Default: ``aws_conn_id``. (templated)
    :param s3_extra_args: options of the upload, for example ``ServerSideEncryption`` or ``ExpectedBucketOwner``.
        (templated)
    :param wait_for_completion: wait until the runs are deleted; otherwise succeed once the service has been asked.
        Default: True; has to be True for ``delete_batch``.
    :param waiter_delay: seconds between two looks, or a timedelta. Default 60.
    :param timeout: seconds (or a timedelta) after which the task fails if the runs are still being deleted; a retry
        goes on. Runs that are deleted one by one are gone through to the last one before that. Default: 7 days.
    :param max_silence: seconds (or a timedelta) without an answer (throttled, faults, lost connections) after which
        the task fails. Default 3600.
    :param deferrable: wait in the triggerer; needs aiobotocore. Default: ``[operators] default_deferrable``.
    :param aws_conn_id: Airflow connection for AWS; None or empty for boto3's own ways. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: whether, or with which CA bundle, TLS certificates are verified. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: id of the batch. XCom key ``batch`` holds id, arn, uuid, status (None where an earlier try has deleted the
        batch, and that before the request without waiting), batch_deleted and mapping_s3_uri.
    :raises OmicsParameterError: a parameter breaks a rule, or ``save_mapping_s3_uri`` holds something else
        than the mapping of this batch; nothing is deleted.
    :raises BatchConflictError: the batch is not over, or its state is not known; nothing is deleted.
    :raises BatchNotFoundError: the service does not know the batch, and no mapping tells that an earlier try has
        deleted it.
    :raises IncompleteListingError: the service does not list every run of the batch yet; nothing is deleted.
    :raises OmicsError: runs are left, which it names, or the saved mapping is gone; the batch is not deleted.
    :raises BatchTimeoutError: runs are still being deleted at ``timeout``.
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
        batch_id: str,
        delete_batch: bool = False,
        save_mapping_s3_uri: str | None = None,
        s3_conn_id: str | None = None,
        s3_extra_args: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_id=batch_id, **kwargs)
        self.delete_batch = delete_batch
        self.save_mapping_s3_uri = save_mapping_s3_uri
        self.s3_conn_id = s3_conn_id
        self.s3_extra_args = s3_extra_args

    def check_parameters(self) -> None:
        """Refuse bad parameters before the first call."""
        super().check_parameters()
        if self.delete_batch and self.save_mapping_s3_uri is None:
            raise OmicsParameterError(
                "save_mapping_s3_uri",
                "has to be set for delete_batch=True: the link from runSettingId to runId is lost with the batch",
                self.save_mapping_s3_uri,
            )
        if self.delete_batch and not self.wait_for_completion:
            raise OmicsParameterError(
                "wait_for_completion",
                "has to be True for delete_batch=True: the batch is deleted when no run is left",
                self.wait_for_completion,
            )
        self.check_s3_output("save_mapping_s3_uri")

    def request(self, context: Context) -> dict[str, Any]:
        """Save the mapping, then delete the runs as the state of the batch allows."""
        return self.hook.delete_runs_once(
            batch_id=self.batch_id, before=partial(self.save_mapping, context), **self.request_limits(context)
        )

    def is_settled_without_batch(self) -> bool:
        """Whether the mapping tells that an earlier try has deleted the batch."""
        return self.delete_batch and self.is_mapping_saved()

    def conclude(self, batch: Batch, context: Context, *, has_failed: bool) -> PokeReturnValue | None:
        """Delete the runs that are left, and then the batch."""
        self.hook.delete_left_runs(batch_id=batch.id, max_silence=self.max_silence)
        self.log.info("batch %s: no run is left", batch.id)
        if self.delete_batch:
            self.check_saved_mapping()
            self.hook.delete_batch_once(batch_id=batch.id, **self.request_limits(context))
        return PokeReturnValue(is_done=True, xcom_value=self.push(context, batch))

    def push(self, context: Context, batch: Batch) -> str:
        """Push what is known of the batch; give its id."""
        known = {"batch_deleted": self.delete_batch, "mapping_s3_uri": self.save_mapping_s3_uri}
        context["ti"].xcom_push(key="batch", value=batch_record(batch, **known))
        return batch.id


def _bucket_owner(settings_s3_prefix: str, default_run_setting: Mapping[str, Any]) -> dict[str, str]:
    """Tell S3 who has to own the bucket of the settings, where it is the one of the runs' output."""
    owner = default_run_setting.get("outputBucketOwnerId")
    output_bucket, _ = bucket_and_key(default_run_setting.get("outputUri") or "")
    if owner and output_bucket == bucket_and_key(settings_s3_prefix)[0]:
        return {"ExpectedBucketOwner": owner}
    return {}


def _unknown_rule(shape: str) -> str:
    return (
        f"has a key that botocore {botocore.__version__} does not know in {shape}: check its spelling; for a new key, "
        "upgrade boto3 (and aiobotocore with it)"
    )


def _raise_broken(broken: BrokenRules) -> None:
    if broken:
        raise OmicsParameterError(*broken.summary())
