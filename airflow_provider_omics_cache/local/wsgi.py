"""The local HealthOmics for AWS clients of any process: one HTTP endpoint, together with moto's services."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from http.client import responses
from typing import Any
from urllib.parse import quote

import boto3
from botocore.config import Config
from moto.core.base_backend import BackendDict
from moto.core.models import botocore_stubber
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from airflow_provider_omics_cache.local.control import CONTROL_PATH, answer_control
from airflow_provider_omics_cache.local.healthomics import LocalHealthOmics, credential_scope
from airflow_provider_omics_cache.local.moto_backend import RUNNING_SERVERS
from airflow_provider_omics_cache.local.protocol import ConnectionDropped, Request, Response, ServiceError

try:
    from moto.moto_server.werkzeug_app import MotoRequestHandler as _RequestHandler
except ImportError:  # a moto version without its own handler
    _RequestHandler = WSGIRequestHandler  # type: ignore[misc,assignment]

Environment = dict[str, Any]
StartResponse = Callable[..., Any]

#: The server accepts any key.
_ANY_KEY = "testing"
_CREDENTIALS = {"aws_access_key_id": _ANY_KEY, "aws_secret_access_key": _ANY_KEY}


class LocalHealthOmicsServer(LocalHealthOmics):
    """A local HealthOmics and moto's services over HTTP.

    :param host: address to listen on. Default 127.0.0.1.
    :param port: port to listen on. Default 0: a free port.
    :param speed: service seconds per real second; 0, the default, means that time stands still until
        ``clock.advance`` is called.
    :param region_name: Region of :attr:`client_kwargs` and :attr:`airflow_connection`. Default us-east-1.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 0.0,
        region_name: str = "us-east-1",
    ) -> None:
        super().__init__(speed=speed)
        self.region_name = region_name
        self._server: BaseWSGIServer = make_server(
            host, port, Application(self), threaded=True, request_handler=_QuietRequestHandler
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """URL of the server."""
        host = self._server.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.port}"

    @property
    def client_kwargs(self) -> dict[str, Any]:
        """Arguments for ``boto3.client`` to use the server."""
        return {
            "endpoint_url": self.url,
            "region_name": self.region_name,
            "config": Config(inject_host_prefix=False, proxies={}),
            **_CREDENTIALS,
        }

    @property
    def airflow_connection(self) -> str:
        """An Airflow connection to the server in JSON, for ``AIRFLOW_CONN_AWS_DEFAULT``."""
        extra = {
            "endpoint_url": self.url,
            "region_name": self.region_name,
            "config_kwargs": {"inject_host_prefix": False},
        }
        connection = {
            "conn_type": "aws",
            "login": _CREDENTIALS["aws_access_key_id"],
            "password": _CREDENTIALS["aws_secret_access_key"],
            "extra": extra,
        }
        return json.dumps(connection)

    def create_bucket(self, name: str) -> None:
        """Create an S3 bucket in the server's Region."""
        s3: Any = boto3.session.Session().client("s3", **self.client_kwargs)
        if self.region_name == "us-east-1":
            s3.create_bucket(Bucket=name)
        else:
            place = {"LocationConstraint": self.region_name}
            s3.create_bucket(Bucket=name, CreateBucketConfiguration=place)

    def start(self) -> None:
        """Start the server."""
        RUNNING_SERVERS.add(self)
        self._thread.start()

    def stop(self) -> None:
        """Stop the server. The last server to stop resets moto's services, unless a mock uses them."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        RUNNING_SERVERS.discard(self)
        if not RUNNING_SERVERS and not botocore_stubber.enabled:
            BackendDict.reset()


@contextlib.contextmanager
def serve(
    *, host: str = "127.0.0.1", port: int = 0, speed: float = 0.0, region_name: str = "us-east-1"
) -> Iterator[LocalHealthOmicsServer]:
    """Serve HealthOmics and moto's services over HTTP while the context lasts.

    :param host: address to listen on. Default 127.0.0.1.
    :param port: port to listen on. Default 0: a free port.
    :param speed: service seconds per real second; 0, the default, means that time stands still until
        ``clock.advance`` is called.
    :param region_name: Region of ``client_kwargs`` and ``airflow_connection``. Default us-east-1.
    """
    server = LocalHealthOmicsServer(host=host, port=port, speed=speed, region_name=region_name)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Application:
    """WSGI application that answers requests to HealthOmics and passes all others on to moto.

    :param local: the local HealthOmics.
    """

    def __init__(self, local: LocalHealthOmics) -> None:
        self._local = local
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        path, _, query = _raw_uri(environ).partition("?")
        if path == CONTROL_PATH or path.startswith(f"{CONTROL_PATH}/"):
            name = path.removeprefix(CONTROL_PATH).removeprefix("/")
            response = answer_control(self._local, environ["REQUEST_METHOD"], name, _body(environ))
            return _send(response, start_response)
        headers = _headers(environ)
        if _service(headers, path, query) != "omics":
            answer: Iterable[bytes] = self._moto(environ, start_response)
            return answer
        request = Request(environ["REQUEST_METHOD"], path, query, _body(environ))
        try:
            response = self._local.handle(request, headers)
        except ConnectionDropped:
            _hang_up(environ)
        return _send(response, start_response)


class _QuietRequestHandler(_RequestHandler):
    def log_request(self, *_: Any, **__: Any) -> None:
        """Log nothing: AWS clients log their own calls."""


def _raw_uri(environ: Environment) -> str:
    raw: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw is not None and raw.startswith("/"):
        return raw
    path = quote(environ.get("PATH_INFO", "").encode("latin-1"))
    return f"{path}?{environ.get('QUERY_STRING', '')}"


def _headers(environ: Environment) -> dict[str, str]:
    return {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}


def _service(headers: dict[str, str], path: str, query: str) -> str | None:
    try:
        return credential_scope(headers, query)[2]
    except ServiceError:
        # Bucket names have no capitals, so this is not a path of S3.
        return "omics" if path.startswith(("/runCache", "/runBatch")) else None


def _body(environ: Environment) -> bytes:
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", ""):
        body: bytes = environ["wsgi.input"].read()
        return body
    length = environ.get("CONTENT_LENGTH") or "0"
    content: bytes = environ["wsgi.input"].read(int(length)) if length.isdecimal() else b""
    return content


def _send(response: Response, start_response: StartResponse) -> list[bytes]:
    headers = dict(response.headers)
    if response.status != 204:
        headers["Content-Length"] = str(len(response.body))
    reason = responses.get(response.status, "Unknown")
    start_response(f"{response.status} {reason}", list(headers.items()))
    return [response.body]


def _hang_up(environ: Environment) -> None:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("connection dropped by a fault")
