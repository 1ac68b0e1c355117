"""Connections of both shells: which are used again, what is told when they break, and nothing left behind."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvorum import ConnectionFailed, KvorumError, ServerError
from tests.kvorum.clients import MakeClient
from tests.kvorum.raw_server import Connection, answering, nobody_accepts, raw_server

SECONDS = 20


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Sockets that nobody has closed are warned of when they are collected."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert not [str(one.message) for one in warned if issubclass(one.category, ResourceWarning)]


@pytest.mark.parametrize("dial_timeout", [0, None])
def test_what_is_no_time_out_for_a_connection_is_refused(make_client: MakeClient, dial_timeout: Any) -> None:
    with pytest.raises(KvorumError, match="dial_timeout is"), make_client("a:1", dial_timeout=dial_timeout):
        pass


def test_a_name_that_can_be_none_is_told(make_client: MakeClient) -> None:
    with (
        make_client("a" * 70, timeout=0.2) as client,
        pytest.raises(ConnectionFailed, match="cannot connect") as caught,
    ):
        client.put("a", "1")
    assert not caught.value.maybe_done


def test_a_connection_serves_one_request_after_the_other(make_client: MakeClient) -> None:
    with raw_server(answering(1, 2, 3)) as server, make_client(server.url) as client:
        assert [client.put("a", "1").revision for _ in range(3)] == [1, 2, 3]
        assert server.connections == 1


def test_one_that_the_server_has_closed_is_not_used_for_a_write(make_client: MakeClient) -> None:
    """Nobody would know whether that was carried out."""
    with raw_server(answering(1), answering(2)) as server, make_client(server.url) as client:
        client.put("a", "1")
        assert server.ended.acquire(timeout=SECONDS)
        assert client.put("a", "2").revision == 2


def test_what_nobody_asked_for_is_no_answer_to_the_next_request(make_client: MakeClient) -> None:
    def answers_twice(connection: Connection) -> None:
        connection.request()
        body = b'{"header":{"revision":"1"}}'
        one = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        connection.send(one + one.replace(b'"1"', b'"9"'))
        connection.wait_for_end()

    with raw_server(answers_twice, answering(2)) as server, make_client(server.url) as client:
        assert client.put("a", "1").revision == 1
        assert told(client.put, "a", "2") in (2, "maybe done"), "another's answer"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
def test_an_answer_that_breaks_off_tells_nothing_and_that_is_told(
    make_client: MakeClient, answer: bytes
) -> None:
    def breaks_off(connection: Connection) -> None:
        connection.request()
        connection.send(answer)

    with raw_server(breaks_off, answering(2)) as server, make_client(server.url) as client:
        with pytest.raises(ConnectionFailed, match="it is unknown whether it was done") as caught:
            client.put("a", "1")
        assert caught.value.maybe_done
        assert "role=" not in str(caught.value), "the words of a library"
        assert client.put("a", "2").revision == 2


def test_what_was_sent_to_its_half_may_have_been_done(make_client: MakeClient) -> None:
    with (
        raw_server(lambda connection: connection.receive(10)) as server,
        make_client(server.url) as client,
        pytest.raises(ConnectionFailed) as caught,
    ):
        client.put("a", "x" * 20_000_000)
    assert caught.value.maybe_done


def test_a_refusal_that_comes_before_all_was_sent_is_heard(make_client: MakeClient) -> None:
    """Go's server refuses what is too large without reading it."""

    def refuses(connection: Connection) -> None:
        connection.receive(1000)
        connection.answer(429, error="too large", message="too large", code=8)
        connection.hang_up_as_go_does()

    with raw_server(refuses) as server, make_client(server.url) as client:
        with pytest.raises(ServerError, match="too large") as caught:
            client.put("a", "x" * 20_000_000)
        assert not caught.value.maybe_done
        assert server.ended.acquire(timeout=SECONDS)  # else asyncio goes on sending, and is ended in that


@pytest.mark.parametrize("options", [{"timeout": 0.4}, {"timeout": 1, "dial_timeout": 0.2}])
def test_a_machine_that_does_not_answer_has_done_nothing(make_client: MakeClient, options: Any) -> None:
    with (
        nobody_accepts() as url,
        make_client(url, **options) as client,
        pytest.raises(ConnectionFailed, match="cannot connect") as caught,
    ):
        client.put("a", "1")
    assert not caught.value.maybe_done


def test_a_machine_that_does_not_answer_leaves_time_for_the_others(make_client: MakeClient) -> None:
    for _ in range(4):  # clients begin at random
        with (
            nobody_accepts() as url,
            raw_server(answering(1)) as server,
            make_client([url, server.url], timeout=1.5) as client,  # less than to dial once
        ):
            assert client.put("a", "1").revision == 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_read_goes_past_a_proxy_that_has_no_server(make_client: MakeClient, status: int) -> None:
    def bad_gateway(connection: Connection) -> None:
        while connection.request() is not None:
            connection.answer(status, b"<html>Bad Gateway</html>")

    for _ in range(4):
        with (
            raw_server(bad_gateway) as proxy,
            raw_server(answering(1)) as server,
            make_client([proxy.url, server.url]) as client,
        ):
            assert client.get("a") is None


def test_the_reason_why_a_stream_ends_is_heard_without_a_lines_end(make_client: MakeClient) -> None:
    def refuses(connection: Connection) -> None:
        connection.request()
        connection.begin_stream(
            b'{"result":{"header":{"revision":"7"},"created":true}}\n',
            b'{"error":{"grpc_code":7,"message":"etcdserver: permission denied"}}',
            b"",  # the end
        )

    with (
        raw_server(refuses) as server,
        make_client(server.url) as client,
        client.watch("a") as watch,
        pytest.raises(ServerError, match="permission denied"),
    ):
        list(watch)


def test_a_stream_that_is_refused_leaves_no_connection_open(make_client: MakeClient) -> None:
    hung_up = threading.Event()

    def refuses(connection: Connection) -> None:
        connection.request()
        connection.answer(400, error="no", message="no", code=3)
        connection.wait_for_end()
        hung_up.set()

    with raw_server(refuses) as server:
        with make_client(server.url) as client, pytest.raises(ServerError, match="no") as caught:
            client.watch("a").start()
        assert caught.value.__cause__ is not caught.value
        assert hung_up.wait(SECONDS)


def test_a_refused_stream_whose_reason_does_not_come_is_given_up(make_client: MakeClient) -> None:
    hung_up = threading.Event()

    def stalls(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 503 X\r\nContent-Length: 100\r\n\r\n{")
        connection.wait_for_end()
        hung_up.set()

    def works(connection: Connection) -> None:
        connection.request()
        connection.begin_stream(b'{"result":{"header":{"revision":"7"},"created":true}}\n')
        connection.wait_for_end()

    with (
        raw_server(stalls, works) as server,
        make_client(server.url, timeout=0.3) as client,
        client.watch("a") as watch,
    ):
        assert watch.next_revision == 8
        assert hung_up.wait(SECONDS), "while the client is still open"


def told(call: Callable[..., Any], *args: Any) -> int | str:
    """The revision, or what may be concluded."""
    try:
        revision: int = call(*args).revision
    except KvorumError as error:
        return "maybe done" if error.maybe_done else "not done"
    return revision
