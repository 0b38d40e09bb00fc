"""A cohort whose processes are killed with SIGKILL, in every round, and whose DAG run is cleared each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import boto3
import pytest

from tests.conftest import needs_batches

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_omics_cache.local import LocalHealthOmicsServer

pytestmark = [needs_batches, pytest.mark.large]

SAMPLES = [f"S{number:02}" for number in range(40)]
KILLS = (
    "cohort.round_1.start_batch:StartRunBatch",
    "cohort.round_1.wait_for_completion:ListRuns",
    "cohort.round_2.start_batch:StartRunBatch",
    "cohort.round_2.wait_for_completion:GetBatch",
    "cohort.results:ListRunTasks",
)


def test_nobody_runs_twice(
    local_healthomics_server: LocalHealthOmicsServer, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    service = local_healthomics_server
    s3 = boto3.client("s3", **service.client_kwargs)
    s3.create_bucket(Bucket="lab")
    s3.put_object(Bucket="lab", Key="sheet.csv", Body="\n".join(["sample", *SAMPLES]).encode())
    trust = {"Effect": "Allow", "Principal": {"Service": "omics.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    boto3.client("iam", **service.client_kwargs).create_role(RoleName="omics", AssumeRolePolicyDocument=policy)
    service.register_workflow("1234567", tasks=[{"name": name} for name in ("qc", "align", "call")])
    throttled, refused, broken = SAMPLES[:5], SAMPLES[5], SAMPLES[6:10]
    for name in throttled:
        service.faults.fail_submission(name, reason="ThrottlingException", times=1)
    service.faults.fail_submission(refused, reason="ValidationException")
    for name in broken:
        service.faults.fail_task("call", run_name=name, reason="SERVICE_ERROR")
    service.clock.tick = 10

    environment = {**os.environ, "AIRFLOW_CONN_AWS_DEFAULT": service.airflow_connection}
    database = request.getfixturevalue("_empty_airflow_database")
    command = [sys.executable, "-m", "tests.task_groups.killed_cohort", str(database), str(tmp_path)]
    done = subprocess.run([*command, *KILLS], env=environment, capture_output=True, text=True, check=False, timeout=200)

    lines = done.stdout.splitlines()
    ends = [line for line in lines if line.startswith(("cohort.", ": "))]
    assert ends == [*(f"{one} SIGKILL" for one in KILLS), ": ended"], (done.stdout + done.stderr)[-3000:]
    assert "state: success" in lines
    omics = boto3.client("omics", **service.client_kwargs)
    batches = [batch["id"] for page in omics.get_paginator("list_batch").paginate() for batch in page["items"]]
    assert len(batches) == 2
    runs = Counter(
        run["runSettingId"]
        for batch_id in batches
        for page in omics.get_paginator("list_runs_in_batch").paginate(batchId=batch_id)
        for run in page["runs"]
        if run.get("runId")
    )
    assert runs == {name: 1 + (name in broken) for name in SAMPLES if name != refused}
    (key,) = [
        item["Key"]
        for item in s3.list_objects_v2(Bucket="lab", Prefix="airflow/")["Contents"]
        if item["Key"].endswith("/results.jsonl")
    ]
    content = s3.get_object(Bucket="lab", Key=key)["Body"].read().decode()
    records = {record["run_setting_id"]: record for record in map(json.loads, content.splitlines())}
    assert list(records) == SAMPLES
    expected = dict.fromkeys(SAMPLES, ("COMPLETED", 1, []))
    expected |= dict.fromkeys(throttled, ("COMPLETED", 2, ["ThrottlingException"]))
    expected |= dict.fromkeys(broken, ("COMPLETED", 2, ["SERVICE_ERROR"]))
    expected[refused] = ("NOT_SUBMITTED", 1, [])
    assert expected == {
        name: (record["status"], record["round"], [run["failure_reason"] for run in record["history"]])
        for name, record in records.items()
    }
