"""The fault simulator: ``python -m tests.faults --schedules 1000 --seed 1``.

Schedule number ``n`` of ``--seed S`` has the seed ``S * 1,000,000 + n``. ``--replay`` takes that number.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

import tests.conftest  # noqa: F401 - it says where Airflow's home is, before anything imports Airflow
from tests.faults import simulator
from tests.faults.environment import prepared
from tests.faults.minimise import minimise
from tests.faults.oracle import INVARIANTS
from tests.faults.scenarios import SCENARIOS
from tests.faults.schedule import PROFILES
from tests.faults.simulator import Part, Tally, run_part

RESULTS = Path("build/faults.json")
SEEDS = 1_000_000
_CHUNK = 100
#: Violations of each kind that are minimised.
_MINIMISED = 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"tests.faults: {message}\n")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= SEEDS:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {SEEDS:,}; got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0; got {text!r}")
    return int(text)


def _faults(text: str) -> str:
    try:
        simulator.faults_of(text)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"must be the JSON list of faults that a violation prints: {error}") from None
    return text


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--schedules", type=_count, default=1000, help="schedules of each profile (1000)")
    parser.add_argument("--seed", type=_seed, default=1, help="the first seed, in millions (1)")
    parser.add_argument("--profile", choices=PROFILES, help="only this profile")
    parser.add_argument("--scenario", choices=list(SCENARIOS), help="only this scenario")
    parser.add_argument("--replay", type=_seed, metavar="SEED", help="run this schedule alone")
    parser.add_argument("--faults", type=_faults, metavar="JSON", help="faults to use in place of the drawn ones")
    parser.add_argument("--jobs", type=_count, default=os.cpu_count() or 1, help="processes (one for each core)")
    given = parser.parse_args(arguments)
    if given.replay is not None and not (given.profile and given.scenario):
        parser.error("--replay needs --profile and --scenario")
    if given.faults is not None and given.replay is None:
        parser.error("--faults needs --replay")
    return given


def _run_profile(profile: str, given: argparse.Namespace, pool: ProcessPoolExecutor) -> Part:
    began = time.monotonic()
    first = given.seed * SEEDS
    parts = [
        pool.submit(run_part, profile, given.scenario, first + start, min(_CHUNK, given.schedules - start))
        for start in range(0, given.schedules, _CHUNK)
    ]
    whole = Part(Tally(profile))
    for part in parts:
        whole.tally.merge(part.result().tally)
        whole.violating += part.result().violating
    whole.tally.seconds = time.monotonic() - began
    return whole


def _report(whole: Part) -> list[dict[str, Any]]:
    """Print a profile, and minimise some of its violations."""
    tally = whole.tally
    print(
        f"{tally.profile}: {tally.schedules:,} schedules, {tally.calls:,} calls in {tally.seconds:.0f} s; "
        f"{sum(tally.violations.values()):,} violations, {tally.known:,} known ({simulator.KNOWN})"
    )
    shown: dict[tuple[str, str], int] = {}
    found = []
    for result in whole.violating:
        for violation in result.violations:
            schedule, kind = result.schedule, (violation.invariant, result.schedule.scenario)
            shown[kind] = shown.get(kind, 0) + 1
            entry = {
                "scenario": schedule.scenario,
                "profile": schedule.profile,
                "seed": schedule.seed,
                "invariant": violation.invariant,
                "text": violation.text,
                "known": result.is_known,
            }
            if not result.is_known and shown[kind] <= _MINIMISED:
                shorter = minimise(schedule, violation.invariant)
                entry["faults"] = [fault.to_json() for fault in shorter.faults]
                _print_violation(entry)
            found.append(entry)
    return found


def _print_violation(entry: dict[str, Any]) -> None:
    print(f"  {entry['invariant']} ({INVARIANTS[entry['invariant']]}):")
    print(f"    {entry['text']}")
    print(
        f"    python -m tests.faults --replay {entry['seed']} --profile {entry['profile']} "
        f"--scenario {entry['scenario']} --faults '{json.dumps(entry['faults'])}'"
    )


def _replay(given: argparse.Namespace) -> int:
    schedule = simulator.draw(given.replay, given.profile, given.scenario)
    if given.faults is not None:
        schedule = simulator.with_faults(schedule, given.faults)
    print(f"choices: {json.dumps(dict(schedule.choices))}")
    print(f"faults: {simulator.as_json(schedule.faults)}")
    with prepared():
        result = simulator.run(schedule, trace=print)
    for violation in result.violations:
        print(f"{violation.invariant}: {violation.text}")
    if result.is_known:
        print(f"known: {simulator.KNOWN}")
    elif not result.violations:
        print("no violation")
    return 1 if result.violations and not result.is_known else 0


def main(arguments: list[str]) -> int:
    """Run schedules, or replay one."""
    given = _parse(arguments)
    if given.replay is not None:
        return _replay(given)
    profiles = (given.profile,) if given.profile else PROFILES
    tallies, found = [], []
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool, prepared():
        for profile in profiles:
            whole = _run_profile(profile, given, pool)
            tallies.append(whole.tally)
            found += _report(whole)
    RESULTS.parent.mkdir(exist_ok=True)
    results = {"seed": given.seed, "profiles": [tally.to_json() for tally in tallies], "found": found}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(f"{RESULTS} has the numbers")
    return 1 if any(tally.violations for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
