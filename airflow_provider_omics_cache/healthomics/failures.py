"""How many failures are allowed, and a summary of failures for errors."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from typing import Any

#: Maximum number of runs in an XCom.
MAX_LISTED_RUNS = 1_000
#: Maximum number of runs that a summary names for each reason.
MAX_NAMED_RUNS = 5
#: Maximum number of runs that an error names if they could not be cancelled or deleted.
MAX_LEFT_RUNS = 20

ALLOWANCE_RULE = 'must be a whole number of runs from 0, or a share from "0%" to "100%"'

_NUMBER = re.compile(r"\s*\d+\s*", re.ASCII)
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*", re.ASCII)


def parse_allowance(value: Any) -> int | Fraction:
    """Return how many failures are allowed: a number of runs, or a share of all runs.

    :param value: a number of runs, or a string such as ``"5%"`` or ``"5"``, as a template renders it.
    :raises ValueError: the value is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    if isinstance(value, str) and (share := _SHARE.fullmatch(value)):
        fraction = Fraction(share[1]) / 100
        if fraction <= 1:
            return fraction
    raise ValueError(ALLOWANCE_RULE)


def allowed(allowance: int | Fraction, total: int) -> int:
    """Return how many of ``total`` runs may fail.

    :param allowance: a number of runs, or a share of all runs.
    :param total: number of all runs.
    """
    return allowance if isinstance(allowance, int) else int(allowance * total)


class Failures:
    """Failed runs by reason."""

    def __init__(self) -> None:
        self.count = 0
        self._counts: Counter[str] = Counter()
        self._ids: dict[str, list[str]] = {}

    def add(self, reason: str, run_setting_id: str) -> None:
        """Add a failed run.

        :param reason: why it failed.
        :param run_setting_id: its runSettingId.
        """
        self.add_unnamed(reason, 1)
        named = self._ids.setdefault(reason, [])
        if len(named) < MAX_NAMED_RUNS:
            named.append(run_setting_id)

    def add_unnamed(self, reason: str, number: int) -> None:
        """Add failed runs whose runSettingIds are not known.

        :param reason: why they failed.
        :param number: number of runs; nothing happens for 0 or less.
        """
        if number > 0:
            self.count += number
            self._counts[reason] += number

    def summary(self) -> str:
        """Summarise the failed runs by reason, the most frequent reason first."""
        reasons = []
        for reason, count in self._counts.most_common():
            named = self._ids.get(reason, [])
            more = ["..."] if count > len(named) else []
            reasons.append(f"{reason}: {count:,} ({', '.join(named + more)})")
        return "; ".join(reasons)
