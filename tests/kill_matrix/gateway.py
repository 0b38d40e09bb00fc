"""A proxy between Airflow and the local HealthOmics: it holds chosen answers back, and can cut every connection."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

#: Headers of one connection, which a proxy does not pass on.
_OF_THE_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "expect"})


@dataclass(frozen=True)
class Call:
    """A request of Airflow.

    :param method: HTTP method.
    :param target: path and query, without percent-encoding.
    :param body: body of the request.
    """

    method: str
    target: str
    body: bytes


@dataclass
class Gate:
    """A place at which calls wait until the gate is opened.

    :param matches: whether a call waits here.
    :param before_effect: whether the call waits on its way to the service, and not on its way back. Default False.
    """

    matches: Callable[[Call], bool]
    before_effect: bool = False
    _opened: threading.Event = field(default_factory=threading.Event)
    _arrived: threading.Event = field(default_factory=threading.Event)

    @property
    def is_reached(self) -> bool:
        """Whether a call waits here."""
        return self._arrived.is_set()

    def wait_until_reached(self, seconds: float) -> bool:
        """Wait until a call waits here; return whether one does.

        :param seconds: the longest wait.
        """
        return self._arrived.wait(seconds)

    def hold(self) -> bool:
        """Wait until the gate is opened; return whether it was closed."""
        was_closed = not self._opened.is_set()
        self._arrived.set()
        self._opened.wait()
        return was_closed

    def open(self) -> None:
        """Let every call pass, those that wait and those that come."""
        self._opened.set()


class Gateway:
    """The proxy. Clients of Airflow know its URL, not the service's.

    :param service: host and port of the local HealthOmics.
    :param log: file to which each call is written.
    """

    def __init__(self, service: tuple[str, int], log: Path) -> None:
        self.gates: Sequence[Gate] = ()
        self._service = service
        self._is_cut = False
        self._under_way = 0
        self._last_call = time.monotonic()
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._log = log.open("w", buffering=1)
        gateway = self

        class Handler(_Handler):
            def setup(self) -> None:
                super().setup()
                self.gateway = gateway

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients are killed on purpose
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Gateway:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        for gate in self.gates:
            gate.open()
        self._server.shutdown()
        self._server.server_close()
        self.cut()

    def cut(self) -> None:
        """Close every connection, and each new one at once, as if the service had been killed."""
        with self._lock:
            self._is_cut = True
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def restore(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._is_cut = False

    @property
    def quiet_seconds(self) -> float:
        """For how many seconds nobody has called the service."""
        with self._lock:
            return 0.0 if self._under_way else time.monotonic() - self._last_call

    def accepts(self, connection: socket.socket) -> bool:
        """Whether a connection may go on.

        :param connection: the connection of a client.
        """
        with self._lock:
            if not self._is_cut:
                self._connections.add(connection)
            return not self._is_cut

    def forget(self, connection: socket.socket) -> None:
        """Forget a connection that is closed.

        :param connection: the connection of a client.
        """
        with self._lock:
            self._connections.discard(connection)

    def answer(self, call: Call, send: Callable[[], _Answer]) -> _Answer:
        """Pass a call on to the service, and hold it where a gate says so.

        :param call: the request.
        :param send: function that passes it on.
        """
        with self._lock:
            self._under_way += 1
        try:
            return self._answer(call, send)
        finally:
            with self._lock:
                self._under_way -= 1
                self._last_call = time.monotonic()

    def _answer(self, call: Call, send: Callable[[], _Answer]) -> _Answer:
        gate = next((gate for gate in self.gates if gate.matches(call)), None)
        held = " (held before its effect)" if gate and gate.before_effect and gate.hold() else ""
        answer = send()
        if gate and not gate.before_effect and gate.hold():
            held = " (answer held back)"
        self._log.write(f"{time.strftime('%H:%M:%S')} {call.method} {call.target} {answer.status}{held}\n")
        return answer

    def connect(self) -> http.client.HTTPConnection:
        """Connect to the service."""
        return http.client.HTTPConnection(*self._service, timeout=120)


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gateway: Gateway

    def handle(self) -> None:
        if not self.gateway.accepts(self.connection):
            return
        try:
            super().handle()
        finally:
            self.gateway.forget(self.connection)

    def _pass_on(self) -> None:
        body = self._body()
        call = Call(self.command, unquote(self.path), body)
        answer = self.gateway.answer(call, lambda: self._ask(body))
        if not self.gateway.accepts(self.connection):
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _pass_on

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _ask(self, body: bytes) -> _Answer:
        connection = self.gateway.connect()
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _OF_THE_CONNECTION | {"content-length"}:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            content = response.read()
            headers = [item for item in response.getheaders() if item[0].lower() not in _OF_THE_CONNECTION]
            if self.command != "HEAD" and response.status != 204:
                headers = [item for item in headers if item[0].lower() != "content-length"]
                headers.append(("Content-Length", str(len(content))))
            return _Answer(response.status, headers, content)
        finally:
            connection.close()

    def log_message(self, *_: Any) -> None:
        """Log nothing: the gateway writes each call to its own log."""
