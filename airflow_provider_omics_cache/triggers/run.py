"""Triggers that wait for single HealthOmics runs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from airflow_provider_omics_cache.healthomics import awaited_run, end_run
from airflow_provider_omics_cache.healthomics.awaited_run import Run
from airflow_provider_omics_cache.healthomics.rounds import RunWait
from airflow_provider_omics_cache.healthomics.states import Verdict
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.triggers.poller import GET_RUN
from airflow_provider_omics_cache.triggers.waiting import CancellingTrigger, WaitTrigger


class RunTrigger(WaitTrigger):
    """Calls GetRun until the wait is over, then fires one event.

    All triggers of a triggerer share one budget of GetRun calls in each Region.

    :param run_id: id of the run.
    :param run_uuid: uuid of the run, because HealthOmics reuses the ids of deleted runs. Default: that of the first
        answer.
    :param kwargs: arguments of :class:`~airflow_provider_omics_cache.triggers.waiting.WaitTrigger`.
    """

    kind = Run
    operation = GET_RUN
    progress = staticmethod(awaited_run.progress)

    @staticmethod
    @abstractmethod
    def decide(run: Run) -> Verdict:
        """Decide what GetRun's answer means for the wait."""

    def __init__(self, *, run_id: str, run_uuid: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.run_uuid = run_uuid

    @property
    def subject_id(self) -> str:
        """Id of the run."""
        return self.run_id

    def serialized_wait(self) -> dict[str, Any]:
        """Return the keyword arguments that only a trigger of a run takes."""
        return {"run_id": self.run_id, "run_uuid": self.run_uuid}

    def new_wait(self) -> RunWait:
        """Return the wait of this trigger."""
        return RunWait(
            run_id=self.run_id,
            run_uuid=self.run_uuid,
            decide=self.decide,
            progress=self.progress,
            max_silence=self.max_silence,
            deadline=self.deadline,
        )


class RunCompletionTrigger(RunTrigger):
    """Waits until a run has ended; see :class:`RunTrigger`."""

    decide = staticmethod(awaited_run.decide_completion)


class StartRunTrigger(CancellingTrigger, RunCompletionTrigger):
    """Waits for the run that StartRunOperator started; can cancel it when the task is killed.

    :param cancel_on_kill: cancel the run when the deferred task is marked or cleared (Airflow 3.3 and newer). Default
        False.
    """

    def cancel(self, hook: OmicsCacheHook) -> None:
        """Cancel the run. Log an error, and do not raise it.

        :param hook: the hook.
        """
        end_run.cancel_run_of_killed_task(hook, self.run_id, uuid=self.run_uuid)


class RunCancellationTrigger(RunTrigger):
    """Waits until a run that was cancelled has stopped; see :class:`RunTrigger`."""

    decide = staticmethod(awaited_run.decide_cancellation)
