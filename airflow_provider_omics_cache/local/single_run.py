"""A run that StartRun started."""

from __future__ import annotations

from typing import Any

from airflow_provider_omics_cache.healthomics.states import RunStatus
from airflow_provider_omics_cache.local.course import Course


class SingleRun:
    """A run that StartRun started.

    :param number: id of the run.
    :param uuid: uuid of the run.
    :param setting: its effective settings, as the members of StartRun.
    :param course: its tasks, times and states.
    """

    batch_number: int | None = None

    def __init__(self, *, number: int, uuid: str, setting: dict[str, Any], course: Course) -> None:
        self.number = number
        self.uuid = uuid
        self._tags: dict[str, str] = dict(setting.get("tags", {}))
        self._setting = setting
        self._course = course

    def tags(self) -> dict[str, str]:
        """Return the tags of the run."""
        return self._tags

    def changeable_tags(self) -> dict[str, str]:
        """Return the tags of the run; changes of the result are kept."""
        return self._tags

    def setting(self) -> dict[str, Any]:
        """Return the effective settings of the run, as the members of StartRun."""
        return self._setting

    def course(self) -> Course:
        """Return the tasks, times and states of the run."""
        return self._course

    def status(self, now: float) -> RunStatus:
        """Return the state of the run."""
        return self._course.status(now)

    def fail(self, since: float, reason: str) -> None:
        """Make the run fail at its end, in its last task, unless it had ended before or fails already.

        :param since: time of the latest request before.
        :param reason: failureReason.
        """
        if self._course.failure is None and not self._course.has_ended(since):
            self._course.failure = reason, f"The run failed on demand: {reason}"
            self._course.failing_task = len(self._course.tasks) - 1

    def failure(self) -> tuple[str, str] | None:
        """Return failureReason and statusMessage of a run that fails, None of another."""
        return self._course.failure_at_end()

    def cancel(self, now: float) -> None:
        """Cancel the run; a second call changes nothing."""
        self._course.cancel(now)

    def delete(self) -> None:
        """Delete the run."""
        self._course.deleted = True
