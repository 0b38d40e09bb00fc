"""What failed, summed up for an error: how many for each reason, with the first few ids."""

from __future__ import annotations

from collections import Counter

#: How many runs an XCom lists at most, and how many a summary names for each reason.
MAX_LISTED_RUNS = 1_000
MAX_NAMED_RUNS = 5
#: How many runs an error names at most that could not be cancelled or deleted.
MAX_LEFT_RUNS = 20


class Failures:
    """Failed runs by reason."""

    def __init__(self) -> None:
        self.count = 0
        self._counts: Counter[str] = Counter()
        self._ids: dict[str, list[str]] = {}

    def add(self, reason: str, run_setting_id: str) -> None:
        """Take in a failed run.

        :param reason: why it failed.
        :param run_setting_id: which one it is.
        """
        self.add_unnamed(reason, 1)
        named = self._ids.setdefault(reason, [])
        if len(named) < MAX_NAMED_RUNS:
            named.append(run_setting_id)

    def add_unnamed(self, reason: str, number: int) -> None:
        """Take in failed runs that nothing names.

        :param reason: why they failed.
        :param number: how many there are; nothing is done for 0 or less.
        """
        if number > 0:
            self.count += number
            self._counts[reason] += number

    def summary(self) -> str:
        """Sum up by reason, the most frequent one first."""
        reasons = []
        for reason, count in self._counts.most_common():
            named = self._ids.get(reason, [])
            more = ["..."] if count > len(named) else []
            reasons.append(f"{reason}: {count:,} ({', '.join(named + more)})")
        return "; ".join(reasons)
