"""A cohort whose processes are killed with SIGKILL, in every round, and whose DAG run is cleared each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import boto3
import pytest

from tests.conftest import needs_batches
from tests.task_groups.large_cohort import (
    SAMPLES,
    batches_and_runs,
    expected_outcomes,
    expected_runs,
    let_fail,
    outcomes_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_omics_cache.local import LocalHealthOmicsServer

pytestmark = [needs_batches, pytest.mark.large]

KILLS = (
    "cohort.round_1.start_batch:StartRunBatch",
    "cohort.round_1.wait_for_submission:ListRunsInBatch",
    "cohort.round_1.wait_for_completion:ListRuns",
    "cohort.round_2.choose_samples:PutObject",
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
    let_fail(service)
    service.clock.tick = 10

    environment = {**os.environ, "AIRFLOW_CONN_AWS_DEFAULT": service.airflow_connection}
    database = request.getfixturevalue("_empty_airflow_database")
    command = [sys.executable, "-m", "tests.task_groups.killed_cohort", str(database), str(tmp_path)]
    done = subprocess.run([*command, *KILLS], env=environment, capture_output=True, text=True, check=False, timeout=500)

    lines = done.stdout.splitlines()
    ends = [line for line in lines if line.startswith(("cohort.", ": "))]
    assert ends == [*(f"{one} SIGKILL" for one in KILLS), ": ended"], (done.stdout + done.stderr)[-3000:]
    assert "state: success" in lines
    assert batches_and_runs(boto3.client("omics", **service.client_kwargs)) == (2, expected_runs())
    (key,) = [
        item["Key"]
        for item in s3.list_objects_v2(Bucket="lab", Prefix="airflow/")["Contents"]
        if item["Key"].endswith("/results.jsonl")
    ]
    content = s3.get_object(Bucket="lab", Key=key)["Body"].read().decode()
    assert outcomes_of(content) == expected_outcomes()
