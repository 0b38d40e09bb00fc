"""``make demo``: run the quickstart DAG on a real Airflow against the local HealthOmics, and print each run's id.

Airflow's own home is a temporary directory; whatever is started is stopped, and nothing stays behind.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from airflow_processes import ROOT, airflow_command, airflow_environment, stop_when_told
from demo_service import demo_service

DAG_ID = "omics_quickstart"
LAST_TASK = "print_runs"
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \[\w+ *\] (?P<message>.*?) +\[(?P<logger>[\w.]+)\]")
TASK_LINE = re.compile(r"\[DAG TEST\] starting task_id=(?P<task>\w+)")


def main() -> int:
    """Run the demo and return its exit code."""
    stop_when_told()
    with tempfile.TemporaryDirectory(prefix="omics-demo-") as home, demo_service() as service:
        print(f"The local HealthOmics answers at {service.url}", flush=True)
        environment = airflow_environment(
            Path(home),
            ROOT / "example_dags",
            AIRFLOW_CONN_AWS_DEFAULT=service.airflow_connection,
            NO_COLOR="1",
            PYTHONUNBUFFERED="1",
        )
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


def run_airflow(*arguments: str, environment: dict[str, str]) -> tuple[list[str], int]:
    """Run an airflow command, telling what the provider's tasks do; return its output and its exit code."""
    log = []
    with airflow_command(*arguments, environment=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace")
            log.append(line)
            task, entry = TASK_LINE.search(line), LOG_LINE.match(line)
            if task:
                print(f"  {task['task']}", flush=True)
            elif entry and "airflow_provider_omics_cache" in entry["logger"]:
                print(f"    {entry['message']}", flush=True)
        return log, process.wait()


def printed_by_last_task(log: list[str]) -> list[str]:
    """Return the lines that the last task printed: those that are no entries of Airflow's log."""
    start = next((i for i, line in enumerate(log) if (t := TASK_LINE.search(line)) and t["task"] == LAST_TASK), None)
    return [] if start is None else [line for line in log[start:] if line.strip() and not LOG_LINE.match(line)]


if __name__ == "__main__":
    sys.exit(main())
