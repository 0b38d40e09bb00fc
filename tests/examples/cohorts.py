"""What the tests of the examples with a samplesheet have in common."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import boto3

BUCKET = "omics-quickstart"
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def put_samplesheet(samples: Iterable[str], key: str = "samplesheet.csv") -> None:
    """Write a samplesheet that the examples read."""
    lines = ["sample,fastq_1,fastq_2"]
    for number, sample in enumerate(samples):
        paired = f"s3://{BUCKET}/{sample}_2.fq" if number % 2 else ""
        lines.append(f"{sample},s3://{BUCKET}/{sample}_1.fq,{paired}")
    boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body="\n".join(lines).encode())


def put_role_of_runs() -> None:
    """Create the role of the runs, which the preflight looks at."""
    trust = {"Effect": "Allow", "Principal": {"Service": "omics.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    boto3.client("iam").create_role(RoleName="omics", AssumeRolePolicyDocument=policy)


def run_once_more(dag: Any) -> Any:
    """Run the DAG run of a certain date: the first time, or as if every task of it were cleared."""
    if "run_after" in inspect.signature(dag.test).parameters:
        return dag.test(run_after=WHEN, logical_date=WHEN)
    return dag.test(execution_date=WHEN)  # Airflow 2


def all_of(operation: str, key: str = "items", **members: Any) -> list[dict[str, Any]]:
    """List all pages."""
    pages = boto3.client("omics").get_paginator(operation).paginate(**members)
    return [item for page in pages for item in page[key]]


def read_json_lines(name: str) -> list[dict[str, Any]]:
    """Read the one file of the bucket with this name."""
    s3 = boto3.client("s3")
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    (key,) = [key for key in keys if key.endswith(f"/{name}")]
    content = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
    return [json.loads(line) for line in content.splitlines()]


def longest_line(printed: Any) -> int:
    """Return the number of characters of the longest line that tasks have printed or logged."""
    return max(len(line) for line in (printed.out + printed.err).splitlines())


def states_of(dag_run: Any) -> dict[str, list[str]]:
    """State of each task, of all its mapped instances."""
    states: dict[str, list[str]] = {}
    for ti in dag_run.get_task_instances():
        states.setdefault(ti.task_id, []).append(str(ti.state))
    return states
