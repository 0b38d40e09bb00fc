"""Runs that StartRun starts, and their tasks."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from botocore.loaders import JSONFileLoader, Loader

from airflow_provider_omics_cache.local import LocalHealthOmics, healthomics, mock_healthomics, protocol
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


def test_a_completed_run_is_reported_before_it_is_shown(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    reported: list[dict[str, Any]] = []
    status_meanwhile: list[str] = []

    def report(run: dict[str, Any]) -> None:
        reported.append(run)
        status_meanwhile.append(omics.get_run(id=run["id"])["status"])

    local_healthomics.on_run_completed = report
    local_healthomics.faults.fail_run("bad")
    good, _ = start(omics, name="good"), start(omics, name="bad")
    local_healthomics.clock.advance(100)
    assert omics.get_run(id=good)["status"] == "COMPLETED"
    assert [(run["id"], run["status"]) for run in reported] == [(good, "COMPLETED")]
    assert status_meanwhile == ["STOPPING"]
    omics.list_runs()
    assert len(reported) == 1


def test_a_run_that_duplicates_another(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    first = start(omics, name="one", parameters={"sample": "a"}, retentionMode="REMOVE", tags={"a": "b"})
    needed = {"roleArn": DEFAULT_RUN_SETTING["roleArn"], "outputUri": "s3://results/again"}
    second = omics.start_run(runId=first, **needed, name="two")
    run = omics.get_run(id=second["id"])
    assert (run["runId"], run["workflowId"], run["name"], run["retentionMode"]) == (first, "4711", "two", "REMOVE")
    assert (run["parameters"], run["tags"]) == ({"sample": "a"}, {})
    assert run["runOutputUri"].startswith("s3://results/again/")
    with pytest.raises(ClientError, match="Either workflowId or runId is required") as error:
        omics.start_run(**needed)
    assert code_of(error) == ("ValidationException", 400)


#: What botocore 1.43.123 added to the model.
PREFIX_MODE = {
    "RunOutputUriPrefixMode": {"type": "string", "enum": ["SERVICE_DEFINED", "NONE_WITH_OVERWRITE"]},
    **{
        name: {"members": {"outputUriPrefixMode": {"shape": "RunOutputUriPrefixMode"}}}
        for name in ("StartRunRequest", "GetRunResponse")
    },
}


def test_outputs_without_a_folder_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of the test has ``outputUriPrefixMode``, also if the installed botocore has not."""
    addition = tmp_path / "omics" / "2022-11-28" / "service-2.sdk-extras.json"
    addition.parent.mkdir(parents=True)
    addition.write_text(json.dumps({"version": 1.0, "merge": {"shapes": PREFIX_MODE}}))
    # The tests share the models that were read, and the addition must not change those of other tests.
    models = JSONFileLoader()
    monkeypatch.setattr(models, "load_file", lambda path: copy.deepcopy(JSONFileLoader.load_file(models, path)))
    loader = Loader(extra_search_paths=[str(tmp_path)], file_loader=models)
    monkeypatch.setattr(protocol, "create_loader", lambda: loader)
    newer = protocol.Protocol(healthomics.OPERATIONS)
    monkeypatch.setattr(healthomics, "_protocol", lambda: newer)
    with mock_healthomics(strict=False):
        session = botocore.session.Session()
        session.register_component("data_loader", loader)
        omics = boto3.session.Session("testing", "testing", None, "us-east-1", session).client("omics")
        default, longest = "s3://results/out/", "s3://results/".ljust(750, "x")
        for members, uri in (
            ({}, None),
            ({"outputUriPrefixMode": "SERVICE_DEFINED"}, None),
            ({"outputUriPrefixMode": "NONE_WITH_OVERWRITE"}, default),
            ({"outputUriPrefixMode": "NONE_WITH_OVERWRITE", "outputUri": longest}, longest),
        ):
            started = omics.start_run(**{**DEFAULT_RUN_SETTING, "outputUri": default, **members})
            run = omics.get_run(id=started["id"])
            expected = uri or f"{default}{run['id']}/{run['uuid']}"
            assert started["runOutputUri"] == run["runOutputUri"] == expected
            assert run["outputUriPrefixMode"] == members.get("outputUriPrefixMode", "SERVICE_DEFINED")
        with pytest.raises(ClientError, match="SERVICE_DEFINED, NONE_WITH_OVERWRITE"):
            omics.start_run(**DEFAULT_RUN_SETTING, outputUriPrefixMode="NONE")
        with pytest.raises(ClientError, match="at most 694 characters"):
            omics.start_run(**{**DEFAULT_RUN_SETTING, "outputUri": longest})


def test_an_answer_is_lost_after_the_run_was_started(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.faults.drop_connection("StartRun")
    request = {**DEFAULT_RUN_SETTING, "requestId": "once"}
    with pytest.raises(ConnectionClosedError):
        omics.start_run(**request)
    run_id = omics.start_run(**request)["id"]
    assert [run["id"] for run in omics.list_runs()["items"]] == [run_id]


def test_calls_are_limited(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.rate_limits = {"StartRun": 1, "CreateRunGroup": 1}
    for call in (lambda: start(omics), lambda: omics.create_run_group()):
        call()
        with pytest.raises(ClientError) as error:
            call()
        assert code_of(error) == ("ThrottlingException", 429)
    local_healthomics.clock.advance(1)
    assert start(omics)
