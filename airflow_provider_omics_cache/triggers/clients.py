"""One asynchronous client for all triggers of an event loop that use the same connection."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, NamedTuple

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import MissingConnectionError, OmicsError
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.redaction import printable, without_passwords

log = logging.getLogger(__name__)

#: Seconds after which a new client replaces a client, so that a changed connection takes effect.
CLIENT_LIFETIME = 900.0

#: Minimum age, in seconds, at which a client is replaced, or at which a failed attempt to make one is repeated.
SHORTEST_LIFETIME = 30.0

#: Seconds that a call waits for a client that is being made.
LONGEST_WAIT = 60.0


class Connection(NamedTuple):
    """The parameters of a client. Triggers with the same parameters share a client."""

    aws_conn_id: str | None
    region_name: str | None
    verify: bool | str | None
    botocore_config: str

    @classmethod
    def of(cls, hook_parameters: dict[str, Any]) -> Connection:
        """Return the key under which a client is shared.

        :param hook_parameters: ``aws_conn_id``, ``region_name``, ``verify`` and ``botocore_config``.
        """
        config = json.dumps(hook_parameters["botocore_config"] or {}, sort_keys=True)
        return cls(**{**hook_parameters, "botocore_config": config})

    def hook(self) -> OmicsCacheHook:
        """Make a hook whose clients make one attempt at each call: the poller sets the pace and repeats calls."""
        config = json.loads(self.botocore_config)
        retries = {name: value for name, value in (config.get("retries") or {}).items() if name != "max_attempts"}
        return OmicsCacheHook(
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            config={**config, "retries": {**retries, "total_max_attempts": 1}},
        )


class OpenClient:
    """A client that several calls use at the same time. A retired client closes after its last call.

    :param connection: parameters of the client.
    :param must_exist: whether it is an error that Airflow does not find the connection, even if the connection may be
        missing. Otherwise the client is made without a connection.
    """

    def __init__(self, connection: Connection, *, must_exist: bool) -> None:
        self.users = 0
        self.closing: asyncio.Task[None] | None = None
        self.has_connection = False
        self._name = connection.aws_conn_id
        self._made_at = timing.monotonic()
        self._is_retired = False
        self._stack = AsyncExitStack()
        # The client is made in its own task, so that a cancelled call does not leave a half-made client. A half-made
        # client cannot be closed.
        self._making = asyncio.create_task(self._make(connection.hook(), must_exist))

    @property
    def age(self) -> float:
        """Seconds since the making of the client began."""
        return timing.monotonic() - self._made_at

    @property
    def is_made(self) -> bool:
        """Whether the client can be used."""
        return self._making.done() and not self.has_failed

    @property
    def has_failed(self) -> bool:
        """Whether the client could not be made."""
        return self.failure is not None

    @property
    def failure(self) -> BaseException | None:
        """Why the client could not be made."""
        if not self._making.done():
            return None
        return asyncio.CancelledError() if self._making.cancelled() else self._making.exception()

    async def get(self) -> Any:
        """Return aiobotocore's client.

        :raises TimeoutError: the client was not made within :data:`LONGEST_WAIT`. The attempt continues, because its
            thread cannot be stopped.
        """
        await asyncio.wait({self._making}, timeout=LONGEST_WAIT)
        if not self._making.done():
            raise TimeoutError(f"no client of connection {self._name!r} could be made within {LONGEST_WAIT:g} s")
        if self._making.cancelled():
            raise OmicsError(f"making the client of connection {self._name!r} was cancelled")
        return self._making.result()

    def retire(self) -> None:
        """Close the client after its current calls."""
        self._is_retired = True
        self.close_if_unused()

    def close_if_unused(self) -> None:
        """Start to close the client if it is retired and no call uses it."""
        if self._is_retired and not self.users and not self.closing:
            self.closing = asyncio.create_task(self._close())

    async def _make(self, hook: OmicsCacheHook, must_exist: bool) -> Any:
        try:
            client = await self._stack.enter_async_context(await hook.get_async_conn())
        finally:
            self.has_connection = hook.has_connection
        if must_exist and not self.has_connection:
            raise MissingConnectionError(str(self._name))
        return client

    async def _close(self) -> None:
        with suppress(Exception):
            await self._making
        try:
            await self._stack.aclose()
        except Exception as error:
            log.warning("A HealthOmics client could not be closed", exc_info=printable(error))


class SharedClient:
    """The client of one connection. It is made at its first use and replaced from time to time.

    :param connection: parameters of the client.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._has_connection = False
        self._is_failing = False
        self._open: OpenClient | None = None
        self._successor: OpenClient | None = None
        self._retired: set[OpenClient] = set()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[OpenClient]:
        """Provide the client; it stays open inside the ``with`` block."""
        self._renew_if_outdated()
        opened = self._open = self._open or self._new_client()
        opened.users += 1
        try:
            yield opened
        finally:
            opened.users -= 1
            opened.close_if_unused()

    async def renew(self, used: OpenClient) -> bool:
        """Replace a client, because its credentials may have changed.

        :param used: the client whose call was refused.
        :return: whether there is another client now.
        """
        if self._open is used and used.age >= SHORTEST_LIFETIME:
            successor = self._next_client()
            with suppress(Exception):
                await successor.get()
            if successor.is_made and self._open is used:
                self._replace(used, successor)
        return self._open is not used

    async def close(self) -> None:
        """Close the client after its current calls."""
        for client in (self._open, self._successor):
            if client:
                self._retire(client)
        self._open = self._successor = None
        closing = [client.closing for client in self._retired if client.closing]
        if closing:
            await asyncio.wait(closing)

    def _renew_if_outdated(self) -> None:
        """Replace an old client as soon as its successor is made. The old one is used until then."""
        current = self._open
        if current is None:
            return
        if current.has_failed:
            if current.age >= SHORTEST_LIFETIME:
                self._replace(current, self._new_client())
        elif current.age >= CLIENT_LIFETIME:
            successor = self._next_client()
            if successor.is_made:
                self._replace(current, successor)

    def _next_client(self) -> OpenClient:
        """Return the successor of the client. A failed attempt is repeated after :data:`SHORTEST_LIFETIME`."""
        failed = self._successor
        if failed and failed.has_failed and failed.age >= SHORTEST_LIFETIME:
            if not self._is_failing:
                reason = without_passwords(repr(failed.failure))
                log.warning("Continuing with the old HealthOmics client: no new one can be made: %s", reason)
            self._is_failing = True
            self._retire(failed)
            self._successor = None
        self._successor = self._successor or self._new_client()
        return self._successor

    def _new_client(self) -> OpenClient:
        if self._open and self._open.has_connection:
            self._has_connection = True
        return OpenClient(self._connection, must_exist=self._has_connection)

    def _replace(self, current: OpenClient, client: OpenClient) -> None:
        self._retire(current)
        self._open, self._successor = client, None
        self._is_failing = False

    def _retire(self, client: OpenClient) -> None:
        self._retired = {retired for retired in self._retired if not (retired.closing and retired.closing.done())}
        self._retired.add(client)
        client.retire()
