"""A file system in memory that knows what was synced, and loses or tears the rest in a crash."""

from __future__ import annotations

import random
from pathlib import Path

SECTOR = 512


class Crash(BaseException):
    """The power went out. No code under test may catch it."""


class LossyFile:
    def __init__(self, disk: LossyDisk, content: Content) -> None:
        self._disk = disk
        self._content = content

    def write_at(self, offset: int, data: bytes) -> None:
        self._disk.step("write")
        content = self._content
        content.grow(offset + len(data))
        content.data[offset : offset + len(data)] = data
        content.unsynced.append((offset, data))

    def sync(self) -> None:
        self._disk.step("sync")
        self._content.durable = bytes(self._content.data)
        self._content.unsynced.clear()
        self._disk.synced(self._content)

    def close(self) -> None:
        pass


class Content:
    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = b""
        self.unsynced: list[tuple[int, bytes]] = []

    def grow(self, size: int) -> None:
        if len(self.data) < size:
            self.data += bytes(size - len(self.data))


class LossyDisk:
    """The ``Filesystem`` of the log. ``crash_at`` N raises Crash instead of the Nth operation;
    ``fail_at`` raises ``error`` there."""

    def __init__(self, seed: int | str = 0) -> None:
        self.rng = random.Random(seed)
        self._names: dict[Path, Content] = {}
        self._durable_names: dict[Path, Content] = {}
        self.operations = 0
        self.crash_at: int | None = None
        self.fail_at: int | None = None
        self.error = OSError(5, "Input/output error")

    @property
    def contents(self) -> list[Content]:
        """What is in the files that have a name."""
        return list(self._names.values())

    def step(self, what: str) -> None:
        self.operations += 1
        if self.operations == self.crash_at:
            raise Crash(what)
        if self.operations == self.fail_at:
            raise self.error

    def synced(self, content: Content) -> None:
        """Called when a file was synced; for whoever wants to know."""

    def crash(self) -> None:
        """Lose what was not synced: each write is lost, kept or torn in its sectors, in any
        combination; and names that were not synced are lost or kept."""
        self.crash_at = self.fail_at = None
        names = self._names if self.rng.random() < 0.5 else self._durable_names
        self._names = dict(names)
        self._durable_names = dict(names)
        for content in dict.fromkeys(self._names.values()):
            self._tear(content)

    def _tear(self, content: Content) -> None:
        survivors = bytearray(content.durable)
        for offset, data in content.unsynced:
            for start in range(0, len(data), SECTOR):
                fate = self.rng.random()
                piece = data[start : start + SECTOR]
                if fate < 0.4:
                    continue  # this sector never reached the disk
                if fate < 0.5:
                    piece = self.rng.randbytes(len(piece))
                end = offset + start + len(piece)
                if len(survivors) < end:
                    survivors += bytes(end - len(survivors))
                survivors[offset + start : end] = piece
        content.data = survivors
        content.durable = bytes(survivors)
        content.unsynced.clear()

    def replace(self, path: Path, data: bytes) -> None:
        """Somebody else wrote this file, durably."""
        content = self._names[path]
        content.data, content.durable = bytearray(data), data
        content.unsynced.clear()

    # The protocol.

    def make_directory(self, path: Path) -> None:
        pass

    def list_directory(self, path: Path) -> list[str]:
        return sorted(name.name for name in self._names)

    def read(self, path: Path) -> bytes:
        return bytes(self._names[path].data)

    def create(self, path: Path) -> LossyFile:
        self.step("create")
        self._names[path] = Content()
        return LossyFile(self, self._names[path])

    def rename(self, source: Path, target: Path) -> None:
        self.step("rename")
        self._names[target] = self._names.pop(source)

    def remove(self, path: Path) -> None:
        self.step("remove")
        del self._names[path]

    def sync_directory(self, path: Path) -> None:
        self.step("sync directory")
        self._durable_names = dict(self._names)

    def random_bytes(self, count: int) -> bytes:
        return self.rng.randbytes(count)
