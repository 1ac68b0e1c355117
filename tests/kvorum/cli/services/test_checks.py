"""Checks of a service."""

from __future__ import annotations

import asyncio
import base64
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kvorum.cli.services.checks import parsed
from tests.common.nodes import wait_until
from tests.common.ports import free_port
from tests.common.servers import ROOT

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def serving(answer: bytes | None, *, hang_up: bool = True) -> AsyncIterator[int]:
    """A port where any request gets these bytes; None: none for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if answer is None:
                await reader.read()  # until the other side goes
            else:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
                if not hang_up:
                    await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nthe rest does not matter", None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "it answers with status 503"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "it answers with status 302"),
        (b"", "it hangs up without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "its answer is not HTTP"),
    ],
)
async def test_what_answers_with_success_is_well(answer: bytes, problem: str | None) -> None:
    async with serving(answer) as port:
        found = await parsed(f"http://127.0.0.1:{port}/health?deep=1")(5.0)
    assert found is None if problem is None else problem in (found or "")


async def test_what_answers_and_does_not_hang_up_is_well() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\n\r\n", hang_up=False) as port:
        assert await parsed(f"http://localhost:{port}")(5.0) is None


@pytest.mark.parametrize("head", [None, b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nX: "])
async def test_what_hangs_has_failed(head: bytes | None) -> None:
    """Also in the middle of its answer."""
    async with serving(head, hang_up=False) as port:
        assert await parsed(f"http://127.0.0.1:{port}/")(0.2) == "no answer within 0.2 s"


async def test_what_accepts_connections_is_well() -> None:
    async with serving(None) as port:
        assert await parsed(f"tcp://127.0.0.1:{port}")(5.0) is None


@pytest.mark.parametrize("scheme", ["tcp", "http", "https"])
async def test_where_nothing_listens_is_not_well(scheme: str) -> None:
    assert "Connect call failed" in (await parsed(f"{scheme}://127.0.0.1:{free_port()}")(5.0) or "")


async def test_what_speaks_no_tls_is_not_well_over_https() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        assert await parsed(f"https://127.0.0.1:{port}")(5.0) is not None


async def test_a_host_that_is_none_is_not_well() -> None:
    assert await parsed("http://does-not-exist.invalid/")(5.0) is not None
    assert await parsed(f"http://{'x' * 70}.invalid/")(5.0) is not None


async def test_a_command_says_by_its_exit_code() -> None:
    assert await parsed("true")(5.0) is None
    assert await parsed("echo noise; echo noise >&2; cat; test -n x")(5.0) is None
    assert await parsed("exit 3")(5.0) == "the command has ended with 3"
    assert await parsed("no-such-program-at-all")(5.0) == "the command has ended with 127"


async def test_a_command_that_hangs_is_ended_with_all_it_has_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    problem = await parsed(f"sleep 100 & echo $! $$ > {pids}; wait")(0.5)
    assert problem == "the command has not ended within 0.5 s"
    for pid in pids.read_text().split():
        await asyncio.to_thread(wait_until, lambda pid=pid: not is_alive(pid))


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_command_that_hangs_does_not_outlive_for_long_who_runs_it(tmp_path: Path) -> None:
    """He may be killed, and see to nothing any more."""
    pids, made = tmp_path / "pids", tmp_path / "made"
    check = f"sleep 100 & echo $! $$ > {made}; mv {made} {pids}; wait"
    code = (
        f"import asyncio; from kvorum.cli.services.checks import parsed; asyncio.run(parsed({check!r})(0.9))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as process:
        wait_until(pids.exists)
        process.kill()
    wait_until(lambda: not any(map(is_alive, pids.read_text().split())))


async def test_a_user_in_the_address_is_who_asks() -> None:
    heads = list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await parsed(f"http://ann:a%20b@127.0.0.1:{port}/")(5.0) is None
    assert b"\r\nAuthorization: Basic " + base64.b64encode(b"ann:a b") + b"\r\n" in heads[0]
    assert b"\r\nHost: 127.0.0.1:%d\r\n" % port in heads[0]


async def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    """Or each check would leave a process."""
    pid_file = tmp_path / "pid"
    assert await parsed(f"sleep 100 & echo $! > {pid_file}")(5.0) is None
    pid = pid_file.read_text().strip()
    await asyncio.to_thread(wait_until, lambda: not is_alive(pid))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tcp://127.0.0.1", "the check 'tcp://127.0.0.1' is wrong: expected tcp://HOST:PORT"),
        ("http://", "the check 'http://' is wrong: expected http://HOST:PORT"),
        ("tcp://a:x", "the check 'tcp://a:x' is wrong"),
        ("http://[x", "the check 'http://[x' is wrong"),
        (" ", "the check is empty: expected http"),
        ("http://a:80/my page", "the check 'http://a:80/my page' is wrong: expected http://HOST:PORT"),
        ("http://a:80/ü", "the check 'http://a:80/ü' is wrong"),
    ],
)
def test_what_is_no_check_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parsed(text)
