"""The AWS CLI talks to the local HealthOmics, with nothing but an endpoint and the host-prefix switch."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import needs_batches

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmicsServer

AWS_CLI = os.environ.get("AWS_CLI", "")

pytestmark = [needs_batches, pytest.mark.skipif(not AWS_CLI, reason="AWS_CLI is not set (make test does)")]


@pytest.fixture
def environment(local_healthomics_server: LocalHealthOmicsServer, tmp_path: Path) -> dict[str, str]:
    local_healthomics_server.create_bucket("cli")
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ENDPOINT_URL": local_healthomics_server.url,
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def omics(environment: dict[str, str], *arguments: str) -> Any:
    command = [AWS_CLI, "omics", *arguments, "--output", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_run_caches(environment: dict[str, str]) -> None:
    created = omics(environment, "create-run-cache", "--name", "from-cli", "--cache-s3-location", "s3://cli/cache/")
    (listed,) = omics(environment, "list-run-caches")["items"]
    assert listed["id"] == created["id"]
    assert listed["name"] == "from-cli"
    assert listed["cacheS3Uri"].startswith("s3://cli/cache/")


def test_lists_the_runs_of_a_batch_page_by_page(
    environment: dict[str, str], local_healthomics_server: LocalHealthOmicsServer, tmp_path: Path
) -> None:
    request = {
        "defaultRunSetting": {
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": "s3://cli/runs/",
        },
        "batchRunSettings": {"inlineSettings": [{"runSettingId": f"s{number}"} for number in range(7)]},
    }
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request))
    batch = omics(environment, "start-run-batch", "--cli-input-json", f"file://{path}")
    local_healthomics_server.clock.advance(3600)
    before = local_healthomics_server.calls["ListRunsInBatch"]
    listed = omics(environment, "list-runs-in-batch", "--batch-id", batch["id"], "--page-size", "3")
    assert sorted(run["runSettingId"] for run in listed["runs"]) == [f"s{number}" for number in range(7)]
    assert local_healthomics_server.calls["ListRunsInBatch"] - before == 3


def test_an_error_of_the_service_reaches_the_user(environment: dict[str, str]) -> None:
    command = [AWS_CLI, "omics", "get-run-cache", "--id", "999"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ResourceNotFoundException" in done.stderr
