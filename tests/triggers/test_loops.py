"""Several event loops in one process, deadlines, and processes that are killed."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.local import mock_healthomics
from airflow_provider_omics_cache.triggers import poller as poller_module
from airflow_provider_omics_cache.triggers.poller import shared_poller
from tests.conftest import needs_aiobotocore, needs_batches
from tests.triggers.loops import (
    CountedClients,
    all_of,
    called_at,
    changed_calls,
    ends_well,
    event_of,
    in_a_new_loop,
    most_in_a_second,
    nothing_left_behind,
    start_batches,
    trigger,
    until,
    use_quiet_time,
)

pytestmark = [
    needs_batches,
    needs_aiobotocore,
    pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"),
]

LAST_CALL = poller_module.LAST_CALL


# Loops


def test_each_deferral_may_bring_a_new_loop(service: Any, clients: CountedClients) -> None:
    loops = []

    async def wait() -> dict[str, Any]:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        loops.append(weakref.ref(shared_poller()))
        async with nothing_left_behind(clients):
            return await event_of(trigger(start_batches(service, 1, after=30)[0]))

    assert ends_well([in_a_new_loop(wait()) for _ in range(3)])
    assert clients.made == 3
    gc.collect()
    # asgiref keeps the loop that used its thread last.
    assert [kept for kept in loops[:-2] if kept() is not None] == []


def test_a_loop_that_ends_with_triggers_leaves_no_client(service: Any, clients: CountedClients) -> None:
    [batch_id] = start_batches(service, 1, after=10_000)

    async def give_up() -> None:
        asyncio.get_running_loop().wait = asyncio.create_task(event_of(trigger(batch_id)))  # type: ignore[attr-defined]
        await until(lambda: called_at(service))

    in_a_new_loop(give_up())
    assert not clients.open


def test_two_loops_in_two_threads_do_not_disturb_each_other(service: Any, clients: CountedClients) -> None:
    batch_ids = start_batches(service, 20, after=200)
    events: list[dict[str, Any]] = []
    failures: list[BaseException] = []

    def run(mine: list[str]) -> None:
        async def wait() -> list[dict[str, Any]]:
            return await all_of(*(event_of(trigger(batch_id, poke_interval=5)) for batch_id in mine))

        try:
            events.extend(in_a_new_loop(wait()))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(batch_ids[n::2],)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert len(events) == 20
    assert ends_well(events)
    assert clients.made == 2
    assert not clients.open
    # Each loop advances the clock while up to five calls of the other one are under way.
    assert most_in_a_second(called_at(service), seconds=10) <= 2 * (4 * 10 + 5)


# Deadlines


async def test_the_last_round_is_at_the_deadline(service: Any, clients: CountedClients) -> None:
    [batch_id] = start_batches(service, 1, after=990)
    start = service.clock.now().timestamp()
    async with nothing_left_behind(clients):
        event = await event_of(trigger(batch_id, poke_interval=600, deadline=start + 1000))
    assert event["status"] == "done"
    assert service.clock.now().timestamp() - start == pytest.approx(1000, abs=2)


async def test_a_deadline_that_passed_while_no_triggerer_ran(service: Any, clients: CountedClients) -> None:
    done, waiting = [*start_batches(service, 1, after=1), *start_batches(service, 1, after=10_000)]
    service.clock.advance(5)
    start = service.clock.now().timestamp()
    async with nothing_left_behind(clients):
        events = await all_of(
            *(event_of(trigger(batch_id, poke_interval=600, deadline=start - 3600)) for batch_id in (done, waiting))
        )
    assert [event["status"] for event in events] == ["done", "timeout"]
    assert service.calls["GetBatch"] == 2
    assert 10 <= service.clock.now().timestamp() - start <= 13


async def test_a_call_that_hangs_does_not_hold_the_wait_beyond_the_last_call(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "LAST_CALL", 0.2)

    async def hang(**_: Any) -> None:
        await asyncio.Event().wait()

    [batch_id] = start_batches(service, 1, after=1)
    start = service.clock.now().timestamp()
    with changed_calls(monkeypatch, hang):
        async with nothing_left_behind(clients):
            event = await asyncio.wait_for(event_of(trigger(batch_id, deadline=start - 1)), 5)
    # The loop's own clock ends the wait; the service's clock has not reached the end of the last call.
    assert event["status"] == "timeout"


async def test_a_client_that_is_made_slowly_does_not_hold_the_wait_either(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "LAST_CALL", 0.2)
    monkeypatch.setattr(poller_module, "_CLOSING", 0.1)
    clients.hold = asyncio.Event()
    start = service.clock.now().timestamp()
    async with nothing_left_behind(clients):
        event = await asyncio.wait_for(event_of(trigger("42", deadline=start - 1)), 5)
        assert event["status"] == "timeout"
        clients.hold.set()


@pytest.mark.parametrize("row", [{"poke_interval": None}, {"poke_interval": "soon"}, {"deadline": "soon"}])
async def test_a_row_that_cannot_be_read_is_an_error_and_leaves_nothing_behind(
    row: dict[str, Any], service: Any, clients: CountedClients
) -> None:
    async with nothing_left_behind(clients):
        assert (await event_of(trigger("42", **row)))["status"] == "error"


async def test_without_a_deadline_a_wait_continues(service: Any, clients: CountedClients) -> None:
    [batch_id] = start_batches(service, 1, after=5 * 3600)
    async with nothing_left_behind(clients):
        assert ends_well([await event_of(trigger(batch_id, poke_interval=3600, deadline=None))])


# Processes


TRIGGERER = """
import asyncio, json, sys
from airflow_provider_omics_cache.triggers import poller
from airflow_provider_omics_cache.triggers import run_batch

poller.EARLIEST_EVENT = 0.5

async def wait(row):
    trigger = getattr(run_batch, row[0].rpartition(".")[2])(**row[1])
    event = await anext(trigger.run())
    print("event", row[1]["batch_id"], event.payload["status"], flush=True)

async def main(rows):
    await asyncio.gather(*(wait(row) for row in rows))

asyncio.run(main(json.loads(sys.stdin.readline())))
"""


@pytest.fixture
def triggerer(local_healthomics_server: Any) -> Iterator[Any]:
    """Start a process that runs the triggers of the given rows, and prints one line for each event."""
    environment = {
        **os.environ,
        "AIRFLOW_CONN_AWS_DEFAULT": local_healthomics_server.airflow_connection,
        "AIRFLOW__OMICS_CACHE__MAX_GET_BATCH_PER_SECOND": "400",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    started = []

    def start(rows: list[Any]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", TRIGGERER],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        assert process.stdin
        process.stdin.write(json.dumps(rows) + "\n")
        process.stdin.flush()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def events_of(process: subprocess.Popen[str]) -> Iterator[tuple[str, str]]:
    """Yield batch and status of each event."""
    assert process.stdout
    for line in process.stdout:
        words = line.split()
        if words[:1] == ["event"]:
            yield words[1], words[2]


@pytest.mark.large
def test_a_triggerer_that_is_killed_loses_nothing(local_healthomics_server: Any, triggerer: Any) -> None:
    service = local_healthomics_server
    client = boto3.session.Session().client("omics", **service.client_kwargs)
    soon = start_batches(service, 100, after=1, client=client)
    later = start_batches(service, 100, after=1000, client=client)
    rows = {batch_id: trigger(batch_id, poke_interval=1).serialize() for batch_id in soon + later}
    service.clock.advance(10)

    first = triggerer(list(rows.values()))
    events = dict(itertools.islice(events_of(first), len(soon)))
    assert events == dict.fromkeys(soon, "done")
    first.kill()
    assert list(events_of(first)) == []

    service.clock.advance(1000)
    again = triggerer([row for batch_id, row in rows.items() if batch_id not in events])
    assert dict(events_of(again)) == dict.fromkeys(later, "done")


# Any order of events

STEPS = st.one_of(
    st.tuples(st.just("join"), st.integers(0, 3), st.sampled_from([1, 5, 60]), st.sampled_from([None, 3, 40])),
    st.tuples(st.just("leave"), st.integers(0, 10)),
    st.tuples(st.just("fail"), st.sampled_from([404, 403, 429, 500]), st.integers(1, 4)),
    st.tuples(st.just("drop"), st.integers(1, 3)),
    st.tuples(st.just("pass"), st.sampled_from([0.1, 1, 12, 100])),
    st.tuples(st.just("hold")),
    st.tuples(st.just("release")),
)


@pytest.mark.large
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(steps=st.lists(STEPS, min_size=5, max_size=40))
def test_whatever_happens_one_call_a_batch_and_none_that_nobody_awaits(steps: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, mock_healthomics() as local:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://")
        clients = CountedClients(monkeypatch)
        use_quiet_time(monkeypatch, local, clients)
        in_a_new_loop(_play(steps, local, clients, monkeypatch))


async def _play(steps: list[Any], local: Any, clients: CountedClients, monkeypatch: Any) -> None:
    batch_ids = start_batches(local, 4, after=300, client=boto3.client("omics"))
    waits: dict[asyncio.Task[Any], str] = {}
    under_way: list[str] = []
    broken: list[str] = []
    gate = asyncio.Event()
    gate.set()

    async def call(params: dict[str, Any], **_: Any) -> None:
        batch_id = params["url_path"].rpartition("/")[2]
        if batch_id in under_way:
            broken.append(f"two calls about {batch_id}")
        if batch_id not in {waited for wait, waited in waits.items() if not wait.done()}:
            broken.append(f"a call about {batch_id}, which nobody awaits")
        under_way.append(batch_id)
        try:
            await gate.wait()
        finally:
            under_way.remove(batch_id)

    with changed_calls(monkeypatch, call):
        async with nothing_left_behind(clients):
            for step, *arguments in steps:
                if step == "join":
                    number, interval, allowed = arguments
                    deadline = allowed and local.clock.now().timestamp() + allowed
                    waiting = trigger(batch_ids[number], poke_interval=interval, deadline=deadline)
                    waits[asyncio.create_task(event_of(waiting))] = batch_ids[number]
                elif step == "leave":
                    running = [wait for wait in waits if not wait.done()]
                    if arguments[0] < len(running):
                        running[arguments[0]].cancel()
                elif step == "fail":
                    code = {404: "ResourceNotFoundException", 429: "ThrottlingException"}.get(arguments[0], "Failure")
                    local.faults.error("GetBatch", code=code, status=arguments[0], times=arguments[1])
                elif step == "drop":
                    local.faults.drop_connection("GetBatch", times=arguments[0])
                elif step == "pass":
                    await timing.async_sleep(arguments[0])
                elif step == "hold":
                    gate.clear()
                else:
                    gate.set()
                for queue in shared_poller()._queues.values():
                    assert queue.subjects
                    assert all(subject.watchers for subject in queue.subjects.values())
            gate.set()
            local.faults.clear()
            ended = await asyncio.gather(*waits, return_exceptions=True)
    assert broken == []
    assert clients.most_open <= 2
    for event in ended:
        if not isinstance(event, asyncio.CancelledError) and event["status"] not in {"done", "timeout"}:
            assert event["code"] in {"BatchNotFound", "Failure"}
