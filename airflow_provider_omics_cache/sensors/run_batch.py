"""Sensors that wait for HealthOmics batches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_omics_cache._compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    PokeReturnValue,
    conf,
    first_reschedule_date,
)
from airflow_provider_omics_cache.exceptions import (
    BatchError,
    OmicsError,
    OmicsParameterError,
    TooManyFailedSubmissionsError,
)
from airflow_provider_omics_cache.healthomics import submission
from airflow_provider_omics_cache.healthomics.allowance import allowed
from airflow_provider_omics_cache.healthomics.completion import RunCounts
from airflow_provider_omics_cache.healthomics.rounds import SHORTEST_INTERVAL, Batch
from airflow_provider_omics_cache.healthomics.states import BatchStatus
from airflow_provider_omics_cache.healthomics.submission import Submissions
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.links.omics import OmicsBatchLink, OmicsLogGroupLink, OmicsRunLink
from airflow_provider_omics_cache.tasks.listing import BatchListingMixin, batch_error, batch_record
from airflow_provider_omics_cache.tasks.outcome import BatchCompletionMixin
from airflow_provider_omics_cache.tasks.wait import BatchWaitMixin, is_deferral_timeout, seconds
from airflow_provider_omics_cache.triggers.run_batch import (
    BatchCompletionTrigger,
    BatchSubmissionTrigger,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

#: A dict with more entries than this belongs in S3.
LARGE_MAPPING = 10_000


class BatchSensor(BatchWaitMixin, AwsBaseSensor[OmicsCacheHook]):
    """Base of the sensors that wait for a batch: modes and flags."""

    aws_hook_class = OmicsCacheHook

    def __init__(
        self,
        *,
        batch_id: str,
        max_silence: float | timedelta = 3600,
        poke_interval: float | timedelta = 60,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.batch_id = batch_id
        self.max_silence = seconds("max_silence", max_silence)
        self.deferrable = deferrable

    @property
    def interval(self) -> float:
        """Seconds between two rounds."""
        return max(SHORTEST_INTERVAL, self.poke_interval)

    def timeout_error(self, message: str) -> Exception:
        """Give the error of a wait that has reached its deadline."""
        return AirflowSensorTimeout(message)

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Ask once, and conclude when there is nothing left to wait for."""
        event = self._round(context)
        while event is None and self.reschedule and self._started_wait(context).is_disturbed:
            # Rounds without an answer are counted in a row, and a rescheduled task would forget them.
            time.sleep(self.interval)
            event = self._started_wait(context).overdue(time.time()) or self._round(context)
        return (event is not None and self._conclude(event, context)) or False

    def execute(self, context: Context) -> Any:
        """Wait in this process, by rescheduling, or in the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        with self._failure_flags():
            result = self._unless_silent(lambda: self._look(context))
            if result:
                return result.xcom_value
            self._defer(self._deadline(context))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Conclude with the trigger's event; defer again when the service has to catch up."""
        with self._failure_flags():
            self.check_parameters()
            parsed = self._resume(event)
            result = self._unless_silent(lambda: self._conclude(parsed, context))
            if result:
                return result.xcom_value
            self._defer_again(parsed, context)

    def _unless_silent(self, look: Callable[[], PokeReturnValue | None]) -> PokeReturnValue | None:
        """Look, and with ``silent_fail`` take an error that a retry may mend for "not yet", as poking does."""
        try:
            return look()
        except Exception as error:
            if not self.silent_fail or _is_final(error):
                raise
            self.log.error("A round failed: %s", error)
            return None

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after deferral, with ``soft_fail`` and ``never_fail`` as in the other modes.

        Airflow skips on every error here when ``soft_fail`` is set; when it pokes it skips on final errors only.
        """
        with self._failure_flags():
            if is_deferral_timeout(next_method, next_kwargs):
                return self.execute_complete(context, self._event_of_a_late_trigger())
            try:
                return super().resume_execution(next_method, next_kwargs, context)
            except AirflowSkipException as skip:
                if self.soft_fail and isinstance(skip.__cause__, Exception) and not _is_final(skip.__cause__):
                    raise skip.__cause__ from skip.__cause__.__cause__
                raise

    @contextmanager
    def _failure_flags(self) -> Iterator[None]:
        try:
            yield
        except AirflowSkipException:
            raise
        except (Exception, AirflowTaskTimeout) as error:
            if self.never_fail or (self.soft_fail and _is_final(error)):
                raise AirflowSkipException(f"Skipping instead of failing: {error}") from error
            raise

    def _started(self, context: Context) -> float:
        """When the wait began, in epoch seconds; a rescheduled task began at its first poke."""
        first = first_reschedule_date(context) if self.reschedule else None
        return first.timestamp() if first else super()._started(context)

    def _is_first_round(self, context: Context) -> bool:
        return not self.reschedule or first_reschedule_date(context) is None


class BatchSubmissionSensor(BatchListingMixin, BatchSensor):
    """Wait until every run of a batch has been submitted, and hand on its ``runSettingId → runId`` mapping.

    Submission is not completion: the runs go on when this sensor has succeeded. The sensor never cancels anything.
    It asks GetBatch once a round and lists the runs (ListRunsInBatch) only when nothing is left to submit.

    .. seealso::
        https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html,
        https://docs.aws.amazon.com/omics/latest/api/API_ListRunsInBatch.html

    Before it succeeds, and before it fails because of the batch, it pushes these XComs:

    * ``return_value``: the mapping ``{runSettingId: runId}``, or the URI when ``mapping_s3_uri`` is set;
    * ``failed_submissions``: at most 1,000 of ``{run_setting_id, run_id, run_uuid, status, reason, message}``;
    * ``failed_submission_count``: how many there are;
    * ``changed_after_submission``: likewise, runs that were submitted and then cancelled or deleted;
    * ``batch``: ``{id, arn, uuid, status, total_runs, submitted, failed}``.

    :param batch_id: the batch, as StartRunBatchOperator returns it. (templated)
    :param expected_runs: how many runs the batch has. Default: what the service says. (templated)
    :param max_failed_submissions: how many runs may fail to be submitted: a number, or a share of all such as
        ``"5%"``. Default 0.
    :param consistency_timeout: seconds after submission (or a timedelta) during which an incomplete listing is waited
        for. Default 300.
    :param max_silence: seconds (or a timedelta) without an answer (throttled, faults, lost connections) after which
        the task fails. Default 3600.
    :param mapping_s3_uri: write the full listing to this object, one JSON document a line, and return its URI instead
        of the mapping. (templated)
    :param s3_conn_id: connection for that object. Default: ``aws_conn_id``. (templated)
    :param s3_extra_args: options of the upload, for example ``ServerSideEncryption`` or ``ExpectedBucketOwner``.
        (templated)
    :param poke_interval: seconds between two rounds, or a timedelta. Default 60. ``exponential_backoff`` has no
        effect on a deferred task.
    :param deferrable: wait in the triggerer; needs aiobotocore. Default: ``[operators] default_deferrable``.
    :return: the mapping, or the URI.
    :raises BatchFailedError: when the batch failed as a whole; so do BatchCancelledError, BatchDeletedError and
        BatchNotFoundError for what they name. None of these is retried.
    :raises TooManyFailedSubmissionsError: when more than ``max_failed_submissions`` failed; not retried.
    :raises IncompleteListingError: when the service has not listed all runs after ``consistency_timeout``.
    :raises BatchSilenceError: when no answer came for ``max_silence``.
    :raises OmicsApiError: when AWS refuses a call.
    """

    template_fields: Sequence[str] = aws_template_fields(
        "batch_id", "expected_runs", "mapping_s3_uri", "s3_conn_id", "s3_extra_args"
    )
    trigger_class = BatchSubmissionTrigger

    def __init__(
        self,
        *,
        batch_id: str,
        expected_runs: int | str | None = None,
        max_failed_submissions: int | str = 0,
        consistency_timeout: float | timedelta = 300,
        mapping_s3_uri: str | None = None,
        s3_conn_id: str | None = None,
        s3_extra_args: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_id=batch_id, **kwargs)
        self.expected_runs = expected_runs
        self.max_failed_submissions = max_failed_submissions
        self.consistency_timeout = seconds("consistency_timeout", consistency_timeout)
        self.mapping_s3_uri = mapping_s3_uri
        self.s3_conn_id = s3_conn_id
        self.s3_extra_args = s3_extra_args

    def check_parameters(self) -> None:
        """Refuse bad parameters before the first call."""
        super().check_parameters()
        self._expected_runs()
        self.allowance("max_failed_submissions")
        self.check_s3_output("mapping_s3_uri")

    def conclude(self, batch: Batch, context: Context, *, has_failed: bool) -> PokeReturnValue | None:
        """List the runs, push the XComs, and give the verdict."""
        with tempfile.TemporaryFile() if self.mapping_s3_uri else nullcontext() as file:
            if has_failed:
                raise self._conclude_failed(batch, file, context)
            submissions = self.complete_listing(
                lambda: self._list(Submissions(keep_run_ids=file is None), file, context),
                batch,
                submission.expected_number(self._expected_runs(), batch),
                batch.submitted_time,
                context,
            )
            if submissions is None:
                return None
            mapping = self._push(batch, submissions, file, context)
        if submissions.failed_count > allowed(self.allowance("max_failed_submissions"), submissions.rows):
            self._push_mapping(mapping, context)
            raise TooManyFailedSubmissionsError(
                f"batch {batch.id}: {submissions.failed_count:,} of {submissions.rows:,} runs were not submitted, "
                f"max_failed_submissions is {self.max_failed_submissions}: {submissions.failure_summary()}",
                batch_id=batch.id,
                status=batch.status,
            )
        self.log.info(
            "batch %s: %s runs are submitted, %s failed to be; %s",
            batch.id,
            f"{submissions.submitted_count:,}",
            f"{submissions.failed_count:,}",
            "all have ended" if batch.status == BatchStatus.PROCESSED else "the runs are still running",
        )
        return PokeReturnValue(is_done=True, xcom_value=mapping)

    def _conclude_failed(self, batch: Batch, file: IO[bytes] | None, context: Context) -> BatchError:
        """Push what is known of a batch that is over, and give its error; nothing else hides that error."""
        submissions = Submissions(batch_is_over=True, keep_run_ids=file is None)
        note = ""
        try:
            self._list(submissions, file, context)
            expected = submission.expected_number(self._expected_runs(), batch)
            if expected is not None and batch.status in {BatchStatus.CANCELLED, BatchStatus.FAILED}:
                submitted = max(submissions.submitted_count, batch.submitted or 0)
                submissions.add_unlisted(expected - submitted - submissions.failed_count)
            self._push_mapping(self._push(batch, submissions, file, context), context)
        except (OmicsError, AirflowSensorTimeout) as error:
            note = f"; handing on its runs failed: {error}"
        submitted = max(submissions.submitted_count, batch.submitted or 0)
        at_least = "at least " if batch.status == BatchStatus.FAILED else ""
        return batch_error(batch, f"{at_least}{submitted:,} runs were submitted{note}")

    def _list(self, submissions: Submissions, file: IO[bytes] | None, context: Context) -> Submissions:
        if file:
            file.seek(0)
            file.truncate()
        rows = partial(self.hook.list_submissions, batch_id=self.batch_id)
        for row in self.within_limits(context, lambda patience: rows(max_silence=patience)):
            submissions.add(row)
            if file:
                file.write(Submissions.line(row))
        return submissions

    def _push(
        self, batch: Batch, submissions: Submissions, file: IO[bytes] | None, context: Context
    ) -> dict[str, str] | str:
        ti = context["ti"]
        submitted = submissions.submitted_count
        ti.xcom_push(key="failed_submissions", value=submissions.failed)
        ti.xcom_push(key="failed_submission_count", value=submissions.failed_count)
        ti.xcom_push(key="changed_after_submission", value=submissions.changed)
        ti.xcom_push(
            key="batch",
            value=batch_record(
                batch,
                total_runs=max(batch.total_runs or 0, submitted + submissions.failed_count),
                submitted=submitted,
                failed=submissions.failed_count,
            ),
        )
        mapping: dict[str, str] | str = submissions.run_ids
        if file and self.mapping_s3_uri:
            mapping = self.write_to_s3(file, "mapping_s3_uri")
        elif len(mapping) > LARGE_MAPPING:
            self.log.warning(
                "the mapping has %s entries; set mapping_s3_uri, or use an object storage XCom backend",
                f"{len(mapping):,}",
            )
        return mapping

    def _push_mapping(self, mapping: dict[str, str] | str, context: Context) -> None:
        """Push what a task that fails cannot return."""
        if self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=mapping)

    def _expected_runs(self) -> int | None:
        if self.expected_runs in (None, "", "None"):
            return None
        expected = str(self.expected_runs)
        if not expected.isdecimal() or int(expected) < 1:
            raise OmicsParameterError("expected_runs", "must be a whole number of runs from 1", self.expected_runs)
        return int(expected)


class BatchCompletionSensor(BatchCompletionMixin, BatchSensor):
    """Wait until every run of a batch has ended, and tell how.

    A batch that is PROCESSED has ended, well or not. The sensor succeeds when the service says that enough runs have
    completed; whatever is not known to be completed counts as failed: runs that failed, were cancelled or deleted, or
    were never submitted. When a batch has failed or was cancelled, it waits for the end of the runs that go on. The
    sensor never cancels anything. It asks GetBatch once a round, and lists the runs (ListRunsInBatch, ListRuns, and
    GetRun for those that failed) only at the end, if one has not completed or ``runs_s3_uri`` is set.

    .. seealso::
        https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html,
        https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html

    Before it succeeds, and before it fails because of the batch, it pushes these XComs:

    * ``return_value`` and ``run_counts``: ``{total, completed, failed, cancelled, deleted, not_submitted}``, None where
      the service does not tell;
    * ``failed_run_count``: how many runs are not known to be completed;
    * ``failed_runs``: at most 1,000 of them as ``{run_setting_id, run_id, run_uuid, status, failure_reason,
      status_message}``. The status of a run that was never submitted is ``NOT_SUBMITTED``; reason and message are
      those of its submission then.

    :param batch_id: the batch, as StartRunBatchOperator returns it. (templated)
    :param max_failed_runs: how many runs may not complete: a number, or a share of all such as ``"5%"``. Default 0.
    :param runs_s3_uri: write what is known of each run to this object, one JSON document a line: ``run_setting_id``,
        ``run_id``, ``run_uuid``, ``status``, ``creation_time``, ``start_time``, ``stop_time``, ``failure_reason``,
        ``status_message``, ``run_output_uri``. (templated)
    :param include_outputs: ask GetRun for every run, so that ``run_output_uri`` is known. At most ``[omics_cache]
        max_get_run_per_second`` are asked for: 100,000 runs take hours, for which ``timeout`` does not hold. Default
        False.
    :param consistency_timeout: seconds after the batch's end (or a timedelta) during which counts or a listing that
        lack runs are waited for. Default 300.
    :param max_silence: seconds (or a timedelta) without an answer (throttled, faults, lost connections) after which
        the task fails. Default 3600.
    :param s3_conn_id: connection for that object. Default: ``aws_conn_id``. (templated)
    :param s3_extra_args: options of the upload, for example ``ServerSideEncryption`` or ``ExpectedBucketOwner``.
        (templated)
    :param poke_interval: seconds between two rounds, or a timedelta. Default 60. ``exponential_backoff`` has no
        effect on a deferred task.
    :param deferrable: wait in the triggerer; needs aiobotocore. Default: ``[operators] default_deferrable``.
    :return: the counts.
    :raises BatchFailedError: when the batch failed as a whole; so do BatchCancelledError, BatchDeletedError and
        BatchNotFoundError for what they name. None of these is retried.
    :raises TooManyFailedRunsError: when more than ``max_failed_runs`` did not complete; not retried.
    :raises UnknownOutcomeError: when the service does not tell how many completed, or its counts and its listing
        contradict each other, after ``consistency_timeout``.
    :raises IncompleteListingError: when the service has not listed all runs after ``consistency_timeout``.
    :raises BatchSilenceError: when no answer came for ``max_silence``.
    :raises OmicsApiError: when AWS refuses a call.
    """

    template_fields: Sequence[str] = aws_template_fields("batch_id", "runs_s3_uri", "s3_conn_id", "s3_extra_args")
    operator_extra_links = (OmicsRunLink(), OmicsBatchLink(), OmicsLogGroupLink())
    trigger_class = BatchCompletionTrigger

    def __init__(
        self,
        *,
        batch_id: str,
        max_failed_runs: int | str = 0,
        runs_s3_uri: str | None = None,
        include_outputs: bool = False,
        consistency_timeout: float | timedelta = 300,
        s3_conn_id: str | None = None,
        s3_extra_args: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_id=batch_id, **kwargs)
        self.max_failed_runs = max_failed_runs
        self.runs_s3_uri = runs_s3_uri
        self.include_outputs = include_outputs
        self.consistency_timeout = seconds("consistency_timeout", consistency_timeout)
        self.s3_conn_id = s3_conn_id
        self.s3_extra_args = s3_extra_args

    def result(self, batch: Batch, counts: RunCounts) -> dict[str, int | None]:
        """Give what the task returns: the counts."""
        return counts.to_json()


def _is_final(error: BaseException) -> bool:
    """Tell whether Airflow's sensors take the error for the sensor's verdict, not for a fault to retry."""
    return isinstance(error, (AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout))
