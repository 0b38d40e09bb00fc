"""``make kill-matrix-table``: show in the documentation what ``make kill-matrix`` has found last."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from tests.kill_matrix.cells import ALL_KILLS, PHASES, SIGNALS
from tests.kill_matrix.report import Cell

ROOT = Path(__file__).parents[2]


def publish(build: Path, target: Path) -> None:
    """Write the table of a whole matrix that holds: a row for each process and signal, a column for each phase.

    :param build: directory that ``make kill-matrix`` writes to.
    :param target: directory of the documentation.
    """
    results = build / "kill-matrix.json"
    if not results.exists():
        sys.exit(f"{results} is missing: run make kill-matrix to its end")
    content = json.loads(results.read_text())
    cells = {
        (cell["process"], cell["signal"], cell["phase"]): Cell(**{**cell, "violations": tuple(cell["violations"])})
        for cell in content["cells"]
    }
    missing = [
        f"{kill.name}-{phase}"
        for kill in ALL_KILLS
        for phase in PHASES
        if (kill.process, kill.signal.upper(), phase) not in cells
    ]
    if missing:
        sys.exit(f"{results} lacks {len(missing)} cells, as {missing[0]}: run the whole make kill-matrix")
    broken = ["-".join(key) for key, cell in cells.items() if cell.violations] + content["violations"]
    if broken:
        sys.exit("\n  ".join(["This does not hold:", *broken]))
    with (target / "kill-matrix.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["Process", "Signal", *(phase.replace("_", " ") for phase in PHASES)])
        for kill in sorted(ALL_KILLS, key=lambda kill: SIGNALS.index(kill.signal)):
            row = [cells[kill.process, kill.signal.upper(), phase] for phase in PHASES]
            writer.writerow([kill.process, kill.signal.upper(), *(_text(cell) for cell in row)])


def _text(cell: Cell) -> str:
    tries = "1 try" if cell.tries == 1 else f"{cell.tries} tries"
    return f"{cell.state}, {tries}, {cell.seconds:.0f} s"


if __name__ == "__main__":
    publish(ROOT / "build", ROOT / "docs" / "_static")
