"""One poller for all triggers of an event loop: shared clients, and one budget of GetBatch calls for each Region.

HealthOmics allows a few GetBatch calls a second for a whole account and Region, whoever makes them.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from airflow_provider_omics_cache.configuration import calls_per_second
from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.healthomics.rounds import SHORTEST_INTERVAL, is_passing
from airflow_provider_omics_cache.hooks.omics import api_error
from airflow_provider_omics_cache.triggers.clients import Connection, SharedClient

#: Airflow may lose a task whose trigger fires within seconds of its deferral, before the worker has reported.
EARLIEST_EVENT = 10.0

#: Share by which each interval varies, so that tasks that were deferred together do not ask together.
JITTER = 0.1

#: GetBatch calls a second for each Region, where nothing is configured.
DEFAULT_RATE = 4.0

#: Seconds beyond its deadline for which a wait stays for its last round; its task asks once more in any case.
LAST_CALL = 10.0

# Seconds until a call that has failed is made again, before anybody is told.
_SECOND_ATTEMPT = 2.0
# So many throttles in a row leave a batch its place: it was the pace that was wrong.
_THROTTLES_IN_PLACE = 3
# Seconds that a loop sleeps at most, in case something else becomes due sooner.
_LONGEST_SLEEP = 1.0
# Calls of one connection that may be under way: as many may arrive at once when the service, or STS, was hanging.
_MOST_CALLS = 5
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
        self._interval = max(SHORTEST_INTERVAL, float(interval))
        self._deadline = math.inf if deadline is None else float(deadline)
        self._earliest = self._next_failure = time.monotonic() + EARLIEST_EVENT
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def next_outcome(self) -> Outcome | None:
        """Wait for the next round: GetBatch's answer, or its failure; None when the deadline has passed."""
        patience = max(0.0, self._deadline - time.time()) + LAST_CALL
        try:
            async with asyncio.timeout(None if patience == math.inf else patience):
                return await self._outcome
        except TimeoutError:
            return None
        finally:
            self._outcome = asyncio.get_running_loop().create_future()

    def tell(self, outcome: Outcome) -> None:
        """Hand over what a round has brought, unless it is too early.

        Failures in a row are counted: those that another trigger of the batch has asked for between this one's rounds
        are not.
        """
        now = time.monotonic()
        if self._outcome.done() or now < self._earliest:
            return
        if isinstance(outcome, OmicsApiError):
            if now < self._next_failure:
                return
            self._next_failure = now + self._interval * (1 - JITTER)
        self._outcome.set_result(outcome)

    def next_round(self) -> float:
        """Give when this trigger wants the next round, as the monotonic clock has it."""
        seconds = self._interval * random.uniform(1 - JITTER, 1 + JITTER)
        remaining = self._deadline - time.time()
        seconds = min(seconds, remaining if remaining > 0 else SHORTEST_INTERVAL)
        return max(self._earliest, time.monotonic() + seconds)


class _Batch:
    """A batch that one or several triggers watch through one connection.

    ``due`` is when the next call is wanted; never while one is under way.
    """

    def __init__(self, batch_id: str) -> None:
        self.id = batch_id
        self.watchers: set[Watcher] = set()
        self.due = math.inf
        self.failures = 0
        self.call: asyncio.Task[None] | None = None

    def tell(self, outcome: Outcome) -> None:
        for watcher in self.watchers:
            watcher.tell(outcome)

    def next_round(self) -> float:
        return min((watcher.next_round() for watcher in self.watchers), default=math.inf)


class _Budget:
    """Calls at an even pace, slower after a throttle; the connections of a Region stand in one line."""

    def __init__(self) -> None:
        self._highest = self._rate = calls_per_second("max_get_batch_per_second", default=DEFAULT_RATE)
        self._next_turn = self._slowed_at = -math.inf
        self._line: list[_Queue] = []

    async def turn(self, queue: _Queue) -> None:
        """Wait for a connection's turn; the one whose batch is due for the longest time goes first."""
        self._line.append(queue)
        try:
            while True:
                seconds = self._next_turn - time.monotonic()
                if seconds <= 0 and queue is min(self._line, key=_Queue.first_due):
                    break
                await asyncio.sleep(max(0.0, seconds))
            self._next_turn = time.monotonic() + 1 / self._rate
        finally:
            self._line.remove(queue)

    def answered(self) -> None:
        self._rate = min(self._highest, self._rate * _FASTER)

    def throttled(self, called_at: float) -> None:
        """Slow down, once for all calls that were under way together."""
        if called_at <= self._slowed_at:
            return
        self._slowed_at = time.monotonic()
        self._rate = max(self._rate * _SLOWER, self._highest * _SLOWEST)
        self._next_turn = max(self._next_turn, self._slowed_at + 1 / self._rate)


class _Queue:
    """The batches that are watched through one connection."""

    def __init__(self, connection: Connection, budget_of: Callable[[str], _Budget]) -> None:
        self.batches: dict[str, _Batch] = {}
        # A heap; an entry whose batch has become due at another time is outdated.
        self._order: list[tuple[float, int, _Batch]] = []
        self._numbers = itertools.count()
        self._region_name = connection.region_name
        self._client = SharedClient(connection)
        self._budget_of = budget_of
        self._calls: set[asyncio.Task[None]] = set()
        # In no trigger's context: what is logged is not about the task that happens to be the first.
        self._task = asyncio.create_task(self._run(), context=contextvars.Context())

    def first_due(self) -> float:
        """Tell when the first call is due, as the monotonic clock has it; forget entries that are outdated."""
        while self._order and self._order[0][0] != self._order[0][-1].due:
            heapq.heappop(self._order)
        return self._order[0][0] if self._order else math.inf

    def join(self, batch_id: str, watcher: Watcher) -> None:
        """Let a trigger watch a batch."""
        batch = self.batches.setdefault(batch_id, _Batch(batch_id))
        batch.watchers.add(watcher)
        due = watcher.next_round()
        if not batch.call and due < batch.due:
            self._schedule(batch, due)

    def leave(self, batch_id: str, watcher: Watcher) -> None:
        """Let a trigger stop watching; nobody is asked about a batch that no trigger watches."""
        batch = self.batches[batch_id]
        batch.watchers.discard(watcher)
        if not batch.watchers:
            del self.batches[batch_id]
            batch.due = math.inf
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
                    client = await opened.get()
                    await self._ask_in_turn(self._budget_of(client.meta.region_name))
            except Exception as error:
                failure = api_error(error, "GetBatch", self._region_name)
                for batch in self.batches.values():
                    batch.tell(failure)
                await asyncio.sleep(EARLIEST_EVENT)

    async def _ask_in_turn(self, budget: _Budget) -> None:
        """Begin the call that is due first, or wait a little until one is due."""
        seconds = self.first_due() - time.monotonic()
        if seconds > 0:
            await asyncio.sleep(min(seconds, _LONGEST_SLEEP))
            return
        if len(self._calls) >= _MOST_CALLS:
            await asyncio.wait(self._calls, return_when=asyncio.FIRST_COMPLETED)
            return
        await budget.turn(self)
        if self.first_due() <= time.monotonic():
            due, _, batch = heapq.heappop(self._order)
            batch.due = math.inf
            batch.call = asyncio.create_task(self._ask(batch, due, budget))
            self._calls.add(batch.call)
            batch.call.add_done_callback(self._calls.discard)

    async def _ask(self, batch: _Batch, due: float, budget: _Budget) -> None:
        called_at = time.monotonic()
        is_worth_another = has_renewed = False
        try:
            async with self._client.use() as opened:
                client = await opened.get()
                try:
                    outcome: Outcome = await client.get_batch(batchId=batch.id)
                except Exception as error:
                    outcome = api_error(error, "GetBatch", client.meta.region_name, client.meta.endpoint_url)
                    is_worth_another = is_passing(outcome)
                    has_renewed = (
                        not is_worth_another and outcome.http_status != 404 and await self._client.renew(opened)
                    )
        except Exception as error:
            outcome = api_error(error, "GetBatch", self._region_name)
        batch.call = None
        if not isinstance(outcome, OmicsApiError):
            budget.answered()
            batch.failures = 0
            batch.tell(outcome)
            self._schedule(batch, batch.next_round())
            return
        batch.failures += 1
        is_throttled = outcome.http_status == 429
        if is_throttled:
            budget.throttled(called_at)
        if is_throttled and batch.failures <= _THROTTLES_IN_PLACE:
            self._schedule(batch, due)
        elif has_renewed or (is_worth_another and batch.failures == 1):
            self._schedule(batch, time.monotonic() + _SECOND_ATTEMPT)
        else:
            batch.tell(outcome)
            self._schedule(batch, batch.next_round())

    def _schedule(self, batch: _Batch, due: float) -> None:
        batch.due = due
        heapq.heappush(self._order, (due, next(self._numbers), batch))


class Poller:
    """Asks GetBatch for all triggers of one event loop."""

    def __init__(self) -> None:
        self._queues: dict[Connection, _Queue] = {}
        self._budgets: dict[str, _Budget] = {}
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
        watcher = Watcher(interval=interval, deadline=deadline)
        if connection not in self._queues:
            self._queues[connection] = _Queue(connection, self._budget)
        queue = self._queues[connection]
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
        if region_name not in self._budgets:
            self._budgets[region_name] = _Budget()
        return self._budgets[region_name]


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, Poller] = WeakKeyDictionary()


def shared_poller() -> Poller:
    """Give the poller of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _pollers:
        _pollers[loop] = Poller()
    return _pollers[loop]
