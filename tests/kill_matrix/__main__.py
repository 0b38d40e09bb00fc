"""``make kill-matrix``: kill and freeze each process of an Airflow while its tasks are in each phase."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from airflow_processes import stop_when_told

from tests.kill_matrix import report
from tests.kill_matrix.broker import BrokerWatch
from tests.kill_matrix.cells import ALL_KILLS, QUICK, choose
from tests.kill_matrix.matrix import Matrix, start_airflow
from tests.kill_matrix.scenario import prepare
from tests.kill_matrix.servers import UnusableMachineError, check_port, find_programs, running_servers

BUILD = Path(__file__).parents[2] / "build"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the matrix, print and write its table; return 1 if a cell does not hold, 2 if it cannot be run."""
    arguments = _parser().parse_args(argv)
    try:
        kills = choose(arguments.only or (QUICK if arguments.quick else [kill.name for kill in ALL_KILLS]))
        programs = find_programs()
        check_port(arguments.port)
    except (ValueError, UnusableMachineError) as error:
        print(f"kill-matrix: {error}", file=sys.stderr)
        return 2
    stop_when_told()
    began = time.monotonic()
    logs = BUILD / "kill-matrix"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    cells: list[report.Cell] = []
    findings: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="kill-matrix-", ignore_cleanup_errors=True) as home,
        running_servers(programs, Path(home), logs, arguments.port) as servers,
        BrokerWatch(servers.redis_port, Path(home) / "broker.log"),
    ):
        try:
            matrix = Matrix(servers, prepare(servers, kills))
            start_airflow(servers)
            for kill, phases in kills.items():
                cells += matrix.run(kill, phases)
            findings = matrix.secrets_found()
        finally:
            shutil.copytree(Path(home) / "logs", logs / "tasks", dirs_exist_ok=True)
    page = f"{report.table(cells)}\n\n{report.summary(cells, findings, time.monotonic() - began)}\n"
    print(page)
    (BUILD / "kill-matrix.txt").write_text(page)
    content = {"cells": [cell.as_dict() for cell in cells], "secrets": findings}
    (BUILD / "kill-matrix.json").write_text(json.dumps(content, indent=2) + "\n")
    return 1 if any(cell.violations for cell in cells) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.kill_matrix", description="Kill each process of an Airflow while its tasks work."
    )
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument(
        "--only", nargs="+", metavar="CELL", help="only these, as worker-sigkill or worker-sigstop-deleting"
    )
    parser.add_argument("--port", type=int, default=0, help="port of Airflow's API server (default: a free one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
