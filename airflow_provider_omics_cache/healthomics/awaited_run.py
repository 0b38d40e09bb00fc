"""A single run as GetRun shows it, and what its status means for a wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, ClassVar

from airflow_provider_omics_cache.healthomics.progress import Progress
from airflow_provider_omics_cache.healthomics.states import (
    RUN_STATUSES,
    RunMeaning,
    RunStatus,
    Verdict,
    meaning_of_run,
    shown,
)
from airflow_provider_omics_cache.healthomics.stored import member, time_member
from airflow_provider_omics_cache.xcoms import RunXCom, run_xcom

_TEXTS = {
    "arn": "arn",
    "uuid": "uuid",
    "status": "status",
    "name": "name",
    "workflow_id": "workflowId",
    "run_output_uri": "runOutputUri",
    "failure_reason": "failureReason",
    "status_message": "statusMessage",
}
_TIMES = {"creation_time": "creationTime", "start_time": "startTime", "stop_time": "stopTime"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A single run, as one answer of GetRun shows it. Members that the answer lacks are None.

    ``seen_at`` is when the answer came, in epoch seconds.
    """

    noun: ClassVar[str] = "Run"
    operation: ClassVar[str] = "GetRun"
    key: ClassVar[str] = "run"

    id: str
    arn: str | None = None
    uuid: str | None = None
    status: str | None = None
    name: str | None = None
    workflow_id: str | None = None
    run_output_uri: str | None = None
    creation_time: datetime | None = None
    start_time: datetime | None = None
    stop_time: datetime | None = None
    failure_reason: str | None = None
    status_message: str | None = None
    seen_at: float | None = None

    @property
    def meaning(self) -> RunMeaning:
        """What the run's status means."""
        return meaning_of_run(self.status)

    @property
    def shown_status(self) -> str:
        """The status, as messages show it."""
        return shown(self.status)

    @property
    def failure(self) -> str:
        """The service's reason and message for the failure, as errors show them."""
        return ": ".join(part for part in (self.failure_reason, self.status_message) if part) or "no reason given"

    @property
    def has_known_status(self) -> bool:
        """Whether this version of the package knows the status."""
        return self.status in RUN_STATUSES

    @classmethod
    def from_answer(
        cls, run_id: str, answer: Mapping[str, Any], *, uuid: str | None = None, seen_at: float | None = None
    ) -> Run:
        """Make a run from GetRun's answer.

        HealthOmics reuses the ids of deleted runs. If the answer shows another uuid, the run counts as deleted.

        :param run_id: id of the run.
        :param answer: GetRun's answer.
        :param uuid: uuid of the run, None if it is not known.
        :param seen_at: when the answer came, in epoch seconds.
        """
        if uuid is not None and answer.get("uuid") not in {None, uuid}:
            return cls(id=run_id, uuid=uuid, status=RunStatus.DELETED, seen_at=seen_at)
        members: dict[str, Any] = {name: answer.get(member_name) for name, member_name in (_TEXTS | _TIMES).items()}
        return cls(id=run_id, seen_at=seen_at, **{**members, "uuid": answer.get("uuid") or uuid})

    def to_xcom(self, **known: Any) -> RunXCom:
        """Return the run as the XCom ``run``.

        :param known: what the task knows beyond GetRun's answer.
        """
        members: dict[str, Any] = {name: getattr(self, name) for name in _TEXTS}
        return run_xcom(self.id, **{**members, **self._times(), **known})

    def to_json(self) -> dict[str, Any]:
        """Return the run in the form that an event contains."""
        return {**asdict(self), **self._times()}

    def _times(self) -> dict[str, str | None]:
        times = {name: getattr(self, name) for name in _TIMES}
        return {name: time.isoformat() if time else None for name, time in times.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Run:
        """Make a run from a member of an event.

        :param value: what :meth:`to_json` returned, perhaps in another version of this package.
        :raises ValueError: a member has the wrong type.
        """
        run_id = member(value, "id", str)
        if not run_id:
            raise ValueError("the trigger's event has no run id")
        members: dict[str, Any] = {name: member(value, name, str) for name in _TEXTS}
        members.update({name: time_member(value, name) for name in _TIMES})
        return cls(id=run_id, seen_at=member(value, "seen_at", (int, float)), **members)


def decide_completion(run: Run) -> Verdict:
    """Decide what GetRun's answer means for a wait on the end of the run."""
    return run.meaning.completion


def decide_cancellation(run: Run) -> Verdict:
    """Decide what GetRun's answer means for a wait on a cancellation."""
    return run.meaning.cancellation


def progress(run: Run) -> Progress:
    """Describe the status of the run."""
    return Progress(f"Run {run.id} is {run.shown_status}")
