"""Whatever is sent, a node answers with a clear 4xx, changes nothing, does not fall over, and
keeps no connection that is of no use any more."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.common.servers import Server, running, start_kvorum
from tests.differential.compare import Request, ask, post
from tests.e2e.history import b64

IDLE_MS, BODY_MS = 700, 500
POST_PATHS = [
    "/v3/kv/range",
    "/v3/kv/put",
    "/v3/kv/deleterange",
    "/v3/kv/txn",
    "/v3/kv/compaction",
    "/v3/watch",
    "/v3/maintenance/status",
    "/v3/maintenance/hash",
    "/v3/maintenance/hashkv",
    "/v3/cluster/member/list",
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A node with little patience."""
    directory = tmp_path_factory.mktemp("bad-input")
    flags = ("--http-idle-timeout", str(IDLE_MS), "--http-body-timeout", str(BODY_MS))
    with running(start_kvorum(directory, *flags)) as server:
        yield server
        assert server.process.poll() is None, "the node died"
        assert "Traceback" not in server.log.read_text()


@pytest.fixture(autouse=True)
def nothing_changes(node: Server) -> Iterator[None]:
    """Each test leaves the state, and the number of open connections, as they were."""
    before = state(node)
    connections = open_files(node)
    yield
    assert state(node) == before
    wait_until(lambda: open_files(node) <= connections)


def state(node: Server) -> tuple[str, int]:
    answer = json.loads(ask(node, post("/v3/maintenance/hash", {})).body)
    return answer["header"]["revision"], answer["hash"]


def open_files(node: Server) -> int:
    return len(os.listdir(f"/proc/{node.process.pid}/fd"))


def wait_until(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def connect(node: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.port), timeout=10)


def until_closed(sock: socket.socket) -> bytes:
    """All that comes until the node hangs up."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := sock.recv(65536):
            received += chunk
    return received


def is_refusal(answer: bytes) -> bool:
    """400, or nothing at all (where the hanging up overtook the answer)."""
    return not answer or b" 400 " in answer.partition(b"\r\n")[0]


def assert_refused(status: int, body: bytes) -> None:
    assert 400 <= status < 500, (status, body)
    message = json.loads(body)
    assert message["error"] == message["message"]
    assert message["error"]
    assert message["code"]


@pytest.mark.parametrize("path", POST_PATHS)
@pytest.mark.parametrize(
    "body", [b"{", b"{]", b"\xff\xfe", b"[]", b'"text"', b"12", b"{" * 5000, b"[" * 200_000, b'{"a":1e}']
)
def test_broken_json(node: Server, path: str, body: bytes) -> None:
    """JSON that is broken, or no object."""
    answer = ask(node, Request(path, body))
    assert_refused(answer.status, answer.body)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v3/kv/put", {"key": "?", "value": "YQ=="}),
        ("/v3/kv/put", {"key": "YQ==", "value": 5}),
        ("/v3/kv/put", {"key": "YQ==", "value": "YQ==", "lease": "many"}),
        ("/v3/kv/put", {"value": "YQ=="}),
        ("/v3/kv/range", {"key": "YQ==", "limit": 1.5}),
        ("/v3/kv/range", {"key": "YQ==", "revision": 10**30}),
        ("/v3/kv/range", {"key": "YQ==", "sort_target": "SIZE"}),
        ("/v3/kv/range", {"key": "YQ==", "sort_target": 9}),
        ("/v3/kv/range", {"key": "YQ==", "revision": 10**6}),
        ("/v3/kv/deleterange", {"key": {"a": 1}}),
        ("/v3/kv/txn", {"success": {"request_put": {}}}),
        ("/v3/kv/txn", {"success": [{"request_put": {"key": ""}}]}),
        ("/v3/kv/txn", {"compare": [{"key": "YQ==", "target": "SIZE"}]}),
        ("/v3/kv/compaction", {"revision": "now"}),
        ("/v3/kv/compaction", {"revision": 10**6}),
        ("/v3/watch", {"create_request": {"key": 1}}),
        ("/v3/watch", {"create_request": []}),
        ("/v3/watch", {"cancel_request": {"watch_id": "x"}}),
    ],
)
def test_wrong_fields(node: Server, path: str, message: dict) -> None:
    """Fields of the wrong type, bad base64, values that cannot be."""
    answer = ask(node, post(path, message))
    assert_refused(answer.status, answer.body)


def test_deeply_nested_transactions(node: Server) -> None:
    """Nesting without end is refused, not followed until the stack is gone."""
    for depth in (99, 200, 900, 5000):
        body = b'{"success":[{"request_txn":' * depth + b"{}" + b"}]}" * depth
        answer = ask(node, Request("/v3/kv/txn", body))
        if depth > 100:
            assert_refused(answer.status, answer.body)
        else:
            assert answer.status == 200


def test_unknown_paths_and_methods(node: Server) -> None:
    """A path that is none is 404, a method that is not meant 405."""
    assert ask(node, Request("/v3/kv/nothing", b"{}")).status == 404
    assert ask(node, Request("/../etc/passwd", b"", "GET")).status == 404
    assert ask(node, Request("/v3/kv/put", b"", "GET")).status == 405
    assert ask(node, Request("/v3/kv/put", b"{}", "PATCH")).status == 405
    assert ask(node, Request("/version", b"{}", "POST")).status == 405


@pytest.mark.parametrize("size", [1_600_000, 3_000_000, 30_000_000])
def test_bodies_beyond_the_limit(node: Server, size: int) -> None:
    """A value over 1.5 MiB gets a 4xx that says so, however far over it is."""
    body = json.dumps({"key": "YQ==", "value": b64(b"x" * size)}).encode()
    with connect(node) as sock:
        head = f"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode())
        with contextlib.suppress(ConnectionError):
            sock.sendall(body)
        response = http.client.HTTPResponse(sock)
        response.begin()
        answer = response.read()
    assert_refused(response.status, answer)
    assert b"too large" in answer or b"larger than max" in answer


def test_an_endless_body(node: Server) -> None:
    """Chunks without end are cut off at a limit."""
    with connect(node) as sock:
        sock.sendall(b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
        with contextlib.suppress(ConnectionError):
            for _ in range(500):
                sock.sendall(chunk)
        assert b"HTTP/1.1 429" in until_closed(sock)


@pytest.mark.parametrize("line", [b"a" * 65536, b"X-Header: " + b"a" * 65536, b"X-Header: a\r\n" * 5000])
def test_an_endless_head(node: Server, line: bytes) -> None:
    """A line, or headers, without end are refused long before memory is."""
    with connect(node) as sock:
        sock.sendall(b"POST /v3/kv/put HTTP/1.1\r\n" if line[:1] == b"X" else b"")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                sock.sendall(line)
        assert is_refusal(until_closed(sock))


@pytest.mark.parametrize(
    "sent", [b"", b"POST", b"POST /v3/kv/put HTTP/1.1\r\n", b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nX"]
)
def test_a_stalled_head(node: Server, sent: bytes) -> None:
    """Who begins a request and falls silent is hung up on."""
    with connect(node) as sock:
        sock.sendall(sent)
        assert until_closed(sock) == b""


def test_a_stalled_body(node: Server) -> None:
    """Who stops in the middle of a body is told so and hung up on."""
    with connect(node) as sock:
        sock.sendall(b'POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"key"')
        answer = until_closed(sock)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"the request body stopped coming" in answer


def test_an_idle_connection(node: Server) -> None:
    """A connection that has been answered may idle for a while, not for ever."""
    with connect(node) as sock:
        sock.sendall(
            b"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n" + b'{"key":"YQ=="}'
        )
        assert until_closed(sock).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n",
        b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n",
        b"POST /v3/kv/put HTTP/9.9\r\nHost: x\r\n",
        b"POST  /v3/kv/put HTTP/1.1\r\nHost: x\r\n",
        b"P\0ST /v3/kv/put HTTP/1.1\r\nHost: x\r\n",
    ],
)
def test_heads_that_two_readers_might_read_differently(node: Server, head: bytes) -> None:
    """What request smuggling is made of is refused."""
    with connect(node) as sock:
        sock.sendall(head + b"\r\n{}\r\n\r\n")
        assert b" 400 " in until_closed(sock).partition(b"\r\n")[0]


def test_ten_thousand_random_bodies(node: Server) -> None:
    """Random bytes as a body: always a clear refusal."""
    chance = random.Random(20261123)
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    for _ in range(10_000):
        body = chance.randbytes(chance.randrange(4, 200))
        if chance.random() < 0.5:
            body = chance.choice([b'{"key":', b'{"', b"[", b'{"key":"']) + body
        path = chance.choice(POST_PATHS)
        connection.request("POST", path, body)
        response = connection.getresponse()
        assert_refused(response.status, response.read())
    connection.close()


def test_random_bytes_instead_of_http(node: Server) -> None:
    """Random bytes as a request: 400, or nothing and hung up on."""
    chance = random.Random(7)
    for _ in range(500):
        with connect(node) as sock:
            sock.sendall(chance.randbytes(chance.randrange(1, 300)) + b"\r\n\r\n")
            assert is_refusal(until_closed(sock))


def test_clients_that_vanish(node: Server, tmp_path: Path) -> None:
    """Clients that hang up in the middle of anything leave nothing behind."""
    watch = b'{"create_request":{"key":"YQ=="}}'
    for sent in (
        b"",
        b"POST /v3/kv/put HT",
        b'POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"key"',
        b"POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(watch), watch),
        b"POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(watch) + 9, watch),
    ):
        for _ in range(20):
            sock = connect(node)
            sock.sendall(sent)
            sock.close()
