"""One asynchronous client for all triggers of an event loop that use the same connection."""

from __future__ import annotations

import asyncio
import contextvars
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook

#: Seconds after which a client is made anew, so that a changed connection takes effect.
CLIENT_LIFETIME = 900.0

#: Seconds for which a client is not made anew, and a failure to make one is not tried again.
SHORTEST_LIFETIME = 30.0

# Whoever calls tells the pace, and calls again.
_ONE_ATTEMPT = {"retries": {"total_max_attempts": 1}}


class Connection(NamedTuple):
    """What a client is made of."""

    aws_conn_id: str | None
    region_name: str | None
    verify: bool | str | None
    botocore_config: str

    @classmethod
    def of(cls, hook_parameters: dict[str, Any]) -> Connection:
        """Make the key under which a client is shared.

        :param hook_parameters: ``aws_conn_id``, ``region_name``, ``verify`` and ``botocore_config``.
        """
        config = json.dumps(hook_parameters["botocore_config"] or {}, sort_keys=True)
        return cls(**{**hook_parameters, "botocore_config": config})

    def hook(self) -> OmicsCacheHook:
        """Make a hook whose clients make one attempt at a call, unless ``botocore_config`` says otherwise."""
        return OmicsCacheHook(
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            config={**_ONE_ATTEMPT, **json.loads(self.botocore_config)},
        )


class _OpenClient:
    def __init__(self, client: Any, stack: AsyncExitStack) -> None:
        self.client = client
        self.opened_at = time.monotonic()
        self.users = 0
        self.is_retired = False
        self._stack = stack

    async def close_if_unused(self) -> None:
        if self.is_retired and not self.users:
            await self._stack.aclose()


class SharedClient:
    """A client of one connection, made when it is first used and anew from time to time.

    :param connection: what it is made of.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = asyncio.Lock()
        self._open: _OpenClient | None = None
        self._failure: Exception | None = None
        self._failed_at = 0.0

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Any]:
        """Give the client."""
        async with self._lock:
            if self._open and time.monotonic() >= self._open.opened_at + CLIENT_LIFETIME:
                await self._retire()
            current = self._open = self._open or await self._make()
            current.users += 1
        try:
            yield current.client
        finally:
            current.users -= 1
            await current.close_if_unused()

    async def renew(self) -> bool:
        """Have a new client made, since its credentials may have changed; tell whether that is worth a try."""
        async with self._lock:
            if self._open is None or time.monotonic() < self._open.opened_at + SHORTEST_LIFETIME:
                return False
            await self._retire()
            return True

    async def close(self) -> None:
        """Close the client, after the calls that are under way."""
        async with self._lock:
            await self._retire()

    async def _retire(self) -> None:
        retired, self._open = self._open, None
        if retired:
            retired.is_retired = True
            await retired.close_if_unused()

    async def _make(self) -> _OpenClient:
        if self._failure and time.monotonic() < self._failed_at + SHORTEST_LIFETIME:
            raise self._failure.with_traceback(None)
        try:
            # In no trigger's context: what is logged is not about the task that happens to be the first.
            opened = await asyncio.create_task(self._enter(), context=contextvars.Context())
        except Exception as error:
            self._failure, self._failed_at = error, time.monotonic()
            raise
        self._failure = None
        return opened

    async def _enter(self) -> _OpenClient:
        stack = AsyncExitStack()
        context = await self._connection.hook().get_async_conn()  # type: ignore[no-untyped-call]
        return _OpenClient(await stack.enter_async_context(context), stack)
