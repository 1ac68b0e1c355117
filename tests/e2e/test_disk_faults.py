"""A disk that fails: a clear error, no more promises, nothing acknowledged lost.

The faults are made by strace at the system calls of a real node, and by a small tmpfs that is
really full; both need root or the tools, and are skipped with a reason where those are missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.common.ports import free_port
from tests.common.servers import Server, start_kvorum
from tests.e2e.history import History, Writer, current_revision, events_after


def need(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        if os.environ.get("CI") and shutil.which("apt-get") and os.geteuid() == 0:
            for step in (["update", "-qq"], ["install", "-y", "-qq", tool]):
                subprocess.run(["apt-get", *step], check=True, stdout=subprocess.DEVNULL)
            return str(shutil.which(tool))
        pytest.skip(f"{tool} is not installed")
    return path


def write_until_it_fails(server: Server, history: History, writers: int = 4) -> int:
    """Write until the node ends by itself; returns its exit code."""
    threads = [Writer(number, server.port, history, number) for number in range(writers)]
    for thread in threads:
        thread.start()
    code = server.process.wait(timeout=60)
    for thread in threads:
        thread.join(timeout=15)
        assert thread.error is None, thread.error
        assert not thread.is_alive(), "a client waits for ever on a node whose disk failed"
    return code


def check_nothing_lost(directory: Path, history: History) -> None:
    """Start on the same data with a good disk, and judge the history."""
    server = start_kvorum(directory, port=free_port()).wait_until_healthy()
    try:
        current = current_revision(server.port)
        history.check_events(events_after(server.port, history.verified_to, current), current)
        assert history.acknowledged, "no write was acknowledged: this run shows nothing"
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("which", "fault"),
    [
        # The first fdatasyncs are those of a node that starts.
        ("wal", "fdatasync:error=EIO:when=60+"),
        ("wal", "pwrite64:error=ENOSPC:when=90+"),
        ("wal", "pwrite64:error=EIO:when=90"),
        ("state", "fdatasync:error=EIO:when=3+"),
        ("state", "pwrite64,pwritev:error=ENOSPC:when=40+"),
    ],
)
def test_a_failing_disk_stops_the_node(which: str, fault: str, tmp_path: Path) -> None:
    """After an error of the log's or the state's disk the node says so, ends with 1, and everything
    it had acknowledged is there after a restart."""
    strace = need("strace")
    # Made by a first start, so that the files to interfere with have their names.
    server = start_kvorum(tmp_path).wait_until_healthy()
    assert server.stop() == 0
    data = tmp_path / "data"
    files = sorted(data.joinpath("wal").glob("*.wal")) if which == "wal" else [data / "state" / "data.mdb"]
    call = fault.split(":")[0]
    prefix = [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={fault}"]
    for path in files:
        prefix += ["-P", str(path)]
    history = History()
    server = start_kvorum(tmp_path, prefix=prefix).wait_until_healthy()
    try:
        assert write_until_it_fails(server, history) == 1
    finally:
        if server.process.poll() is None:
            server.kill()
    said = server.log.read_text()
    assert "this node has failed and stops" in said
    assert ("write-ahead log" if which == "wal" else "state in") in said
    check_nothing_lost(tmp_path, history)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_stops_the_node(small_disk: Path, tmp_path: Path) -> None:
    """On a disk that is really full the node ends with an error that says so; with more room on
    it, everything acknowledged is there."""
    history = History()
    server = start_kvorum(small_disk).wait_until_healthy()
    assert write_until_it_fails(server, history) == 1
    assert "No space left on device" in server.log.read_text()
    shutil.copytree(small_disk, tmp_path / "roomier")
    check_nothing_lost(tmp_path / "roomier", history)
