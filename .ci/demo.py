"""``make demo``: run a cohort on a real Airflow against the local HealthOmics, and print a table of its samples.

Airflow's own home is a temporary directory; whatever is started is stopped, and nothing stays behind.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import boto3
from airflow_processes import ROOT, airflow_command, airflow_environment, stop_when_told
from demo_service import BUCKET, demo_service, samplesheet

from airflow_provider_omics_cache.local import LocalHealthOmicsServer

DAG_ID = "omics_cohort"
SAMPLESHEET = "six.csv"
SAMPLES = 6
#: How much faster than real time the runs are, so that nobody has to wait for them.
SPEED = 30
RESULTS = "/results.jsonl"
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \[\w+ *\] (?P<message>.*?) +\[(?P<logger>[\w.]+)\]")
TASK_LINE = re.compile(r"\[DAG TEST\] starting task_id=(?P<task>[\w.]+)")


def main() -> int:
    """Run the demo and return its exit code."""
    stop_when_told()
    with tempfile.TemporaryDirectory(prefix="omics-demo-") as home, demo_service() as service:
        print(f"The local HealthOmics answers at {service.url}", flush=True)
        let_samples_fail(service)
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
            params = {"samplesheet": f"s3://{BUCKET}/{SAMPLESHEET}", "max_failed": "1"}
            arguments = ("dags", "test", DAG_ID, "--conf", json.dumps(params))
            log, exit_code = run_airflow(*arguments, environment=environment)
        records = read_results(service)
    if exit_code or not records:
        print("".join(log[-40:]), file=sys.stderr)
        print("The demo failed; above is the end of Airflow's log.", file=sys.stderr)
        return exit_code or 1
    print("\nEvery sample has ended:\n")
    print("\n".join(f"  {line}" for line in table(records)))
    return 0


def let_samples_fail(service: LocalHealthOmicsServer) -> None:
    """Write the samplesheet, and let three of its samples fail: in submission, for a reason of AWS, and for good."""
    s3 = boto3.client("s3", **service.client_kwargs)
    s3.put_object(Bucket=BUCKET, Key=SAMPLESHEET, Body=samplesheet("HG", SAMPLES).encode())
    service.clock.speed = SPEED
    service.faults.fail_submission("HG00002", reason="ThrottlingException", message="Rate exceeded", times=1)
    service.faults.fail_task("Report", run_name="HG00003", reason="SERVICE_ERROR")
    service.faults.fail_task("CallVariants", run_name="HG00005", reason="OUT_OF_MEMORY_ERROR")


def read_results(service: LocalHealthOmicsServer) -> list[dict[str, Any]]:
    """Read the records that the DAG has written, none if it has not."""
    s3 = boto3.client("s3", **service.client_kwargs)
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    bodies = [s3.get_object(Bucket=BUCKET, Key=key)["Body"] for key in keys if key.endswith(RESULTS)]
    return [json.loads(line) for body in bodies for line in body.iter_lines()]


def table(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each sample: its round, its status, its cache hits, and what failed."""
    yield f"{'sample':9} {'round':5} {'status':10} {'cache hits':10} what failed"
    for record in records:
        failed = [run for run in (*record["history"], record) if run["failure_reason"]]
        what = ", ".join(f"round {run['round']}: {run['failure_reason']}" for run in failed)
        sample, number, hits = record["run_setting_id"], str(record["round"]), str(record["cache_hits"])
        yield f"{sample:9} {number:5} {record['status']:10} {hits:10} {what}".rstrip()


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


if __name__ == "__main__":
    sys.exit(main())
