"""How many failures are allowed, and a summary of failures for errors."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from typing import Any, NamedTuple

from airflow_provider_omics_cache.redaction import without_passwords

#: Maximum number of runs in an XCom.
MAX_LISTED_RUNS = 1_000
#: Maximum number of runs that a summary names for each reason and message.
MAX_NAMED_RUNS = 5
#: Maximum number of pairs of reason and message that a summary names.
MAX_NAMED_GROUPS = 3
#: Maximum number of runs that an error names if they could not be cancelled or deleted.
MAX_LEFT_RUNS = 20

ALLOWANCE_RULE = 'must be an integer, 0 or more, or a share from "0%" to "100%"'

#: Maximum number of different pairs of reason and message that are kept: each message may name its own sample.
_MAX_KEPT_GROUPS = 100
#: Maximum number of characters of a message.
_MAX_MESSAGE = 200

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


def exceeds(failed: int | None, max_failed: int | Fraction, total: int | None) -> bool:
    """Whether more runs have failed than are allowed. False if the result depends on a number that is not known.

    :param failed: number of runs that have failed.
    :param max_failed: number or share of runs that may fail.
    :param total: number of all runs.
    """
    if failed is None or (total is None and isinstance(max_failed, Fraction)):
        return False
    return failed > allowed(max_failed, total or 0)


class FailureGroup(NamedTuple):
    """Failed runs with the same reason and message.

    :param reason: why they failed.
    :param message: the service's message in one line. Empty if the service gave no message, or if messages differ.
    :param number: number of runs.
    :param run_setting_ids: runSettingIds of the first runs.
    """

    reason: str
    message: str
    number: int
    run_setting_ids: list[str]


class Failures:
    """Failed runs, grouped by reason and message."""

    def __init__(self) -> None:
        self.count = 0
        self._reasons: Counter[str] = Counter()
        self._groups: Counter[tuple[str, str]] = Counter()
        self._ids: dict[tuple[str, str], list[str]] = {}

    def add(self, reason: str, run_setting_id: str | None, message: str | None = None) -> None:
        """Add a failed run.

        :param reason: why it failed.
        :param run_setting_id: its runSettingId, None if it is not listed.
        :param message: the service's message.
        """
        named = self._ids.setdefault(self._count(reason, message, 1), [])
        if run_setting_id and len(named) < MAX_NAMED_RUNS:
            named.append(run_setting_id)

    def add_unnamed(self, reason: str, number: int) -> None:
        """Add failed runs whose runSettingIds are not known.

        :param reason: why they failed.
        :param number: number of runs; nothing happens for 0 or less.
        """
        if number > 0:
            self._count(reason, None, number)

    def _count(self, reason: str, message: str | None, number: int) -> tuple[str, str]:
        group = reason, _one_line(message or "")
        if group not in self._groups and len(self._groups) >= _MAX_KEPT_GROUPS:
            group = reason, ""
        self.count += number
        self._reasons[reason] += number
        self._groups[group] += number
        return group

    def summary(self, total: int | None = None) -> str:
        """Summarise the failed runs by reason and message, the most frequent reason first.

        :param total: number of all failed runs, if it can be larger than the number of those that were added.
        """
        groups, others = self._divide(MAX_NAMED_GROUPS)
        texts = [self._text(group) for group in groups]
        texts += [f"{count:,} more with {reason}" for reason, count in others.most_common(MAX_NAMED_GROUPS)]
        if texts and total is not None and total > self.count:
            texts.append(f"{total - self.count:,} more without details")
        return "; ".join(texts)

    def groups(self, number: int) -> list[FailureGroup]:
        """Return the failed runs by reason and message, the most frequent reason first.

        :param number: maximum number of groups with a message. The other runs are counted by reason only.
        """
        groups, others = self._divide(number)
        found = [FailureGroup(*group, self._groups[group], self._ids.get(group, [])) for group in groups]
        return found + [FailureGroup(reason, "", count, []) for reason, count in others.most_common()]

    def _divide(self, number: int) -> tuple[list[tuple[str, str]], Counter[str]]:
        """Return the groups with the most frequent reasons, and the number of other runs for each reason."""
        groups = sorted(self._groups, key=lambda group: (-self._reasons[group[0]], -self._groups[group]))
        others: Counter[str] = Counter()
        for group in groups[number:]:
            others[group[0]] += self._groups[group]
        return groups[:number], others

    def _text(self, group: tuple[str, str]) -> str:
        count, named = self._groups[group], self._ids.get(group, [])
        runs = ", ".join(named)
        if count > len(named):
            runs = f"{runs} and {count - len(named):,} more" if named else counted(count, "run")
        return f"{': '.join(filter(None, group))} ({runs})"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 run", "2,000 runs".

    :param number: the number.
    :param noun: the noun in the singular.
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size_and_limit(batch_id: str, total: int | None, parameter: str, limit: int | str) -> str:
    """Describe for an error the size of a batch, and the limit that its failures exceed.

    :param batch_id: id of the batch.
    :param total: number of its runs, None if it is not known yet.
    :param parameter: name of the parameter with the limit.
    :param limit: its value.
    """
    size = "is not finished" if total is None else f"has {counted(total, 'run')}"
    return f"Batch {batch_id} {size}; {parameter} is {limit}"


def what_continues(submitted: int | None = None) -> str:
    """Return the end of an error of a task that fails while its batch is active.

    :param submitted: number of submitted runs, if the submission is over. Default: the submission also continues.
    """
    if not submitted:
        return "the batch continues"
    return f"{counted(submitted, 'run')} {'was' if submitted == 1 else 'were'} submitted; the batch continues"


def _one_line(message: str) -> str:
    """Return a message of the service in one short line without passwords or session policies."""
    if "sessionPolicy" in message:
        return "the service refused sessionPolicy (its message repeats the policy and is not shown)"
    text = " ".join(without_passwords(message).split())
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}..."
