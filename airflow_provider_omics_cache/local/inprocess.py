"""The local HealthOmics for AWS clients of the same process."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Generator, Iterator
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from io import BytesIO
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError
from botocore.handlers import BUILTIN_HANDLERS
from moto import mock_aws
from moto.core.models import botocore_stubber

from airflow_provider_omics_cache.local.healthomics import LocalHealthOmics
from airflow_provider_omics_cache.local.moto_backend import RUNNING_SERVERS
from airflow_provider_omics_cache.local.protocol import ConnectionDropped, Request, Response

_HOST = re.compile(
    r"((workflows|tags)-)?omics(-fips)?\.[a-z0-9-]+\.amazonaws\.com"
    r"|vpce-[a-z0-9-]+\.(workflows|tags)-omics(-fips)?\.[a-z0-9-]+\.vpce\.amazonaws\.com"
)
_EVENT = "before-send.omics"
_Function = TypeVar("_Function", bound=Callable[..., Any])

_active: list[LocalHealthOmics] = []


class mock_healthomics:
    """Serve HealthOmics, and moto's mocks of the rest of AWS, in this process.

    Every boto3 and aiobotocore client that is created inside the mock, from a session that is also created inside it,
    uses the mock. Clients with their own endpoint do not. For a client of an older session call :func:`patch_client`.
    The class works as a context manager, and as a decorator of functions and coroutine functions.

    :param speed: service seconds per real second; 0, the default, means that time stands still until
        ``clock.advance`` is called.
    :param strict: whether only registered workflows and run groups exist, and whether runs fail if the bucket of their
        outputs does not exist. Default True.
    :raises RuntimeError: on entering, if a server that was started outside of a mock runs in this process. Both would
        share moto's services, and a mock deletes their state when it starts.
    """

    def __init__(self, *, speed: float = 0.0, strict: bool = True) -> None:
        self._options: dict[str, Any] = {"speed": speed, "strict": strict}
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> LocalHealthOmics:
        """Start the mock."""
        return self._entered.enter_context(_served(**self._options))

    def __exit__(self, *error: Any) -> None:
        """Stop the mock."""
        self._entered.close()

    def __call__(self, function: _Function) -> _Function:
        """Return a function that runs inside the mock."""
        if isinstance(function, type) or isgeneratorfunction(function) or isasyncgenfunction(function):
            raise TypeError(
                f"mock_healthomics cannot decorate {function!r}: it must be a function or a coroutine function"
            )

        def run(*args: Any, **kwargs: Any) -> Any:
            with _served(**self._options):
                return function(*args, **kwargs)

        async def run_coroutine(*args: Any, **kwargs: Any) -> Any:
            with _served(**self._options):
                return await function(*args, **kwargs)

        return cast("_Function", functools.wraps(function)(run_coroutine if iscoroutinefunction(function) else run))


@contextlib.contextmanager
def _served(**options: Any) -> Iterator[LocalHealthOmics]:
    if RUNNING_SERVERS and not botocore_stubber.enabled:
        raise RuntimeError(
            "A local HealthOmics server runs in this process, and a mock would delete its state. "
            "Start the server inside the mock."
        )
    install()
    with mock_aws():
        local = LocalHealthOmics(**options)
        _active.append(local)
        try:
            yield local
        finally:
            _active.remove(local)


def install() -> None:
    """Make every botocore session that is created later use the active :func:`mock_healthomics`."""
    if (_EVENT, _answer) not in BUILTIN_HANDLERS:
        BUILTIN_HANDLERS.append((_EVENT, _answer))


def patch_client(client: Any) -> None:
    """Make a client use the active :func:`mock_healthomics` although its session was created earlier."""
    client.meta.events.register(_EVENT, _answer)


class _Content(bytes):
    """A body that botocore can read and aiobotocore can await."""

    def __await__(self) -> Generator[Any, None, bytes]:
        yield from ()
        return bytes(self)


class _Answer(AWSResponse):
    def __init__(self, url: str, response: Response) -> None:
        headers = HTTPHeaders()
        for name, value in response.headers.items():
            headers[name] = value
        super().__init__(url, response.status, headers, BytesIO(response.body))
        self._content = _Content(response.body)

    @property
    def content(self) -> _Content:
        return _Content(self._content)


def _answer(request: Any, event_name: str, **_: Any) -> _Answer | None:
    if not _active:
        return None
    local = _active[-1]
    url = urlsplit(request.url)
    if _HOST.fullmatch(url.hostname or "") is None or event_name.rpartition(".")[2] not in local.operations:
        return None
    # botocore calls every handler and uses the first answer: other handlers must not act on the request.
    request.url = "https://answered.invalid/"
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    body = request.body or b""
    if not isinstance(body, str | bytes | bytearray):
        body = body.read()
    content = body.encode() if isinstance(body, str) else bytes(body)
    try:
        response = local.handle(Request(request.method, url.path, url.query, content), headers)
    except ConnectionDropped:
        raise ConnectionClosedError(endpoint_url=f"{url.scheme}://{url.netloc}") from None
    return _Answer(url.geturl(), response)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
