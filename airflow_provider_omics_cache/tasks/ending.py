"""Base of the operators that cancel a batch or delete its runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import BatchNotFoundError, OmicsApiError, OmicsError
from airflow_provider_omics_cache.healthomics.end import is_batch_visible
from airflow_provider_omics_cache.healthomics.rounds import (
    CONSISTENCY_SECONDS,
    NOT_FOUND,
    Batch,
    Event,
    EventStatus,
)
from airflow_provider_omics_cache.healthomics.submission import Submissions, doubt_about_existing_runs
from airflow_provider_omics_cache.links.omics import persist_links
from airflow_provider_omics_cache.tasks.parameters import check_effect, check_flags
from airflow_provider_omics_cache.tasks.wait import LAST_LOOK_SECONDS, BatchWaitOperator

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

#: Values that stand for a missing id in a template or an XCom.
EMPTY_IDS = (None, "", "None")
#: Maximum seconds to wait for a batch that cannot be cancelled or deleted yet.
REQUEST_SECONDS = 600


class EndRunBatchOperator(BatchWaitOperator):
    """Base of the operators that cancel a batch or delete its runs."""

    def __init__(self, *, batch_id: str | XComArg, wait_for_completion: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_flags(wait_for_completion=wait_for_completion)
        if not wait_for_completion:
            given: dict[str, Any] = {name: kwargs[name] for name in ("waiter_delay", "deferrable") if name in kwargs}
            default_args = kwargs.get("default_args") or {}
            check_effect(BatchWaitOperator.__init__, given, needs="wait_for_completion=True", default_args=default_args)
        self.batch_id = cast("str", batch_id)
        self.wait_for_completion = wait_for_completion
        #: Ids of runs of the batch that no longer exist.
        self._gone: set[str] = set()
        #: Whether the service has shown the batch to this task.
        self._was_seen = False
        #: Whether this task has looked for the batch for 5 minutes.
        self._has_looked = False

    @abstractmethod
    def request(self, context: Context) -> dict[str, Any]:
        """Ask the service to cancel the batch, or to delete its runs.

        :param context: Airflow's context of the task.
        :return: GetBatch's answer.
        :raises OmicsApiError: a call failed, or the batch is not found.
        """

    def is_over(self, batch: dict[str, Any]) -> bool:
        """Whether the batch had already ended, so that no request was needed.

        :param batch: GetBatch's answer.
        """
        return False

    @abstractmethod
    def is_settled_without_batch(self) -> bool:
        """Whether a missing batch counts as success."""

    @abstractmethod
    def push(self, context: Context, batch: Batch) -> str:
        """Push the XCom ``batch``, and return the batch's id.

        :param context: Airflow's context of the task.
        :param batch: the batch.
        """

    def execute(self, context: Context) -> str | None:
        """Send the request to the service, and wait in this process or in the triggerer.

        :param context: Airflow's context of the task.
        """
        if self.is_teardown and self.batch_id in EMPTY_IDS:
            self.log.info("Nothing to do: batch_id is %r", self.batch_id)
            return None
        self.check_parameters()
        if self.wait_for_completion and self.deferrable:
            self.check_deferral()

        def end() -> str:
            try:
                with self.until_deadline(context, at_least=LAST_LOOK_SECONDS):
                    batch = self.request(context)
            except OmicsApiError as error:
                if not error.is_not_found:
                    raise
                event = Event(status=EventStatus.ERROR, message=str(error), code=NOT_FOUND)
                raise self._error(event) from error.__cause__
            self._was_seen = True
            persist_links(context, self, batch_id=self.batch_id)
            if self.is_over(batch) or not self.wait_for_completion:
                return self.push(context, Batch.from_answer(self.batch_id, batch))
            # The effect of the request may be late, counted from now. The deadline counts from the start of the task.
            self._fixed_deadline = self._deadline(context)
            self._began_at = timing.time()
            return str(self.wait(context))

        return self._unless_settled(end, context)

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, began_at: float | None = None
    ) -> str:
        """Turn the trigger's event into the task's result.

        :param context: Airflow's context of the task.
        :param event: the trigger's event.
        :param began_at: when the wait began, in epoch seconds. Default: it is derived from the deadline.
        """
        self.check_parameters()
        self._was_seen = True
        return self._unless_settled(partial(super().execute_complete, context, event, began_at), context)

    def seconds_left(self, context: Context) -> float:
        """Return the seconds until the task's deadline.

        :param context: Airflow's context of the task.
        """
        return max(0.0, self._deadline(context) - timing.time())

    def request_seconds(self, context: Context) -> float:
        """Return the seconds to wait for a batch that cannot be cancelled or deleted yet.

        :param context: Airflow's context of the task.
        """
        return min(REQUEST_SECONDS, self.seconds_left(context))

    def may_lag(self, context: Context) -> bool:
        """Whether GetBatch's counts may not include the effect of the task's request yet.

        :param context: Airflow's context of the task.
        """
        return timing.time() < self._wait_began_at(context) + CONSISTENCY_SECONDS

    def may_list_more(self, batch: Batch, listing: Submissions, context: Context) -> bool:
        """Whether the batch may have runs that are not listed yet. If so, the task waits for another round.

        :param batch: the batch, which has ended early.
        :param listing: the listing of its runs.
        :param context: Airflow's context of the task.
        """
        settled = batch.settled_time.timestamp() if batch.settled_time else self._wait_began_at(context)
        doubt = doubt_about_existing_runs(batch, listing)
        if not doubt or timing.time() >= settled + CONSISTENCY_SECONDS:
            return False
        self.log.info("Batch %s is %s, but %s; the service may be catching up", batch.id, batch.shown_status, doubt)
        return True

    def _is_first_round(self, context: Context) -> bool:
        return False

    def _unless_settled(self, end: Callable[[], str], context: Context) -> str:
        try:
            return end()
        except BatchNotFoundError as error:
            if self._was_seen:
                raise OmicsError(
                    f"{error} The service has shown the batch to this task before. Retry the task.",
                    batch_id=self.batch_id,
                ) from error
            if not self.is_settled_without_batch():
                raise
            if not self._has_looked and is_batch_visible(self.hook, self.batch_id, max_silence=self.max_silence):
                raise OmicsError(
                    f"Batch {self.batch_id} was not found at first, but exists. Retry the task.", batch_id=self.batch_id
                ) from error
            self.log.warning("Nothing to do: %s", error)
            return self.push(context, Batch(id=self.batch_id))
