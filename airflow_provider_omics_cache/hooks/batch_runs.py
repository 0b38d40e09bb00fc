"""The runs that a batch has started, one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import NamedTuple

from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.healthomics.completion import is_same_run
from airflow_provider_omics_cache.healthomics.failures import MAX_LEFT_RUNS
from airflow_provider_omics_cache.healthomics.rounds import NOT_FOUND_ROUNDS, is_passing, is_unreachable
from airflow_provider_omics_cache.healthomics.states import RunStatus, SubmissionStatus
from airflow_provider_omics_cache.hooks.client import Answer, T
from airflow_provider_omics_cache.hooks.errors import check_id
from airflow_provider_omics_cache.hooks.listings import ListingsHook

#: Seconds between two looks at a batch that is about to change.
LOOK_AGAIN_SECONDS = 5
#: Codes with which the service may refuse what a state does not allow; which one it takes is not documented.
_REFUSALS = frozenset({"ConflictException", "ValidationException"})


class BatchRun(NamedTuple):
    """A run that a batch has started.

    :param run_setting_id: runSettingId of the run, None if it is not listed.
    :param run_id: id of the run.
    :param status: status of the run.
    :param is_confirmed: whether GetRun tells that the run is the batch's, and the one that it has started.
    """

    run_setting_id: str | None
    run_id: str
    status: str
    is_confirmed: bool

    def __str__(self) -> str:
        doubt = "" if self.is_confirmed else ", whose uuid is not known"
        return f"{self.run_id} of {self.run_setting_id}, {self.status}{doubt}"


class BatchRunsHook(ListingsHook):
    """Look at a batch that shall end, and at its runs."""

    _has_called = False

    @cached_property
    def _gone_runs(self) -> set[tuple[str, str]]:
        """The runs that are known to be gone, by the ids of batch and run."""
        return set()

    def is_batch_visible(self, *, batch_id: str, max_silence: float) -> bool:
        """Look for a batch for as long as the service may not show a young one, 5 minutes.

        :param batch_id: id of the batch.
        :param max_silence: for how many seconds one call may stay without an answer.
        :return: whether the service knows the batch.
        """
        get = self._patient_get_batch(check_id("batch_id", batch_id), max_seconds=max_silence)
        return self._look_again(partial(self._if_found, get)) is not None

    def get_batch_patiently(self, *, batch_id: str, max_seconds: float) -> Answer:
        """Get a batch, through failures that pass; one that is not found may be young.

        :param batch_id: id of the batch.
        :param max_seconds: for how many seconds to go on when no answer comes.
        :raises OmicsApiError: the call fails, or no answer has come.
        """
        get = self._patient_get_batch(batch_id, max_seconds=max_seconds)
        for _ in range(NOT_FOUND_ROUNDS - 1):
            batch = self._if_found(get)
            if batch is not None:
                return batch
            self._sleep(LOOK_AGAIN_SECONDS)
        return get()

    def _patient_get_batch(self, batch_id: str, *, max_seconds: float) -> Callable[[], Answer]:
        """Give a GetBatch that waits out failures that pass; where the very first one reaches nobody, it fails."""

        def is_worth_waiting(error: OmicsApiError) -> bool:
            is_first, self._has_called = not self._has_called, True
            return is_passing(error) and not (is_first and is_unreachable(error))

        def get() -> Answer:
            batch = self.get_batch(batch_id=batch_id)
            self._has_called = True
            return batch

        return partial(self._patiently, get, max_seconds=max_seconds, is_worth_waiting=is_worth_waiting)

    def _unless_refused(self, call: Callable[[], T], *, max_seconds: float) -> OmicsApiError | None:
        """Call, through failures that pass; give the error with which the service refuses what a state forbids."""
        try:
            self._patiently(call, max_seconds=max_seconds)
        except OmicsApiError as error:
            if error.code not in _REFUSALS:
                raise
            return error
        return None

    def _runs_by_id(self, batch_id: str, *, max_silence: float) -> tuple[dict[str, str], dict[str, Answer]]:
        """Give the status of each run of a batch that is not gone, and each entry of the batch's listing, by run id.

        ListRuns may lag behind: GetRun tells of a run that it lacks, unless the batch's listing has it as deleted.
        """
        listed = self._listed_statuses(batch_id, max_silence=max_silence)
        submissions = self.list_submissions(batch_id=batch_id, max_silence=max_silence)
        rows = {row["runId"]: row for row in submissions if row.get("runId")}
        lacking = [
            run_id
            for run_id, row in rows.items()
            if run_id not in listed
            and row.get("submissionStatus") != SubmissionStatus.DELETE_SUCCESS
            and (batch_id, run_id) not in self._gone_runs
        ]
        if lacking:
            self.log.info("ListRuns lacks %s runs of batch %s; getting each", f"{len(lacking):,}", batch_id)
        for run in self._confirmed_runs(batch_id, rows, lacking, max_silence=max_silence):
            listed[run.run_id] = run.status
        statuses = {run_id: status for run_id, status in listed.items() if status != RunStatus.DELETED}
        return statuses, rows

    def _listed_statuses(self, batch_id: str, *, max_silence: float) -> dict[str, str]:
        runs = self.list_started_runs(batch_id=batch_id, max_silence=max_silence)
        return {run["id"]: run.get("status") or "without a status" for run in runs}

    def _confirmed_runs(
        self, batch_id: str, rows: Mapping[str, Answer], run_ids: Iterable[str], *, max_silence: float
    ) -> Iterator[BatchRun]:
        """Get runs of a batch; those that are gone are left out.

        The id of a deleted run is given to another run: only batch and uuid tell whether a run is the one that the
        batch has started.
        """
        for run_id, run in self.get_runs(run_ids, max_silence=max_silence):
            row = rows.get(run_id, {})
            if run is None or not is_same_run(row, run, batch_id=batch_id):
                self.log.info("Run %s of batch %s is gone", run_id, batch_id)
                self._gone_runs.add((batch_id, run_id))
                continue
            uuid = row.get("runInternalUuid")
            yield BatchRun(
                run_setting_id=row.get("runSettingId"),
                run_id=run_id,
                status=run.get("status") or "without a status",
                is_confirmed=run.get("batchId") == batch_id and uuid is not None and run.get("uuid") == uuid,
            )


def name_runs(runs: Collection[str]) -> str:
    """Name the first few runs, and say how many there are.

    :param runs: what is to be told of each.
    """
    more = "; ..." if len(runs) > MAX_LEFT_RUNS else ""
    return f"{len(runs):,} ({'; '.join(list(runs)[:MAX_LEFT_RUNS])}{more})"
