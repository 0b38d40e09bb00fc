"""HTTP of the server: how requests are read and answered, and the limits of their size, time and number."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
from contextlib import suppress
from email.message import Message
from html import escape
from io import BufferedIOBase
from typing import Any

from werkzeug.datastructures import Headers
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from airflow_provider_omics_cache.local.protocol import Response, ServiceError, error_answer

try:
    from moto.moto_server.werkzeug_app import MotoRequestHandler as _RequestHandler
except ImportError:  # a moto version without its own handler
    _RequestHandler = WSGIRequestHandler  # type: ignore[misc,assignment]

log = logging.getLogger(__name__)

#: Maximum size of the body of a request that is neither StartRunBatch nor for S3: 6 MiB.
LARGEST_BODY = 6 * 2**20
#: Maximum size of the body of StartRunBatch: 32 MiB. It can have 100 inline settings of at most 256,000 bytes of
#: parameters each.
LARGEST_BATCH = 32 * 2**20
#: Maximum size of the body of a request to S3: 1 GiB. moto keeps it in memory.
LARGEST_OBJECT = 2**30
#: Maximum size of the headers of a request: 64 KiB.
LARGEST_HEADERS = 64 * 2**10
#: Seconds that the server waits for the next bytes of a request before it closes the connection.
READ_SECONDS = 60.0
#: Seconds for which the server keeps an idle connection open. Clients close their idle connections earlier.
IDLE_SECONDS = 30.0
#: Maximum number of connections at the same time.
MOST_REQUESTS = 512
#: After an answer the server keeps the connection open only if at most this many connections are open.
MOST_KEPT = 256

#: Maximum number of bytes that are read of a refused request, so that the client gets the refusal.
_LARGEST_REFUSED = 64 * 2**20
_LONGEST_CHUNK_LINE = 4096
_ERROR_TYPES = {
    408: "RequestTimeoutException",
    413: "RequestEntityTooLargeException",
    414: "RequestUriTooLongException",
    431: "RequestHeaderFieldsTooLargeException",
    503: "ServiceUnavailableException",
}


class RequestBody:
    """The body of a request, as a client sends it.

    :param stream: where the body is read from.
    :param headers: headers of the request.
    """

    def __init__(self, stream: BufferedIOBase, headers: Message) -> None:
        self._stream = stream
        self._encodings = headers.get_all("Transfer-Encoding", [])
        self._lengths = headers.get_all("Content-Length", [])
        #: Whether the body was read to its end, so that the next request on the connection can be read.
        self.is_read = not self._encodings and set(self._lengths) <= {"0"}

    def read(self, limit: int) -> bytes:
        """Read the whole body.

        :param limit: maximum size of the body in bytes.
        :raises ServiceError: the body is too large (413), arrives too slowly (408), or is incomplete or invalid (400).
        """
        try:
            body = self._read_chunks(limit) if self._is_chunked() else self._read_length(limit)
        except TimeoutError:
            raise _error(408, f"The body did not arrive within {READ_SECONDS:g} s") from None
        self.is_read = True
        return body

    def _is_chunked(self) -> bool:
        encoding = ",".join(self._encodings).strip().lower()
        if encoding not in ("", "chunked"):
            raise _error(400, f"Transfer-Encoding must be chunked; got {encoding[:100]!r}")
        if encoding and self._lengths:
            raise _error(400, "A request must not have both Transfer-Encoding and Content-Length")
        return bool(encoding)

    def _read_length(self, limit: int) -> bytes:
        lengths = set(self._lengths) or {"0"}
        length = min(lengths).strip()
        if len(lengths) > 1 or re.fullmatch("[0-9]+", length) is None:
            raise _error(400, f"Content-Length must be one number; got {', '.join(sorted(lengths))[:100]!r}")
        if len(length.lstrip("0")) > len(str(limit)) or int(length) > limit:
            raise _too_large(limit)
        body = self._stream.read(int(length))
        if len(body) < int(length):
            raise _error(400, f"The body has {len(body)} bytes; Content-Length was {length}")
        return body

    def _read_chunks(self, limit: int) -> bytes:
        chunks: list[bytes] = []
        left = limit
        while True:
            size_text, _, _ = self._read_line().partition(b";")
            if re.fullmatch(b"[0-9a-fA-F]{1,16}", size_text.strip()) is None:
                raise _error(400, f"The body is not in valid chunks: {size_text[:100]!r} is not the size of a chunk")
            size = int(size_text, 16)
            if size == 0:
                break
            left -= size
            if left < 0:
                raise _too_large(limit)
            chunks.append(self._stream.read(size))
            if len(chunks[-1]) < size or self._read_line():
                raise _error(400, f"The body is not in valid chunks: a chunk does not have {size} bytes")
        while self._read_line():
            pass  # trailers
        return b"".join(chunks)

    def _read_line(self) -> bytes:
        line = self._stream.readline(_LONGEST_CHUNK_LINE)
        if not line.endswith(b"\n"):
            raise _error(400, "The body is not in valid chunks: a line has no end")
        return line.rstrip(b"\r\n")


def xml_answer(error: ServiceError) -> Response:
    """Return an error in the form that S3 uses.

    :param error: the error.
    """
    code = {413: "EntityTooLarge", 408: "RequestTimeout"}.get(error.status, "InvalidRequest")
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{escape(error.message)}</Message></Error>"
    return Response(error.status, text.encode(), {"Content-Type": "application/xml"})


class BoundedRequestHandler(_RequestHandler):
    """Reads a request within the limits. Answers a request that it cannot read with a HealthOmics error."""

    timeout = READ_SECONDS
    #: An answer is written in two parts. With Nagle's algorithm the second part waits for the client's acknowledgement.
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        """Answer one request of the connection."""
        self.connection.settimeout(min(IDLE_SECONDS, self.timeout))
        super().handle_one_request()

    def run_wsgi(self) -> None:
        """Answer a request whose headers were read."""
        self.connection.settimeout(self.timeout)
        if self.headers.get("Expect", "").strip().lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request_body = RequestBody(self.rfile, self.headers)
        environ = {**self.make_environ(), "wsgi.input": request_body}
        try:
            status, headers, body = self._ask(environ)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        is_bodiless = status < 200 or status in (204, 304)
        if not is_bodiless and self.command != "HEAD":
            headers["Content-Length"] = str(len(body))
        self.close_connection = self.close_connection or not (request_body.is_read and self._may_be_kept())
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if not is_bodiless and self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
        if not request_body.is_read:
            with suppress(OSError):
                self._read_the_rest()

    def _ask(self, environ: dict[str, Any]) -> tuple[int, Headers, bytes]:
        """Return status, headers and body of the application's answer."""
        started: list[Any] = []
        written: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            started[:] = [int(status.split(" ", 1)[0]), headers]
            return written.append

        try:
            answer = self.server.app(environ, start_response)
            try:
                written.extend(answer)
            finally:
                close = getattr(answer, "close", None)
                if close is not None:
                    close()
            return started[0], Headers(started[1]), b"".join(written)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            log.exception("The request failed")
            failed = error_answer(ServiceError("InternalServerException", "The server failed"))
            return failed.status, Headers(list(failed.headers.items())), failed.body

    def _may_be_kept(self) -> bool:
        server = self.server
        return isinstance(server, BoundedServer) and server.connections <= MOST_KEPT

    def parse_request(self) -> bool:
        """Read the headers of a request; return whether it is to be answered."""
        if not super().parse_request():
            return False
        size = sum(len(name) + len(value) + 4 for name, value in self.headers.items())
        if size > LARGEST_HEADERS:
            self.send_error(431, f"The headers have {size} bytes; at most {LARGEST_HEADERS} are accepted")
            return False
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that cannot be read."""
        answer = error_answer(_error(code, message or explain or "The request cannot be read"))
        if self.request_version == "HTTP/0.9":  # the first line was not read
            self.request_version = "HTTP/1.1"
        self.close_connection = True
        with suppress(OSError):
            self.send_response(code)
            for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
                self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(answer.body)
            self.wfile.flush()
            self._read_the_rest()

    def log_request(self, *_: Any, **__: Any) -> None:
        """Log nothing: AWS clients log their own calls."""

    def log_error(self, *_: Any, **__: Any) -> None:
        """Log nothing: the client gets the error, or has closed the connection."""

    def _read_the_rest(self) -> None:
        """Read what the client still sends: it may lose the answer if the connection is closed before that."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(min(1.0, self.timeout))
        left = _LARGEST_REFUSED
        while left > 0:
            read = len(self.connection.recv(65_536))
            if not read:
                return
            left -= read


class BoundedServer(ThreadedWSGIServer):
    """Answers a limited number of requests at the same time, each in its thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._turns = threading.BoundedSemaphore(MOST_REQUESTS)
        self._connections: set[socket.socket] = set()
        super().__init__(*args, **kwargs)

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._connections)

    def server_close(self) -> None:
        """Close the server and its connections."""
        super().server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a request in a new thread, or refuse it if there are too many."""
        if self._turns.acquire(blocking=False):
            self._connections.add(request)
            super().process_request(request, client_address)
            return
        body = json.dumps({"message": f"The server answers at most {MOST_REQUESTS} requests at the same time"}).encode()
        with suppress(OSError):
            request.settimeout(1)
            request.sendall(
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
                b"x-amzn-ErrorType: ServiceUnavailableException\r\n"
                b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
            )
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.discard(request)
            self._turns.release()


def _too_large(limit: int) -> ServiceError:
    return _error(413, f"The body of the request is too large: at most {limit} bytes are accepted")


def _error(status: int, message: str) -> ServiceError:
    return ServiceError(_ERROR_TYPES.get(status, "ValidationException"), message, status)
