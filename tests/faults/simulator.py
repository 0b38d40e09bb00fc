"""Runs schedules and counts what they show."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import tests.conftest  # noqa: F401 - it says where Airflow's home is, before anything imports Airflow
from tests.faults.environment import new_world, prepared
from tests.faults.oracle import Violation
from tests.faults.scenarios import SCENARIOS, prepare
from tests.faults.schedule import KINDS, Fault, Schedule

#: What no request token protects from: the service forgets the token while its lists do not show the first batch yet.
KNOWN = "tokens that are forgotten while lists lag"
_OF_TOKENS = frozenset({"paid-twice", "second-cache", "restarted-cancelled", "wrong-batch"})
_LATE = frozenset({"list_lag", "batch_visible_after", "run_cache_visible_after"})


@dataclass(frozen=True)
class Result:
    """What a schedule has shown.

    :param violations: what was violated.
    :param applied: how often each kind of fault has happened.
    :param calls: number of calls.
    :param is_known: whether the violations belong to :data:`KNOWN`.
    """

    schedule: Schedule
    violations: tuple[Violation, ...]
    applied: Mapping[str, int]
    calls: int

    @property
    def invariants(self) -> frozenset[str]:
        """Names of the invariants that were violated."""
        return frozenset(violation.invariant for violation in self.violations)

    @property
    def is_known(self) -> bool:
        """Whether everything that was violated belongs to :data:`KNOWN`."""
        forgotten = [fault.amount for fault in self.schedule.faults if fault.kind == "forget_tokens"]
        late = [fault.amount for fault in self.schedule.faults if fault.kind in _LATE]
        may_be = bool(forgotten and late) and max(late) >= min(forgotten)
        return may_be and bool(self.violations) and self.invariants <= _OF_TOKENS


def draw(seed: int, profile: str, scenario: str) -> Schedule:
    """Draw the schedule of a seed."""
    return SCENARIOS[scenario].draw(seed, profile)


def scenario_of(seed: int) -> str:
    """Return the scenario whose turn it is."""
    names = list(SCENARIOS)
    return names[seed % len(names)]


def run(schedule: Schedule, trace: Callable[[str], object] | None = None) -> Result:
    """Run a schedule.

    :param schedule: the schedule.
    :param trace: function that is called with a line for each call, try and log record.
    """
    with new_world(schedule, trace) as world:
        prepare(world)
        SCENARIOS[schedule.scenario].run(world)
        world.oracle.settle()
        return Result(schedule, tuple(world.oracle.violations), dict(world.wire.applied), world.wire.calls.total())


def with_faults(schedule: Schedule, text: str) -> Schedule:
    """Return a schedule with other faults, which are given as JSON."""
    return replace(schedule, faults=faults_of(text))


def faults_of(text: str) -> tuple[Fault, ...]:
    """Read faults from JSON.

    :raises ValueError: the text is not JSON, or names an unknown kind.
    :raises TypeError: the JSON is not a list of faults.
    """
    faults = tuple(Fault(**fault) for fault in json.loads(text))
    unknown = [fault.kind for fault in faults if fault.kind not in KINDS]
    if unknown:
        raise ValueError(f"unknown kind {unknown[0]}")
    return faults


def as_json(faults: Iterable[Fault]) -> str:
    """Return faults as JSON."""
    return json.dumps([fault.to_json() for fault in faults])


@dataclass
class Tally:
    """The sum of the results of a profile."""

    profile: str
    schedules: int = 0
    calls: int = 0
    seconds: float = 0.0
    known: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    scenarios: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """Add a result."""
        self.schedules += 1
        self.calls += result.calls
        self.scenarios[result.schedule.scenario] += 1
        self.faults.update(result.applied)
        if result.is_known:
            self.known += 1
        else:
            self.violations.update(result.invariants)

    def merge(self, other: Tally) -> None:
        """Add the sum of another process."""
        self.schedules += other.schedules
        self.calls += other.calls
        self.known += other.known
        for mine, theirs in (
            (self.violations, other.violations),
            (self.scenarios, other.scenarios),
            (self.faults, other.faults),
        ):
            mine.update(theirs)

    def to_json(self) -> dict[str, Any]:
        """Return the sum as plain data."""
        return {
            "profile": self.profile,
            "schedules": self.schedules,
            "calls": self.calls,
            "seconds": round(self.seconds, 1),
            "violations": dict(sorted(self.violations.items())),
            "known": {KNOWN: self.known},
            "scenarios": dict(sorted(self.scenarios.items())),
            "faults": dict(sorted(self.faults.items())),
        }


@dataclass
class Part:
    """What a process has found: the numbers, and the results that violate something."""

    tally: Tally
    violating: list[Result] = field(default_factory=list)


def run_part(profile: str, scenario: str | None, first: int, count: int) -> Part:
    """Run schedules with consecutive seeds.

    :param profile: the profile.
    :param scenario: the scenario; None takes all in turn.
    :param first: the first seed.
    :param count: number of seeds.
    """
    part = Part(Tally(profile))
    with prepared():
        for seed in range(first, first + count):
            result = run(draw(seed, profile, scenario or scenario_of(seed)))
            part.tally.add(result)
            if result.violations:
                part.violating.append(result)
    return part
