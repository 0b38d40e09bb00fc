"""How this package reads the time and waits. Tests replace the clock here, for all modules at once."""

from __future__ import annotations

import asyncio
import time as real_time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol


class TimeSource(Protocol):
    """The methods of a clock that can replace the clock of this machine."""

    def time(self) -> float:
        """Return the time in epoch seconds."""

    def monotonic(self) -> float:
        """Return the seconds of a clock that never goes back."""

    def at(self, date: datetime) -> float:
        """Return the time, in epoch seconds, of a date that Airflow has recorded."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    async def async_sleep(self, seconds: float) -> None:
        """Wait, and let other coroutines run."""


class RealTime:
    """The time of this machine."""

    def time(self) -> float:
        """Return the time in epoch seconds."""
        return real_time.time()

    def monotonic(self) -> float:
        """Return the seconds of a clock that never goes back."""
        return real_time.monotonic()

    def at(self, date: datetime) -> float:
        """Return the time, in epoch seconds, of a date that Airflow has recorded."""
        return date.timestamp()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        real_time.sleep(seconds)

    async def async_sleep(self, seconds: float) -> None:
        """Wait, and let other coroutines run."""
        await asyncio.sleep(seconds)


_source: TimeSource = RealTime()


@contextmanager
def use(source: TimeSource) -> Iterator[None]:
    """Replace the clock of the whole package while the context lasts.

    :param source: the clock.
    """
    global _source
    before, _source = _source, source
    try:
        yield
    finally:
        _source = before


def time() -> float:
    """Return the time in epoch seconds."""
    return _source.time()


def monotonic() -> float:
    """Return the seconds of a clock that never goes back."""
    return _source.monotonic()


def at(date: datetime) -> float:
    """Return the time, in epoch seconds, of a date that Airflow has recorded.

    :param date: the date, such as the start of a task.
    """
    return _source.at(date)


def sleep(seconds: float) -> None:
    """Wait.

    :param seconds: duration in seconds.
    """
    _source.sleep(seconds)


async def async_sleep(seconds: float) -> None:
    """Wait, and let other coroutines run.

    :param seconds: duration in seconds.
    """
    await _source.async_sleep(seconds)
