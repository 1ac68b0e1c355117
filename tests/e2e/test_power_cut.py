"""The power goes out: on a real ext4, everything that was not synced is gone.

A file system on a loop device is shut down without flushing its journal (EXT4_IOC_SHUTDOWN, as
xfstests do): what was synced stays, the rest is lost, and every later write fails. It needs root
and mkfs.ext4, and is skipped with a reason elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.common.ports import free_port
from tests.common.servers import Server, start_kvorum
from tests.e2e.history import History, Writer, current_revision, events_after
from tests.e2e.test_disk_faults import need

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


class Disk:
    """An ext4 on a loop device."""

    def __init__(self, image: Path, mount: Path) -> None:
        self.mount = mount
        with image.open("wb") as file:
            file.truncate(256 << 20)
        self._device = run("losetup", "-f", "--show", str(image)).strip()
        run("mkfs.ext4", "-qF", self._device)
        self.plug_in()

    def plug_in(self) -> None:
        run("mount", self._device, str(self.mount))

    def cut_power(self) -> None:
        descriptor = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def unplug(self) -> None:
        run("umount", str(self.mount))

    def throw_away(self) -> None:
        subprocess.run(["umount", "-l", str(self.mount)], capture_output=True, check=False)
        run("losetup", "-d", self._device)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0 or not shutil.which("losetup") or not shutil.which("mkfs.ext4"):
        pytest.skip("a loop device with ext4 needs root, losetup and mkfs.ext4")
    mount = tmp_path / "disk"
    mount.mkdir()
    try:
        made = Disk(tmp_path / "image", mount)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop device with ext4 here: {error.stderr}")
    yield made
    made.throw_away()


def write_until_the_power_goes(disk: Disk, server: Server, history: History, seconds: float) -> None:
    writers = [Writer(number, server.port, history, random.getrandbits(64)) for number in range(4)]
    for writer in writers:
        writer.start()
    threading.Event().wait(seconds)  # a random moment is what is wanted here
    disk.cut_power()
    server.kill()
    for writer in writers:
        writer.join(timeout=15)
        assert writer.error is None, writer.error
    disk.unplug()
    disk.plug_in()


def judge(server: Server, history: History) -> None:
    server.wait_until_healthy()
    try:
        current = current_revision(server.port)
        history.check_events(events_after(server.port, history.verified_to, current), current)
    finally:
        server.kill()


def test_nothing_acknowledged_is_lost(disk: Disk) -> None:
    """Over many power cuts at random moments every acknowledged write is there, at its revision."""
    history = History()
    chance = random.Random()
    for _ in range(8):
        server = start_kvorum(disk.mount, port=free_port()).wait_until_healthy()
        write_until_the_power_goes(disk, server, history, chance.uniform(0.05, 0.6))
        judge(start_kvorum(disk.mount, port=free_port()), history)
    assert len(history.acknowledged) > 100


def test_a_disk_that_lies_is_found_out(disk: Disk) -> None:
    """The control: where fdatasync only pretends, acknowledged writes are lost, and this test sees it."""
    prefix = [need("strace"), "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]
    prefix += ["-e", "inject=fdatasync,fsync:retval=0"]
    history = History()
    server = start_kvorum(disk.mount, prefix=prefix, port=free_port()).wait_until_healthy()
    # strace is what was started: the node below it must be gone before the disk is unplugged.
    [node] = run("pgrep", "-P", str(server.process.pid)).split()
    write_until_the_power_goes(disk, Tree(server, int(node)), history, 1.0)
    assert history.acknowledged
    with pytest.raises(AssertionError):
        judge(start_kvorum(disk.mount, port=free_port()), history)


class Tree(Server):
    """A server behind strace: both end together."""

    def __init__(self, server: Server, node: int) -> None:
        self.__dict__.update(server.__dict__)
        self._node = node

    def kill(self) -> None:
        with suppress(ProcessLookupError):  # a write that failed may have stopped it already
            os.kill(self._node, 9)
        self.process.wait()
