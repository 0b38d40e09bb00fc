"""The runs that a batch has started, one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import NamedTuple

from airflow_provider_omics_cache.completion import is_same_run
from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.hooks.client import Answer, T
from airflow_provider_omics_cache.hooks.listings import ListingsHook
from airflow_provider_omics_cache.states import RunStatus
from airflow_provider_omics_cache.waiting import NOT_FOUND_ROUNDS, is_passing

#: Seconds between two looks at a batch that is about to change.
LOOK_AGAIN_SECONDS = 5
#: How many runs an error names at most.
_MAX_NAMED_RUNS = 20
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

    def _get_batch_patiently(self, batch_id: str, *, max_seconds: float) -> Answer:
        """Get a batch, through throttling and faults of the service; one that is not found may be young."""
        get = partial(
            self._patiently,
            partial(self.get_batch, batch_id=batch_id),
            max_seconds=max_seconds,
            is_worth_waiting=lambda error: error.http_status is not None and is_passing(error),
        )
        for _ in range(NOT_FOUND_ROUNDS - 1):
            batch = self._if_found(get)
            if batch is not None:
                return batch
            self._sleep(LOOK_AGAIN_SECONDS)
        return get()

    def _unless_refused(self, call: Callable[[], T], *, max_seconds: float) -> OmicsApiError | None:
        """Call, through failures that pass; give the error with which the service refuses what a state forbids."""
        try:
            self._patiently(call, max_seconds=max_seconds)
        except OmicsApiError as error:
            if error.code not in _REFUSALS:
                raise
            return error
        return None

    def _statuses_of_runs(self, batch_id: str, *, max_silence: float) -> dict[str, str]:
        """Give the status of each run of a batch that is not deleted, by its id."""
        runs = self.list_started_runs(batch_id=batch_id, max_silence=max_silence)
        statuses = {run["id"]: run.get("status") or "without a status" for run in runs}
        return {run_id: status for run_id, status in statuses.items() if status != RunStatus.DELETED}

    def _runs_of_batch(self, batch_id: str, run_ids: Collection[str], *, max_silence: float) -> Iterator[BatchRun]:
        """Get runs of a batch; those that are gone are left out.

        The id of a deleted run is given to another run: only batch and uuid tell whether a run is the one that the
        batch has started.
        """
        if not run_ids:
            return
        rows = self.list_submissions(batch_id=batch_id, max_silence=max_silence)
        wanted = set(run_ids)
        started = {row["runId"]: row for row in rows if row.get("runId") in wanted}
        for run_id, run in self.get_runs(run_ids, max_silence=max_silence):
            row = started.get(run_id, {})
            if run is None or not is_same_run(row, run, batch_id=batch_id):
                self.log.info("Run %s of batch %s is gone", run_id, batch_id)
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
    more = "; ..." if len(runs) > _MAX_NAMED_RUNS else ""
    return f"{len(runs):,} ({'; '.join(list(runs)[:_MAX_NAMED_RUNS])}{more})"
