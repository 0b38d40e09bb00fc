from __future__ import annotations

import asyncio
import http.client
import json
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError
from moto import mock_aws

from airflow_provider_omics_cache.local import (
    LocalHealthOmics,
    LocalHealthOmicsControl,
    LocalHealthOmicsServer,
    mock_healthomics,
    serve,
)
from airflow_provider_omics_cache.local.assumptions import DOCUMENTED_RATE_LIMITS, LENIENT
from tests.conftest import needs_aiobotocore, needs_batches
from tests.local.conftest import DEFAULT_RUN_SETTING, run_settings


@pytest.fixture
def server(local_healthomics_server: LocalHealthOmicsServer) -> LocalHealthOmicsServer:
    local_healthomics_server.create_bucket("caches")
    return local_healthomics_server


def client(server: LocalHealthOmicsServer, service: str = "omics", **config: Any) -> Any:
    kwargs = server.client_kwargs
    kwargs["config"] = kwargs["config"].merge(Config(retries={"total_max_attempts": 1}, **config))
    return boto3.client(service, **kwargs)


def start(omics: Any, number: int = 5, **kwargs: Any) -> str:
    kwargs.setdefault("batchRunSettings", {"inlineSettings": run_settings(number)})
    batch_id: str = omics.start_run_batch(defaultRunSetting=DEFAULT_RUN_SETTING, **kwargs)["id"]
    return batch_id


def test_run_caches_and_tags_over_http(server: LocalHealthOmicsServer) -> None:
    omics = client(server)
    created = omics.create_run_cache(cacheS3Location="s3://caches/x", name="n", tags={"a b": "ü/=&"})

    omics.tag_resource(resourceArn=created["arn"], tags={"c/d": "1", "e": "2"})
    omics.untag_resource(resourceArn=created["arn"], tagKeys=["c/d", "x y"])
    omics.update_run_cache(id=created["id"], description="new")

    assert omics.list_tags_for_resource(resourceArn=created["arn"])["tags"] == {"a b": "ü/=&", "e": "2"}
    assert omics.get_run_cache(id=created["id"])["description"] == "new"
    omics.delete_run_cache(id=created["id"])
    with pytest.raises(ClientError) as error:
        omics.get_run_cache(id=created["id"])
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


@needs_batches
def test_a_batch_over_http_with_its_settings_in_s3(server: LocalHealthOmicsServer) -> None:
    omics = client(server)
    client(server, "s3").put_object(Bucket="caches", Key="s.json", Body=json.dumps(run_settings(250)))
    batch_id = start(omics, batchRunSettings={"s3UriSettings": "s3://caches/s.json"})
    server.clock.advance(100)

    pages = omics.get_paginator("list_runs_in_batch").paginate(batchId=batch_id)

    assert omics.get_batch(batchId=batch_id)["status"] == "PROCESSED"
    assert len({row["runId"] for page in pages for row in page["runs"]}) == 250


@needs_batches
def test_completed_runs_can_write_their_outputs(server: LocalHealthOmicsServer) -> None:
    omics, s3 = client(server), client(server, "s3")

    def write(run: dict[str, Any]) -> None:
        assert run["status"] == "COMPLETED"
        assert omics.get_run(id=run["id"])["uuid"] == run["uuid"]
        s3.put_object(Bucket="caches", Key=f"{run['id']}/{run['runSettingId']}.vcf", Body=b"")

    server.on_run_completed = write
    batch_id = start(omics, 3)
    server.clock.advance(100)

    assert omics.get_batch(batchId=batch_id)["status"] == "PROCESSED"
    assert s3.list_objects_v2(Bucket="caches")["KeyCount"] == 3


@needs_batches
@needs_aiobotocore
async def test_aiobotocore_over_http(server: LocalHealthOmicsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiobotocore.session import get_session

    monkeypatch.setenv("AWS_DISABLE_HOST_PREFIX_INJECTION", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    credentials = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    async with get_session().create_client("omics", region_name="us-east-1", **credentials) as omics:
        batch = await omics.start_run_batch(
            defaultRunSetting=DEFAULT_RUN_SETTING, batchRunSettings={"inlineSettings": run_settings(30)}
        )
        server.clock.advance(100)
        found = await asyncio.gather(*(omics.get_batch(batchId=batch["id"]) for _ in range(20)))
        pages = omics.get_paginator("list_runs_in_batch").paginate(
            batchId=batch["id"], PaginationConfig={"PageSize": 7}
        )
        listed = [row["runSettingId"] async for page in pages for row in page["runs"]]

    assert {batch["status"] for batch in found} == {"PROCESSED"}
    assert listed == [setting["runSettingId"] for setting in run_settings(30)]


@pytest.mark.parametrize(("after_effect", "left"), [(True, 1), (False, 0)])
def test_a_connection_is_closed_without_an_answer(
    server: LocalHealthOmicsServer, after_effect: bool, left: int
) -> None:
    server.faults.drop_connection("CreateRunCache", after_effect=after_effect)
    omics = client(server)

    with pytest.raises(ConnectionClosedError):
        omics.create_run_cache(cacheS3Location="s3://caches")

    assert len(omics.list_run_caches()["items"]) == left


def test_other_services_are_served_by_the_same_endpoint(server: LocalHealthOmicsServer) -> None:
    s3 = client(server, "s3")
    keys = ["q?x=1", "a%2Fb", "100%25", "a b+c", "ü/é", "runCache/1"]
    for key in keys:
        s3.put_object(Bucket="caches", Key=key, Body=key.encode(), Metadata={"my_key": "v"})

    listed = [item["Key"] for item in s3.list_objects_v2(Bucket="caches")["Contents"]]

    assert sorted(listed) == sorted(keys)
    for key in keys:
        found = s3.get_object(Bucket="caches", Key=key)
        assert found["Body"].read() == key.encode()
    s3.delete_object(Bucket="caches", Key=keys[0])
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="caches", Key=keys[0])
    assert client(server, "sts").get_caller_identity()["Account"] == "123456789012"


def test_a_proxy_is_not_asked_for_the_server(
    local_healthomics_server: LocalHealthOmicsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    local_healthomics_server.create_bucket("caches")

    assert client(local_healthomics_server).list_run_caches()["items"] == []
    assert LocalHealthOmicsControl(local_healthomics_server.url).calls == {"ListRunCaches": 1}


def test_resetting_moto_resets_the_service(server: LocalHealthOmicsServer) -> None:
    omics = client(server)
    omics.create_run_cache(cacheS3Location="s3://caches")

    status, _ = send(server, "POST", "/moto-api/reset")

    assert status == 200
    assert omics.list_run_caches()["items"] == []


def test_a_mock_does_not_wipe_a_running_server(server: LocalHealthOmicsServer) -> None:
    created = client(server).create_run_cache(cacheS3Location="s3://caches")

    with pytest.raises(RuntimeError, match="Start the server inside the mock"), mock_healthomics():
        pass

    assert client(server).get_run_cache(id=created["id"])["status"] == "ACTIVE"


def test_a_server_can_be_started_inside_a_mock(
    local_healthomics: LocalHealthOmics, local_healthomics_server: LocalHealthOmicsServer
) -> None:
    with mock_healthomics():
        assert client(local_healthomics_server).list_run_caches()["items"] == []


def test_errors_are_json_whatever_is_asked(server: LocalHealthOmicsServer) -> None:
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=x/20261120/us-east-1/omics/aws4_request, Signature=0"}
    for method, path in (("GET", "/nothing"), ("POST", "/runCache"), ("GET", "/runCache/%00"), ("PUT", "/runBatch")):
        status, content = send(server, method, path, b"{" if method == "POST" else None, signed)
        assert status in (400, 404)
        assert set(content) == {"message"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/runCache", 403),
        ("/runCache/1", 403),
        pytest.param("/runBatch/1?x=y", 403, marks=needs_batches),
        ("/local-healthomics", 404),
        ("/local-healthomics/", 404),
    ],
)
def test_what_cannot_be_of_s3_is_answered_in_json(server: LocalHealthOmicsServer, path: str, expected: int) -> None:
    status, content = send(server, "GET", path)

    assert (status, set(content)) == (expected, {"message"})


def test_a_request_can_be_signed_in_its_query(server: LocalHealthOmicsServer) -> None:
    created = client(server).create_run_cache(cacheS3Location="s3://caches")
    signed = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=x%2F20261120%2Fus-east-1%2Fomics%2Faws4_request"

    status, content = send(server, "GET", f"/runCache?{signed}&maxResults=5")

    assert (status, [item["id"] for item in content["items"]]) == (200, [created["id"]])


@needs_batches
def test_many_threads_are_served(server: LocalHealthOmicsServer) -> None:
    omics = client(server, max_pool_connections=16)
    batch_id = start(omics)
    server.clock.advance(100)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: omics.get_batch(batchId=batch_id)["status"], range(160)))

    assert found == ["PROCESSED"] * 160
    assert server.calls["GetBatch"] == 160


def test_the_server_is_driven_from_another_process(server: LocalHealthOmicsServer) -> None:
    control, omics = LocalHealthOmicsControl(server.url), client(server)
    before = control.clock.now()
    control.clock.advance(60)
    control.clock.tick = 1
    control.settings.max_run_caches = 2
    control.settings.submission_rate = float("inf")
    control.faults.throttle("ListRunCaches", times=1)
    control.faults.fail_cancel({"a", "b"})
    control.register_workflow("1", parameter_template={"x": {"optional": True}})
    control.delete_workflow("2")
    control.register_run_group("3")
    control.delete_run_group("4")

    with pytest.raises(omics.exceptions.ThrottlingException):
        omics.list_run_caches()
    omics.create_run_cache(cacheS3Location="s3://caches")

    assert control.clock.now() == before + timedelta(seconds=62)
    assert (control.clock.tick, control.clock.speed) == (1, 0)
    assert server.settings.max_run_caches == control.settings.max_run_caches == 2
    assert server.settings.submission_rate == float("inf")
    assert server.faults.cancel_fails("b")
    assert control.calls == {"ListRunCaches": 1, "CreateRunCache": 1}
    control.forget_tokens()
    control.reset()
    assert control.calls == {}
    assert omics.list_run_caches()["items"] == []


def test_the_log_of_calls_tells_when_they_came_and_what_became_of_them(server: LocalHealthOmicsServer) -> None:
    omics = client(server)
    control = LocalHealthOmicsControl(server.url)
    started_at = server.clock.elapsed()
    omics.list_run_caches()
    control.clock.advance(5)
    control.faults.throttle("ListRunCaches")
    with pytest.raises(omics.exceptions.ThrottlingException):
        omics.list_run_caches()
    control.faults.drop_connection("CreateRunCache")
    with pytest.raises(ConnectionClosedError):
        omics.create_run_cache(cacheS3Location="s3://caches")

    assert control.call_log == [
        (started_at, "ListRunCaches", 200),
        (started_at + 5, "ListRunCaches", 429),
        (started_at + 5, "CreateRunCache", 0),
    ]
    assert list(server.call_log) == control.call_log
    control.reset()
    assert control.call_log == []


def test_the_control_refuses_what_makes_no_sense(server: LocalHealthOmicsServer) -> None:
    control = LocalHealthOmicsControl(server.url)
    with pytest.raises(ValueError, match="seconds must be a number of at least 0"):
        control.clock.advance(-1)
    with pytest.raises(ValueError, match="creating_seconds"):
        control.settings.creating_seconds = "x"
    with pytest.raises(ValueError, match="no setting 'x'"):
        control.settings.x = 1
    with pytest.raises(AttributeError, match="no setting 'x'"):
        _ = control.settings.x
    with pytest.raises(AttributeError, match="no fault 'explode'"):
        control.faults.explode()
    with pytest.raises(ValueError, match="tims"):
        control.faults.throttle("GetBatch", tims=1)
    for method, name in (("GET", "nothing"), ("POST", "faults/__init__"), ("POST", "handle"), ("DELETE", "clock")):
        status, content = send(server, method, f"/local-healthomics/{name}", b"{}")
        assert status == 404
        assert name in content["message"]
    for body in (b"[", b"[" * 100_000, b"\xff", b"[]", b'{"advance": 1e12}', b'{"speed": 1' + b"0" * 400 + b"}"):
        assert send(server, "POST", "/local-healthomics/clock", body)[0] == 400
    assert send(server, "GET", "/local-healthomics/clock")[0] == 200


def test_a_failure_of_the_control_is_json(server: LocalHealthOmicsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(server, "reset", fail)

    status, content = send(server, "POST", "/local-healthomics/reset")

    assert (status, set(content)) == (500, {"message"})
    assert "secret" not in content["message"]


def test_the_ready_made_connection_works_with_hooks(
    server: LocalHealthOmicsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", server.airflow_connection)
    hook: Any = AwsBaseHook(aws_conn_id="aws_default", client_type="omics")

    assert hook.get_conn().list_run_caches()["items"] == []
    assert server.calls == {"ListRunCaches": 1}


def test_a_mock_that_deletes_the_state_of_a_server_warns(
    server: LocalHealthOmicsServer, recwarn: pytest.WarningsRecorder
) -> None:
    omics = client(server)
    for _ in range(2):
        omics.list_run_caches()
        with pytest.warns(UserWarning, match="mock_aws") as caught, mock_aws(), mock_aws():
            pass
        (warning,) = caught.list
        assert warning.filename == __file__
        text = str(warning.message)
        assert "mock_aws() in tests/local/test_server.py::test_a_mock_that_deletes_the_state_of_a_server_warns" in text
        assert f"deleted the state of the local HealthOmics at {server.url} and of its S3" in text
    recwarn.clear()
    omics.list_run_caches()
    assert send(server, "POST", "/moto-api/reset")[0] == 200
    assert recwarn.list == []


def test_a_server_inside_a_mock_keeps_its_state(recwarn: pytest.WarningsRecorder) -> None:
    with mock_healthomics(), serve() as server:
        server.create_bucket("caches")
        omics = client(server)
        omics.create_run_cache(cacheS3Location="s3://caches")
        with mock_aws():
            assert len(omics.list_run_caches()["items"]) == 1
    assert recwarn.list == []


def send(
    server: LocalHealthOmicsServer,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    return response.status, content


@pytest.mark.parametrize("stop_with", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_stopped(stop_with: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    command = [
        sys.executable,
        "-m",
        "airflow_provider_omics_cache.local",
        "--bucket",
        "caches",
        "--region",
        "eu-west-1",
        "--account",
        "210987654321",
        "--rate-limits",
        "documented",
        "--workflow",
        "1234567",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            assert url is not None
            name, _, value = shlex.split(process.stdout.readline())[1].partition("=")
            connection = json.loads(value)
            kwargs = connection["extra"]["config_kwargs"]
            monkeypatch.delenv("AWS_PROFILE")
            omics = boto3.client(
                "omics",
                endpoint_url=connection["extra"]["endpoint_url"],
                region_name=connection["extra"]["region_name"],
                aws_access_key_id=connection["login"],
                aws_secret_access_key=connection["password"],
                config=Config(**kwargs),
            )
            arn = omics.create_run_cache(cacheS3Location="s3://caches")["arn"]
            control = LocalHealthOmicsControl(url[0])
            assert control.clock.speed == 1
            assert control.settings.rate_limits == DOCUMENTED_RATE_LIMITS
            assert {name: getattr(control.settings, name) for name in LENIENT} == dict.fromkeys(LENIENT, True)
        finally:
            process.send_signal(stop_with)
            _, errors = process.communicate(timeout=30)

    assert name == "AIRFLOW_CONN_AWS_DEFAULT"
    assert connection["extra"]["endpoint_url"] == url[0]
    assert ":eu-west-1:210987654321:" in arn
    assert process.returncode == 0
    assert [name for name in LocalHealthOmics().absent() if name not in errors] == []
    assert bool(errors) == bool(LocalHealthOmics().absent())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--speed", "-1"],
        ["--speed", "nan"],
        ["--bucket", "No"],
        ["--on-run-completed", "nowhere:nothing"],
        ["--port", "99999"],
        ["--port", "-1"],
        ["--account", "foo"],
        ["--account", "1234567890123"],
        ["--region", "eu-west-3"],
        ["--rate-limits", "10"],
        ["--workflow", "rnaseq"],
    ],
)
def test_the_command_refuses_bad_arguments(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "airflow_provider_omics_cache.local", *arguments]

    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    assert arguments[0].removeprefix("--") in finished.stderr
    assert finished.stdout == ""
