"""Sensors that wait for HealthOmics batches."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, Literal

from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_omics_cache._compat import AirflowSensorTimeout, PokeReturnValue
from airflow_provider_omics_cache.exceptions import (
    BatchError,
    OmicsError,
    OmicsParameterError,
    TooManyFailedSubmissionsError,
)
from airflow_provider_omics_cache.healthomics.batch_runs import list_submissions
from airflow_provider_omics_cache.healthomics.completion import RunCounts
from airflow_provider_omics_cache.healthomics.failures import allowed, size_and_limit, what_continues
from airflow_provider_omics_cache.healthomics.rounds import CONSISTENCY_SECONDS, Batch
from airflow_provider_omics_cache.healthomics.states import End
from airflow_provider_omics_cache.healthomics.submission import (
    Submissions,
    counted_as_incomplete,
    doubt_about_end,
    has_too_many_failures,
)
from airflow_provider_omics_cache.hooks.client import LONGEST_SILENCE
from airflow_provider_omics_cache.links.omics import OmicsBatchLink, OmicsLogGroupLink, OmicsRunLink
from airflow_provider_omics_cache.tasks.listing import ListingTask, batch_error
from airflow_provider_omics_cache.tasks.outcome import RunOutcomeTask
from airflow_provider_omics_cache.tasks.parameters import DEFAULT_DEFERRABLE, DEFAULT_SENSOR_TIMEOUT, check_flags
from airflow_provider_omics_cache.tasks.wait import WAITER_DELAY, BatchWaitSensor, seconds
from airflow_provider_omics_cache.triggers.run_batch import (
    BatchCompletionTrigger,
    BatchSubmissionTrigger,
)

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_omics_cache.xcoms import RunCountsXCom

#: Number of entries above which the sensor logs that the mapping should be written to S3.
LARGE_MAPPING = 10_000


class BatchSubmissionSensor(ListingTask, BatchWaitSensor):
    """Wait until every run of a batch was submitted, and return the mapping ``{runSettingId: runId}``.

    Submission is not completion: the runs continue after the sensor has succeeded. The sensor never cancels anything.
    It calls GetBatch once per round, and lists the runs (ListRunsInBatch) only when nothing is left to submit.

    .. seealso::
        https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html,
        https://docs.aws.amazon.com/omics/latest/api/API_ListRunsInBatch.html

    It pushes these XComs before it succeeds, and before it fails because of the batch:

    * ``return_value``: the mapping ``{runSettingId: runId}``, or the URI if ``mapping_s3_uri`` is set. If the sensor
      fails because of the batch and cannot write the object, it is the mapping, up to 10,000 entries;
    * ``failed_submissions``: at most 1,000 of ``{run_setting_id, run_id, run_uuid, status, reason, message}``;
    * ``failed_submission_count``: number of failed submissions;
    * ``changed_after_submission``: at most 1,000 records like those of ``failed_submissions``, of runs that were
      submitted and then cancelled or deleted;
    * ``batch`` (:class:`~airflow_provider_omics_cache.xcoms.BatchXCom`) with ``id``, ``arn``, ``uuid``, ``status``,
      ``total_runs``, ``submitted`` and ``failed``.

    :param batch_id: id of the batch, as StartRunBatchOperator returns it. (templated)
    :param expected_runs: number of runs of the batch. Default: what the service reports. (templated)
    :param max_failed_submissions: how many submissions may fail: a number, or a share of all runs such as ``"5%"``,
        rounded down. Default 0. (templated)
    :param fail_fast: whether to fail in the first round in which GetBatch counts more failed submissions than
        ``max_failed_submissions`` allows. The batch continues. Otherwise the sensor fails when nothing is left to
        submit. Default False.
    :param consistency_timeout: seconds after the submission, or a timedelta, for which the sensor waits until the
        listing includes every run. If the batch failed, they count from its failure. If it was cancelled, they count
        from the first round that shows it as CANCELLED, because the service does not report the time. Default 300.
    :param max_silence: seconds without an answer about the batch (throttling, server errors, lost connections) after
        which the task fails, or a timedelta. Default 3600.
    :param mapping_s3_uri: S3 URI of the object to which the full listing is written, one JSON document per line. The
        sensor then returns the URI instead of the mapping. In a mapped task it must differ for each map index, for
        example by ``{{ ti.map_index }}``. (templated)
    :param s3_conn_id: Airflow connection for ``mapping_s3_uri``. Giving it without that URI is an error. Default:
        ``aws_conn_id``. (templated)
    :param s3_extra_args: arguments of the upload, such as ``ServerSideEncryption`` or ``ExpectedBucketOwner``. Giving
        them without that URI is an error. (templated)
    :param poke_interval: seconds between two GetBatch calls, at least 1, or a timedelta. Default 60.
        ``exponential_backoff`` has no effect on a deferred task.
    :param timeout: seconds of waiting after which the task fails with AirflowSensorTimeout, or a timedelta. The batch
        continues. Default: ``[sensors] default_timeout``, 7 days unless it is set.
    :param deferrable: whether to wait in the triggerer; needs aiobotocore. Default: ``[operators]
        default_deferrable``.
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: the mapping, or the URI.
    :raises OmicsParameterError: a parameter breaks a rule.
    :raises BatchFailedError: the batch as a whole failed. The task is not retried after this error or the next four.
    :raises BatchCancelledError: the batch was cancelled.
    :raises BatchDeletedError: the runs of the batch were deleted.
    :raises BatchNotFoundError: the service does not know the batch.
    :raises TooManyFailedSubmissionsError: more than ``max_failed_submissions`` failed.
    :raises IncompleteListingError: the service did not list all runs within ``consistency_timeout``.
    :raises BatchSilenceError: no answer about the batch came for ``max_silence``.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: a call to AWS failed.
    """

    template_fields: Sequence[str] = aws_template_fields(
        "batch_id", "expected_runs", "max_failed_submissions", "mapping_s3_uri", "s3_conn_id", "s3_extra_args"
    )
    trigger_class = BatchSubmissionTrigger

    def __init__(
        self,
        *,
        batch_id: str | XComArg,
        expected_runs: int | str | None = None,
        max_failed_submissions: int | str = 0,
        fail_fast: bool = False,
        consistency_timeout: float | timedelta = CONSISTENCY_SECONDS,
        mapping_s3_uri: str | None = None,
        s3_conn_id: str | None = None,
        s3_extra_args: dict[str, Any] | None = None,
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
            batch_id=batch_id,
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
        check_flags(fail_fast=fail_fast)
        self.expected_runs = expected_runs
        self.max_failed_submissions = max_failed_submissions
        self.fail_fast = fail_fast
        self.consistency_timeout = seconds("consistency_timeout", consistency_timeout)
        self.mapping_s3_uri = mapping_s3_uri
        self.s3_conn_id = s3_conn_id
        self.s3_extra_args = s3_extra_args
        self.check_s3_effect(BatchSubmissionSensor.__init__, "mapping_s3_uri", kwargs.get("default_args"))
        self.check_differs_for_map_index("mapping_s3_uri")
        self.check_allowance("max_failed_submissions")

    @property
    def max_failed(self) -> int | str | None:
        """Number or share of submissions that may fail before the wait ends early. None: it never ends early."""
        return self.max_failed_submissions if self.fail_fast else None

    def check_parameters(self) -> None:
        """Check the parameters before the first call.

        :raises OmicsParameterError: a parameter breaks a rule.
        """
        super().check_parameters()
        self._given_runs()
        self.allowance("max_failed_submissions")
        self.check_s3_output("mapping_s3_uri")

    def conclude(self, batch: Batch, context: Context, *, has_failed: bool) -> PokeReturnValue | None:
        """List the runs, push the XComs, and return the result or raise the error.

        :param batch: the batch, as GetBatch showed it last.
        :param context: Airflow's context of the task.
        :param has_failed: whether the batch ended, or too many submissions failed, before every run was submitted.
        """
        max_failed = self.allowance("max_failed_submissions")
        with tempfile.TemporaryFile() if self.mapping_s3_uri else nullcontext() as file:
            if has_failed and self.fail_fast and has_too_many_failures(batch, max_failed):
                raise self._fail_fast(batch, file, context)
            if has_failed and self.must_continue(batch):
                return None
            if has_failed:
                failure = self._conclude_failed(batch, file, context)
                if failure is None:
                    return None
                raise failure
            submissions = self.complete_listing(
                lambda: self._list(Submissions(), file),
                batch,
                self._number_of_runs(batch),
                batch.submitted_time,
                context,
            )
            if submissions is None:
                return None
            self._push(batch, submissions, context)
            unwritten = self.try_to_write(file, "mapping_s3_uri")
        if submissions.failed_count > allowed(max_failed, submissions.rows):
            note = self._push_mapping(batch, submissions, unwritten, context)
            limit = size_and_limit(batch.id, submissions.rows, "max_failed_submissions", self.max_failed_submissions)
            submitted = submissions.submitted_count
            is_active = submitted and batch.meaning.end != End.PROCESSED
            raise TooManyFailedSubmissionsError(
                f"{submissions.failure_summary()}. {limit}{note}"
                f"{f'; {what_continues(submitted)}' if is_active else ''}",
                batch_id=batch.id,
                status=batch.status,
            )
        if submissions.failed_count:
            self.log.warning("Batch %s: %s", batch.id, submissions.failure_summary())
        if unwritten:
            raise unwritten
        mapping = self._mapping(batch, submissions)
        self.log.info(
            "Batch %s: %s runs submitted, %s submissions failed; %s",
            batch.id,
            f"{submissions.submitted_count:,}",
            f"{submissions.failed_count:,}",
            "all runs have ended" if batch.meaning.end == End.PROCESSED else "the runs continue",
        )
        return PokeReturnValue(is_done=True, xcom_value=mapping)

    def _fail_fast(self, batch: Batch, file: IO[bytes] | None, context: Context) -> TooManyFailedSubmissionsError:
        """Push what is known of a batch that is still active, and return the error."""
        submissions = Submissions()
        note = ""
        try:
            submissions = self.hook.list_whole(lambda: self._list(Submissions(), file))
        except (OmicsError, AirflowSensorTimeout) as error:
            note = f"; its runs could not be listed: {error}"
        failed = max(batch.failed or 0, submissions.failed_count)
        self._push(batch, submissions, context, failed=failed)
        if not note:
            unwritten = self.try_to_write(file, "mapping_s3_uri")
            note = self._push_mapping(batch, submissions, unwritten, context)
        limit = size_and_limit(batch.id, batch.expected_runs, "max_failed_submissions", self.max_failed_submissions)
        return TooManyFailedSubmissionsError(
            f"{submissions.failure_summary(failed)}. {limit}{note}; {self.settle_active_batch()}",
            batch_id=batch.id,
            status=batch.status,
        )

    def _conclude_failed(self, batch: Batch, file: IO[bytes] | None, context: Context) -> BatchError | None:
        """Push what is known of a batch that ended early, and return its error, even if its runs cannot be listed.

        :return: the error, None while the service may be catching up.
        """
        submissions = Submissions(batch_is_over=True)
        expected = self._number_of_runs(batch)
        may_catch_up = self.may_catch_up(batch, context)
        doubt = counted_as_incomplete(batch, expected)
        note = unwritten_note = ""
        if doubt and may_catch_up:
            self.wait_to_catch_up(batch, doubt)
            return None
        try:
            submissions = self.hook.list_whole(lambda: self._list(Submissions(batch_is_over=True), file))
            doubt = doubt_about_end(batch, submissions, expected)
            if doubt and may_catch_up:
                self.wait_to_catch_up(batch, doubt)
                return None
            unlisted = max(submissions.claimed_count, batch.submitted or 0) - submissions.submitted_count
            if unlisted:
                note = f"; {unlisted:,} of them are not listed with a runId"
            if expected is not None and batch.meaning.end in {End.CANCELLED, End.FAILED}:
                submitted = submissions.submitted_count + unlisted
                submissions.add_unlisted(expected - submitted - submissions.failed_count)
            self._push(batch, submissions, context)
            unwritten = self.try_to_write(file, "mapping_s3_uri")
            unwritten_note = self._push_mapping(batch, submissions, unwritten, context)
        except (OmicsError, AirflowSensorTimeout) as error:
            note = f"; its runs could not be listed: {error}"
        submitted = max(submissions.claimed_count, batch.submitted or 0)
        failures = f"; {submissions.failure_summary()}" if submissions.failed else ""
        known = f"{submitted:,} runs were submitted"
        if batch.meaning.end == End.FAILED:
            known = f"at least {known}{' and may continue' if submitted else ''}"
        return batch_error(batch, f"{known}{note}{failures}{unwritten_note}")

    def _list(self, submissions: Submissions, file: IO[bytes] | None) -> Submissions:
        if file:
            file.seek(0)
            file.truncate()
        with self.within_limits():
            for row in list_submissions(self.hook, self.batch_id, max_silence=self.max_silence):
                submissions.add(row)
                if file:
                    file.write(Submissions.line(row))
        return submissions

    def _push(
        self,
        batch: Batch,
        submissions: Submissions,
        context: Context,
        *,
        failed: int | None = None,
    ) -> None:
        ti = context["ti"]
        submitted = submissions.submitted_count
        failed = submissions.failed_count if failed is None else failed
        ti.xcom_push(key="failed_submissions", value=submissions.failed)
        ti.xcom_push(key="failed_submission_count", value=failed)
        ti.xcom_push(key="changed_after_submission", value=submissions.changed)
        ti.xcom_push(
            key="batch",
            value=batch.to_xcom(
                total_runs=max(batch.total_runs or 0, submitted + failed),
                submitted=submitted,
                failed=failed,
            ),
        )

    def _mapping(self, batch: Batch, submissions: Submissions) -> dict[str, str] | str:
        """Return the task's return value: the mapping, or the URI of the object that has it."""
        if self.mapping_s3_uri:
            return self.mapping_s3_uri
        if len(submissions.run_ids) > LARGE_MAPPING:
            self.log.warning(
                "Batch %s: the mapping has %s entries; set mapping_s3_uri, or use an object storage XCom backend",
                batch.id,
                f"{len(submissions.run_ids):,}",
            )
        return submissions.run_ids

    def _push_mapping(
        self, batch: Batch, submissions: Submissions, unwritten: OmicsError | None, context: Context
    ) -> str:
        """Push the result as ``return_value``, because a task that fails returns nothing.

        If the mapping was not written to S3, the result is the mapping itself, unless it is large: no retry writes it.

        :return: the end of the task's error: why the mapping was not written.
        """
        is_too_large = unwritten and len(submissions.run_ids) > LARGE_MAPPING
        if self.do_xcom_push and not is_too_large:
            mapping = submissions.run_ids if unwritten else self._mapping(batch, submissions)
            context["ti"].xcom_push(key="return_value", value=mapping)
        return f"; the mapping was not written: {unwritten}" if unwritten else ""

    def _number_of_runs(self, batch: Batch) -> int | None:
        given = self._given_runs()
        return batch.expected_runs if given is None else given

    def _given_runs(self) -> int | None:
        if self.expected_runs in (None, "", "None"):
            return None
        expected = str(self.expected_runs)
        if not expected.isdecimal() or int(expected) < 1:
            raise OmicsParameterError("expected_runs", "must be an integer, 1 or more", self.expected_runs)
        return int(expected)


class BatchCompletionSensor(RunOutcomeTask, BatchWaitSensor):
    """Wait until every run of a batch has ended, and report how.

    PROCESSED means that all runs have ended, not that they completed. The sensor succeeds if enough runs are COMPLETED.
    Every other run counts as failed: failed, cancelled, deleted or never submitted. If the batch itself failed or was
    cancelled, the sensor waits for the end of its active runs. The sensor never cancels anything. It calls GetBatch
    once per round. It lists the runs (ListRunsInBatch, ListRuns, and GetRun for failed runs) only at the end, and only
    if a run did not complete or ``runs_s3_uri`` is set.

    .. seealso::
        https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html,
        https://docs.aws.amazon.com/omics/latest/dev/workflows-batch.html

    It pushes these XComs before it succeeds, and before it fails because of the batch:

    * ``return_value`` and ``run_counts``: ``{total, completed, failed, cancelled, deleted, not_submitted}``. A count
      that the service does not report is None;
    * ``failed_run_count``: number of runs that are not known to be COMPLETED;
    * ``failed_runs``: records of at most 1,000 of these runs, as ``{run_setting_id, run_id, run_uuid, status,
      failure_reason, status_message}``. A run that was never submitted has the status ``NOT_SUBMITTED``, with the
      reason and message of its submission. A run that was submitted, but is listed without its id, has the status
      ``UNKNOWN``.

    :param batch_id: id of the batch, as StartRunBatchOperator returns it. (templated)
    :param max_failed_runs: how many runs may fail to complete, including those whose submission failed: a number, or a
        share of all runs such as ``"5%"``. A share is rounded down: ``"2%"`` of 299 runs allows 5. Default 0.
        (templated)
    :param fail_fast: whether to fail in the first round in which GetBatch counts more runs as failed, cancelled,
        deleted or not submitted than ``max_failed_runs`` allows. The batch continues, and ``runs_s3_uri`` is not
        written. Otherwise the sensor fails when every run has ended. Default False.
    :param runs_s3_uri: S3 URI of the object to which a record of each run is written. A run that was never submitted
        has a record too. The object has one JSON document per line: ``run_setting_id``, ``run_id``, ``run_uuid``,
        ``status``, ``creation_time``, ``start_time``, ``stop_time``, ``failure_reason``, ``status_message``,
        ``run_output_uri``, ``output_source``. In a mapped task the URI must differ for each map index, for example by
        ``{{ ti.map_index }}``. (templated)
    :param include_outputs: whether the records have the location of the outputs, ``run_output_uri``. With True, the
        records of completed runs have it. If a tag of the batch shows that no run setting has its own ``outputUri``,
        GetRun is called for up to 20 completed runs that are spread over the batch. If each of their locations is the
        ``outputUri`` followed by the ids of the run, the other locations are derived (``output_source`` is
        ``derived``). Otherwise GetRun is called for every completed run. StartRunBatchOperator sets the tag if
        ``run_settings`` is a list, or a file that ``save_run_settings`` has written. With ``"exact"`` GetRun is called
        for every run of any status. GetRun is called at most ``[omics_cache] max_get_run_per_second`` times a second
        (default 5): 300 calls take a minute, and 100,000 calls take hours. Default False.
    :param consistency_timeout: seconds after the end of the batch, or a timedelta, for which the sensor waits until the
        counts and listings include every run. If the service does not report when the batch ended, they count from the
        first round that shows the end. Default 300.
    :param max_silence: seconds without an answer about the batch (throttling, server errors, lost connections) after
        which the task fails, or a timedelta. Default 3600.
    :param s3_conn_id: Airflow connection for ``runs_s3_uri``. Giving it without that URI is an error. Default:
        ``aws_conn_id``. (templated)
    :param s3_extra_args: arguments of the upload, such as ``ServerSideEncryption`` or ``ExpectedBucketOwner``. Giving
        them without that URI is an error. (templated)
    :param poke_interval: seconds between two GetBatch calls, at least 1, or a timedelta. Default 60.
        ``exponential_backoff`` has no effect on a deferred task.
    :param timeout: seconds of waiting after which the task fails with AirflowSensorTimeout, or a timedelta. The batch
        continues. Default: ``[sensors] default_timeout``, 7 days unless it is set.
    :param deferrable: whether to wait in the triggerer; needs aiobotocore. Default: ``[operators]
        default_deferrable``.
    :param aws_conn_id: Airflow connection for AWS. If it is None or empty, boto3 searches for credentials itself.
        Default: ``aws_default``. (templated)
    :param region_name: AWS Region. Default: the connection's, else boto3's. (templated)
    :param verify: False to skip the verification of TLS certificates, or the path of a CA bundle. Default: the
        connection's setting, else True. (templated)
    :param botocore_config: settings of the botocore client, merged over the connection's.

    :return: the counts.
    :raises OmicsParameterError: a parameter breaks a rule.
    :raises BatchFailedError: the batch as a whole failed. The task is not retried after this error or the next four.
    :raises BatchCancelledError: the batch was cancelled.
    :raises BatchDeletedError: the runs of the batch were deleted.
    :raises BatchNotFoundError: the service does not know the batch.
    :raises TooManyFailedRunsError: more than ``max_failed_runs`` did not complete.
    :raises UnknownOutcomeError: after ``consistency_timeout`` the service does not report how many runs completed, or
        its counts and its listing differ. The task may be retried.
    :raises IncompleteListingError: the service did not list all runs within ``consistency_timeout``.
    :raises BatchSilenceError: no answer about the batch came for ``max_silence``.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: a call to AWS failed.
    """

    template_fields: Sequence[str] = aws_template_fields(
        "batch_id", "max_failed_runs", "runs_s3_uri", "s3_conn_id", "s3_extra_args"
    )
    operator_extra_links = (OmicsRunLink(), OmicsBatchLink(), OmicsLogGroupLink())
    trigger_class = BatchCompletionTrigger

    def __init__(
        self,
        *,
        batch_id: str | XComArg,
        max_failed_runs: int | str = 0,
        fail_fast: bool = False,
        runs_s3_uri: str | None = None,
        include_outputs: bool | Literal["exact"] = False,
        consistency_timeout: float | timedelta = CONSISTENCY_SECONDS,
        s3_conn_id: str | None = None,
        s3_extra_args: dict[str, Any] | None = None,
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
            batch_id=batch_id,
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
        check_flags(fail_fast=fail_fast)
        self.max_failed_runs = max_failed_runs
        self.fail_fast = fail_fast
        self.runs_s3_uri = runs_s3_uri
        self.include_outputs = include_outputs
        self.consistency_timeout = seconds("consistency_timeout", consistency_timeout)
        self.s3_conn_id = s3_conn_id
        self.s3_extra_args = s3_extra_args
        self.check_s3_effect(BatchCompletionSensor.__init__, "runs_s3_uri", kwargs.get("default_args"))
        self.check_outcome_limits()

    def result(self, batch: Batch, counts: RunCounts) -> RunCountsXCom:
        """Return the task's return value: the counts.

        :param batch: the batch.
        :param counts: how its runs have ended.
        """
        return counts.to_json()
