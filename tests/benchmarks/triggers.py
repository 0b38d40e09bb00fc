"""Many batches awaited on one event loop: rate of calls, delay of answers, memory, lag."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tests.benchmarks.child import Child
from tests.benchmarks.measure import Result, machine_memory, most_in_a_window, say
from tests.benchmarks.service import service

#: MB that a plain trigger is assumed to need: as many are started as half of the available memory allows.
PLAIN_TRIGGER_MEMORY = 2


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Batches that end one after the other, evenly spread over some time.

    :param number: number of batches.
    :param calls_per_second: what the author of the Airflow environment allows.
    :param rate_limit: what the service allows.
    :param poke_interval: seconds between two rounds of a trigger.
    :param ends: seconds until the first and until the last batch changes.
    :param seconds: when to stop at the latest.
    """

    number: int
    calls_per_second: float
    rate_limit: float
    poke_interval: float
    ends: tuple[float, float]
    seconds: float

    @property
    def rate(self) -> float:
        """Calls a second that are both allowed and answered."""
        return min(self.calls_per_second, self.rate_limit)

    def end_times(self) -> list[float]:
        """Seconds from the start until each batch changes."""
        first, last = self.ends
        return [first + (last - first) * index / max(1, self.number - 1) for index in range(self.number)]


@dataclass(frozen=True, kw_only=True)
class Waited:
    """What was measured of one kind of trigger in one scenario.

    :param number: number of triggers.
    :param answered: how many of them fired an event that says that the wait is over.
    :param errors: what the others failed with that have ended.
    :param rounds: delay of the latest answer, in rounds.
    :param calls: GetBatch calls that arrived at the service.
    :param throttled: how many of those it refused.
    :param most_calls: most of them in any second.
    :param memory: MB above the idle process.
    :param full_collections: seconds that each full garbage collection took.
    :param lag_p99: lag of the event loop in ms, 99th percentile.
    :param lag_max: the same, maximum.
    :param seconds: until the last answer, or the end of the measurement.
    """

    number: int
    answered: int
    errors: list[str]
    rounds: float
    calls: int
    throttled: int
    most_calls: int
    memory: float
    full_collections: list[float]
    lag_p99: float
    lag_max: float
    seconds: float


def measure(kind: str, scenario: Scenario) -> Waited:
    """Wait for all batches of a scenario with one kind of trigger.

    :param kind: ``ours`` or ``plain``.
    :param scenario: the batches.
    """
    with service() as local:
        settings = local.control.settings
        settings.creating_seconds = settings.pending_seconds = 0
        settings.run_running_seconds = 86_400
        changes = {}
        for end in scenario.end_times():
            settings.submission_rate = 1 / end
            changes[local.start_batch([{"runSettingId": "sample"}])] = end
        settings.rate_limits = {"GetBatch": scenario.rate_limit}
        environment = {
            **local.environment,
            "AIRFLOW__OMICS_CACHE__MAX_GET_BATCH_PER_SECOND": str(scenario.calls_per_second),
        }
        with Child(
            "event_loop:wait_for_batches",
            environment,
            kind=kind,
            batch_ids=list(changes),
            poke_interval=scenario.poke_interval,
            seconds=scenario.seconds,
        ) as process:
            process.wait_until_ready()
            started_at = time.time()
            local.control.clock.speed = 1
            process.begin()
            measured = process.result()
        log = [(at, status) for at, operation, status in local.control.call_log if operation == "GetBatch"]
    answers = {batch_id: at - started_at for batch_id, (at, error) in measured["answers"].items() if not error}
    errors = [error for _, error in measured["answers"].values() if error]
    return Waited(
        number=scenario.number,
        answered=len(answers),
        errors=errors,
        rounds=most_rounds(changes, answers, scenario, measured["seconds"]),
        calls=len(log),
        throttled=sum(status == 429 for _, status in log),
        most_calls=most_in_a_window(at for at, _ in log),
        memory=measured["memory"],
        full_collections=measured["full_collections"],
        lag_p99=1000 * measured["lag_p99"],
        lag_max=1000 * measured["lag_max"],
        seconds=measured["seconds"],
    )


def measure_beside(scenario: Scenario) -> Iterator[Result]:
    """Wait for the same number of single runs and batches at the same time. Judge each kind by its own budget.

    :param scenario: the batches; the runs end at the same times.
    """
    say(f"  {scenario.number:,} batches and {scenario.number:,} single runs ...")
    with service() as local:
        settings = local.control.settings
        settings.creating_seconds = settings.pending_seconds = 0
        settings.run_pending_seconds = settings.run_starting_seconds = settings.run_stopping_seconds = 0
        batches, runs = {}, {}
        for number, end in enumerate(scenario.end_times()):
            settings.submission_rate = 1 / end
            settings.run_running_seconds = 86_400
            batches[local.start_batch([{"runSettingId": "sample"}])] = end
            settings.run_running_seconds = end
            runs[local.start_run(f"run-{number}")] = end
        settings.rate_limits = {"GetBatch": scenario.rate_limit, "GetRun": scenario.rate_limit}
        environment = {
            **local.environment,
            "AIRFLOW__OMICS_CACHE__MAX_GET_BATCH_PER_SECOND": str(scenario.calls_per_second),
            "AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND": str(scenario.calls_per_second),
        }
        with Child(
            "event_loop:wait_for_batches",
            environment,
            kind="ours",
            batch_ids=list(batches),
            run_ids=list(runs),
            poke_interval=scenario.poke_interval,
            seconds=scenario.seconds,
        ) as process:
            process.wait_until_ready()
            started_at = time.time()
            local.control.clock.speed = 1
            process.begin()
            measured = process.result()
        log = local.control.call_log
    what = f"{scenario.number:,} single runs and {scenario.number:,} batches"
    answers = {subject: at - started_at for subject, (at, error) in measured["answers"].items() if not error}
    for operation, changes in (("GetBatch", batches), ("GetRun", runs)):
        calls = [(at, status) for at, name, status in log if name == operation]
        throttled = sum(status == 429 for _, status in calls)
        answered = {subject: at for subject, at in answers.items() if subject in changes}
        yield Result(
            name=f"{what}: {operation} calls in any second",
            measured=most_in_a_window(at for at, _ in calls),
            unit="calls",
            bar=scenario.rate_limit,
            note=f"The budget of {operation} is {scenario.calls_per_second:g} calls a second; the service throttles "
            f"above {scenario.rate_limit:g}. It refused {throttled:,} of {len(calls):,} calls.",
        )
        yield Result(
            name=f"{what}: latest answer by {operation}",
            measured=most_rounds(changes, answered, scenario, measured["seconds"]),
            unit="rounds",
            bar=2,
            note=f"Rounds are counted as for batches alone. {len(answered):,} of {len(changes):,} had answered after "
            f"{measured['seconds']:.0f} s.",
        )
    yield Result(
        name=f"{what}: triggers that did not succeed",
        measured=len(batches) + len(runs) - len(answers),
        unit="triggers",
        bar=0,
        rule="exactly",
        note="".join(f"One error: {error[:200]}" for _, error in measured["answers"].values() if error)[:300],
    )
    yield Result(
        name=f"{what}: memory above idle",
        measured=measured["memory"],
        unit="MB",
        bar=60,
        note="Peak resident memory. The limit is that of the same number of batches alone.",
    )
    for name, key, bar in (("99th percentile", "lag_p99", 50), ("maximum", "lag_max", 500)):
        yield Result(
            name=f"{what}: event loop lag, {name}",
            measured=1000 * measured[key],
            unit="ms",
            bar=bar,
            note="How late a timer is that fires every 10 ms. It starts before the first trigger is made.",
        )


def most_rounds(
    changes: Mapping[str, float], answers: Mapping[str, float], scenario: Scenario, seconds: float
) -> float:
    """Give the longest delay between the change of a batch and its answer, in rounds.

    A round is as long as it takes to ask once about every batch that was still awaited when this one changed, and at
    least the poke interval. A batch without an answer is as late as the end of the measurement.

    :param changes: when each batch changed, in seconds from the start.
    :param answers: when each trigger that succeeded fired, likewise.
    :param scenario: what tells how long a round is.
    :param seconds: when the measurement ended.
    """
    most = 0.0
    for batch_id, changed_at in changes.items():
        answered_at = answers.get(batch_id, seconds)
        awaited = sum(answers.get(other, seconds) >= changed_at for other in changes)
        one_round = max(scenario.poke_interval, awaited / scenario.rate)
        most = max(most, (answered_at - changed_at) / one_round)
    return most


def measure_both(scenario: Scenario) -> Iterator[Result]:
    """Wait with our triggers, and with plain ones for as long.

    :param scenario: the batches, with a budget that the service can answer.
    """
    say(f"  {scenario.number:,} batches ...")
    ours = measure("ours", scenario)
    allowed = max(1, min(scenario.number, int(machine_memory("MemAvailable") / 2 / PLAIN_TRIGGER_MEMORY)))
    say(f"  {allowed:,} plain triggers ...")
    plain = measure("plain", replace(scenario, number=allowed, seconds=ours.seconds))
    yield from _compared(scenario, ours, plain)


def measure_throttled(scenario: Scenario) -> Iterator[Result]:
    """Wait with our triggers where the service throttles them.

    :param scenario: the batches, with a budget above what the service allows.
    """
    say(f"  {scenario.number:,} batches, throttled ...")
    ours = measure("ours", scenario)
    what = f"{scenario.number:,} batches, throttled"
    throttled = f"The service throttled {ours.throttled:,} of {ours.calls:,} calls; if none, the bar would not hold."
    yield Result(
        name=f"{what}: triggers that did not succeed",
        measured=ours.number - ours.answered,
        unit="triggers",
        bar=0,
        rule="exactly",
        has_happened=ours.throttled > 0,
        note=throttled + _first_error(ours),
    )
    yield Result(
        name=f"{what}: latest answer after the batch's change",
        measured=ours.rounds,
        unit="rounds",
        bar=2,
        has_happened=ours.throttled > 0,
        note=f"{throttled} In less time than above: max_get_batch_per_second = {scenario.calls_per_second:g}, the "
        f"service takes {scenario.rate_limit:g}, by which a round is as long as it is; the poke interval is "
        f"{scenario.poke_interval:g} s. {ours.answered:,} of {ours.number:,} had answered after {ours.seconds:.0f} s.",
    )


def _compared(scenario: Scenario, main: Waited, plain: Waited) -> Iterator[Result]:
    what = f"{scenario.number:,} batches on one event loop"
    who = f"{plain.number:,} AwsBaseWaiterTriggers" if plain.number != scenario.number else "AwsBaseWaiterTrigger"
    at_least = "at least " if plain.answered < plain.number else ""
    yield Result(
        name=f"{what}: GetBatch calls in any second",
        measured=main.most_calls,
        unit="calls",
        bar=scenario.rate_limit,
        beside=plain.most_calls,
        peer=f"{who}: {plain.most_calls}; {plain.throttled:,} of {plain.calls:,} calls throttled",
        note=f"[omics_cache] max_get_batch_per_second = {scenario.calls_per_second:g}; by the service's log, which "
        f"throttles above {scenario.rate_limit:g} a second; it refused {main.throttled:,} of our {main.calls:,} calls.",
    )
    yield Result(
        name=f"{what}: latest answer after the batch's change",
        measured=main.rounds,
        unit="rounds",
        bar=2,
        beside=plain.rounds,
        peer=f"{at_least}{plain.rounds:.2f}; {plain.answered:,} answered in the same time",
        note="A round asks once about every batch that is still awaited, and takes at least the poke interval of "
        f"{scenario.poke_interval:g} s. {main.answered:,} of {main.number:,} had answered after {main.seconds:.0f} s.",
    )
    yield Result(
        name=f"{what}: triggers that did not succeed",
        measured=main.number - main.answered,
        unit="triggers",
        bar=0,
        rule="exactly",
        beside=plain.number - plain.answered,
        peer=f"{plain.number - plain.answered:,}, {len(plain.errors):,} of them with an error",
        note=f"The plain triggers had as much time as ours took.{_first_error(main)}{_first_error(plain)}",
    )
    yield Result(
        name=f"{what}: memory above idle",
        measured=main.memory,
        unit="MB",
        bar=60,
        beside=plain.memory,
        peer=f"{plain.memory:,.0f} MB",
        note="Peak resident memory; idle is Airflow's triggerer with the trigger's module imported.",
    )
    yield Result(
        name=f"{what}: event loop lag, 99th percentile",
        measured=main.lag_p99,
        unit="ms",
        bar=50,
        beside=plain.lag_p99,
        peer=f"{plain.lag_p99:,.0f} ms",
        note=f"How late a timer is that fires every 10 ms. It starts before the first trigger is made. "
        f"{_collections(main)}",
    )
    yield Result(
        name=f"{what}: event loop lag, maximum",
        measured=main.lag_max,
        unit="ms",
        bar=500,
        beside=plain.lag_max,
        peer=f"{plain.lag_max:,.0f} ms",
        note=f"Start-up included. {_collections(main)}",
    )


def _first_error(waited: Waited) -> str:
    return "".join(f" One error: {error[:200]}" for error in waited.errors[:1])


def _collections(waited: Waited) -> str:
    found = waited.full_collections
    longest = f", the longest {1000 * max(found):,.0f} ms" if found else ""
    return f"Full garbage collections meanwhile: {len(found)}{longest}; one was made before, while idle."
