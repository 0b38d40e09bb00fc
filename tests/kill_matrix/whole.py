"""A whole run: the servers, each kill, the table."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path

from tests.kill_matrix import report
from tests.kill_matrix.broker import BrokerWatch
from tests.kill_matrix.cells import Kill
from tests.kill_matrix.machine import Programs
from tests.kill_matrix.matrix import Matrix, start_airflow
from tests.kill_matrix.scenario import prepare
from tests.kill_matrix.servers import running_servers


def run(kills: dict[Kill, tuple[str, ...]], programs: Programs, port: int, build: Path) -> int:
    """Run the matrix, print and write its table; return 1 if something does not hold.

    :param kills: the kills and their phases.
    :param programs: the server programs.
    :param port: port of Airflow's API server; 0 for a free one.
    :param build: directory of the results.
    """
    began = time.monotonic()
    logs = build / "kill-matrix"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    for old in build.glob("kill-matrix.*"):
        old.unlink()
    cells: list[report.Cell] = []
    with (
        tempfile.TemporaryDirectory(prefix="kill-matrix-", ignore_cleanup_errors=True) as directory,
        running_servers(programs, Path(directory), logs, port) as servers,
        BrokerWatch(servers.redis_port, servers.home / "broker.log"),
    ):
        try:
            matrix = Matrix(servers, prepare(servers, kills))
            start_airflow(servers)
            for kill, phases in kills.items():
                cells += matrix.run(kill, phases)
            findings = matrix.secrets_found()
            violations = matrix.violations() + [str(finding) for finding in findings if finding.is_violation]
        finally:
            shutil.copytree(servers.home / "logs", logs / "tasks", dirs_exist_ok=True)
    seconds = time.monotonic() - began
    page = f"{report.table(cells)}\n\n{report.summary(cells, violations, findings, seconds)}\n"
    print(f"\n{page}\nThe logs are in {logs}")
    (build / "kill-matrix.txt").write_text(page)
    content = {
        "cells": [cell.as_dict() for cell in cells],
        "violations": violations,
        "secrets": [str(finding) for finding in findings],
        "seconds": round(seconds),
    }
    (build / "kill-matrix.json").write_text(json.dumps(content, indent=2) + "\n")
    return 1 if violations or any(cell.violations for cell in cells) else 0
