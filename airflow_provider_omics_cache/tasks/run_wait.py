"""Base of the tasks that wait for a single run."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_omics_cache.exceptions import (
    OmicsParameterError,
    RunCancelledError,
    RunDeletedError,
    RunError,
    RunFailedError,
    RunNotFoundError,
    RunSilenceError,
    RunTimeoutError,
)
from airflow_provider_omics_cache.healthomics.awaited_run import Run
from airflow_provider_omics_cache.healthomics.end_run import get_run_patiently
from airflow_provider_omics_cache.healthomics.rounds import Event, RunWait
from airflow_provider_omics_cache.healthomics.states import End
from airflow_provider_omics_cache.links.omics import OmicsLogGroupLink, OmicsRunLink
from airflow_provider_omics_cache.tasks.wait import LAST_LOOK_SECONDS, WaitErrors, WaitOperator, WaitSensor, WaitTask

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_provider_omics_cache.triggers.run import RunTrigger

_LONGEST_UUID = 128
_ERRORS: dict[End | None, tuple[type[RunError], str]] = {
    End.FAILED: (RunFailedError, "failed: {reason}"),
    End.CANCELLED: (RunCancelledError, "was cancelled (set a new rerun_key to start a new run)"),
    End.DELETED: (RunDeletedError, "was deleted (set a new rerun_key to start a new run)"),
}


class RunWaitTask(WaitTask[Run]):
    """Waits for a single run, with one GetRun call in each round."""

    kind = Run
    id_name = "run_id"
    errors = WaitErrors(RunNotFoundError, RunSilenceError, RunTimeoutError)
    trigger_class: ClassVar[type[RunTrigger]]

    operator_extra_links: Collection[BaseOperatorLink] = (OmicsRunLink(), OmicsLogGroupLink())

    run_uuid: str | None

    def check_parameters(self) -> None:
        """Check the parameters before the first call.

        :raises OmicsParameterError: a parameter breaks a rule.
        """
        super().check_parameters()
        self.run_uuid = check_run_uuid(self.run_uuid)

    def get(self) -> dict[str, Any]:
        """Call GetRun once."""
        return self.hook.get_run(run_id=self.subject_id)

    def get_at_deadline(self) -> dict[str, Any]:
        """Call GetRun once more when the deadline has come."""
        return get_run_patiently(self.hook, self.subject_id, max_silence=LAST_LOOK_SECONDS)

    def new_wait(self, **arguments: Any) -> RunWait:
        """Return a new wait.

        :param arguments: arguments of :class:`~airflow_provider_omics_cache.healthomics.rounds.Wait`.
        """
        return RunWait(
            run_id=self.subject_id,
            run_uuid=self.run_uuid,
            decide=self.trigger_class.decide,
            progress=self.trigger_class.progress,
            **arguments,
        )

    def _resume(self, event: dict[str, Any] | None, began_at: float | None) -> Event:
        """Read the trigger's event, and keep the uuid that it reports.

        HealthOmics reuses the ids of deleted runs. Without the uuid, the next call could show another run.

        :param event: the trigger's event.
        :param began_at: when the wait began, in epoch seconds. None if it began with the task.
        """
        parsed = super()._resume(event, began_at)
        if parsed.run is not None and not self.run_uuid:
            self.run_uuid = parsed.run.uuid
        return parsed

    def link_members(self) -> dict[str, str]:
        """Return the values of the task's links."""
        return links_of_run(self.subject_id)

    def stored_wait(self) -> dict[str, Any]:
        """Return the arguments by which the trigger continues the wait of this process."""
        return {"run_uuid": self.run_uuid or (self._wait.subject.uuid if self._wait else None)}

    def push_last_answer(self, subject: Run, context: Context) -> None:
        """Push the XCom ``run`` before the wait ends with a result or an error.

        :param subject: the run.
        :param context: Airflow's context of the task.
        """
        context["ti"].xcom_push(key="run", value=subject.to_xcom())


class RunWaitOperator(RunWaitTask, WaitOperator[Run]):
    """Base of the operators that wait for a single run."""


class RunWaitSensor(RunWaitTask, WaitSensor[Run]):
    """Base of the sensors that wait for a single run."""


def links_of_run(run_id: str) -> dict[str, str]:
    """Return the values of the links to a run.

    :param run_id: id of the run.
    """
    return {"run_id": run_id, "log_stream_prefix": f"run/{run_id}"}


def check_run_uuid(value: Any) -> str | None:
    """Return the uuid of a run as a string, None when it is not given.

    :param value: the uuid.
    :raises OmicsParameterError: the value cannot be a uuid.
    """
    if value is None or value == "":
        return None
    text = str(value)
    if text == "None" or len(text) > _LONGEST_UUID:
        raise OmicsParameterError("run_uuid", f"must be the uuid of a run, of 1 to {_LONGEST_UUID} characters", value)
    return text


def run_error(run: Run) -> RunError:
    """Return the error for a run that did not complete.

    :param run: the run.
    """
    # A trigger of a newer version may know statuses that this version does not know.
    error_class, text = _ERRORS.get(run.meaning.end, (RunError, "is {status}"))
    return error_class(
        f"Run {run.id} {text.format(reason=run.failure, status=run.shown_status)}",
        run_id=run.id,
        status=run.status,
        reason=run.failure_reason,
    )
