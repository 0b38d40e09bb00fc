"""What tasks that list the runs of a batch have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchDeletedError,
    BatchError,
    BatchFailedError,
    BatchSilenceError,
    IncompleteListingError,
    OmicsApiError,
    OmicsParameterError,
)
from airflow_provider_omics_cache.healthomics.allowance import parse
from airflow_provider_omics_cache.healthomics.rounds import Batch, is_passing
from airflow_provider_omics_cache.healthomics.states import DELETED_BATCH_STATES, BatchStatus
from airflow_provider_omics_cache.healthomics.submission import Submissions
from airflow_provider_omics_cache.tasks.s3_output import S3OutputMixin
from airflow_provider_omics_cache.tasks.wait import BatchWaitMixin

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

T = TypeVar("T")

_WHAT_HAPPENED: dict[str, tuple[type[BatchError], str]] = {
    BatchStatus.FAILED: (BatchFailedError, "failed: {reason}"),
    BatchStatus.CANCELLED: (BatchCancelledError, "was cancelled; a new rerun_key starts a new batch"),
    **dict.fromkeys(DELETED_BATCH_STATES, (BatchDeletedError, "is {status}: somebody deletes its runs")),
}


class BatchListingMixin(S3OutputMixin, BatchWaitMixin):
    """List runs once the wait is over, within the task's own limits."""

    consistency_timeout: float

    def within_limits(self, context: Context, make: Callable[[float], Iterable[T]]) -> Iterator[T]:
        """Go through a list that AWS gives bit by bit; wait out failures that pass, until the task's deadline.

        :param context: Airflow's context of the task.
        :param make: makes the list; takes for how many seconds one call may stay without an answer.
        :raises BatchSilenceError: no answer came for ``max_silence``.
        """
        remaining = max(0.0, self._deadline(context) - time.time())
        patience = min(self.max_silence, remaining)
        try:
            yield from make(patience)
        except OmicsApiError as error:
            if not is_passing(error):
                raise
            text = f"batch {self.batch_id}: its runs could not be listed for {patience:,.0f} s: {error}"
            if remaining < self.max_silence:
                raise self.timeout_error(text) from error
            raise BatchSilenceError(text, batch_id=self.batch_id) from error

    def complete_listing(
        self,
        list_once: Callable[[], Submissions],
        batch: Batch,
        expected: int | None,
        since: datetime | None,
        context: Context,
    ) -> Submissions | None:
        """List the runs, a second time if the service has had ``consistency_timeout`` to catch up and has not.

        :param list_once: makes one listing.
        :param batch: the batch.
        :param expected: how many runs it has, None if nothing tells.
        :param since: when it became what it is; None for the start of the wait.
        :param context: Airflow's context of the task.
        :return: the listing, None when the service has to catch up.
        :raises IncompleteListingError: it has not, by now.
        """
        submissions = list_once()
        missing = submissions.missing(expected)
        if missing and self.has_caught_up(since, time.time(), context):
            submissions = list_once()
            missing = submissions.missing(expected)
            if missing:
                raise IncompleteListingError(
                    f"batch {batch.id} is {batch.status}: {missing}, {self.consistency_timeout:,.0f} s later",
                    batch_id=batch.id,
                    status=batch.status,
                )
        if missing:
            self.log.info("batch %s: %s; waiting for the service to catch up", batch.id, missing)
            return None
        return submissions

    def has_caught_up(self, since: datetime | None, by: float, context: Context) -> bool:
        """Tell whether the service had ``consistency_timeout`` to catch up.

        :param since: when the batch became what it is; None for the start of the wait.
        :param by: the time in question, in epoch seconds.
        :param context: Airflow's context of the task.
        """
        start = since.timestamp() if since else self._started(context)
        return by >= start + self.consistency_timeout

    def allowance(self, parameter: str) -> int | Fraction:
        """Read how many runs may fail.

        :param parameter: name of the parameter that tells it.
        :raises OmicsParameterError: naming the parameter, the rule and the value.
        """
        value = getattr(self, parameter)
        try:
            return parse(value)
        except ValueError as error:
            raise OmicsParameterError(parameter, str(error), value) from None


def batch_error(batch: Batch, told: str) -> BatchError:
    """Give the error of a batch that will never become what is waited for.

    :param batch: the batch.
    :param told: what is known of its runs.
    """
    error_class, text = _WHAT_HAPPENED.get(str(batch.status), (BatchError, "is {status}"))
    happened = text.format(reason=batch.failure_reason or "no reason given", status=batch.status)
    return error_class(
        f"batch {batch.id} {happened}; {told}", batch_id=batch.id, status=batch.status, reason=batch.failure_reason
    )


def batch_record(batch: Batch, **counts: Any) -> dict[str, Any]:
    """Name what is known of a batch as the XCom ``batch`` does.

    :param batch: the batch.
    :param counts: how many runs it has, and what became of them.
    """
    return {"id": batch.id, "arn": batch.arn, "uuid": batch.uuid, "status": batch.status, **counts}
