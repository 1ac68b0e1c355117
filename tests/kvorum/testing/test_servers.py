"""A server for tests: up in milliseconds, and gone without a trace."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import kvorum.testing
from kvorum.testing import Server, StartFailed
from tests.kvorum.testing.helpers import can_bind, eventually, get, lives, put


@pytest.fixture
def server() -> Iterator[Server]:
    with kvorum.testing.server() as running:
        yield running


def test_it_serves(server: Server) -> None:
    put(server.url, "a", "1")
    assert get(server.url, "a") == "1"
    assert server.endpoint == f"127.0.0.1:{server.port}"
    assert server.url == f"http://{server.endpoint}"
    assert server.is_healthy()
    assert "leads in term 1" in server.log


def test_it_comes_with_a_client(server: Server) -> None:
    client = server.client(timeout=20)
    client.put("a", "1")
    server.restart()
    found = client.get("a")
    assert found is not None
    assert found.value == b"1"


def test_its_clients_end_with_it() -> None:
    """Whoever waits for events in a thread waits no longer, and sees no error."""
    with kvorum.testing.server() as server:
        watch = server.client().watch("a")
        with ThreadPoolExecutor(1) as pool:
            seen = pool.submit(list, watch)
            server.close()
            assert seen.result(10) == []


def test_each_has_data_of_its_own(server: Server) -> None:
    with kvorum.testing.server() as other:
        put(server.url, "a", "1")
        assert other.port != server.port
        assert get(other.url, "a") is None


def test_what_was_written_survives_its_death(server: Server) -> None:
    """After SIGKILL it goes on with its data, on its port."""
    put(server.url, "a", "1")
    url, pid = server.url, server.pid
    server.kill()
    assert not server.is_running()
    assert server.pid is None
    with pytest.raises(OSError, match="refused"):
        get(url, "a")
    server.restart()
    assert server.url == url
    assert server.pid != pid
    assert get(url, "a") == "1"


def test_restart_kills_what_runs(server: Server) -> None:
    before = server.pid
    assert before is not None
    server.restart()
    assert not lives(before)
    assert server.pid not in (before, None)


def test_it_can_be_stopped_in_peace(server: Server) -> None:
    put(server.url, "a", "1")
    server.stop()
    server.stop()  # nothing is left to do
    assert not server.is_running()
    server.start()
    server.start()
    assert get(server.url, "a") == "1"


def test_its_port_is_kept_while_it_is_down(server: Server) -> None:
    server.kill()
    assert not can_bind(server.port)
    # An outgoing connection is not given it either, and so never reaches itself.
    with socket.socket() as caller:
        assert caller.connect_ex(("127.0.0.1", server.port)) != 0


def test_a_paused_one_accepts_and_does_not_answer(server: Server) -> None:
    server.pause()
    assert server.is_running()
    with pytest.raises(TimeoutError):
        put(server.url, "a", "1", timeout=0.3)
    server.resume()
    put(server.url, "a", "2")
    assert get(server.url, "a") == "2"


def test_a_paused_one_can_be_killed(server: Server) -> None:
    server.pause()
    server.kill()
    assert not server.is_running()


def test_an_end_that_others_brought_is_seen(server: Server) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.is_running(), "its end is seen")
    server.kill()
    server.start()
    assert server.is_healthy()


def test_nothing_is_left_of_it() -> None:
    with kvorum.testing.server() as server:
        pid, port, data = server.pid, server.port, server.data_dir
        assert pid is not None
        assert data.is_dir()
    assert not lives(pid)
    assert can_bind(port)
    assert not data.parent.exists()


def test_flags_are_those_of_kvorum_serve() -> None:
    with kvorum.testing.server(flags=["--max-request-bytes=100"]) as server:
        put(server.url, "a", "1")
        with pytest.raises(OSError, match="HTTP Error 4"):
            put(server.url, "a", "1" * 1000)


def test_a_wrong_flag_is_reported_in_the_servers_words() -> None:
    with (
        pytest.raises(StartFailed, match=r"exit code 2:\n(.|\n)*--max-txn-ops is 0: expected 1 or more"),
        kvorum.testing.server(flags=["--max-txn-ops=0"]),
    ):
        pass


@pytest.mark.parametrize("flags", ["--max-txn-ops=10", [10]])
def test_flags_are_a_list_of_texts(flags: object) -> None:
    with (
        pytest.raises(TypeError, match=r"flags is .*: expected a list of texts, such as \["),
        kvorum.testing.server(flags=flags),  # type: ignore[arg-type]
    ):
        pass


def test_threads_may_start_servers_at_once() -> None:
    def round_trip(number: int) -> str | None:
        with kvorum.testing.server() as server:
            put(server.url, "a", str(number))
            return get(server.url, "a")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(round_trip, range(4))) == ["0", "1", "2", "3"]


def test_the_tests_process_stays_without_the_servers_packages(server: Server) -> None:
    """A fresh interpreter that has run a server has imported none of them."""
    program = (
        "import sys, kvorum.testing\n"
        "with kvorum.testing.server() as server: assert server.is_healthy()\n"
        "print(*sorted({'raft', 'kvstate', 'watch', 'api', 'aiohttp', 'lmdb', 'uvloop'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
