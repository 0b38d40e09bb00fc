"""What one trigger costs as there are more of them: memory, and CPU time at the same rate of calls."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.child import Child
from tests.benchmarks.measure import Result
from tests.benchmarks.service import service

#: Calls a second that the author of the Airflow environment allows; enough triggers make as many.
CALLS_PER_SECOND = 80
#: Seconds between which a few triggers of both kinds are in their rounds.
STEADY = (11.5, 19.5)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a number of triggers costs.

    :param number: how many triggers.
    :param memory: MB above the idle process.
    :param further_memory: KB for each of them that the next smaller number does not have.
    :param cpu_per_call: milliseconds of CPU time above the idle process for each call, once all are in their rounds.
    :param call_rate: calls in a second, then.
    :param lag_max: longest lag of the event loop in ms, start-up included.
    """

    number: int
    memory: float
    further_memory: float
    cpu_per_call: float
    call_rate: float
    lag_max: float


def measure(kind: str, sizes: Sequence[int], *, again: Sequence[int] = (), window: tuple[float, float]) -> list[Cost]:
    """Measure numbers of triggers in turns, in one process.

    :param kind: ``ours`` or ``plain``.
    :param sizes: numbers of triggers, in ascending order.
    :param again: those of them that are measured again, after the first turn; the median of their CPU time counts.
    :param window: between which seconds CPU time is measured; later, as long as it takes to ask about every batch once.
    """
    phases = [_phase(number, window) for number in (*sizes, *again)]
    with service() as local:
        settings = local.control.settings
        settings.creating_seconds = settings.pending_seconds = settings.submission_rate = 0
        batch_ids = [local.start_batch([{"runSettingId": "sample"}]) for _ in range(sizes[-1])]
        environment = {
            **local.environment,
            "AIRFLOW__OMICS_CACHE__MAX_GET_BATCH_PER_SECOND": str(CALLS_PER_SECOND),
        }
        with Child("event_loop:run_phases", environment, kind=kind, batch_ids=batch_ids, phases=phases) as process:
            process.wait_until_ready()
            started_at = time.time()
            local.control.clock.speed = 1
            process.begin()
            measured = process.result()
        arrivals = [started_at + at for at, operation, _ in local.control.call_log if operation == "GetBatch"]
    return list(_costs(phases, measured, arrivals))


def _phase(number: int, window: tuple[float, float]) -> dict[str, Any]:
    """Let the triggers ask more often than is allowed, if they are enough for that.

    The first answer is no part of it: each trigger logs that one, and 3,000 of them get theirs later than 100.
    """
    start, end = window
    first_round = 1.1 * number / CALLS_PER_SECOND
    return {
        "number": number,
        "poke_interval": min(10, max(1, number // 100)),
        "window": (start + first_round, end + first_round),
    }


def _costs(
    phases: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, Any]], arrivals: Sequence[float]
) -> Iterator[Cost]:
    turns: dict[int, list[tuple[Mapping[str, Any], int]]] = {}
    for phase, one in zip(phases, measured, strict=True):
        start, end = one["window"]
        calls = sum(start <= at < end for at in arrivals)
        turns.setdefault(phase["number"], []).append((one, calls))
    memories = {number: turn[0][0]["memory"] for number, turn in turns.items()}
    for smaller, number in itertools.pairwise([0, *turns]):
        yield Cost(
            number=number,
            memory=memories[number],
            further_memory=1000 * (memories[number] - memories.get(smaller, 0)) / (number - smaller),
            cpu_per_call=statistics.median(1000 * one["cpu"] / max(1, calls) for one, calls in turns[number]),
            call_rate=statistics.median(calls / (one["window"][1] - one["window"][0]) for one, calls in turns[number]),
            lag_max=1000 * max(one["lag_max"] for one, _ in turns[number]),
        )


def results(ours: Sequence[Cost], plain: Sequence[Cost]) -> Iterator[Result]:
    """Compare the largest number of triggers with smaller ones.

    :param ours: at least three numbers of ours.
    :param plain: numbers of plain triggers.
    """
    few, many, most = ours[-3:]
    usual = plain[-1]
    yield Result(
        name=f"Memory of each trigger above {many.number:,}, compared with {few.number:,} to {many.number:,}",
        measured=most.further_memory / max(0.1, many.further_memory),
        unit="x",
        bar=1.2,
        peer=f"AwsBaseWaiterTrigger: {usual.further_memory:,.0f} KB each from {plain[-2].number:,} to {usual.number:,}",
        note=f"{most.further_memory:.1f} KB each from {many.number:,} to {most.number:,}, {many.further_memory:.1f} KB "
        f"each from {few.number:,} to {many.number:,}. The client, which all of them share, is in neither number.",
    )
    yield Result(
        name=f"CPU time of one call, {most.number:,} triggers compared with {few.number:,}",
        measured=most.cpu_per_call / max(0.01, few.cpu_per_call),
        unit="x",
        bar=1.2,
        peer=f"AwsBaseWaiterTrigger: {usual.cpu_per_call:.1f} ms with {usual.number:,}",
        note=f"{few.cpu_per_call:.2f} ms with {few.number:,} at {few.call_rate:.0f} calls a second, "
        f"{most.cpu_per_call:.2f} ms with {most.number:,} at {most.call_rate:.0f}; medians of turns.",
    )
