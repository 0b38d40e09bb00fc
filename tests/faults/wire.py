"""The wire between botocore's real clients and the local HealthOmics: faults happen here.

A handler of botocore's ``before-send`` event answers every request of HealthOmics and S3, in place of a socket. What it
raises or returns goes through botocore's own retries and parsers.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import botocore.handlers
import pytest
from botocore.exceptions import BotoCoreError, ConnectionClosedError, ProxyConnectionError, ReadTimeoutError
from moto.core.models import botocore_stubber

from airflow_provider_omics_cache.local.inprocess import _Answer
from airflow_provider_omics_cache.local.inprocess import _answer as answer_omics
from airflow_provider_omics_cache.local.protocol import Response, ServiceError, error_answer
from tests.faults.schedule import LISTS, MOST_LAG, Fault

if TYPE_CHECKING:
    from tests.faults.world import World

#: Calls after which a schedule counts as one that never ends.
MOST_CALLS = 6_000
#: Seconds of service time that each call takes.
SECONDS_PER_CALL = 0.05
READ_TIMEOUT = 60.0
PROXY_PASSWORD = "planted-proxy-password"
HTML = b"<html><body><h1>Service Unavailable</h1></body></html>"

_ROWS = {
    "ListBatch": "items",
    "ListRuns": "items",
    "ListRunCaches": "items",
    "ListRunGroups": "items",
    "ListRunsInBatch": "runs",
}
_SIZES = {
    "ListBatch": "maxItems",
    "ListRunsInBatch": "maxItems",
    "ListRuns": "maxResults",
    "ListRunCaches": "maxResults",
    "ListRunGroups": "maxResults",
}
_ERRORS = {
    "throttle": ("ThrottlingException", "Rate exceeded", 429),
    "error_500": ("InternalServerException", "The service failed", 500),
    "error_408": ("RequestTimeoutException", "The request timed out", 408),
    "expired": ("ExpiredTokenException", "The security token included in the request is expired", 403),
    "denied": ("AccessDeniedException", "User is not authorized to perform this operation", 403),
    "not_found": ("ResourceNotFoundException", "Batch does not exist", 404),
    "echo": ("AccessDeniedException", "defaultRunSetting.sessionPolicy '{policy}' does not allow omics:StartRun", 403),
    "expired_page": ("ValidationException", "The startingToken has expired", 400),
}
_S3_ERRORS = {
    "throttle": ("SlowDown", 503),
    "error_500": ("InternalError", 500),
    "expired": ("ExpiredToken", 400),
    "denied": ("AccessDenied", 403),
    "head_403": ("AccessDenied", 403),
}


_connected: list[Wire] = []


@contextmanager
def installed() -> Iterator[None]:
    """Let every client that is made inside use the wire that is connected."""

    def send(request: Any, event_name: str, **_: Any) -> _Answer | None:
        try:
            return _connected[-1].send(request, event_name) if _connected else None
        except (BotoCoreError, Killed, EndlessCalls):
            raise
        except Exception as error:
            raise BrokenSimulator from error

    with pytest.MonkeyPatch.context() as patch:
        mine = [(f"before-send.{service}", send) for service in ("omics", "s3")]
        patch.setattr(botocore.handlers, "BUILTIN_HANDLERS", [*mine, *botocore.handlers.BUILTIN_HANDLERS])
        yield


class Killed(KeyboardInterrupt):
    """The process was killed during a call. Nothing that it does afterwards reaches the service."""


class EndlessCalls(KeyboardInterrupt):
    """A task calls the service without end."""


class BrokenSimulator(BaseException):
    """The simulator itself has failed."""


class Wire:
    """Answers every request, after the faults of the schedule.

    :param world: what the schedule happens in.
    :param faults: the faults that happen to calls.
    """

    def __init__(self, world: World, faults: tuple[Fault, ...]) -> None:
        self._world = world
        self._faults = faults
        self._serving = False
        self._answers: dict[str, Response] = {}
        self.calls: Counter[str] = Counter()
        #: When the service has last answered with success.
        self.answered_at = 0.0
        #: Number of times that each kind of fault has happened.
        self.applied: Counter[str] = Counter()

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Answer the requests of the clients that were made inside :func:`installed`."""
        _connected.append(self)
        try:
            yield
        finally:
            _connected.remove(self)

    def kill(self, operation: str, number: int) -> None:
        """Kill the process that gets the answer of a call, besides what the faults of the schedule do.

        :param operation: the operation.
        :param number: number of the call of the operation, from 1.
        """
        self._faults += (Fault("kill_after", operation, nth=number),)

    def send(self, request: Any, event_name: str) -> _Answer | None:
        """Answer a request."""
        if self._serving or request.url.startswith("https://answered.invalid"):
            return None
        service, operation = event_name.split(".")[1:3]
        operation = operation if service == "omics" else f"{service}.{operation}"
        self._world.check_alive()
        if self.calls.total() >= MOST_CALLS:
            raise EndlessCalls
        self.calls[operation] += 1
        self._world.clock.advance(SECONDS_PER_CALL)
        self._world.passed()
        self._world.asks(operation)
        number = self.calls[operation]
        hits = [fault for fault in self._faults if fault.hits(operation, number)]
        hits += [fault for fault in self._faults if fault.kind == "late" and operation in LISTS]
        url = request.url
        for fault in hits:
            self._before(fault, operation, request)
        response = next((found for fault in hits if (found := self._refused(fault, operation, request))), None)
        if response is None:
            response = self._served(request, operation, event_name)
            served = response
            for fault in hits:
                response = self._after(fault, operation, url, response)
            if response is served and response.status < 300:
                self._world.answers(operation, url, response.body)
        self._world.tell(f"{operation} {number}: {response.status} {response.body[:300]!r}")
        self._world.returns(operation, response)
        if response.status < 300:
            self.answered_at = self._world.clock.elapsed()
        request.url = "https://answered.invalid/"
        return _Answer(url, response)

    # What happens before the service sees the call

    def _before(self, fault: Fault, operation: str, request: Any) -> None:
        if fault.kind == "slow":
            self._world.clock.advance(fault.amount)
        elif fault.kind == "drop_before":
            self._happened(fault)
            raise ConnectionClosedError(endpoint_url=request.url)
        elif fault.kind == "proxy":
            self._happened(fault)
            proxy = f"http://user:{PROXY_PASSWORD}@proxy:3128"
            raise ProxyConnectionError(proxy_url=proxy, error=OSError(f"Tunnel to {proxy} failed"))
        elif fault.kind == "kill_before":
            self._happened(fault)
            self._world.kill()
        elif fault.kind == "twin_before":
            self._happened(fault, self._world.run_twin())
            return
        else:
            return
        self._happened(fault)

    def _refused(self, fault: Fault, operation: str, request: Any) -> Response | None:
        if fault.kind == "error_503_html":
            self._happened(fault)
            return Response(503, HTML, {"Content-Type": "text/html"})
        if operation.startswith("s3.") and fault.kind in _S3_ERRORS:
            self._happened(fault)
            return _s3_error(*_S3_ERRORS[fault.kind], is_head=operation == "s3.HeadObject")
        if fault.kind == "alternate":
            self._happened(fault)
            code, message, status = _ERRORS["not_found" if self.calls[operation] % 2 else "error_500"]
            return error_answer(ServiceError(code, message, status))
        if fault.kind not in _ERRORS or (fault.kind == "expired_page" and "startingToken=" not in request.url):
            return None
        self._happened(fault)
        code, message, status = _ERRORS[fault.kind]
        return error_answer(ServiceError(code, message.replace("{policy}", self._world.policy), status))

    def _served(self, request: Any, operation: str, event_name: str) -> Response:
        """Let the service act on the request."""
        size = self._world.choices.get("page_size")
        if operation in LISTS and size:
            request.url = _with_page_size(request.url, _SIZES[operation], size)
        self._serving = True
        try:
            with self._world.watched(operation, request.url):
                if operation.startswith("s3."):
                    answer = botocore_stubber(event_name, request)
                    assert answer is not None
                    return Response(answer.status_code, bytes(answer.content), dict(answer.headers))
                answered = answer_omics(request, event_name)
                assert answered is not None
                return Response(answered.status_code, bytes(answered.content), dict(answered.headers))
        finally:
            self._serving = False

    # What happens to the answer

    def _after(self, fault: Fault, operation: str, url: str, response: Response) -> Response:
        if fault.kind in ("drop_after", "read_timeout", "reuse_id"):
            self._happened(fault)
            if fault.kind == "reuse_id":
                self._world.reuse_id_of(url, living=operation == "CancelRun")
            if fault.kind == "read_timeout":
                self._world.clock.advance(READ_TIMEOUT)
                raise ReadTimeoutError(endpoint_url=url)
            raise ConnectionClosedError(endpoint_url=url)
        if fault.kind == "kill_after":
            self._happened(fault)
            self._world.kill()
        if fault.kind == "twin_after":
            self._happened(fault, self._world.run_twin())
        if response.status >= 300 or operation.startswith("s3."):
            return response
        if fault.kind == "old_answer":
            before = self._answers.setdefault(url, response)
            self._happened(fault, before is not response)
            return before
        changed = _torn(fault, response)
        if changed is None:
            change = getattr(self, f"_{fault.kind}", None)
            changed = change and _changed(response, lambda answer: change(fault, operation, url, answer))
        if changed is None or changed.body == response.body:
            return response
        self._happened(fault)
        return changed

    def _absent(self, fault: Fault, operation: str, url: str, answer: dict[str, Any]) -> None:
        answer.pop(fault.name, None)

    def _absent_in_row(self, fault: Fault, operation: str, url: str, answer: dict[str, Any]) -> None:
        rows = answer.get(_ROWS[operation]) or []
        if rows:
            rows[int(fault.amount) % len(rows)].pop(fault.name, None)

    def _reorder(self, fault: Fault, operation: str, url: str, answer: dict[str, Any]) -> None:
        answer.get(_ROWS[operation], []).reverse()

    def _repeat_row(self, fault: Fault, operation: str, url: str, answer: dict[str, Any]) -> None:
        rows = answer.get(_ROWS[operation], [])
        rows.extend(rows[:1])

    def _same_token(self, fault: Fault, operation: str, url: str, answer: dict[str, Any]) -> None:
        sent = re.search("startingToken=([^&]+)", url)
        if sent and "nextToken" in answer:
            answer["nextToken"] = sent[1]

    def _token_circle(self, fault: Fault, operation: str, url: str, answer: dict[str, Any]) -> None:
        """Answer with the same two pages again and again."""
        tokens = self._world.tokens.setdefault(operation, [])
        if answer.get("nextToken") and len(tokens) < 2 and answer["nextToken"] not in tokens:
            tokens.append(answer["nextToken"])
        elif len(tokens) == 2 and "startingToken=" in url:
            answer["nextToken"] = tokens[tokens[0] in url]

    def _unknown_status(self, fault: Fault, operation: str, url: str, answer: dict[str, Any]) -> None:
        for row in [answer] if operation in ("GetBatch", "GetRun") else answer.get(_ROWS[operation], []):
            row["status"] = "RESTING"

    def _list_lag(self, fault: Fault, operation: str, url: str, answer: dict[str, Any]) -> None:
        """Leave out what is younger than the lag."""
        now = self._world.clock.now().timestamp()
        born = {"ListBatch": "createdAt", "ListRunsInBatch": None}.get(operation, "creationTime")

        def age(row: dict[str, Any]) -> float:
            if born is None:
                return self._world.oracle.seconds_since_submission(url, row.get("runSettingId"))
            return now - datetime.fromisoformat(row[born]).timestamp() if born in row else MOST_LAG

        rows = _ROWS[operation]
        if rows in answer:
            answer[rows] = [row for row in answer[rows] if age(row) >= fault.amount]

    _late = _list_lag

    def _happened(self, fault: Fault, has_happened: object = True) -> None:
        if has_happened:
            self.applied[fault.kind] += 1
            self._world.tell(f"{fault.operation} {self.calls[fault.operation]}: {fault.kind}")


def _torn(fault: Fault, response: Response) -> Response | None:
    """Return what is left of an answer, None if the fault tears nothing."""
    body, headers = response.body, dict(response.headers)
    if fault.kind == "cut":
        return Response(response.status, body[: max(1, int(len(body) * fault.amount))], headers)
    if fault.kind == "empty":
        return Response(response.status, b"", headers)
    if fault.kind == "html":
        return Response(response.status, HTML, {**headers, "Content-Type": "text/html"})
    return None


def _changed(response: Response, change: Callable[[dict[str, Any]], None]) -> Response:
    try:
        answer = json.loads(response.body)
    except ValueError:  # another fault has torn it
        return response
    before = json.dumps(answer)
    change(answer)
    after = json.dumps(answer)
    return response if before == after else Response(response.status, after.encode(), response.headers)


def _s3_error(code: str, status: int, *, is_head: bool) -> Response:
    body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    return Response(status, b"" if is_head else body, {"Content-Type": "application/xml"})


def _with_page_size(url: str, name: str, size: int) -> str:
    changed, count = re.subn(rf"\b{name}=\d+", f"{name}={size}", url)
    return changed if count else f"{url}{'&' if '?' in url else '?'}{name}={size}"
