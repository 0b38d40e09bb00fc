"""Everything that passes through the broker, searched for secrets."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import redis

from tests.kill_matrix.planted import SECRETS


class BrokerWatch:
    """Write every command that Redis gets to a file, until it is stopped.

    :param port: port of Redis.
    :param path: the file.
    """

    def __init__(self, port: int, path: Path) -> None:
        self._port = port
        self._path = path
        self._is_stopped = threading.Event()

    def __enter__(self) -> BrokerWatch:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_stopped.set()

    def _watch(self) -> None:
        with self._path.open("a", buffering=1) as file:
            while not self._is_stopped.is_set():
                with (
                    suppress(redis.RedisError, OSError, ValueError),
                    redis.Redis(port=self._port, password=SECRETS["broker password"]) as client,
                    client.monitor() as monitor,
                ):
                    while not self._is_stopped.is_set():
                        file.write(f"{monitor.next_command()['command']}\n")
                time.sleep(0.5)  # it was killed
