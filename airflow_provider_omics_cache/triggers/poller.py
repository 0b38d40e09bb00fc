"""One poller for all triggers of an event loop: shared clients, and limits on the calls in each Region.

HealthOmics allows a few GetBatch calls per second for a whole account and Region. In each Region, all triggers of a
triggerer share one budget of GetBatch calls, and one budget of GetRun calls.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.configuration import calls_per_second
from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.healthomics.rounds import SHORTEST_INTERVAL
from airflow_provider_omics_cache.hooks.errors import api_error
from airflow_provider_omics_cache.triggers.clients import Connection, SharedClient

#: Seconds after a deferral before which no trigger fires. Airflow may lose a task whose trigger fires before the
#: worker has reported the deferral.
EARLIEST_EVENT = 10.0
#: Share by which each interval varies, so that tasks that were deferred together do not call together.
JITTER = 0.1
#: Seconds after its deadline for which a trigger waits for its last round. The task calls once more in any case.
LAST_CALL = 10.0

# Seconds after which a failed call is repeated once. The triggers get a failure only if the second call fails too.
_SECOND_ATTEMPT = 2.0
# Number of consecutive throttled calls for which a subject keeps its place in the queue. After more, the triggers get
# the failure.
_THROTTLES_IN_PLACE = 3
# Longest sleep of a loop in seconds, in case something else becomes due sooner.
_LONGEST_SLEEP = 1.0
# Maximum number of concurrent calls of an operation through one connection. It also limits how many calls arrive at
# once after the service, or STS, did not respond for a while.
_MOST_CALLS = 5
# Seconds that the last trigger of a connection waits for the client to close; it closes later if it takes longer.
_CLOSING = 5.0
# Factors of the rate after a throttled call and after an answer, and the lowest rate as a share of the highest.
_SLOWER, _FASTER, _SLOWEST = 0.5, 1.05, 1 / 64

Outcome = Mapping[str, Any] | OmicsApiError


class Operation(NamedTuple):
    """An operation that the poller repeats.

    :param name: name of the operation.
    :param method: method of aiobotocore's client.
    :param member: member of the request that has the id.
    :param option: setting of ``[omics_cache]`` that limits the calls.
    """

    name: str
    method: str
    member: str
    option: str


GET_BATCH = Operation("GetBatch", "get_batch", "batchId", "max_get_batch_per_second")
GET_RUN = Operation("GetRun", "get_run", "id", "max_get_run_per_second")


class Watcher:
    """One trigger's view of a batch or run.

    :param interval: seconds between two rounds.
    :param deadline: time of the last round, in epoch seconds; None for no deadline.
    :param earliest: minimum seconds until the first outcome.
    """

    def __init__(self, *, interval: float, deadline: float | None, earliest: float = EARLIEST_EVENT) -> None:
        self._interval = max(SHORTEST_INTERVAL, float(interval))
        self._deadline = math.inf if deadline is None else float(deadline)
        self._earliest = self._next_failure = timing.monotonic() + earliest
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def next_outcome(self) -> Outcome | None:
        """Wait for the next round, and return the answer or the failure; None when the deadline has passed."""
        patience = max(0.0, self._deadline - timing.time()) + LAST_CALL
        try:
            async with asyncio.timeout(None if patience == math.inf else patience):
                return await self._outcome
        except TimeoutError:
            return None
        finally:
            self._outcome = asyncio.get_running_loop().create_future()

    def receive(self, outcome: Outcome) -> None:
        """Receive the outcome of a round, unless it is too early.

        Triggers count consecutive failures. If another trigger causes a call between two rounds of this trigger, and
        the call fails, the failure is ignored.

        :param outcome: the answer, or the failure.
        """
        now = timing.monotonic()
        if self._outcome.done() or now < self._earliest:
            return
        if isinstance(outcome, OmicsApiError):
            if now < self._next_failure:
                return
            self._next_failure = now + self._interval * (1 - JITTER)
        self._outcome.set_result(outcome)

    def next_round(self) -> float:
        """Return when this trigger wants the next round, by the monotonic clock."""
        seconds = self._interval * random.uniform(1 - JITTER, 1 + JITTER)  # nosec B311  # jitter is not a secret
        remaining = self._deadline - timing.time()
        seconds = min(seconds, remaining if remaining > 0 else SHORTEST_INTERVAL)
        return max(self._earliest, timing.monotonic() + seconds)


class _Subject:
    """A batch or run that one or several triggers watch through one connection.

    ``due`` is when the next call is wanted. It is infinite while a call is under way.
    """

    def __init__(self, subject_id: str) -> None:
        self.id = subject_id
        self.watchers: set[Watcher] = set()
        self.due = math.inf
        self.failures = 0
        self.call: asyncio.Task[None] | None = None

    def send(self, outcome: Outcome) -> None:
        for watcher in self.watchers:
            watcher.receive(outcome)

    def next_round(self) -> float:
        return min((watcher.next_round() for watcher in self.watchers), default=math.inf)


class _Budget:
    """Spaces calls evenly, and slows down after a throttled call. The connections of a Region share one queue."""

    def __init__(self, option: str) -> None:
        self._highest = self._rate = calls_per_second(option)
        self._next_turn = self._slowed_at = -math.inf
        self._line: list[_Queue] = []

    async def turn(self, queue: _Queue) -> None:
        """Wait for a connection's turn. The connection whose subject has been due longest goes first."""
        self._line.append(queue)
        try:
            while True:
                seconds = self._next_turn - timing.monotonic()
                if seconds <= 0 and queue is min(self._line, key=_Queue.first_due):
                    break
                await timing.async_sleep(max(0.0, seconds))
            self._next_turn = timing.monotonic() + 1 / self._rate
        finally:
            self._line.remove(queue)

    def answered(self) -> None:
        self._rate = min(self._highest, self._rate * _FASTER)

    def throttled(self, called_at: float) -> None:
        """Slow down, but only once for calls that were made at the same time."""
        if called_at <= self._slowed_at:
            return
        self._slowed_at = timing.monotonic()
        self._rate = max(self._rate * _SLOWER, self._highest * _SLOWEST)
        self._next_turn = max(self._next_turn, self._slowed_at + 1 / self._rate)


class _Queue:
    """The subjects of one operation that are watched through one connection."""

    def __init__(
        self, operation: Operation, client: SharedClient, region_name: str | None, budget_of: Callable[[str], _Budget]
    ) -> None:
        self.subjects: dict[str, _Subject] = {}
        # A heap. An entry is outdated when its subject has become due at another time.
        self._order: list[tuple[float, int, _Subject]] = []
        self._numbers = itertools.count()
        self._operation = operation
        self._region_name = region_name
        self._client = client
        self._budget_of = budget_of
        self._calls: set[asyncio.Task[None]] = set()
        # In an empty context, so that its log lines do not go to the log of the first task.
        self._task = asyncio.create_task(self._run(), context=contextvars.Context())

    def first_due(self) -> float:
        """Return when the first call is due, by the monotonic clock; drop outdated entries."""
        while self._order and self._order[0][0] != self._order[0][-1].due:
            heapq.heappop(self._order)
        return self._order[0][0] if self._order else math.inf

    def join(self, subject_id: str, watcher: Watcher, *, at_once: bool) -> None:
        """Add a trigger that watches a subject."""
        subject = self.subjects.setdefault(subject_id, _Subject(subject_id))
        subject.watchers.add(watcher)
        due = timing.monotonic() if at_once else watcher.next_round()
        if not subject.call and due < subject.due:
            self._schedule(subject, due)

    def leave(self, subject_id: str, watcher: Watcher) -> None:
        """Remove a trigger. No calls are made for a subject that no trigger watches."""
        subject = self.subjects[subject_id]
        subject.watchers.discard(watcher)
        if not subject.watchers:
            del self.subjects[subject_id]
            subject.due = math.inf
            if subject.call:
                subject.call.cancel()

    async def stop(self) -> None:
        """Stop making calls."""
        self._task.cancel()
        await asyncio.wait({self._task, *self._calls})

    async def _run(self) -> None:
        while True:
            try:
                async with self._client.use() as opened:
                    client = await opened.get()
                    await self._ask_in_turn(self._budget_of(client.meta.region_name))
            except Exception as error:
                failure = api_error(error, self._operation.name, self._region_name)
                for subject in self.subjects.values():
                    subject.send(failure)
                await timing.async_sleep(EARLIEST_EVENT)

    async def _ask_in_turn(self, budget: _Budget) -> None:
        """Begin the call that is due first, or wait a little until one is due."""
        seconds = self.first_due() - timing.monotonic()
        if seconds > 0:
            await timing.async_sleep(min(seconds, _LONGEST_SLEEP))
            return
        if len(self._calls) >= _MOST_CALLS:
            await asyncio.wait(self._calls, return_when=asyncio.FIRST_COMPLETED)
            return
        await budget.turn(self)
        if self.first_due() <= timing.monotonic():
            due, _, subject = heapq.heappop(self._order)
            subject.due = math.inf
            subject.call = asyncio.create_task(self._ask(subject, due, budget))
            self._calls.add(subject.call)
            subject.call.add_done_callback(self._calls.discard)

    async def _ask(self, subject: _Subject, due: float, budget: _Budget) -> None:
        called_at = timing.monotonic()
        is_worth_another = has_renewed = False
        operation = self._operation
        try:
            async with self._client.use() as opened:
                client = await opened.get()
                try:
                    outcome: Outcome = await getattr(client, operation.method)(**{operation.member: subject.id})
                except Exception as error:
                    outcome = api_error(error, operation.name, client.meta.region_name, client.meta.endpoint_url)
                    is_worth_another = outcome.is_passing
                    is_refused = not is_worth_another and not outcome.is_not_found
                    has_renewed = is_refused and await self._client.renew(opened)
        except Exception as error:
            outcome = api_error(error, operation.name, self._region_name)
        subject.call = None
        if not isinstance(outcome, OmicsApiError):
            budget.answered()
            subject.failures = 0
            subject.send(outcome)
            self._schedule(subject, subject.next_round())
            return
        subject.failures += 1
        is_throttled = outcome.http_status == 429
        if is_throttled:
            budget.throttled(called_at)
        if is_throttled and subject.failures <= _THROTTLES_IN_PLACE:
            self._schedule(subject, due)
        elif has_renewed or (is_worth_another and subject.failures == 1):
            self._schedule(subject, timing.monotonic() + _SECOND_ATTEMPT)
        else:
            subject.send(outcome)
            self._schedule(subject, subject.next_round())

    def _schedule(self, subject: _Subject, due: float) -> None:
        subject.due = due
        heapq.heappush(self._order, (due, next(self._numbers), subject))


class Poller:
    """Calls GetBatch and GetRun for all triggers of one event loop."""

    def __init__(self) -> None:
        self._queues: dict[tuple[Operation, Connection], _Queue] = {}
        self._clients: dict[Connection, SharedClient] = {}
        # Number of waits that need the client of a connection, whether or not they watch something now.
        self._holders: Counter[Connection] = Counter()
        self._budgets: dict[tuple[Operation, str], _Budget] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def hold(self, connection: Connection) -> AsyncIterator[None]:
        """Keep the client of a connection open inside the ``with`` block, also between two watches.

        :param connection: parameters of the client.
        """
        self._holders[connection] += 1
        try:
            yield
        finally:
            self._holders[connection] -= 1
            await self._close_unused(connection)

    @asynccontextmanager
    async def watch(
        self,
        subject_id: str,
        *,
        operation: Operation = GET_BATCH,
        interval: float,
        deadline: float | None,
        connection: Connection,
        at_once: bool = False,
    ) -> AsyncIterator[Watcher]:
        """Watch a batch or run. The client is closed when nothing watches through its connection or holds it.

        :param subject_id: id of the batch or run.
        :param operation: the operation that is repeated. Default: GetBatch.
        :param interval: seconds between two rounds, at least 1.
        :param deadline: time of the last round, in epoch seconds; None for no deadline.
        :param connection: parameters of the client.
        :param at_once: whether the first round is due now. Default: it is due after the interval, and at the earliest
            10 seconds after the deferral.
        """
        watcher = Watcher(interval=interval, deadline=deadline, earliest=0 if at_once else EARLIEST_EVENT)
        queue = self._queue(operation, connection)
        queue.join(subject_id, watcher, at_once=at_once)
        try:
            yield watcher
        finally:
            queue.leave(subject_id, watcher)
            if not queue.subjects:
                del self._queues[operation, connection]
                await self._close_unused(connection, queue)

    def _queue(self, operation: Operation, connection: Connection) -> _Queue:
        key = operation, connection
        if key not in self._queues:
            if connection not in self._clients:
                self._clients[connection] = SharedClient(connection)

            def budget_of(region_name: str) -> _Budget:
                return self._budget(operation, region_name)

            self._queues[key] = _Queue(operation, self._clients[connection], connection.region_name, budget_of)
        return self._queues[key]

    async def _close_unused(self, connection: Connection, queue: _Queue | None = None) -> None:
        """Stop a queue, and close the client of its connection if nothing needs it; wait a few seconds at most."""
        closing = asyncio.create_task(self._close(connection, queue), context=contextvars.Context())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.wait({closing}, timeout=_CLOSING)

    async def _close(self, connection: Connection, queue: _Queue | None) -> None:
        client = None
        if not self._holders[connection] and not any(connection == other for _, other in self._queues):
            del self._holders[connection]
            client = self._clients.pop(connection, None)
        if queue:
            await queue.stop()
        if client:
            await client.close()

    def _budget(self, operation: Operation, region_name: str) -> _Budget:
        key = operation, region_name
        if key not in self._budgets:
            self._budgets[key] = _Budget(operation.option)
        return self._budgets[key]


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, Poller] = WeakKeyDictionary()


def shared_poller() -> Poller:
    """Return the poller of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _pollers:
        _pollers[loop] = Poller()
    return _pollers[loop]
