"""Runs that StartRun starts, and their tasks."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_omics_cache.local import LocalHealthOmics
from tests.local.conftest import DEFAULT_RUN_SETTING, code_of


def start(omics: Any, **members: Any) -> str:
    run_id: str = omics.start_run(**{**DEFAULT_RUN_SETTING, **members})["id"]
    return run_id


def tasks(omics: Any, run_id: str) -> list[tuple[str, str]]:
    return [(task["name"], task["status"]) for task in omics.list_run_tasks(id=run_id)["items"]]


def test_a_run_from_its_start_to_its_deletion(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    group = omics.create_run_group(name="capped", maxRuns=2)["id"]
    setting = {**DEFAULT_RUN_SETTING, "name": "one", "runGroupId": group, "tags": {"a": "b"}, "requestId": "once"}
    started = omics.start_run(**setting)
    run_id = started["id"]
    assert started["status"] == "PENDING"
    assert started["runOutputUri"] == f"s3://results/out/{run_id}/{started['uuid']}"
    assert omics.start_run(**setting)["id"] == run_id
    with pytest.raises(ClientError) as error:
        omics.start_run(**{**setting, "name": "two"})
    assert code_of(error) == ("ConflictException", 409)
    assert tasks(omics, run_id) == []

    seen = []
    for _ in range(31):
        seen.append(omics.get_run(id=run_id)["status"])
        local_healthomics.clock.advance(1)
    assert list(dict.fromkeys(seen)) == ["PENDING", "STARTING", "RUNNING", "STOPPING", "COMPLETED"]

    run = omics.get_run(id=run_id)
    assert (run["name"], run["runGroupId"], run["tags"]) == ("one", group, {"a": "b"})
    assert "batchId" not in run
    assert [(item["id"], item["status"]) for item in omics.list_runs(name="one")["items"]] == [(run_id, "COMPLETED")]
    assert omics.list_runs(runGroupId=group)["items"][0]["id"] == run_id
    assert omics.list_runs(name="other")["items"] == omics.list_runs(status="FAILED")["items"] == []
    omics.tag_resource(resourceArn=run["arn"], tags={"c": "d"})
    assert omics.get_run(id=run_id)["tags"] == {"a": "b", "c": "d"}
    assert [status for _, status in tasks(omics, run_id)] == ["COMPLETED"] * 3

    omics.delete_run(id=run_id)
    with pytest.raises(ClientError) as error:
        omics.get_run(id=run_id)
    assert code_of(error) == ("ResourceNotFoundException", 404)
    assert omics.list_runs()["items"] == []


def test_a_run_is_cancelled(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    run_id = start(omics)
    with pytest.raises(ClientError) as error:
        omics.delete_run(id=run_id)
    assert code_of(error) == ("ConflictException", 409)
    local_healthomics.clock.advance(15)
    omics.cancel_run(id=run_id)
    assert omics.get_run(id=run_id)["status"] == "STOPPING"
    local_healthomics.clock.advance(5)
    assert omics.get_run(id=run_id)["status"] == "CANCELLED"
    assert tasks(omics, run_id) == [("Align", "COMPLETED"), ("CallVariants", "CANCELLED")]
    with pytest.raises(ClientError) as error:
        omics.cancel_run(id=run_id)
    assert code_of(error) == ("ConflictException", 409)


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"workflowId": "404"}, "ResourceNotFoundException"),
        ({"runGroupId": "404"}, "ResourceNotFoundException"),
        ({"cacheId": "404"}, "ResourceNotFoundException"),
        ({"runId": "404"}, "ResourceNotFoundException"),
        ({"cacheBehavior": "CACHE_ALWAYS"}, "ValidationException"),
        ({"outputUri": "http://results/out"}, "ValidationException"),
        ({"workflowType": "READY2RUN", "storageCapacity": 1200}, "ValidationException"),
        ({"parameters": []}, "ValidationException"),
    ],
)
def test_bad_input_is_refused(
    omics: Any, local_healthomics: LocalHealthOmics, members: dict[str, Any], code: str
) -> None:
    local_healthomics.settings.strict_workflows = local_healthomics.settings.strict_run_groups = True
    local_healthomics.register_workflow("4711")
    with pytest.raises(ClientError) as error:
        start(omics, **members)
    assert code_of(error)[0] == code
    assert omics.list_runs()["items"] == []


def test_run_groups(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.strict_run_groups = True
    local_healthomics.register_run_group("8")
    request = {"name": "a", "maxRuns": 2, "maxDuration": 60, "tags": {"a": "b"}, "requestId": "once"}
    created = omics.create_run_group(**request)
    assert omics.create_run_group(**request)["id"] == created["id"]
    group = omics.get_run_group(id=created["id"])
    assert (group["name"], group["maxRuns"], group["maxDuration"], group["tags"]) == ("a", 2, 60, {"a": "b"})
    assert [item["id"] for item in omics.list_run_groups()["items"]] == ["8", created["id"]]
    omics.update_run_group(id=created["id"], name="b", maxRuns=3)
    assert [item["maxRuns"] for item in omics.list_run_groups(name="b")["items"]] == [3]
    omics.delete_run_group(id=created["id"])
    for run_group_id in (created["id"], "404"):
        with pytest.raises(ClientError) as error:
            omics.get_run_group(id=run_group_id)
        assert code_of(error) == ("ResourceNotFoundException", 404)


def test_a_run_fails_on_demand(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    run_id, other = start(omics, name="bad"), start(omics, name="good")
    local_healthomics.faults.fail_run("bad", reason="OUT_OF_MEMORY_ERROR")
    local_healthomics.clock.advance(100)
    assert omics.get_run(id=other)["status"] == "COMPLETED"
    run = omics.get_run(id=run_id)
    assert (run["status"], run["failureReason"]) == ("FAILED", "OUT_OF_MEMORY_ERROR")
    assert omics.list_runs(status="FAILED")["items"][0]["id"] == run_id
    *_, (name, status) = tasks(omics, run_id)
    assert (name, status) == ("Report", "FAILED")
