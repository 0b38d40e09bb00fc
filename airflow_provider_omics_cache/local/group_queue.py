"""The runs of a run group that wait for a place, and those that have one."""

from __future__ import annotations

from collections import deque

from airflow_provider_omics_cache.local.course import TOLERANCE, Course


class GroupQueue:
    """Limits the number of active runs. Runs with a higher priority begin first, then earlier runs."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[Course]] = {}  # by priority, in the order of their submission
        self._active: list[Course] = []
        self._places_given_until = 0.0

    def add(self, course: Course, priority: int) -> None:
        """Make a run wait for a place.

        :param course: its course.
        :param priority: its priority; a higher number comes first.
        """
        course.begins_at = None
        self._waiting.setdefault(priority, deque()).append(course)

    def give_places(self, limit: float, now: float) -> None:
        """Let the runs begin that have got a place by now, each at the time at which it got the place.

        :param limit: maximum number of active runs.
        :param now: the present time.
        """
        since, self._places_given_until = self._places_given_until, now
        while True:
            free_at = max(self._free_at(limit), since)
            course = self._next(free_at)
            if course is None:
                return
            begins_at = max(free_at, _ready_at(course))
            if begins_at > now + TOLERANCE:
                return
            self._remove(course)
            course.begins_at = begins_at
            self._active = [active for active in self._active if active.ended_at > begins_at + TOLERANCE]
            self._active.append(course)

    def counts(self, now: float) -> tuple[int, int]:
        """Return the number of active runs and of waiting runs."""
        active = sum(not course.has_ended(now) for course in self._active)
        waiting = sum(course.cancelled_at is None for queue in self._waiting.values() for course in queue)
        return active, waiting

    def _free_at(self, limit: float) -> float:
        """Return when the next place is free."""
        if len(self._active) < limit:
            return 0.0
        ends = sorted(active.ended_at for active in self._active)
        return ends[int(len(ends) - limit)]

    def _next(self, free_at: float) -> Course | None:
        """Return the run that gets a place that becomes free at this time."""
        heads = []
        for priority in sorted(self._waiting, reverse=True):
            waiting = self._waiting[priority]
            while waiting and waiting[0].cancelled_at is not None:
                waiting.popleft()
            if waiting:
                heads.append(waiting[0])
        ready = (course for course in heads if _ready_at(course) <= free_at + TOLERANCE)
        return next(ready, None) or min(heads, key=_ready_at, default=None)

    def _remove(self, course: Course) -> None:
        for waiting in self._waiting.values():
            if waiting and waiting[0] is course:
                waiting.popleft()


def _ready_at(course: Course) -> float:
    return course.submitted_at + course.settings.run_pending_seconds
