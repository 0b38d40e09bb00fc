"""Everything about the runs of a batch: long lists that go on where they were after a failure that passes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cached_property, partial

from airflow_provider_omics_cache.configuration import calls_per_second
from airflow_provider_omics_cache.hooks.client import Answer
from airflow_provider_omics_cache.hooks.errors import check_id
from airflow_provider_omics_cache.hooks.operations import OmicsOperationsHook

_PAGE = 100


class ListingsHook(OmicsOperationsHook):
    """List the submissions and the runs of a batch, and get runs one after the other."""

    _next_get_run = -math.inf

    def list_submissions(self, *, batch_id: str, max_silence: float = 3600) -> Iterator[Answer]:
        """List all runs of a batch, going on at the page it was at after a throttle or a lost connection.

        :param batch_id: id of the batch.
        :param max_silence: for how many seconds one page may stay without an answer.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRunsInBatch.html
        """
        batch_id = check_id("batch_id", batch_id)
        return self._items("ListRunsInBatch", "runs", None, max_silence=max_silence, batchId=batch_id, maxItems=_PAGE)

    def list_started_runs(self, *, batch_id: str, max_silence: float = 3600) -> Iterator[Answer]:
        """List the runs that a batch has started and that nobody has deleted, with their status and times.

        They come without runSettingId and uuid; :meth:`list_submissions` has those.

        :param batch_id: id of the batch.
        :param max_silence: for how many seconds one page may stay without an answer.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRuns.html
        """
        batch_id = check_id("batch_id", batch_id)
        return self._items("ListRuns", "items", None, max_silence=max_silence, batchId=batch_id, maxResults=_PAGE)

    def get_runs(self, run_ids: Iterable[str], *, max_silence: float = 3600) -> Iterator[tuple[str, Answer | None]]:
        """Get runs one after the other, each in its turn as :meth:`get_run_in_turn`.

        :param run_ids: ids of the runs.
        :param max_silence: for how many seconds one call may stay without an answer.
        :return: each id with GetRun's answer, None for a run that the service does not know.
        """
        for run_id in run_ids:
            yield run_id, self.get_run_in_turn(run_id=run_id, max_silence=max_silence)

    def get_run_in_turn(self, *, run_id: str, max_silence: float = 3600) -> Answer | None:
        """Get a run; wait before, so that there are at most ``[omics_cache] max_get_run_per_second`` a second.

        The quota of GetRun is shared by everything in the account and Region.

        :param run_id: id of the run.
        :param max_silence: for how many seconds the call may stay without an answer.
        :return: GetRun's answer, None for a run that the service does not know.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetRun.html
        """
        self._sleep(max(0.0, self._next_get_run - self._clock()))
        self._next_get_run = self._clock() + 1 / self._max_get_run_per_second
        get = partial(self._patiently, partial(self.get_run, run_id=run_id), max_seconds=max_silence)
        return self._if_found(get)

    @cached_property
    def _max_get_run_per_second(self) -> float:
        return calls_per_second("max_get_run_per_second", default=5)
