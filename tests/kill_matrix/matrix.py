"""One kill after the other."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg

from tests.kill_matrix.cells import PHASES, Kill
from tests.kill_matrix.gateway import Gate
from tests.kill_matrix.oracle import Oracle, leftovers
from tests.kill_matrix.planted import Finding, find_in_files, find_secrets
from tests.kill_matrix.report import Cell
from tests.kill_matrix.scenario import (
    RUNS,
    Batches,
    catch_up,
    dag_states,
    gate_of,
    is_waiting,
    service_client,
    start_batch,
    task_state,
)
from tests.kill_matrix.servers import START_SECONDS, Servers

#: Seconds for which a killed process stays down.
DOWN_SECONDS = 4.0
#: Seconds for which a frozen process that nobody replaces stays frozen.
FROZEN_SECONDS = 15.0
#: Most seconds for which a frozen process stays frozen while another one does its work.
LONGEST_FREEZE = 60.0
#: Most seconds until every task is in its phase.
REACH_SECONDS = 300.0
#: Most seconds from the signal to the end of every DAG run. A run that has not ended then hangs.
END_SECONDS = 600.0
#: Seconds without a call to the service after which nothing is expected any more, and the most seconds until then.
QUIET_SECONDS = 3.0
QUIET_LIMIT = 60.0
#: Processes of which another one can run beside the frozen one.
REPLACED = frozenset({"worker", "triggerer", "scheduler"})


def say(text: str) -> None:
    """Print a line at once.

    :param text: the line.
    """
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def start_airflow(servers: Servers) -> None:
    """Start Airflow, and wait until it can run the DAGs.

    :param servers: the servers.
    """
    say("Airflow makes its database")
    with (servers.logs / "migrate.log").open("wb") as log:
        subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=servers.environment,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    say("Airflow starts")
    servers.start_airflow()
    servers.airflow.log_in(START_SECONDS)
    servers.airflow.wait_for_dags(PHASES)
    workers = servers.logs / f"{servers.processes['worker'].name}.log"
    servers.airflow.wait(lambda: " ready." in workers.read_text(errors="replace"), "the worker", START_SECONDS)


class Matrix:
    """The matrix.

    :param servers: the servers.
    :param batches: the batches that are there before the tasks.
    """

    def __init__(self, servers: Servers, batches: Batches) -> None:
        self._servers = servers
        self._batches = batches
        self._oracle = Oracle(servers, batches)
        self._findings: set[Finding] = set()
        self._violations: list[str] = []

    def run(self, kill: Kill, phases: tuple[str, ...]) -> list[Cell]:
        """Send one signal to one process while a task is in each phase, and check each task after it has ended.

        :param kill: the signal and the process.
        :param phases: the phases.
        """
        say(f"{kill.name}: the tasks begin")
        servers = self._servers
        servers.control.clock.speed = 0
        gates = self._begin(kill, phases)
        try:
            if unreached := self._reach(kill, gates):
                return self._not_reached(kill, unreached)
            self._search_database()
            sent = time.monotonic()
            ended = self._send(kill, phases, gates, sent)
        finally:
            for gate in gates.values():
                if gate:
                    gate.open()
            catch_up(servers)
        late = self._wait_until_quiet()
        servers.retire()
        self._search_database()
        cells = [self._cell(kill, phase, ended.get(phase)) for phase in phases]
        if late:
            self._violations.append(f"{kill.name}: {late}")
        return self._said(cells)

    def _said(self, cells: list[Cell]) -> list[Cell]:
        for cell in cells:
            say(f"  {'  '.join(cell.row())}")
            for violation in cell.violations:
                say(f"    {violation}")
        return cells

    def violations(self) -> list[str]:
        """Return what is wrong, and belongs to no cell."""
        return self._violations + self._oracle.strangers() + self._oracle.bystander_violations()

    def secrets_found(self) -> list[Finding]:
        """Search the broker's commands and every log; return what was found anywhere."""
        broker = self._servers.home / "broker.log"
        self._findings |= {Finding(name, "the broker") for name in find_secrets(broker.read_bytes())}
        for directory in (self._servers.home / "logs", self._servers.logs):
            for path, name in find_in_files(directory):
                self._findings.add(Finding(name, str(path.relative_to(directory))))
        return sorted(self._findings)

    def _begin(self, kill: Kill, phases: tuple[str, ...]) -> dict[str, Gate | None]:
        if "rescheduled" in phases:
            omics = service_client(self._servers, "omics")
            self._batches.ids[kill.name, "rescheduled"] = start_batch(
                omics, f"rescheduled-{kill.name}", RUNS["rescheduled"]
            )
        gates = {phase: gate_of(phase, kill, self._batches.ids.get((kill.name, phase))) for phase in phases}
        self._servers.gateway.gates = [gate for gate in gates.values() if gate]
        for phase in phases:
            conf = {"batch_id": self._batches.ids.get((kill.name, phase))}
            self._servers.airflow.trigger(phase, kill.name, conf)
        return gates

    def _reach(self, kill: Kill, gates: dict[str, Gate | None]) -> list[str]:
        """Wait until each task is in its phase, all at the same moment; return the phases that are not reached."""
        give_up = time.monotonic() + REACH_SECONDS
        while missing := [phase for phase, gate in gates.items() if not self._is_reached(phase, kill, gate)]:
            if time.monotonic() > give_up:
                return missing
            self._restart_the_dead()
            time.sleep(0.3)
        return []

    def _not_reached(self, kill: Kill, phases: list[str]) -> list[Cell]:
        cells = []
        for phase in phases:
            state, tries = task_state(self._servers, phase, kill)
            violation = f"the task was {state}, and not in its phase, {REACH_SECONDS:.0f} s after its start"
            cells.append(self._make_cell(kill, phase, "not reached", 0.0, tries, [violation]))
        return self._said(cells)

    def _is_reached(self, phase: str, kill: Kill, gate: Gate | None) -> bool:
        return gate.is_reached if gate else is_waiting(self._servers, phase, kill)

    def _send(
        self, kill: Kill, phases: tuple[str, ...], gates: dict[str, Gate | None], sent: float
    ) -> dict[str, tuple[str, float]]:
        """Send the signal, let go what was held, undo the signal, and wait for the end of every DAG run."""
        say(f"{kill.name}: every task is in its phase; the signal is sent")
        tries = {phase: task_state(self._servers, phase, kill)[1] for phase in phases}
        catch_up(self._servers)
        undo, is_time = self._strike(kill, sent, lambda: self._all_tried_again(kill, gates, tries))
        for gate in gates.values():
            if gate:
                gate.open()
        ended: dict[str, tuple[str, float]] = {}
        is_undone = False
        while len(ended) < len(phases) or not is_undone:
            elapsed = time.monotonic() - sent
            if not is_undone and is_time():
                undo()
                is_undone = True
            self._restart_the_dead()
            with suppress(psycopg.OperationalError):
                for phase, state in dag_states(self._servers, kill).items():
                    if state in ("success", "failed") and phase not in ended:
                        ended[phase] = (state, elapsed)
            if elapsed > END_SECONDS:
                break
            time.sleep(0.5)
        return ended

    def _wait_until_quiet(self) -> str | None:
        """Wait for what a process that was frozen still does; return what is wrong if that does not end."""
        give_up = time.monotonic() + QUIET_LIMIT
        while self._servers.gateway.quiet_seconds < QUIET_SECONDS:
            if time.monotonic() > give_up:
                return f"the service is still called {QUIET_LIMIT:.0f} s after the end of every DAG run"
            time.sleep(0.2)
        return None

    def _strike(
        self, kill: Kill, sent: float, others_have_begun: Callable[[], bool]
    ) -> tuple[Callable[[], None], Callable[[], bool]]:
        """Send the signal; return what undoes it, and whether it is time for that."""
        servers, name = self._servers, kill.process
        if kill.signal == "sigkill":
            servers.kill(name)
            return lambda: servers.start(name), lambda: time.monotonic() > sent + DOWN_SECONDS
        process = servers.freeze(name)
        if name not in REPLACED:
            return process.thaw, lambda: time.monotonic() > sent + FROZEN_SECONDS
        servers.stand_in(name)
        return (
            process.thaw,
            lambda: (
                time.monotonic() > sent + LONGEST_FREEZE
                or (time.monotonic() > sent + FROZEN_SECONDS and others_have_begun())
            ),
        )

    def _all_tried_again(self, kill: Kill, gates: dict[str, Gate | None], tries: dict[str, int]) -> bool:
        """Whether another try of each task that was in a worker has begun, or the task has ended."""
        for phase, gate in gates.items():
            state, number = task_state(self._servers, phase, kill)
            if gate and state != "success" and (number <= tries[phase] or state != "running"):
                return False
        return True

    def _restart_the_dead(self) -> None:
        for name in self._servers.restart_the_dead():
            say(f"  {name} has ended by itself and is started again")

    def _search_database(self) -> None:
        dump = subprocess.run(
            [self._servers.postgresql / "pg_dump", self._servers.database_url],
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
        table = ""
        for line in dump.splitlines():
            if line.startswith(b"COPY "):
                table = line.split()[1].decode()
            self._findings |= {Finding(name, f"table {table}") for name in find_secrets(line)}

    def _cell(self, kill: Kill, phase: str, ended: tuple[str, float] | None) -> Cell:
        state, seconds = ended or ("hanging", END_SECONDS)
        violations = [] if state == "success" else [f"the DAG run is {state}"]
        try:
            violations += self._oracle.violations(phase, kill) if state == "success" else []
            violations += leftovers(self._servers, phase, kill) if ended else []
        except Exception as error:  # an answer that the oracle did not expect is a violation too
            violations.append(f"the check failed: {error!r}")
        tries = task_state(self._servers, phase, kill)[1]
        return self._make_cell(kill, phase, state, seconds, tries, violations)

    @staticmethod
    def _make_cell(kill: Kill, phase: str, state: str, seconds: float, tries: int, violations: list[str]) -> Cell:
        return Cell(
            process=kill.process,
            signal=kill.signal.upper(),
            phase=phase,
            state=state,
            seconds=seconds,
            tries=tries,
            violations=tuple(violations),
        )
