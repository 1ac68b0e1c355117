"""A node's disks: the log's file system, which loses and tears what was not synced, and the
threads that use it, which take time.

``SimDisk.shadow`` is what the disk *would* tell after a power cut right now, read by the real
decoder as each sync ends. Oracles look there to see whether a promise is kept on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raft.core.types import HardState, Position
from raft.wal.record import Frame, Installed, Installing, decode_frame, decode_records
from raft.wal.recovery import Log, recover
from raft.wal.segment import decode_header, sequence_of
from tests.raft.wal.lossy import Content, Crash, LossyDisk

if TYPE_CHECKING:
    from tests.sim.node import Node


class SimDisk(LossyDisk):
    """The file system of one node's log."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self.shadow = Log()
        self.on_removed: Callable[[], None] = lambda: None  # called when a segment was removed
        self.has_failed = False  # an operation failed since the node's start
        self._read_to: dict[Content, tuple[bytes, int]] = {}  # (marker, offset) of what was read

    def step(self, what: str) -> None:
        try:
            super().step(what)
        except OSError:
            self.has_failed = True
            raise

    @property
    def has_unsynced(self) -> bool:
        return any(content.unsynced for content in self.contents)

    def remove(self, path: Path) -> None:
        super().remove(path)
        if sequence_of(path.name) is not None:
            self.on_removed()

    def crash(self) -> None:
        super().crash()
        self._read_to.clear()

    def reread(self, directory: Path) -> None:
        """After a crash: what survived is what there is."""
        self.shadow = recover(self, directory)

    def synced(self, content: Content) -> None:
        """Take what became durable by this sync into the shadow."""
        data = content.durable
        marker, offset = self._read_to.get(content, (b"", 0))
        if not offset:
            decoded = decode_header(data)
            if isinstance(decoded, str):
                return
            header, frame = decoded
            marker, offset = header.marker, frame.size
            if not self.shadow.entries and header.base.index > self.shadow.base.index:
                self.shadow.base = header.base
        while isinstance(frame_found := decode_frame(data, offset, marker), Frame):
            self._replay(frame_found)
            offset += frame_found.size
        self._read_to[content] = (marker, offset)

    def _replay(self, frame: Frame) -> None:
        """What ``raft.wal.recovery`` does with a frame, said once more on purpose: the shadow judges
        what that code recovers, so it must not share its mistakes."""
        shadow = self.shadow
        for record in decode_records(frame.payload):
            if isinstance(record, HardState):
                shadow.hard_state = record
            elif isinstance(record, Installed):
                shadow.base = record.position
                shadow.entries.clear()
            elif not isinstance(record, Installing):
                place = record.index - shadow.base.index - 1
                if place < 0:
                    shadow.base = Position(record.index, record.term)
                    shadow.entries.clear()
                else:
                    del shadow.entries[place:]
                    shadow.entries.append(record)

    def term_at(self, index: int) -> int | None:
        """The term of the durable entry at ``index``, None if it is not there (or was cut behind)."""
        place = index - self.shadow.base.index
        if place == 0:
            return self.shadow.base.term
        if not 0 < place <= len(self.shadow.entries):
            return None
        return self.shadow.entries[place - 1].term


class SimExecutor:
    """One thread that does the blocking work of a node, one job at a time, each taking its time."""

    def __init__(self, node: Node, latency: Callable[[], float]) -> None:
        self._node = node
        self._latency = latency
        self._busy_until = 0.0

    @property
    def busy_until(self) -> float:
        """When the work that was handed in so far is done."""
        return self._busy_until

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """The work is done somewhere within its time, and told of at the end: a crash may come
        before, in the middle or in between."""
        node, done = self._node, Future[Any]()
        queue = node.queue
        first, second = self._latency(), self._latency()
        start = max(queue.now, self._busy_until) + first
        self._busy_until = start + second
        queue.later(start - queue.now, node, self._do, work, done, second)
        return done

    def _do(self, work: Callable[[], Any], done: Future[Any], rest: float) -> None:
        node = self._node
        try:
            result = work()
        except Crash as crash:
            node.crash(f"in the middle of: {crash}")
            return
        except Exception as error:
            node.queue.later(rest, node, done.set_exception, error)
        else:
            node.queue.later(rest, node, done.set_result, result)

    def shutdown(self) -> None:
        """As of a real executor."""
