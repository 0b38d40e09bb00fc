"""``make kill-matrix``: kill and freeze each process of an Airflow while its tasks are in each phase."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from airflow_processes import stop_when_told

from tests.kill_matrix.cells import ALL_KILLS, QUICK, choose
from tests.kill_matrix.machine import UnusableMachineError, check_port, find_programs

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
    from tests.kill_matrix.whole import run  # needs the environment of make venv-kill-matrix

    stop_when_told()
    return run(kills, programs, arguments.port, BUILD)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.kill_matrix", description="Kill each process of an Airflow while its tasks work."
    )
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument(
        "--only", nargs="+", metavar="CELL", help="only these, as worker-sigkill or worker-sigstop-deleting"
    )
    parser.add_argument(
        "--port", type=_port, default=0, help="port of Airflow's API server, which has the UI (default: a free one)"
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be from 0 to 65535; got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
