"""``max_silence`` of the hook's methods that only read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.handlers
import pytest
from botocore.exceptions import EndpointConnectionError

from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from tests.conftest import needs_batches
from tests.operators.batch_states import answer
from tests.sensor_modes import start_batch, use_service_time

pytestmark = needs_batches

BATCHES = 5
FAULTS: dict[str, Callable[[Any, str, int | None], None]] = {
    "throttled": lambda faults, operation, times: faults.throttle(operation, times=times),
    "broken": lambda faults, operation, times: faults.error(operation, status=503, times=times),
    "dropped": lambda faults, operation, times: faults.drop_connection(operation, times=times),
}
#: Each method that reads one resource, with its operation.
READS: dict[str, tuple[str, Callable[..., Any]]] = {
    "get_batch": ("GetBatch", lambda hook, ids, **patience: hook.get_batch(batch_id=ids["batch"], **patience)),
    "get_run": ("GetRun", lambda hook, ids, **patience: hook.get_run(run_id=ids["run"], **patience)),
    "get_run_cache": (
        "GetRunCache",
        lambda hook, ids, **patience: hook.get_run_cache(run_cache_id=ids["cache"], **patience),
    ),
    "list_tags_for_resource": (
        "ListTagsForResource",
        lambda hook, ids, **patience: hook.list_tags_for_resource(resource_arn=ids["arn"], **patience),
    ),
}
#: Each list, one item a page, with its operation.
LISTS: dict[str, tuple[str, Callable[..., Iterator[Any]]]] = {
    "list_batch": ("ListBatch", lambda hook, ids, **patience: hook.list_batch(max_items=1, **patience)),
    "list_runs": ("ListRuns", lambda hook, ids, **patience: hook.list_runs(max_results=1, **patience)),
    "list_runs_in_batch": (
        "ListRunsInBatch",
        lambda hook, ids, **patience: hook.list_runs_in_batch(batch_id=ids["batch"], max_items=1, **patience),
    ),
    "list_run_caches": (
        "ListRunCaches",
        lambda hook, ids, **patience: hook.list_run_caches(max_results=1, **patience),
    ),
}

each_fault = pytest.mark.parametrize("fault", FAULTS)
each_read = pytest.mark.parametrize("method", READS)
each_list = pytest.mark.parametrize("method", LISTS)


@pytest.fixture
def service(local_healthomics: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The local HealthOmics; waiting advances its clock."""
    use_service_time(monkeypatch, local_healthomics)
    return local_healthomics


@pytest.fixture
def ids(service: Any) -> dict[str, str]:
    """Ids of a batch of five runs, of one of its runs and of one of five run caches."""
    client = boto3.client("omics")
    boto3.client("s3").create_bucket(Bucket="caches")
    for number in range(BATCHES):
        cache = client.create_run_cache(cacheS3Location=f"s3://caches/{number}", name="cohort", requestId=str(number))
    batch_id = start_batch(client, BATCHES)
    for _ in range(BATCHES - 1):
        start_batch(client, 1)
    service.clock.advance(3_600)
    run_id = client.list_runs_in_batch(batchId=batch_id)["runs"][0]["runId"]
    service.calls.clear()
    return {"batch": batch_id, "run": run_id, "cache": cache["id"], "arn": cache["arn"]}


@pytest.fixture
def hook() -> OmicsCacheHook:
    """A hook without the SDK's own retries."""
    return OmicsCacheHook(config={"retries": {"total_max_attempts": 1}})


@each_read
@each_fault
def test_a_read_waits_out_failures(
    fault: str, method: str, service: Any, hook: OmicsCacheHook, ids: dict[str, str]
) -> None:
    operation, read = READS[method]
    FAULTS[fault](service.faults, operation, 7)
    before = service.clock.elapsed()
    assert read(hook, ids, max_silence=3_600)
    assert service.calls[operation] == 7 + 1
    assert 10 < service.clock.elapsed() - before < 7 * 30


@each_list
@each_fault
def test_a_list_continues_at_its_page(
    fault: str, method: str, service: Any, hook: OmicsCacheHook, ids: dict[str, str]
) -> None:
    operation, listing = LISTS[method]
    everything = list(listing(hook, ids))
    assert len(everything) >= BATCHES
    service.calls.clear()
    items = listing(hook, ids, max_silence=3_600)
    listed = [next(items), next(items)]
    FAULTS[fault](service.faults, operation, 7)
    listed += items
    assert listed == everything
    assert service.calls[operation] == len(everything) + 7


@each_read
@each_fault
def test_a_read_makes_one_attempt_by_default(
    fault: str, method: str, service: Any, hook: OmicsCacheHook, ids: dict[str, str]
) -> None:
    operation, read = READS[method]
    FAULTS[fault](service.faults, operation, 1)
    with pytest.raises(OmicsApiError) as caught:
        read(hook, ids)
    assert caught.value.is_passing
    assert service.calls[operation] == 1
    assert read(hook, ids)


@each_list
@each_fault
def test_a_list_makes_one_attempt_by_default(
    fault: str, method: str, service: Any, hook: OmicsCacheHook, ids: dict[str, str]
) -> None:
    operation, listing = LISTS[method]
    items = listing(hook, ids)
    next(items)
    FAULTS[fault](service.faults, operation, 1)
    with pytest.raises(OmicsApiError):
        next(items)
    assert service.calls[operation] == 2


@pytest.mark.parametrize("method", [*READS, *LISTS])
def test_the_last_error_is_raised_after_max_silence(
    method: str, service: Any, hook: OmicsCacheHook, ids: dict[str, str]
) -> None:
    operation, call = {**READS, **LISTS}[method]
    service.faults.throttle(operation, times=None)
    before = service.clock.elapsed()
    with pytest.raises(OmicsApiError, match="ThrottlingException") as caught:
        list(call(hook, ids, max_silence=100))
    assert caught.value.operation == operation
    assert 60 < service.clock.elapsed() - before <= 100


@pytest.mark.parametrize("method", [*READS, *LISTS])
def test_a_refused_call_is_not_repeated(method: str, service: Any, hook: OmicsCacheHook, ids: dict[str, str]) -> None:
    operation, call = {**READS, **LISTS}[method]
    service.faults.error(operation, code="AccessDeniedException", status=403, times=None)
    with pytest.raises(OmicsApiError, match="AccessDeniedException"):
        list(call(hook, ids, max_silence=3_600))
    assert service.calls[operation] == 1


@pytest.mark.parametrize("method", [*READS, *LISTS])
def test_an_endpoint_that_was_never_reached_is_waited_for_a_minute(
    method: str, service: Any, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1"}
    connection = {"conn_type": "aws", "login": "testing", "password": "testing", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", json.dumps(connection))
    monkeypatch.setattr(
        botocore.handlers,
        "BUILTIN_HANDLERS",
        [entry for entry in botocore.handlers.BUILTIN_HANDLERS if not str(entry[0]).startswith("before-send")],
    )
    hook = OmicsCacheHook(aws_conn_id="NOWHERE", config={"retries": {"total_max_attempts": 1}})
    before = service.clock.elapsed()
    _, call = {**READS, **LISTS}[method]
    with pytest.raises(OmicsApiError, match=r"127\.0\.0\.1:9.*us-east-1") as caught:
        list(call(hook, ids, max_silence=3_600))
    assert caught.value.is_unreachable
    assert 25 < service.clock.elapsed() - before <= 60


@pytest.mark.parametrize("method", [*READS, *LISTS])
def test_an_endpoint_that_has_answered_before_is_waited_for(
    method: str, service: Any, hook: OmicsCacheHook, ids: dict[str, str]
) -> None:
    operation, call = {**READS, **LISTS}[method]
    failures = 7

    def refuse(request: Any, **_: Any) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise EndpointConnectionError(endpoint_url=request.url)

    assert hook.get_batch(batch_id=ids["batch"])
    hook.conn.meta.events.register_first(f"before-send.omics.{operation}", refuse)
    assert list(call(hook, ids, max_silence=3_600))
    assert failures < 0


@pytest.mark.parametrize("role", ["of the connection", "of the SDK"])
def test_throttled_credentials_are_no_answer_of_healthomics(
    role: str, service: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """STS throttles for ten minutes. HealthOmics then cannot be reached: its endpoint is tried for a minute."""
    seen: list[str] = []

    def throttle(request: Any, **_: Any) -> Any:
        seen.append("sts")
        if service.clock.elapsed() - before < 600:
            error = (
                "<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>"
            )
            return answer(request, 400, error.encode())
        return None

    def refuse(request: Any, **_: Any) -> None:
        seen.append("omics")
        raise EndpointConnectionError(endpoint_url=request.url)

    monkeypatch.setattr(
        botocore.handlers,
        "BUILTIN_HANDLERS",
        [
            ("before-send.sts.AssumeRole", throttle),
            ("before-send.omics", refuse),
            *botocore.handlers.BUILTIN_HANDLERS,
        ],
    )
    arn = "arn:aws:iam::123456789012:role/airflow"
    if role == "of the SDK":
        config = tmp_path / "config"
        config.write_text(f"[profile lab]\nrole_arn = {arn}\ncredential_source = Environment\nregion = us-east-1\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        extra = {"profile_name": "lab", "region_name": "us-east-1"}
        connection = {"conn_type": "aws", "extra": extra}
    else:
        extra = {"role_arn": arn, "region_name": "us-east-1"}
        connection = {"conn_type": "aws", "login": "testing", "password": "testing", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_ROLE", json.dumps(connection))
    hook = OmicsCacheHook(aws_conn_id="ROLE", config={"retries": {"total_max_attempts": 1}})
    before = service.clock.elapsed()
    with pytest.raises(OmicsApiError, match="EndpointConnectionError") as caught:
        hook.get_batch(batch_id="1234567", max_silence=3_600)
    assert caught.value.operation == "GetBatch"
    assert "omics" not in hook.answered
    assert seen.index("omics") > 10
    assert 600 + 20 < service.clock.elapsed() - before <= 600 + 30 + 60


def test_an_endpoint_that_sends_web_pages_is_asked_for_a_minute(service: Any, hook: OmicsCacheHook) -> None:
    page = b"<html>Welcome</html>"
    hook.conn.meta.events.register_first("before-send.omics", lambda request, **_: answer(request, 200, page))
    before = service.clock.elapsed()
    with pytest.raises(OmicsApiError, match=r"not a JSON object.*endpoint https://"):
        hook.get_batch(batch_id="1234567", max_silence=3_600)
    assert 25 < service.clock.elapsed() - before <= 60
