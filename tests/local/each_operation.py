"""One call of each operation of the local HealthOmics, for clients of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmicsServer


class Call(Protocol):
    """Makes a call with a client."""

    def __call__(self, operation: str, **members: Any) -> Any:
        """Call an operation with these members of its request; return the answer."""


def call_each_operation(call: Call, local: LocalHealthOmicsServer, bucket: str) -> None:
    """Call each operation once, and check what it answers.

    :param call: makes a call with the client.
    :param local: the server.
    :param bucket: a bucket that exists.
    """
    definition = f"s3://{bucket}/workflow.zip"
    workflow = call("CreateWorkflow", name="germline", definitionUri=definition, parameterTemplate={"sample": {}})["id"]
    version = {"workflowId": workflow, "versionName": "v1"}
    assert call("CreateWorkflowVersion", **version, definitionUri=definition, engine="WDL")["status"] == "CREATING"
    local.clock.advance(10)
    call("UpdateWorkflow", id=workflow, description="changed")
    call("UpdateWorkflowVersion", **version, description="first")
    found = call("GetWorkflow", id=workflow)
    assert (found["status"], found["name"], found["description"]) == ("ACTIVE", "germline", "changed")
    assert found["parameterTemplate"] == {"sample": {}}
    found = call("GetWorkflowVersion", **version)
    assert (found["status"], found["versionName"], found["description"]) == ("ACTIVE", "v1", "first")
    assert [item["id"] for item in call("ListWorkflows", name="germline")["items"]] == [workflow]
    assert [item["versionName"] for item in call("ListWorkflowVersions", workflowId=workflow)["items"]] == ["v1"]

    network: dict[str, str] = {}
    if "CreateConfiguration" in local.operations:
        vpc = {"securityGroupIds": ["sg-1"], "subnetIds": ["subnet-1"]}
        call("CreateConfiguration", name="private", runConfigurations={"vpcConfig": vpc})
        found = call("GetConfiguration", name="private")
        assert (found["status"], found["runConfigurations"]["vpcConfig"]["subnetIds"]) == ("ACTIVE", ["subnet-1"])
        assert [item["name"] for item in call("ListConfigurations")["items"]] == ["private"]
        network = {"networkingMode": "VPC", "configurationName": "private"}

    run_cache = call("CreateRunCache", name="cohort", cacheS3Location=f"s3://{bucket}/cache/")["id"]
    call("UpdateRunCache", id=run_cache, name="renamed")
    assert call("GetRunCache", id=run_cache)["name"] == "renamed"
    assert [item["id"] for item in call("ListRunCaches")["items"]] == [run_cache]

    group = call("CreateRunGroup", name="capped", maxRuns=20, maxDuration=600)["id"]
    call("UpdateRunGroup", id=group, maxCpus=256)
    found = call("GetRunGroup", id=group)
    assert (found["name"], found["maxCpus"], found["maxRuns"], found["maxDuration"]) == ("capped", 256, 20, 600)
    assert [item["id"] for item in call("ListRunGroups", name="capped")["items"]] == [group]

    setting = {
        "workflowId": workflow,
        "workflowVersionName": "v1",
        "roleArn": "arn:aws:iam::123456789012:role/omics",
        "outputUri": f"s3://{bucket}/runs/",
        "cacheId": run_cache,
    }
    started = call("StartRun", **setting, **network, name="one", runGroupId=group, tags={"a": "b"})
    run_id, arn = started["id"], started["arn"]
    assert started["runOutputUri"] == f"s3://{bucket}/runs/{run_id}/{started['uuid']}"
    settings = [{"runSettingId": "s0"}, {"runSettingId": "s1", "parameters": {"sample": "b"}}]
    batch = call("StartRunBatch", defaultRunSetting=setting, batchRunSettings={"inlineSettings": settings})["id"]
    local.clock.advance(15)
    call("CancelRun", id=run_id)
    call("CancelRunBatch", batchId=batch)
    local.clock.advance(3_600)

    found = call("GetRun", id=run_id)
    assert (found["status"], found["cacheId"]) == ("CANCELLED", run_cache)
    assert found.get("configuration", {}).get("name") == network.get("configurationName")
    tasks = call("ListRunTasks", id=run_id)["items"]
    assert [(task["name"], task["status"]) for task in tasks] == [("Align", "COMPLETED"), ("CallVariants", "CANCELLED")]
    assert call("GetRunTask", id=run_id, taskId=tasks[0]["taskId"])["name"] == "Align"
    assert [item["id"] for item in call("ListRuns", runGroupId=group)["items"]] == [run_id]
    assert call("GetBatch", batchId=batch)["status"] == "CANCELLED"
    assert [item["id"] for item in call("ListBatch")["items"]] == [batch]
    assert [row["runSettingId"] for row in call("ListRunsInBatch", batchId=batch)["runs"]] == ["s0", "s1"]

    call("TagResource", resourceArn=arn, tags={"c": "d"})
    call("UntagResource", resourceArn=arn, tagKeys=["a"])
    assert call("ListTagsForResource", resourceArn=arn)["tags"] == {"c": "d"}

    call("DeleteRun", id=run_id)
    call("DeleteRunBatch", batchId=batch)
    local.clock.advance(60)
    call("DeleteBatch", batchId=batch)
    call("DeleteRunCache", id=run_cache)
    call("DeleteRunGroup", id=group)
    call("DeleteWorkflowVersion", **version)
    call("DeleteWorkflow", id=workflow)
    if network:
        call("DeleteConfiguration", name="private")
    assert local.calls == dict.fromkeys(local.operations, 1)
