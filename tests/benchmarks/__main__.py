"""``make bench``: measure everything that has a bar, and say which bars hold."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from tests.benchmarks import cohort_results, growth, imports, listing, outputs, report, staging, triggers
from tests.benchmarks.growth import Cost
from tests.benchmarks.measure import TIMES, Result, check_system, say
from tests.benchmarks.triggers import Scenario

BUILD = Path(__file__).parents[2] / "build"

#: The service allows 10 calls a second; a round over 1,000 batches takes 125 s at 8.
THOUSAND = Scenario(number=1_000, calls_per_second=8, rate_limit=10, poke_interval=60, ends=(10, 130), seconds=420)
#: A service that takes half of what is allowed, at four times its real rate to save time.
THROTTLED = Scenario(number=1_000, calls_per_second=80, rate_limit=40, poke_interval=10, ends=(10, 30), seconds=180)
QUICK = Scenario(number=20, calls_per_second=8, rate_limit=10, poke_interval=2, ends=(2, 4), seconds=60)
QUICK_THROTTLED = replace(QUICK, calls_per_second=20)

Part = Callable[[], Iterable[Result]]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write the results; return 1 when a bar does not hold."""
    arguments = _parser().parse_args(argv)
    check_system()
    quick: bool = arguments.quick
    written = "bench-trial" if quick or arguments.only else "bench"
    for old in BUILD.glob(f"{written}.*"):
        old.unlink()
    started_at = time.monotonic()
    costs: dict[str, list[Cost]] = {"ours": [], "plain": []}
    parts = _parts(quick, costs)
    results = _measure({name: parts[name] for name in arguments.only or parts}, quick)
    print(report.table(results))
    print("\n".join(["", *report.machine(), f"in {time.monotonic() - started_at:,.0f} s"]))
    _write(written, results, costs)
    if quick:
        print("\nThe sizes were small, and all was measured at the same time: no limit is checked.")
    broken = [result.name for result in results if result.holds is False]
    if broken:
        print("\nThese limits are exceeded:", *broken, sep="\n  ")
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure everything with a bar.")
    parser.add_argument("--quick", action="store_true", help="try the benchmarks themselves: small sizes, no bars")
    parser.add_argument("--only", nargs="+", choices=list(_parts(True, {})), help="measure these parts only")
    return parser


def _parts(quick: bool, costs: dict[str, list[Cost]]) -> dict[str, Part]:
    large = 2_000 if quick else 100_000

    def sizes() -> Iterator[Result]:
        if quick:
            costs["ours"] = growth.measure("ours", (2, 4, 6), window=(1, 2))
            costs["plain"] = growth.measure("plain", (2, 4), window=(1, 2))
        else:
            again = 2 * (100, 1_000, 3_000)
            costs["ours"] = growth.measure("ours", (10, 100, 1_000, 3_000), again=again, window=growth.STEADY)
            costs["plain"] = growth.measure("plain", (10, 100), window=growth.STEADY)
        yield from growth.results(costs["ours"], costs["plain"])

    return {
        "imports": lambda: imports.results(1 if quick else TIMES),
        "listing": lambda: listing.results(
            runs=large,
            limited_runs=large // 5,
            waited_runs=1_000 if quick else 10_000,
            awaited_runs=500 if quick else 2_000,
            rounds=20 if quick else 40,
        ),
        "outputs": lambda: outputs.results(runs=large, runs_with_own=large // 50),
        "cohort_results": lambda: cohort_results.results(samples=large),
        "staging": lambda: staging.results(settings=large),
        "triggers": lambda: triggers.measure_both(QUICK if quick else THOUSAND),
        "single runs": lambda: triggers.measure_beside(QUICK if quick else THOUSAND),
        "throttled": lambda: triggers.measure_throttled(QUICK_THROTTLED if quick else THROTTLED),
        "growth": sizes,
    }


def _measure(parts: dict[str, Part], quick: bool) -> list[Result]:
    """Measure parts, one after the other; all at the same time, and without judging them, if it has to be quick."""

    def measure(name: str) -> list[Result]:
        say(f"{name} ...")
        found = []
        for result in parts[name]():
            found.append(replace(result, is_judged=not quick))
            say(f"  {' | '.join(report.cells(found[-1]))}")
        return found

    with ThreadPoolExecutor(len(parts) if quick else 1) as pool:
        return [result for found in pool.map(measure, parts) for result in found]


def _write(name: str, results: Sequence[Result], costs: dict[str, list[Cost]]) -> None:
    BUILD.mkdir(exist_ok=True)
    stored = {
        "results": [result.as_dict() for result in results],
        "costs": {kind: [asdict(cost) for cost in measured] for kind, measured in costs.items()},
    }
    (BUILD / f"{name}.svg").write_text(report.picture(results, costs))
    (BUILD / f"{name}.txt").write_text(report.page(results, costs))
    (BUILD / f"{name}.json").write_text(json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
