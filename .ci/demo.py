"""``make demo``: run the quickstart DAG on a real Airflow against the local HealthOmics, and print each run's id.

Airflow's own home is a temporary directory; whatever is started is stopped, and nothing stays behind.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DAG_ID = "omics_quickstart"
LAST_TASK = "print_runs"
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \[\w+ *\] (?P<message>.*?) +\[(?P<logger>[\w.]+)\]")
TASK_LINE = re.compile(r"\[DAG TEST\] starting task_id=(?P<task>\w+)")


def main() -> int:
    """Run the demo and return its exit code."""
    # Being stopped is an exception, so that what was started is stopped too.
    for sign in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="omics-demo-") as home, local_healthomics() as (url, connection):
        print(f"The local HealthOmics answers at {url}", flush=True)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_"))},
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_AWS_DEFAULT": connection,
            "NO_COLOR": "1",
            "NO_PROXY": "localhost,127.0.0.1",
            "no_proxy": "localhost,127.0.0.1",
            "PYTHONUNBUFFERED": "1",
        }
        print("Airflow makes its database", flush=True)
        log, exit_code = run_airflow("db", "migrate", environment=environment)
        if exit_code == 0:
            print(f"Airflow runs the DAG {DAG_ID}", flush=True)
            log, exit_code = run_airflow("dags", "test", DAG_ID, environment=environment)
    table = printed_by_last_task(log)
    if exit_code or not table:
        print("".join(log[-40:]), file=sys.stderr)
        print("The demo failed; above is the end of Airflow's log.", file=sys.stderr)
        return exit_code or 1
    print("\nEvery run of the batch is submitted:\n")
    print("".join(f"  {line}" for line in table))
    return 0


@contextmanager
def local_healthomics() -> Iterator[tuple[str, str]]:
    """Start the local HealthOmics in a process of its own; give its URL and an Airflow connection to it."""
    command = [sys.executable, "-m", "airflow_provider_omics_cache.local", "--bucket", "omics-quickstart"]
    with running(command, stderr=None) as process:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        if not second:
            sys.exit("The local HealthOmics did not start.")
        (assignment,) = shlex.split(second.removeprefix("export "))
        yield first.split()[-1], assignment.partition("=")[2]


def run_airflow(*arguments: str, environment: dict[str, str]) -> tuple[list[str], int]:
    """Run an airflow command, telling what the provider's tasks do; return its output and its exit code."""
    log = []
    with running([sys.executable, "-m", "airflow", *arguments], env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            log.append(line)
            task, entry = TASK_LINE.search(line), LOG_LINE.match(line)
            if task:
                print(f"  {task['task']}", flush=True)
            elif entry and "airflow_provider_omics_cache" in entry["logger"]:
                print(f"    {entry['message']}", flush=True)
        return log, process.wait()


@contextmanager
def running(
    command: list[str], env: dict[str, str] | None = None, stderr: int | None = subprocess.STDOUT
) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process group of its own, and stop the whole group at the end."""
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def printed_by_last_task(log: list[str]) -> list[str]:
    """Return the lines that the last task printed: those that are no entries of Airflow's log."""
    start = next((i for i, line in enumerate(log) if (t := TASK_LINE.search(line)) and t["task"] == LAST_TASK), None)
    return [] if start is None else [line for line in log[start:] if line.strip() and not LOG_LINE.match(line)]


if __name__ == "__main__":
    sys.exit(main())
