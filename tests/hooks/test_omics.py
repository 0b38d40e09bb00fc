"""The hook's methods, one for each operation, and the errors of failed calls."""

from __future__ import annotations

import inspect
import json
import os
import pickle
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore
import botocore.loaders
import botocore.session
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from botocore.stub import Stubber

from airflow_provider_omics_cache.exceptions import (
    OmicsApiError,
    OmicsParameterError,
    OmicsRequestError,
    OmicsVersionError,
)
from airflow_provider_omics_cache.healthomics.run_caches import check_bucket
from airflow_provider_omics_cache.hooks.arguments import check_id
from airflow_provider_omics_cache.hooks.errors import api_error
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from tests.conftest import HAS_BATCHES, needs_batches, needs_session_policies

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN_CACHE_OPERATIONS = ["CreateRunCache", "GetRunCache", "ListRunCaches", "UpdateRunCache", "DeleteRunCache"]
BATCH_OPERATIONS = [
    "StartRunBatch",
    "GetBatch",
    "ListBatch",
    "ListRunsInBatch",
    "CancelRunBatch",
    "DeleteRunBatch",
    "DeleteBatch",
]
RUN_OPERATIONS = ["StartRun", "GetRun", "ListRuns", "CancelRun", "DeleteRun", "ListRunTasks", "GetRunTask"]
RUN_GROUP_OPERATIONS = ["CreateRunGroup", "GetRunGroup", "ListRunGroups", "UpdateRunGroup", "DeleteRunGroup"]
WORKFLOW_OPERATIONS = ["GetWorkflow", "GetWorkflowVersion", "ListWorkflows", "GetConfiguration"]
TAG_OPERATIONS = ["TagResource", "UntagResource", "ListTagsForResource"]
READS = {
    "GetRunCache",
    "ListRunCaches",
    "GetBatch",
    "ListBatch",
    "ListRunsInBatch",
    "GetRun",
    "ListRuns",
    "ListRunTasks",
    "GetRunTask",
    "GetRunGroup",
    "ListRunGroups",
    "GetWorkflow",
    "GetWorkflowVersion",
    "ListWorkflows",
    "GetConfiguration",
    "ListTagsForResource",
}
PARAMETER_OF_ID = {
    "RunCache": "run_cache_id",
    "RunGroup": "run_group_id",
    "Workflow": "workflow_id",
    "RunTasks": "run_id",
    "RunTask": "run_id",
    "Run": "run_id",
}
ITEMS = {
    "ListRunCaches": "items",
    "ListBatch": "items",
    "ListRuns": "items",
    "ListRunsInBatch": "runs",
    "ListRunTasks": "items",
    "ListRunGroups": "items",
    "ListWorkflows": "items",
}
#: Parameters whose members are missing in a supported version of botocore, by operation.
NEWER_PARAMETERS = {
    "ListRuns": {"batch_id"},
    "StartRun": {
        "networking_mode",
        "scratch_storage_mode",
        "configuration_name",
        "session_policy",
        "engine_settings",
        "workflow_version_name",
        "output_uri_prefix_mode",
    },
}
REQUIRED_ANSWERS: dict[str, Any] = {"ListTagsForResource": {"tags": {}}}
FILTERS = {
    "ListBatch": {"status", "name", "runGroupId"},
    "ListRunsInBatch": {"submissionStatus", "runSettingId", "runId"},
}

#: Members that a supported version of botocore does not mark as required.
LATER_REQUIRED = {"StartRun": {"outputUri"}}

MODEL = botocore.session.Session().get_service_model("omics")
OPERATIONS = [
    name
    for name in (
        *RUN_CACHE_OPERATIONS,
        *BATCH_OPERATIONS,
        *RUN_OPERATIONS,
        *RUN_GROUP_OPERATIONS,
        *WORKFLOW_OPERATIONS,
        *TAG_OPERATIONS,
    )
    if name in MODEL.operation_names
]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> OmicsCacheHook:
    connection = {
        "conn_type": "aws",
        "login": "AKIDTESTING",
        "password": "top-secret",
        "extra": {"region_name": "us-east-1"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    return OmicsCacheHook()


@pytest.fixture
def stubber(hook: OmicsCacheHook, request: pytest.FixtureRequest) -> Iterator[Stubber]:
    """The stubber of the client that makes the call of the parameter ``operation``."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    client = hook.single_attempt_conn if parameters.get("operation") in {"CancelRun", "DeleteRun"} else hook.conn
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def sample(shape: Any) -> Any:
    """Make a value that fits a shape."""
    if shape.type_name == "structure":
        if shape.is_document_type:
            return {"key": "value"}
        members = shape.members.items()
        if shape.is_tagged_union:
            members = list(members)[:1]
        return {name: sample(member) for name, member in members}
    if shape.type_name == "list":
        return [sample(shape.member)]
    if shape.type_name == "map":
        return {sample(shape.key): sample(shape.value)}
    if shape.type_name in {"integer", "long"}:
        return 1
    if shape.type_name == "timestamp":
        return 0
    if shape.enum:
        return shape.enum[0]
    if shape.name == "S3UriForBucketOrObject":
        return "s3://bucket/folder"
    return "1" * max(shape.metadata.get("min", 1), 1)


def required_members(operation: str) -> set[str]:
    return {*MODEL.operation_model(operation).input_shape.required_members, *LATER_REQUIRED.get(operation, ())}


def parameter_of(operation: str, member: str) -> str:
    if member == "id":
        return next(name for end, name in PARAMETER_OF_ID.items() if operation.endswith(end))
    return "workflow_type" if member == "type" else str(xform_name(member))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_has_a_method_for_all_its_members(operation: str) -> None:
    method = getattr(OmicsCacheHook, xform_name(operation))
    parameters = list(inspect.signature(method).parameters.values())[1:]
    shape = MODEL.operation_model(operation).input_shape
    names = {parameter_of(operation, member) for member in shape.members}
    newer = NEWER_PARAMETERS.get(operation, set())
    patience = {"max_silence"} if operation in READS else set()
    assert {parameter.name for parameter in parameters} == names | newer | patience
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    required = {parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty}
    assert required == {parameter_of(operation, name) for name in required_members(operation)} - {"request_id"}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_method_sends_what_is_given(hook: OmicsCacheHook, stubber: Stubber, operation: str) -> None:
    shape = MODEL.operation_model(operation).input_shape
    members = sample(shape)
    filters = FILTERS.get(operation, set())
    for chosen in sorted(filters) or [None]:
        sent = {name: value for name, value in members.items() if name not in filters - {chosen}}
        given = {parameter_of(operation, name): value for name, value in sent.items()}
        answer = REQUIRED_ANSWERS.get(operation, {})
        stubber.add_response(xform_name(operation), answer, sent)
        answered = getattr(hook, xform_name(operation))(**given)
        if operation in ITEMS:
            assert list(answered) == []
        else:
            assert answered == answer


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_method_sends_nothing_else(hook: OmicsCacheHook, stubber: Stubber, operation: str) -> None:
    shape = MODEL.operation_model(operation).input_shape
    members = {name: sample(shape.members[name]) for name in required_members(operation)}
    stubber.add_response(xform_name(operation), REQUIRED_ANSWERS.get(operation, {}), members)
    answer = getattr(hook, xform_name(operation))(
        **{parameter_of(operation, name): value for name, value in members.items()}
    )
    if operation in ITEMS:
        list(answer)


def test_answers_are_botocores_without_metadata(hook: OmicsCacheHook, stubber: Stubber) -> None:
    stubber.add_response("get_run_cache", {"id": "1", "status": "ACTIVE", "ResponseMetadata": {"HTTPStatusCode": 200}})
    assert hook.get_run_cache(run_cache_id="1") == {"id": "1", "status": "ACTIVE"}


@pytest.mark.parametrize("operation", [name for name in ITEMS if name in OPERATIONS])
def test_lists_are_lazy_over_all_pages(hook: OmicsCacheHook, stubber: Stubber, operation: str) -> None:
    key, method = ITEMS[operation], xform_name(operation)
    id_name = {"ListRunsInBatch": "runSettingId", "ListRunTasks": "taskId"}.get(operation, "id")
    sent = {"ListRunsInBatch": {"batchId": "5"}, "ListRunTasks": {"id": "5"}}.get(operation, {})
    given = {parameter_of(operation, name): value for name, value in sent.items()}
    stubber.add_response(method, {key: [{id_name: "1"}, {id_name: "2"}], "nextToken": "a"}, sent)
    items = getattr(hook, method)(**given)
    assert next(items) == {id_name: "1"}
    stubber.assert_no_pending_responses()
    stubber.add_response(method, {key: [], "nextToken": "b"}, {**sent, "startingToken": "a"})
    stubber.add_response(method, {key: [{id_name: "3"}]}, {**sent, "startingToken": "b"})
    assert list(items) == [{id_name: "2"}, {id_name: "3"}]


def test_a_list_that_repeats_its_page_is_an_error(hook: OmicsCacheHook, stubber: Stubber) -> None:
    stubber.add_response("list_run_caches", {"items": [], "nextToken": "a"})
    stubber.add_response("list_run_caches", {"items": [], "nextToken": "a"})
    with pytest.raises(OmicsApiError, match="ListRunCaches returned the same nextToken twice"):
        list(hook.list_run_caches())


@needs_batches
@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("list_batch", {"name": "x", "status": "FAILED"}),
        ("list_batch", {"name": "x", "run_group_id": "1"}),
        ("list_runs_in_batch", {"batch_id": "1", "run_id": "1", "run_setting_id": "x"}),
        ("list_runs_in_batch", {"batch_id": "1", "submission_status": "FAILED", "run_setting_id": "x"}),
    ],
)
def test_two_filters_are_refused_before_the_call(
    hook: OmicsCacheHook, stubber: Stubber, method: str, given: dict[str, Any]
) -> None:
    with pytest.raises(OmicsParameterError, match=f"{method} takes at most one of"):
        getattr(hook, method)(**given)


@pytest.mark.parametrize("value", [None, "", "None", "abc", "1" * 19, "1.0", 1.5, True, "12\n"])
def test_a_value_that_is_not_an_id_is_refused_by_name(hook: OmicsCacheHook, stubber: Stubber, value: Any) -> None:
    with pytest.raises(OmicsParameterError, match="run_cache_id must be an id of 1 to 18 digits") as caught:
        hook.get_run_cache(run_cache_id=value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(("value", "text"), [("7", "7"), (7, "7"), ("9" * 18, "9" * 18)])
def test_ids_become_strings(value: Any, text: str) -> None:
    assert check_id("batch_id", value) == text


def test_a_service_error_is_reported_with_code_and_request_id(hook: OmicsCacheHook, stubber: Stubber) -> None:
    stubber.add_client_error(
        "get_run_cache",
        "ResourceNotFoundException",
        "no such cache",
        404,
        response_meta={"RequestId": "request-7"},
    )
    with pytest.raises(OmicsApiError) as caught:
        hook.get_run_cache(run_cache_id="1")
    error = caught.value
    assert (error.code, error.http_status, error.operation, error.request_id, error.reason) == (
        "ResourceNotFoundException",
        404,
        "GetRunCache",
        "request-7",
        "no such cache",
    )
    assert str(error) == ("GetRunCache failed: ResourceNotFoundException: no such cache (request id request-7)")
    assert isinstance(error.__cause__, ClientError)
    assert not isinstance(error, OmicsRequestError)
    assert pickle.loads(pickle.dumps(error)).code == error.code


def test_a_refused_request_is_not_retried(hook: OmicsCacheHook, stubber: Stubber) -> None:
    stubber.add_client_error("update_run_cache", "ValidationException", "too long", 400)
    with pytest.raises(OmicsRequestError, match="UpdateRunCache failed: ValidationException: too long"):
        hook.update_run_cache(run_cache_id="1", description="x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cacheS3Location: no such bucket", "cacheS3Location: no such bucket (cacheS3Location was 's3://bucket/x')"),
        ("no such bucket", "no such bucket (cacheS3Location was 's3://bucket/x', name was 'cohort')"),
        ("Value 'cohort' at 'name' is bad", "Value 'cohort' at 'name' is bad"),
        ("Value 'token' at 'requestId' is bad", "Value 'token' at 'requestId' is bad"),
        ("The quota 'x' is used up", "The quota 'x' is used up"),
        ('The quota "x" is used up', 'The quota "x" is used up'),
        ("tags are not right", "tags are not right"),
    ],
)
def test_a_refusal_names_the_value(hook: OmicsCacheHook, stubber: Stubber, text: str, reason: str) -> None:
    stubber.add_client_error("create_run_cache", "ValidationException", text, 400)
    with pytest.raises(OmicsRequestError) as caught:
        hook.create_run_cache(cache_s3_location="s3://bucket/x", name="cohort", tags={"a": "b"}, request_id="token")
    assert str(caught.value) == f"CreateRunCache failed: ValidationException: {reason}"
    assert caught.value.reason == text


def test_what_botocore_refuses_names_parameter_and_value(hook: OmicsCacheHook) -> None:
    with pytest.raises(OmicsRequestError) as caught:
        hook.create_run_cache(cache_s3_location="s3://bucket", name=7)  # type: ignore[arg-type]
    assert caught.value.code == "ParamValidationError"
    assert "parameter name, value: 7, type: <class 'int'>" in str(caught.value)


@needs_batches
@pytest.mark.parametrize("policy", [{"Statement": "s3cret"}, ["s3cret"], b"s3cret"])
def test_no_payload_gets_into_an_error(hook: OmicsCacheHook, policy: Any) -> None:
    with pytest.raises(OmicsRequestError) as caught:
        hook.start_run_batch(
            default_run_setting={"workflowId": "1", "roleArn": {"s3cret": "x" * 1000}, "sessionPolicy": policy},
            batch_run_settings={"inlineSettings": [{"runSettingId": "a", "name": ["s3cret"]}]},
        )
    for error in (caught.value, caught.value.__cause__):
        assert "roleArn" in str(error)
        assert "s3cret" not in str(error)
        assert len(str(error)) < 2000


def assert_not_shown(error: BaseException) -> None:
    for shown in (error, error.__cause__):
        assert "s3cret" not in str(shown)
        assert "s3cret" not in repr(vars(shown))


@needs_batches
def test_a_session_policy_that_the_service_repeats_is_not_shown(hook: OmicsCacheHook, stubber: Stubber) -> None:
    stubber.add_client_error(
        "start_run_batch",
        "ValidationException",
        "Value 's3cret' at 'defaultRunSetting.sessionPolicy' failed",
        400,
        response_meta={"RequestId": "request-7"},
    )
    with pytest.raises(OmicsRequestError, match="the service refused sessionPolicy") as caught:
        hook.start_run_batch(
            default_run_setting={"workflowId": "1", "roleArn": "arn"},
            batch_run_settings={"s3UriSettings": "s3://bucket/settings.json"},
        )
    assert caught.value.request_id == "request-7"
    assert_not_shown(caught.value)


@needs_session_policies
def test_a_session_policy_of_a_run_that_the_service_repeats_is_not_shown(
    hook: OmicsCacheHook, stubber: Stubber
) -> None:
    stubber.add_client_error("start_run", "ValidationException", "The policy s3cret is not valid", 400)
    with pytest.raises(OmicsRequestError, match="the service refused sessionPolicy") as caught:
        hook.start_run(role_arn="arn", output_uri="s3://bucket/", workflow_id="1", session_policy="s3cret")
    assert_not_shown(caught.value)


def test_a_connection_error_names_endpoint_and_region() -> None:
    error = api_error(
        EndpointConnectionError(endpoint_url="http://localhost:1/runCache"),
        "ListRunCaches",
        "us-east-1",
        "http://localhost:1",
    )
    assert error.code == "EndpointConnectionError"
    assert "endpoint http://localhost:1, Region us-east-1" in str(error)


NO_CLIENT_CONNECTIONS: dict[str, dict[str, Any]] = {
    "NoRegionError": {},
    "InvalidRegionError": {"region_name": "us east"},
    "EndpointConnectionError": {
        "region_name": "us-east-1",
        "role_arn": "arn:aws:iam::123456789012:role/omics",
        "config_kwargs": {"retries": {"total_max_attempts": 1}},
    },
}


@pytest.mark.parametrize("code", NO_CLIENT_CONNECTIONS)
@pytest.mark.parametrize(
    "call",
    [
        lambda hook: hook.get_run_cache(run_cache_id="1"),
        lambda hook: hook.describe_shape("TagResourceRequest"),
        lambda hook: hook.check_batches(),
        lambda hook: check_bucket(hook, None, cache_s3_location="s3://bucket"),
        lambda hook: check_bucket(hook, None, cache_s3_location="s3://bucket", cache_bucket_owner_id="123456789012"),
    ],
)
def test_a_client_that_cannot_be_made_is_an_api_error(monkeypatch: pytest.MonkeyPatch, code: str, call: Any) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    connection = {"conn_type": "aws", "login": "a", "password": "b", "extra": NO_CLIENT_CONNECTIONS[code]}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    with pytest.raises(OmicsApiError, match=f"CreateClient failed: {code}") as caught:
        call(OmicsCacheHook())
    assert caught.value.code == code
    assert "endpoint None" not in str(caught.value)


def test_credentials_that_are_missing_are_an_api_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(OmicsApiError, match="GetRunCache failed: NoCredentialsError") as caught:
        OmicsCacheHook(aws_conn_id=None, region_name="us-east-1").get_run_cache(run_cache_id="1")
    assert isinstance(caught.value.__cause__, NoCredentialsError)


def test_credentials_are_in_no_error(hook: OmicsCacheHook, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(request: Any, **_: Any) -> None:
        raise EndpointConnectionError(endpoint_url=request.url)

    hook = OmicsCacheHook(config={"retries": {"total_max_attempts": 1}})
    hook.conn.meta.events.register("before-send.omics", refuse)
    with pytest.raises(OmicsApiError) as caught:
        hook.get_run_cache(run_cache_id="1")
    for text in (str(caught.value), repr(caught.value.__dict__), caplog.text):
        assert "top-secret" not in text
        assert "AKIDTESTING" not in text


# The installed botocore's model


@pytest.fixture
def old_botocore(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Put the service model of a botocore without batches before the installed one."""
    model = deepcopy(botocore.loaders.Loader().load_service_model("omics", "service-2", "2022-11-28"))
    for operation in BATCH_OPERATIONS:
        model["operations"].pop(operation, None)
    model["shapes"]["ListRunsRequest"]["members"].pop("batchId", None)
    for name in ("DefaultRunSetting", "InlineSetting"):
        model["shapes"].pop(name, None)
    folder = tmp_path / "models" / "omics" / "2022-11-28"
    folder.mkdir(parents=True)
    (folder / "service-2.json").write_text(json.dumps(model))
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path / "models"))


@pytest.mark.usefixtures("old_botocore")
@pytest.mark.parametrize(
    "call",
    [
        lambda hook: hook.start_run_batch(default_run_setting={}, batch_run_settings={}),
        lambda hook: hook.get_batch(batch_id="1"),
        lambda hook: list(hook.list_batch()),
        lambda hook: list(hook.list_runs_in_batch(batch_id="1")),
        lambda hook: hook.cancel_run_batch(batch_id="1"),
        lambda hook: hook.delete_run_batch(batch_id="1"),
        lambda hook: hook.delete_batch(batch_id="1"),
        lambda hook: hook.describe_shape("InlineSetting"),
        lambda hook: hook.check_batches(),
    ],
)
def test_an_old_botocore_is_reported_at_the_first_batch_call(hook: OmicsCacheHook, call: Any) -> None:
    with pytest.raises(OmicsVersionError) as caught:
        call(hook)
    text = str(caught.value)
    for part in (
        "boto3>=1.42.74",
        "aiobotocore>=3.4.0",
        f"botocore {botocore.__version__}",
        "airflow-provider-omics-cache[batch]",
    ):
        assert part in text
    assert "\n" not in text


@pytest.mark.usefixtures("old_botocore")
def test_run_caches_work_with_an_old_botocore(hook: OmicsCacheHook) -> None:
    with Stubber(hook.conn) as stubber:
        stubber.add_response("get_run_cache", {"id": "1", "status": "ACTIVE"}, {"id": "1"})
        assert hook.get_run_cache(run_cache_id="1")["status"] == "ACTIVE"


@pytest.mark.usefixtures("old_botocore")
def test_a_member_that_an_old_botocore_lacks_is_named(hook: OmicsCacheHook) -> None:
    with pytest.raises(OmicsVersionError, match="does not know batchId of ListRuns; upgrade boto3"):
        list(hook.list_runs(batch_id="1"))


@needs_batches
def test_a_current_botocore_passes_the_check(hook: OmicsCacheHook) -> None:
    hook.check_batches()


@needs_batches
def test_shapes_are_described_as_plain_data(hook: OmicsCacheHook) -> None:
    described = hook.describe_shape("InlineSetting")
    assert json.loads(json.dumps(described)) == described
    assert described["required"] == ["runSettingId"]
    assert described["members"]["runSettingId"] == {"type": "string", "min": 1, "max": 128}
    assert described["members"]["priority"] == {"type": "integer", "min": 0, "max": 100000}
    assert described["members"]["parameters"] == {"type": "document"}
    assert described["members"]["runTags"]["key"] == {"type": "string", "min": 1, "max": 128}
    assert {"workflowId", "roleArn"} <= set(hook.describe_shape("DefaultRunSetting")["members"])


def test_an_unknown_shape_names_the_upgrade(hook: OmicsCacheHook) -> None:
    message = "does not know NewSetting of HealthOmics; upgrade boto3" if HAS_BATCHES else "boto3>=1.42.74"
    with pytest.raises(OmicsVersionError, match=message):
        hook.describe_shape("NewSetting")
