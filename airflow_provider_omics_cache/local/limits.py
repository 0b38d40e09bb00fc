"""Limits of the server: the size of a request, the time in which it must arrive, and the number of requests."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from html import escape
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from airflow_provider_omics_cache.local.protocol import Response, ServiceError, error_answer

try:
    from moto.moto_server.werkzeug_app import MotoRequestHandler as _RequestHandler
except ImportError:  # a moto version without its own handler
    _RequestHandler = WSGIRequestHandler  # type: ignore[misc,assignment]

#: Maximum size of the body of a request to HealthOmics or to a control path: 32 MiB. The largest documented request is
#: StartRunBatch with 100 inline settings of at most 256,000 bytes of parameters each.
LARGEST_BODY = 32 * 2**20
#: Maximum size of the body of a request to another service, such as an object for S3: 1 GiB. moto keeps it in memory.
LARGEST_OBJECT = 2**30
#: Maximum size of the headers of a request: 64 KiB.
LARGEST_HEADERS = 64 * 2**10
#: Seconds that the server waits for the next bytes of a request before it closes the connection.
READ_SECONDS = 60.0
#: Maximum number of requests that are answered at the same time.
MOST_REQUESTS = 512

#: Maximum number of bytes that are read of a refused request, so that the client gets the refusal.
_LARGEST_REFUSED = 64 * 2**20
_ERROR_TYPES = {
    408: "RequestTimeoutException",
    413: "RequestEntityTooLargeException",
    414: "RequestUriTooLongException",
    431: "RequestHeaderFieldsTooLargeException",
    503: "ServiceUnavailableException",
}


def read_body(environ: dict[str, Any], limit: int) -> bytes:
    """Read the body of a request.

    :param environ: WSGI environment of the request.
    :param limit: maximum size of the body in bytes.
    :raises ServiceError: the body is too large (413), came too slowly (408), or is not whole (400).
    """
    stream = environ["wsgi.input"]
    try:
        if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            body: bytes = stream.read(limit + 1)
            if len(body) > limit:
                raise _too_large(limit)
            return body
        length = environ.get("CONTENT_LENGTH") or "0"
        if not length.isdecimal():
            raise ServiceError("ValidationException", f"Content-Length must be a number; got {length[:100]!r}")
        if int(length) > limit:
            raise _too_large(limit)
        body = stream.read(int(length))
    except TimeoutError:
        raise _error(408, f"The body did not arrive within {READ_SECONDS:g} s") from None
    except ConnectionError:
        raise
    except OSError as error:
        raise ServiceError("ValidationException", f"The body is not in valid chunks: {error}") from None
    if len(body) < int(length):
        raise ServiceError("ValidationException", f"The body has {len(body)} bytes; Content-Length was {length}")
    return body


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
        self.connection.settimeout(1)
        left = _LARGEST_REFUSED
        while left > 0:
            read = len(self.connection.recv(65_536))
            if not read:
                return
            left -= read


class BoundedServer(ThreadedWSGIServer):
    """Answers a limited number of requests at the same time, each in its thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = threading.BoundedSemaphore(MOST_REQUESTS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a request in a new thread, or refuse it if there are too many."""
        if self._turns.acquire(blocking=False):
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
            self._turns.release()


def _too_large(limit: int) -> ServiceError:
    return _error(413, f"The body of the request is too large: at most {limit} bytes are accepted")


def _error(status: int, message: str) -> ServiceError:
    return ServiceError(_ERROR_TYPES.get(status, "ValidationException"), message, status)
