"""The quotas of one account in one Region: calls per second, and the StartRun rate that all batches share."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from airflow_provider_omics_cache.local.protocol import ServiceError

# Allowances are sums of floats: a run that lacks a millionth of its allowance may be submitted.
_TOLERANCE = 1e-6


class CallQuotas:
    """A token bucket per operation."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}  # calls left, and when they were counted

    def spend(self, operation: str, *, per_second: float, now: float) -> None:
        """Count a call; raise ThrottlingException when the quota is used up."""
        burst = max(per_second, 1.0)
        left, counted_at = self._buckets.get(operation, (burst, now))
        left = min(burst, left + (now - counted_at) * per_second)
        if left < 1.0:
            self._buckets[operation] = (left, now)
            raise ServiceError("ThrottlingException", "Rate exceeded")
        self._buckets[operation] = (left - 1.0, now)


class StartRunQuota:
    """Divides the StartRun rate evenly among the batches that are submitting.

    The allowance is the number of runs that one batch could have submitted if it had been submitting all the time. It
    is the same for every batch. As a function of time it is piecewise linear: its slope changes when a batch joins or
    has submitted its last run. A batch may have submitted the present allowance minus the allowance at which it joined.
    """

    def __init__(self) -> None:
        self._rate = 0.0
        self._times = [0.0]  # when the slope changed
        self._allowances = [0.0]  # the allowances at these times
        self._ends: list[float] = []  # sorted: the allowance at which each batch has submitted its last run

    def join(self, runs: int, *, at: float, per_second: float) -> StartRunShare:
        """Add a batch. Batches must join in the order of time.

        :param runs: number of runs that the batch submits.
        :param at: when it begins to submit.
        :param per_second: runs per second that all batches together may submit from then on.
        """
        self._change_slope(at)
        self._rate = per_second
        share = StartRunShare(self, self._allowances[-1], runs)
        insort(self._ends, share.end)
        return share

    def leave(self, end: float, *, at: float) -> None:
        """Remove the batch that would have ended at this allowance."""
        self._change_slope(at)
        place = bisect_left(self._ends, end)
        if place < len(self._ends) and self._ends[place] == end:
            del self._ends[place]

    def allowance(self, at: float) -> float:
        """Return the allowance at a time that is not in the future."""
        self._remove_finished(at)
        place = bisect_right(self._times, at) - 1
        if place < 0:
            return 0.0
        if place == len(self._times) - 1:
            return self._allowances[-1] + (at - self._times[-1]) * self._slope()
        passed = (at - self._times[place]) / (self._times[place + 1] - self._times[place])
        return self._allowances[place] + passed * (self._allowances[place + 1] - self._allowances[place])

    def time_of(self, allowance: float) -> float:
        """Return when this allowance is reached."""
        place = bisect_left(self._allowances, allowance)
        if place == 0:
            return self._times[0]
        if place == len(self._times):
            slope = self._slope()
            return self._times[-1] + (allowance - self._allowances[-1]) / slope if slope else float("inf")
        before, after = self._allowances[place - 1], self._allowances[place]
        passed = (allowance - before) / (after - before)
        return self._times[place - 1] + passed * (self._times[place] - self._times[place - 1])

    def _slope(self) -> float:
        return self._rate / len(self._ends) if self._ends else 0.0

    def _remove_finished(self, until: float) -> None:
        while self._ends:
            ended_at = self._times[-1] + (self._ends[0] - self._allowances[-1]) / self._slope()
            if ended_at > until:
                return
            self._times.append(ended_at)
            self._allowances.append(self._ends.pop(0))

    def _change_slope(self, at: float) -> None:
        at = max(at, self._times[-1])
        allowance = self.allowance(at)
        self._times.append(at)
        self._allowances.append(allowance)


class StartRunShare:
    """The part of the StartRun quota that one batch gets.

    :param quota: the quota.
    :param begin: the allowance at which the batch joined.
    :param runs: number of runs that the batch submits.
    """

    def __init__(self, quota: StartRunQuota, begin: float, runs: int) -> None:
        self.end = begin + runs
        self._quota = quota
        self._begin = begin

    def runs_by(self, at: float) -> int:
        """Return how many runs the batch may have submitted at this time."""
        return int(self._quota.allowance(at) - self._begin + _TOLERANCE)

    def time_of(self, number: int) -> float:
        """Return when the batch may submit this run, counted from 1."""
        return self._quota.time_of(self._begin + number)

    def leave(self, at: float) -> None:
        """Give up the rest of the share."""
        self._quota.leave(self.end, at=at)
