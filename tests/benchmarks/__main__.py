"""``make bench``: measure everything that has a bar, and say which bars hold."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tests.benchmarks import chart, imports, listing, report, staging, triggers
from tests.benchmarks.measure import Result
from tests.benchmarks.triggers import Scenario, Waited

BUILD = Path(__file__).parents[2] / "build"

#: The service allows 10 calls a second; a round over 1,000 batches takes 125 s at 8.
THOUSAND = Scenario(number=1_000, calls_per_second=8, rate_limit=10, poke_interval=60, ends=(10, 130), seconds=420)
#: The same at ten times the service's rate, so that 3,000 batches do not take half an hour.
SIZES = [
    Scenario(number=number, calls_per_second=80, rate_limit=100, poke_interval=10, ends=(10, 30), seconds=180)
    for number in (10, 100, 1_000, 3_000)
]
QUICK = Scenario(number=20, calls_per_second=8, rate_limit=10, poke_interval=5, ends=(5, 10), seconds=60)
QUICK_SIZES = [
    Scenario(number=number, calls_per_second=80, rate_limit=100, poke_interval=2, ends=(2, 4), seconds=60)
    for number in (10, 50)
]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write the results; return 1 when a bar does not hold."""
    arguments = _parser().parse_args(argv)
    started_at = time.monotonic()
    results: list[Result] = []
    waited: dict[str, list[Waited]] = {"ours": [], "plain": []}
    for name, measure in _parts(arguments.quick, waited).items():
        if name in (arguments.only or name):
            _say(f"{name} ...")
            for result in measure():
                results.append(result)
                _say(f"  {' | '.join(report.cells(result))}")
    print(report.table(results))
    print("\n".join(["", *report.machine(), f"in {time.monotonic() - started_at:,.0f} s"]))
    _write("bench-trial" if arguments.quick or arguments.only else "bench", results, waited)
    broken = [result.name for result in results if not result.holds]
    if broken:
        print("\nThese bars do not hold:", *broken, sep="\n  ")
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure everything with a bar.")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the benchmarks themselves")
    parser.add_argument("--only", nargs="+", choices=list(_parts(True, {})), help="measure these parts only")
    return parser


def _parts(quick: bool, waited: dict[str, list[Waited]]) -> dict[str, Callable[[], Iterable[Result]]]:
    large = 2_000 if quick else 100_000

    def many_batches() -> Iterator[Result]:
        found, by_kind = triggers.measure_all(QUICK if quick else THOUSAND, QUICK_SIZES if quick else SIZES)
        waited.update(by_kind)
        yield from found

    return {
        "imports": imports.results,
        "listing": lambda: listing.results(runs=large, limited_runs=large // 5, waited_runs=1_000 if quick else 10_000),
        "staging": lambda: staging.results(settings=large),
        "triggers": many_batches,
    }


def _write(name: str, results: Sequence[Result], waited: dict[str, list[Waited]]) -> None:
    BUILD.mkdir(exist_ok=True)
    (BUILD / f"{name}.json").write_text(json.dumps([result.as_dict() for result in results], indent=2) + "\n")
    (BUILD / f"{name}.txt").write_text(report.page(results, waited))
    (BUILD / f"{name}.svg").write_text(_chart(results, waited))


def _chart(results: Sequence[Result], waited: dict[str, list[Waited]]) -> str:
    shares = [
        chart.Share(
            name=result.name,
            ours=result.share(result.measured),
            theirs=None if result.beside is None else result.share(result.beside),
        )
        for result in results
    ]

    def panel(title: str, cost: Callable[[Waited], float]) -> chart.Panel:
        ours, theirs = (
            sorted((one.number, max(cost(one), 0.01)) for one in waited[kind]) for kind in ("ours", "plain")
        )
        return chart.Panel(title=title, ours=ours, theirs=theirs)

    panels = [
        panel("KB of memory for each trigger, by number of triggers", lambda one: one.memory_per_trigger),
        panel("ms of CPU time for each call, by number of triggers", lambda one: one.cpu_per_call),
    ]
    return chart.draw(
        "make bench: shares of the bars that are used up",
        shares,
        panels if waited["ours"] else [],
        peer="AwsBaseWaiterTrigger",
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
