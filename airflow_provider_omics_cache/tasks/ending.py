"""What operators that bring a batch to an end have in common."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_omics_cache.exceptions import BatchNotFoundError, OmicsApiError
from airflow_provider_omics_cache.healthomics.rounds import NOT_FOUND, Batch, Event, EventStatus
from airflow_provider_omics_cache.links.omics import persist_links
from airflow_provider_omics_cache.tasks.wait import BatchWaitOperator, check_aiobotocore

if TYPE_CHECKING:
    from airflow.sdk import Context

#: What the id of a batch is where none was started.
EMPTY_IDS = (None, "", "None")
#: For how many seconds counts and listings may lag behind what has happened.
CONSISTENCY_SECONDS = 300
#: For how many seconds a batch is looked at that cannot be brought to its end yet, or that the service is busy with.
_REQUEST_SECONDS = 600


class EndRunBatchOperator(BatchWaitOperator):
    """Base of the operators that bring a batch to an end."""

    def __init__(self, *, batch_id: str, wait_for_completion: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch_id = batch_id
        self.wait_for_completion = wait_for_completion

    @abstractmethod
    def request(self, context: Context) -> dict[str, Any]:
        """Ask the service for the end of the batch.

        :param context: Airflow's context of the task.
        :return: the batch as GetBatch has shown it.
        :raises OmicsApiError: the service does not know the batch, or a call failed.
        """

    def is_over(self, batch: dict[str, Any]) -> bool:
        """Whether there was nothing to ask for."""
        return False

    @abstractmethod
    def is_settled_without_batch(self) -> bool:
        """Whether it is fine that the service does not know the batch."""

    @abstractmethod
    def push(self, context: Context, batch: Batch) -> str:
        """Push what is known of the batch; give its id."""

    def execute(self, context: Context) -> str | None:
        """Ask the service for the end of the batch, and wait for it in this process or in the triggerer."""
        if self.is_teardown and self.batch_id in EMPTY_IDS:
            self.log.info("There is nothing to do: batch_id is %r", self.batch_id)
            return None
        self.check_parameters()
        if self.wait_for_completion and self.deferrable:
            check_aiobotocore()

        def end() -> str:
            try:
                batch = self.request(context)
            except OmicsApiError as error:
                if error.code != "ResourceNotFoundException":
                    raise
                event = Event(status=EventStatus.ERROR, message=str(error), code=NOT_FOUND)
                raise self._error(event) from error.__cause__
            persist_links(context, self)
            if self.is_over(batch) or not self.wait_for_completion:
                return self.push(context, Batch.from_answer(self.batch_id, batch))
            return str(self.wait(context))

        return self._unless_settled(end, context)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """Conclude with the trigger's event."""
        self.check_parameters()
        return self._unless_settled(partial(super().execute_complete, context, event), context)

    def seconds_left(self, context: Context) -> float:
        """Seconds until the task's deadline."""
        return max(0.0, self._deadline(context) - time.time())

    def request_limits(self, context: Context) -> dict[str, float]:
        """For how long the service is asked at most, in the hook's parameters."""
        left = self.seconds_left(context)
        return {"max_seconds": min(_REQUEST_SECONDS, left), "max_silence": min(self.max_silence, left)}

    def may_lag(self, context: Context) -> bool:
        """Whether counts may still lag behind what the task has asked for."""
        return time.time() < self._started(context) + CONSISTENCY_SECONDS

    def _is_first_round(self, context: Context) -> bool:
        return False

    def _unless_settled(self, end: Callable[[], str], context: Context) -> str:
        try:
            return end()
        except BatchNotFoundError as error:
            if not self.is_settled_without_batch():
                raise
            self.log.warning("There is nothing to do: %s", error)
            return self.push(context, Batch(id=self.batch_id))
