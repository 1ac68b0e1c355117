"""The blocking shell's connections where threads, signals and processes meet."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from kvorum import Client
from tests.kvorum.raw_server import Connection, answering, nobody_accepts, raw_server

SECONDS = 20
CREATED = b'{"result":{"header":{"revision":"7"},"created":true}}\n'


def in_a_fork(work: Callable[[], Any]) -> int:
    """What a forked process returns, as its exit code; 99 where it raises."""
    pid = os.fork()
    if pid == 0:
        try:
            code = int(work())
        except BaseException:
            code = 99
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_has_connections_of_its_own() -> None:
    """Else two would read the answers on one."""
    with raw_server(answering(1, 2, 3), answering(50)) as server, Client(server.url) as client:
        assert client.put("a", "1").revision == 1
        assert in_a_fork(lambda: client.put("a", "2").revision) == 50
        assert client.put("a", "3").revision == 2
        assert server.connections == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_may_be_forked_in_the_middle_of_a_call() -> None:
    with raw_server(answering(1, 2), answering(50)) as server, Client(server.url) as client:
        client.put("a", "1")
        with client._http._lock:  # as if by a thread that is not in the other process
            assert in_a_fork(lambda: client.put("a", "2").revision) == 50


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_watch_of_the_parent_is_not_ended_by_the_child() -> None:
    go_on = threading.Event()

    def watched(connection: Connection) -> None:
        connection.request()
        connection.begin_stream(CREATED)
        go_on.wait(SECONDS)
        connection.stream(b'{"result":{"header":{"revision":"8"},"events":[{"kv":{"mod_revision":"8"}}]}}\n')
        connection.wait_for_end()

    with raw_server(watched) as server, Client(server.url) as client, client.watch("a") as watch:
        assert in_a_fork(lambda: client.close() or 0) == 0
        go_on.set()
        assert next(iter(watch)).revision == 8
        assert server.connections == 1


@pytest.mark.parametrize("timeout", [1.0, 5.0])
def test_of_a_names_addresses_one_that_is_gone_leaves_time_for_the_others(
    monkeypatch: pytest.MonkeyPatch, timeout: float
) -> None:
    """Within the time that there is to connect, so that the rest is left to be answered in."""
    with nobody_accepts() as gone, raw_server(answering(7)) as server:
        ports = [int(url.rpartition(":")[2]) for url in (gone, server.url)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in ports]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with Client("all-members:2379", timeout=timeout) as client:
            begun = time.monotonic()
            assert client.put("a", "1").revision == 7
            assert time.monotonic() - begun < timeout


def test_leases_of_two_processes_have_ids_of_their_own() -> None:
    """A client that was made before a fork is in both."""
    with Client("127.0.0.1:1") as client:
        read, write = os.pipe()

        def tell() -> int:
            os.write(write, b"%d" % client.core.rng.randrange(1 << 63))
            return 0

        for _ in range(2):
            assert in_a_fork(tell) == 0
        os.close(write)
        with os.fdopen(read) as told:
            ids = told.read()
    half = len(ids) // 2
    assert ids[:half] != ids[half:]


def test_a_stream_whose_reading_was_interrupted_is_not_read_on() -> None:
    """What was read just then may be lost: the watch begins anew behind what it has told."""
    reading = threading.Event()

    def watched(connection: Connection) -> None:
        request = connection.request()
        assert request is not None
        connection.begin_stream(CREATED)
        reading.set()
        connection.wait_for_end()

    def resumed(connection: Connection) -> None:
        request = connection.request()
        assert request is not None
        assert request["create_request"]["start_revision"] == "8"
        connection.begin_stream(
            CREATED, b'{"result":{"header":{"revision":"8"},"events":[{"kv":{"mod_revision":"8"}}]}}\n'
        )
        connection.wait_for_end()

    def interrupt(*_: object) -> None:
        raise InterruptedReading

    class InterruptedReading(BaseException):
        pass

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with raw_server(watched, resumed) as server, Client(server.url) as client, client.watch("a") as watch:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(InterruptedReading):
                next(iter(watch))
            assert next(iter(watch)).revision == 8
    finally:
        signal.signal(signal.SIGALRM, before)
