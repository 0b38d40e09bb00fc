"""The StartRun quota of a Region, which every batch that submits runs spends from."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

# Allowances are sums of floats: a run of which a millionth is missing may be submitted.
_TOLERANCE = 1e-6


class StartRunQuota:
    """Shares the runs that may be started per second evenly among the batches that submit.

    What one batch would have been allowed had it submitted all the time, its allowance, is the same for all of them: a
    line of straight pieces over time, which bends where a batch joins or has had enough. A batch that joined at some
    allowance may have submitted the difference to the present one.
    """

    def __init__(self) -> None:
        self._rate = 0.0
        self._times = [0.0]  # of the bends, and the allowances there
        self._allowances = [0.0]
        self._ends: list[float] = []  # sorted: at which allowance each batch has had enough

    def join(self, runs: int, *, at: float, per_second: float) -> StartRunShare:
        """Let a batch take part; batches join in the order of time.

        :param runs: how many runs it submits.
        :param at: from when on.
        :param per_second: how many runs all batches may submit, from then on.
        """
        self._bend(at)
        self._rate = per_second
        share = StartRunShare(self, self._allowances[-1], runs)
        insort(self._ends, share.end)
        return share

    def leave(self, end: float, *, at: float) -> None:
        """Let a batch that ends at this allowance take part no more."""
        self._bend(at)
        place = bisect_left(self._ends, end)
        if place < len(self._ends) and self._ends[place] == end:
            del self._ends[place]

    def allowance(self, at: float) -> float:
        """Return the allowance at a time that has come."""
        self._let_end(at)
        place = bisect_right(self._times, at) - 1
        if place < 0:
            return 0.0
        if place == len(self._times) - 1:
            return self._allowances[-1] + (at - self._times[-1]) * self._each()
        passed = (at - self._times[place]) / (self._times[place + 1] - self._times[place])
        return self._allowances[place] + passed * (self._allowances[place + 1] - self._allowances[place])

    def time_of(self, allowance: float) -> float:
        """Return when this allowance was reached."""
        place = bisect_left(self._allowances, allowance)
        if place == 0:
            return self._times[0]
        if place == len(self._times):
            each = self._each()
            return self._times[-1] + (allowance - self._allowances[-1]) / each if each else float("inf")
        before, after = self._allowances[place - 1], self._allowances[place]
        passed = (allowance - before) / (after - before)
        return self._times[place - 1] + passed * (self._times[place] - self._times[place - 1])

    def _each(self) -> float:
        return self._rate / len(self._ends) if self._ends else 0.0

    def _let_end(self, until: float) -> None:
        while self._ends:
            ended_at = self._times[-1] + (self._ends[0] - self._allowances[-1]) / self._each()
            if ended_at > until:
                return
            self._times.append(ended_at)
            self._allowances.append(self._ends.pop(0))

    def _bend(self, at: float) -> None:
        at = max(at, self._times[-1])
        allowance = self.allowance(at)
        self._times.append(at)
        self._allowances.append(allowance)


class StartRunShare:
    """What one batch has of the quota.

    :param quota: the quota.
    :param begin: the allowance at which it joined.
    :param runs: how many runs it submits.
    """

    def __init__(self, quota: StartRunQuota, begin: float, runs: int) -> None:
        self.end = begin + runs
        self._quota = quota
        self._begin = begin

    def runs_by(self, at: float) -> int:
        """How many runs the batch may have submitted by then."""
        return int(self._quota.allowance(at) - self._begin + _TOLERANCE)

    def time_of(self, number: int) -> float:
        """When the batch may submit this run, counted from 1."""
        return self._quota.time_of(self._begin + number)

    def leave(self, at: float) -> None:
        """Submit nothing more."""
        self._quota.leave(self.end, at=at)
