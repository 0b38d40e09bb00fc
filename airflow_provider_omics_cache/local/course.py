"""The course of one run: its tasks, times and states, computed from when it begins and from what happens to it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from airflow_provider_omics_cache.healthomics.states import RunStatus
from airflow_provider_omics_cache.local.assumptions import Settings

# Times are sums of floats. Everything that is due within a microsecond counts as due now.
TOLERANCE = 1e-6
#: Maximum number of tasks of a workflow.
MOST_TASKS = 999
#: Runs that fail for these reasons export nothing to their run cache.
_NOTHING_CACHED = frozenset({"RUN_TIMED_OUT", "EXPORT_FAILED", "FILE_SYSTEM_OUT_OF_SPACE"})


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """A task of a workflow.

    :param name: name of the task.
    :param seconds: how long it runs. None: an equal part of ``settings.run_running_seconds``.
    :param cpus: number of CPUs.
    :param memory: memory in GiB.
    :param gpus: number of GPUs.
    :param instance_type: type of the instance that it runs on.
    :param image: URI of its container image; None if none is shown.
    """

    name: str
    seconds: float | None = None
    cpus: int = 2
    memory: int = 4
    gpus: int = 0
    instance_type: str = "omics.c.large"
    image: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not 1 <= len(self.name) <= 128:
            raise ValueError(f"the name of a task must be a string of 1 to 128 characters; got {self.name!r}")
        for member, least in (("seconds", 0), ("cpus", 1), ("memory", 1), ("gpus", 0)):
            value = getattr(self, member)
            if member == "seconds" and value is None:
                continue
            kind = (int, float) if member == "seconds" else int
            if isinstance(value, bool) or not isinstance(value, kind) or not least <= value < float("inf"):
                raise ValueError(f"{member} of task {self.name} must be a number of at least {least}; got {value!r}")


def task_definitions(tasks: Sequence[Mapping[str, Any]]) -> tuple[TaskDefinition, ...]:
    """Return the tasks of a workflow.

    :param tasks: the arguments of :class:`TaskDefinition` of each task.
    """
    definitions = tuple(TaskDefinition(**task) for task in tasks)
    if not 1 <= len(definitions) <= MOST_TASKS:
        raise ValueError(f"a workflow must have from 1 to {MOST_TASKS} tasks; got {len(definitions)}")
    if len({definition.name for definition in definitions}) < len(definitions):
        raise ValueError("each task of a workflow must have a unique name")
    return definitions


#: The tasks of a workflow for which a test registers none.
DEFAULT_TASKS = (
    TaskDefinition("Align", cpus=8, memory=32, instance_type="omics.m.2xlarge"),
    TaskDefinition("CallVariants", cpus=4, memory=32, instance_type="omics.r.xlarge"),
    TaskDefinition("Report"),
)


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a run.

    :param number: its number in the run, from 1.
    :param definition: what the workflow says about it.
    :param status: its state.
    :param created_at: when the run reached it.
    :param started_at: when it started, None for a task from the run cache.
    :param stopped_at: when it stopped, None while it runs and for a task from the run cache.
    :param cache_uri: S3 URI of its entry in the run cache, None if it was executed.
    :param failure: failureReason and statusMessage of a failed task.
    """

    number: int
    definition: TaskDefinition
    status: RunStatus
    created_at: float
    started_at: float | None
    stopped_at: float | None
    cache_uri: str | None
    failure: tuple[str, str] | None


def seconds_of(tasks: Sequence[TaskDefinition], settings: Settings) -> list[float]:
    """Return how long each task runs.

    :param tasks: the tasks of a workflow.
    :param settings: the service's settings.
    """
    share = settings.run_running_seconds / len(tasks)
    return [share if task.seconds is None else task.seconds for task in tasks]


@dataclass(slots=True, eq=False)
class Course:
    """The course of one run. All times are seconds of service time.

    :param settings: durations.
    :param submitted_at: when the run was submitted.
    :param tasks: the tasks of the run, which run one after the other.
    :param begins_at: when it leaves ``PENDING``; None while it waits for a place in its run group.
    :param hits: ids of the runs that have exported what it found in its run cache, for its first tasks.
    :param uri_of_entry: returns the S3 URI of the entry of a task, from the id of its run and its number, from 0.
    :param failure: failureReason and statusMessage if the run fails.
    :param failing_task: number of the task, from 0, in which the run fails; None if it fails after its tasks.
    :param longest_seconds: maximum time ``RUNNING``; the run times out after it.
    :param cancelled_at: when it was cancelled.
    :param cancelled_until: when the cancelled run ends.
    :param deleted: whether it was deleted.
    """

    settings: Settings
    submitted_at: float
    tasks: Sequence[TaskDefinition]
    begins_at: float | None
    hits: tuple[int, ...] = ()
    uri_of_entry: Callable[[int, int], str] | None = None
    failure: tuple[str, str] | None = None
    failing_task: int | None = None
    longest_seconds: float = float("inf")
    cancelled_at: float | None = None
    cancelled_until: float | None = None
    deleted: bool = False
    running_seconds: float = field(init=False)
    times_out: bool = field(init=False)

    def __post_init__(self) -> None:
        self.plan()

    def plan(self) -> None:
        """Compute how long the run is ``RUNNING``."""
        needed = self._ends_of_tasks()[-1]
        self.times_out = needed > self.longest_seconds
        self.running_seconds = min(needed, self.longest_seconds)

    @property
    def started_at(self) -> float:
        """When the run becomes ``RUNNING``; infinity while that is unknown."""
        if self.begins_at is None:
            return float("inf")
        return self.begins_at + self.settings.run_starting_seconds

    @property
    def stopping_at(self) -> float:
        """When the run becomes ``STOPPING``."""
        work_ends_at = self.started_at + self.running_seconds
        return work_ends_at if self.cancelled_at is None else min(self.cancelled_at, work_ends_at)

    @property
    def ended_at(self) -> float:
        """When the run ends."""
        if self.cancelled_until is not None:
            return self.cancelled_until
        return self.started_at + self.running_seconds + self.settings.run_stopping_seconds

    def failure_at_end(self) -> tuple[str, str] | None:
        """Return failureReason and statusMessage of a run that fails, None of another."""
        if self.times_out:
            return "RUN_TIMED_OUT", f"The run was RUNNING for longer than {self.longest_seconds / 60:g} minutes"
        return self.failure

    def fail(self, failure: tuple[str, str]) -> None:
        """Make the run fail at its end, in its last task, unless it fails already.

        :param failure: failureReason and statusMessage.
        """
        if self.failure is None:
            self.failure, self.failing_task = failure, max(len(self.tasks) - 1, len(self.hits))

    def status(self, now: float) -> RunStatus:
        """Return the state of the run."""
        at = now + TOLERANCE
        cancelled = self.cancelled_at is not None and at >= self.cancelled_at
        if self.deleted:
            return RunStatus.DELETED
        if at >= self.ended_at:
            if cancelled:
                return RunStatus.CANCELLED
            return RunStatus.COMPLETED if self.failure_at_end() is None else RunStatus.FAILED
        if cancelled or at >= self.stopping_at:
            return RunStatus.STOPPING
        if at >= self.started_at:
            return RunStatus.RUNNING
        begun = self.begins_at is not None and at >= self.begins_at
        return RunStatus.STARTING if begun else RunStatus.PENDING

    def cancel(self, now: float, seconds: float) -> None:
        """Cancel the run; a second call changes nothing.

        :param now: the present time.
        :param seconds: how long the run is ``STOPPING``.
        """
        if self.cancelled_at is None:
            self.cancelled_at, self.cancelled_until = now, now + seconds

    def has_ended(self, now: float) -> bool:
        """Return whether the run has ended."""
        return self.deleted or now + TOLERANCE >= self.ended_at

    def states_until(self, now: float) -> list[tuple[float, RunStatus]]:
        """Return the states that the run has had, with the time at which each began."""
        course = [
            (self.submitted_at, RunStatus.PENDING),
            (float("inf") if self.begins_at is None else self.begins_at, RunStatus.STARTING),
            (self.started_at, RunStatus.RUNNING),
            (self.started_at + self.running_seconds, RunStatus.STOPPING),
        ]
        if self.cancelled_at is not None:
            course = [(at, status) for at, status in course[:3] if at <= self.cancelled_at]
            course.append((self.cancelled_at, RunStatus.STOPPING))
        final = RunStatus.COMPLETED if self.failure_at_end() is None else RunStatus.FAILED
        course.append((self.ended_at, final if self.cancelled_at is None else RunStatus.CANCELLED))
        return [(at, status) for at, status in course if at <= now + TOLERANCE]

    def tasks_at(self, now: float) -> Iterator[Task]:
        """Yield the tasks that the run has come to."""
        at, started_at, stopping_at = now + TOLERANCE, self.started_at, self.stopping_at
        if at < started_at or stopping_at < started_at:
            return
        created_after = 0.0
        for index, (task, ends_after) in enumerate(zip(self._planned(), self._ends_of_tasks(), strict=True)):
            created_at, ends_at = started_at + created_after, started_at + ends_after
            created_after = ends_after
            if created_at > at or (created_at >= stopping_at and ends_at > stopping_at):
                return
            if index < len(self.hits) and self.uri_of_entry is not None:
                uri = self.uri_of_entry(self.hits[index], index)
                yield Task(index + 1, task, RunStatus.COMPLETED, created_at, None, None, uri, None)
            else:
                yield self._executed(index, task, created_at, ends_at, at)

    def tasks_to_export(self) -> range:
        """Return the numbers, from 0, of the tasks whose outputs the run cache may keep after the run has ended.

        They are the tasks that the run executed and completed.
        """
        failure = self.failure_at_end() if self.cancelled_at is None else None
        if failure is not None and failure[0] in _NOTHING_CACHED:
            return range(0)
        done = bisect_right(self._ends_of_tasks(), self.stopping_at - self.started_at + TOLERANCE)
        if self.failing_task is not None:
            done = min(done, self.failing_task)
        return range(len(self.hits), done)

    def _executed(self, index: int, task: TaskDefinition, created_at: float, ends_at: float, at: float) -> Task:
        stopped_at = min(ends_at, self.stopping_at)
        if at < stopped_at:
            return Task(index + 1, task, RunStatus.RUNNING, created_at, created_at, None, None, None)
        status, failure = RunStatus.COMPLETED, None
        if stopped_at < ends_at:
            status = RunStatus.CANCELLED
        elif index == self.failing_task:
            status, failure = RunStatus.FAILED, self.failure
        return Task(index + 1, task, status, created_at, created_at, stopped_at, None, failure)

    def _planned(self) -> Sequence[TaskDefinition]:
        return self.tasks if self.failing_task is None else self.tasks[: self.failing_task + 1]

    def _ends_of_tasks(self) -> list[float]:
        """Return when each task ends, in seconds since the run became ``RUNNING``."""
        seconds = seconds_of(self.tasks, self.settings)[: len(self._planned())]
        return list(accumulate(0.0 if index < len(self.hits) else taken for index, taken in enumerate(seconds)))
