"""The page that a browser gets at ``GET /``."""

from __future__ import annotations

import http.client
import re
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest

from airflow_provider_omics_cache.local import LocalHealthOmicsServer
from tests.conftest import needs_batches

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
#: What no page may show.
SECRET = "confidential"


@pytest.fixture
def server(local_healthomics_server: LocalHealthOmicsServer) -> LocalHealthOmicsServer:
    local_healthomics_server.create_bucket("lab")
    return local_healthomics_server


def get(
    server: LocalHealthOmicsServer, path: str = "/", headers: dict[str, str] = BROWSER
) -> tuple[int, str | None, str]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    content = response.read().decode()
    connection.close()
    return response.status, response.getheader("Content-Type"), content


def cells(page: str) -> list[str]:
    return re.findall("<td[^>]*>(.*?)</td>", page)


@needs_batches
def test_shows_batches_runs_and_run_caches_with_their_states(server: LocalHealthOmicsServer) -> None:
    assert "There are no batches, single runs, run caches or run groups" in get(server)[2]
    omics: Any = boto3.client("omics", **server.client_kwargs)
    cache = omics.create_run_cache(cacheS3Location="s3://lab/cache", name="<script>alert(1)</script>")
    settings = [{"runSettingId": f"<b>{number}", "parameters": {"key": SECRET}} for number in range(90)]
    batch = omics.start_run_batch(
        batchName="a&b",
        defaultRunSetting={
            "workflowId": "4711",
            "roleArn": f"arn:aws:iam::123456789012:role/{SECRET}",
            "outputUri": "s3://lab/out",
            "cacheId": cache["id"],
            "sessionPolicy": f'{{"Sid": "{SECRET}"}}',
            "parameters": {"token": SECRET},
            "runTags": {"tag": SECRET},
        },
        batchRunSettings={"inlineSettings": settings},
        tags={"tag": SECRET},
    )
    server.faults.fail_run("<b>88")
    server.faults.fail_submission("<b>89", reason="ThrottlingException", message="<i>slow</i>")
    calls = dict(server.calls)
    assert "CREATING" in cells(get(server)[2])
    server.clock.advance(100)

    status, content_type, page = get(server)

    assert (status, content_type) == (200, "text/html; charset=utf-8")
    shown = cells(page)
    assert {batch["id"], cache["id"], "4711", "PROCESSED", "FAILED", "COMPLETED", "ACTIVE"} <= set(shown)
    assert {"a&amp;b", "&lt;script&gt;alert(1)&lt;/script&gt;", "&lt;b&gt;88", "&lt;b&gt;89"} <= set(shown)
    assert "ThrottlingException: &lt;i&gt;slow&lt;/i&gt;" in shown
    assert "88 completed, 1 failed" in shown
    assert "td.unbroken { white-space: nowrap }" in page
    unbroken = set(re.findall("<td class='unbroken'>(.*?)</td>", page))
    assert {batch["id"], cache["id"], "4711"} <= unbroken
    assert any(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", text) for text in unbroken)
    assert "Runs of batches (20 of 90)" in page
    assert SECRET not in page
    assert not re.search("<(script|b|i)>", page)
    assert dict(server.calls) == calls


def test_shows_single_runs_and_run_groups(server: LocalHealthOmicsServer) -> None:
    omics: Any = boto3.client("omics", **server.client_kwargs)
    group = omics.create_run_group(name="<i>capped", maxRuns=1, maxDuration=600)["id"]
    cache = omics.create_run_cache(cacheS3Location="s3://lab/cache")["id"]
    setting = {
        "workflowId": "4711",
        "roleArn": f"arn:aws:iam::123456789012:role/{SECRET}",
        "outputUri": "s3://lab/out",
        "runGroupId": group,
        "cacheId": cache,
        "parameters": {"token": SECRET},
    }
    server.faults.fail_task("Report", message="<b>disk")
    runs = [omics.start_run(**setting, name=f"<b>{number}")["id"] for number in range(3)]
    server.clock.advance(43)

    page = get(server)[2]

    shown = cells(page)
    assert {*runs, group, "&lt;b&gt;0", "&lt;i&gt;capped", "maxRuns 1, maxDuration 600"} <= set(shown)
    assert "RUN_TASK_FAILED: &lt;b&gt;disk" in shown
    assert "Align: COMPLETED, CallVariants: COMPLETED, Report: FAILED" in shown
    assert "Align: COMPLETED, CallVariants: RUNNING" in shown
    assert shown[shown.index("maxRuns 1, maxDuration 600") + 1 :][:2] == ["1", "1"]
    assert SECRET not in page
    assert not re.search("<(b|i)>", page)


def test_is_for_browsers_under_a_name_of_the_server_only(server: LocalHealthOmicsServer) -> None:
    s3 = boto3.client("s3", **server.client_kwargs)
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["lab"]
    signed = {**BROWSER, "Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request"}
    for headers in ({}, {"Accept": "*/*"}, signed):
        assert "<ListAllMyBucketsResult" in get(server, headers=headers)[2], headers
    assert "<html" not in get(server, "/?list-type=2")[2]
    assert get(server, headers={**BROWSER, "Host": "elsewhere.example"})[0] == 403
    assert get(server, headers={**BROWSER, "Origin": "http://elsewhere.example"})[0] == 403
