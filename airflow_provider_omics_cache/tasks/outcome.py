"""Base of the tasks that wait until the runs of a batch have ended."""

from __future__ import annotations

import json
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache._compat import AirflowSensorTimeout, PokeReturnValue
from airflow_provider_omics_cache.exceptions import (
    BatchError,
    OmicsError,
    OmicsParameterError,
    OmicsTimeLimitError,
    TooManyFailedRunsError,
    UnknownOutcomeError,
)
from airflow_provider_omics_cache.healthomics.batch_runs import (
    list_active_runs,
    list_started_runs,
    list_submissions,
)
from airflow_provider_omics_cache.healthomics.completion import (
    Judgement,
    ListedRuns,
    RunCounts,
    RunOutcomes,
    ended_badly,
    has_too_many_failures,
)
from airflow_provider_omics_cache.healthomics.failures import MAX_LISTED_RUNS, allowed, counted, size_and_limit
from airflow_provider_omics_cache.healthomics.outputs import EXACT, OutputUris
from airflow_provider_omics_cache.healthomics.rounds import Batch, count_active, may_trust_counts
from airflow_provider_omics_cache.healthomics.states import ENDED_RUN_STATUSES, End, RunStatus
from airflow_provider_omics_cache.healthomics.submission import (
    Submissions,
    counted_as_incomplete,
    doubt_about_end,
)
from airflow_provider_omics_cache.hooks.errors import if_found
from airflow_provider_omics_cache.links.omics import persist_links
from airflow_provider_omics_cache.tasks.listing import ListingTask, batch_error, seen_at
from airflow_provider_omics_cache.tasks.run_records import ROW_MEMBERS, RUN_MEMBERS, RunRecords
from airflow_provider_omics_cache.tasks.wait import MOST_ACTIVE_RUNS

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_omics_cache.xcoms import RunRecord

_NEEDS_URI = "needs runs_s3_uri, where the outputs are written: set runs_s3_uri, or remove include_outputs"


class RunOutcomeTask(ListingTask):
    """Reports how the runs of a batch ended, as soon as all of them have ended."""

    max_failed_runs: int | str
    runs_s3_uri: str | None
    include_outputs: bool | str

    @abstractmethod
    def result(self, batch: Batch, counts: RunCounts) -> Any:
        """Return the task's return value.

        :param batch: the batch.
        :param counts: how its runs have ended.
        """

    def own_output_uris(self) -> Mapping[str, str]:
        """Return the ``outputUri`` of the settings that have their own, by runSettingId. Default: no setting."""
        return {}

    @property
    def max_failed(self) -> int | str | None:
        """Number or share of runs that may fail before the wait ends early. None: it never ends early."""
        return self.max_failed_runs if self.fail_fast else None

    def check_parameters(self) -> None:
        """Check the parameters before the first call.

        :raises OmicsParameterError: a parameter breaks a rule.
        """
        super().check_parameters()
        self.check_outcome_parameters()

    def check_outcome_parameters(self) -> None:
        """Check the parameters that concern the outcome of the runs.

        :raises OmicsParameterError: a parameter breaks a rule.
        """
        self.allowance("max_failed_runs")
        self.check_s3_output("runs_s3_uri")
        if self.include_outputs and not self.runs_s3_uri:
            raise OmicsParameterError("include_outputs", _NEEDS_URI, self.include_outputs)

    def check_outcome_limits(self) -> None:
        """Check what can be checked before the templates are rendered.

        :raises OmicsParameterError: a parameter breaks a rule.
        """
        if self.include_outputs != EXACT and not isinstance(self.include_outputs, bool):
            raise OmicsParameterError("include_outputs", f"must be True, False or {EXACT!r}", self.include_outputs)
        self.check_allowance("max_failed_runs")
        self.check_differs_for_map_index("runs_s3_uri")
        if self.include_outputs and self.runs_s3_uri is None:
            raise OmicsParameterError("include_outputs", _NEEDS_URI, self.include_outputs)

    def conclude(self, batch: Batch, context: Context, *, has_failed: bool) -> PokeReturnValue | None:
        """Count the runs, join what is known of them, push the XComs, and return the result or raise the error.

        :param batch: the batch, as GetBatch showed it last.
        :param context: Airflow's context of the task.
        :param has_failed: whether the batch failed, was cancelled, its runs were deleted, or too many runs failed.
        """
        if has_failed and self.fail_fast and has_too_many_failures(batch, self.allowance("max_failed_runs")):
            raise self._fail_fast(batch, context)
        if has_failed and self.must_continue(batch):
            return None
        if has_failed:
            failure = self._conclude_failed(batch, context)
            if failure is None:
                return None
            raise failure
        counts = RunCounts.of_batch(batch)
        max_failed = allowed(self.allowance("max_failed_runs"), counts.total or 0)
        judgement = counts.judge(max_failed)
        if judgement == Judgement.UNKNOWN and not self.has_caught_up(batch, batch.processed_time, seen_at(batch)):
            self.wait_to_catch_up(batch, "its counts are not complete yet")
            return None
        if counts.completed is None or counts.total is None:
            raise self._unknown_outcome(
                batch,
                "GetBatch does not report how many of its runs completed. Retry the task; it reads the counts again",
            )
        outcomes = RunOutcomes()
        unwritten: OmicsError | None = None
        note = ""
        if counts.not_completed or self.runs_s3_uri:
            try:
                with self._output() as output:
                    if not self._collect(outcomes, output, batch, context, counts=counts):
                        return None
                    unwritten = self.try_to_write(output, "runs_s3_uri")
                note = _unwritten_note(unwritten)
            except (OmicsError, AirflowSensorTimeout) as error:
                if judgement == Judgement.UNKNOWN or (judgement == Judgement.COMPLETED and self.runs_s3_uri):
                    raise
                outcomes = RunOutcomes()
                note = f"; details of its runs could not be fetched: {error}"
        if judgement == Judgement.UNKNOWN:
            # GetBatch's counts lack some of the runs. The listing includes them, and has confirmed how many completed.
            counts = replace(outcomes.counts, total=counts.total)
            judgement = counts.judge(max_failed)
            if judgement == Judgement.UNKNOWN:
                text = f"ListRuns shows that {counts.late:,} runs have not ended. Retry the task; it lists them again"
                raise self._unknown_outcome(batch, f"{text}{note}")
        self._push(counts, outcomes, context)
        summary = f": {outcomes.failure_summary()}" if outcomes.failed else ""
        not_completed = f"{counted(counts.not_completed, 'run')} did not complete{summary}"
        if judgement == Judgement.COMPLETED:
            if counts.not_completed:
                self.log.warning("Batch %s: %s", batch.id, not_completed)
            if unwritten:
                self._push_result(batch, counts, context)
                raise unwritten
            self.log.info(
                "Batch %s: %s of %s runs completed%s", batch.id, f"{counts.completed:,}", f"{counts.total:,}", note
            )
            return PokeReturnValue(is_done=True, xcom_value=self.result(batch, counts))
        if outcomes.counts.total and outcomes.counts.not_completed <= max_failed:
            raise self._contradiction(batch, counts, outcomes.counts)
        self._push_result(batch, counts, context)
        limit = size_and_limit(batch.id, counts.total, "max_failed_runs", self.max_failed_runs)
        raise TooManyFailedRunsError(
            f"{not_completed}. {limit}{note}",
            batch_id=batch.id,
            status=batch.status,
        )

    def _fail_fast(self, batch: Batch, context: Context) -> TooManyFailedRunsError:
        """Push what is known of a batch that is still active, and return the error."""
        counts = RunCounts.of_batch(batch)
        settled = self.settle_active_batch()
        outcomes = RunOutcomes()
        note = ""
        try:
            with self.within_limits():
                self._collect_failures(outcomes)
        except (OmicsError, AirflowSensorTimeout) as error:
            note = f"; details of its runs could not be fetched: {error}"
        failed = max(counts.ended_badly, outcomes.counts.total or 0)
        self._push(counts, outcomes, context, failed=failed)
        self._push_result(batch, counts, context)
        summary = f": {outcomes.failure_summary(failed)}" if outcomes.failed else ""
        limit = size_and_limit(batch.id, counts.total, "max_failed_runs", self.max_failed_runs)
        return TooManyFailedRunsError(
            f"{counted(failed, 'run')} did not complete{summary}. {limit}{note}; {settled}",
            batch_id=batch.id,
            status=batch.status,
        )

    def _collect_failures(self, outcomes: RunOutcomes) -> None:
        """Collect the runs of an active batch that have ended, or were not submitted, without being COMPLETED.

        A run that is listed twice counts once.
        """
        collected = ListedRuns()
        with tempfile.TemporaryFile() as rows:
            self.hook.list_whole(partial(self._list_submissions, rows, is_over=False))
            started = self.hook.list_whole(self._list_started_runs)
            with tempfile.TemporaryFile() as failed:
                rows.seek(0)
                for line in rows:
                    row = json.loads(line)
                    status = started.get(row["runId"], (None,))[0]
                    # Runs that this task has cancelled do not count as failures.
                    is_failed = ended_badly(row, status, only_failed=self.cancel_on_failure)
                    if is_failed and collected.add(row):
                        failed.write(line)
                for record in self._records(failed, started).read(most_asked=MAX_LISTED_RUNS):
                    outcomes.add(record)

    def _is_confirmed(self, batch: Batch, counts: RunCounts, listed: RunCounts) -> bool:
        """Whether the listed runs confirm GetBatch's counts. If not, the service may still be catching up.

        :raises UnknownOutcomeError: the two still differ after ``consistency_timeout``, and the counts alone cannot
            show a failure.
        """
        if counts.agrees_with(listed):
            return True
        if not self.has_caught_up(batch, batch.processed_time, timing.time()):
            text = f"{counts.completed:,} completed runs are counted, and {listed.completed:,} are listed"
            self.wait_to_catch_up(batch, text)
            return False
        if counts.late or counts.not_completed <= allowed(self.allowance("max_failed_runs"), counts.total or 0):
            raise self._contradiction(batch, counts, listed)
        return True

    def _contradiction(self, batch: Batch, counts: RunCounts, listed: RunCounts) -> UnknownOutcomeError:
        return self._unknown_outcome(
            batch,
            f"GetBatch counts {counts.completed:,} completed runs, but ListRuns shows {listed.completed:,}. "
            "Retry the task; it reads both again",
        )

    def _unknown_outcome(self, batch: Batch, text: str) -> UnknownOutcomeError:
        return UnknownOutcomeError(
            f"Batch {batch.id} is {batch.shown_status}, but {text}", batch_id=batch.id, status=batch.status
        )

    def _conclude_failed(self, batch: Batch, context: Context) -> BatchError | None:
        """Push what is known of a batch that ended early, and return its error.

        If its runs cannot be listed, the error says so.

        :return: the error, None while runs of the batch are active.
        """
        outcomes = RunOutcomes()
        note = ""
        try:
            if self._has_active_runs(batch, context):
                return None
            with self._output() as output:
                if not self._collect(outcomes, output, batch, context):
                    return None
                note = _unwritten_note(self.try_to_write(output, "runs_s3_uri"))
            counts = outcomes.counts
            unlisted = max(0, (batch.expected_runs or 0) - (counts.total or 0))
            if unlisted:
                note = f"; {unlisted:,} runs were submitted, but are not listed{note}"
                counts = replace(counts, total=batch.expected_runs)
        except OmicsTimeLimitError:
            # Runs may be active. A try that has more time waits for them.
            raise
        except (OmicsError, AirflowSensorTimeout) as error:
            note = f"; details of its runs could not be fetched: {error}"
            counts = RunCounts.of_batch(batch)
        self._push(counts, outcomes, context)
        self._push_result(batch, counts, context)
        details = "it is not known how many runs completed"
        if counts.completed is not None and counts.total is not None:
            details = f"{counts.completed:,} of {counts.total:,} runs completed"
        summary = outcomes.failure_summary()
        return batch_error(batch, f"{details}: {summary}{note}" if summary else f"{details}{note}")

    def _has_active_runs(self, batch: Batch, context: Context) -> bool:
        """Whether runs of a batch that ended early are active. If so, the task waits for another round."""
        counted = count_active(batch)
        if batch.meaning.end == End.DELETED or counted == 0:
            return False
        if counted and self.must_trust_counts and may_trust_counts(timing.time(), self.interval):
            return True
        with self.within_limits():
            active = list_active_runs(self.hook, batch.id, most=MOST_ACTIVE_RUNS, max_silence=self.max_silence)
        if active:
            self.wait_for_runs(batch, active)
            return True
        if counted and self.may_catch_up(batch, context):
            self.wait_to_catch_up(batch, f"{counted:,} runs are counted as active, and no active run is listed")
            return True
        return False

    def _output(self) -> AbstractContextManager[IO[bytes] | None]:
        """Open a file for ``runs_s3_uri``, or None if nothing must be written."""
        return tempfile.TemporaryFile() if self.runs_s3_uri else nullcontext()

    def _collect(
        self,
        outcomes: RunOutcomes,
        output: IO[bytes] | None,
        batch: Batch,
        context: Context,
        *,
        counts: RunCounts | None = None,
    ) -> bool:
        """Join what is known of each run.

        :param outcomes: collects how the runs have ended.
        :param output: the file to which a record of each run is written.
        :param batch: the batch.
        :param context: Airflow's context of the task.
        :param counts: GetBatch's counts of a batch that is PROCESSED. None if the batch ended early, so that runs that
            are not listed were never submitted.
        :return: True if every run is listed and, in a batch that ended early, has ended. If False, the wait continues.
        :raises UnknownOutcomeError: the listed runs contradict the counts.
        """
        is_over = counts is None
        may_catch_up = is_over and self.may_catch_up(batch, context)
        doubt = counted_as_incomplete(batch, batch.expected_runs)
        if doubt and may_catch_up:
            self.wait_to_catch_up(batch, doubt)
            return False
        with tempfile.TemporaryFile() as rows:
            listed = self._list_rows(rows, batch, context, counts)
            if listed is None:
                return False
            with self.within_limits():
                started = self.hook.list_whole(self._list_started_runs)
            unlisted = listed.count_unlisted(started) if is_over else 0
            doubt = doubt_about_end(batch, listed, batch.expected_runs)
            if unlisted:
                doubt = f"{unlisted:,} started runs are not listed by ListRunsInBatch"
            if doubt and may_catch_up:
                self.wait_to_catch_up(batch, doubt)
                return False
            must_have_ended = is_over and batch.meaning.end != End.DELETED
            active = [run_id for run_id, known in started.items() if known[0] not in ENDED_RUN_STATUSES]
            if active and must_have_ended:
                self.wait_for_runs(batch, active)
                return False
            records = self._records(rows, started, self._output_uris())
            with tempfile.TemporaryFile() if output and self.include_outputs else nullcontext(output) as file:
                with self.within_limits():
                    for record in records.read(most_asked=None if output else MAX_LISTED_RUNS):
                        outcomes.add(record)
                        if record["run_id"] and record["status"] not in ENDED_RUN_STATUSES:
                            active.append(record["run_id"])
                        if file:
                            _write(record, file)
                if active and must_have_ended:
                    # ListRuns does not show them yet.
                    self.wait_for_runs(batch, active)
                    return False
                submitted = max(listed.submitted_count + unlisted, listed.claimed_count, batch.submitted or 0)
                not_shown = submitted - listed.claimed_count if is_over else 0
                outcomes.add_unlisted((batch.expected_runs or 0) - listed.rows - not_shown)
                if counts and not self._is_confirmed(batch, counts, outcomes.counts):
                    return False
                if output and file and self.include_outputs:
                    with self.within_limits():
                        for record in records.with_outputs(file, exact=self.include_outputs == EXACT):
                            _write(record, output)
            return True

    def _list_rows(
        self, rows: IO[bytes], batch: Batch, context: Context, counts: RunCounts | None
    ) -> Submissions | None:
        """Write the listing to a file, and return it; None if the service is still catching up."""
        list_once = partial(self._list_submissions, rows, is_over=counts is None)
        if counts is None:
            return self.hook.list_whole(list_once)
        # A batch can be PROCESSED although it was cancelled. It may then have runs that were never submitted.
        at_least = None if counts.total is None else counts.total - ((batch.pending or 0) if counts.late else 0)
        return self.complete_listing(list_once, batch, counts.total, batch.processed_time, context, at_least=at_least)

    def _list_submissions(self, rows: IO[bytes], *, is_over: bool) -> Submissions:
        rows.seek(0)
        rows.truncate()
        submissions = Submissions(batch_is_over=is_over)
        with self.within_limits():
            for row in list_submissions(self.hook, self.batch_id, max_silence=self.max_silence):
                if not submissions.has(row):
                    rows.write(json.dumps({name: row.get(name) for name in ROW_MEMBERS}).encode() + b"\n")
                submissions.add(row)
        return submissions

    def _list_started_runs(self) -> dict[str, tuple[Any, ...]]:
        runs = list_started_runs(self.hook, self.batch_id, max_silence=self.max_silence)
        return {run["id"]: _known_of(run) for run in runs}

    def _output_uris(self) -> OutputUris | None:
        """Return the ``outputUri`` of each run. None if it is not known, or not needed."""
        if not self.include_outputs or self.include_outputs == EXACT:
            return None
        with self.within_limits():
            get_batch = partial(self.hook.get_batch, batch_id=self.batch_id, max_silence=self.max_silence)
            return OutputUris.of_batch(if_found(get_batch) or {}, self.own_output_uris())

    def _records(
        self, rows: IO[bytes], started: Mapping[str, tuple[Any, ...]], output_uris: OutputUris | None = None
    ) -> RunRecords:
        """Prepare the records of runs.

        :param rows: a file with entries of ListRunsInBatch.
        :param started: what ListRuns shows, by run id.
        :param output_uris: the ``outputUri`` of each run, None if it is not known.
        """
        return RunRecords(
            self.hook,
            batch_id=self.batch_id,
            rows=rows,
            started=started,
            output_uris=output_uris,
            max_silence=self.max_silence,
        )

    def _push(self, counts: RunCounts, outcomes: RunOutcomes, context: Context, *, failed: int | None = None) -> None:
        ti = context["ti"]
        ti.xcom_push(key="run_counts", value=counts.to_json())
        ti.xcom_push(key="failed_runs", value=outcomes.failed)
        ti.xcom_push(key="failed_run_count", value=counts.not_completed if failed is None else failed)
        run_id = next((run["run_id"] for run in outcomes.failed if run["status"] == RunStatus.FAILED), None)
        if run_id:
            prefix = f"run/{run_id}"
            persist_links(context, self, batch_id=self.batch_id, run_id=run_id, log_stream_prefix=prefix)

    def _push_result(self, batch: Batch, counts: RunCounts, context: Context) -> None:
        """Push the result as ``return_value``, because a task that fails returns nothing."""
        if self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=self.result(batch, counts))


def _unwritten_note(error: OmicsError | None) -> str:
    """Return the end of an error for records of the runs that could not be written; nothing without an error."""
    return f"; the records of the runs were not written: {error}" if error else ""


def _write(record: RunRecord, file: IO[bytes]) -> None:
    file.write(json.dumps(record).encode() + b"\n")


def _known_of(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return ``RUN_MEMBERS`` of an entry of ListRuns in a compact form, because there are up to 100,000 entries.

    botocore creates a new object for each status, and for the time zone of each time. Here the entries share them.
    """
    times = (run.get(name) for name in RUN_MEMBERS[1:])
    return (sys.intern(run.get("status") or ""), *(time and time.astimezone(UTC) for time in times))
