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
        #: Whether the run is shown as STOPPING until on_run_completed has returned for it.
        self.held_back = False
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

    def common_setting(self) -> dict[str, Any]:
        """Return the settings of the run."""
        return self._setting

    def course(self) -> Course:
        """Return the tasks, times and states of the run."""
        return self._course

    def status(self, now: float) -> RunStatus:
        """Return the state of the run."""
        status = self._course.status(now)
        return RunStatus.STOPPING if self.held_back and status == RunStatus.COMPLETED else status

    def fail(self, since: float, reason: str) -> None:
        """Make the run fail at its end, in its last task, unless it had ended before or fails already.

        :param since: time of the latest request before.
        :param reason: failureReason.
        """
        if not self._course.has_ended(since):
            self._course.fail((reason, f"The run failed on demand: {reason}"))

    def failure(self) -> tuple[str, str] | None:
        """Return failureReason and statusMessage of a run that fails, None of another."""
        return self._course.failure_at_end()

    def cancel(self, now: float) -> None:
        """Cancel the run; a second call changes nothing."""
        self._course.cancel(now, self._course.settings.run_stopping_seconds)

    def delete(self) -> None:
        """Delete the run."""
        self._course.deleted = True
