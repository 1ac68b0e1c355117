"""The soak test for half a minute, and its own parts: the relay, and the lab whose faults must be real."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.common.ports import free_port
from tests.common.servers import ROOT
from tests.sim.history import History
from tests.soak.evidence import Evidence
from tests.soak.lab import NETNS, run_directory, why_no_namespaces
from tests.soak.main import main
from tests.soak.relay import Relay

TARGET = "kvorum"


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    """In CI nothing is left out: the script installs what is missing."""
    if os.environ.get("CI"):
        environment = {**os.environ, "KVORUM_VENV": sys.prefix}
        subprocess.run(
            [ROOT / "scripts" / "soak", "--help"], env=environment, check=True, capture_output=True
        )


@pytest.mark.skipif(os.environ.get("KVORUM_SKIP_SOAK") == "1", reason="KVORUM_SKIP_SOAK is set")
def test_half_a_minute_of_faults(capsys: pytest.CaptureFixture[str]) -> None:
    """Three real nodes under load and faults keep every promise. What needs root or a tool that is
    not there is left out, and the run says so; in CI nothing may be left out."""
    command = [sys.executable, "-m", "tests.soak.main", "--minutes", "0.5", "--target", TARGET]
    if os.environ.get("CI"):
        command.append("--require-all")
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    with capsys.disabled():
        print(*(f"\n{line}" for line in ran.stdout.splitlines() if "left out:" in line), end="")
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"


def test_a_cluster_that_forgets_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a cluster whose disks all go back in time must not pass."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [sys.executable, "-m", "tests.soak.main", "--minutes", "0.05", "--target", TARGET]
    command += ["--plain", "--faults", "sabotage"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 1, f"{ran.stdout}\n{ran.stderr}"
    assert "VIOLATION" in ran.stdout
    (kept,) = tmp_path.glob("kvorum-soak-*")
    assert (kept / "history.pickle").exists()
    assert (kept / "history.txt").exists()
    assert (kept / "n1" / "log").exists()
    # What is kept can be judged again.
    again = [sys.executable, "-m", "tests.soak.main", "--judge", str(kept / "history.pickle")]
    assert subprocess.run(again, cwd=ROOT, capture_output=True, check=False).returncode == 1


def test_what_was_wrong_before_the_end_is_kept(tmp_path: Path) -> None:
    """Two leaders, say, of whom no client heard anything wrong."""
    kept = tmp_path / "history.pickle"
    kept.write_bytes(pickle.dumps(Evidence(History(), [], ["two leaders in term 2"])))
    assert main(["--judge", str(kept)]) == 1
    kept.write_bytes(pickle.dumps(Evidence(History(), [], [])))
    assert main(["--judge", str(kept)]) == 0


def test_an_interrupted_run_leaves_nothing_behind() -> None:
    """After SIGINT in the middle no process, no namespace and no mount of the run is left."""
    command = [sys.executable, "-m", "tests.soak.main", "--minutes", "5", "--target", TARGET]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if "…" in line:  # the first fault
                break
        run.send_signal(signal.SIGINT)
        run.stdout.read()
        assert run.wait(timeout=60) == 130
    assert not list(NETNS.glob(f"soak{run.pid}*"))
    mark = f"kvorum-soak-{run.pid}-"
    assert mark not in Path("/proc/mounts").read_text()
    assert not [command for command in commands() if mark in command]


def commands() -> list[str]:
    """Those of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_text(errors="replace"))
    return found


def test_a_run_directory_tells_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what a dead run has left can be told from what a living one has."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run_directory(4711).name.startswith("kvorum-soak-4711-")


async def test_the_relay_delays_but_never_reorders_within_a_stream() -> None:
    """All bytes arrive, in order, later; an end of the stream arrives behind them."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server, asyncio.timeout(30):
        here = ("127.0.0.1", free_port())
        relay = Relay(here, server.sockets[0].getsockname(), lambda _: None, seed=1)
        await relay.start()
        relay.delay = (0.02, 0.2)
        began = time.monotonic()
        reader, writer = await asyncio.open_connection(*here)
        data = random.Random(1).randbytes(1_000_000)
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data
        assert time.monotonic() - began >= 0.04  # once in each direction
        writer.close()
        await writer.wait_closed()
        await relay.stop()


async def test_the_relay_hangs_up_when_its_member_is_gone() -> None:
    """Nobody listens behind the relay: whoever connects is hung up on."""
    here = ("127.0.0.1", free_port())
    relay = Relay(here, ("127.0.0.1", free_port()), lambda _: None, seed=1)
    await relay.start()
    reader, writer = await asyncio.open_connection(*here)
    async with asyncio.timeout(10):
        await until_closed(reader)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    await relay.stop()


async def until_closed(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""


@pytest.fixture
def reason() -> None:
    why = why_no_namespaces()
    if why is not None:
        assert not os.environ.get("CI"), f"no namespaces in CI: {why}"
        pytest.skip(f"network namespaces: {why}")


@pytest.mark.usefixtures("reason")
def test_the_lab_cuts_what_it_says() -> None:
    """Between members: everything passes, one way, both ways, by chance, and again after healing;
    what comes over a relay is cut with what comes directly; clients are not."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.soak.probe"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
