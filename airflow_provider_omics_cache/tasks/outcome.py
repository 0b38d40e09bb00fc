"""What tasks that wait for the end of a batch's runs have in common."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from datetime import UTC
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_omics_cache._compat import AirflowSensorTimeout, PokeReturnValue
from airflow_provider_omics_cache.exceptions import (
    BatchError,
    OmicsError,
    OmicsParameterError,
    TooManyFailedRunsError,
    UnknownOutcomeError,
)
from airflow_provider_omics_cache.healthomics.allowance import allowed
from airflow_provider_omics_cache.healthomics.completion import Judgement, RunCounts, RunOutcomes, join, may_be_active
from airflow_provider_omics_cache.healthomics.failures import MAX_LISTED_RUNS
from airflow_provider_omics_cache.healthomics.rounds import Batch
from airflow_provider_omics_cache.healthomics.states import BatchStatus, RunStatus, SubmissionStatus
from airflow_provider_omics_cache.healthomics.submission import Submissions
from airflow_provider_omics_cache.links.omics import persist_links
from airflow_provider_omics_cache.tasks.listing import BatchListingMixin, batch_error

if TYPE_CHECKING:
    from airflow.sdk import Context

_ROW_MEMBERS = (
    "runSettingId",
    "runId",
    "runInternalUuid",
    "submissionStatus",
    "submissionFailureReason",
    "submissionFailureMessage",
)
_RUN_MEMBERS = ("status", "creationTime", "startTime", "stopTime")

#: GetRun tells nothing more of runs that have ended so, their output apart.
_WITHOUT_REASON = frozenset({RunStatus.COMPLETED, RunStatus.CANCELLED, RunStatus.DELETED})


class BatchCompletionMixin(BatchListingMixin):
    """Tell how the runs of a batch have ended, once nothing of it goes on."""

    max_failed_runs: int | str
    runs_s3_uri: str | None
    include_outputs: bool

    @abstractmethod
    def result(self, batch: Batch, counts: RunCounts) -> Any:
        """Give what the task returns.

        :param batch: the batch.
        :param counts: how its runs have ended.
        """

    def check_parameters(self) -> None:
        """Refuse bad parameters before the first call."""
        super().check_parameters()
        self.check_completion_parameters()

    def check_completion_parameters(self) -> None:
        """Refuse bad parameters that are about the end of the runs."""
        self.allowance("max_failed_runs")
        self.check_s3_output("runs_s3_uri")
        if self.include_outputs and not self.runs_s3_uri:
            raise OmicsParameterError("include_outputs", "needs runs_s3_uri, where the outputs are written", True)

    def conclude(self, batch: Batch, context: Context, *, has_failed: bool) -> PokeReturnValue | None:
        """Count the runs, join what is known of them, push the XComs, and give the verdict."""
        if has_failed:
            failure = self._conclude_failed(batch, context)
            if failure is None:
                return None
            raise failure
        counts = RunCounts.of_batch(batch)
        max_failed = allowed(self.allowance("max_failed_runs"), counts.total or 0)
        judgement = counts.judge(max_failed)
        if judgement == Judgement.UNKNOWN and not self.has_caught_up(batch.processed_time, _seen_at(batch), context):
            self.log.info("batch %s is %s: %s", batch.id, batch.status, judgement)
            return None
        if counts.completed is None or counts.total is None:
            raise self._unknown_outcome(batch, "GetBatch does not tell how many of its runs completed")
        outcomes = RunOutcomes()
        note = ""
        if counts.not_completed or self.runs_s3_uri:
            try:
                if not self._take_in(outcomes, batch, context):
                    return None
            except (OmicsError, AirflowSensorTimeout) as error:
                if judgement == Judgement.COMPLETED and self.runs_s3_uri:
                    raise
                outcomes = RunOutcomes()
                note = f"; telling more of its runs failed: {error}"
        self._push(counts, outcomes, context)
        if judgement == Judgement.COMPLETED:
            self.log.info(
                "batch %s: %s of %s runs completed%s", batch.id, f"{counts.completed:,}", f"{counts.total:,}", note
            )
            return PokeReturnValue(is_done=True, xcom_value=self.result(batch, counts))
        if outcomes.counts.total and outcomes.counts.not_completed <= max_failed:
            listed = outcomes.counts.completed
            raise self._unknown_outcome(
                batch, f"GetBatch counts {counts.completed:,} completed runs, ListRuns {listed:,}"
            )
        self._push_result(batch, counts, context)
        summary = f": {outcomes.failure_summary()}" if outcomes.failed else ""
        raise TooManyFailedRunsError(
            f"batch {batch.id}: {counts.not_completed:,} of {counts.total:,} runs did not complete, "
            f"max_failed_runs is {self.max_failed_runs}{summary}{note}",
            batch_id=batch.id,
            status=batch.status,
        )

    def _unknown_outcome(self, batch: Batch, text: str) -> UnknownOutcomeError:
        return UnknownOutcomeError(
            f"batch {batch.id} is {batch.status}, and {text}", batch_id=batch.id, status=batch.status
        )

    def _conclude_failed(self, batch: Batch, context: Context) -> BatchError | None:
        """Push what is known of a batch that is over, and give its error; nothing else hides that error.

        :return: the error, None while runs of the batch go on.
        """
        if batch.status in {BatchStatus.FAILED, BatchStatus.CANCELLED} and self._has_active_runs(context):
            self.log.info("batch %s is %s, and runs of it go on; waiting for their end", batch.id, batch.status)
            return None
        outcomes = RunOutcomes()
        note = ""
        try:
            self._take_in(outcomes, batch, context, is_over=True)
            counts = outcomes.counts
        except (OmicsError, AirflowSensorTimeout) as error:
            note = f"; telling more of its runs failed: {error}"
            counts = RunCounts.of_batch(batch)
        self._push(counts, outcomes, context)
        self._push_result(batch, counts, context)
        told = "how many runs completed is not known"
        if counts.completed is not None and counts.total is not None:
            told = f"{counts.completed:,} of {counts.total:,} runs completed"
        summary = outcomes.failure_summary()
        return batch_error(batch, f"{told}: {summary}{note}" if summary else f"{told}{note}")

    def _has_active_runs(self, context: Context) -> bool:
        runs = partial(self.hook.list_started_runs, batch_id=self.batch_id)
        return any(map(may_be_active, self.within_limits(context, lambda patience: runs(max_silence=patience))))

    def _take_in(self, outcomes: RunOutcomes, batch: Batch, context: Context, *, is_over: bool = False) -> bool:
        """Join what is known of each run, and write it where it is wanted.

        :param is_over: the batch ended early, and what is not listed was never submitted.
        :return: whether the listing is complete; if it is not, nothing was taken in.
        """
        with (
            tempfile.TemporaryFile() as rows,
            tempfile.TemporaryFile() if self.runs_s3_uri else nullcontext() as output,
        ):
            list_once = partial(self._list_submissions, rows, context, is_over=is_over)
            if is_over:
                listed = list_once().rows
            else:
                # Of a batch that was cancelled at its very end, runs may be left that were never submitted.
                expected = None if batch.expected_runs is None else batch.expected_runs - (batch.pending or 0)
                submissions = self.complete_listing(list_once, batch, expected, batch.processed_time, context)
                if submissions is None:
                    return False
                listed = submissions.rows
            for record in self.within_limits(context, partial(self._records, rows)):
                outcomes.add(record)
                if output:
                    output.write(json.dumps(record).encode() + b"\n")
            outcomes.add_unlisted((batch.expected_runs or 0) - listed)
            if output:
                self.write_to_s3(output, "runs_s3_uri")
        return True

    def _list_submissions(self, rows: IO[bytes], context: Context, *, is_over: bool) -> Submissions:
        rows.seek(0)
        rows.truncate()
        submissions = Submissions(batch_is_over=is_over, keep_run_ids=False)
        list_submissions = partial(self.hook.list_submissions, batch_id=self.batch_id)
        for row in self.within_limits(context, lambda patience: list_submissions(max_silence=patience)):
            submissions.add(row)
            rows.write(json.dumps({name: row.get(name) for name in _ROW_MEMBERS}).encode() + b"\n")
        return submissions

    def _records(self, rows: IO[bytes], patience: float) -> Iterator[dict[str, Any]]:
        runs = self.hook.list_started_runs(batch_id=self.batch_id, max_silence=patience)
        started = {run["id"]: _known_of(run) for run in runs}
        asked = 0
        rows.seek(0)
        for line in rows:
            row = json.loads(line)
            known = started.get(row["runId"])
            listed = dict(zip(_RUN_MEMBERS, known, strict=True)) if known else None
            run = None
            if self._is_worth_asking(row, listed, asked):
                run = self.hook.get_run_in_turn(run_id=row["runId"], max_silence=patience)
                asked += 1
                listed = listed if run else None
            yield join(row, listed, run, batch_id=self.batch_id)

    def _is_worth_asking(self, row: Mapping[str, Any], listed: Mapping[str, Any] | None, asked: int) -> bool:
        """Tell whether GetRun has something to add to what ListRuns tells of a run, or does not tell yet."""
        if not row["runId"] or row["submissionStatus"] == SubmissionStatus.DELETE_SUCCESS:
            return False
        if self.include_outputs:
            return True
        if listed is not None and listed["status"] in _WITHOUT_REASON:
            return False
        return bool(self.runs_s3_uri) or asked < MAX_LISTED_RUNS

    def _push(self, counts: RunCounts, outcomes: RunOutcomes, context: Context) -> None:
        ti = context["ti"]
        ti.xcom_push(key="run_counts", value=counts.to_json())
        ti.xcom_push(key="failed_runs", value=outcomes.failed)
        ti.xcom_push(key="failed_run_count", value=counts.not_completed)
        run_id = next((run["run_id"] for run in outcomes.failed if run["status"] == RunStatus.FAILED), None)
        if run_id:
            persist_links(context, self, run_id=run_id, log_stream_prefix=f"run/{run_id}")

    def _push_result(self, batch: Batch, counts: RunCounts, context: Context) -> None:
        """Push what a task that fails cannot return."""
        if self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=self.result(batch, counts))


def _known_of(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """Keep ``_RUN_MEMBERS`` of an entry of ListRuns, in little room: there are up to 100,000.

    botocore makes each status, and the time zone of each time, anew.
    """
    times = (run.get(name) for name in _RUN_MEMBERS[1:])
    return (sys.intern(run.get("status") or ""), *(time and time.astimezone(UTC) for time in times))


def _seen_at(batch: Batch) -> float:
    """When GetBatch told of the batch; an answer is judged by its own time, however late the task resumes."""
    return time.time() if batch.seen_at is None else batch.seen_at
