"""The fast lane answers exactly as aiohttp's way does, and takes only what is as plain as can be."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.fast_lane import BODY_BYTES_MAX, plain_head
from api.schema.splitter import JsonSplitter
from tests.common.servers import Server, running, start_kvorum
from tests.e2e.history import call
from tests.e2e.test_server import resident_bytes

PLAIN = b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 5"


@pytest.mark.parametrize(
    "head",
    [
        PLAIN,
        PLAIN + b"\r\nContent-Type: application/json",
        PLAIN + b"\r\nConnection: keep-alive",
        PLAIN + b"\r\nX-Empty:",
        PLAIN.replace(b"Content-Length: 5", b"content-length:5"),
    ],
)
def test_plain_heads_are_taken(head: bytes) -> None:
    """A POST with a length and nothing strange."""
    assert plain_head(head) == (b"/v3/kv/put", 5)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 5",
        PLAIN.replace(b"1.1", b"1.0"),
        PLAIN.replace(b"POST ", b"POST  "),
        PLAIN.replace(b"\r\nHost: x", b""),
        PLAIN + b"\r\nHost: y",
        PLAIN + b"\r\nContent-Length: 5",
        PLAIN + b"\r\nContent-Length: 6",
        PLAIN.replace(b": 5", b": +5"),
        PLAIN.replace(b": 5", b": 5, 5"),
        PLAIN.replace(b": 5", b": 0x5"),
        PLAIN.replace(b": 5", b": "),
        PLAIN.replace(b": 5", b": %d" % (BODY_BYTES_MAX + 1)),
        PLAIN.replace(b"Content-Length:", b"Content-Length :"),
        PLAIN + b"\r\nTransfer-Encoding: chunked",
        PLAIN + b"\r\nTransfer-Encoding : chunked",
        PLAIN + b"\r\nExpect: 100-continue",
        PLAIN + b"\r\nConnection: close",
        PLAIN + b"\r\nConnection: upgrade",
        PLAIN + b"\r\nUpgrade: websocket",
        PLAIN + b"\r\n folded: line",
        PLAIN + b"\r\nno colon",
        PLAIN + b"\r\nX: a\nTransfer-Encoding: chunked",
        PLAIN + b"\r\nX: a\rb",
        PLAIN + b"\r\nX: \0",
        PLAIN + b"\r\n: nameless",
    ],
)
def test_everything_else_is_left_to_aiohttp(head: bytes) -> None:
    """Whatever two readers might read differently is not read here at all."""
    assert plain_head(head) is None


@given(st.binary(max_size=60), st.integers(0, len(PLAIN)))
def test_no_bytes_make_it_fall_over(junk: bytes, place: int) -> None:
    """Any bytes get an answer; and what is taken has exactly one length, which it states."""
    head = PLAIN[:place] + junk + PLAIN[place:]
    plain = plain_head(head)
    if plain is not None:
        assert len(re.findall(rb"(?im)^content-length:", head.replace(b"\r", b""))) == 1


BODIES = [
    b"",
    b"{}",
    b'{"key":"ZmFzdA==","value":"MQ=="}',
    b"{",
    b'{"key":5}',
    b"[]",
    b"\xff",
    b'{"key":"ZmFzdA=="}x',
]
PATHS = [
    "/v3/kv/range",
    "/v3/kv/txn",
    "/v3/kv/deleterange",
    "/v3/cluster/member/list",
    "/v3/kv/range?a=b",
    "/v3/no",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BODIES)
def test_both_ways_give_the_same_answer(kvorum_server: Server, path: str, body: bytes) -> None:
    """A header that means nothing here sends a request the long way: status, headers and body are
    the same."""
    answers = []
    for headers in ({}, {"TE": "trailers"}):
        connection = http.client.HTTPConnection("127.0.0.1", kvorum_server.port, timeout=10)
        # Both parts in one packet, as the fast lane likes it.
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.connect()
        connection.sock.sendall(head.encode() + b"\r\n" + body)
        response = http.client.HTTPResponse(connection.sock, method="POST")
        response.begin()
        names = {k: v for k, v in response.getheaders() if k not in ("Date", "Server")}
        answers.append((response.status, names, response.read()))
        response.close()
        connection.close()
    assert answers[0] == answers[1]


def request(path: str, message: dict) -> bytes:
    body = json.dumps(message).encode()
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)


def test_pipelined_requests_are_answered_in_order(kvorum_server: Server) -> None:
    """Many requests at once, plain ones and others, are answered one by one, in order."""
    values = [f"{n:04d}" for n in range(200)]
    sent = b""
    for number, value in enumerate(values):
        sent += request("/v3/kv/put", {"key": "cGlwZQ==", "value": value})
        if number == 150:
            sent += b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
    sent += request("/v3/kv/range", {"key": "cGlwZQ=="})
    with socket.create_connection(("127.0.0.1", kvorum_server.port), timeout=10) as sock:
        sock.sendall(sent)
        stream = sock.makefile("rb")
        bodies = [read_response(stream) for _ in range(len(values) + 2)]
        stream.close()
    revisions = [int(json.loads(body)["header"]["revision"]) for body in bodies if b"header" in body]
    assert revisions == sorted(revisions)
    assert bodies[151].startswith(b'{"etcdserver"')
    assert json.loads(bodies[-1])["kvs"][0]["value"] == values[-1]


def read_response(stream) -> bytes:
    assert b" 200 " in stream.readline()
    length = 0
    while (line := stream.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return stream.read(length)


@pytest.mark.parametrize("cut", [1, 10, 30, 60, 75, 80])
def test_a_request_in_two_packets(kvorum_server: Server, cut: int) -> None:
    """Wherever a request is cut in two, it is answered."""
    sent = request("/v3/kv/put", {"key": "Y3V0", "value": "YQ=="})
    with socket.create_connection(("127.0.0.1", kvorum_server.port), timeout=10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(sent[:cut])
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(10)
        sock.sendall(sent[cut:])
        stream = sock.makefile("rb")
        assert b"revision" in read_response(stream)
        stream.close()


def test_a_client_that_reads_no_answers_is_not_read_either(tmp_path: Path) -> None:
    """Who asks and never reads fills its own socket, not the server's memory."""
    with running(start_kvorum(tmp_path)) as server:
        call(server.port, "/v3/kv/put", {"key": "YQ==", "value": "YWFh" * 2000})
        before = resident_bytes(server)
        asked = request("/v3/kv/range", {"key": "YQ=="}) * 1000
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
            sock.settimeout(1)
            with pytest.raises(TimeoutError):
                sock.sendall(asked * 500)  # four gigabytes of answers, if they were made
            assert resident_bytes(server) - before < 32 << 20
        assert call(server.port, "/v3/kv/range", {"key": "YQ=="})["count"] == "1"


VALUES = [b'{"a":"}{\\"]["}', b'{"b":[{"c":{}}]}', b"{}", b'{"\xc3\xa9":"\\\\"}']


@given(
    st.lists(st.sampled_from(VALUES), max_size=4),
    st.lists(st.integers(0, 80), max_size=5),
    st.sampled_from([b"", b" ", b"\r\n"]),
)
def test_the_splitter_finds_values_wherever_they_are_cut(
    values: list[bytes], cuts: list[int], space: bytes
) -> None:
    """Values come out whole and in order, however the stream arrives."""
    stream = b"".join(space + value for value in values) + space
    splitter = JsonSplitter(1000)
    found, start = [], 0
    for cut in [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]:
        found += splitter.feed(stream[start:cut])
        start = cut
    assert found == values
    assert splitter.rest() == b""


def test_thousands_of_requests_in_one_go_are_answered_one_by_one(kvorum_server: Server) -> None:
    """Those that wait for nothing are answered as they are read; their number must not matter."""
    body = b'{"key":"bGFuZQ==","serializable":true}'
    request = b"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    count, received = 5000, b""
    with socket.create_connection(("127.0.0.1", kvorum_server.port), timeout=20) as connection:
        sender = threading.Thread(target=connection.sendall, args=(request * count,))
        sender.start()
        answered = 0
        while answered < count:
            received += connection.recv(1 << 20)
            answered += received.count(b"HTTP/1.1 200 OK")
            received = received[received.rfind(b"HTTP/1.1") :].replace(b"HTTP/1.1 200 OK", b"", 1)
        sender.join()
    assert answered == count
