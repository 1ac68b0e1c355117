"""The write-ahead log: open → replay, then encode and write, batch by batch.

    wal, recovered = Wal.open(RealFilesystem(), directory, identity=b"...")
    batch = wal.encode([(hard_state, entries)])      # on the event loop: pure
    wal.write(batch)                                 # on a thread: one write, one fdatasync

When ``write`` returns, the batch is durable. One write at a time. After an error of the
disk nothing is tried again: what an fdatasync that failed has kept is unknown, and the
next one would not tell (PostgreSQL's "fsyncgate"). The log then refuses every call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raft.core.types import Entry, HardState, Position
from raft.filesystem import File, Filesystem
from raft.wal.record import (
    Installed,
    Installing,
    encode_entries,
    encode_frame,
    encode_hard_state,
    encode_snapshot,
)
from raft.wal.recovery import Log, SegmentInfo, TornTail, WalCorrupt, recover
from raft.wal.segment import TEMPORARY_NAME, Header, create_segment, new_marker

__all__ = ["Batch", "Recovered", "Wal", "WalCorrupt", "WalFailed", "WrongIdentity"]

SEGMENT_BYTES = 16 << 20
ZEROED_AHEAD_BYTES = 1 << 20
"""Space is written with zeros before it is used: fdatasync is a quarter faster when the
file does not grow (FORMAT.md has the figures)."""


class WalFailed(Exception):
    """The disk failed; what it keeps is unknown, and nothing more may be promised."""


class WrongIdentity(Exception):
    """The directory holds the log of another member."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a log holds when it is opened."""

    hard_state: HardState
    base: Position  # the position before the first entry
    entries: list[Entry]
    cut: TornTail | None  # an unfinished write that was cut off
    installing: Position | None = None  # a snapshot whose installation was begun and not finished


@dataclass(frozen=True, slots=True)
class Batch:
    """What one write makes durable."""

    payload: bytes
    hard_state: HardState
    last: Position
    max_index: int  # of its entries; 0 if there are none


class Wal:
    """See the module's docstring. ``identity`` is opaque and must be the same at every opening."""

    def __init__(self, filesystem: Filesystem, directory: Path, segment_bytes: int, log: Log) -> None:
        self._filesystem = filesystem
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segments = log.segments
        self._chain = log.chain
        self._end = log.end
        self._zeroed_to = log.end
        # What was encoded last, and what is durable.
        self._encoded_hard_state = self._hard_state = log.hard_state
        self._encoded_last = self._last = log.last
        self._file: File | None = None
        self._failure: OSError | None = None

    @classmethod
    def open(
        cls, filesystem: Filesystem, directory: Path, *, identity: bytes, segment_bytes: int = SEGMENT_BYTES
    ) -> tuple[Wal, Recovered]:
        """Open the log in ``directory``, made new if there is none, or nothing in it.

        Raises WalCorrupt, WrongIdentity or OSError; changes nothing then.
        """
        filesystem.make_directory(directory)
        log = recover(filesystem, directory)
        if log.is_blank and log.segments and log.segments[-1].header.identity != identity:
            # What is left of a start that was refused, or a crash before the first write.
            for segment in log.segments:
                filesystem.remove(segment.path)
            filesystem.sync_directory(directory)
            log = Log()
        if log.segments and log.segments[-1].header.identity != identity:
            raise WrongIdentity(
                f"{directory} holds the log of another member (its identity is"
                f" {log.segments[-1].header.identity.hex()}, ours {identity.hex()}): give this server"
                " its own --data-dir, or the peer URLs and token it was first started with."
            )
        wal = cls(filesystem, directory, segment_bytes, log)
        wal._prepare(identity, log.tail)
        return wal, Recovered(log.hard_state, log.base, log.entries, log.cut, log.installing)

    @property
    def last_index(self) -> int:
        """Index of the last durable entry."""
        return self._last.index

    @property
    def size_bytes(self) -> int:
        """Roughly what the log occupies."""
        return (len(self._segments) - 1) * self._segment_bytes + self._end

    def encode(
        self,
        parts: Iterable[tuple[HardState | None, Sequence[Entry]]],
        mark: Installing | Installed | None = None,
    ) -> Batch:
        """One batch of what ``mark`` and ``parts`` say, in order. Batches must be written in the order
        they were encoded in. ValueError where entries do not continue the log."""
        pieces: list[bytes] = []
        hard_state, last, max_index = self._encoded_hard_state, self._encoded_last, 0
        if mark is not None:
            pieces.append(encode_snapshot(mark))
            if isinstance(mark, Installed):
                last = mark.position
        for changed, entries in parts:
            if entries:
                if entries[0].index > last.index + 1:
                    raise ValueError(f"entry {entries[0].index} does not continue a log that ends at {last}")
                last = Position(entries[-1].index, entries[-1].term)
                max_index = max(max_index, last.index)
                pieces += encode_entries(entries)
            if changed is not None:
                hard_state = changed
        if hard_state != self._encoded_hard_state:
            pieces.append(encode_hard_state(hard_state))
        self._encoded_hard_state, self._encoded_last = hard_state, last
        return Batch(b"".join(pieces), hard_state, last, max_index)

    def write(self, batch: Batch) -> None:
        """Make a batch durable. Raises WalFailed, and then always."""
        self._check()
        try:
            if self._end >= self._segment_bytes:
                self._rotate()
            assert self._file is not None
            current = self._segments[-1]
            frame, chain = encode_frame(current.header.marker, self._end, self._chain, batch.payload)
            self._zero_ahead(self._end + len(frame))
            self._file.write_at(self._end, frame)
            self._file.sync()
        except OSError as error:
            self._fail(error)
        self._chain = chain
        self._end += len(frame)
        current.max_index = max(current.max_index, batch.max_index)
        self._hard_state, self._last = batch.hard_state, batch.last

    def save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Encode and write in one."""
        self.write(self.encode([(hard_state, entries)]))

    def compact(self, index: int) -> None:
        """Remove the segments in which every entry is at or below ``index``; the last one stays.
        Not at the same time as ``write``. Raises WalFailed."""
        self._check()
        try:
            # Oldest first, each durably gone before the next: a crash leaves no hole.
            while len(self._segments) > 1 and self._segments[0].max_index <= index:
                self._filesystem.remove(self._segments[0].path)
                self._filesystem.sync_directory(self._directory)
                del self._segments[0]
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _prepare(self, identity: bytes, tail: bytes) -> None:
        """Make the directory ready for the next write: remove what an interrupted one left."""
        if TEMPORARY_NAME in self._filesystem.list_directory(self._directory):
            self._filesystem.remove(self._directory / TEMPORARY_NAME)
        if not self._segments:
            header = Header(new_marker(self._filesystem), 1, self._last, self._hard_state, identity)
            self._start_segment(header)
            return
        # The last segment is written anew, for two reasons. If its last fdatasync failed, its last
        # frame may be in the page cache only, marked clean: it can be read, but no sync would
        # write it. And what lies behind that frame must be gone for good, or bytes of an unfinished
        # write could one day be taken for a later frame. Not in place: a crash in the middle
        # of that could spoil what is durable.
        path = self._segments[-1].path
        self._file = self._filesystem.create(self._directory / TEMPORARY_NAME)
        self._file.write_at(0, tail)
        self._file.sync()
        self._filesystem.rename(self._directory / TEMPORARY_NAME, path)
        self._filesystem.sync_directory(self._directory)

    def _rotate(self) -> None:
        """Go on in a new segment. All of the old one is durable."""
        assert self._file is not None
        self._file.close()
        before = self._segments[-1].header
        marker = new_marker(self._filesystem)
        header = Header(marker, before.sequence + 1, self._last, self._hard_state, before.identity)
        self._start_segment(header)

    def _start_segment(self, header: Header) -> None:
        self._file, self._end, self._chain = create_segment(
            self._filesystem, self._directory, header, self._chain
        )
        self._zeroed_to = self._end
        path = self._directory / f"{header.sequence:016x}.wal"
        self._segments.append(SegmentInfo(path, header, 0))

    def _zero_ahead(self, needed: int) -> None:
        if needed <= self._zeroed_to:
            return
        assert self._file is not None
        size = max(min(ZEROED_AHEAD_BYTES, self._segment_bytes), needed - self._zeroed_to)
        self._file.write_at(self._zeroed_to, bytes(size))
        self._zeroed_to += size

    def _check(self) -> None:
        if self._failure is not None:
            raise WalFailed(f"the write-ahead log has failed before: {self._failure}") from self._failure

    def _fail(self, error: OSError) -> None:
        self._failure = error
        raise WalFailed(f"the write-ahead log in {self._directory} cannot be written: {error}") from error
