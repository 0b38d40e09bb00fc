"""Base of the tasks that list the runs of a batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchDeletedError,
    BatchError,
    BatchFailedError,
    BatchSilenceError,
    IncompleteListingError,
    OmicsApiError,
    OmicsParameterError,
    OmicsTimeLimitError,
)
from airflow_provider_omics_cache.healthomics.failures import parse_allowance
from airflow_provider_omics_cache.healthomics.rounds import Batch
from airflow_provider_omics_cache.healthomics.states import End
from airflow_provider_omics_cache.healthomics.submission import Submissions
from airflow_provider_omics_cache.tasks.s3_output import S3OutputTask
from airflow_provider_omics_cache.tasks.wait import BatchWaitTask

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

T = TypeVar("T")

_ERRORS: dict[End | None, tuple[type[BatchError], str]] = {
    End.FAILED: (BatchFailedError, "failed: {reason}"),
    End.CANCELLED: (BatchCancelledError, "was cancelled (set a new rerun_key to start a new batch)"),
    End.DELETED: (BatchDeletedError, "is {status}: its runs were deleted"),
}


class ListingTask(S3OutputTask, BatchWaitTask):
    """Lists runs at the end of the wait, within the task's limits."""

    consistency_timeout: float

    def within_limits(self, context: Context, make: Callable[[float], Iterable[T]]) -> Iterator[T]:
        """Iterate over results of calls to AWS. Unanswered calls are repeated for ``max_silence``.

        :param context: Airflow's context of the task.
        :param make: function that returns the iterable. Its argument is the seconds for which a call is repeated.
        :raises BatchSilenceError: no answer came for ``max_silence``.
        :raises Exception: the deadline has passed; the class is that of :meth:`timeout_error`.
        """
        what = f"Batch {self.batch_id}: its runs could not be listed"
        try:
            yield from make(self.max_silence)
        except OmicsTimeLimitError as error:
            raise self.timeout_error(f"Timed out. {what} in time. {error}") from error
        except OmicsApiError as error:
            if not error.is_passing:
                raise
            text = f"{what} for {self.max_silence:,.0f} s: {error}"
            raise BatchSilenceError(text, batch_id=self.batch_id) from error

    def complete_listing(
        self,
        list_once: Callable[[], Submissions],
        batch: Batch,
        expected: int | None,
        since: datetime | None,
        context: Context,
    ) -> Submissions | None:
        """List the runs. An incomplete listing is an error only if a second listing is incomplete too.

        :param list_once: function that makes one listing.
        :param batch: the batch.
        :param expected: number of runs of the batch, None if it is not known.
        :param since: when the batch reached its status, None for the start of the wait.
        :param context: Airflow's context of the task.
        :return: the listing, None if it is incomplete and the service may still be catching up.
        :raises IncompleteListingError: the listing is still incomplete ``consistency_timeout`` after ``since``.
        """
        submissions = self.hook.list_whole(list_once)
        missing = submissions.missing(expected)
        if missing and self.has_caught_up(since, time.time(), context):
            submissions = self.hook.list_whole(list_once)
            missing = submissions.missing(expected)
            if missing:
                raise IncompleteListingError(
                    f"Batch {batch.id} is {batch.shown_status}, but after {self.consistency_timeout:,.0f} s "
                    f"the listing of its runs is incomplete: {missing}",
                    batch_id=batch.id,
                    status=batch.status,
                )
        if missing:
            self.log.info("Batch %s: %s; the service is catching up", batch.id, missing)
            return None
        return submissions

    def has_caught_up(self, since: datetime | None, by: float, context: Context) -> bool:
        """Whether the service has had ``consistency_timeout`` to catch up.

        :param since: when the batch reached its status, None for the start of the wait.
        :param by: the time at which the service was asked, in epoch seconds.
        :param context: Airflow's context of the task.
        """
        start = since.timestamp() if since else self._wait_began_at(context)
        return by >= start + self.consistency_timeout

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
