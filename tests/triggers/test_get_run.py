"""The poller's GetRun calls: a budget of their own, and the client that they share with GetBatch."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from typing import Any

import boto3
import pytest

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.triggers.clients import Connection
from airflow_provider_omics_cache.triggers.poller import GET_BATCH, GET_RUN, Operation, shared_poller
from airflow_provider_omics_cache.triggers.run_batch import BatchCompletionTrigger
from tests.conftest import needs_aiobotocore, needs_batches
from tests.triggers.loops import (
    CountedClients,
    QuietTime,
    all_of,
    called_at,
    event_of,
    most_in_a_second,
    nothing_left_behind,
    start_batches,
    trigger,
)

pytestmark = [
    needs_batches,
    needs_aiobotocore,
    pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"),
]

GET_BATCH_RATE = 4
NO_DEADLINE = {"deadline": None}


def connection(aws_conn_id: str = "aws_default", region_name: str | None = None) -> Connection:
    parameters = {"aws_conn_id": aws_conn_id, "region_name": region_name, "verify": None, "botocore_config": None}
    return Connection.of(parameters)


def start_runs(service: Any, number: int, *, seconds: float = 1_000_000) -> tuple[list[str], list[str]]:
    """Start batches of one run each, which run for so many seconds; return the ids of the batches and of the runs."""
    service.settings.run_running_seconds = seconds
    batch_ids = start_batches(service, number, after=1)
    service.clock.advance(10)
    client = boto3.client("omics")
    run_ids = [client.list_runs(batchId=batch_id)["items"][0]["id"] for batch_id in batch_ids]
    service.calls.clear()
    service.call_log.clear()
    return batch_ids, run_ids


async def ask(subject_id: str, operation: Operation, times: int, **arguments: Any) -> list[Any]:
    """Watch a batch or run for some rounds."""
    arguments = {"connection": connection(), "interval": 1, **NO_DEADLINE, **arguments}
    async with shared_poller().watch(subject_id, operation=operation, **arguments) as watcher:
        return [await watcher.next_outcome() for _ in range(times)]


async def test_get_run_has_a_budget_of_its_own(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND", "2")
    batch_ids, run_ids = start_runs(service, 20)
    async with nothing_left_behind(clients):
        outcomes = await all_of(
            *(ask(batch_id, GET_BATCH, 10) for batch_id in batch_ids),
            *(ask(run_id, GET_RUN, 5) for run_id in run_ids),
        )
    assert {outcome["id"] for outcome in itertools.chain(*outcomes)} == {*batch_ids, *run_ids}
    assert GET_BATCH_RATE - 1 <= most_in_a_second(called_at(service, "GetBatch")) <= GET_BATCH_RATE + 1
    assert most_in_a_second(called_at(service, "GetRun")) <= 2 + 1
    both = sorted(called_at(service, "GetBatch") + called_at(service, "GetRun"))
    assert most_in_a_second(both) >= GET_BATCH_RATE + 2
    assert all(after - before >= 0.49 for before, after in itertools.pairwise(called_at(service, "GetRun")))
    assert clients.made == 1


async def test_a_throttled_get_run_does_not_slow_get_batch_down(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuietTime, "turns", 200)  # the long sleeps of GetRun must not end before the calls of GetBatch
    batch_ids, run_ids = start_runs(service, 10)
    service.faults.throttle("GetRun", times=None)
    async with nothing_left_behind(clients):
        runs = [asyncio.create_task(ask(run_id, GET_RUN, 3)) for run_id in run_ids]
        outcomes = await all_of(*(ask(batch_id, GET_BATCH, 20) for batch_id in batch_ids))
        failures = await all_of(*runs)
    assert not any(isinstance(outcome, OmicsApiError) for outcome in itertools.chain(*outcomes))
    assert all(isinstance(outcome, OmicsApiError) for outcome in itertools.chain(*failures))
    times = called_at(service, "GetBatch")
    assert len(times) / (times[-1] - times[0]) > 0.9 * GET_BATCH_RATE


async def test_two_connections_share_a_regions_budget_of_get_run(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND", "3")
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", "aws://id:secret@/?region_name=us-east-1")
    _, run_ids = start_runs(service, 20)
    async with nothing_left_behind(clients):
        await all_of(
            *(ask(run_id, GET_RUN, 5) for run_id in run_ids[:10]),
            *(ask(run_id, GET_RUN, 5, connection=connection("OTHER")) for run_id in run_ids[10:]),
        )
    assert clients.made == 2
    assert most_in_a_second(called_at(service, "GetRun")) <= 3 + 1


@pytest.mark.parametrize("operations", list(itertools.permutations([GET_BATCH, GET_RUN, GET_RUN])))
async def test_the_client_is_shared_and_closed_in_any_order(
    operations: tuple[Operation, ...], service: Any, clients: CountedClients
) -> None:
    [batch_id], [run_id] = start_runs(service, 1)
    subjects = {GET_BATCH: batch_id, GET_RUN: run_id}
    async with nothing_left_behind(clients):
        stacks = []
        for operation in operations:
            stack = AsyncExitStack()
            watch = shared_poller().watch(
                subjects[operation], operation=operation, interval=1, connection=connection(), **NO_DEADLINE
            )
            watcher = await stack.enter_async_context(watch)
            assert (await watcher.next_outcome() or {})["id"] == subjects[operation]
            stacks.append(stack)
        for number, stack in enumerate(stacks):
            assert len(clients.open) == 1, number
            await stack.aclose()
        assert not clients.open
    assert clients.made == 1


async def test_a_watch_that_ends_together_with_the_other_leaves_nothing_behind(
    service: Any, clients: CountedClients
) -> None:
    batch_ids, run_ids = start_runs(service, 5)
    async with nothing_left_behind(clients):
        watches = [asyncio.create_task(ask(batch_id, GET_BATCH, 10_000)) for batch_id in batch_ids]
        watches += [asyncio.create_task(ask(run_id, GET_RUN, 10_000)) for run_id in run_ids]
        await timing.async_sleep(30)
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
    assert clients.made == 1


async def test_a_client_is_made_anew_after_the_last_watch_has_ended(service: Any, clients: CountedClients) -> None:
    [batch_id], [run_id] = start_runs(service, 1)
    async with nothing_left_behind(clients):
        await ask(run_id, GET_RUN, 1)
        await ask(batch_id, GET_BATCH, 1)
    assert (clients.made, clients.most_open) == (2, 1)


@pytest.mark.parametrize(("at_once", "earliest", "latest"), [(False, 10, 13), (True, 0, 1)])
async def test_the_first_round_is_at_once_only_if_asked_for(
    at_once: bool, earliest: float, latest: float, service: Any, clients: CountedClients
) -> None:
    _, [run_id] = start_runs(service, 1)
    before = service.clock.elapsed()
    async with nothing_left_behind(clients):
        await ask(run_id, GET_RUN, 1, at_once=at_once)
    assert earliest <= service.clock.elapsed() - before + 0.001
    assert service.clock.elapsed() - before <= latest


async def test_a_run_that_is_not_found_is_an_outcome(service: Any, clients: CountedClients) -> None:
    async with nothing_left_behind(clients):
        [outcome] = await ask("424242", GET_RUN, 1)
    assert isinstance(outcome, OmicsApiError)
    assert outcome.is_not_found
    assert outcome.operation == "GetRun"


@pytest.mark.parametrize("value", ["0", "fast"])
async def test_an_invalid_budget_reaches_the_watch(
    value: str, service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND", value)
    async with nothing_left_behind(clients):
        [outcome] = await ask("42", GET_RUN, 1)
    assert "[omics_cache] max_get_run_per_second" in str(outcome)


async def test_a_trigger_that_asks_for_run_after_run_and_then_its_batch_has_one_client(
    service: Any, clients: CountedClients
) -> None:
    service.settings.run_running_seconds = 100
    [batch_id] = start_batches(service, 1, after=1)
    service.clock.advance(10)
    client = boto3.client("omics")
    [run] = client.list_runs(batchId=batch_id)["items"]
    wait = {"run_ids": ["424242", run["id"], "424243"]}
    async with nothing_left_behind(clients):
        event = await event_of(BatchCompletionTrigger(batch_id=batch_id, poke_interval=5, runs_wait=wait))
    assert (event["status"], event["batch"]["status"]) == ("done", "PROCESSED")
    assert clients.made == 1


async def test_triggers_that_wait_for_runs_keep_both_budgets(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND", "3")
    batch_ids, run_ids = start_runs(service, 40, seconds=300)
    waits = [
        event_of(BatchCompletionTrigger(batch_id=batch_id, poke_interval=5, runs_wait={"run_ids": [run_id]}))
        for batch_id, run_id in zip(batch_ids[:20], run_ids[:20], strict=True)
    ]
    others = [event_of(trigger(batch_id, poke_interval=5)) for batch_id in batch_ids[20:]]
    async with nothing_left_behind(clients):
        events = await all_of(*waits, *others)
    assert {event["status"] for event in events} == {"done"}
    assert {event["batch"]["status"] for event in events[:20]} == {"PROCESSED"}
    assert most_in_a_second(called_at(service, "GetRun")) <= 3 + 1
    assert most_in_a_second(called_at(service, "GetBatch")) <= GET_BATCH_RATE + 1
    assert clients.made == 1
