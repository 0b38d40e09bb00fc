"""The time limit of a hook's calls, and lists whose pages have no end or whose tokens expire."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import boto3
import pytest

from airflow_provider_omics_cache.exceptions import (
    OmicsApiError,
    OmicsRequestError,
    OmicsTimeLimitError,
    PageTokenError,
)
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from tests.conftest import needs_batches
from tests.sensor_modes import start_batch, use_service_time

pytestmark = needs_batches


@pytest.fixture
def service(local_healthomics: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The local HealthOmics; waiting advances its clock."""
    use_service_time(monkeypatch, local_healthomics)
    return local_healthomics


@pytest.fixture
def hook() -> OmicsCacheHook:
    """A hook without the SDK's own retries."""
    return OmicsCacheHook(config={"retries": {"total_max_attempts": 1}})


@pytest.fixture
def batch_id(service: Any) -> str:
    """A batch of 50 runs."""
    batch_id = start_batch(boto3.client("omics"), 50)
    service.clock.advance(1_000)
    service.calls.clear()
    return batch_id


def test_a_limit_ends_slow_pages(service: Any, hook: OmicsCacheHook, batch_id: str) -> None:
    service.faults.latency("ListRunsInBatch", seconds=30)
    began = service.clock.elapsed()
    with pytest.raises(OmicsTimeLimitError, match="No time is left"), hook.limit(120):
        list(hook.list_runs_in_batch(batch_id=batch_id, max_items=1, max_silence=3_600))
    assert service.calls["ListRunsInBatch"] == 4
    assert service.clock.elapsed() - began == 120


def test_a_limit_ends_throttled_pages(service: Any, hook: OmicsCacheHook, batch_id: str) -> None:
    service.faults.throttle("ListRunsInBatch", rate=0.9, times=None)
    began = service.clock.elapsed()
    with pytest.raises(OmicsTimeLimitError, match=r"No time is left.*Rate exceeded"), hook.limit(600):
        list(hook.list_runs_in_batch(batch_id=batch_id, max_items=1, max_silence=3_600))
    assert 560 < service.clock.elapsed() - began <= 600


def test_a_limit_ends_the_wait_for_what_was_written(service: Any, hook: OmicsCacheHook) -> None:
    began = service.clock.elapsed()
    with pytest.raises(OmicsTimeLimitError), hook.limit(100):
        hook.until_seen(lambda: None)
    assert service.clock.elapsed() - began <= 100


def test_a_limit_ends_with_its_block_and_replaces_an_outer_one(
    service: Any, hook: OmicsCacheHook, batch_id: str
) -> None:
    with hook.limit(10):
        service.clock.advance(10)
        with pytest.raises(OmicsTimeLimitError):
            hook.get_batch(batch_id=batch_id)
        with hook.limit(20):
            assert hook.get_batch(batch_id=batch_id)
        with pytest.raises(OmicsTimeLimitError):
            hook.get_batch(batch_id=batch_id)
    assert hook.get_batch(batch_id=batch_id)
    assert service.calls["GetBatch"] == 2


def test_tokens_that_alternate_end_a_list(service: Any, hook: OmicsCacheHook, batch_id: str) -> None:
    tokens = cycle(["A", "B"])

    def repeat(parsed: dict[str, Any], **_: Any) -> None:
        parsed["nextToken"] = next(tokens)

    def ignore(params: dict[str, Any], **_: Any) -> None:
        params.pop("startingToken", None)

    hook.conn.meta.events.register("after-call.omics.ListRunsInBatch", repeat)
    hook.conn.meta.events.register("provide-client-params.omics.ListRunsInBatch", ignore)
    with pytest.raises(PageTokenError, match="ListRunsInBatch returned the same nextToken twice"):
        list(hook.list_runs_in_batch(batch_id=batch_id))
    assert service.calls["ListRunsInBatch"] == 3


class Expiring:
    """Lets the service refuse the token of the third page, a number of times."""

    def __init__(self, service: Any, hook: OmicsCacheHook, times: int) -> None:
        self.calls, self.times, self.service = 0, times, service
        hook.conn.meta.events.register("before-call.omics.ListRunsInBatch", self)

    def __call__(self, params: dict[str, Any], **_: Any) -> None:
        self.calls = self.calls + 1 if "startingToken" in params["query_string"] else 1
        if self.calls == 3 and self.times:
            self.times -= 1
            self.service.faults.error(
                "ListRunsInBatch", code="ValidationException", status=400, message="The token has expired"
            )


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_list_whose_token_expires_begins_anew(service: Any, hook: OmicsCacheHook, batch_id: str, times: int) -> None:
    Expiring(service, hook, times)

    def list_once() -> list[str]:
        return [row["runId"] for row in hook.list_runs_in_batch(batch_id=batch_id, max_items=10)]

    assert len(set(hook.list_whole(list_once))) == len(hook.list_whole(list_once)) == 50


def test_tokens_that_keep_expiring_are_an_error_that_is_retried(
    service: Any, hook: OmicsCacheHook, batch_id: str
) -> None:
    Expiring(service, hook, 100)
    with pytest.raises(PageTokenError, match=r"The token has expired.*may have expired") as caught:
        hook.list_whole(lambda: list(hook.list_runs_in_batch(batch_id=batch_id, max_items=10)))
    assert isinstance(caught.value, OmicsApiError)
    assert not isinstance(caught.value, OmicsRequestError)
    assert service.calls["ListRunsInBatch"] == 9


def test_a_token_of_the_caller_that_is_refused_is_an_error_of_the_request(
    service: Any, hook: OmicsCacheHook, batch_id: str
) -> None:
    with pytest.raises(OmicsRequestError):
        list(hook.list_runs_in_batch(batch_id=batch_id, starting_token="nonsense"))
