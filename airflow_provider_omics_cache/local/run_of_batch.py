"""One run of a batch, with the attributes and methods of a single run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_omics_cache.healthomics.states import RunStatus
from airflow_provider_omics_cache.local.batch import Batch
from airflow_provider_omics_cache.local.course import Course, TaskDefinition


class RunOfBatch:
    """One started run of a batch. It is made when a request asks for the run, and keeps no state.

    :param batch: the batch.
    :param index: number of the run in the batch.
    :param tasks: the tasks of its workflow.
    """

    def __init__(self, batch: Batch, index: int, tasks: Sequence[TaskDefinition]) -> None:
        self.number = batch.run_numbers[index]
        self.uuid = batch.run_uuid(index)
        self.batch_number: int | None = batch.number
        self._batch = batch
        self._index = index
        self._tasks = tasks

    def tags(self) -> dict[str, str]:
        """Return the tags of the run."""
        return self._batch.tags_of_run(self._index)

    def changeable_tags(self) -> dict[str, str]:
        """Return the tags of the run; changes of the result are kept."""
        return self._batch.run_tags.setdefault(self._index, self._batch.tags_of_run(self._index))

    def setting(self) -> dict[str, Any]:
        """Return the effective settings of the run, as the members of StartRun."""
        return self._batch.effective_setting(self._index)

    def course(self) -> Course:
        """Return the tasks, times and states of the run."""
        return self._batch.course(self._index, self._tasks)

    def status(self, now: float) -> RunStatus:
        """Return the state of the run."""
        return self._batch.run_status(self._index, now)

    def failure(self) -> tuple[str, str] | None:
        """Return failureReason and statusMessage of a run that fails, None of another."""
        return self._batch.run_failures.get(self._index)

    def cancel(self, now: float) -> None:
        """Cancel the run; a second call changes nothing."""
        self._batch.cancel_run(self._index, now)

    def delete(self) -> None:
        """Delete the run."""
        self._batch.delete_run(self._index)
