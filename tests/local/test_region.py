from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from airflow_provider_omics_cache.local import LocalHealthOmics
from tests.conftest import needs_batches
from tests.local.conftest import DEFAULT_RUN_SETTING, run_settings

Start = Callable[..., dict[str, Any]]


def create_cache(omics: Any, name: str = "same") -> dict[str, Any]:
    answer: dict[str, Any] = omics.create_run_cache(
        cacheS3Location="s3://caches", requestId="token", name=name, tags={"a": "b"}
    )
    return answer


def start_batch(omics: Any, name: str = "same") -> dict[str, Any]:
    answer: dict[str, Any] = omics.start_run_batch(
        requestId="token",
        batchName=name,
        defaultRunSetting=DEFAULT_RUN_SETTING,
        batchRunSettings={"inlineSettings": run_settings(3)},
    )
    return answer


BOTH = pytest.mark.parametrize("start", [create_cache, pytest.param(start_batch, marks=needs_batches)])


def without_metadata(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


@BOTH
def test_the_same_request_again_gets_the_same_answer(
    omics: Any, local_healthomics: LocalHealthOmics, start: Start
) -> None:
    first = start(omics)
    local_healthomics.clock.advance(3)

    assert without_metadata(start(omics)) == without_metadata(first)


@needs_batches
def test_a_replay_can_tell_the_current_status(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.replayed_status = "current"
    first = start_batch(omics)
    local_healthomics.clock.advance(1_000)

    again = start_batch(omics)

    assert (first["status"], again["status"]) == ("CREATING", "PROCESSED")
    assert again["id"] == first["id"]


@needs_batches
@pytest.mark.parametrize("name", ["same", "other"])
def test_the_token_of_a_failed_batch_starts_it_again(
    omics: Any, local_healthomics: LocalHealthOmics, name: str
) -> None:
    local_healthomics.faults.fail_batch(after="PENDING", times=2)
    started = []
    for _ in range(3):
        started.append(start_batch(omics, name if started else "same")["id"])
        local_healthomics.clock.advance(1_000)
    assert len(set(started)) == 3
    assert start_batch(omics, name)["id"] == started[-1]

    local_healthomics.settings.failed_batch_token = "replays"
    local_healthomics.faults.fail_batch(after="PENDING")
    local_healthomics.forget_tokens()
    failed = start_batch(omics)["id"]
    local_healthomics.clock.advance(1_000)
    assert start_batch(omics)["id"] == failed


@needs_batches
@pytest.mark.parametrize("cause", ["settings", "runs"])
def test_the_token_of_a_batch_whose_failure_is_not_transient_is_used_up(
    omics: Any, local_healthomics: LocalHealthOmics, cause: str
) -> None:
    """The settings of the batch are wrong, or it has started runs. A new batch would start these runs twice."""
    settings = run_settings(3)
    if cause == "settings":
        settings = [*settings, settings[0]]
    else:
        local_healthomics.faults.fail_batch(after="SUBMITTING", started_runs=1)
    request = {
        "requestId": "token",
        "defaultRunSetting": DEFAULT_RUN_SETTING,
        "batchRunSettings": {"inlineSettings": settings},
    }
    first = omics.start_run_batch(**request)["id"]
    local_healthomics.clock.advance(1_000)
    assert omics.get_batch(batchId=first)["status"] == "FAILED"
    assert omics.start_run_batch(**request)["id"] == first


@BOTH
def test_another_request_with_the_same_token_is_refused(omics: Any, start: Start) -> None:
    start(omics)

    with pytest.raises(ClientError) as error:
        start(omics, "other")

    assert error.value.response["Error"]["Code"] == "ConflictException"


@BOTH
def test_another_request_can_be_answered_like_the_first(
    omics: Any, local_healthomics: LocalHealthOmics, start: Start
) -> None:
    local_healthomics.settings.changed_request_error = None

    assert start(omics)["id"] == start(omics, "other")["id"]


@BOTH
def test_tokens_are_forgotten_after_a_time_or_on_demand(
    omics: Any, local_healthomics: LocalHealthOmics, start: Start
) -> None:
    local_healthomics.settings.token_seconds = 60
    first = start(omics)["id"]
    local_healthomics.clock.advance(59)
    assert start(omics)["id"] == first

    local_healthomics.clock.advance(1)
    second = start(omics, "other")["id"]
    local_healthomics.forget_tokens()
    third = start(omics)["id"]

    assert len({first, second, third}) == 3


@BOTH
def test_the_token_of_a_refused_request_is_not_used_up(omics: Any, start: Start) -> None:
    with pytest.raises(ClientError):
        start(omics, "\x00")

    start(omics, "good")


@BOTH
def test_sixteen_threads_with_one_token_make_one_resource(local_healthomics_server: Any, start: Start) -> None:
    local_healthomics_server.create_bucket("caches")
    client = boto3.client("omics", **local_healthomics_server.client_kwargs)
    with ThreadPoolExecutor(16) as pool:
        ids = set(pool.map(lambda _: start(client)["id"], range(64)))

    assert len(ids) == 1
