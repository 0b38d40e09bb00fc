"""The clock that the local HealthOmics lives by."""

from __future__ import annotations

import sys
import threading
import time
from datetime import UTC, datetime, timedelta


class Clock:
    """Service time: it stands still, is advanced by hand, or runs at a multiple of real time.

    :param speed: service seconds per real second. Default 0: time stands still until :meth:`advance`.
    :param tick: service seconds that every served request adds. Default 0.
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
        """Service seconds per real second; 0 stands still."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        speed = _not_negative("speed", speed)
        with self._lock:
            self._catch_up()
            self._speed = speed

    @property
    def tick(self) -> float:
        """Service seconds that every served request adds."""
        return self._tick

    @tick.setter
    def tick(self, tick: float) -> None:
        self._tick = _not_negative("tick", tick)

    def elapsed(self) -> float:
        """Service seconds since the clock was made."""
        with self._lock:
            self._catch_up()
            return self._elapsed

    def now(self) -> datetime:
        """Service time, aware, in UTC."""
        return self.at(self.elapsed())

    def at(self, elapsed: float) -> datetime:
        """Service time when ``elapsed`` seconds had passed, to the millisecond."""
        moment = self._started_at + timedelta(seconds=elapsed)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def advance(self, seconds: float) -> None:
        """Move service time forward by ``seconds``."""
        seconds = _not_negative("seconds", seconds)
        with self._lock:
            if self._elapsed + seconds > self._most:
                raise ValueError(f"seconds must be a number that does not lead beyond the year 9999; got {seconds!r}")
            self._elapsed += seconds

    def wait(self, seconds: float) -> None:
        """Let ``seconds`` of service time pass: really, or at once when the clock stands still."""
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
