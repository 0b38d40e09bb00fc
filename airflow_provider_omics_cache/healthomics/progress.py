"""Describe how far a batch is, how fast it advances, and how long the rest takes: pure functions."""

from __future__ import annotations

from typing import NamedTuple

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


class Progress(NamedTuple):
    """How far a batch is.

    :param text: status and counts, for logs and errors.
    :param counted: what the counts are about, for example "submitted". Counts of different things are not compared.
    :param done: number of runs that are done, None if it is not known.
    :param total: number of runs of the batch, None if it is not known.
    """

    text: str
    counted: str = ""
    done: int | None = None
    total: int | None = None


class Mark(NamedTuple):
    """How many runs were done at a time.

    :param at: the time, in epoch seconds.
    :param done: number of runs.
    """

    at: float
    done: int


def with_pace(progress: Progress, since: Mark | None, now: float) -> str:
    """Return the text of a progress with the rate and the remaining time, if they are known.

    :param progress: the progress.
    :param since: an earlier count, from which the rate is calculated. None: there is no earlier count.
    :param now: the time, in epoch seconds.
    """
    if since is None or progress.done is None or progress.done <= since.done or now <= since.at:
        return progress.text
    rate = (progress.done - since.done) / (now - since.at)
    text = f"{progress.text}, {_rate(rate)}"
    left = (progress.total or 0) - progress.done
    return f"{text}, about {_duration(left / rate)} left" if left > 0 else text


def _rate(per_second: float) -> str:
    for seconds, unit in ((1, "s"), (_MINUTE, "min")):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:,.1f}/{unit}"
    return f"{per_second * _HOUR:,.1f}/h"


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{max(1, round(seconds))} s"
    for unit, name, most in ((_MINUTE, "min", 90 * _MINUTE), (_HOUR, "h", 2 * _DAY)):
        if seconds < most:
            return f"{round(seconds / unit):,} {name}"
    return f"{round(seconds / _DAY):,} days"
