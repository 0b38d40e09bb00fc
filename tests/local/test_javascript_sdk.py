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
    run_cache = omics("CreateRunCache", name="cohort", cacheS3Location="s3://javascript/cache/")["id"]
    omics("UpdateRunCache", id=run_cache, name="renamed")
    assert omics("GetRunCache", id=run_cache)["name"] == "renamed"
    assert [item["id"] for item in omics("ListRunCaches")["items"]] == [run_cache]

    group = omics("CreateRunGroup", name="capped", maxRuns=20, maxDuration=600, requestId="one")["id"]
    assert omics("CreateRunGroup", name="capped", maxRuns=20, maxDuration=600, requestId="one")["id"] == group
    omics("UpdateRunGroup", id=group, maxCpus=256)
    found = omics("GetRunGroup", id=group)
    assert (found["name"], found["maxCpus"], found["maxRuns"], found["maxDuration"]) == ("capped", 256, 20, 600)
    assert [item["id"] for item in omics("ListRunGroups", name="capped", maxResults=1)["items"]] == [group]
    assert omics("ListRunGroups", name="other")["items"] == []

    assert omics("GetWorkflow", id="1234567")["status"] == "ACTIVE"

    started = omics("StartRun", **RUN, name="one", runGroupId=group, cacheId=run_cache, tags={"a": "b"})
    arn, run_id = started["arn"], started["id"]
    batch = omics(
        "StartRunBatch",
        defaultRunSetting=RUN,
        batchRunSettings={"inlineSettings": [{"runSettingId": "s0"}, {"runSettingId": "s1"}]},
    )["id"]
    cancelled = omics("StartRun", **RUN, name="two")["id"]
    stopped = omics(
        "StartRunBatch", defaultRunSetting=RUN, batchRunSettings={"inlineSettings": [{"runSettingId": "s2"}]}
    )["id"]
    local.clock.advance(10)
    omics("CancelRun", id=cancelled)
    omics("CancelRunBatch", batchId=stopped)
    local.clock.advance(3_600)

    assert omics("GetRun", id=run_id)["status"] == "COMPLETED"
    assert omics("GetRun", id=cancelled)["status"] == "CANCELLED"
    tasks = omics("ListRunTasks", id=run_id)["items"]
    assert [task["status"] for task in tasks] == ["COMPLETED"] * len(tasks) != []
    assert omics("GetRunTask", id=run_id, taskId=tasks[0]["taskId"])["name"] == tasks[0]["name"]
    assert omics("GetBatch", batchId=batch)["status"] == "PROCESSED"
    assert omics("GetBatch", batchId=stopped)["status"] == "CANCELLED"
    assert {item["id"] for item in omics("ListBatch")["items"]} == {batch, stopped}
    rows = omics("ListRunsInBatch", batchId=batch)["runs"]
    assert [row["runSettingId"] for row in rows] == ["s0", "s1"]
    assert [item["id"] for item in omics("ListRuns", runGroupId=group)["items"]] == [run_id]

    omics("TagResource", resourceArn=arn, tags={"c": "d"})
    omics("UntagResource", resourceArn=arn, tagKeys=["a"])
    assert omics("ListTagsForResource", resourceArn=arn)["tags"] == {"c": "d"}

    omics("DeleteRun", id=run_id)
    omics("DeleteRunBatch", batchId=batch)
    local.clock.advance(60)
    omics("DeleteBatch", batchId=batch)
    omics("DeleteRunCache", id=run_cache)
    omics("DeleteRunGroup", id=group)
    for operation, members in (
        ("GetRun", {"id": run_id}),
        ("GetBatch", {"batchId": batch}),
        ("GetRunCache", {"id": run_cache}),
        ("GetRunGroup", {"id": group}),
    ):
        assert omics.error(operation, **members) == ("ResourceNotFoundException", 404)
    assert omics.error("CreateRunGroup", maxRuns=0) == ("ValidationException", 400)
    assert omics.error("StartRun", **{**RUN, "workflowId": "404x"}) == ("ValidationException", 400)
