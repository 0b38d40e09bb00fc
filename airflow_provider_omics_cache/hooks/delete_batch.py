"""A batch whose runs are deleted, however often that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from airflow_provider_omics_cache.exceptions import BatchConflictError, OmicsError
from airflow_provider_omics_cache.healthomics.completion import ENDED_RUN_STATES
from airflow_provider_omics_cache.healthomics.end import DeleteDecision, decide_delete
from airflow_provider_omics_cache.healthomics.states import RunStatus
from airflow_provider_omics_cache.hooks.batch_runs import LOOK_AGAIN_SECONDS, BatchRunsHook, name_runs
from airflow_provider_omics_cache.hooks.client import Answer
from airflow_provider_omics_cache.hooks.errors import check_id


class DeleteBatchHook(BatchRunsHook):
    """Delete the runs of a batch as its state allows, then the batch."""

    def delete_runs_once(
        self,
        *,
        batch_id: str,
        max_seconds: float,
        max_silence: float = 3600,
        before: Callable[[Answer], object] | None = None,
    ) -> Answer:
        """Ask the service to delete the runs of a batch, if that is not done already.

        The runs of a batch that has FAILED, or whose deletion was not complete, are deleted one by one: the service
        does not delete them as a batch.

        :param batch_id: id of the batch.
        :param max_seconds: for how long a batch is looked at whose runs the service refuses to delete.
        :param max_silence: for how many seconds one call may stay without an answer.
        :param before: called once with GetBatch's answer before anything is deleted; not called for a batch that is
            not to be deleted.
        :return: the batch as GetBatch has shown it last, which is before the call where the service was asked.
        :raises BatchConflictError: the batch is not over, or its status is not known.
        :raises OmicsApiError: a call to AWS failed; the service does not know the batch, or refuses.
        :raises OmicsError: runs could not be deleted.
        """
        batch_id = check_id("batch_id", batch_id)
        give_up = self._clock() + max_seconds
        delete = partial(self.delete_run_batch, batch_id=batch_id)
        while True:
            batch = self.get_batch_patiently(batch_id=batch_id, max_seconds=max_silence)
            status = batch.get("status")
            decision = decide_delete(status)
            if decision in {DeleteDecision.ACTIVE, DeleteDecision.UNKNOWN}:
                raise BatchConflictError(
                    f"batch {batch_id} is {status or 'without a status'}, and its runs cannot be deleted: {decision}"
                    + (", with CancelRunBatchOperator" if decision == DeleteDecision.ACTIVE else ""),
                    batch_id=batch_id,
                    status=status,
                )
            if before is not None:
                before(batch)
                before = None
            if decision == DeleteDecision.DELETE_RUNS:
                self.delete_left_runs(batch_id=batch_id, max_silence=max_silence)
                return batch
            if decision == DeleteDecision.LEAVE:
                self.log.info("Batch %s is %s: %s", batch_id, status, decision)
                return batch
            refusal = self._unless_refused(delete, max_seconds=max_silence)
            if refusal is None:
                self.log.info("Deleting the runs of batch %s, which was %s", batch_id, status)
                return batch
            if self._clock() + LOOK_AGAIN_SECONDS > give_up:
                text = f"batch {batch_id} is {status} and its runs were not deleted: {refusal}"
                raise refusal.with_text(text, batch_id=batch_id) from refusal.__cause__
            self._sleep(LOOK_AGAIN_SECONDS)

    def delete_left_runs(self, *, batch_id: str, max_silence: float = 3600) -> None:
        """Delete the runs of a batch that are left, one by one, and wait until the service does not list them.

        :param batch_id: id of the batch.
        :param max_silence: for how many seconds one call may stay without an answer.
        :raises OmicsError: runs are left; a retry may mend that.
        """
        batch_id = check_id("batch_id", batch_id)
        statuses, rows = self._runs_by_id(batch_id, max_silence=max_silence)
        deleted: set[str] = set()
        left: list[str] = []
        for run in self._confirmed_runs(batch_id, rows, statuses, max_silence=max_silence):
            if not run.is_confirmed:
                left.append(str(run))
                continue
            if run.status not in ENDED_RUN_STATES:
                left.append(f"{run}: cancel it first")
                continue
            refusal = self._unless_refused(
                partial(self._if_found, partial(self.delete_run, run_id=run.run_id)), max_seconds=max_silence
            )
            if refusal is None:
                deleted.add(run.run_id)
                self._gone_runs.add((batch_id, run.run_id))
            else:
                left.append(f"{run}: {refusal}")
        if deleted:
            self.log.info("Deleted %s runs of batch %s one by one", f"{len(deleted):,}", batch_id)
            listed = self._look_again(
                lambda: self._still_listed(batch_id, deleted, max_silence=max_silence), lambda seen: not seen
            )
            left += [f"{run_id}: it was deleted and is still listed" for run_id in sorted(listed)]
        if left:
            raise OmicsError(f"batch {batch_id}: runs are left: {name_runs(left)}", batch_id=batch_id)

    def _still_listed(self, batch_id: str, run_ids: set[str], *, max_silence: float) -> set[str]:
        statuses = self._listed_statuses(batch_id, max_silence=max_silence)
        return {run_id for run_id in run_ids if statuses.get(run_id, RunStatus.DELETED) != RunStatus.DELETED}

    def delete_batch_once(self, *, batch_id: str, max_seconds: float, max_silence: float = 3600) -> None:
        """Delete a batch's metadata; one that is gone is fine. Its runs, where there are any, stay.

        :param batch_id: id of the batch.
        :param max_seconds: for how long a batch is looked at that the service refuses to delete.
        :param max_silence: for how many seconds one call may stay without an answer.
        :raises OmicsApiError: a call to AWS failed, or the service refuses; a retry may mend that.
        """
        give_up = self._clock() + max_seconds
        delete = partial(self._if_found, partial(self.delete_batch, batch_id=batch_id))
        while True:
            refusal = self._unless_refused(delete, max_seconds=max_silence)
            if refusal is None:
                self.log.info("Deleted batch %s", batch_id)
                return
            batch = self._if_found(partial(self.get_batch_patiently, batch_id=batch_id, max_seconds=max_silence))
            if batch is None:
                self.log.info("Batch %s is gone", batch_id)
                return
            if self._clock() + LOOK_AGAIN_SECONDS > give_up:
                status = batch.get("status") or "without a status"
                text = f"batch {batch_id} is {status} and was not deleted: {refusal}"
                raise refusal.with_text(text, batch_id=batch_id) from refusal.__cause__
            self._sleep(LOOK_AGAIN_SECONDS)
