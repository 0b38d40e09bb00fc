"""Judges what a schedule does with single runs, by the service's own state."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local.region import Region
    from airflow_provider_omics_cache.local.single_run import SingleRun

#: Seconds after which a run fails that is never RUNNING.
_EARLY_SECONDS = 3.0
#: Failures before RUNNING after which a task gives up.
_MOST_EARLY_FAILURES = 3
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "DELETED"})


@dataclass(frozen=True)
class StartedRun:
    """A run that a task has started.

    :param request: the request that it belongs to.
    :param run: the run. It is kept here after it is deleted.
    :param at: service time of the start.
    """

    request: str
    run: SingleRun
    at: float


class SingleRuns:
    """The single runs of a schedule.

    :param region: function that returns the Region.
    :param now: function that returns the service time.
    :param found: function that reports a violation.
    :param choices: choices of the schedule. ``run_fails`` says when runs fail: each one ``at_end``, ``each_early``
        before it is RUNNING, or only the ``first_early``; ``run_cancelled_after`` is when somebody cancels the newest
        run.
    """

    def __init__(
        self,
        region: Callable[[], Region],
        now: Callable[[], float],
        found: Callable[[str, str], None],
        choices: Mapping[str, Any],
    ) -> None:
        self._region = region
        self._now = now
        self._found = found
        self._choices = choices
        self._is_cancelled_by_other = False
        self.started: list[StartedRun] = []

    def uuids(self) -> set[str]:
        """Return the uuids of the runs that are not deleted."""
        return {run.uuid for run in self._region().single_runs.values()}

    def note(self, before: set[str], request: str) -> None:
        """Note the runs that a task has started."""
        for run in self._region().single_runs.values():
            if run.uuid not in before:
                self.started.append(StartedRun(request, run, self._now()))
                self._fail(run)

    def _fail(self, run: SingleRun) -> None:
        fails = self._choices.get("run_fails")
        if fails == "at_end":
            run.fail(float("-inf"), "RUN_TASK_FAILED")
        elif fails == "each_early" or (fails == "first_early" and len(self.started) == 1):
            course = run.course()
            course.begins_at, course.cancelled_until = None, self._now() + _EARLY_SECONDS
            course.failure = ("INSTANCE_RESERVATION_FAILED", "No instance was available")

    def passed(self) -> None:
        """Let somebody cancel the newest run when it is time."""
        after = self._choices.get("run_cancelled_after")
        if after is None or self._is_cancelled_by_other or not self.started:
            return
        newest = self.started[-1]
        if self._now() >= newest.at + after:
            self._is_cancelled_by_other = True
            if self.status(newest.run) not in ENDED:
                newest.run.cancel(self._now())

    def status(self, run: SingleRun, at: float | None = None) -> str:
        """Return the status of a run."""
        return str(run.status(self._now() if at is None else at))

    def single(self, url: str) -> SingleRun | None:
        """Return the single run that a call is about, None if there is none."""
        run_id = re.search(r"/run/(\d+)", url)
        return self._region().single_runs.get(int(run_id[1])) if run_id else None

    def free(self, run_number: int, advance: Callable[[float], object], stopping_seconds: float) -> None:
        """Delete a single run, so that its id is free."""
        run = self._region().single_runs.get(run_number)
        if run is None:
            return
        if self.status(run) not in ENDED:
            run.cancel(self._now())
            advance(stopping_seconds + 1)
        run.delete()
        self._region().single_runs.pop(run_number)
        self._region().free_runs([run_number])

    # Judgements

    def settle(self) -> None:
        """Check what was started."""
        for first, second in combinations(self.started, 2):
            if first.request != second.request:
                continue
            course = first.run.course()
            pair = f"run {second.run.number} of {first.request} was started when run {first.run.number}"
            if course.cancelled_at is not None and course.cancelled_at < second.at:
                self._found("restarted-cancelled", f"{pair} was cancelled")
            elif not course.deleted and not self._may_be_replaced(first.run, second):
                self._found("paid-twice", f"{pair} was {self.status(first.run, second.at)}")

    def _may_be_replaced(self, run: SingleRun, by: StartedRun) -> bool:
        """Return whether a run could be replaced: it failed before it was RUNNING, or completed something else."""
        status = self.status(run, by.at)
        if status == "FAILED":
            return not _has_begun(run)
        return status == "COMPLETED" and run.setting()["parameters"] != by.run.setting()["parameters"]

    def is_own(self, run_id: str, request: str, xcom: Mapping[str, Any]) -> None:
        """Check the run that StartRunOperator returned."""
        own = {str(started.run.number): started.run.uuid for started in self.started if started.request == request}
        if own.get(run_id) != xcom["uuid"] or xcom["id"] != run_id:
            self._found("wrong-batch", f"run {run_id} ({xcom['uuid']}) was returned for {request}, which has {own}")

    def is_completed(self, run: SingleRun, xcom: Mapping[str, Any]) -> None:
        """Check a wait that succeeded."""
        status = self.status(run)
        if status != "COMPLETED" and not run.course().deleted:
            self._found("early-completion", f"run {run.number} is {status}")
        uri = f"/{run.number}/{run.uuid}"
        if xcom["status"] != "COMPLETED" or not str(xcom["run_output_uri"] or uri).endswith(uri):
            self._found("wrong-counts", f"run {run.number}: {xcom['status']}, {xcom['run_output_uri']}")

    def is_cancelled(self, run: SingleRun) -> None:
        """Check a cancellation that succeeded."""
        if self.status(run) not in ENDED:
            self._found("living-run", f"run {run.number} is {self.status(run)}")

    def is_deleted(self, run: SingleRun) -> None:
        """Check a deletion that succeeded."""
        if not run.course().deleted:
            self._found("not-deleted", f"run {run.number} is {self.status(run)}")

    def is_true(self, error: BaseException, request: str | None, uuid: str | None, kinds: Mapping[str, int]) -> bool:
        """Return whether an error that forbids a retry is true."""
        subjects = [started.run for started in self.started if uuid == started.run.uuid or request == started.request]
        failed = [run for run in subjects if self.status(run) == "FAILED"]
        # A task that waits fails with each failure. Another one starts a run again that was never RUNNING.
        waits = "mode" in self._choices
        may_conflict = self._choices.get("change") == "parameters" or self._choices.get("request_id") is not None
        cancelled = any(run.course().cancelled_at is not None for run in subjects)
        return {
            "RunError": "could not be cancelled" in str(error) and not cancelled,
            "RunCancelledError": cancelled,
            "RunFailedError": bool(failed)
            and (waits or any(map(_has_begun, failed)) or len(failed) >= _MOST_EARLY_FAILURES),
            "RunDeletedError": any(run.course().deleted for run in subjects),
            "RunNotFoundError": any(run.course().deleted for run in subjects),
            "RunConflictError": may_conflict or bool(kinds.get("unknown_status")) or uuid is not None,
        }.get(type(error).__name__, False)


def _has_begun(run: SingleRun) -> bool:
    return run.course().begins_at is not None
