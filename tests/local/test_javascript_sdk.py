"""The AWS SDK for JavaScript calls each operation of the local HealthOmics once, through ``endpoint``."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import needs_batches
from tests.local.each_operation import call_each_operation

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmicsServer

HERE = Path(__file__).parent / "javascript"
MODULES = Path(__file__).parents[2] / "build" / "javascript"
NODE = shutil.which("node")
RUN = {
    "workflowId": "1234567",
    "roleArn": "arn:aws:iam::123456789012:role/omics",
    "outputUri": "s3://javascript/runs/",
}

pytestmark = [
    needs_batches,
    pytest.mark.skipif(not NODE, reason="node is not installed"),
    pytest.mark.skipif(
        not (MODULES / "node_modules").exists(),
        reason="the AWS SDK for JavaScript is not installed (make javascript-sdk installs it)",
    ),
]


class Sdk:
    """A client of the SDK.

    :param process: runs its commands.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, operation: str, **members: Any) -> Any:
        """Make a call; return the answer."""
        found = self._send(operation, members)
        assert "error" not in found, (operation, found)
        return found["answer"]

    def error(self, operation: str, **members: Any) -> tuple[str, int]:
        """Make a call that must fail; return the name of the error and the HTTP status."""
        found = self._send(operation, members)["error"]
        return found["name"], found["status"]

    def _send(self, operation: str, members: dict[str, Any]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps({"operation": operation, "input": members}), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@pytest.fixture
def local(local_healthomics_server: LocalHealthOmicsServer) -> LocalHealthOmicsServer:
    local_healthomics_server.create_bucket("javascript")
    return local_healthomics_server


@pytest.fixture
def omics(local: LocalHealthOmicsServer) -> Iterator[Sdk]:
    command = [str(NODE), str(HERE / "commands.mjs"), local.url, str(MODULES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Sdk(process)
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 0


def test_each_operation(omics: Sdk, local: LocalHealthOmicsServer) -> None:
    """All calls use one process of node, because its start takes most of a second."""
    call_each_operation(omics, local, "javascript")

    run = {**RUN, "requestId": "one"}
    assert omics("StartRun", **run)["id"] == omics("StartRun", **run)["id"]
    assert omics.error("GetRun", id="404") == ("ResourceNotFoundException", 404)
    assert omics.error("StartRun", **run, name="two") == ("ConflictException", 409)
    assert omics.error("CreateRunGroup", maxRuns=0) == ("ValidationException", 400)
    assert omics.error("StartRun", **{**RUN, "workflowId": "404x"}) == ("ValidationException", 400)
