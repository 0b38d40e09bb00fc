from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import boto3
import botocore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from airflow_provider_omics_cache.local import LocalHealthOmics, mock_healthomics
from airflow_provider_omics_cache.local.protocol import Protocol, Request, Response, matcher
from tests.conftest import HAS_BATCHES, needs_batches
from tests.local.broken_requests import MODEL, OPERATIONS, BrokenRequest, broken_requests, wire
from tests.local.conftest import DEFAULT_RUN_SETTING, new_client, run_settings

SIGNED = {
    "authorization": "AWS4-HMAC-SHA256 Credential=testing/20261120/us-east-1/omics/aws4_request, "
    "SignedHeaders=host, Signature=0"
}
CACHE, BATCH, RUN, GROUP = "1000001", "1000002", "1000003", "8"
ARN = f"arn:aws:omics:us-east-1:123456789012:runCache/{CACHE}"
VALID: dict[str, dict[str, Any]] = {
    "CreateRunCache": {"cacheS3Location": "s3://caches/x", "requestId": "new"},
    "GetRunCache": {"id": CACHE},
    "ListRunCaches": {},
    "UpdateRunCache": {"id": CACHE},
    "DeleteRunCache": {"id": CACHE},
    "StartRunBatch": {
        "requestId": "new",
        "defaultRunSetting": DEFAULT_RUN_SETTING,
        "batchRunSettings": {"inlineSettings": run_settings(1)},
    },
    "GetBatch": {"batchId": BATCH},
    "ListBatch": {},
    "ListRunsInBatch": {"batchId": BATCH},
    "CancelRunBatch": {"batchId": BATCH},
    "DeleteRunBatch": {"batchId": BATCH},
    "DeleteBatch": {"batchId": BATCH},
    "StartRun": {**DEFAULT_RUN_SETTING, "requestId": "new"},
    "GetRun": {"id": RUN},
    "ListRuns": {},
    "CancelRun": {"id": RUN},
    "DeleteRun": {"id": RUN},
    "ListRunTasks": {"id": RUN},
    "GetRunTask": {"id": RUN, "taskId": f"{RUN}001"},
    "CreateRunGroup": {"requestId": "new"},
    "GetRunGroup": {"id": GROUP},
    "ListRunGroups": {},
    "UpdateRunGroup": {"id": GROUP},
    "DeleteRunGroup": {"id": GROUP},
    "CreateWorkflow": {"requestId": "new", "definitionZip": "AA=="},
    "GetWorkflow": {"id": "4711"},
    "ListWorkflows": {},
    "UpdateWorkflow": {"id": "4711"},
    "DeleteWorkflow": {"id": "4711"},
    "CreateWorkflowVersion": {
        "requestId": "new",
        "workflowId": "4711",
        "versionName": "v2",
        "definitionZip": "AA==",
    },
    "GetWorkflowVersion": {"workflowId": "4711", "versionName": "v1"},
    "ListWorkflowVersions": {"workflowId": "4711"},
    "UpdateWorkflowVersion": {"workflowId": "4711", "versionName": "v1"},
    "DeleteWorkflowVersion": {"workflowId": "4711", "versionName": "v1"},
    "CreateConfiguration": {"requestId": "new", "name": "vpc-2", "runConfigurations": {}},
    "GetConfiguration": {"name": "vpc-1"},
    "ListConfigurations": {},
    "DeleteConfiguration": {"name": "vpc-1"},
    "TagResource": {"resourceArn": ARN, "tags": {"a": "b"}},
    "UntagResource": {"resourceArn": ARN, "tagKeys": ["a"]},
    "ListTagsForResource": {"resourceArn": ARN},
}
# What a state does not allow at the time that the requests are made.
FINISHED_FIRST = {"DeleteRunBatch", "DeleteBatch", "DeleteRun", "GetRunTask"}
BROKEN = [broken for name in OPERATIONS for broken in broken_requests(name, VALID[name])]


def populate(local: LocalHealthOmics) -> None:
    """Make a run cache, and where botocore can, a batch of five runs, with the ids above."""
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="caches")
    local.register_run_group(GROUP)
    local.register_workflow("4711")
    local.register_workflow_version("4711", "v1")
    omics = new_client("omics")
    if "CreateConfiguration" in OPERATIONS:
        omics.create_configuration(name="vpc-1", runConfigurations={})
    assert omics.create_run_cache(cacheS3Location="s3://caches", tags={"a": "b"})["id"] == CACHE
    if HAS_BATCHES:
        inline = {"inlineSettings": run_settings(5)}
        batch = omics.start_run_batch(defaultRunSetting=DEFAULT_RUN_SETTING, batchRunSettings=inline)
        assert batch["id"] == BATCH
        local.clock.advance(4)
        assert omics.list_runs()["items"][0]["id"] == RUN


@pytest.fixture
def local() -> Iterator[LocalHealthOmics]:
    with mock_healthomics() as local:
        populate(local)
        yield local


@pytest.fixture(scope="module")
def untouched() -> Iterator[tuple[LocalHealthOmics, list[Any]]]:
    """A local HealthOmics that no request may change, and what is in it."""
    with mock_healthomics() as local:
        populate(local)
        yield local, contents(local)


def ask(local: LocalHealthOmics, operation: str, **parameters: Any) -> Response:
    return local.handle(wire(operation, parameters), SIGNED)


def contents(local: LocalHealthOmics) -> list[Any]:
    """Everything that the operations show."""
    shown = [ask(local, "ListRunCaches"), ask(local, "GetRunCache", id=CACHE), ask(local, "ListRuns")]
    shown += [ask(local, "ListTagsForResource", resourceArn=ARN)]
    if HAS_BATCHES:
        shown += [ask(local, name, batchId=BATCH) for name in ("GetBatch", "ListRunsInBatch")]
        shown += [ask(local, "ListBatch"), ask(local, "GetRun", id=RUN)]
    assert {response.status for response in shown} == {200}
    return [json.loads(response.body) for response in shown]


def error_of(response: Response) -> tuple[int, str, str]:
    message = json.loads(response.body)
    assert set(message) == {"message"}
    assert response.headers["Content-Type"] == "application/json"
    return response.status, response.headers["x-amzn-ErrorType"], message["message"]


def test_every_operation_of_the_service_is_tested(local: LocalHealthOmics) -> None:
    assert local.operations == set(OPERATIONS)
    if HAS_BATCHES:
        assert set(OPERATIONS) == set(VALID)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_requests_that_are_broken_are_valid_before(local: LocalHealthOmics, operation: str) -> None:
    if operation in ("GetRun", "CancelRun", "DeleteRun", "ListRunTasks", "GetRunTask") and not HAS_BATCHES:
        pytest.skip("the installed botocore cannot start runs")
    if operation in FINISHED_FIRST:
        local.clock.advance(1_000)

    response = ask(local, operation, **VALID[operation])

    assert response.status == MODEL.operation_model(operation).http["responseCode"]


def test_there_are_broken_requests_of_every_kind() -> None:
    rules = {broken.rule.split()[-1] for broken in BROKEN}

    assert {"type", "required", "pattern", "enum", "min", "max"} <= rules
    if HAS_BATCHES:
        assert {"none", "all"} <= rules
        assert len(BROKEN) > 200


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_a_broken_request_is_refused_and_changes_nothing(
    untouched: tuple[LocalHealthOmics, list[Any]], broken: BrokenRequest
) -> None:
    local, before = untouched

    status, code, message = error_of(ask(local, broken.operation, **broken.parameters))

    assert (status, code) == (400, "ValidationException")
    assert re.match(r"[1-9]\d* validation errors? detected: Value ", message)
    assert f"' at '{broken.path}" in message or f"null at '{broken.path}" in message
    assert len(message) < 3_000
    assert contents(local) == before


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"x"', b"7", b"\xff", b'{"name": NaN}', b'{"name": -Infinity}', b'{"name": 1e999}', b"[" * 100_000],
)
@pytest.mark.parametrize("operation", [name for name in ("CreateRunCache", "StartRunBatch") if name in OPERATIONS])
def test_what_is_no_json_object_is_refused(
    untouched: tuple[LocalHealthOmics, list[Any]], operation: str, body: bytes
) -> None:
    local, before = untouched
    request = wire(operation, VALID[operation])

    status, code, _ = error_of(local.handle(Request(request.method, request.path, "", body), SIGNED))

    assert (status, code) == (400, "ValidationException")
    assert contents(local) == before


@needs_batches
def test_a_document_holds_no_nan(local: LocalHealthOmics) -> None:
    setting = {"runSettingId": "a", "parameters": {"depth": float("nan")}}
    request = {**VALID["StartRunBatch"], "batchRunSettings": {"inlineSettings": [setting]}}

    assert error_of(ask(local, "StartRunBatch", **request))[:2] == (400, "ValidationException")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/referencestores"),
        ("PUT", "/runCache"),
        ("GET", "/runCache/"),
        ("GET", "/runCache/1/2"),
        ("POST", "/runBatch/explode"),
        ("OPTIONS", "/runBatch"),
    ],
)
def test_an_unknown_operation_is_told(untouched: tuple[LocalHealthOmics, list[Any]], method: str, path: str) -> None:
    local, before = untouched

    assert error_of(local.handle(Request(method, path), SIGNED))[:2] == (404, "UnknownOperationException")
    assert contents(local) == before


def test_a_request_that_is_not_signed_is_refused(local: LocalHealthOmics) -> None:
    assert error_of(local.handle(wire("ListRunCaches", {}), {}))[:2] == (403, "AccessDeniedException")


def test_members_that_the_model_does_not_know_are_refused(local: LocalHealthOmics) -> None:
    request = wire("CreateRunCache", VALID["CreateRunCache"])

    def ask_with(**members: Any) -> Response:
        body = json.dumps({**VALID["CreateRunCache"], **members}).encode()
        return local.handle(Request(request.method, request.path, "future=1", body), SIGNED)

    status, code, message = error_of(ask_with(future=1))
    assert (status, code) == (400, "ValidationException")
    assert f"The model of the API in botocore {botocore.__version__} has no member 'future'" in message
    assert "install a newer botocore" in message
    assert "install a newer botocore" in error_of(ask_with(sessionPolicy="{}"))[2]
    assert ask_with(future=None, name=None).status == 201

    if HAS_BATCHES:
        for name, path in (("defaultRunSetting", "defaultRunSetting.future"), ("batchRunSettings", "1.member.future")):
            parameters = copy.deepcopy(VALID["StartRunBatch"])
            place = parameters[name] if name == "defaultRunSetting" else parameters[name]["inlineSettings"][0]
            place["future"] = 1
            assert f"{path}'" in error_of(ask(local, "StartRunBatch", **parameters))[2]


#: Members that came to requests after the oldest supported botocore, with the first version that has them.
FIRST_VERSIONS = {
    ("StartRun", "networkingMode"): "1.42.78",
    ("StartRun", "configurationName"): "1.42.78",
    ("StartRun", "engineSettings"): "1.43.18",
    ("StartRun", "scratchStorageMode"): "1.43.35",
    ("StartRun", "sessionPolicy"): "1.43.90",
    ("StartRun", "outputUriPrefixMode"): "1.43.123",
    ("StartRunBatch", "networkingMode"): "1.42.97",
    ("StartRunBatch", "configurationName"): "1.42.97",
    ("StartRunBatch", "engineSettings"): "1.43.25",
    ("StartRunBatch", "scratchStorageMode"): "1.43.35",
    ("StartRunBatch", "sessionPolicy"): "1.43.90",
}


def test_the_version_that_has_a_member_is_named(local: LocalHealthOmics) -> None:
    absent = Protocol([*OPERATIONS, "StartRunOfTheFuture"]).absent()
    assert absent[0] == "StartRunOfTheFuture"
    for (operation, member), version in FIRST_VERSIONS.items():
        if operation not in OPERATIONS:
            continue
        is_known = Version(botocore.__version__) >= Version(version)
        request = wire(operation, VALID[operation])
        body = json.loads(request.body)
        body.get("defaultRunSetting", body)[member] = 1
        message = error_of(local.handle(dataclasses.replace(request, body=json.dumps(body).encode()), SIGNED))[2]
        assert (f"install botocore>={version} in" in message) == (not is_known), message
        shape = "StartRunRequest" if operation == "StartRun" else "DefaultRunSetting"
        assert (f"{shape}.{member} (botocore>={version})" in absent) == (not is_known)


def test_values_are_shown_short_and_session_policies_not_at_all(local: LocalHealthOmics) -> None:
    *_, message = error_of(ask(local, "CreateRunCache", cacheS3Location="x" * 10_000, requestId="y" * 10_000))
    assert message.startswith("2 validation errors detected: ")
    assert "x" * 64 + "...'" in message
    assert "x" * 65 not in message

    if HAS_BATCHES and "sessionPolicy" in MODEL.shape_for("DefaultRunSetting").members:
        default = {**DEFAULT_RUN_SETTING, "sessionPolicy": "secret\u0007"}
        *_, message = error_of(ask(local, "StartRunBatch", **{**VALID["StartRunBatch"], "defaultRunSetting": default}))
        assert "sessionPolicy" in message
        assert "secret" not in message


def test_a_failure_of_the_service_itself_is_json(local: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(local.clock, "advance", fail)

    status, code, message = error_of(ask(local, "ListRunCaches"))

    assert (status, code) == (500, "InternalServerException")
    assert "secret" not in message


def test_every_pattern_of_the_model_can_be_checked() -> None:
    patterns = {
        shape.metadata["pattern"]
        for name in MODEL.shape_names
        if "pattern" in (shape := MODEL.shape_for(name)).metadata
        and shape.name in {s.name for operation in OPERATIONS for s in _shapes(operation)}
    }
    assert len(patterns) >= 3
    for pattern in patterns:
        assert matcher(pattern)("\x00") is False


def _shapes(operation: str) -> Iterator[Any]:
    waiting = [MODEL.operation_model(operation).input_shape]
    while waiting:
        shape: Any = waiting.pop()
        if shape is None:
            continue
        yield shape
        waiting += list(getattr(shape, "members", {}).values())
        waiting += [getattr(shape, name) for name in ("member", "key", "value") if hasattr(shape, name)]


SHOWABLE = st.characters(exclude_categories=["C"])
TEXT = st.text(SHOWABLE, min_size=1, max_size=64)
TAGS = st.dictionaries(
    st.text(SHOWABLE, min_size=1, max_size=64).filter(lambda key: not key.lower().startswith("aws:")),
    st.text(SHOWABLE, max_size=64),
    max_size=5,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(name=TEXT, description=TEXT, tags=TAGS, data=st.data())
def test_valid_run_caches_come_back_as_they_were_given(
    name: str, description: str, tags: dict[str, str], data: st.DataObject
) -> None:
    with mock_healthomics() as local:
        local.settings.check_cache_bucket = False
        omics = new_client("omics")
        location = data.draw(st.from_regex(r"s3://[a-z0-9][a-z0-9.-]{1,20}[a-z0-9](/[a-z/]{0,20})?", fullmatch=True))
        created = omics.create_run_cache(cacheS3Location=location, name=name, description=description, tags=tags)

        found = omics.get_run_cache(id=created["id"])

        assert (found["name"], found["description"], found["tags"]) == (name, description, tags)
        assert found["cacheS3Uri"].startswith(location)
        assert omics.list_tags_for_resource(resourceArn=created["arn"])["tags"] == tags


@needs_batches
@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(TEXT, min_size=1, max_size=10, unique=True),
    default=st.dictionaries(st.text(), JSON, max_size=3),
    own=st.dictionaries(st.text(), JSON, max_size=3),
    run_name=TEXT,
)
def test_valid_batches_come_back_as_they_were_given(
    ids: list[str], default: dict[str, Any], own: dict[str, Any], run_name: str
) -> None:
    with mock_healthomics() as local:
        omics = new_client("omics")
        inline = [{"runSettingId": run_setting_id, "parameters": own, "name": run_name} for run_setting_id in ids]
        batch = omics.start_run_batch(
            defaultRunSetting={**DEFAULT_RUN_SETTING, "parameters": default},
            batchRunSettings={"inlineSettings": inline},
        )
        local.clock.advance(100)
        rows = omics.list_runs_in_batch(batchId=batch["id"])["runs"]

        assert [row["runSettingId"] for row in rows] == ids
        run = omics.get_run(id=rows[-1]["runId"])
        assert run["parameters"] == {**default, **own}
        assert run["name"] == run_name
        assert omics.get_batch(batchId=batch["id"])["defaultRunSetting"]["parameters"] == default
