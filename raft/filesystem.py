"""The few file operations the log needs, as a protocol, so that the simulator can put a
lossy disk in their place.

Nothing is durable until the file it was written to was synced, and a new, renamed or
removed name not until its directory was.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class File(Protocol):
    """A file open for writing at given offsets."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of ``data``; OSError if that is not possible."""

    def sync(self) -> None:
        """Data and size are durable when this returns (fdatasync)."""

    def close(self) -> None: ...


class Filesystem(Protocol):
    def make_directory(self, path: Path) -> None:
        """Create it with its parents and make their names durable; fine if it is there."""

    def list_directory(self, path: Path) -> list[str]:
        """Names in it, sorted."""

    def read(self, path: Path) -> bytes: ...

    def create(self, path: Path) -> File:
        """A new empty file; replaces one that is there."""

    def rename(self, source: Path, target: Path) -> None: ...

    def remove(self, path: Path) -> None: ...

    def sync_directory(self, path: Path) -> None: ...

    def random_bytes(self, count: int) -> bytes: ...


class RealFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write_at(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view = view[written:]
            offset += written

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class RealFilesystem:
    def make_directory(self, path: Path) -> None:
        missing = []
        while not path.exists():
            missing.append(path)
            path = path.parent
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
            self.sync_directory(directory.parent)

    def list_directory(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def create(self, path: Path) -> RealFile:
        return RealFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def sync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)
