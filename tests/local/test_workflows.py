"""Workflows, their versions, and configurations; what runs need of them."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_omics_cache.local import LocalHealthOmics
from tests.conftest import needs_batches
from tests.local.broken_requests import OPERATIONS
from tests.local.conftest import DEFAULT_RUN_SETTING, code_of, run_settings
from tests.local.test_single_runs import start

TEMPLATE = {"sample": {"description": "its name"}, "depth": {"optional": True}}


@pytest.fixture(autouse=True)
def strict(local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.strict_workflows = True


def test_a_workflow_that_is_created(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    request = {"name": "germline", "definitionZip": b"zip", "parameterTemplate": TEMPLATE, "requestId": "once"}
    created = omics.create_workflow(**request, tags={"a": "b"})
    workflow_id = created["id"]
    assert omics.create_workflow(**request, tags={"a": "b"})["id"] == workflow_id
    assert created["status"] == omics.get_workflow(id=workflow_id)["status"] == "CREATING"
    with pytest.raises(ClientError, match="is CREATING, not ACTIVE") as error:
        start(omics, workflowId=workflow_id, parameters={"sample": "a"})
    assert code_of(error) == ("ResourceNotFoundException", 404)
    local_healthomics.clock.advance(10)

    workflow = omics.get_workflow(id=workflow_id)
    assert (workflow["status"], workflow["type"], workflow["parameterTemplate"]) == ("ACTIVE", "PRIVATE", TEMPLATE)
    assert workflow["tags"] == omics.list_tags_for_resource(resourceArn=workflow["arn"])["tags"] == {"a": "b"}
    assert start(omics, workflowId=workflow_id, parameters={"sample": "a"})
    for parameters, text in (({}, "missing for the workflow: sample"), ({"sample": 1, "dpeth": 2}, "template: dpeth")):
        with pytest.raises(ClientError, match=text) as error:
            start(omics, workflowId=workflow_id, parameters=parameters)
        assert code_of(error) == ("ValidationException", 400)

    omics.update_workflow(id=workflow_id, name="somatic")
    local_healthomics.register_workflow("17", name="other")
    assert [item["name"] for item in omics.list_workflows()["items"]] == ["other", "somatic"]
    assert [item["id"] for item in omics.list_workflows(name="somatic")["items"]] == [workflow_id]
    for gone in (workflow_id, "17"):
        omics.delete_workflow(id=gone)
        with pytest.raises(ClientError, match=f"Workflow {gone} not found") as error:
            omics.get_workflow(id=gone)
        assert code_of(error) == ("ResourceNotFoundException", 404)
    assert omics.list_workflows()["items"] == []


@pytest.mark.parametrize(
    "sources", [{}, {"definitionZip": b"zip", "definitionUri": "s3://caches/x.zip"}, {"definitionUri": "x.zip"}]
)
def test_a_workflow_has_one_definition(omics: Any, sources: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match="definition") as error:
        omics.create_workflow(**sources)
    assert code_of(error) == ("ValidationException", 400)


@pytest.mark.skipif("CreateWorkflowVersion" not in OPERATIONS, reason="the installed botocore has no versions")
def test_versions(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.register_workflow("4711", parameter_template={})
    version = {"workflowId": "4711", "versionName": "v1"}
    arn = omics.create_workflow_version(**version, definitionZip=b"zip", parameterTemplate=TEMPLATE)["arn"]
    assert arn.endswith(":workflow/4711/version/v1")
    with pytest.raises(ClientError, match="has a version v1 already") as error:
        omics.create_workflow_version(**version, definitionZip=b"zip")
    assert code_of(error) == ("ConflictException", 409)
    local_healthomics.register_workflow_version("4711", "v2", status="INACTIVE")
    local_healthomics.clock.advance(10)
    items = omics.list_workflow_versions(workflowId="4711")["items"]
    assert [(item["versionName"], item["status"]) for item in items] == [("v1", "ACTIVE"), ("v2", "INACTIVE")]
    omics.update_workflow_version(**version, description="faster")
    omics.tag_resource(resourceArn=arn, tags={"a": "b"})
    shown = omics.get_workflow_version(**version)
    assert (shown["description"], shown["parameterTemplate"], shown["tags"]) == ("faster", TEMPLATE, {"a": "b"})

    assert start(omics, workflowVersionName="v1", parameters={"sample": "a"})
    assert start(omics)
    for name, text in (("v2", "4711, version v2, is INACTIVE, not ACTIVE"), ("v3", "4711 has no version v3")):
        with pytest.raises(ClientError, match=text) as error:
            start(omics, workflowVersionName=name)
        assert code_of(error) == ("ResourceNotFoundException", 404)
    omics.delete_workflow_version(**version)
    with pytest.raises(ClientError, match="has no version v1"):
        omics.get_workflow_version(**version)


def test_a_ready2run_workflow_is_found_by_its_type_only(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.register_workflow("9", workflow_type="READY2RUN", name="DeepVariant")
    assert omics.list_workflows()["items"] == []
    assert omics.list_workflows(type="READY2RUN")["items"][0]["name"] == "DeepVariant"
    assert omics.get_workflow(id="9", type="READY2RUN")["type"] == "READY2RUN"
    for call in (lambda: omics.get_workflow(id="9"), lambda: start(omics, workflowId="9")):
        with pytest.raises(ClientError, match="Workflow 9 not found"):
            call()
    run_id = start(omics, workflowId="9", workflowType="READY2RUN", storageType="DYNAMIC")
    assert omics.get_run(id=run_id)["workflowType"] == "READY2RUN"
    for name, value in (("storageType", "STATIC"), ("storageCapacity", 1200), ("cacheId", "1")):
        with pytest.raises(ClientError, match=f"{name} is not supported for READY2RUN workflows; was {value}"):
            start(omics, workflowId="9", workflowType="READY2RUN", **{name: value})


def test_what_a_run_needs(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.register_workflow("4711")
    with pytest.raises(ClientError, match="storageType STATIC requires storageCapacity"):
        start(omics, storageType="STATIC")
    assert start(omics, storageType="STATIC", storageCapacity=1200)
    if "CreateConfiguration" not in OPERATIONS:
        return
    local_healthomics.settings.strict_configurations = True
    with pytest.raises(ClientError, match="networkingMode VPC requires configurationName"):
        start(omics, networkingMode="VPC")
    with pytest.raises(ClientError, match="Configuration lab does not exist"):
        start(omics, networkingMode="VPC", configurationName="lab")
    vpc = {"vpcConfig": {"subnetIds": ["subnet-1"], "securityGroupIds": ["sg-1"]}}
    created = omics.create_configuration(name="lab", runConfigurations=vpc, tags={"a": "b"}, requestId="once")
    again = omics.create_configuration(name="lab", runConfigurations=vpc, tags={"a": "b"}, requestId="once")
    assert again["uuid"] == created["uuid"]
    with pytest.raises(ClientError) as error:
        omics.create_configuration(name="lab", runConfigurations={})
    assert code_of(error) == ("ConflictException", 409)
    assert omics.get_configuration(name="lab")["runConfigurations"] == vpc
    assert [item["name"] for item in omics.list_configurations()["items"]] == ["lab"]
    run = omics.start_run(**DEFAULT_RUN_SETTING, networkingMode="VPC", configurationName="lab")
    assert (run["configuration"]["name"], run["networkingMode"]) == ("lab", "VPC")
    omics.delete_configuration(name="lab")
    with pytest.raises(ClientError) as error:
        omics.get_configuration(name="lab")
    assert code_of(error) == ("ResourceNotFoundException", 404)


def test_tasks_and_profiles_of_a_workflow(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.register_workflow(
        "4711",
        parameter_template={},
        profile_templates={"test": {"small": {}}},
        tasks=[
            {"name": "A", "seconds": 30, "cpus": 16, "instance_type": "omics.m.4xlarge"},
            {"name": "B", "seconds": 5},
        ],
    )
    workflow = omics.get_workflow(id="4711")
    if "profiles" in workflow:  # botocore drops members that its model does not have
        assert (workflow["profiles"], workflow["profileParameterTemplates"]) == (["test"], {"test": {"small": {}}})
    run_id = start(omics)
    local_healthomics.clock.advance(36)
    first, second = omics.list_run_tasks(id=run_id)["items"]
    assert (first["name"], first["cpus"], first["instanceType"]) == ("A", 16, "omics.m.4xlarge")
    assert (first["status"], second["status"]) == ("COMPLETED", "RUNNING")
    assert [task["name"] for task in omics.list_run_tasks(id=run_id, status="RUNNING")["items"]] == ["B"]
    with pytest.raises(ValueError, match="cpus of task A must be a number of at least 1; got 0"):
        local_healthomics.register_workflow("1", tasks=[{"name": "A", "cpus": 0}])
    with pytest.raises(ValueError, match="must have from 1 to 999 tasks; got 0"):
        local_healthomics.register_workflow("1", tasks=[])


@needs_batches
def test_a_batch_of_a_workflow_that_is_not_active_starts_no_run(
    omics: Any, local_healthomics: LocalHealthOmics
) -> None:
    local_healthomics.register_workflow("4711", status="INACTIVE")
    batch_id = omics.start_run_batch(
        defaultRunSetting=DEFAULT_RUN_SETTING, batchRunSettings={"inlineSettings": run_settings(2)}
    )["id"]
    local_healthomics.clock.advance(100)
    rows = omics.list_runs_in_batch(batchId=batch_id)["runs"]
    assert {row["submissionFailureReason"] for row in rows} == {"ResourceNotFoundException"}
    assert {row["submissionFailureMessage"] for row in rows} == {"Workflow 4711 is INACTIVE, not ACTIVE"}
