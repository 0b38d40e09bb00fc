"""``make faults-table``: show in the documentation what ``make faults`` has found last."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from tests.faults.schedule import PROFILES

ROOT = Path(__file__).parents[2]
LEAST = 10_000


def publish(results: Path, target: Path) -> None:
    """Write a row for each profile of a run without violations.

    :param results: file that ``make faults`` writes.
    :param target: directory of the documentation.
    """
    if not results.exists():
        sys.exit(f"{results} is missing: run make faults SCHEDULES={LEAST} to its end")
    content = json.loads(results.read_text())
    profiles = {profile["profile"]: profile for profile in content["profiles"]}
    short = [name for name in PROFILES if profiles.get(name, {}).get("schedules", 0) < LEAST]
    if short:
        sys.exit(f"{results} has fewer than {LEAST:,} schedules of {short[0]}: run make faults SCHEDULES={LEAST}")
    broken = [name for name in PROFILES if profiles[name]["violations"]]
    if broken:
        sys.exit(f"{results} has violations in {', '.join(broken)}")
    with (target / "faults.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["Profile", "Schedules", "Calls to AWS", "Faults", "Violations", "Known", "Seed"])
        for name in PROFILES:
            profile = profiles[name]
            numbers = (
                profile["schedules"],
                profile["calls"],
                sum(profile["faults"].values()),
                sum(profile["violations"].values()),
                sum(profile["known"].values()),
            )
            writer.writerow([name, *(f"{number:,}" for number in numbers), content["seed"]])


if __name__ == "__main__":
    publish(ROOT / "build" / "faults.json", ROOT / "docs" / "_static")
