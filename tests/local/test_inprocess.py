from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from airflow_provider_omics_cache.local import LocalHealthOmics, mock_healthomics, patch_client
from tests.conftest import needs_aiobotocore, needs_batches
from tests.local.conftest import DEFAULT_RUN_SETTING, new_client, run_settings

ONE_ATTEMPT = Config(retries={"total_max_attempts": 1})


@mock_healthomics()
def decorated() -> int:
    return len(new_client("omics").list_run_caches()["items"])


def test_it_is_a_decorator_as_well() -> None:
    assert decorated() == 0


@mock_healthomics()
async def decorated_coroutine() -> int:
    await asyncio.sleep(0)
    return len(new_client("omics").list_run_caches()["items"])


async def test_a_coroutine_is_awaited_inside() -> None:
    assert inspect.iscoroutinefunction(decorated_coroutine)
    assert await decorated_coroutine() == await decorated_coroutine() == 0


class Suite:
    def test_it(self) -> None: ...


def generate() -> Iterator[None]:
    yield


async def generate_slowly() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("what", [Suite, generate, generate_slowly])
def test_what_it_could_not_surround_is_refused(what: Any) -> None:
    with pytest.raises(TypeError, match=f"mock_healthomics cannot decorate .*{what.__name__}"):
        mock_healthomics()(what)


def test_each_mock_starts_empty() -> None:
    for _ in range(2):
        with mock_healthomics() as local:
            local.settings.check_cache_bucket = False
            new_client("omics").create_run_cache(cacheS3Location="s3://caches")
            assert len(new_client("omics").list_run_caches()["items"]) == 1


def test_moto_and_the_service_share_their_s3(omics: Any) -> None:
    with mock_aws():
        assert omics.create_run_cache(cacheS3Location="s3://caches")["status"] == "ACTIVE"


def test_reset_forgets_everything_but_clock_and_settings(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.max_run_caches = 5
    local_healthomics.clock.advance(60)
    before = local_healthomics.clock.now()
    omics.create_run_cache(cacheS3Location="s3://caches", requestId="x")
    local_healthomics.faults.throttle(times=None)

    local_healthomics.reset()

    assert omics.list_run_caches()["items"] == []
    assert local_healthomics.calls == {"ListRunCaches": 1}
    assert local_healthomics.settings.max_run_caches == 5
    assert local_healthomics.clock.now() == before
    omics.create_run_cache(cacheS3Location="s3://caches", requestId="x", name="other")


def test_operations_that_are_not_served_are_left_to_moto(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    with pytest.raises(ClientError, match="Not yet implemented"):
        omics.list_reference_stores()

    assert local_healthomics.calls == {}


def test_a_client_with_its_own_endpoint_is_left_alone(local_healthomics: LocalHealthOmics) -> None:
    elsewhere = boto3.client("omics", endpoint_url="http://omics.invalid", config=ONE_ATTEMPT)

    with pytest.raises(EndpointConnectionError):
        elsewhere.list_run_caches()

    assert local_healthomics.calls == {}


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://workflows-omics.us-east-1.amazonaws.com",
        "https://vpce-0a1-b2.workflows-omics.us-east-1.vpce.amazonaws.com",
    ],
)
def test_private_hosts_are_served(
    local_healthomics: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_DISABLE_HOST_PREFIX_INJECTION", "true")

    boto3.client("omics", endpoint_url=endpoint).list_run_caches() if _can_disable_prefix() else pytest.skip(
        "the installed botocore does not know AWS_DISABLE_HOST_PREFIX_INJECTION"
    )

    assert local_healthomics.calls == {"ListRunCaches": 1}


def _can_disable_prefix() -> bool:
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES

    return "disable_host_prefix_injection" in BOTOCORE_DEFAUT_SESSION_VARIABLES


def test_no_other_handler_can_act_on_an_answered_request(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    seen = []
    omics.meta.events.register_last("before-send", lambda request, **_: seen.append(request.url))
    local_healthomics.faults.throttle("ListRunCaches", times=1)

    for _ in range(2):
        with contextlib.suppress(omics.exceptions.ThrottlingException):
            omics.list_run_caches()

    assert seen == ["https://answered.invalid/"] * 2


def test_a_client_made_before_can_be_patched() -> None:
    session = boto3.session.Session("testing", "testing", region_name="us-east-1")
    client = session.client("omics")
    with mock_healthomics() as local:
        patch_client(client)

        assert client.list_run_caches()["items"] == []
        assert local.calls["ListRunCaches"] == 1


def test_nothing_is_served_outside() -> None:
    client = boto3.client(
        "omics",
        endpoint_url="http://omics.invalid",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=ONE_ATTEMPT,
    )
    with pytest.raises(EndpointConnectionError):
        client.list_run_caches()


def test_threads_do_not_disturb_each_other(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    def create() -> None:
        for _ in range(20):
            omics.create_run_cache(cacheS3Location="s3://caches")

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    ids = [item["id"] for page in omics.get_paginator("list_run_caches").paginate() for item in page["items"]]
    assert len(set(ids)) == len(ids) == 160


@needs_batches
@needs_aiobotocore
async def test_aiobotocore_clients_are_served(local_healthomics: LocalHealthOmics) -> None:
    from aiobotocore.session import get_session

    local_healthomics.faults.throttle("GetBatch", times=1)
    async with get_session().create_client("omics") as client:
        batch = await client.start_run_batch(
            defaultRunSetting=DEFAULT_RUN_SETTING, batchRunSettings={"inlineSettings": run_settings(5)}
        )
        local_healthomics.clock.advance(100)
        found = await client.get_batch(batchId=batch["id"])
        pages = client.get_paginator("list_runs_in_batch").paginate(
            batchId=batch["id"], PaginationConfig={"PageSize": 2}
        )
        listed = [row["runSettingId"] async for page in pages for row in page["runs"]]
        with pytest.raises(ClientError) as error:
            await client.get_batch(batchId="1")

    assert found["status"] == "PROCESSED"
    assert listed == [setting["runSettingId"] for setting in run_settings(5)]
    assert error.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert local_healthomics.calls["GetBatch"] == 3


def test_the_fixture_serves_hooks_of_the_amazon_provider(local_healthomics: LocalHealthOmics) -> None:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    hook: Any = AwsBaseHook(aws_conn_id="aws_default", client_type="omics")

    assert hook.get_conn().list_run_caches()["items"] == []
    assert hook.get_conn().meta.region_name == "us-east-1"


@pytest.mark.parametrize("inject", [True, False])
def test_both_forms_of_the_host_are_served(omics: Any, inject: bool) -> None:
    client = boto3.client("omics", config=Config(inject_host_prefix=inject))

    assert client.list_run_caches()["items"] == []
