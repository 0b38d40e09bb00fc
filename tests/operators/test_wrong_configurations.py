"""The mistakes that a new user makes: each error names the parameter, the value and the way out."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import (
    OmicsApiError,
    OmicsError,
    OmicsRequestError,
    TooManyFailedRunsError,
)
from airflow_provider_omics_cache.local.clock import Clock
from airflow_provider_omics_cache.operators.run_batch import CancelRunBatchOperator, StartRunBatchOperator
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from airflow_provider_omics_cache.testing.service_time import ServiceTime
from tests.conftest import needs_batches

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

pytestmark = needs_batches

BUCKET = "omics-quickstart"
CACHE = {"name": "x", "cache_s3_location": f"s3://{BUCKET}/cache/"}
DEFAULT = {
    "workflowId": "1234567",
    "roleArn": "arn:aws:iam::123456789012:role/omics",
    "outputUri": f"s3://{BUCKET}/w/",
}
SETTINGS = [{"runSettingId": "A", "parameters": {"sample": "A"}}, {"runSettingId": "B", "parameters": {"sample": "B"}}]
UNKNOWN = {"batch_id": "9999999"}
MANY = [{"runSettingId": f"S{number}"} for number in range(101)]
ONE_ATTEMPT = {"retries": {"total_max_attempts": 1}}
MISSING_CONNECTION = "must be the id of an existing Airflow connection; got 'aws_nope'. Correct the id or create"
NO_EFFECT = "has no effect without wait_for_completion=True: set wait_for_completion=True, or remove"
NOT_A_SHARE = 'must be an integer, 0 or more, or a share from "0%" to "100%"; got'

Case = tuple[str, Callable[..., Any], dict[str, Any], str]


def start(**parameters: Any) -> StartRunBatchOperator:
    return StartRunBatchOperator(**{"default_run_setting": DEFAULT, "run_settings": SETTINGS, **parameters})


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in DEFAULT.items() if key != name}


#: Name, task, its parameters, and how the error begins or what it has.
TASKS: list[Case] = [
    ("c01", CreateRunCacheOperator, {**CACHE, "cache_s3_location": "s3://no-such-bucket-1/c/"}, "no-such-bucket-1"),
    (
        "c02",
        CreateRunCacheOperator,
        {**CACHE, "cache_s3_location": "s3://no-such-bucket-1/c/", "check_bucket": True},
        "cache_s3_location must ",
    ),
    ("c03", CreateRunCacheOperator, {**CACHE, "cache_s3_location": f"{BUCKET}/cache"}, f"{BUCKET}/cache"),
    (
        "c04",
        CreateRunCacheOperator,
        {**CACHE, "cache_behavior": "ALWAYS"},
        "cache_behavior must be one of CACHE_ON_FAILURE, CACHE_ALWAYS; got 'ALWAYS'",
    ),
    (
        "b01",
        start,
        {"default_run_setting": {"workflow_id": "1", "role_arn": "r", "output_uri": "s3://x/"}},
        "default_run_setting has the unknown key 'workflow_id' (did you mean 'workflowId'?)",
    ),
    ("b02", start, {"default_run_setting": without("roleArn")}, "default_run_setting.roleArn is required; got None"),
    (
        "b04",
        start,
        {"run_settings": SETTINGS + SETTINGS[:1]},
        "run_settings[2].runSettingId must be unique; got 'A as in [0]'",
    ),
    ("b05", start, {"run_settings": MANY}, "settings_s3_prefix must be an s3:// URI for more than 100 settings"),
    ("b06", start, {"aws_conn_id": "aws_nope"}, f"aws_conn_id {MISSING_CONNECTION}"),
    (
        "b06, S3",
        start,
        {"s3_conn_id": "aws_nope", "settings_s3_prefix": f"s3://{BUCKET}/settings/"},
        f"s3_conn_id {MISSING_CONNECTION}",
    ),
    (
        "b06, no S3",
        start,
        {"s3_conn_id": "aws_nope"},
        "s3_conn_id has no effect without settings_s3_prefix or runs_s3_uri: set settings_s3_prefix or",
    ),
    (
        "b07",
        start,
        {"run_settings": MANY, "settings_s3_prefix": "s3://no-such-bucket-1/settings/"},
        "settings_s3_prefix must be in a bucket that exists; got 's3://no-such-bucket-1/settings/'",
    ),
    (
        "b10",
        start,
        {"run_settings": [{"sample": "A", "fastq_1": "s3://x/y"}]},
        "run_settings[0] must be a run setting, not a row of a table: make run settings with run_settings_from_table",
    ),
    (
        "b11",
        start,
        {"run_settings": [{"runSettingId": 1, "parameters": {"a": 1}}]},
        "run_settings[0].runSettingId must be a string of 1 to ",
    ),
    ("b12", start, {"run_settings": []}, "run_settings must have at least one setting; got []"),
    ("b13", start, {"run_settings": '[{"runSettingId": "A"}]'}, "run_settings must be a list of dicts or an s3:// URI"),
    ("b16", start, {"default_run_setting": without("outputUri")}, "run_settings[0].outputUri must be given here or in"),
    (
        "b18",
        start,
        {"wait_for_completion": True, "max_failed_runs": "2 percent"},
        f"max_failed_runs {NOT_A_SHARE} '2 percent'",
    ),
    ("b18, no wait", start, {"max_failed_runs": "2%"}, f"max_failed_runs {NO_EFFECT} max_failed_runs; got '2%'"),
    ("b18, timeout", start, {"timeout": 60}, f"timeout {NO_EFFECT} timeout; got 60"),
    ("b18, kill", start, {"cancel_on_kill": True}, f"cancel_on_kill {NO_EFFECT} cancel_on_kill; got True"),
    (
        "b20",
        start,
        {"default_run_setting": {**DEFAULT, "cacheBehavior": "CACHE_ALWAYS"}},
        "default_run_setting.cacheBehavior has no effect without cacheId: set cacheId, or remove cacheBehavior; got",
    ),
    ("s01", BatchCompletionSensor, {"batch_id": None}, "batch_id must be an id of 1 to 18 digits; got None"),
    (
        "s02",
        BatchCompletionSensor,
        {"batch_id": "my-batch"},
        "batch_id must be an id of 1 to 18 digits; got 'my-batch'",
    ),
    (
        "s03",
        BatchCompletionSensor,
        {"batch_id": "9999999", "poke_interval": 2},
        "Batch 9999999 was not found in account",
    ),
    (
        "s04",
        BatchSubmissionSensor,
        {"batch_id": "9999999", "poke_interval": 2},
        "Batch 9999999 was not found in account",
    ),
    (
        "s05",
        BatchCompletionSensor,
        {**UNKNOWN, "include_outputs": True},
        "include_outputs needs runs_s3_uri, where the outputs are written: set runs_s3_uri, or remove include_outputs",
    ),
    (
        "s06",
        BatchCompletionSensor,
        {**UNKNOWN, "aws_conn_id": "aws_nope"},
        f"aws_conn_id {MISSING_CONNECTION}",
    ),
    ("x01", CancelRunBatchOperator, UNKNOWN, "Batch 9999999 was not found in account"),
]

#: Why these tasks start: default_run_setting, and the error of the batch. Each check would need a permission that
#: StartRunBatch does not need: s3:ListBucket or omics:GetRunCache.
FOUND_BY_THE_SERVICE: list[tuple[str, dict[str, Any], str]] = [
    (
        "b08, the output bucket does not exist",
        {**DEFAULT, "outputUri": "s3://no-such-bucket-1/"},
        "2 runs did not complete: EXPORT_FAILED: ",
    ),
    (
        "b14, the run cache does not exist",
        {**DEFAULT, "cacheId": "1008271"},
        "2 runs did not complete: not submitted, ResourceNotFoundException: Run cache 1008271 does not exist",
    ),
]
#: The service refuses the request. botocore's model gives no rule for a role. What the message has.
REFUSED_BY_THE_SERVICE: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "b09, the workflow does not exist",
        {**DEFAULT, "workflowId": "7654321"},
        ["ResourceNotFoundException: Workflow 7654321 not found"],
    ),
    (
        "b03, the role is not an ARN",
        {**DEFAULT, "roleArn": "omics-role"},
        [
            "ValidationException: ",
            "Value 'omics-role' at 'defaultRunSetting.roleArn'",
            "regular expression pattern: arn:.+",
        ],
    ),
]
#: A client of a Region without HealthOmics has an endpoint whose name cannot be resolved.
NO_ENDPOINT = {"b19": "eu-central-9"}
#: Why these settings are no mistakes.
VALID: list[tuple[str, dict[str, Any]]] = [
    ("b15, an id that is an integer is used as a string", {"default_run_setting": {**DEFAULT, "workflowId": 1234567}}),
    (
        "b17, None is null in JSON, and a workflow decides whether a parameter can be null",
        {"run_settings": [{"runSettingId": "A", "parameters": {"fastq_2": None}}]},
    ),
]
#: Airflow renders the templates of a task before the package's code runs.
NOT_OF_THE_PACKAGE = {"b21": "an Airflow variable does not exist: the error is Airflow's"}

#: Name, content or URI of the sheet, parameters of run_settings_from_table, and parts of the error.
SHEETS: list[tuple[str, Any, dict[str, Any], list[str]]] = [
    ("empty cell", "ok.csv", {}, ["rows, row 1 (line 2), column 'fastq_2' must not be empty", "ok.csv"]),
    ("no column", "ok.csv", {"parameters": {"s": "Sample"}}, ["rows must have the column 'Sample'", "ok.csv"]),
    ("another column", "ok.csv", {"parameters": {"s": "strandedness"}}, ["must have the column 'strandedness'"]),
    ("no file", "nope.csv", {}, ["rows must exist in S3", "nope.csv"]),
    ("no bucket", "s3://nope-bucket/x.csv", {}, ["rows must exist in S3", "s3://nope-bucket/x.csv"]),
    ("suffix", "x.xlsx", {}, ["rows must end in .csv, .tsv", "x.xlsx"]),
    ("duplicates", "dup.csv", {}, ["column 'sample' must be unique", "dup.csv", "A as in row 1 (line 2)"]),
    ("semicolons", "semi.csv", {}, ["must have the column 'sample' (its only column has ';'", "semi.csv"]),
    ("latin-1", "latin1.csv", {}, ["rows, line 2 must be UTF-8: save the file as UTF-8", "latin1.csv"]),
    ("empty file", "empty.csv", {}, ["rows must have at least one row", "empty.csv"]),
    ("header only", "header.csv", {}, ["rows must have at least one row", "header.csv"]),
    ("tabs", "tab.csv", {}, ["must have the column 'sample' (its only column has '\\t'", ".tsv file", "tab.csv"]),
    ("extra cell", "extra.csv", {}, ["rows, row 1 (line 2) must have 3 cells", "4 cells", "extra.csv"]),
    ("local path", "samplesheet.csv", {}, ["rows must begin with s3://; a local path needs allow=('file',)"]),
    ("connection", "ok.csv", {"conn_id": "aws_nope"}, [f"conn_id {MISSING_CONNECTION}"]),
    ("optional", "ok.csv", {"optional": ["fastq2"]}, ["optional names unknown columns: fastq2"]),
    (
        "function",
        "extra_column.csv",
        {"parameters": {"depth": lambda row: int(row["fastq_1"])}},
        ["row 1 (line 2), parameter 'depth' cannot be computed", "extra_column.csv"],
    ),
    ("https", "https://example.org/x.csv", {}, ["rows must not be an http or https URL: copy the file to S3"]),
    ("none", None, {}, ["rows must be an iterable of dicts, or the path or URI of a file"]),
    ("list of parameters", "ok.csv", {"parameters": ["sample", "fastq_1"]}, ["parameters must be a dict; got 'list'"]),
    ("template", "dup.csv", {"run_setting_id": "{sample}_{lane}"}, ["must have the column 'lane'", "dup.csv"]),
]
#: A runSettingId with a space is valid: the service's pattern allows it.
FILES = {
    "ok.csv": b"sample,fastq_1,fastq_2\nA,s3://x/1,\nB,s3://x/1,s3://x/2\n",
    "dup.csv": b"sample,fastq_1,fastq_2\nA,s3://x/1,z\nB,s3://x/1,z\nA,s3://x/3,z\n",
    "semi.csv": b"sample;fastq_1;fastq_2\nA;s3://x/1;z\n",
    "latin1.csv": "sample,fastq_1,fastq_2\nM\xfcller,s3://x/1,z\n".encode("latin1"),
    "empty.csv": b"",
    "header.csv": b"sample,fastq_1,fastq_2\n",
    "tab.csv": b"sample\tfastq_1\tfastq_2\nA\tx\ty\n",
    "x.xlsx": b"PK",
    "extra.csv": b"sample,fastq_1,fastq_2\nA,b,c,d\n",
    "extra_column.csv": b"sample,fastq_1,fastq_2,depth\nA,b,c,30\n",
    "space.csv": b"sample,fastq_1,fastq_2\nHG 001,s3://x/1,z\n",
}
#: How much of an error Airflow's UI shows of a line.
SHOWN = 80


@pytest.fixture
def bucket(local: LocalHealthOmics) -> Any:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for name, content in FILES.items():
        s3.put_object(Bucket=BUCKET, Key=name, Body=content)
    return s3


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(("name", "task", "parameters", "text"), TASKS, ids=[case[0] for case in TASKS])
def test_a_task(
    name: str,
    task: Callable[..., Any],
    parameters: dict[str, Any],
    text: str,
    local: LocalHealthOmics,
    task_context: dict[str, Any],
) -> None:
    with pytest.raises(OmicsError) as caught:
        task(task_id="start", **parameters).execute(task_context)
    error = str(caught.value)
    assert text in error
    if " " in text:
        assert error.startswith(text[:SHOWN])
    assert "[None]" not in error
    assert local.calls["StartRunBatch"] == 0


@pytest.mark.parametrize(
    ("default", "parts"),
    [case[1:] for case in REFUSED_BY_THE_SERVICE],
    ids=[case[0].split(",")[0] for case in REFUSED_BY_THE_SERVICE],
)
def test_what_the_service_refuses(
    default: dict[str, Any], parts: list[str], local: LocalHealthOmics, task_context: dict[str, Any]
) -> None:
    local.settings.strict_workflows = True
    local.register_workflow("1234567")
    with pytest.raises(OmicsApiError) as caught:
        start(task_id="start", default_run_setting=default).execute(task_context)
    error = str(caught.value)
    assert error.startswith("StartRunBatch failed: ")
    assert isinstance(caught.value, OmicsRequestError) == ("ValidationException" in error)
    assert [part for part in parts if part not in error] == []
    assert task_context["ti"].pushed == []
    omics = boto3.client("omics")
    assert (omics.list_batch()["items"], omics.list_runs()["items"]) == ([], [])


@pytest.mark.parametrize("region", NO_ENDPOINT.values(), ids=NO_ENDPOINT)
def test_a_region_without_healthomics(
    region: str, task_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = set()

    def resolve(host: str, *_: Any, **__: Any) -> Any:
        asked.add(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    connection = {
        "conn_type": "aws",
        "login": "testing",
        "password": "testing",
        "extra": {"config_kwargs": ONE_ATTEMPT},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    with timing.use(ServiceTime(Clock())), pytest.raises(OmicsApiError) as caught:
        start(task_id="start", region_name=region).execute(task_context)
    assert asked == {f"workflows-omics.{region}.amazonaws.com"}
    assert isinstance(caught.value.__cause__, EndpointConnectionError)
    error = str(caught.value)
    assert error.startswith("ListBatch failed: EndpointConnectionError: Could not connect to the endpoint URL: ")
    assert error.endswith(
        f", Region {region}). Check the Region (region_name, or the connection's): not every Region has the service. "
        "Check also endpoint_url and the network."
    )
    assert task_context["ti"].pushed == []


@pytest.mark.usefixtures("bucket", "local_healthomics_time")
@pytest.mark.parametrize(
    ("default", "text"),
    [case[1:] for case in FOUND_BY_THE_SERVICE],
    ids=[case[0].split(",")[0] for case in FOUND_BY_THE_SERVICE],
)
def test_what_the_service_finds(
    default: dict[str, Any], text: str, local: LocalHealthOmics, task_context: dict[str, Any]
) -> None:
    local.settings.strict_workflows = local.settings.check_output_bucket = True
    local.register_workflow("1234567")
    task = start(task_id="start", default_run_setting=default, wait_for_completion=True, deferrable=False)
    with pytest.raises(TooManyFailedRunsError) as caught:
        task.execute(task_context)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("parameters", [case[1] for case in VALID], ids=[case[0].split(",")[0] for case in VALID])
def test_what_is_valid(parameters: dict[str, Any], local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
    start(task_id="start", **parameters).execute(task_context)
    assert local.calls["StartRunBatch"] == 1


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(("name", "sheet", "parameters", "parts"), SHEETS, ids=[case[0] for case in SHEETS])
def test_a_samplesheet(name: str, sheet: Any, parameters: dict[str, Any], parts: list[str]) -> None:
    uri = f"s3://{BUCKET}/{sheet}" if sheet in FILES or name == "no file" else sheet
    given = {"run_setting_id": "sample", "parameters": {"sample": "sample", "fastq_2": "fastq_2"}, **parameters}
    with pytest.raises(OmicsError) as caught:
        run_settings_from_table(uri, **given)
    error = str(caught.value)
    assert [part for part in parts if part not in error] == []
    assert parts[0][:30] in error[: SHOWN + 10]


@pytest.mark.usefixtures("bucket")
def test_a_samplesheet_without_a_mistake() -> None:
    (setting,) = run_settings_from_table(
        f"s3://{BUCKET}/space.csv", run_setting_id="sample", parameters={"sample": "sample"}
    )
    assert setting["runSettingId"] == "HG 001"


def test_each_of_the_trial_has_a_verdict() -> None:
    tried = {f"c{n:02}" for n in range(1, 5)} | {f"b{n:02}" for n in range(1, 22)} | {f"s{n:02}" for n in range(1, 7)}
    verdicts = {case[0].split(",")[0] for case in [*TASKS, *FOUND_BY_THE_SERVICE, *REFUSED_BY_THE_SERVICE, *VALID]}
    assert verdicts | NO_ENDPOINT.keys() | NOT_OF_THE_PACKAGE.keys() == tried | {"x01"}
    assert len(tried) + 1 + len(SHEETS) + 1 == 54
