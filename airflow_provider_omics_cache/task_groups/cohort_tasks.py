"""The tasks of a cohort, besides those that are operators and sensors of the package."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_omics_cache._compat import AirflowSkipException, PokeReturnValue, state_in_same_run
from airflow_provider_omics_cache.exceptions import (
    CohortError,
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
    TooManyFailedSamplesError,
)
from airflow_provider_omics_cache.healthomics.cohort import Cohort, CohortResult, parse_max_failed
from airflow_provider_omics_cache.healthomics.completion import has_too_many_failures
from airflow_provider_omics_cache.healthomics.end import cancel_batch_once, was_cancelled
from airflow_provider_omics_cache.healthomics.failures import counted
from airflow_provider_omics_cache.healthomics.next_steps import NextStep
from airflow_provider_omics_cache.healthomics.once import newest_first
from airflow_provider_omics_cache.healthomics.rounds import Batch
from airflow_provider_omics_cache.healthomics.start import StartBatchOfCohortOnce
from airflow_provider_omics_cache.healthomics.states import End, meaning_of
from airflow_provider_omics_cache.hooks.client import LONGEST_SILENCE
from airflow_provider_omics_cache.hooks.errors import if_found
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import (
    check_bucket_uri,
    check_object_uri,
    check_upload_args,
    head_object,
    open_object,
)
from airflow_provider_omics_cache.operators.preflight import PreflightOperator
from airflow_provider_omics_cache.operators.run_batch import CANCEL_SECONDS, StartRunBatchOperator
from airflow_provider_omics_cache.resubmission import next_steps
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor
from airflow_provider_omics_cache.tables import iterate_rows, read_table
from airflow_provider_omics_cache.task_groups.result_files import write_csv, write_json_lines
from airflow_provider_omics_cache.tasks.s3_output import S3OutputTask
from airflow_provider_omics_cache.tasks.session_policies import PolicyHidingTask, with_policies
from airflow_provider_omics_cache.tasks.starting import task_identity

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_omics_cache.task_groups.samplesheet import Samplesheet
    from airflow_provider_omics_cache.xcoms import CohortSummary, PreflightFinding

#: Maximum number of runs of a batch for which ListRunTasks is called, to count the cache hits.
MAX_COUNTED_RUNS = 1_000

#: HTTP statuses of HeadObject for a missing object. S3 returns 403 if the role is not allowed to list the bucket.
_NOT_SEEN = frozenset({403, 404})


def check_results_uri(results_s3_uri: str, staging_s3_prefix: str) -> None:
    """Check that the results are written where the cohort may write.

    :param results_s3_uri: URI of the results.
    :param staging_s3_prefix: ``s3://`` URI below which the cohort writes.
    :raises OmicsParameterError: the results are elsewhere.
    """
    if not results_s3_uri.startswith(f"{staging_s3_prefix.rstrip('/')}/"):
        raise OmicsParameterError(
            "results_s3_uri", f"must be below staging_s3_prefix, {staging_s3_prefix!r}", results_s3_uri
        )


class CohortTask(S3OutputTask, AwsBaseOperator[OmicsCacheHook]):
    """Base of the tasks of a cohort that read and write its files.

    :param s3_conn_id: Airflow connection for S3. Default: ``aws_conn_id``. (templated)
    :param s3_extra_args: arguments of uploads to S3. (templated)
    """

    aws_hook_class = OmicsCacheHook

    def __init__(
        self, *, s3_conn_id: str | None = None, s3_extra_args: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.s3_conn_id = s3_conn_id
        self.s3_extra_args = s3_extra_args

    @property
    def _table_conn_id(self) -> Any:
        """The connection for S3: an id, or the parameters of the task's own hook."""
        return self.s3_conn_id or self._hook_parameters

    def _exists(self, uri: str) -> bool:
        head = partial(head_object, uri, s3=self._s3, extra_args=self.s3_extra_args or {})
        try:
            self.hook.patiently(head, service="s3")
        except OmicsApiError as error:
            if error.http_status not in _NOT_SEEN:
                raise
            return False
        return True

    def _is_there(self, uri: str, *, task_id: str, result: Any, context: Context) -> bool:
        """Whether an object exists that another task of the cohort writes.

        :param uri: URI of the object.
        :param task_id: id of the task.
        :param result: what the task has returned. None if it has not run, or if somebody marked it.
        :param context: Airflow's context of this task.
        :raises OmicsError: the task has succeeded and written the object, but S3 does not show it.
        """
        if self._exists(uri):
            return True
        if result and state_in_same_run(context, task_id) == "success":
            raise OmicsError(
                f"{task_id} has written {uri}, but S3 does not show it: check that it was not deleted, and that the "
                "role of this task has s3:GetObject"
            )
        return False


class FreezeRunSettingsOperator(PolicyHidingTask, CohortTask):
    """Write the run settings of a cohort to S3, once for a DAG run: a retry or a cleared task finds them unchanged.

    The parameters of the group that are templates are checked here, before anything is written.

    :param settings_s3_uri: where the settings are written. (templated)
    :param run_settings: the settings: a list, or the URI of a JSON array of them; None with a samplesheet. (templated)
    :param rows: the rows of the samplesheet, None without a samplesheet. (templated)
    :param samplesheet: how the rows become settings.
    :param staging_s3_prefix: ``s3://`` URI below which the cohort writes. (templated)
    :param results_s3_uri: where the results are written. (templated)
    :param max_failed: how many samples need not complete. (templated)

    :return: ``settings_s3_uri``.
    """

    template_fields: Sequence[str] = aws_template_fields(
        "settings_s3_uri",
        "run_settings",
        "rows",
        "staging_s3_prefix",
        "results_s3_uri",
        "max_failed",
        "s3_conn_id",
        "s3_extra_args",
    )
    settings_with_policies = ("run_settings",)

    def __init__(
        self,
        *,
        settings_s3_uri: str,
        staging_s3_prefix: str,
        results_s3_uri: str,
        max_failed: int | str,
        run_settings: Any = None,
        rows: Any = None,
        samplesheet: Samplesheet | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settings_s3_uri = settings_s3_uri
        self.run_settings = run_settings
        self.rows = rows
        self.samplesheet = samplesheet
        self.staging_s3_prefix = staging_s3_prefix
        self.results_s3_uri = results_s3_uri
        self.max_failed = max_failed

    def execute(self, context: Context) -> str:
        """Check the parameters, and write the settings if they are not there yet.

        :param context: Airflow's context of the task.
        """
        parse_max_failed(self.max_failed)
        check_bucket_uri("staging_s3_prefix", self.staging_s3_prefix)
        check_object_uri("results_s3_uri", self.results_s3_uri)
        check_results_uri(self.results_s3_uri, self.staging_s3_prefix)
        check_upload_args(self.s3_extra_args)
        self.check_s3_connection()
        return save_run_settings(
            self._make, self.settings_s3_uri, conn_id=self._table_conn_id, s3_extra_args=self.s3_extra_args
        )

    def _make(self) -> Sequence[dict[str, Any]]:
        if self.samplesheet is not None:
            return self.samplesheet.run_settings(
                self.rows,
                samplesheet_s3_prefix=f"{self.staging_s3_prefix.rstrip('/')}/samplesheets",
                conn_id=self._table_conn_id,
                s3_extra_args=self.s3_extra_args,
            )
        given: Any = with_policies(self.run_settings)
        return list(read_table(given, conn_id=self._table_conn_id)) if isinstance(given, str) else given


class CohortPreflightOperator(PreflightOperator):
    """Check the batch of the first round before it is started. If the batch exists, nothing is checked.

    Its runs count against the quota of kept runs, and their inputs may have been moved since. An error would keep a
    cleared DAG run from its batch.

    :param start_task_id: id of the task that starts the batch.
    :param rerun_key: the key of the cohort. (templated)
    """

    template_fields: Sequence[str] = aws_template_fields(*PreflightOperator.template_fields, "rerun_key")

    def __init__(self, *, start_task_id: str, rerun_key: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start_task_id = start_task_id
        self.rerun_key = rerun_key

    def execute(self, context: Context) -> list[PreflightFinding]:
        """Make all checks, unless the batch exists.

        :param context: Airflow's context of the task.
        """
        if batch_id := _find_batch(self.hook, self.start_task_id, self.rerun_key, context):
            self.log.info("Batch %s was started before, so nothing is checked", batch_id)
            return []
        return super().execute(context)


class StartCohortBatchOperator(StartRunBatchOperator):
    """Start the batch of a round of a cohort, once for a DAG run and ``rerun_key``.

    The task uses the batch that it finds, whatever its status and its settings are: the waits report what became of it.
    """

    start_once_class = StartBatchOfCohortOnce


class CohortCompletionSensor(BatchCompletionSensor):
    """Wait for the runs of a round. The sensor is skipped if the round has no batch.

    With ``fail_fast`` it cancels the batch as soon as GetBatch counts too many failed runs, and waits for its end, so
    that the records show how each run has ended.

    :param max_failed_samples: how many runs may fail before ``fail_fast`` cancels the batch. (templated)
    """

    template_fields: Sequence[str] = aws_template_fields(*BatchCompletionSensor.template_fields, "max_failed_samples")

    def __init__(self, *, max_failed_samples: int | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_failed_samples = max_failed_samples

    @property
    def max_failed(self) -> int | str | None:
        """Number or share of runs that may fail before the batch is cancelled. None: it is never cancelled."""
        return self.max_failed_samples if self.fail_fast else None

    def execute(self, context: Context) -> Any:
        """Wait for the runs of the batch.

        :param context: Airflow's context of the task.
        """
        if not self.batch_id:
            raise AirflowSkipException("This round has no batch")
        return super().execute(context)

    def conclude(self, batch: Batch, context: Context, *, has_failed: bool) -> PokeReturnValue | None:
        """Cancel the batch if too many of its runs have failed. Otherwise write the records of its runs.

        :param batch: the batch, as GetBatch showed it last.
        :param context: Airflow's context of the task.
        :param has_failed: whether the batch failed, was cancelled, its runs were deleted, or too many runs failed.
        """
        if has_failed and self.fail_fast and has_too_many_failures(batch, self.allowance("max_failed_samples")):
            self.log.error(
                "Batch %s: more runs have failed than max_failed allows (%s); fail_fast cancels the batch",
                batch.id,
                self.max_failed_samples,
            )
            cancel_batch_once(self.hook, batch.id, max_seconds=CANCEL_SECONDS)
            return None
        return super().conclude(batch, context, has_failed=has_failed)


class ChooseNextRoundOperator(CohortTask):
    """Write the run settings of the next round: of the samples to submit again, and of the runs to resume.

    The settings are written once. The task is skipped if nothing is left, if the batch before has no records, or if it
    was cancelled.

    :param batch_id: id of the batch of the round before, None if it was not started. (templated)
    :param settings_s3_uri: the settings of the round before. (templated)
    :param runs_s3_uri: the records of its runs. (templated)
    :param settings_task_id: id of the task that writes the settings of the round before.
    :param settings_result: what that task has returned. (templated)
    :param runs_task_id: id of the task that writes the records.
    :param runs_result: what that task has returned. (templated)
    :param next_settings_s3_uri: where the settings of the next round are written. (templated)
    :param resume_reasons: failure reasons of runs after which a sample is resumed.
    :param resubmit_reasons: reasons of failed submissions after which a sample is submitted again.

    :return: ``next_settings_s3_uri``.
    """

    template_fields: Sequence[str] = aws_template_fields(
        "batch_id",
        "settings_s3_uri",
        "runs_s3_uri",
        "settings_result",
        "runs_result",
        "next_settings_s3_uri",
        "s3_conn_id",
        "s3_extra_args",
    )

    def __init__(
        self,
        *,
        batch_id: Any,
        settings_s3_uri: str,
        runs_s3_uri: str,
        settings_task_id: str,
        settings_result: Any,
        runs_task_id: str,
        runs_result: Any,
        next_settings_s3_uri: str,
        resume_reasons: Sequence[str],
        resubmit_reasons: Sequence[str],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.batch_id = batch_id
        self.settings_s3_uri = settings_s3_uri
        self.runs_s3_uri = runs_s3_uri
        self.settings_task_id = settings_task_id
        self.settings_result = settings_result
        self.runs_task_id = runs_task_id
        self.runs_result = runs_result
        self.next_settings_s3_uri = next_settings_s3_uri
        self.resume_reasons = resume_reasons
        self.resubmit_reasons = resubmit_reasons

    def execute(self, context: Context) -> str:
        """Write the settings of the next round if they are not there yet, or skip the round.

        :param context: Airflow's context of the task.
        """
        settings_writer = {"task_id": self.settings_task_id, "result": self.settings_result}
        if not self._is_there(self.settings_s3_uri, **settings_writer, context=context):
            raise AirflowSkipException("The round before was not started")
        if not self.batch_id:
            raise AirflowSkipException("The round before has no batch")
        if self._exists(self.next_settings_s3_uri):
            self.log.info("The run settings of this round are already in %s", self.next_settings_s3_uri)
            return self.next_settings_s3_uri
        if self._is_cancelled():
            raise AirflowSkipException(f"Batch {self.batch_id} was cancelled, so no further round is started")
        runs_writer = {"task_id": self.runs_task_id, "result": self.runs_result}
        if not self._is_there(self.runs_s3_uri, **runs_writer, context=context):
            raise AirflowSkipException(
                f"The batch before has no records at {self.runs_s3_uri}, so it is not known which samples have a run"
            )
        chosen = self._choose()
        if not chosen:
            raise AirflowSkipException("There is nothing to submit again or to resume")
        settings = iterate_rows("run_settings", self.settings_s3_uri, conn_id=self._table_conn_id)
        return save_run_settings(
            [dict(setting) for _, setting in settings if setting["runSettingId"] in chosen],
            self.next_settings_s3_uri,
            conn_id=self._table_conn_id,
            s3_extra_args=self.s3_extra_args,
        )

    def _is_cancelled(self) -> bool:
        get_batch = partial(self.hook.get_batch, batch_id=self.batch_id, max_silence=LONGEST_SILENCE)
        batch = if_found(get_batch) or {}
        return meaning_of(batch.get("status")).end == End.CANCELLED or was_cancelled(batch)

    def _choose(self) -> set[str]:
        steps: Counter[NextStep] = Counter()
        chosen = set()
        for sample in next_steps(
            self.settings_s3_uri,
            self.runs_s3_uri,
            reasons=self.resume_reasons,
            submission_reasons=self.resubmit_reasons,
            conn_id=self._table_conn_id,
        ):
            steps[sample.step] += 1
            if sample.step in {NextStep.SUBMIT_AGAIN, NextStep.RESUME}:
                chosen.add(sample.run_setting_id)
        self.log.info("Samples: %s", ", ".join(f"{step}: {steps[step]:,}" for step in NextStep))
        return chosen


class CohortResultsOperator(CohortTask):
    """Write one record for each sample of a cohort, and fail if too many samples have no completed run.

    The XCom ``summary`` (:class:`~airflow_provider_omics_cache.xcoms.CohortSummary`) and the return value are pushed
    before the task fails.

    :param settings_s3_uris: the settings of each round, the first one first. (templated)
    :param runs_s3_uris: the records of the runs of each round. (templated)
    :param batch_ids: id of the batch of each round, None for a round that was not started. (templated)
    :param settings_task_ids: ids of the tasks that write the settings.
    :param settings_results: what these tasks have returned. (templated)
    :param start_task_ids: ids of the tasks that start the batches.
    :param runs_task_ids: ids of the tasks that write the records of the runs.
    :param runs_results: what these tasks have returned. (templated)
    :param results_s3_uri: where the records are written. (templated)
    :param staging_s3_prefix: ``s3://`` URI below which the cohort writes. (templated)
    :param results_format: ``jsonl`` or ``csv``.
    :param max_failed: how many samples need not complete: a number or a share. (templated)
    :param rerun_key: the group's ``rerun_key``. (templated)

    :return: ``results_s3_uri``.
    """

    template_fields: Sequence[str] = aws_template_fields(
        "settings_s3_uris",
        "runs_s3_uris",
        "batch_ids",
        "settings_results",
        "runs_results",
        "results_s3_uri",
        "staging_s3_prefix",
        "max_failed",
        "rerun_key",
        "s3_conn_id",
        "s3_extra_args",
    )

    def __init__(
        self,
        *,
        settings_s3_uris: Sequence[str],
        runs_s3_uris: Sequence[str],
        batch_ids: Sequence[Any],
        settings_task_ids: Sequence[str],
        settings_results: Sequence[Any],
        start_task_ids: Sequence[str],
        runs_task_ids: Sequence[str],
        runs_results: Sequence[Any],
        results_s3_uri: str,
        staging_s3_prefix: str,
        results_format: str,
        max_failed: int | str,
        rerun_key: str | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settings_s3_uris = settings_s3_uris
        self.runs_s3_uris = runs_s3_uris
        self.batch_ids = batch_ids
        self.settings_task_ids = settings_task_ids
        self.settings_results = settings_results
        self.start_task_ids = start_task_ids
        self.runs_task_ids = runs_task_ids
        self.runs_results = runs_results
        self.results_s3_uri = results_s3_uri
        self.staging_s3_prefix = staging_s3_prefix
        self.results_format = results_format
        self.max_failed = max_failed
        self.rerun_key = rerun_key
        self.check_differs_for_map_index("results_s3_uri")

    def execute(self, context: Context) -> str:
        """Merge the records of all rounds, write them, push the summary, and return the URI or raise the verdict.

        :param context: Airflow's context of the task.
        """
        parse_max_failed(self.max_failed)
        self.check_s3_output("results_s3_uri")
        check_results_uri(self.results_s3_uri, self.staging_s3_prefix)
        freeze_task_id = self.settings_task_ids[0]
        if not self._has_settings(0, context):
            if state_in_same_run(context, freeze_task_id) == "skipped":
                raise AirflowSkipException("The cohort was skipped")
            raise CohortError(f"{freeze_task_id} has not written the run settings: see the error of that task")
        columns: dict[str, None] = {}
        cohort = Cohort(self._run_setting_ids(self.settings_s3_uris[0], columns))
        with ExitStack() as files:
            for number in range(len(self.settings_s3_uris)):
                self._add_round(cohort, number, files.enter_context(tempfile.TemporaryFile()), context)
            result = CohortResult(cohort.batch_ids)
            records = result.count(cohort.records())
            output = files.enter_context(tempfile.TemporaryFile())
            if self.results_format == "csv":
                write_csv(records, self._parameters(), [*columns], output)
            else:
                write_json_lines(records, output)
            self.write_to_s3(output, "results_s3_uri")
        summary = result.summary()
        ti = context["ti"]
        ti.xcom_push(key="summary", value=summary)
        ti.xcom_push(key="return_value", value=self.results_s3_uri)
        self.log.info("%s of %s samples completed", f"{summary['completed']:,}", f"{summary['total']:,}")
        self._log_remedies(summary)
        if complaint := result.complaint(self.max_failed):
            raise TooManyFailedSamplesError(f"{complaint}. The records are in {self.results_s3_uri}")
        return self.results_s3_uri

    def _log_remedies(self, summary: CohortSummary) -> None:
        counts: Counter[str] = Counter()
        for failure in summary["failures"]:
            counts[failure["reason"]] += failure["count"]
        remedies = {failure["reason"]: failure["remedy"] for failure in summary["failures"] if failure["remedy"]}
        for reason, remedy in remedies.items():
            self.log.warning("%s: %s. Before a new run: %s", counted(counts[reason], "sample"), reason, remedy)

    def _add_round(self, cohort: Cohort, number: int, runs: IO[bytes], context: Context) -> None:
        """Add the batch of a round, unless the round was not started.

        :param cohort: the cohort.
        :param number: number of the round, from 0.
        :param runs: an empty file for the records of the runs. It must stay open.
        :param context: Airflow's context of the task.
        """
        settings_s3_uri, runs_s3_uri = self.settings_s3_uris[number], self.runs_s3_uris[number]
        if number and not self._has_settings(number, context):
            return
        batch_id = self.batch_ids[number] or _find_batch(
            self.hook, self.start_task_ids[number], self.rerun_key, context
        )
        if batch_id is None:
            return
        runs_writer = {"task_id": self.runs_task_ids[number], "result": self.runs_results[number]}
        if self._is_there(runs_s3_uri, **runs_writer, context=context):
            self._download(runs_s3_uri, runs)
        else:
            self.log.warning("Batch %s has no records at %s: its samples count as UNKNOWN", batch_id, runs_s3_uri)
        cohort.add_round(
            batch_id, self._run_setting_ids(settings_s3_uri), runs, cache_hits=self._count_cache_hits(batch_id, runs)
        )

    def _has_settings(self, number: int, context: Context) -> bool:
        writer = {"task_id": self.settings_task_ids[number], "result": self.settings_results[number]}
        return self._is_there(self.settings_s3_uris[number], **writer, context=context)

    def _run_setting_ids(self, settings_s3_uri: str, columns: dict[str, None] | None = None) -> Iterator[str]:
        for _, setting in iterate_rows("run_settings", settings_s3_uri, conn_id=self._table_conn_id):
            if columns is not None:
                columns.update(dict.fromkeys(setting.get("parameters") or {}))
            yield setting["runSettingId"]

    def _parameters(self) -> Iterator[Mapping[str, Any]]:
        for _, setting in iterate_rows("run_settings", self.settings_s3_uris[0], conn_id=self._table_conn_id):
            yield setting.get("parameters") or {}

    def _download(self, uri: str, file: IO[bytes]) -> None:
        def read() -> None:
            file.seek(0)
            file.truncate()
            with open_object(uri, parameter="runs_s3_uris", s3=self._s3) as (body, _):
                shutil.copyfileobj(body, file)

        self.hook.patiently(read, service="s3")

    def _count_cache_hits(self, batch_id: str, runs: IO[bytes]) -> dict[str, int] | None:
        """Count the tasks of each run whose outputs came from the run cache. None if they are not counted."""
        runs.seek(0)
        if sum(1 for _ in runs) > MAX_COUNTED_RUNS:
            return None
        runs.seek(0)
        hits = {}
        try:
            for record in map(json.loads, runs):
                if record["run_id"]:
                    hits[record["run_setting_id"]] = self._cache_hits_of(record["run_id"])
        except OmicsApiError as error:
            self.log.warning("The cache hits of batch %s are not counted: %s", batch_id, error)
            return None
        return hits

    def _cache_hits_of(self, run_id: str) -> int:
        list_tasks = partial(self.hook.list_run_tasks, run_id=run_id, max_silence=LONGEST_SILENCE)
        tasks = if_found(lambda: list(list_tasks())) or ()
        return sum(bool(task.get("cacheHit")) for task in tasks)


def _find_batch(hook: OmicsCacheHook, task_id: str, rerun_key: str | None, context: Context) -> str | None:
    """Return the id of the newest batch that a task of the same DAG run has started. None if no batch is listed.

    The task may have no XCom: it failed after it had started the batch, or was cleared.

    :param hook: the hook.
    :param task_id: id of the task.
    :param rerun_key: the key of the cohort.
    :param context: Airflow's context of the task that asks.
    """
    identity = replace(task_identity(context, rerun_key), task_id=task_id)
    name = identity.batch_name(identity.default_name)
    list_named = partial(hook.list_batch, name=name, max_silence=LONGEST_SILENCE)
    found = [item for item in hook.list_whole(lambda: list(list_named())) if item.get("name") == name]
    return newest_first(found)[0]["id"] if found else None
