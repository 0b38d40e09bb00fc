"""The clock of the local HealthOmics."""

from __future__ import annotations

import sys
import threading
import time
from datetime import UTC, datetime, timedelta


class Clock:
    """Service time. It stands still until it is advanced, or runs at a multiple of real time.

    :param speed: service seconds per real second. Default 0: time stands still until :meth:`advance` is called.
    :param tick: service seconds by which each request advances the clock. Default 0.
    """

    def __init__(self, *, speed: float = 0.0, tick: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._started_at = datetime.now(UTC)
        self._most = (datetime.max.replace(tzinfo=UTC) - self._started_at).total_seconds() - 1
        self._elapsed = 0.0
        self._read_at = time.monotonic()
        self._speed = _not_negative("speed", speed)
        self._tick = _not_negative("tick", tick)

    @property
    def speed(self) -> float:
        """Service seconds per real second; 0 means that time stands still."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        speed = _not_negative("speed", speed)
        with self._lock:
            self._catch_up()
            self._speed = speed

    @property
    def tick(self) -> float:
        """Service seconds by which each request advances the clock."""
        return self._tick

    @tick.setter
    def tick(self, tick: float) -> None:
        self._tick = _not_negative("tick", tick)

    def elapsed(self) -> float:
        """Return the service seconds since the clock was created."""
        with self._lock:
            self._catch_up()
            return self._elapsed

    def now(self) -> datetime:
        """Return the service time in UTC, with its time zone."""
        return self.at(self.elapsed())

    def at(self, elapsed: float) -> datetime:
        """Return the service time at ``elapsed`` seconds, in whole milliseconds."""
        moment = self._started_at + timedelta(seconds=elapsed)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def advance(self, seconds: float) -> None:
        """Move service time forward by ``seconds``."""
        seconds = _not_negative("seconds", seconds)
        with self._lock:
            if self._elapsed + seconds > self._most:
                raise ValueError(f"seconds must not move the clock beyond the year 9999; got {seconds!r}")
            self._elapsed += seconds

    def wait(self, seconds: float) -> None:
        """Wait for ``seconds`` of service time. A clock that stands still is advanced instead."""
        if self._speed:
            time.sleep(seconds / self._speed)
        else:
            self.advance(seconds)

    def _catch_up(self) -> None:
        read_at = time.monotonic()
        self._elapsed = min(self._elapsed + (read_at - self._read_at) * self._speed, self._most)
        self._read_at = read_at


def _not_negative(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise ValueError(f"{name} must be a number of at least 0; got {value!r}")
    return float(value)
