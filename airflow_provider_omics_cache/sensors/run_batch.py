"""Sensors that wait for HealthOmics batches."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from typing import IO, TYPE_CHECKING, Any

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
from airflow_provider_omics_cache.healthomics.failures import allowed
from airflow_provider_omics_cache.healthomics.rounds import CONSISTENCY_SECONDS, Batch
from airflow_provider_omics_cache.healthomics.states import BatchStatus, End
from airflow_provider_omics_cache.healthomics.submission import Submissions
from airflow_provider_omics_cache.links.omics import OmicsBatchLink, OmicsLogGroupLink, OmicsRunLink
from airflow_provider_omics_cache.tasks.listing import ListingTask, batch_error
from airflow_provider_omics_cache.tasks.outcome import RunOutcomeTask
from airflow_provider_omics_cache.tasks.wait import BatchWaitSensor, seconds
from airflow_provider_omics_cache.triggers.run_batch import (
    BatchCompletionTrigger,
    BatchSubmissionTrigger,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_omics_cache.xcoms import RunCountsXCom

#: A mapping with more entries than this belongs in S3.
LARGE_MAPPING = 10_000


class BatchSubmissionSensor(ListingTask, BatchWaitSensor):
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
        consistency_timeout: float | timedelta = CONSISTENCY_SECONDS,
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
        """Check the parameters before the first call.

        :raises OmicsParameterError: a parameter breaks a rule.
        """
        super().check_parameters()
        self._given_runs()
        self.allowance("max_failed_submissions")
        self.check_s3_output("mapping_s3_uri")

    def conclude(self, batch: Batch, context: Context, *, has_failed: bool) -> PokeReturnValue | None:
        """List the runs, push the XComs, and return or raise the verdict.

        :param batch: the batch, as GetBatch showed it last.
        :param context: Airflow's context of the task.
        :param has_failed: whether the batch ended before every run was submitted.
        """
        with tempfile.TemporaryFile() if self.mapping_s3_uri else nullcontext() as file:
            if has_failed:
                raise self._conclude_failed(batch, file, context)
            submissions = self.complete_listing(
                lambda: self._list(Submissions(), file, context),
                batch,
                self._number_of_runs(batch),
                batch.submitted_time,
                context,
            )
            if submissions is None:
                return None
            mapping = self._push(batch, submissions, file, context)
        if submissions.failed_count > allowed(self.allowance("max_failed_submissions"), submissions.rows):
            self._push_mapping(mapping, context)
            raise TooManyFailedSubmissionsError(
                f"Batch {batch.id}: {submissions.failed_count:,} of {submissions.rows:,} runs were not submitted, "
                f"max_failed_submissions is {self.max_failed_submissions}: {submissions.failure_summary()}",
                batch_id=batch.id,
                status=batch.status,
            )
        self.log.info(
            "Batch %s: %s runs submitted, %s submissions failed; %s",
            batch.id,
            f"{submissions.submitted_count:,}",
            f"{submissions.failed_count:,}",
            "all runs have ended" if batch.status == BatchStatus.PROCESSED else "the runs continue",
        )
        return PokeReturnValue(is_done=True, xcom_value=mapping)

    def _conclude_failed(self, batch: Batch, file: IO[bytes] | None, context: Context) -> BatchError:
        """Push what is known of a batch that ended early, and return its error; no other error hides it."""
        submissions = Submissions(batch_is_over=True)
        note = ""
        try:
            self._list(submissions, file, context)
            expected = self._number_of_runs(batch)
            if expected is not None and batch.meaning.end in {End.CANCELLED, End.FAILED}:
                submitted = max(submissions.submitted_count, batch.submitted or 0)
                submissions.add_unlisted(expected - submitted - submissions.failed_count)
            self._push_mapping(self._push(batch, submissions, file, context), context)
        except (OmicsError, AirflowSensorTimeout) as error:
            note = f"; its runs could not be listed or passed on: {error}"
        submitted = max(submissions.submitted_count, batch.submitted or 0)
        at_least = "at least " if batch.meaning.end == End.FAILED else ""
        return batch_error(batch, f"{at_least}{submitted:,} runs were submitted{note}")

    def _list(self, submissions: Submissions, file: IO[bytes] | None, context: Context) -> Submissions:
        if file:
            file.seek(0)
            file.truncate()
        rows = partial(list_submissions, self.hook, self.batch_id)
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
            value=batch.to_xcom(
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
                "The mapping has %s entries; set mapping_s3_uri, or use an object storage XCom backend",
                f"{len(mapping):,}",
            )
        return mapping

    def _push_mapping(self, mapping: dict[str, str] | str, context: Context) -> None:
        """Push the result of a task that fails, and therefore returns nothing."""
        if self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=mapping)

    def _number_of_runs(self, batch: Batch) -> int | None:
        given = self._given_runs()
        return batch.expected_runs if given is None else given

    def _given_runs(self) -> int | None:
        if self.expected_runs in (None, "", "None"):
            return None
        expected = str(self.expected_runs)
        if not expected.isdecimal() or int(expected) < 1:
            raise OmicsParameterError("expected_runs", "must be a whole number of runs from 1", self.expected_runs)
        return int(expected)


class BatchCompletionSensor(RunOutcomeTask, BatchWaitSensor):
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
        consistency_timeout: float | timedelta = CONSISTENCY_SECONDS,
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

    def result(self, batch: Batch, counts: RunCounts) -> RunCountsXCom:
        """Return what the task returns: the counts.

        :param batch: the batch.
        :param counts: how its runs have ended.
        """
        return counts.to_json()
