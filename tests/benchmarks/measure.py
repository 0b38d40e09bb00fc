"""What the benchmarks compute with: results and their bars, medians, percentiles, sliding windows, memory."""

from __future__ import annotations

import gc
import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

#: How often two things are measured in turns.
TIMES = 5


@dataclass(frozen=True, kw_only=True)
class Result:
    """One number, and the bar that it has to keep.

    :param name: what was measured.
    :param measured: the number.
    :param unit: its unit.
    :param bar: the bar.
    :param rule: how the number has to relate to the bar.
    :param peer: what stands beside it.
    :param beside: the same number of what stands beside it, if it has one.
    :param note: what one has to know to read the number.
    :param has_happened: whether that came about which the number is about; without it the bar does not hold.
    :param is_judged: whether the sizes are those that the bar is meant for.
    """

    name: str
    measured: float
    unit: str
    bar: float
    rule: Literal["at most", "at least", "exactly"] = "at most"
    peer: str = ""
    beside: float | None = None
    note: str = ""
    has_happened: bool = True
    is_judged: bool = True

    @property
    def holds(self) -> bool | None:
        """Whether the number keeps the bar, None if that is not judged."""
        if not self.is_judged:
            return None
        if not self.has_happened:
            return False
        if self.rule == "exactly":
            return self.measured == self.bar
        return self.measured <= self.bar if self.rule == "at most" else self.measured >= self.bar

    def share(self, value: float) -> float:
        """Give what share of the bar a number uses up: above 1 it does not hold."""
        above, below = (self.bar, value) if self.rule == "at least" else (value, self.bar)
        if not below:
            return math.inf if above else 0.0
        return above / below

    def as_dict(self) -> dict[str, Any]:
        """Give the result as ``build/bench.json`` holds it."""
        return {**asdict(self), "holds": self.holds}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Result:
        """Make a result of what ``build/bench.json`` holds."""
        return cls(**{name: value for name, value in stored.items() if name != "holds"})


def seconds_of(function: Callable[[], Any]) -> float:
    """Time one call."""
    gc.collect()
    started_at = time.perf_counter()
    function()
    return time.perf_counter() - started_at


def medians_in_turns(functions: Sequence[Callable[[], Any]], times: int = TIMES) -> list[float]:
    """Time functions in turns, so that whatever slows the machine down slows all of them down.

    :param functions: what to time.
    :param times: how often.
    :return: the median of each, in seconds.
    """
    rounds = [[seconds_of(function) for function in functions] for _ in range(times)]
    return [statistics.median(times_of_one) for times_of_one in zip(*rounds, strict=True)]


def percentile(values: Iterable[float], percent: float) -> float:
    """Give the smallest value that at least so many percent of the values do not exceed."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("there are no values")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def most_in_a_window(times: Iterable[float], seconds: float = 1.0) -> int:
    """Give the largest number of times that lie within any window of so many seconds, its end left out."""
    window: deque[float] = deque()
    most = 0
    for at in sorted(times):
        window.append(at)
        while at - window[0] >= seconds:
            window.popleft()
        most = max(most, len(window))
    return most


def say(text: str) -> None:
    """Tell how far the benchmarks are."""
    print(text, file=sys.stderr, flush=True)


def check_system() -> None:
    """Refuse to measure where memory cannot be measured."""
    if not (_STATUS.exists() and _CLEAR.exists()):
        sys.exit("The benchmarks measure memory through Linux's /proc, which is not here: run them on Linux.")


def memory_now() -> float:
    """Give the resident memory of this process in MB (10⁶ bytes)."""
    return _read(_STATUS, "VmRSS")


def forget_peak_memory() -> None:
    """Let :func:`peak_memory` begin anew."""
    _CLEAR.write_text("5")


def peak_memory() -> float:
    """Give the highest resident memory of this process so far in MB (10⁶ bytes)."""
    return _read(_STATUS, "VmHWM")


def machine_memory(name: Literal["MemTotal", "MemAvailable"]) -> float:
    """Give the memory of this machine in MB (10⁶ bytes).

    :param name: all of it, or what could be used now.
    """
    return _read(Path("/proc/meminfo"), name)


_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _read(path: Path, name: str) -> float:
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(name)
