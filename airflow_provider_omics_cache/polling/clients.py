"""One asynchronous client for all triggers of an event loop that use the same connection."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, NamedTuple

from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook

log = logging.getLogger(__name__)

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


class OpenClient:
    """A client that several calls use at the same time; it closes after the last one, once it is retired.

    :param connection: what it is made of.
    """

    def __init__(self, connection: Connection) -> None:
        self.users = 0
        self._made_at = time.monotonic()
        self._is_retired = False
        self._stack = AsyncExitStack()
        # Tasks of their own, which go on when a call is cancelled: a client that is half made could not be closed.
        self._making = asyncio.create_task(self._make(connection))
        self._closing: asyncio.Task[None] | None = None

    @property
    def age(self) -> float:
        """Seconds since somebody began to make the client."""
        return time.monotonic() - self._made_at

    @property
    def is_made(self) -> bool:
        """Whether the client can be used."""
        return self._making.done() and not self.has_failed

    @property
    def has_failed(self) -> bool:
        """Whether the client could not be made."""
        return self._making.done() and (self._making.cancelled() or self._making.exception() is not None)

    async def get(self) -> Any:
        """Give aiobotocore's client."""
        return await asyncio.shield(self._making)

    async def retire(self) -> None:
        """Close the client after the calls that are under way."""
        self._is_retired = True
        await self.close_if_unused()

    async def close_if_unused(self) -> None:
        """Close the client if it is retired and nobody uses it."""
        if self._is_retired and not self.users:
            self._closing = asyncio.create_task(self._close())
            await asyncio.wait({self._closing})

    async def _make(self, connection: Connection) -> Any:
        context = await connection.hook().get_async_conn()  # type: ignore[no-untyped-call]
        return await self._stack.enter_async_context(context)

    async def _close(self) -> None:
        with suppress(Exception):
            await self._making
        try:
            await self._stack.aclose()
        except Exception:
            log.warning("A HealthOmics client could not be closed", exc_info=True)


class SharedClient:
    """A client of one connection, made when it is first used and anew from time to time.

    :param connection: what it is made of.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._open: OpenClient | None = None
        self._successor: OpenClient | None = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[OpenClient]:
        """Give the client, which stays open inside."""
        await self._renew_if_outdated()
        opened = self._open = self._open or OpenClient(self._connection)
        opened.users += 1
        try:
            yield opened
        finally:
            opened.users -= 1
            await opened.close_if_unused()

    async def renew(self, used: OpenClient) -> bool:
        """Have a client made anew, since its credentials may have changed; tell whether another one will be used.

        :param used: the client whose call was refused.
        """
        if self._open is used:
            if used.age < SHORTEST_LIFETIME:
                return False
            self._open = None
            await used.retire()
        return True

    async def close(self) -> None:
        """Close the client, after the calls that are under way."""
        left = (self._open, self._successor)
        self._open = self._successor = None
        for client in left:
            if client:
                await client.retire()

    async def _renew_if_outdated(self) -> None:
        """Replace an old client as soon as the next one is made; while none can be made, the old one goes on."""
        current = self._open
        if current is None:
            return
        if current.has_failed:
            if current.age >= SHORTEST_LIFETIME:
                self._open = None
                await current.retire()
        elif current.age >= CLIENT_LIFETIME:
            successor = self._successor = self._successor or OpenClient(self._connection)
            if successor.is_made:
                self._open, self._successor = successor, None
                await current.retire()
            elif successor.has_failed and successor.age >= SHORTEST_LIFETIME:
                self._successor = None
                await successor.retire()
