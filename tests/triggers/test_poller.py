"""Many triggers on one event loop."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from collections import defaultdict
from typing import Any

import boto3
import pytest

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.triggers.run_batch import BatchTrigger
from tests.conftest import needs_aiobotocore, needs_batches
from tests.triggers.loops import (
    CountedClients,
    all_of,
    called_at,
    changed_calls,
    ends_well,
    event_of,
    most_in_a_second,
    nothing_left_behind,
    start_batches,
    trigger,
    until,
)

pytestmark = [
    needs_batches,
    needs_aiobotocore,
    pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"),
]

RATE = 4


async def test_all_finish_within_the_budget_and_two_rounds(service: Any, clients: CountedClients) -> None:
    batch_ids = start_batches(service, 200, after=300)
    changed_at = service.clock.now().timestamp() + 300
    answered_at = {}

    async def wait(batch_id: str) -> dict[str, Any]:
        event = await event_of(trigger(batch_id, poke_interval=20))
        answered_at[batch_id] = service.clock.now().timestamp()
        return event

    async with nothing_left_behind(clients):
        assert ends_well(await all_of(*map(wait, batch_ids)))
    one_round = len(batch_ids) / RATE
    assert all(0 <= at - changed_at <= 2 * one_round for at in answered_at.values())
    assert most_in_a_second(called_at(service)) <= RATE + 1
    assert clients.made == 1


async def test_the_budget_can_be_set(service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__MAX_GET_BATCH_PER_SECOND", "0.5")
    batch_ids = start_batches(service, 10, after=30)
    async with nothing_left_behind(clients):
        assert ends_well(await all_of(*(event_of(trigger(batch_id, poke_interval=1)) for batch_id in batch_ids)))
    assert all(after - before >= 2 for before, after in itertools.pairwise(called_at(service)))


@pytest.mark.parametrize("value", ["0", "fast"])
async def test_an_invalid_budget_reaches_the_task(
    value: str, service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__MAX_GET_BATCH_PER_SECOND", value)
    async with nothing_left_behind(clients):
        event = await event_of(trigger("42"))
    assert event["status"] == "error"
    assert "[omics_cache] max_get_batch_per_second" in event["message"]
    assert value in event["message"]


_task = contextvars.ContextVar("task", default="no task")


async def test_each_trigger_logs_its_own_lines(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: dict[str, list[str]] = defaultdict(list)

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines[_task.get()].append(record.getMessage())

    recorder = Recorder()
    monkeypatch.setattr(logging.getLogger(), "handlers", [*logging.getLogger().handlers, recorder])
    logging.getLogger("airflow_provider_omics_cache").setLevel(logging.DEBUG)
    logging.getLogger("tests.triggers").setLevel(logging.DEBUG)
    monkeypatch.setattr(BatchTrigger, "log", logging.getLogger("tests.triggers"))
    calls_belong_to = set()

    def record(**_: Any) -> None:
        calls_belong_to.add(_task.get())

    batch_ids = start_batches(service, 5, after=200)
    service.faults.error("GetBatch", status=500, times=20)

    async def wait(batch_id: str) -> dict[str, Any]:
        _task.set(batch_id)
        return await event_of(trigger(batch_id))

    with changed_calls(monkeypatch, record):
        async with nothing_left_behind(clients):
            assert ends_well(await all_of(*map(wait, batch_ids)))
    assert calls_belong_to == {"no task"}
    for batch_id in batch_ids:
        assert any(": no answer" in line for line in lines[batch_id])
        assert any("submitted" in line for line in lines[batch_id])
        assert all(f"batch {batch_id}" in line.lower() for line in lines[batch_id])
    assert not [line for line in lines["no task"] if any(batch_id in line for batch_id in batch_ids)]


async def test_one_call_a_round_for_all_triggers_of_a_batch(service: Any, clients: CountedClients) -> None:
    [batch_id] = start_batches(service, 1, after=1000)
    async with nothing_left_behind(clients):
        events = await all_of(*(event_of(trigger(batch_id, poke_interval=100)) for _ in range(10)))
    assert ends_well(events)
    assert 10 <= service.calls["GetBatch"] <= 13


async def test_the_shortest_interval_holds_while_its_trigger_waits(service: Any, clients: CountedClients) -> None:
    [batch_id] = start_batches(service, 1, after=2000)
    start = service.clock.elapsed()
    async with nothing_left_behind(clients):
        slow = asyncio.create_task(event_of(trigger(batch_id, poke_interval=400)))
        fast = asyncio.create_task(event_of(trigger(batch_id, poke_interval=20)))
        await until(lambda: len(called_at(service)) >= 20)
        fast.cancel()
        left_at = service.clock.elapsed()
        assert ends_well([await slow])
    together = [at for at in called_at(service) if at <= left_at]
    alone = [at for at in called_at(service) if at > left_at]
    assert all(after - before < 23 for before, after in itertools.pairwise(together))
    assert together[0] - start < 23
    assert all(after - before > 350 for before, after in itertools.pairwise(alone[1:]))


async def test_a_trigger_that_joins_late_gets_no_answer_in_its_first_seconds(
    service: Any, clients: CountedClients
) -> None:
    [batch_id] = start_batches(service, 1, after=100)
    async with nothing_left_behind(clients):
        first = asyncio.create_task(event_of(trigger(batch_id, poke_interval=2)))
        await until(lambda: len(called_at(service)) > 40)
        joined_at = service.clock.elapsed()
        second = asyncio.create_task(event_of(trigger(batch_id, poke_interval=2)))
        assert ends_well([await first])
        service.settings.submission_rate = 1
        assert ends_well([await second])
        assert service.clock.elapsed() - joined_at >= 10 - 0.001  # the service's times have milliseconds


async def test_no_one_starves(service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__MAX_GET_BATCH_PER_SECOND", "1")
    asked: dict[str, list[float]] = defaultdict(list)

    def record(params: dict[str, Any], **_: Any) -> None:
        asked[params["url_path"].rpartition("/")[2]].append(service.clock.elapsed())

    batch_ids = start_batches(service, 101, after=1000)
    with changed_calls(monkeypatch, record):
        async with nothing_left_behind(clients):
            eager = event_of(trigger(batch_ids[0], poke_interval=1))
            others = [event_of(trigger(batch_id, poke_interval=60)) for batch_id in batch_ids[1:]]
            assert ends_well(await all_of(*others, eager))
    assert len(asked) == 101
    gaps = {batch_id: max(b - a for a, b in itertools.pairwise(times)) for batch_id, times in asked.items()}
    assert max(gaps.values()) <= 2 * 101
    assert gaps[batch_ids[0]] <= 1.5 * 101


@pytest.mark.newest
async def test_no_one_starves_whose_connection_has_many_batches(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [f"OTHER_{number}" for number in range(5)]
    for name in others:
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", "aws://id:secret@/?region_name=us-east-1")
    batch_ids = start_batches(service, 110, after=400)
    asked: dict[str, list[float]] = defaultdict(list)

    def record(params: dict[str, Any], **_: Any) -> None:
        asked[params["url_path"].rpartition("/")[2]].append(service.clock.elapsed())

    with changed_calls(monkeypatch, record):
        async with nothing_left_behind(clients):
            many = [event_of(trigger(batch_id, poke_interval=10)) for batch_id in batch_ids[:60]]
            few = [
                event_of(trigger(batch_id, poke_interval=10, aws_conn_id=others[number % 5]))
                for number, batch_id in enumerate(batch_ids[60:])
            ]
            assert ends_well(await all_of(*many, *few))
    assert clients.made == 6
    one_round = len(batch_ids) / RATE
    assert (
        max(after - before for times in asked.values() for before, after in itertools.pairwise(times)) < 1.5 * one_round
    )
    assert most_in_a_second(called_at(service)) <= RATE + 1


async def test_two_connections_share_a_regions_budget(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", "aws://id:secret@/?region_name=us-east-1")
    batch_ids = start_batches(service, 40, after=100)
    async with nothing_left_behind(clients):
        events = await all_of(
            *(event_of(trigger(batch_id, poke_interval=1)) for batch_id in batch_ids[:20]),
            *(event_of(trigger(batch_id, poke_interval=1, aws_conn_id="OTHER")) for batch_id in batch_ids[20:]),
        )
    assert ends_well(events)
    assert clients.made == 2
    assert most_in_a_second(called_at(service)) <= RATE + 1


async def test_two_regions_have_their_own_budgets(service: Any, clients: CountedClients) -> None:
    here = start_batches(service, 20, after=100)
    there = start_batches(service, 20, after=100, client=boto3.client("omics", region_name="eu-west-1"))
    async with nothing_left_behind(clients):
        events = await all_of(
            *(event_of(trigger(batch_id, poke_interval=1)) for batch_id in here),
            *(event_of(trigger(batch_id, poke_interval=1, region_name="eu-west-1")) for batch_id in there),
        )
    assert ends_well(events)
    assert RATE + 1 < most_in_a_second(called_at(service)) <= 2 * (RATE + 1)


async def test_a_service_that_allows_less_slows_everybody_down_and_fails_nobody(
    service: Any, clients: CountedClients
) -> None:
    service.settings.rate_limits = {"GetBatch": 2}
    batch_ids = start_batches(service, 100, after=400)
    changed_at = service.clock.now().timestamp() + 400
    async with nothing_left_behind(clients):
        assert ends_well(await all_of(*(event_of(trigger(batch_id, poke_interval=10)) for batch_id in batch_ids)))
    took = service.clock.now().timestamp() - changed_at
    log = [(at, status) for at, name, status in service.call_log if name == "GetBatch"]
    throttled = sum(status == 429 for _, status in log)
    assert 0 < throttled < 0.2 * len(log)
    assert took < 2 * 100 / 2 * 1.5  # two rounds at the service's rate, of which three quarters are used


@pytest.mark.large
async def test_a_thousand_wait_through_the_services_throttling(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__MAX_GET_BATCH_PER_SECOND", "20")
    service.settings.rate_limits = {"GetBatch": 10}
    batch_ids = start_batches(service, 1000, after=300)
    changed_at = service.clock.now().timestamp() + 300
    answered_at = []

    async def wait(batch_id: str) -> dict[str, Any]:
        event = await event_of(trigger(batch_id))
        answered_at.append(service.clock.now().timestamp())
        return event

    async with nothing_left_behind(clients):
        assert ends_well(await all_of(*map(wait, batch_ids)))
    assert 429 in {status for _, _, status in service.call_log}
    assert max(answered_at) - changed_at <= 2 * 1000 / 10


async def test_calls_that_hang_do_not_pile_up(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_ids = start_batches(service, 100, after=200)
    gate = asyncio.Event()
    left_at: list[float] = []

    async def hang(**_: Any) -> None:
        await gate.wait()
        left_at.append(service.clock.elapsed())

    with changed_calls(monkeypatch, hang):
        async with nothing_left_behind(clients):
            waits = [asyncio.create_task(event_of(trigger(batch_id, poke_interval=1))) for batch_id in batch_ids]
            await timing.async_sleep(100)
            gate.set()
            assert ends_well(await all_of(*waits))
    assert most_in_a_second(left_at) <= 10


async def test_a_young_batch_is_not_given_up_because_others_ask_more_often(
    service: Any, clients: CountedClients
) -> None:
    batch_ids = start_batches(service, 1, after=400)
    service.faults.error("GetBatch", code="ResourceNotFoundException", status=404, times=40)
    async with nothing_left_behind(clients):
        patient = asyncio.create_task(event_of(trigger(batch_ids[0], poke_interval=60)))
        hasty = asyncio.create_task(event_of(trigger(batch_ids[0], poke_interval=1)))
        assert (await hasty)["code"] == "BatchNotFound"
        service.faults.clear()
        assert ends_well([await patient])


async def test_the_rate_recovers_after_a_burst_of_throttles(service: Any, clients: CountedClients) -> None:
    batch_ids = start_batches(service, 50, after=1500)
    async with nothing_left_behind(clients):
        waits = [asyncio.create_task(event_of(trigger(batch_id, poke_interval=5))) for batch_id in batch_ids]
        await until(lambda: len(called_at(service)) > 100)
        service.faults.throttle("GetBatch", times=30)
        assert ends_well(await all_of(*waits))
    log = [(at, status) for at, name, status in service.call_log if name == "GetBatch"]
    last_throttle = max(at for at, status in log if status == 429)
    end = log[-1][0]
    assert sum(last_throttle < at < last_throttle + 5 for at, _ in log) <= 2
    late = [at for at, _ in log if end - 60 < at < end - 30]
    assert len(late) > 0.9 * RATE * 30


async def test_a_wait_without_any_answer_ends_after_max_silence(service: Any, clients: CountedClients) -> None:
    batch_ids = start_batches(service, 10, after=100)
    service.faults.throttle("GetBatch", times=None)
    start = service.clock.elapsed()
    async with nothing_left_behind(clients):
        events = await all_of(*(event_of(trigger(batch_id, max_silence=900)) for batch_id in batch_ids))
    assert {event["code"] for event in events} == {"MaxSilence"}
    assert all("ThrottlingException" in event["message"] for event in events)
    assert 900 < service.clock.elapsed() - start < 4 * 900
