"""Shorten the faults of a schedule while it still violates the same invariant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.faults import simulator
from tests.faults.schedule import Fault, Schedule

Violates = Callable[[Schedule], bool]


def minimise(schedule: Schedule, invariant: str) -> Schedule:
    """Return a schedule with as few and as short faults as possible.

    :param schedule: a schedule that violates the invariant.
    :param invariant: name of the invariant.
    """
    return shorten(schedule, lambda shorter: invariant in simulator.run(shorter).invariants)


def shorten(schedule: Schedule, violates: Violates) -> Schedule:
    """Return the shortest schedule that is found.

    :param schedule: a schedule that violates.
    :param violates: whether a schedule violates.
    """
    while (shorter := next(filter(violates, _shorter(schedule)), None)) is not None:
        schedule = shorter
    return schedule


def _shorter(schedule: Schedule) -> Iterator[Schedule]:
    faults = schedule.faults
    for place, fault in enumerate(faults):
        yield replace(schedule, faults=(*faults[:place], *faults[place + 1 :]))
        if fault.times > 1:
            yield _with(schedule, place, replace(fault, times=1))
            yield _with(schedule, place, replace(fault, times=fault.times // 2))


def _with(schedule: Schedule, place: int, fault: Fault) -> Schedule:
    return replace(schedule, faults=(*schedule.faults[:place], fault, *schedule.faults[place + 1 :]))
