"""A proxy between AWS clients and the local HealthOmics that damages answers on their way."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import botocore.session

#: HTTP method and path of the operations of S3 that the package uses.
_S3 = {"PutObject": "PUT /[^/]+/.+", "GetObject": "GET /[^/]+/.+", "HeadObject": "HEAD /[^/]+/.+"}
_PAGE = b"<html><body>The proxy is restarting.</body></html>"


class Exchange:
    """One request of a client, on its way to the service.

    :param request: the request as it came.
    :param client: the client's socket.
    :param service: address of the service.
    """

    def __init__(self, request: bytes, client: socket.socket, service: tuple[str, int]) -> None:
        self._request, self._client, self._service = request, client, service

    def deliver(self) -> bytes:
        """Pass the request on to the service, and return its whole answer."""
        with socket.create_connection(self._service, timeout=30) as connection:
            connection.sendall(self._request)
            return b"".join(iter(lambda: connection.recv(65_536), b""))

    def wait_until_client_leaves(self) -> None:
        """Wait until the client has closed its connection."""
        self._client.settimeout(30)
        while self._client.recv(65_536):
            pass


#: What becomes of an exchange: the bytes that the client gets before its connection is closed.
Tear = Callable[[Exchange], bytes]


# Tears


def whole(exchange: Exchange) -> bytes:
    """Damage nothing."""
    return exchange.deliver()


def cut_before(exchange: Exchange) -> bytes:
    """Close the connection before the service gets the request."""
    return b""


def cut_after(exchange: Exchange) -> bytes:
    """Close the connection instead of sending the answer."""
    exchange.deliver()
    return b""


def cut_in_the_headers(exchange: Exchange) -> bytes:
    """Close the connection after the first line and half of the next one."""
    first, rest = exchange.deliver().split(b"\r\n", 1)
    return first + b"\r\n" + rest[:10]


def truncated(exchange: Exchange) -> bytes:
    """Close the connection eight bytes early. The answer has announced its whole length."""
    head, body = _split(exchange.deliver())
    return head + body[:-8]


def truncated_early(exchange: Exchange) -> bytes:
    """Close the connection before the body."""
    head, _ = _split(exchange.deliver())
    return head


def cut_in_a_chunk(exchange: Exchange) -> bytes:
    """Send the body in chunks, and close the connection inside a chunk."""
    head, body = _chunked(exchange.deliver())
    return head + b"%x\r\n" % (len(body) + 2) + body[:-8]


def cut_between_chunks(exchange: Exchange) -> bytes:
    """Send the body in chunks, and close the connection between two chunks."""
    head, body = _chunked(exchange.deliver())
    body = body[:-8]
    return head + (b"%x\r\n%s\r\n" % (len(body), body) if body else b"")


def ended_early(exchange: Exchange) -> bytes:
    """Send the body without its last eight bytes as if it were the whole body."""
    head, body = _chunked(exchange.deliver())
    body = body[:-8]
    return head + (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"


def emptied(exchange: Exchange) -> bytes:
    """Answer with HTTP status 200 and no body. The service has got the request."""
    exchange.deliver()
    return _answer(200, b"")


def web_page(exchange: Exchange) -> bytes:
    """Answer with HTTP status 200 and a web page. The service does not get the request."""
    return _answer(200, _PAGE, b"Content-Type: text/html\r\n")


def refused_with_a_web_page(exchange: Exchange) -> bytes:
    """Answer with HTTP status 403 and a web page. The service does not get the request."""
    return _answer(403, _PAGE, b"Content-Type: text/html\r\n")


def delayed(exchange: Exchange) -> bytes:
    """Hold the answer back until the client gives up."""
    exchange.deliver()
    exchange.wait_until_client_leaves()
    return b""


def repeated(exchange: Exchange) -> bytes:
    """Pass the request on twice, and send the second answer."""
    exchange.deliver()
    return exchange.deliver()


def _split(answer: bytes) -> tuple[bytes, bytes]:
    head, end, body = answer.partition(b"\r\n\r\n")
    return head + end, body


def _chunked(answer: bytes) -> tuple[bytes, bytes]:
    head, body = _split(answer)
    head = re.sub(rb"(?i)\r\n(content-length|connection):[^\r]*", b"", head)
    return head[:-2] + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", body


def _answer(status: int, body: bytes, headers: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    return b"HTTP/1.1 %d Proxied\r\n" % status + headers + length + body


# The proxy


class TornSockets:
    """The proxy.

    :param url: URL of the service.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._service = (str(parts.hostname), int(parts.port or 80))
        self._planned: list[tuple[re.Pattern[str], Tear]] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                proxy._handle(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """URL of the proxy."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def planned(self) -> int:
        """How many tears have not happened yet."""
        return len(self._planned)

    def tear(self, operation: str, *tears: Tear) -> None:
        """Damage the next answers of an operation, one after the other.

        :param operation: name of an operation of HealthOmics, or of S3.
        :param tears: what becomes of each answer; later ones stay whole.
        """
        with self._lock:
            self._planned += [(_pattern(operation), tear) for tear in tears]

    def forget(self) -> None:
        """Damage no more answers."""
        with self._lock:
            self._planned.clear()

    @contextmanager
    def run(self) -> Iterator[TornSockets]:
        """Serve inside the ``with`` block."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def _handle(self, client: socket.socket) -> None:
        request = _read_request(client)
        if not request:
            return
        method, target, _ = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        tear = self._next_tear(f"{method} {target.partition('?')[0]}")
        client.sendall(tear(Exchange(request, client, self._service)))

    def _next_tear(self, asked: str) -> Tear:
        with self._lock:
            for number, (pattern, tear) in enumerate(self._planned):
                if pattern.fullmatch(asked):
                    del self._planned[number]
                    return tear
        return whole


def _pattern(operation: str) -> re.Pattern[str]:
    if operation in _S3:
        return re.compile(_S3[operation])
    http: Any = botocore.session.Session().get_service_model("omics").operation_model(operation).http
    path = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(http["requestUri"]))
    return re.compile(f"{http['method']} {path}")


def _read_request(client: socket.socket) -> bytes:
    """Read one request, which asks the service to close the connection; empty if the client has left."""
    with client.makefile("rb") as stream:
        head = bytearray()
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                return b""
            head += line
        if re.search(rb"(?i)\r\nexpect: *100-continue\r\n", head):
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = bytearray()
        if re.search(rb"(?i)\r\ntransfer-encoding: *chunked\r\n", head):
            while not body.endswith(b"0\r\n\r\n"):
                body += stream.readline()
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if length:
            body += stream.read(int(length[1]))
        sent = re.sub(rb"(?i)\r\n(expect|connection):[^\r]*", b"", bytes(head))
        return sent[:-2] + b"Connection: close\r\n\r\n" + bytes(body)
