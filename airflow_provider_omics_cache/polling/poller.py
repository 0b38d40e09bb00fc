"""One poller for all triggers of an event loop: shared clients, and one budget of GetBatch calls for each Region.

HealthOmics allows a few GetBatch calls a second for a whole account and Region, whoever makes them.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

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
# Seconds that the poller sleeps at most; nothing new is due sooner than that.
_LONGEST_SLEEP = 1.0
# How throttling slows the calls down, and how each answer speeds them up again.
_SLOWER, _FASTER = 0.5, 1.05

Outcome = Mapping[str, Any] | OmicsApiError


class Watcher:
    """One trigger's view of a batch.

    :param interval: seconds between two rounds.
    :param deadline: when the last round is, in epoch seconds; None for never.
    """

    def __init__(self, *, interval: float, deadline: float | None) -> None:
        self.interval = interval
        self.deadline = deadline
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def next_outcome(self) -> Outcome | None:
        """Wait for the next round: GetBatch's answer, or its failure; None when the deadline has passed."""
        timeout = None if self.deadline is None else max(0.0, self.deadline - time.time()) + LAST_CALL
        try:
            outcome = await asyncio.wait_for(self._outcome, timeout)
        except TimeoutError:
            outcome = None
        self._outcome = asyncio.get_running_loop().create_future()
        return outcome

    def tell(self, outcome: Outcome) -> None:
        """Hand over what a round has brought."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    def next_round(self, earliest: float = 0.0) -> float:
        """Give the seconds until this trigger wants the next round.

        :param earliest: how many seconds it can be at least.
        """
        seconds = self.interval * random.uniform(1 - JITTER, 1 + JITTER)
        if self.deadline is not None and self.deadline > time.time():
            seconds = min(seconds, self.deadline - time.time())
        return max(earliest, seconds)


class _Batch:
    """A batch that one or several triggers watch through one connection."""

    def __init__(self, batch_id: str, client: SharedClient) -> None:
        self.id = batch_id
        self.client = client
        self.watchers: set[Watcher] = set()
        self.due: float | None = None
        self.failures = 0

    def tell(self, outcome: Outcome) -> None:
        for watcher in self.watchers:
            watcher.tell(outcome)


class _Budget:
    """Calls at an even pace, slower after each throttle."""

    def __init__(self, rate: float) -> None:
        self._highest = self._rate = rate
        self._next_turn = 0.0

    async def turn(self) -> None:
        await asyncio.sleep(max(0.0, self._next_turn - time.monotonic()))
        self._next_turn = time.monotonic() + 1 / self._rate

    def answered(self) -> None:
        self._rate = min(self._highest, self._rate * _FASTER)

    def throttled(self) -> None:
        self._rate = max(self._rate * _SLOWER, self._highest / 64)
        self._next_turn = max(self._next_turn, time.monotonic() + 1 / self._rate)


class _Region:
    """The batches of one Region; the one that is due for the longest time is asked about first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._budget = _Budget(calls_per_second("max_get_batch_per_second", default=DEFAULT_RATE))
        self._due: list[tuple[float, int, _Batch]] = []
        self._order = itertools.count()
        self._has_due = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._run(), context=contextvars.Context())

    def ask_in(self, seconds: float, batch: _Batch) -> None:
        """Ask about a batch in so many seconds, or sooner if that is settled already."""
        at = time.monotonic() + seconds
        if batch.due is None or at < batch.due:
            batch.due = at
            heapq.heappush(self._due, (at, next(self._order), batch))
            self._has_due.set()

    async def close(self) -> None:
        """Stop asking."""
        tasks = [self._task, *self._calls]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            batch = await self._next_batch()
            await self._budget.turn()
            if batch.watchers:
                call = asyncio.create_task(self._ask(batch))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)

    async def _next_batch(self) -> _Batch:
        while True:
            while not self._due:
                self._has_due.clear()
                await self._has_due.wait()
            at, _, batch = self._due[0]
            if not batch.watchers or at != batch.due:
                heapq.heappop(self._due)
            elif at <= time.monotonic():
                heapq.heappop(self._due)
                batch.due = None
                return batch
            else:
                await asyncio.sleep(min(at - time.monotonic(), _LONGEST_SLEEP))

    async def _ask(self, batch: _Batch) -> None:
        outcome = await self._get_batch(batch)
        if not isinstance(outcome, OmicsApiError):
            self._budget.answered()
            batch.failures = 0
        else:
            batch.failures += 1
            if outcome.http_status == 429:
                self._budget.throttled()
            if batch.failures == 1 and (is_passing(outcome) or await self._has_new_client(outcome, batch)):
                self.ask_in(_SECOND_ATTEMPT, batch)
                return
        batch.tell(outcome)
        if batch.watchers:
            self.ask_in(min(watcher.next_round() for watcher in batch.watchers), batch)

    async def _get_batch(self, batch: _Batch) -> Outcome:
        endpoint_url = None
        try:
            async with batch.client.use() as client:
                endpoint_url = client.meta.endpoint_url
                answer: Mapping[str, Any] = await client.get_batch(batchId=batch.id)
                return answer
        except Exception as error:
            return api_error(error, "GetBatch", self._name, endpoint_url)

    async def _has_new_client(self, failure: OmicsApiError, batch: _Batch) -> bool:
        """Tell whether a refused call is worth another attempt, since the connection may have changed."""
        return failure.http_status != 404 and await batch.client.renew()


class Poller:
    """Asks GetBatch for all triggers of one event loop."""

    def __init__(self) -> None:
        self._clients: dict[Connection, SharedClient] = {}
        self._users: dict[Connection, int] = {}
        self._regions: dict[str, _Region] = {}
        self._batches: dict[tuple[Connection, str], _Batch] = {}

    @asynccontextmanager
    async def watch(
        self, *, batch_id: str, interval: float, deadline: float | None, connection: Connection
    ) -> AsyncIterator[Watcher]:
        """Watch a batch; when the last one stops watching, nothing is left behind.

        :param batch_id: the batch.
        :param interval: seconds between two rounds.
        :param deadline: when the last round is, in epoch seconds; None for never.
        :param connection: what the client is made of.
        """
        watcher = Watcher(interval=max(SHORTEST_INTERVAL, interval), deadline=deadline)
        client = self._clients.setdefault(connection, SharedClient(connection))
        self._users[connection] = self._users.get(connection, 0) + 1
        try:
            async with client.use() as opened:
                region_name = opened.meta.region_name
            if region_name not in self._regions:
                self._regions[region_name] = _Region(region_name)
            batch = self._batches.get((connection, batch_id))
            if batch is None:
                batch = self._batches[connection, batch_id] = _Batch(batch_id, client)
            batch.watchers.add(watcher)
            # The task asked just before it deferred.
            self._regions[region_name].ask_in(watcher.next_round(EARLIEST_EVENT), batch)
            try:
                yield watcher
            finally:
                batch.watchers.discard(watcher)
                if not batch.watchers:
                    self._batches.pop((connection, batch_id), None)
        finally:
            await self._leave(connection)

    async def _leave(self, connection: Connection) -> None:
        self._users[connection] -= 1
        if not self._users[connection]:
            del self._users[connection]
            await self._clients.pop(connection).close()
        if not self._users:
            regions, self._regions = self._regions, {}
            for region in regions.values():
                await region.close()


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, Poller] = WeakKeyDictionary()


def shared_poller() -> Poller:
    """Give the poller of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _pollers:
        _pollers[loop] = Poller()
    return _pollers[loop]
