"""The parts of the kill matrix that need no server: what is refused, the gateway, the search, the table."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.kill_matrix import machine
from tests.kill_matrix.__main__ import main
from tests.kill_matrix.cells import ALL_KILLS, PHASES, Kill, choose
from tests.kill_matrix.gateway import Gate, Gateway
from tests.kill_matrix.planted import SECRETS, Finding, find_secrets
from tests.kill_matrix.publish import publish
from tests.kill_matrix.report import Cell, summary, table


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["worker-sigkill"], {Kill("worker", "sigkill"): PHASES}),
        (["api-server-sigstop-deleting"], {Kill("api-server", "sigstop"): ("deleting",)}),
        (["worker-sigkill-staging", "worker-sigkill-starting"], {Kill("worker", "sigkill"): ("starting", "staging")}),
        (["worker-sigkill", "worker-sigkill-starting"], {Kill("worker", "sigkill"): PHASES}),
    ],
)
def test_cells_are_chosen_by_name(names: list[str], chosen: dict[Kill, tuple[str, ...]]) -> None:
    assert choose(names) == chosen


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the matrix with arguments that it refuses, and return its only line."""
    assert main(arguments) == 2
    output, error = capsys.readouterr()
    assert output == ""
    (line,) = error.splitlines()
    return line


def test_a_cell_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no cell 'worker-sigterm'" in refusal(capsys, "--only", "worker-sigterm")


def test_a_missing_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(machine, "POSTGRESQL_VERSIONS", Path("/nowhere"))
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert "apt-get install postgresql redis-server" in refusal(capsys)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Programs that nobody starts."""
    (tmp_path / "15" / "bin").mkdir(parents=True)
    (tmp_path / "15" / "bin" / "initdb").touch()
    monkeypatch.setattr(machine, "POSTGRESQL_VERSIONS", tmp_path)
    monkeypatch.setattr(machine.shutil, "which", lambda name: None if name == "initdb" else f"/usr/bin/{name}")


@pytest.mark.usefixtures("programs")
def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"port {port} cannot be used" in refusal(capsys, "--port", str(port))


def test_a_port_that_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--port", "many"])
    assert ended.value.code == 2
    assert "must be from 0 to 65535; got 'many'" in capsys.readouterr().err


class Service:
    """An HTTP server that counts its requests."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.requests.append(self.path)
                self.send_response(201)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    threading.Thread(target=service.server.serve_forever, args=(0.01,), daemon=True).start()
    yield service
    service.server.shutdown()
    service.server.server_close()


@pytest.fixture
def gateway(service: Service, tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(("127.0.0.1", service.server.server_address[1]), tmp_path / "calls.log") as gateway:
        yield gateway


def post(gateway: Gateway, path: str, body: bytes = b"body") -> tuple[int, bytes]:
    """Send a request through the gateway."""
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("before_effect", [False, True])
def test_a_gate_holds_a_call_back(gateway: Gateway, service: Service, before_effect: bool) -> None:
    gate = Gate(lambda call: call.target == "/held", before_effect=before_effect)
    gateway.gates = [gate]
    answers: list[tuple[int, bytes]] = []
    caller = threading.Thread(target=lambda: answers.append(post(gateway, "/held")))
    caller.start()
    assert gate.wait_until_reached(20)
    assert post(gateway, "/other", b"") == (201, b"")
    assert answers == []
    assert service.requests == (["/other"] if before_effect else ["/held", "/other"])
    gate.open()
    caller.join(20)
    assert answers == [(201, b"body")]
    assert sorted(service.requests) == ["/held", "/other"]


def test_a_cut_gateway_answers_nobody(gateway: Gateway, service: Service) -> None:
    gateway.cut()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        post(gateway, "/lost")
    gateway.restore()
    assert post(gateway, "/found") == (201, b"body")
    assert service.requests == ["/found"]


def test_a_cut_gateway_closes_what_waits(gateway: Gateway) -> None:
    gate = Gate(lambda call: True)
    gateway.gates = [gate]
    errors: list[Exception] = []

    def call() -> None:
        try:
            post(gateway, "/held")
        except (ConnectionError, http.client.HTTPException) as error:
            errors.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert gate.wait_until_reached(20)
    gateway.cut()
    caller.join(20)
    assert len(errors) == 1


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_secrets_are_found_in_every_form(before: str) -> None:
    text = f"{before}{SECRETS['session token']} and so on".encode()
    for content in (text, text.hex().encode(), base64.b64encode(text)):
        assert find_secrets(b"x" + content) == ["session token"]
    assert find_secrets(json.dumps(json.dumps(SECRETS["session policy"])).encode()) == ["session policy"]
    assert find_secrets(b"nothing") == []


def cells(**broken: tuple[str, ...]) -> list[Cell]:
    return [
        Cell(
            process=kill.process,
            signal=kill.signal.upper(),
            phase=phase,
            state="success",
            seconds=12.34,
            tries=2 if kill.process == "worker" else 1,
            violations=broken.get(f"{kill.process}_{kill.signal}_{phase}", ()),
        )
        for kill in ALL_KILLS
        for phase in PHASES
    ]


def test_the_table_and_its_summary() -> None:
    found = cells(worker_sigkill_starting=("there are 2 batches: 1, 2",))
    assert table(found).splitlines()[:3] == [
        "process     signal   phase           outcome    seconds  tries",
        "worker      SIGKILL  creating_cache  success    12       2",
        "worker      SIGKILL  starting        VIOLATION  12       2",
    ]
    findings = [
        Finding("secret key", "the broker"),
        Finding("session policy", "dag_id=starting/run_id=1/attempt=1.log"),
        Finding("session policy", "dag_id=starting/run_id=1/attempt=2.log"),
    ]
    text = summary(found, ["batches that nobody asked for: 3"], findings, 900)
    assert text.splitlines() == [
        "112 cells in 900 s: 111 hold, 1 do not; 16 tasks were tried more than once",
        "Violations:",
        "  worker SIGKILL starting: there are 2 batches: 1, 2",
        "  batches that nobody asked for: 3",
        "Planted secrets were found:",
        "  secret key in the broker (1)",
        "  session policy in the logs of tasks (2)",
    ]


def write(build: Path, found: list[Cell], *violations: str) -> None:
    content = {"cells": [cell.as_dict() for cell in found], "violations": violations}
    (build / "kill-matrix.json").write_text(json.dumps(content))


def test_the_last_table_is_published(tmp_path: Path) -> None:
    write(tmp_path, cells())
    publish(tmp_path, tmp_path)
    lines = (tmp_path / "kill-matrix.csv").read_text().splitlines()
    assert len(lines) == 1 + len(ALL_KILLS)
    assert lines[0].startswith("Process,Signal,creating cache,starting,")
    assert lines[1].startswith('worker,SIGKILL,"success, 2 tries, 12 s",')


@pytest.mark.parametrize(
    ("found", "violations", "message"),
    [
        (cells()[1:], (), "lacks 1 cells, as worker-sigkill-creating_cache"),
        (cells(worker_sigkill_starting=("wrong",)), (), "worker-SIGKILL-starting"),
        (cells(), ("the bystander is gone",), "the bystander is gone"),
    ],
)
def test_what_does_not_hold_is_not_published(
    found: list[Cell], violations: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    write(tmp_path, found, *violations)
    with pytest.raises(SystemExit, match=message):
        publish(tmp_path, tmp_path)
    assert not (tmp_path / "kill-matrix.csv").exists()


def test_nothing_is_published_before_a_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="run make kill-matrix"):
        publish(tmp_path, tmp_path)
