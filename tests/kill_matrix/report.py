"""The table of the matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.kill_matrix.planted import Finding


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What became of one task.

    :param process: the process that was killed or frozen.
    :param signal: SIGKILL or SIGSTOP.
    :param phase: the phase in which the task was.
    :param state: state of the DAG run; ``hanging`` if it had not ended.
    :param seconds: seconds from the signal to the end of the DAG run.
    :param tries: tries of the task.
    :param violations: what is wrong.
    """

    process: str
    signal: str
    phase: str
    state: str
    seconds: float
    tries: int
    violations: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """The outcome in a word."""
        return "VIOLATION" if self.violations else self.state

    def row(self) -> tuple[str, ...]:
        """Return the cells of its row in the table."""
        return (
            self.process,
            self.signal,
            self.phase,
            self.outcome,
            f"{self.seconds:.0f}",
            str(self.tries),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the cell for JSON."""
        return {**asdict(self), "seconds": round(self.seconds, 1), "violations": list(self.violations)}


HEADER = ("process", "signal", "phase", "outcome", "seconds", "tries")


def table(cells: Sequence[Cell]) -> str:
    """Return the table as text.

    :param cells: the cells.
    """
    rows = [HEADER, *(cell.row() for cell in cells)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def summary(cells: Sequence[Cell], further: Sequence[str], findings: Sequence[Finding], seconds: float) -> str:
    """Return what must be known of the whole.

    :param cells: the cells.
    :param further: what is wrong, and belongs to no cell.
    :param findings: secrets that were found.
    :param seconds: how long the whole took.
    """
    broken = [cell for cell in cells if cell.violations]
    violations = [
        f"{cell.process} {cell.signal} {cell.phase}: {violation}" for cell in broken for violation in cell.violations
    ]
    lines = [
        f"{len(cells)} cells in {seconds:,.0f} s: {len(cells) - len(broken)} hold, {len(broken)} do not; "
        f"{sum(cell.tries > 1 for cell in cells)} tasks were tried more than once"
    ]
    found = sorted(Counter(_kind(finding) for finding in findings).items())
    secrets = [f"{kind} ({number})" for kind, number in found]
    for title, items in (("Violations", [*violations, *further]), ("Planted secrets were found", secrets)):
        if items:
            lines += [f"{title}:", *(f"  {item}" for item in items)]
    return "\n".join(lines)


def _kind(finding: Finding) -> str:
    place = finding.place
    return f"{finding.secret} in {'the logs of tasks' if place.startswith('dag_id=') else place}"
