"""The local HealthOmics for AWS clients of any process: one HTTP endpoint, together with moto's services."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from http.client import responses
from typing import Any
from urllib.parse import quote

import boto3
from botocore.config import Config
from moto.core.base_backend import BackendDict
from moto.core.models import botocore_stubber
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import select_address_family

from airflow_provider_omics_cache.local.control import CONTROL_PATH, answer_control, refuse_foreign
from airflow_provider_omics_cache.local.healthomics import LocalHealthOmics, credential_scope
from airflow_provider_omics_cache.local.limits import (
    LARGEST_BATCH,
    LARGEST_BODY,
    LARGEST_OBJECT,
    BoundedRequestHandler,
    BoundedServer,
    xml_answer,
)
from airflow_provider_omics_cache.local.moto_backend import RUNNING_SERVERS, watch_for_mocks
from airflow_provider_omics_cache.local.overview import is_for_a_browser
from airflow_provider_omics_cache.local.protocol import (
    ConnectionDropped,
    Request,
    Response,
    ServiceError,
    error_answer,
)
from airflow_provider_omics_cache.local.region import Region

Environment = dict[str, Any]
StartResponse = Callable[..., Any]

_MOTO_CONTROL_PATH = "/moto-api"
#: The server accepts any key.
_ANY_KEY = "testing"
#: Seconds between two looks for settings files that are due.
_READ_INTERVAL = 0.05
_CREDENTIALS = {"aws_access_key_id": _ANY_KEY, "aws_secret_access_key": _ANY_KEY}


class LocalHealthOmicsServer(LocalHealthOmics):
    """A local HealthOmics and moto's services over HTTP.

    :param host: address to listen on. Default 127.0.0.1.
    :param port: port to listen on. Default 0: a free port.
    :param speed: service seconds per real second; 0, the default, means that time stands still until
        ``clock.advance`` is called.
    :param strict: whether only registered workflows and run groups exist, and whether runs fail if the bucket of their
        outputs does not exist. Default True.
    :param region_name: Region of :attr:`client_kwargs` and :attr:`airflow_connection`. Default us-east-1.
    :param allow_hosts: further names of the server, with any port, under which the control paths answer. Default:
        only ``host``, localhost, 127.0.0.1 and [::1], each with the server's port.
    :raises OSError: the server cannot listen there, for example because the port is in use.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 0.0,
        strict: bool = True,
        region_name: str = "us-east-1",
        allow_hosts: Sequence[str] = (),
    ) -> None:
        super().__init__(speed=speed, strict=strict)
        self.region_name = region_name
        application = Application(self, host=host, allow_hosts=allow_hosts)
        # werkzeug would end the process if the port is in use.
        family = select_address_family(host, port)
        with socket.create_server((host, port), family=family, backlog=128) as listening:
            self._server = BoundedServer(host, port, application, BoundedRequestHandler, fd=listening.fileno())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._reader = threading.Thread(target=self._read_due_files, daemon=True)
        self._stopped = threading.Event()

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
        self._reader.start()

    def stop(self) -> None:
        """Stop the server. The last server to stop resets moto's services, unless a mock uses them."""
        self._stopped.set()
        self._server.shutdown()
        self._thread.join()
        self._reader.join()
        self._server.server_close()
        RUNNING_SERVERS.discard(self)
        if not RUNNING_SERVERS and not botocore_stubber.enabled:
            BackendDict.reset()

    def _read_files(self, region: Region) -> None:
        """Read the settings files that are due, unless the clock runs by itself: then no request reads a file."""
        if not self.clock.speed:
            super()._read_files(region)

    def _read_due_files(self) -> None:
        while not self._stopped.wait(_READ_INTERVAL):
            if self.clock.speed:
                for region in self._regions():
                    super()._read_files(region)


@contextlib.contextmanager
def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    speed: float = 0.0,
    strict: bool = True,
    region_name: str = "us-east-1",
    allow_hosts: Sequence[str] = (),
) -> Iterator[LocalHealthOmicsServer]:
    """Serve HealthOmics and moto's services over HTTP while the context lasts.

    :param host: address to listen on. Default 127.0.0.1.
    :param port: port to listen on. Default 0: a free port.
    :param speed: service seconds per real second; 0, the default, means that time stands still until
        ``clock.advance`` is called.
    :param strict: whether only registered workflows and run groups exist, and whether runs fail if the bucket of their
        outputs does not exist. Default True.
    :param region_name: Region of ``client_kwargs`` and ``airflow_connection``. Default us-east-1.
    :param allow_hosts: further names of the server, with any port, under which the control paths answer. Default:
        only ``host``, localhost, 127.0.0.1 and [::1], each with the server's port.
    :raises OSError: the server cannot listen there, for example because the port is in use.
    """
    server = LocalHealthOmicsServer(
        host=host, port=port, speed=speed, strict=strict, region_name=region_name, allow_hosts=allow_hosts
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Application:
    """WSGI application that answers requests to HealthOmics and passes all others on to moto.

    :param local: the local HealthOmics.
    :param host: name that the server was started with.
    :param allow_hosts: further names of the server, with any port, under which the control paths answer.
    """

    def __init__(self, local: LocalHealthOmics, *, host: str, allow_hosts: Sequence[str] = ()) -> None:
        self._local = local
        self._host = host
        self._allow_hosts = allow_hosts
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        watch_for_mocks()
        path, _, query = _raw_uri(environ).partition("?")
        headers = _headers(environ)
        is_control = _is_below(CONTROL_PATH, path)
        is_page = is_for_a_browser(environ["REQUEST_METHOD"], path, query, headers)
        if is_control or is_page or _is_below(_MOTO_CONTROL_PATH, path):
            refusal = refuse_foreign(
                headers,
                hosts=("localhost", "127.0.0.1", "::1", self._host, environ["SERVER_NAME"]),
                port=int(environ["SERVER_PORT"]),
                allow_hosts=self._allow_hosts,
            )
            if refusal is not None:
                return _send(refusal, start_response)
        if is_page:
            return _send(self._local.page(), start_response)
        service = "omics" if is_control else self._service(headers, path, query)
        is_omics = service == "omics"
        limit = LARGEST_OBJECT if service in ("s3", None) else LARGEST_BODY
        if is_omics and path == "/runBatch":
            limit = LARGEST_BATCH
        try:
            body = environ["wsgi.input"].read(limit)
        except ServiceError as error:
            return _send(xml_answer(error) if service in ("s3", None) else error_answer(error), start_response)
        if not is_omics:
            whole = {"wsgi.input": io.BytesIO(body), "wsgi.input_terminated": True}
            answer: Iterable[bytes] = self._moto({**environ, **whole}, start_response)
            return answer
        if is_control:
            name = path.removeprefix(CONTROL_PATH).removeprefix("/")
            return _send(answer_control(self._local, environ["REQUEST_METHOD"], name, body), start_response)
        try:
            response = self._local.handle(Request(environ["REQUEST_METHOD"], path, query, body), headers)
        except ConnectionDropped:
            _hang_up(environ)
        return _send(response, start_response)

    def _service(self, headers: dict[str, str], path: str, query: str) -> str | None:
        """Return the service that a request is for; None if it is not signed and not for HealthOmics."""
        try:
            return credential_scope(headers, query)[2]
        except ServiceError:
            return "omics" if path.split("/")[1:2] and path.split("/")[1] in self._local.roots else None


def _is_below(root: str, path: str) -> bool:
    return path == root or path.startswith(f"{root}/")


def _raw_uri(environ: Environment) -> str:
    raw: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw is not None and raw.startswith("/"):
        return raw
    path = quote(environ.get("PATH_INFO", "").encode("latin-1"))
    return f"{path}?{environ.get('QUERY_STRING', '')}"


def _headers(environ: Environment) -> dict[str, str]:
    return {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}


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
