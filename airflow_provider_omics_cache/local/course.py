"""The course of one run: its tasks, times and states, computed from when it begins and from what happens to it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from airflow_provider_omics_cache.healthomics.states import ENDED_RUN_STATUSES, RunStatus
from airflow_provider_omics_cache.local.assumptions import Settings

# Times are sums of floats. Everything that is due within a microsecond counts as due now.
TOLERANCE = 1e-6


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


#: The tasks of a workflow for which a test registers none.
DEFAULT_TASKS = (
    TaskDefinition("Align", cpus=8, memory=32, instance_type="omics.m.2xlarge"),
    TaskDefinition("CallVariants", cpus=4, memory=32, instance_type="omics.r.xlarge"),
    TaskDefinition("Report"),
)


@dataclass(frozen=True, slots=True)
class Hit:
    """A task that a run found in its run cache.

    :param uri: S3 URI of the entry.
    """

    uri: str


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a run.

    :param number: its number in the run, from 1.
    :param definition: what the workflow says about it.
    :param status: its state.
    :param created_at: when the run came to it.
    :param started_at: when it started, None for a task from the run cache.
    :param stopped_at: when it stopped, None while it runs and for a task from the run cache.
    :param hit: its entry in the run cache, None if it was executed.
    :param failure: failureReason and statusMessage of a failed task.
    """

    number: int
    definition: TaskDefinition
    status: RunStatus
    created_at: float
    started_at: float | None
    stopped_at: float | None
    hit: Hit | None
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
    :param hits: what it found in its run cache, for its first tasks.
    :param failure: failureReason and statusMessage if the run fails.
    :param failing_task: number of the task, from 0, in which the run fails.
    :param longest_seconds: maximum time ``RUNNING``; the run times out after it.
    :param cancelled_at: when it was cancelled.
    :param cancelled_until: when the cancelled run ends.
    :param deleted: whether it was deleted.
    """

    settings: Settings
    submitted_at: float
    tasks: Sequence[TaskDefinition]
    begins_at: float | None
    hits: tuple[Hit, ...] = ()
    failure: tuple[str, str] | None = None
    failing_task: int | None = None
    longest_seconds: float = float("inf")
    cancelled_at: float | None = None
    cancelled_until: float | None = None
    deleted: bool = False

    @property
    def started_at(self) -> float:
        """When the run becomes ``RUNNING``; infinity while that is unknown."""
        if self.begins_at is None:
            return float("inf")
        return self.begins_at + self.settings.run_starting_seconds

    @property
    def stopping_at(self) -> float:
        """When the run becomes ``STOPPING``."""
        work_ends_at = self.started_at + min(self._ends_of_tasks()[-1], self.longest_seconds)
        return work_ends_at if self.cancelled_at is None else min(self.cancelled_at, work_ends_at)

    @property
    def ended_at(self) -> float:
        """When the run ends."""
        if self.cancelled_until is not None:
            return self.cancelled_until
        return self.stopping_at + self.settings.run_stopping_seconds

    def times_out(self) -> bool:
        """Return whether the run takes longer than its run group allows."""
        return self._ends_of_tasks()[-1] > self.longest_seconds

    def failure_at_end(self) -> tuple[str, str] | None:
        """Return failureReason and statusMessage of a run that fails, None of another."""
        if self.times_out():
            return "RUN_TIMED_OUT", f"The run ran for longer than {self.longest_seconds / 60:g} minutes"
        return self.failure

    def status(self, now: float) -> RunStatus:
        """Return the state of the run."""
        at = now + TOLERANCE
        if self.deleted:
            return RunStatus.DELETED
        if at >= self.ended_at:
            if self.cancelled_at is not None:
                return RunStatus.CANCELLED
            return RunStatus.COMPLETED if self.failure_at_end() is None else RunStatus.FAILED
        if self.cancelled_at is not None or at >= self.stopping_at:
            return RunStatus.STOPPING
        if at >= self.started_at:
            return RunStatus.RUNNING
        begun = self.begins_at is not None and at >= self.begins_at
        return RunStatus.STARTING if begun else RunStatus.PENDING

    def cancel(self, now: float) -> None:
        """Cancel the run; a second call changes nothing."""
        if self.cancelled_at is None:
            self.cancelled_at, self.cancelled_until = now, now + self.settings.run_stopping_seconds

    def has_ended(self, now: float) -> bool:
        """Return whether the run has ended."""
        return self.status(now) in ENDED_RUN_STATUSES

    def tasks_at(self, now: float) -> Iterator[Task]:
        """Yield the tasks that the run has come to."""
        if now + TOLERANCE < self.started_at or self.stopping_at < self.started_at:
            return
        stopping_at = self.stopping_at
        created_after = 0.0
        for index, (task, ends_after) in enumerate(zip(self._planned(), self._ends_of_tasks(), strict=True)):
            created_at, ends_at = self.started_at + created_after, self.started_at + ends_after
            created_after = ends_after
            if created_at > now + TOLERANCE or (index and created_at >= stopping_at):
                return
            if index < len(self.hits):
                yield Task(index + 1, task, RunStatus.COMPLETED, created_at, None, None, self.hits[index], None)
                continue
            yield self._executed(index, task, created_at, ends_at, now)

    def completed_tasks(self, until: float) -> int:
        """Return how many tasks were completed until a time, those from the run cache included."""
        done = bisect_right(self._ends_of_tasks(), min(until, self.stopping_at) - self.started_at + TOLERANCE)
        return done if self._failing_index() is None else min(done, len(self._planned()) - 1)

    def _executed(self, index: int, task: TaskDefinition, created_at: float, ends_at: float, now: float) -> Task:
        stopped_at = min(ends_at, self.stopping_at)
        if now + TOLERANCE < stopped_at:
            return Task(index + 1, task, RunStatus.RUNNING, created_at, created_at, None, None, None)
        status, failure = RunStatus.COMPLETED, None
        if stopped_at < ends_at:
            status = RunStatus.CANCELLED
        elif index == self._failing_index():
            status, failure = RunStatus.FAILED, self.failure
        return Task(index + 1, task, status, created_at, created_at, stopped_at, None, failure)

    def _failing_index(self) -> int | None:
        return None if self.failure is None else self.failing_task

    def _planned(self) -> Sequence[TaskDefinition]:
        failing = self._failing_index()
        return self.tasks if failing is None else self.tasks[: failing + 1]

    def _ends_of_tasks(self) -> list[float]:
        """Return when each task ends, in seconds since the run became ``RUNNING``."""
        seconds = seconds_of(self.tasks, self.settings)[: len(self._planned())]
        return list(accumulate(0.0 if index < len(self.hits) else taken for index, taken in enumerate(seconds)))
