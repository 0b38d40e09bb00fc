"""What the poller's tests use: time that passes only while nothing else happens, counted clients, clean endings."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import boto3

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.triggers.poller import shared_poller
from airflow_provider_omics_cache.triggers.run_batch import BatchSubmissionTrigger, BatchTrigger
from tests.sensor_modes import ServiceTime, start_batch

T = TypeVar("T")

_let_others_run = asyncio.sleep


class QuietTime(ServiceTime):
    """The service's clock, advanced by the task that sleeps the shortest, never while a client is being made."""

    #: Turns of the loop after which nothing else happens.
    turns = 10

    def __init__(self, clock: Any, clients: CountedClients) -> None:
        super().__init__(clock)
        self._clients = clients
        self._wake_ups: list[float] = []

    async def async_sleep(self, seconds: float) -> None:
        until = self.time() + seconds
        self._wake_ups.append(until)
        try:
            await _let_others_run(0)
            while self.time() < until:
                for _ in range(self.turns):
                    await _let_others_run(0)
                if self._clients.in_the_making:
                    await _let_others_run(0.002)
                elif until == min(self._wake_ups):
                    self._clock.advance(max(0.0, until - self.time()) + 1e-6)
        finally:
            self._wake_ups.remove(until)


class CountedClients:
    """Counts the clients of the poller that are made, and those that are open."""

    def __init__(self, monkeypatch: Any) -> None:
        self.made = 0
        self.most_open = 0
        self.in_the_making = 0
        self.open: set[Any] = set()
        self.attempts = 0
        self.hold: asyncio.Event | None = None
        self.hold_closing: asyncio.Event | None = None
        counted = self
        get_async_conn = OmicsCacheHook.get_async_conn

        async def get_counted(hook: OmicsCacheHook) -> Any:
            counted.attempts += 1
            counted.in_the_making += 1
            try:
                if counted.hold:
                    await counted.hold.wait()
                return counted._entered(await get_async_conn(hook))
            finally:
                counted.in_the_making -= 1

        monkeypatch.setattr(OmicsCacheHook, "get_async_conn", get_counted)

    @contextlib.asynccontextmanager
    async def _entered(self, context: Any) -> Any:
        client = await context.__aenter__()
        self.made += 1
        self.open.add(client)
        self.most_open = max(self.most_open, len(self.open))
        try:
            yield client
        finally:
            if self.hold_closing:
                await self.hold_closing.wait()
            await context.__aexit__(None, None, None)
            self.open.discard(client)


def use_quiet_time(monkeypatch: Any, local: Any, clients: CountedClients) -> None:
    """Make the service's clock the clock of the poller and its triggers."""
    monkeypatch.setattr(timing, "_source", QuietTime(local.clock, clients))


def start_batches(service: Any, number: int, *, after: float = 100.0, client: Any = None) -> list[str]:
    """Start batches of one run whose submission is over ``after`` seconds from now."""
    service.settings.creating_seconds = service.settings.pending_seconds = 0
    service.settings.submission_rate = 1 / after
    return [start_batch(client or boto3.client("omics"), runs=1) for _ in range(number)]


def trigger(batch_id: str, **kwargs: Any) -> BatchTrigger:
    """Make a trigger, as the database gives it."""
    again = BatchSubmissionTrigger(batch_id=batch_id, **kwargs)
    return type(again)(**again.serialize()[1])


async def event_of(waiting: BatchTrigger) -> dict[str, Any]:
    """Run a trigger to its event."""
    async for event in waiting.run():
        return dict(event.payload)
    raise AssertionError("the trigger has ended without an event")


async def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait, in real time, until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await _let_others_run(0.001)


@contextlib.asynccontextmanager
async def nothing_left_behind(clients: CountedClients) -> Any:
    """Check that afterwards no task, no client and no entry is left, and that the loop has reported nothing."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, complaint: complaints.append(complaint))
    before = asyncio.all_tasks()
    yield
    await until(lambda: asyncio.all_tasks() <= before)
    gc.collect()
    poller = shared_poller()
    assert not clients.open
    assert not clients.in_the_making
    assert (poller._queues, poller._clients, dict(poller._holders), poller._closing) == ({}, {}, {}, set())
    await _let_others_run(0)
    assert complaints == []


def called_at(service: Any, operation: str = "GetBatch") -> list[float]:
    """Return the service time of each call."""
    return [at for at, name, _ in service.call_log if name == operation]


def most_in_a_second(times: list[float], *, seconds: float = 1) -> int:
    """Return the largest number of times within one second, or within so many seconds."""
    times = sorted(times)
    return max(bisect_left(times, start + seconds) - first for first, start in enumerate(times))


def ends_well(events: list[dict[str, Any]]) -> bool:
    """Whether all waits have ended with their batch."""
    return {event["status"] for event in events} == {"done"}


async def all_of(*waits: Awaitable[Any]) -> list[Any]:
    """Wait for all."""
    return list(await asyncio.gather(*waits))


def in_a_new_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run in a loop of its own, as each deferral of ``dag.test`` does; in a thread, apart from pytest's loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, main).result()


@contextlib.contextmanager
def changed_calls(monkeypatch: Any, handler: Callable[..., Any], operation: str = "GetBatch") -> Iterator[None]:
    """Let a handler, which may be a coroutine, see each call of clients that are made from now on."""
    import botocore.handlers

    with monkeypatch.context() as patch:
        handlers = [*botocore.handlers.BUILTIN_HANDLERS, (f"before-call.omics.{operation}", handler)]
        patch.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)
        yield
