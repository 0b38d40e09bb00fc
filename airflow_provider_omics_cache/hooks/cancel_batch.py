"""A batch that is cancelled, however often that is asked for."""

from __future__ import annotations

from functools import partial

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsError
from airflow_provider_omics_cache.healthomics.completion import ENDED_RUN_STATES
from airflow_provider_omics_cache.healthomics.end import CancelDecision, decide_cancel
from airflow_provider_omics_cache.healthomics.states import BatchStatus, RunStatus
from airflow_provider_omics_cache.hooks.batch_runs import LOOK_AGAIN_SECONDS, BatchRunsHook, name_runs
from airflow_provider_omics_cache.hooks.client import Answer
from airflow_provider_omics_cache.hooks.errors import check_id

_ENDING = ENDED_RUN_STATES | {RunStatus.STOPPING}
#: For how many seconds a killed task waits until its batch can be cancelled; Airflow gives it half a minute.
_KILL_SECONDS = 20.0


class CancelBatchHook(BatchRunsHook):
    """Cancel a batch as its state allows."""

    def cancel_batch_once(self, *, batch_id: str, max_seconds: float, max_silence: float | None = None) -> Answer:
        """Ask the service to cancel a batch, if that is not done or pointless already.

        A batch that is CREATING cannot be cancelled: it is looked at until it can. The runs of one that has FAILED
        are cancelled one by one.

        :param batch_id: id of the batch.
        :param max_seconds: for how long a batch is looked at that is CREATING, or that the service refuses to cancel.
        :param max_silence: for how many seconds one call may stay without an answer. Default: ``max_seconds``.
        :return: the batch as GetBatch has shown it last, which is before the call where the service was asked.
        :raises OmicsApiError: a call to AWS failed; the service does not know the batch, or refuses to cancel it.
        :raises OmicsError: runs of a FAILED batch could not be cancelled.
        """
        batch_id = check_id("batch_id", batch_id)
        give_up = self._clock() + max_seconds
        patience = max_seconds if max_silence is None else max_silence
        told = None
        cancel = partial(self.cancel_run_batch, batch_id=batch_id)
        while True:
            batch = self.get_batch_patiently(batch_id=batch_id, max_seconds=patience)
            status = batch.get("status")
            shown = status or "without a status"
            decision = decide_cancel(status)
            refusal: OmicsApiError | None = None
            if decision == CancelDecision.CANCEL:
                refusal = self._unless_refused(cancel, max_seconds=patience)
                if refusal is None:
                    self.log.info("Cancelled batch %s, which was %s", batch_id, shown)
                    return batch
            elif decision == CancelDecision.CANCEL_RUNS:
                self.cancel_living_runs(batch_id=batch_id, max_silence=patience)
                return batch
            elif decision != CancelDecision.LOOK_AGAIN:
                self.log.info("Batch %s is %s: %s", batch_id, status, decision)
                return batch
            if status not in frozenset(BatchStatus) or self._clock() + LOOK_AGAIN_SECONDS > give_up:
                if refusal is None:
                    return batch
                text = f"batch {batch_id} is {shown} and was not cancelled: {refusal}"
                raise refusal.with_text(text, batch_id=batch_id) from refusal.__cause__
            if told != status:
                told = status
                self.log.info("Batch %s is %s and cannot be cancelled yet; looking again", batch_id, status)
            self._sleep(LOOK_AGAIN_SECONDS)

    def cancel_batch_of_killed_task(self, *, batch_id: str) -> None:
        """Cancel a batch as :meth:`cancel_batch_once` does; what goes wrong is logged, and nothing is raised.

        :param batch_id: id of the batch.
        """
        try:
            batch = self.cancel_batch_once(batch_id=batch_id, max_seconds=_KILL_SECONDS)
        except Exception:
            self.log.exception("Cancelling batch %s failed", batch_id)
        else:
            if decide_cancel(batch.get("status")) == CancelDecision.LOOK_AGAIN:
                self.log.error("Batch %s is still %s and was not cancelled: it goes on", batch_id, batch["status"])

    def cancel_living_runs(self, *, batch_id: str, max_silence: float = 3600) -> dict[str, str]:
        """Cancel the runs of a batch that live, one by one; those that are STOPPING end by themselves.

        :param batch_id: id of the batch.
        :param max_silence: for how many seconds one call may stay without an answer.
        :return: the status of each run, by its id, before that.
        :raises OmicsError: runs live that could not be cancelled; a retry may mend that.
        """
        batch_id = check_id("batch_id", batch_id)
        statuses, rows = self._runs_by_id(batch_id, max_silence=max_silence)
        living = [run_id for run_id, status in statuses.items() if status not in _ENDING]
        cancelled = 0
        left: list[str] = []
        for run in self._confirmed_runs(batch_id, rows, living, max_silence=max_silence):
            if run.status in _ENDING:
                continue
            if not run.is_confirmed:
                left.append(str(run))
                continue
            refusal = self._unless_refused(
                partial(self._if_found, partial(self.cancel_run, run_id=run.run_id)), max_seconds=max_silence
            )
            if refusal is None:
                cancelled += 1
            elif not self._has_ended(run.run_id, max_silence=max_silence):
                left.append(f"{run}: {refusal}")
        if cancelled:
            self.log.info("Cancelled %s runs of batch %s one by one", f"{cancelled:,}", batch_id)
        if left:
            raise OmicsError(
                f"batch {batch_id}: runs live that could not be cancelled: {name_runs(left)}", batch_id=batch_id
            )
        return statuses

    def _has_ended(self, run_id: str, *, max_silence: float) -> bool:
        run = self.get_run_in_turn(run_id=run_id, max_silence=max_silence)
        return run is None or run.get("status") in _ENDING
