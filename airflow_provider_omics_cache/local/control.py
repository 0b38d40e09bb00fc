"""Control of a local HealthOmics in another process, over HTTP paths that are not part of the AWS API."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_omics_cache.local.protocol import Response

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local.healthomics import LocalHealthOmics

log = logging.getLogger(__name__)

CONTROL_PATH = "/local-healthomics"

_FAULTS = frozenset(
    {
        "clear",
        "throttle",
        "error",
        "drop_connection",
        "latency",
        "fail_submission",
        "fail_run",
        "fail_task",
        "fail_batch",
        "fail_cancel",
        "fail_delete",
        "stale_counts",
        "lagging_listing",
    }
)
_ACTIONS = frozenset(
    {
        "reset",
        "forget_tokens",
        "register_workflow",
        "register_workflow_version",
        "delete_workflow",
        "register_run_group",
        "delete_run_group",
    }
)


def refuse_foreign(
    headers: Mapping[str, str], *, hosts: Iterable[str], port: int, allow_hosts: Iterable[str]
) -> Response | None:
    """Refuse a request that a web page makes from a browser on this machine, including after DNS rebinding.

    :param headers: headers of the request by lower-case name.
    :param hosts: names of the server that are accepted with its port.
    :param port: port of the server.
    :param allow_hosts: names of the server that are accepted with any port.
    :return: the answer, None if the request is not refused.
    """
    own = {name.lower() for name in hosts}
    allowed = {name.lower() for name in allow_hosts}

    def is_own(authority: str) -> bool:
        try:
            parts = urlsplit(f"//{authority}")
            name, given_port = parts.hostname, parts.port or 80
        except ValueError:
            return False
        return name in allowed or (name in own and given_port == port)

    host, origin = headers.get("host", ""), headers.get("origin")
    if not is_own(host):
        return _foreign("Host", host, "start the server with --allow-host and that name if it is the server's")
    if origin is not None and not (origin.startswith("http://") and is_own(origin.removeprefix("http://"))):
        return _foreign("Origin", origin, "web pages must not use the control paths")
    return None


def _foreign(header: str, value: str, advice: str) -> Response:
    return _json(403, {"message": f"The control paths refuse {header} {value[:200]!r}: {advice}"})


def answer_control(local: LocalHealthOmics, method: str, name: str, body: bytes) -> Response:
    """Answer a request to a control path.

    :param local: the local HealthOmics.
    :param method: HTTP method: GET reads, POST changes.
    :param name: path below :data:`CONTROL_PATH`.
    :param body: request body, a JSON object or empty.
    """
    try:
        given = json.loads(body) if body else {}
        if not isinstance(given, dict):
            raise ValueError("the body must be a JSON object")
        answer = _control(local, method, name, given)
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        return _json(400, {"message": str(error)})
    except Exception:
        log.exception("The control request failed")
        return _json(500, {"message": "The control request failed"})
    if answer is None:
        return _json(404, {"message": f"there is no control {method} {CONTROL_PATH}/{name}"})
    return _json(200, answer)


def _control(local: LocalHealthOmics, method: str, name: str, given: dict[str, Any]) -> dict[str, Any] | None:
    if name == "clock" and method in ("GET", "POST"):
        for attribute in ("speed", "tick"):
            if attribute in given:
                setattr(local.clock, attribute, given[attribute])
        if "advance" in given:
            local.clock.advance(given["advance"])
        return {"now": local.clock.now().isoformat(), "speed": local.clock.speed, "tick": local.clock.tick}
    if name == "settings" and method in ("GET", "POST"):
        for setting, value in given.items():
            setattr(local.settings, setting, value)
        return local.settings.as_dict()
    if name == "calls" and method == "GET":
        return dict(local.calls)
    if name == "call_log" and method == "GET":
        return {"calls": list(local.call_log)}
    fault = name.removeprefix("faults/")
    if fault != name and fault in _FAULTS and method == "POST":
        _call(getattr(local.faults, fault), given)
        return {}
    if name in _ACTIONS and method == "POST":
        _call(getattr(local, name), given)
        return {}
    return None


def _call(action: Callable[..., None], given: dict[str, Any]) -> None:
    action(*given.get("args", []), **given.get("kwargs", {}))


def _json(status: int, content: dict[str, Any]) -> Response:
    return Response(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


class LocalHealthOmicsControl:
    """Control of a local HealthOmics in another process, with the attributes of ``LocalHealthOmics``.

    :param url: URL of the server.
    """

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        #: Service time.
        self.clock = _RemoteClock(self)
        #: Durations, limits and assumptions.
        self.settings = _RemoteSettings(self)
        #: Faults to inject, with the methods of :class:`~airflow_provider_omics_cache.local.faults.Faults`.
        self.faults = _RemoteFaults(self)

    @property
    def calls(self) -> Counter[str]:
        """Number of received requests by name of the operation."""
        return Counter(self.request("GET", "calls"))

    @property
    def call_log(self) -> list[tuple[float, str, int]]:
        """The latest requests: arrival in seconds of service time, name of the operation, HTTP status (0: none)."""
        return [(at, operation, status) for at, operation, status in self.request("GET", "call_log")["calls"]]

    def reset(self) -> None:
        """Remove run caches, batches, workflows, run groups, faults and the log of calls."""
        self.request("POST", "reset")

    def forget_tokens(self) -> None:
        """Forget every ``requestId``."""
        self.request("POST", "forget_tokens")

    def register_workflow(self, workflow_id: str, **kwargs: Any) -> None:
        """Register a workflow, with the arguments of ``LocalHealthOmics.register_workflow``."""
        self.request("POST", "register_workflow", {"args": [workflow_id], "kwargs": kwargs})

    def register_workflow_version(self, workflow_id: str, version_name: str, **kwargs: Any) -> None:
        """Register a version, with the arguments of ``LocalHealthOmics.register_workflow_version``."""
        self.request("POST", "register_workflow_version", {"args": [workflow_id, version_name], "kwargs": kwargs})

    def delete_workflow(self, workflow_id: str) -> None:
        """Mark a workflow as deleted. Submissions of its runs fail."""
        self.request("POST", "delete_workflow", {"args": [workflow_id]})

    def register_run_group(self, run_group_id: str) -> None:
        """Register a run group."""
        self.request("POST", "register_run_group", {"args": [run_group_id]})

    def delete_run_group(self, run_group_id: str) -> None:
        """Mark a run group as deleted. Submissions of its runs fail."""
        self.request("POST", "delete_run_group", {"args": [run_group_id]})

    def request(self, method: str, name: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request to a control path and return the answer.

        :raises ValueError: the server refused the request.
        """
        connection = HTTPConnection(self._address.hostname or "", self._address.port, timeout=60)
        try:
            body = None if content is None else json.dumps(content)
            connection.request(method, f"{CONTROL_PATH}/{name}", body)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(answer["message"])
        return answer


class _RemoteClock:
    def __init__(self, control: LocalHealthOmicsControl) -> None:
        self._control = control

    def now(self) -> datetime:
        """Return the service time in UTC, with its time zone."""
        return datetime.fromisoformat(self._control.request("GET", "clock")["now"])

    def advance(self, seconds: float) -> None:
        """Move service time forward by ``seconds``."""
        self._control.request("POST", "clock", {"advance": seconds})

    @property
    def speed(self) -> float:
        """Service seconds per real second; 0 means that time stands still."""
        return float(self._control.request("GET", "clock")["speed"])

    @speed.setter
    def speed(self, speed: float) -> None:
        self._control.request("POST", "clock", {"speed": speed})

    @property
    def tick(self) -> float:
        """Service seconds by which each request advances the clock."""
        return float(self._control.request("GET", "clock")["tick"])

    @tick.setter
    def tick(self, tick: float) -> None:
        self._control.request("POST", "clock", {"tick": tick})


class _RemoteSettings:
    _control: LocalHealthOmicsControl

    def __init__(self, control: LocalHealthOmicsControl) -> None:
        object.__setattr__(self, "_control", control)

    def __getattr__(self, name: str) -> Any:
        settings = self._control.request("GET", "settings")
        if name not in settings:
            raise AttributeError(f"the local HealthOmics has no setting {name!r}")
        return settings[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self._control.request("POST", "settings", {name: value})


class _RemoteFaults:
    def __init__(self, control: LocalHealthOmicsControl) -> None:
        self._control = control

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in _FAULTS:
            raise AttributeError(f"the local HealthOmics has no fault {name!r}")

        def call(*args: Any, **kwargs: Any) -> None:
            sent = [list(arg) if isinstance(arg, set | frozenset | tuple) else arg for arg in args]
            self._control.request("POST", f"faults/{name}", {"args": sent, "kwargs": kwargs})

        return call
