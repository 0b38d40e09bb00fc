"""One poller for all triggers of an event loop: shared clients, and one budget of GetBatch calls for each Region.

HealthOmics allows a few GetBatch calls a second for a whole account and Region, whoever makes them.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.hooks.omics import api_error
from airflow_provider_omics_cache.polling.clients import Connection, SharedClient
from airflow_provider_omics_cache.rates import calls_per_second
from airflow_provider_omics_cache.waiting import SHORTEST_INTERVAL, is_passing

#: Airflow may lose a task whose trigger fires within seconds of its deferral, before the worker has reported.
EARLIEST_EVENT = 10.0

#: Share by which each interval varies, so that tasks that were deferred together do not ask together.
JITTER = 0.1

#: GetBatch calls a second for each Region, where nothing is configured.
DEFAULT_RATE = 4.0

#: Seconds beyond its deadline that a wait lets the last call take.
LAST_CALL = 60.0

# Seconds until a call that has failed is made again, before anybody is told.
_SECOND_ATTEMPT = 2.0
# Seconds that a loop sleeps at most; nothing new is due sooner than that.
_LONGEST_SLEEP = 1.0
# Seconds that the last trigger of a connection waits for the client to close; it closes later if it takes longer.
_CLOSING = 5.0
# How throttling slows the calls down, and how each answer speeds them up again.
_SLOWER, _FASTER, _SLOWEST = 0.5, 1.05, 1 / 64

Outcome = Mapping[str, Any] | OmicsApiError


class Watcher:
    """One trigger's view of a batch.

    :param interval: seconds between two rounds.
    :param deadline: when the last round is, in epoch seconds; None for never.
    """

    def __init__(self, *, interval: float, deadline: float | None) -> None:
        self._interval = max(SHORTEST_INTERVAL, interval)
        self._deadline = deadline
        self._earliest = time.monotonic() + EARLIEST_EVENT
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    @property
    def last_round(self) -> float:
        """When the last round is, as the monotonic clock has it."""
        return math.inf if self._deadline is None else time.monotonic() + self._deadline - time.time()

    async def next_outcome(self) -> Outcome | None:
        """Wait for the next round: GetBatch's answer, or its failure; None when the deadline has passed."""
        timeout = None if self._deadline is None else max(0.0, self._deadline - time.time()) + LAST_CALL
        try:
            outcome = await asyncio.wait_for(self._outcome, timeout)
        except TimeoutError:
            outcome = None
        self._outcome = asyncio.get_running_loop().create_future()
        return outcome

    def tell(self, outcome: Outcome) -> None:
        """Hand over what a round has brought, unless it is too early."""
        if time.monotonic() >= self._earliest and not self._outcome.done():
            self._outcome.set_result(outcome)

    def next_round(self) -> float:
        """Give when this trigger wants the next round, as the monotonic clock has it."""
        seconds = self._interval * random.uniform(1 - JITTER, 1 + JITTER)
        if self._deadline is not None:
            remaining = self._deadline - time.time()
            seconds = min(seconds, remaining if remaining > 0 else SHORTEST_INTERVAL)
        return max(self._earliest, time.monotonic() + seconds)


class _Batch:
    """A batch that one or several triggers watch through one connection."""

    def __init__(self, batch_id: str) -> None:
        self.id = batch_id
        self.watchers: set[Watcher] = set()
        self.due = math.inf
        self.last_round = math.inf
        self.failures = 0
        self.call: asyncio.Task[None] | None = None

    def rank(self, now: float) -> tuple[bool, float]:
        """Say who comes first: those whose last round has come, then those that are due for the longest time."""
        return max(self.due, self.last_round) > now, self.due

    def tell(self, outcome: Outcome) -> None:
        for watcher in self.watchers:
            watcher.tell(outcome)

    def schedule(self) -> None:
        self.due = min((watcher.next_round() for watcher in self.watchers), default=math.inf)
        self.last_round = min((watcher.last_round for watcher in self.watchers), default=math.inf)


class _Budget:
    """Calls at an even pace, slower after a throttle; the connections of a Region stand in one line."""

    def __init__(self) -> None:
        self._highest = self._rate = calls_per_second("max_get_batch_per_second", default=DEFAULT_RATE)
        self._next_turn = self._slowed_at = -math.inf
        self._line: dict[object, tuple[bool, float]] = {}

    async def turn(self, rank: tuple[bool, float]) -> None:
        """Wait for one's turn; the lowest rank goes first."""
        place = object()
        self._line[place] = rank
        try:
            while (seconds := self._next_turn - time.monotonic()) > 0 or place is not self._first():
                await asyncio.sleep(max(0.0, seconds))
            self._next_turn = time.monotonic() + 1 / self._rate
        finally:
            del self._line[place]

    def answered(self) -> None:
        self._rate = min(self._highest, self._rate * _FASTER)

    def throttled(self, called_at: float) -> None:
        """Slow down, once for all calls that were under way together."""
        if called_at <= self._slowed_at:
            return
        self._slowed_at = time.monotonic()
        self._rate = max(self._rate * _SLOWER, self._highest * _SLOWEST)
        self._next_turn = max(self._next_turn, self._slowed_at + 1 / self._rate)

    def _first(self) -> object:
        return min(self._line, key=self._line.__getitem__)


class _Queue:
    """The batches that are watched through one connection."""

    def __init__(self, connection: Connection, budget_of: Callable[[str], _Budget]) -> None:
        self.batches: dict[str, _Batch] = {}
        self._region_name = connection.region_name
        self._client = SharedClient(connection)
        self._budget_of = budget_of
        self._calls: set[asyncio.Task[None]] = set()
        # In no trigger's context: what is logged is not about the task that happens to be the first.
        self._task = asyncio.create_task(self._run(), context=contextvars.Context())

    def join(self, batch_id: str, watcher: Watcher) -> None:
        """Let a trigger watch a batch."""
        batch = self.batches.setdefault(batch_id, _Batch(batch_id))
        batch.watchers.add(watcher)
        batch.due = min(batch.due, watcher.next_round())
        batch.last_round = min(batch.last_round, watcher.last_round)

    def leave(self, batch_id: str, watcher: Watcher) -> None:
        """Let a trigger stop watching; nobody is asked about a batch that no trigger watches."""
        batch = self.batches[batch_id]
        batch.watchers.discard(watcher)
        if not batch.watchers:
            del self.batches[batch_id]
            if batch.call:
                batch.call.cancel()

    async def close(self) -> None:
        """Stop asking, and close the client."""
        self._task.cancel()
        await asyncio.wait({self._task, *self._calls})
        await self._client.close()

    async def _run(self) -> None:
        while True:
            try:
                async with self._client.use() as opened:
                    region_name = (await opened.get()).meta.region_name
                await self._ask_in_turn(self._budget_of(region_name))
            except Exception as error:
                failure = api_error(error, "GetBatch", self._region_name)
                for batch in self.batches.values():
                    batch.tell(failure)
                await asyncio.sleep(EARLIEST_EVENT)

    async def _ask_in_turn(self, budget: _Budget) -> None:
        while True:
            now = time.monotonic()
            batch = self._first(now)
            if batch is None or batch.due > now:
                await asyncio.sleep(min(batch.due - now, _LONGEST_SLEEP) if batch else _LONGEST_SLEEP)
                continue
            await budget.turn(batch.rank(now))
            now = time.monotonic()
            batch = self._first(now)
            if batch and batch.due <= now:
                batch.call = asyncio.create_task(self._ask(batch, budget))
                self._calls.add(batch.call)
                batch.call.add_done_callback(self._calls.discard)

    def _first(self, now: float) -> _Batch | None:
        waiting = (batch for batch in self.batches.values() if not batch.call)
        return min(waiting, key=lambda batch: batch.rank(now), default=None)

    async def _ask(self, batch: _Batch, budget: _Budget) -> None:
        called_at = time.monotonic()
        is_worth_another = False
        try:
            async with self._client.use() as opened:
                client = await opened.get()
                try:
                    outcome: Outcome = await client.get_batch(batchId=batch.id)
                except Exception as error:
                    outcome = api_error(error, "GetBatch", client.meta.region_name, client.meta.endpoint_url)
                    is_worth_another = is_passing(outcome) or (
                        outcome.http_status != 404 and await self._client.renew(opened)
                    )
        except Exception as error:
            outcome = api_error(error, "GetBatch", self._region_name)
        batch.call = None
        if not isinstance(outcome, OmicsApiError):
            budget.answered()
            batch.failures = 0
        else:
            batch.failures += 1
            if outcome.http_status == 429:
                budget.throttled(called_at)
            if batch.failures == 1 and is_worth_another:
                batch.due = time.monotonic() + _SECOND_ATTEMPT
                return
        batch.tell(outcome)
        batch.schedule()


class Poller:
    """Asks GetBatch for all triggers of one event loop."""

    def __init__(self) -> None:
        self._queues: dict[Connection, _Queue] = {}
        self._budgets: WeakValueDictionary[str, _Budget] = WeakValueDictionary()
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def watch(
        self, *, batch_id: str, interval: float, deadline: float | None, connection: Connection
    ) -> AsyncIterator[Watcher]:
        """Watch a batch; when the last one stops watching, nothing is left behind.

        :param batch_id: the batch.
        :param interval: seconds between two rounds, at least 1.
        :param deadline: when the last round is, in epoch seconds; None for never.
        :param connection: what the client is made of.
        """
        if connection not in self._queues:
            self._queues[connection] = _Queue(connection, self._budget)
        queue = self._queues[connection]
        watcher = Watcher(interval=interval, deadline=deadline)
        queue.join(batch_id, watcher)
        try:
            yield watcher
        finally:
            queue.leave(batch_id, watcher)
            if not queue.batches:
                del self._queues[connection]
                closing = asyncio.create_task(queue.close(), context=contextvars.Context())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
                await asyncio.wait({closing}, timeout=_CLOSING)

    def _budget(self, region_name: str) -> _Budget:
        budget = self._budgets.get(region_name)
        if budget is None:
            budget = self._budgets[region_name] = _Budget()
        return budget


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, Poller] = WeakKeyDictionary()


def shared_poller() -> Poller:
    """Give the poller of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _pollers:
        _pollers[loop] = Poller()
    return _pollers[loop]
