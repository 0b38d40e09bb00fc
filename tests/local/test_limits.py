"""Requests that are too large, too slow or foreign, over sockets."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config

from airflow_provider_omics_cache.local import LocalHealthOmicsControl, LocalHealthOmicsServer, limits, serve, wsgi
from tests.conftest import needs_batches

Answer = tuple[int, dict[str, str], bytes]
SIGNED = "Authorization: AWS4-HMAC-SHA256 Credential=x/20261120/us-east-1/omics/aws4_request, Signature=0"


@pytest.fixture
def server(local_healthomics_server: LocalHealthOmicsServer) -> LocalHealthOmicsServer:
    local_healthomics_server.create_bucket("caches")
    return local_healthomics_server


@contextlib.contextmanager
def connected(server: LocalHealthOmicsServer) -> Iterator[socket.socket]:
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30) as connection:
        yield connection


def answer_of(connection: socket.socket) -> Answer:
    """Read an answer to its end: status, headers, body. The status is 0 if the connection is closed without one."""
    content = b"".join(iter(lambda: connection.recv(65_536), b""))
    if not content:
        return 0, {}, b""
    head, _, body = content.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split(" ")[1]), headers, body


def ask(
    server: LocalHealthOmicsServer, first: str, *headers: str, body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    lines = [f"{first} HTTP/1.1", *headers, "Connection: close"]
    if not any(header.lower().startswith("host:") for header in headers):
        lines.insert(1, f"Host: {urlsplit(server.url).netloc}")
    with connected(server) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return answer_of(connection)


def in_chunks(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def check_refusal(answer: Answer, status: int) -> str:
    """Check that a refusal has the shape of HealthOmics; return its message."""
    found, headers, body = answer
    assert found == status
    assert headers["content-type"] == "application/json"
    assert headers["x-amzn-errortype"]
    content = json.loads(body)
    assert set(content) == {"message"}
    return str(content["message"])


# Sizes


@pytest.mark.parametrize("path", ["/runCache", "/local-healthomics/clock"])
def test_a_body_that_is_too_large_is_refused(
    server: LocalHealthOmicsServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wsgi, "LARGEST_BODY", 1_000)
    body = b" " * 1_001
    for given in (
        ask(server, f"POST {path}", SIGNED, "Content-Length: 1001", body=body),
        ask(server, f"POST {path}", SIGNED, "Transfer-Encoding: chunked", body=in_chunks(body)),
    ):
        assert "at most 1000 bytes" in check_refusal(given, 413)
    assert ask(server, "POST /local-healthomics/clock", "Content-Length: 1000", body=b"{" + b" " * 998 + b"}")[0] == 200


def test_a_body_is_refused_before_it_is_read(server: LocalHealthOmicsServer) -> None:
    with connected(server) as connection:
        lines = ["POST /runCache HTTP/1.1", "Host: localhost", SIGNED, f"Content-Length: {2**40}", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        connection.shutdown(socket.SHUT_WR)
        check_refusal(answer_of(connection), 413)


def test_the_largest_documented_request_is_accepted() -> None:
    assert limits.LARGEST_BATCH > 100 * (256_000 + 10_000) + 256_000


def test_each_kind_of_request_has_its_limit(server: LocalHealthOmicsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("LARGEST_BODY", 1_000), ("LARGEST_BATCH", 2_000), ("LARGEST_OBJECT", 3_000)):
        monkeypatch.setattr(wsgi, name, size)
    for first, service, size in (
        ("POST /runCache", "omics", 1_000),
        ("POST /runBatch", "omics", 2_000),
        ("POST /", "iam", 1_000),
        ("PUT /caches/a", "s3", 3_000),
    ):
        signed = SIGNED.replace("omics", service)
        for extra in (0, 1):
            body = b" " * (size + extra)
            status, _, _ = ask(server, first, signed, f"Content-Length: {len(body)}", body=body)
            assert (status == 413) is bool(extra), (first, extra)
    assert wsgi.LARGEST_BODY == 1_000


def test_an_object_has_a_limit_of_its_own(server: LocalHealthOmicsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi, "LARGEST_BODY", 1_000)
    s3 = boto3.client("s3", **server.client_kwargs)
    s3.put_object(Bucket="caches", Key="settings.json", Body=io.BytesIO(b"x" * 3_000_000))
    assert s3.head_object(Bucket="caches", Key="settings.json")["ContentLength"] == 3_000_000

    monkeypatch.setattr(wsgi, "LARGEST_OBJECT", 2_000)
    signed = SIGNED.replace("omics", "s3")
    for given in (
        ask(server, "PUT /caches/a", signed, "Content-Length: 2001", body=b" " * 2_001),
        ask(server, "PUT /caches/a", signed, "Transfer-Encoding: chunked", body=in_chunks(b" " * 2_001)),
    ):
        assert given[0] == 413
        assert given[1]["content-type"] == "application/xml"
        assert b"<Code>EntityTooLarge</Code>" in given[2]
    with pytest.raises(s3.exceptions.ClientError, match="EntityTooLarge"):
        s3.put_object(Bucket="caches", Key="a", Body=b" " * 2_001)
    assert ask(server, "PUT /caches/b", signed, "Transfer-Encoding: chunked", body=in_chunks(b"x" * 2_000))[0] == 200
    assert s3.get_object(Bucket="caches", Key="b")["Body"].read() == b"x" * 2_000


@pytest.mark.parametrize(
    "headers",
    [
        [f"x-a: {'a' * 70_000}"],
        [f"x-{number}: a" for number in range(150)],
        [f"x-{number}: {'a' * 10_000}" for number in range(8)],
    ],
    ids=["long line", "many lines", "many bytes"],
)
def test_headers_that_are_too_large_are_refused(server: LocalHealthOmicsServer, headers: list[str]) -> None:
    check_refusal(ask(server, "GET /runCache", SIGNED, *headers), 431)
    assert ask(server, "GET /runCache", SIGNED)[0] == 200


def test_a_url_that_is_too_long_is_refused(server: LocalHealthOmicsServer) -> None:
    check_refusal(ask(server, f"GET /runCache?startingToken={'a' * 70_000}", SIGNED), 414)


CHUNKED = "Transfer-Encoding: chunked"
LOCATION = b'{"cacheS3Location": "s3://caches", "requestId": "a"}'


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (["Content-Length: ten"], b"{}", 400),
        (["Content-Length: -1"], b"{}", 400),
        (["Content-Length: +2"], b"{}", 400),
        (["Content-Length: 2", "Content-Length: 3"], b"{}", 400),
        (["Content-Length: 2", CHUNKED], in_chunks(b"{}"), 400),
        ([f"Content-Length: {10**30}"], b"{}", 413),
        ([f"Content-Length: {'9' * 5_000}"], b"{}", 413),
        (["Transfer-Encoding: gzip"], b"{}", 400),
        (["Transfer-Encoding: gzip, chunked"], in_chunks(b"{}"), 400),
        ([CHUNKED], b"zz\r\n{}\r\n0\r\n\r\n", 400),
        ([CHUNKED], b"-2\r\n{}\r\n0\r\n\r\n", 400),
        ([CHUNKED], b"0x2\r\n{}\r\n0\r\n\r\n", 400),
        ([CHUNKED], b"\r\n{}\r\n0\r\n\r\n", 400),
        ([CHUNKED], b"1\r\n{}\r\n0\r\n\r\n", 400),
        ([CHUNKED], b"ffffffffffffffff\r\n{}", 413),
        ([CHUNKED], b"2;" + b"a" * 5_000 + b"\r\n{}\r\n0\r\n\r\n", 400),
    ],
)
@pytest.mark.parametrize("service", ["omics", "s3"])
def test_a_body_that_cannot_be_read_is_refused(
    server: LocalHealthOmicsServer, headers: list[str], body: bytes, status: int, service: str
) -> None:
    answer = ask(server, "PUT /caches/a", SIGNED.replace("omics", service), *headers, body=body)
    if service == "s3":
        assert (answer[0], answer[1]["content-type"]) == (status, "application/xml")
    else:
        check_refusal(answer, status)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("Chunked", in_chunks(LOCATION)),
        ("CHUNKED", b"%X;name=value;other\r\n%s\r\n0;last\r\n\r\n" % (len(LOCATION), LOCATION)),
        (" chunked ", b"5\r\n%s\r\n00%x\r\n%s\r\n0\r\n\r\n" % (LOCATION[:5], len(LOCATION) - 5, LOCATION[5:])),
        ("chunked", b"%x\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (len(LOCATION), LOCATION)),
    ],
)
def test_chunks_are_read_in_every_valid_form(server: LocalHealthOmicsServer, encoding: str, body: bytes) -> None:
    assert ask(server, "POST /runCache", SIGNED, f"Transfer-Encoding:{encoding}", body=body)[0] == 201


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (f"Content-Length: {len(LOCATION) + 1}", LOCATION),
        (CHUNKED, b"%x\r\n%s" % (len(LOCATION), LOCATION)),
        (CHUNKED, b"%x\r\n%s\r\n" % (len(LOCATION), LOCATION)),
        (CHUNKED, b"%x\r\n%s\r\n0\r\n" % (len(LOCATION), LOCATION)),
    ],
)
def test_a_body_that_is_cut_is_refused_and_changes_nothing(
    server: LocalHealthOmicsServer, header: str, body: bytes
) -> None:
    with connected(server) as connection:
        connection.sendall(f"POST /runCache HTTP/1.1\r\nHost: x\r\n{SIGNED}\r\n{header}\r\n\r\n".encode() + body)
        connection.shutdown(socket.SHUT_WR)
        check_refusal(answer_of(connection), 400)
    assert json.loads(ask(server, "GET /runCache", SIGNED)[2])["items"] == []


# Connections


def test_a_connection_is_used_for_many_requests(server: LocalHealthOmicsServer) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    name, _, value = SIGNED.partition(": ")
    headers = {name: value}
    connection.connect()
    used = connection.sock
    requests: list[tuple[str, str, bytes | None, int]] = [
        ("POST", "/runCache", LOCATION, 201),
        ("GET", "/runCache", None, 200),
        ("DELETE", "/runCache/1000001", None, 202),
        ("GET", "/runCache/1000001", None, 404),
        ("POST", "/runCache", b"no JSON", 400),
        ("GET", "/local-healthomics/clock", None, 200),
    ]
    for method, path, body, status in requests:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        response.read()
        assert (response.status, connection.sock) == (status, used)
    connection.request("POST", "/runCache", iter([LOCATION]), headers, encode_chunked=True)
    assert connection.getresponse().read()
    assert connection.sock is used
    connection.request("GET", "/runCache", headers={**headers, "Connection": "close"})
    assert connection.getresponse().read()
    assert connection.sock is None
    s3 = boto3.client("s3", **server.client_kwargs)
    s3.put_object(Bucket="caches", Key="a", Body=b"a")
    assert s3.head_object(Bucket="caches", Key="a")["ContentLength"] == 1
    assert s3.get_object(Bucket="caches", Key="a")["Body"].read() == b"a"


def test_connections_are_not_kept_beyond_a_number(
    server: LocalHealthOmicsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_KEPT", 0)
    with connected(server) as connection:
        connection.sendall(f"GET /runCache HTTP/1.1\r\nHost: x\r\n{SIGNED}\r\n\r\n".encode())
        assert answer_of(connection)[1]["connection"] == "close"


def test_a_server_closes_its_connections_when_it_stops() -> None:
    with serve() as server:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
        connection.request("GET", "/local-healthomics/clock")
        connection.getresponse().read()
        assert connection.sock is not None
    assert connection.sock.recv(1) == b""
    connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/run",
        "/run/1",
        "/runCache",
        pytest.param("/runBatch/1/run", marks=needs_batches),
        "/tags/arn%3Aaws%3Aomics",
        "/tags/a",
    ],
)
def test_a_request_to_healthomics_that_is_not_signed(server: LocalHealthOmicsServer, path: str) -> None:
    status, headers, body = ask(server, f"GET {path}")
    assert (status, headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
    assert json.loads(body) == {"message": "The request is not signed"}


# Stalled connections


@pytest.mark.parametrize("sent", ["", "GET /runCa", f"GET /runCache HTTP/1.1\r\n{SIGNED}\r\n"])
def test_a_request_that_stalls_is_given_up(
    server: LocalHealthOmicsServer, sent: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits.BoundedRequestHandler, "timeout", 0.1)
    with connected(server) as connection:
        connection.sendall(sent.encode())
        assert answer_of(connection)[0] == 0
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("headers", ["Content-Length: 100", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("service", ["omics", "s3"])
def test_a_body_that_stalls_is_given_up(
    server: LocalHealthOmicsServer,
    headers: str,
    service: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(limits.BoundedRequestHandler, "timeout", 0.1)
    with connected(server) as connection:
        signed = SIGNED.replace("omics", service)
        connection.sendall(f"PUT /caches/a HTTP/1.1\r\n{signed}\r\n{headers}\r\n\r\n".encode())
        connection.sendall(b"32\r\n{")
        status, _, body = answer_of(connection)
    assert status == 408
    assert b"did not arrive" in body
    assert capfd.readouterr().err == ""


def test_too_many_requests_at_the_same_time_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_REQUESTS", 2)
    with serve() as server, contextlib.ExitStack() as waiting:
        for _ in range(2):
            waiting.enter_context(connected(server)).sendall(b"GET /")
        with connected(server) as refused:
            assert "at most 2 requests" in check_refusal(answer_of(refused), 503)
        waiting.close()
        omics = boto3.client("omics", **server.client_kwargs)
        assert omics.list_run_caches()["items"] == []


# Foreign requests


def test_a_control_path_refuses_a_foreign_host(server: LocalHealthOmicsServer) -> None:
    port = urlsplit(server.url).port
    foreign = [
        "evil.example",
        f"evil.example:{port}",
        "localhost",
        "localhost:1",
        f"[::1:{port}",
        "",
        f"localhost.evil:{port}",
    ]
    for path in ("/local-healthomics/reset", "/local-healthomics", "/moto-api/reset"):
        for host in foreign:
            status, _, body = ask(server, f"POST {path}", f"Host: {host}", "Content-Length: 0")
            assert status == 403, host
            assert repr(host) in json.loads(body)["message"]
            assert "\n" not in json.loads(body)["message"]
    for host in ("localhost", "LOCALHOST", "127.0.0.1", "[::1]"):
        assert ask(server, "GET /local-healthomics/clock", f"Host: {host}:{port}")[0] == 200


def test_a_control_path_refuses_a_foreign_origin(server: LocalHealthOmicsServer) -> None:
    port = urlsplit(server.url).port
    asked = "POST /local-healthomics/reset"
    for origin in ("http://evil.example", "null", "", "http://localhost:1", f"https://localhost:{port}"):
        status, _, body = ask(server, asked, f"Origin: {origin}", "Content-Length: 0")
        assert status == 403, origin
        assert "Origin" in json.loads(body)["message"]
    assert ask(server, asked, f"Origin: http://localhost:{port}", "Content-Length: 0")[0] == 200


def test_a_foreign_request_changes_nothing(server: LocalHealthOmicsServer) -> None:
    omics = boto3.client("omics", **server.client_kwargs)
    omics.create_run_cache(cacheS3Location="s3://caches")
    ask(server, "POST /local-healthomics/reset", "Origin: http://evil.example", "Content-Length: 0")
    ask(server, "POST /moto-api/reset", "Host: evil.example", "Content-Length: 0")
    assert len(omics.list_run_caches()["items"]) == 1


def test_aws_operations_take_any_host(server: LocalHealthOmicsServer) -> None:
    assert ask(server, "GET /runCache", SIGNED, "Host: omics.example")[0] == 200
    s3 = boto3.client("s3", **{**server.client_kwargs, "config": Config(s3={"addressing_style": "path"}, proxies={})})
    s3.put_object(Bucket="caches", Key="a", Body=b"a")
    assert s3.get_object(Bucket="caches", Key="a")["Body"].read() == b"a"


def test_further_hosts_can_be_allowed() -> None:
    with serve(allow_hosts=["healthomics"]) as server:
        for host in ("healthomics", "healthomics:4566", "Healthomics:80"):
            assert ask(server, "GET /local-healthomics/clock", f"Host: {host}")[0] == 200
        assert ask(server, "GET /local-healthomics/clock", "Host: other:4566")[0] == 403


def test_the_author_of_a_test_sees_the_refusal() -> None:
    with serve(host="0.0.0.0") as server:
        url = server.url.replace("0.0.0.0", "127.0.0.2")
        with pytest.raises(ValueError, match=r"refuse Host '127\.0\.0\.2:\d+': start the server with --allow-host"):
            LocalHealthOmicsControl(url).clock.advance(1)
        assert LocalHealthOmicsControl(server.url).clock.speed == 0


# A port in use


def test_a_port_in_use_is_an_error(server: LocalHealthOmicsServer) -> None:
    with pytest.raises(OSError, match="in use"), serve(port=int(urlsplit(server.url).port or 0)):
        pass


def test_the_command_says_that_a_port_is_in_use(server: LocalHealthOmicsServer) -> None:
    port = str(urlsplit(server.url).port)
    command = [sys.executable, "-m", "airflow_provider_omics_cache.local", "--port", port]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr == f"cannot listen on --host 127.0.0.1 --port {port}: Address already in use\n"
