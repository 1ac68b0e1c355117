"""The watches' lane says what aiohttp's way says, and takes requests however they come."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.watch_lane import WatchConnection
from tests.common.servers import Server, running, start_kvorum
from tests.e2e.history import b64, call
from tests.e2e.test_server import resident_bytes

CHUNKED = {"Transfer-Encoding": "chunked"}
LONG_WAY = {"TE": "trailers"}
"""A header that means nothing here and sends a request the long way."""


def head(length: int | None, more: dict[str, str] | None = None) -> bytes:
    lines = ["POST /v3/watch HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in (more or {}).items())]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def create(key: bytes, **more: object) -> bytes:
    return json.dumps({"create_request": {"key": b64(key), **more}}).encode()


class Client:
    """A raw connection that reads a response chunk by chunk."""

    def __init__(self, server: Server, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def head(self) -> list[bytes]:
        """Status and headers; without those that say who and when."""
        lines = []
        while (line := self.file.readline()) not in (b"\r\n", b""):
            if not line.startswith((b"Date:", b"Server:")):
                lines.append(line)
        return lines

    def chunk(self) -> bytes:
        """The next chunk's bytes; none at the end."""
        length = int(self.file.readline(), 16)
        data = self.file.read(length)
        assert self.file.read(2) == b"\r\n"
        return data

    def frame(self) -> dict:
        data = self.chunk()
        assert data.endswith(b"\n"), "a chunk is one line"
        return json.loads(data)["result"]

    def revisions(self, count: int) -> list[int]:
        found: list[int] = []
        while len(found) < count:
            found += [int(event["kv"]["mod_revision"]) for event in self.frame().get("events", [])]
        return found

    def is_silent(self) -> bool:
        return not select.select([self.socket], [], [], 0.2)[0]

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@contextlib.contextmanager
def connected(server: Server, *, receive_buffer: int = 0) -> Iterator[Client]:
    client = Client(server, receive_buffer)
    try:
        yield client
    finally:
        client.close()


def put(server: Server, key: bytes, value: bytes = b"v") -> int:
    return int(call(server.port, "/v3/kv/put", {"key": b64(key), "value": b64(value)})["header"]["revision"])


def open_sockets(server: Server) -> int:
    found = 0
    for fd in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found += "socket" in str(fd.readlink())
    return found


def test_both_ways_say_the_same(kvorum_server: Server) -> None:
    """Head, chunks and bytes are the same, but for the id of the software."""
    body = create(b"lane/same") + b"\n" + create(b"lane/", range_end=b64(b"lane0"), prev_kv=True)
    body += b'{"cancel_request":{"watch_id":"0"}}{"progress_request":{}}'
    with connected(kvorum_server) as short, connected(kvorum_server) as long:
        short.socket.sendall(head(len(body)) + body)
        long.socket.sendall(head(len(body), LONG_WAY) + body)
        assert short.head() == long.head()
        assert [short.chunk() for _ in range(4)] == [long.chunk() for _ in range(4)]
        put(kvorum_server, b"lane/same")
        assert short.chunk() == long.chunk()


BROKEN = [
    b"{",
    b"[]",
    b"x",
    b'{"create_request":{"key":1}}',
    b'{} {"cancel_request":{"watch_id":"x"}}',
    b"\xff",
]


@pytest.mark.parametrize("body", BROKEN)
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_first_request_that_is_wrong_is_refused_as_by_the_long_way(
    kvorum_server: Server, body: bytes, pieces: int
) -> None:
    """By an HTTP status, whether it came in one packet with its head or not; and the connection
    is still good for another request."""
    answers = []
    for more in ({}, LONG_WAY):
        with connected(kvorum_server) as client:
            sent = head(len(body), more) + body
            cut = len(sent) - len(body) if pieces == 2 else len(sent)
            client.socket.sendall(sent[:cut])
            if pieces == 2:
                assert client.is_silent()
                client.socket.sendall(sent[cut:])
            status = client.head()
            length = next(int(line.split(b":")[1]) for line in status if line.startswith(b"Content-Length"))
            answers.append((status, client.file.read(length)))
            client.socket.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in client.head()[0]
    assert answers[0] == answers[1]
    assert b" 400 " in answers[0][0][0]


@pytest.mark.parametrize("more", [{}, CHUNKED])
def test_requests_come_while_the_watch_lives(kvorum_server: Server, more: dict[str, str]) -> None:
    """A body in pieces, cut anywhere: each request is answered when it is whole, events come in between,
    and after the body's end the watch lives on. A broken one is not answered, nor what follows it."""
    first, second = create(b"pieces/a"), create(b"pieces/b")
    third = b'{"progress_request":{}} {"cancel_request":{"watch_id":"0"}}'
    with connected(kvorum_server) as client:

        def send(piece: bytes) -> None:
            if more:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            client.socket.sendall(piece)

        client.socket.sendall(head(None if more else len(first + second + third) + 2, more))
        assert client.is_silent()
        send(first[:9])
        assert client.is_silent()
        send(first[9:])
        assert b" 200 " in client.head()[0]
        assert client.frame()["created"]
        revision = put(kvorum_server, b"pieces/a")
        assert client.revisions(1) == [revision]
        send(second)
        assert client.frame() == {**client_header(revision), "watch_id": "1", "created": True}
        send(third)
        assert client.frame()["watch_id"] == "-1"
        assert client.frame()["canceled"]
        revision = put(kvorum_server, b"pieces/b")
        assert client.revisions(1) == [revision]
        send(b"x!")
        if more:
            client.socket.sendall(b"0\r\n\r\n")
        revision = put(kvorum_server, b"pieces/b")
        assert client.revisions(1) == [revision]


def client_header(revision: int) -> dict:
    class Same:
        """Whatever the header says beside the revision."""

        def __eq__(self, other: object) -> bool:
            return isinstance(other, dict) and other["revision"] == str(revision)

        __hash__ = None  # type: ignore[assignment]

    return {"header": Same()}


def test_what_follows_a_watch_is_not_answered(kvorum_server: Server) -> None:
    """A request behind it, in the same packet or later, however long, changes nothing."""
    body = create(b"behind")
    behind = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(kvorum_server) as client:
        client.socket.sendall(head(len(body)) + body + behind)
        client.head()
        assert client.frame()["created"]
        client.socket.sendall(behind * 10_000)
        assert client.is_silent()
        revision = put(kvorum_server, b"behind")
        assert client.revisions(1) == [revision]


def test_revisions_of_one_moment_are_a_chunk_each(kvorum_server: Server) -> None:
    """Clients that parse chunk by chunk find one line in each."""
    revision = put(kvorum_server, b"each")
    body = create(b"each", start_revision=revision)
    with connected(kvorum_server) as client:
        client.socket.sendall(head(len(body)) + body)
        client.head()
        assert client.frame()["created"]
        expected = list(range(revision, revision + 40))
        with connected(kvorum_server) as writer:
            value = json.dumps({"key": b64(b"each"), "value": b64(b"v")}).encode()
            request = b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
                len(value),
                value,
            )
            writer.socket.sendall(request * 39)
            assert client.revisions(len(expected)) == expected


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_clients_that_hang_up_leave_nothing_behind(kvorum_server: Server, how: str) -> None:
    """Whether they close, reset or only end their half, before or after they were told anything."""
    before = open_sockets(kvorum_server)
    body = create(b"gone/", range_end=b64(b"gone0"))
    clients = [Client(kvorum_server) for _ in range(40)]
    for number, client in enumerate(clients):
        sent = head(len(body) + (9 if number % 4 == 1 else 0)) + body
        client.socket.sendall(sent[: -len(body) - 5] if number % 4 == 2 else sent)
        if number % 4 == 3:
            client.head()
            assert client.frame()["created"]
    put(kvorum_server, b"gone/1")
    for client in clients:
        if how == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if how == "half":
            client.socket.shutdown(socket.SHUT_WR)
        else:
            client.close()
    put(kvorum_server, b"gone/2")
    deadline = time.monotonic() + 10
    while open_sockets(kvorum_server) > before:
        assert time.monotonic() < deadline, "connections are left behind"
        time.sleep(0.05)
    put(kvorum_server, b"gone/3")
    if how == "half":
        for client in clients:
            client.close()


def test_many_that_do_not_read_cost_little_and_miss_nothing(tmp_path: Path) -> None:
    """Thirty clients stop reading while tens of megabytes are written: the server's memory stays bounded,
    one that reads is told at once, and in the end all have every revision once and in order."""
    with running(start_kvorum(tmp_path)) as server, contextlib.ExitStack() as stack:
        body = create(b"slow")
        slow = [stack.enter_context(connected(server, receive_buffer=4096)) for _ in range(30)]
        quick = stack.enter_context(connected(server))
        for client in (*slow, quick):
            client.socket.sendall(head(len(body)) + body)
            client.head()
            assert client.frame()["created"]
        put(server, b"slow", b"v" * 100_000)
        before = resident_bytes(server)
        total = 300
        for number in range(1, total):
            revision = put(server, b"slow", b"v" * 100_000)
            if number == 1:
                assert quick.revisions(2)[-1] == revision
            else:
                assert quick.revisions(1) == [revision]
        assert resident_bytes(server) - before < 200 << 20
        for client in slow[:5]:
            assert client.revisions(total) == list(range(2, total + 2))


def test_a_node_that_stops_ends_its_watches(tmp_path: Path) -> None:
    """With the chunk that says so, also for whoever was told nothing yet; one that does not read is not
    waited for."""
    with running(start_kvorum(tmp_path)) as server, contextlib.ExitStack() as stack:
        silent, told, slow = (stack.enter_context(connected(server, receive_buffer=4096)) for _ in range(3))
        body = create(b"k")
        silent.socket.sendall(head(9))
        for client in (told, slow):
            client.socket.sendall(head(len(body)) + body)
            client.head()
            assert client.frame()["created"]
        for _ in range(100):
            put(server, b"k", b"v" * 100_000)
            told.frame()
        started = time.monotonic()
        server.process.terminate()
        assert told.chunk() == b""
        assert told.file.read() == b""
        assert b" 200 " in silent.head()[0]
        assert silent.chunk() == b""
        assert silent.file.read() == b""
        assert server.stop() == 0
        assert time.monotonic() - started < 8


def test_what_is_sent_over_a_lost_connection_is_dropped() -> None:
    """Before its loss is told, uvloop refuses what is written: that must not keep events from the streams
    whose turn comes after."""

    class Lost:
        def is_closing(self) -> bool:
            return True

        def write(self, data: bytes) -> None:
            raise RuntimeError("the handle is closed")

        close = is_closing

    connection = WatchConnection(None)
    connection.connection_made(Lost())
    connection.send(b"an event")
    connection.ended()
