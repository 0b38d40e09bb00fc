"""``make bench-chart``: show in the documentation what ``make bench`` has measured last."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def publish(build: Path, target: Path) -> None:
    """Copy the page and the chart of a whole measurement whose bars all hold.

    :param build: the directory that ``make bench`` writes to.
    :param target: the documentation's directory.
    """
    results = build / "bench.json"
    if not results.exists():
        sys.exit(f"{results} is missing: run make bench to its end")
    broken = [result["name"] for result in json.loads(results.read_text()) if not result["holds"]]
    if broken:
        sys.exit("\n  ".join(["These bars do not hold:", *broken]))
    for name in ("bench.svg", "bench.txt"):
        shutil.copy(build / name, target)


if __name__ == "__main__":
    publish(ROOT / "build", ROOT / "docs" / "_static")
