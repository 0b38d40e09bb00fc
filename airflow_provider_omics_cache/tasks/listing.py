"""Base of the tasks that list the runs of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchDeletedError,
    BatchError,
    BatchFailedError,
    BatchSilenceError,
    IncompleteListingError,
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
    OmicsTimeLimitError,
)
from airflow_provider_omics_cache.healthomics.failures import parse_allowance, what_continues
from airflow_provider_omics_cache.healthomics.rounds import Batch, Event, FirstSeen
from airflow_provider_omics_cache.healthomics.states import BATCH_STATUSES, End
from airflow_provider_omics_cache.healthomics.submission import Submissions
from airflow_provider_omics_cache.tasks.s3_output import S3OutputTask
from airflow_provider_omics_cache.tasks.wait import BatchWaitTask

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

    from airflow_provider_omics_cache._compat import PokeReturnValue

_ERRORS: dict[End | None, tuple[type[BatchError], str]] = {
    End.FAILED: (BatchFailedError, "failed: {reason}"),
    End.CANCELLED: (BatchCancelledError, "was cancelled (set a new rerun_key to start a new batch)"),
    End.DELETED: (BatchDeletedError, "is {status}: its runs were deleted"),
}


class ListingTask(S3OutputTask, BatchWaitTask):
    """Lists runs at the end of the wait, within the task's limits."""

    consistency_timeout: float
    fail_fast: bool
    #: Whether the task cancels the batch when it fails fast.
    cancel_on_failure = False

    #: When this wait first saw the batch in its status, if the service does not report that time.
    _first_seen: FirstSeen | None = None
    _is_catching_up = False

    @contextmanager
    def within_limits(self) -> Iterator[None]:
        """List runs inside the ``with`` block. An error of a call is converted to the error of the limit that it hit.

        :raises BatchSilenceError: no answer came for ``max_silence``.
        :raises OmicsTimeLimitError: the deadline has passed.
        """
        try:
            yield
        except OmicsTimeLimitError as error:
            raise OmicsTimeLimitError(f"its runs could not be listed in time. {error}") from error
        except OmicsApiError as error:
            if not error.is_passing:
                raise
            text = f"Batch {self.batch_id}: its runs could not be listed for {self.max_silence:,.0f} s: {error}"
            raise BatchSilenceError(text, batch_id=self.batch_id) from error

    def complete_listing(
        self,
        list_once: Callable[[], Submissions],
        batch: Batch,
        expected: int | None,
        since: datetime | None,
        context: Context,
        *,
        at_least: int | None = None,
    ) -> Submissions | None:
        """List the runs. An incomplete listing is an error only if a second listing is incomplete too.

        :param list_once: function that makes one listing.
        :param batch: the batch.
        :param expected: number of runs of the batch, None if it is not known.
        :param since: when the batch reached its status, None if the service does not report it.
        :param context: Airflow's context of the task.
        :param at_least: minimum number of listed runs. Default: ``expected``.
        :return: the listing, None if it is incomplete and the service may still be catching up.
        :raises IncompleteListingError: the listing is still incomplete ``consistency_timeout`` after ``since``.
        """
        submissions = self.hook.list_whole(list_once)
        missing = submissions.missing(expected, at_least=at_least)
        if missing and self.has_caught_up(batch, since, timing.time()):
            submissions = self.hook.list_whole(list_once)
            missing = submissions.missing(expected, at_least=at_least)
            if missing:
                raise IncompleteListingError(
                    f"Batch {batch.id} is {batch.shown_status}, but after {self.consistency_timeout:,.0f} s "
                    f"the listing of its runs is incomplete: {missing}",
                    batch_id=batch.id,
                    status=batch.status,
                )
        if missing:
            self.wait_to_catch_up(batch, missing)
            return None
        return submissions

    def has_caught_up(self, batch: Batch, since: datetime | None, by: float) -> bool:
        """Whether the service has had ``consistency_timeout`` to catch up.

        :param batch: the batch.
        :param since: when the batch reached its status. If the service does not report it, the time counts from the
            first round of this wait that showed the status.
        :param by: the time at which the service was asked, in epoch seconds.
        """
        if since:
            self._first_seen = None
            return by >= since.timestamp() + self.consistency_timeout
        if self._first_seen is None or self._first_seen.status != batch.shown_status:
            self._first_seen = FirstSeen(status=batch.shown_status, at=seen_at(batch))
        return by >= self._first_seen.at + self.consistency_timeout

    def may_catch_up(self, batch: Batch, context: Context) -> bool:
        """Whether the service may still be catching up with a batch that ended early, and another round is possible.

        :param batch: the batch.
        :param context: Airflow's context of the task.
        """
        if self.has_caught_up(batch, batch.settled_time, seen_at(batch)):
            return False
        return timing.time() + self.interval < self._deadline(context)

    def wait_to_catch_up(self, batch: Batch, text: str) -> None:
        """Log that the task waits for another round because the service may be catching up.

        :param batch: the batch.
        :param text: what is missing.
        """
        self.log.info("Batch %s is %s, but %s; the service may be catching up", batch.id, batch.shown_status, text)
        self._is_catching_up = True

    def trigger_arguments(self) -> dict[str, Any]:
        """Return the arguments that only this task's trigger takes."""
        first_seen = {"first_seen": self._first_seen.to_json()} if self._first_seen else {}
        return first_seen if self.max_failed is None else {**first_seen, "max_failed": self.max_failed}

    def must_continue(self, batch: Batch) -> bool:
        """Whether a wait that its trigger ended must continue, because the task now allows more failures.

        :param batch: the batch. Its failures exceed the limit of the trigger, but not that of the task.
        """
        if batch.meaning.end is not None or batch.status not in BATCH_STATUSES:
            return False
        self.log.info("Batch %s is %s, and its failures are within the limit: waiting again", batch.id, batch.status)
        return True

    def try_to_write(self, file: IO[bytes] | None, parameter: str) -> OmicsError | None:
        """Upload a file if there is one. An error is returned, because it must not hide the verdict on the batch.

        :param file: the file, None if nothing must be written.
        :param parameter: name of the parameter with the object's URI.
        """
        if file is None:
            return None
        try:
            self.write_to_s3(file, parameter)
        except OmicsError as error:
            return error
        return None

    def settle_active_batch(self) -> str:
        """Handle a batch that is still active when the task fails fast. Return what was done, for the error."""
        return what_continues()

    def _resume(self, event: dict[str, Any] | None, began_at: float | None) -> Event:
        parsed = super()._resume(event, began_at)
        self._first_seen = parsed.first_seen
        return parsed

    def _conclude(self, event: Event, context: Context) -> PokeReturnValue | None:
        """Conclude the wait. Make the next rounds too if another process would forget ``_first_seen``."""
        next_event: Event | None = event
        result = None
        while True:
            if next_event is not None:
                self._is_catching_up = False
                result = super()._conclude(next_event, context)
            elif not self._started_wait(context).is_disturbed:
                return None
            would_forget = self._is_catching_up and self._first_seen is not None and self.must_trust_counts
            if result is not None or not would_forget or timing.time() >= self._deadline(context):
                return result
            timing.sleep(min(self.interval, max(0.0, self._deadline(context) - timing.time())))
            next_event = self._round(context)

    def check_allowance(self, parameter: str) -> None:
        """Check how many runs may fail, if it is known when the DAG is parsed.

        A template, or the output of a task, is checked when the task runs.

        :param parameter: name of the parameter that limits the failures.
        :raises OmicsParameterError: the parameter is neither a number of runs nor a share.
        """
        value = getattr(self, parameter)
        is_known = value is None or isinstance(value, (int, float, str))
        if is_known and "{" not in str(value):
            self.allowance(parameter)

    def allowance(self, parameter: str) -> int | Fraction:
        """Return how many runs may fail.

        :param parameter: name of the parameter that limits the failures.
        :raises OmicsParameterError: the parameter is neither a number of runs nor a share.
        """
        value = getattr(self, parameter)
        try:
            return parse_allowance(value)
        except ValueError as error:
            raise OmicsParameterError(parameter, str(error), value) from None


def seen_at(batch: Batch) -> float:
    """Return when GetBatch answered, in epoch seconds. This time counts, even if the task resumes much later.

    :param batch: the batch.
    """
    return timing.time() if batch.seen_at is None else batch.seen_at


def batch_error(batch: Batch, details: str) -> BatchError:
    """Return the error for a batch that can no longer reach the state that a task waits for.

    :param batch: the batch.
    :param details: what is known of its runs.
    """
    # A trigger of a newer version may know statuses that this version does not know.
    error_class, text = _ERRORS.get(batch.meaning.end, (BatchError, "is {status}"))
    happened = text.format(reason=batch.failure_reason or "no reason given", status=batch.shown_status)
    return error_class(
        f"Batch {batch.id} {happened}; {details}", batch_id=batch.id, status=batch.status, reason=batch.failure_reason
    )
