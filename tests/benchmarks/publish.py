"""``make bench-chart``: show in the documentation what ``make bench`` has measured last."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from tests.benchmarks.growth import Cost
from tests.benchmarks.measure import Result
from tests.benchmarks.report import picture

ROOT = Path(__file__).parents[2]


def publish(build: Path, target: Path) -> None:
    """Draw the chart of a whole measurement whose limits all hold, and copy its page.

    :param build: the directory that ``make bench`` writes to.
    :param target: the documentation's directory.
    """
    stored_at = build / "bench.json"
    if not stored_at.exists():
        sys.exit(f"{stored_at} is missing: run make bench to its end")
    stored = json.loads(stored_at.read_text())
    results = [Result.from_dict(result) for result in stored["results"]]
    broken = [result.name for result in results if not result.holds]
    if broken:
        sys.exit("\n  ".join(["These limits are exceeded:", *broken]))
    costs = {kind: [Cost(**cost) for cost in measured] for kind, measured in stored["costs"].items()}
    (target / "bench.svg").write_text(picture(results, costs))
    shutil.copy(build / "bench.txt", target)


if __name__ == "__main__":
    publish(ROOT / "build", ROOT / "docs" / "_static")
