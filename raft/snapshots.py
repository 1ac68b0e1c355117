"""Copies of the state that are being sent: one for all followers that need one at the same time.

A copy is a file in ``snapshots/`` below the data directory. It is made on a thread while the state is
written on, and is removed when nobody sends it any more. What it stands for is read from the copy
itself, as that may be newer than what was asked for. Nothing here outlives the process: what a
crash left is removed at the next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Protocol

from raft.core.membership import decode
from raft.core.types import Position, SnapshotMeta

log = logging.getLogger(__name__)

StandsFor = Callable[[Path], tuple[tuple[int, int], bytes]]
"""On a thread: ((index, term), encoded membership) of the state in a file."""


class SnapshotSource(Protocol):
    """The state machine's durable state, as something that can be copied."""

    def copy_to(self, path: Path) -> str:
        """On a thread: write what is durable now to a new file; returns its SHA-256 in hexadecimal.
        Any exception means that there is no copy."""

    def stop_copies(self) -> None:
        """A copy under way ends with an exception."""

    def stands_for(self, copy: Path) -> tuple[tuple[int, int], bytes]:
        """See ``StandsFor``."""


@dataclass(frozen=True, slots=True)
class Copy:
    path: Path
    meta: SnapshotMeta
    sha256: str
    size: int


class _Shared:
    """A copy, under way or ready, and how many need it."""

    __slots__ = ("making", "path", "users")

    def __init__(self, path: Path, making: asyncio.Task[Copy]) -> None:
        self.path = path
        self.making = making
        self.users = 0


class Copies:
    """``async with copies.at_least(index) as copy``."""

    def __init__(self, directory: Path, source: SnapshotSource, threads: Executor) -> None:
        self._directory = directory
        self._source = source
        self._threads = threads
        self._latest: _Shared | None = None
        self._removals: set[asyncio.Task[None]] = set()
        clear(directory, "copy-")

    @asynccontextmanager
    async def at_least(self, index: int) -> AsyncIterator[Copy]:
        """A copy of a state that has applied ``index``, for as long as the context lasts."""
        shared, copy = await self._acquire(index)
        try:
            yield copy
        finally:
            self._release(shared)

    async def close(self) -> None:
        """When nobody uses a copy any more: returns when all are gone."""
        while self._removals:
            await asyncio.wait(self._removals)

    async def _acquire(self, index: int) -> tuple[_Shared, Copy]:
        while True:
            shared, is_ours = self._latest, False
            if shared is None:
                path = self._directory / f"copy-{token_hex(8)}"
                shared = self._latest = _Shared(path, asyncio.create_task(self._make(path)))
                is_ours = True
            shared.users += 1
            try:
                copy = await asyncio.shield(shared.making)
                if copy.meta.position.index >= index:
                    return shared, copy
            except BaseException:
                self._release(shared)
                raise
            self._release(shared)
            if self._latest is shared:
                self._latest = None  # those who are sending it go on
            if is_ours:
                raise RuntimeError(f"the durable state is at {copy.meta.position}, but {index} was promised")

    def _release(self, shared: _Shared) -> None:
        shared.users -= 1
        if shared.users:
            return
        if self._latest is shared:
            self._latest = None
        if not shared.making.done():
            self._source.stop_copies()
        removal = asyncio.create_task(self._remove(shared))
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def _remove(self, shared: _Shared) -> None:
        await asyncio.wait([shared.making])
        if not shared.making.cancelled():
            shared.making.exception()  # who wanted it was told, or does not want it any more
        await asyncio.get_running_loop().run_in_executor(self._threads, remove, shared.path)

    async def _make(self, path: Path) -> Copy:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        copy = await loop.run_in_executor(self._threads, self._copy, path)
        log.info(
            "copied the state at %s, %d bytes, in %.1f s",
            copy.meta.position,
            copy.size,
            loop.time() - begun,
        )
        return copy

    def _copy(self, path: Path) -> Copy:
        sha256 = self._source.copy_to(path)
        return Copy(path, meta_of(path, self._source.stands_for), sha256, path.stat().st_size)


def meta_of(path: Path, stands_for: StandsFor) -> SnapshotMeta:
    """What the state in a file stands for, in consensus's terms."""
    (index, term), membership = stands_for(path)
    return SnapshotMeta(Position(index, term), decode(membership))


def clear(directory: Path, prefix: str) -> None:
    """Make the directory, and remove what an earlier life has left in it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in directory.glob(f"{prefix}*"):
        remove(path)


def remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
