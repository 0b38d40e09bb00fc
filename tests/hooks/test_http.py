"""The hook's clients over a socket."""

from __future__ import annotations

import json
import socket
from typing import Any

import boto3
import pytest

from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.healthomics import batch_runs
from airflow_provider_omics_cache.healthomics.run_caches import ensure_run_cache
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import s3_client
from tests.conftest import needs_aiobotocore, needs_batches
from tests.sensor_modes import start_batch, use_service_time


@pytest.fixture
def hook(local_healthomics_server: Any, monkeypatch: pytest.MonkeyPatch) -> OmicsCacheHook:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", local_healthomics_server.airflow_connection)
    return OmicsCacheHook()


@pytest.fixture
def bucket(hook: OmicsCacheHook) -> str:
    s3_client(aws_conn_id=hook.aws_conn_id).create_bucket(Bucket="cohort-data")
    return "s3://cohort-data"


def test_a_cache_is_made_found_and_tagged(hook: OmicsCacheHook, bucket: str) -> None:
    asked = {"name": "cohort", "cache_s3_location": bucket}
    made = ensure_run_cache(hook, **asked)
    found = ensure_run_cache(OmicsCacheHook(), **asked, tags={"team": "a"}, if_exists="update")
    assert (made.created, found.created) == (True, False)
    arn = found.run_cache["arn"]
    assert found.run_cache["id"] == made.run_cache["id"]
    assert hook.list_tags_for_resource(resource_arn=arn) == {"tags": {"team": "a"}}
    hook.untag_resource(resource_arn=arn, tag_keys=["team"])
    assert hook.list_tags_for_resource(resource_arn=arn) == {"tags": {}}
    hook.delete_run_cache(run_cache_id=found.run_cache["id"])
    assert [cache for cache in hook.list_run_caches() if cache["status"] == "ACTIVE"] == []


@needs_aiobotocore
async def test_the_asynchronous_client_reaches_the_same_service(hook: OmicsCacheHook, bucket: str) -> None:
    made = ensure_run_cache(hook, name="cohort", cache_s3_location=bucket)
    async with await hook.get_async_conn() as client:
        found = await client.get_run_cache(id=made.run_cache["id"])
    assert found["name"] == "cohort"


def test_a_service_that_is_not_there_is_reported_with_its_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        extra = {"region_name": "us-east-1", "endpoint_url": url}
        connection = {"conn_type": "aws", "login": "AKIDTESTING", "password": "top-secret", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
        hook = OmicsCacheHook(config={"retries": {"total_max_attempts": 1}, "connect_timeout": 2})
        with pytest.raises(OmicsApiError) as caught:
            hook.get_run_cache(run_cache_id="1")
    assert caught.value.code == "EndpointConnectionError"
    assert f"endpoint {url}, Region us-east-1" in str(caught.value)
    assert caught.value.http_status is None
    assert "top-secret" not in str(caught.value)


@needs_batches
def test_a_list_continues_at_its_page_over_new_connections(
    hook: OmicsCacheHook, local_healthomics_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_service_time(monkeypatch, local_healthomics_server)
    client = boto3.client("omics", **local_healthomics_server.client_kwargs)
    batch_id = start_batch(client, 100)
    local_healthomics_server.clock.advance(3_600)
    monkeypatch.setattr(batch_runs, "LARGEST_PAGE", 1)
    rows = batch_runs.list_submissions(hook, batch_id)
    run_setting_ids = [next(rows)["runSettingId"] for _ in range(50)]
    local_healthomics_server.faults.drop_connection("ListRunsInBatch", times=7)
    run_setting_ids += [row["runSettingId"] for row in rows]
    assert run_setting_ids == [f"sample-{n}" for n in range(100)]
    assert local_healthomics_server.calls["ListRunsInBatch"] == 100 + 7
