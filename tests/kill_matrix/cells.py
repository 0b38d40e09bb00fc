"""What is killed, how, and in which phase of a task: the cells of the matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

PROCESSES = ("worker", "triggerer", "scheduler", "api-server", "database", "broker", "service")
SIGNALS = ("sigkill", "sigstop")
#: Each phase is a DAG of dags/kill_matrix.py with one task.
PHASES = (
    "creating_cache",
    "starting",
    "staging",
    "deferred",
    "rescheduled",
    "listing",
    "cancelling",
    "deleting",
)
QUICK = ("worker-sigkill", "triggerer-sigkill", "scheduler-sigkill")


@dataclass(frozen=True, order=True)
class Kill:
    """One signal to one process.

    :param process: the process.
    :param signal: the signal.
    """

    process: str
    signal: str

    @property
    def name(self) -> str:
        """Name of the kill, which is also the id of its DAG runs."""
        return f"{self.process}-{self.signal}"


ALL_KILLS = tuple(Kill(process, signal) for process, signal in product(PROCESSES, SIGNALS))


def choose(names: Sequence[str]) -> dict[Kill, tuple[str, ...]]:
    """Return the phases of each kill that is wanted.

    :param names: names of kills (``worker-sigkill``) and of single cells (``worker-sigkill-starting``).
    :raises ValueError: a cell does not exist.
    """
    cells = {
        **{kill.name: (kill, PHASES) for kill in ALL_KILLS},
        **{f"{kill.name}-{phase}": (kill, (phase,)) for kill in ALL_KILLS for phase in PHASES},
    }
    chosen: dict[Kill, tuple[str, ...]] = {}
    for name in names:
        if name not in cells:
            raise ValueError(
                f"there is no cell {name!r}; a cell is a process ({', '.join(PROCESSES)}), a signal "
                f"({', '.join(SIGNALS)}) and, for one phase alone, the phase ({', '.join(PHASES)}), as in "
                "worker-sigkill or worker-sigkill-starting"
            )
        kill, phases = cells[name]
        wanted = {*chosen.get(kill, ()), *phases}
        chosen[kill] = tuple(phase for phase in PHASES if phase in wanted)
    return chosen
