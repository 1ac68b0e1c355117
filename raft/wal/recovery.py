"""Reading the log back: what is there, what was torn, what is damaged.

All that one write put on disk is one frame, and the next write begins only when the one
before it is durable. So what a power cut can spoil is the last frame of the last segment,
and that one was never promised to anybody: it is cut. A broken frame *behind which a valid
one is found* was durable once: data was damaged, and the log refuses to be read.

(The last frame of all cannot be told apart: if damage hits it after it was durable, it
looks like a torn write and is cut. etcd's log has the same limit.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from raft.core.types import ORIGIN, Entry, HardState, Position
from raft.filesystem import Filesystem
from raft.wal.record import Frame, Installed, Installing, Malformed, decode_frame, decode_records, find_frame
from raft.wal.segment import Header, decode_header, segment_name, sequence_of


class WalCorrupt(Exception):
    """Durable data is damaged or missing. Names the file and the offset; the node must not start."""

    def __init__(self, path: Path, offset: int, problem: str) -> None:
        super().__init__(
            f"The write-ahead log is damaged: {path} at offset {offset}: {problem}."
            " Starting would lose acknowledged writes: restore the data directory from a backup,"
            " or replace this member by a new one with an empty directory."
        )
        self.path = path
        self.offset = offset


@dataclass(frozen=True, slots=True)
class TornTail:
    """An unfinished write at the end of the log that was cut off; nothing in it had been promised."""

    path: Path
    offset: int
    dropped_bytes: int
    problem: str

    def __str__(self) -> str:
        return (
            f"the last write to {self.path} was not finished ({self.problem} at offset {self.offset});"
            f" it was cut off, {self.dropped_bytes} bytes that had not been acknowledged"
        )


NO_HARD_STATE = HardState()


@dataclass(slots=True)
class SegmentInfo:
    path: Path
    header: Header
    max_index: int  # no entry in it has a higher index; 0 if it has none


@dataclass(slots=True)
class Log:
    """What all segments together say."""

    hard_state: HardState = NO_HARD_STATE
    base: Position = ORIGIN
    entries: list[Entry] = field(default_factory=list)
    installing: Position | None = None  # a snapshot whose installation was begun and not finished
    segments: list[SegmentInfo] = field(default_factory=list)
    chain: int = 0
    end: int = 0  # where the last segment's valid part ends
    tail: bytes = b""  # the last segment up to there
    cut: TornTail | None = None

    @property
    def is_blank(self) -> bool:
        """Whether nothing was ever promised by it. So it is nobody's, whatever its header says."""
        return (
            (self.last, self.hard_state) == (ORIGIN, NO_HARD_STATE)
            and self.cut is None
            and self.installing is None
        )

    @property
    def last(self) -> Position:
        if not self.entries:
            return self.base
        return Position(self.entries[-1].index, self.entries[-1].term)


def recover(filesystem: Filesystem, directory: Path) -> Log:
    """Read every segment in ``directory``. Changes nothing. Raises WalCorrupt."""
    sequences = [
        sequence
        for name in filesystem.list_directory(directory)
        if (sequence := sequence_of(name)) is not None
    ]
    log = Log()
    for position, sequence in enumerate(sorted(sequences)):
        path = directory / segment_name(sequence)
        _read_segment(log, path, filesystem.read(path), last=position == len(sequences) - 1)
    return log


def read_identity(filesystem: Filesystem, directory: Path) -> bytes | None:
    """Whose log is in ``directory``; None where there is none, or nothing was ever written to it.
    Raises WalCorrupt."""
    sequences = [sequence_of(name) for name in filesystem.list_directory(directory)]
    newest = max((sequence for sequence in sequences if sequence is not None), default=None)
    if newest is None:
        return None
    path = directory / segment_name(newest)
    data = filesystem.read(path)
    decoded = decode_header(data)
    if isinstance(decoded, str):
        raise WalCorrupt(path, 0, decoded)
    header, frame = decoded
    if (header.base, header.hard_state) == (ORIGIN, NO_HARD_STATE) and not data[frame.size :].strip(b"\0"):
        return None
    return header.identity


def _read_segment(log: Log, path: Path, data: bytes, *, last: bool) -> None:
    decoded = decode_header(data)
    if isinstance(decoded, str):
        raise WalCorrupt(path, 0, decoded)
    header, frame = decoded
    if log.segments:
        _check_follows(log, path, header, frame)
    else:
        log.base, log.hard_state = header.base, header.hard_state
    info = SegmentInfo(path, header, 0)
    log.segments.append(info)
    offset, log.chain = frame.size, frame.checksum
    while isinstance(found := decode_frame(data, offset, header.marker), Frame):
        if found.chain != log.chain:
            raise WalCorrupt(path, offset, "the frame does not follow the one before it")
        _replay(log, info, found, offset)
        log.chain = found.checksum
        offset += found.size
    log.end, log.tail = offset, data[:offset]
    rest = data[offset:]
    later = find_frame(data, offset, header.marker)
    if later is not None:
        raise WalCorrupt(path, offset, f"{found}, but a valid one follows at offset {later}")
    if rest.strip(b"\0"):
        if not last:
            raise WalCorrupt(path, offset, f"{found}, but newer segments follow")
        log.cut = TornTail(path, offset, len(rest.rstrip(b"\0")), found)


def _check_follows(log: Log, path: Path, header: Header, frame: Frame) -> None:
    before = log.segments[-1]
    if header.sequence != before.header.sequence + 1:
        missing = path.with_name(segment_name(before.header.sequence + 1))
        raise WalCorrupt(missing, 0, "the segment is missing, but newer ones are there")
    if header.identity != before.header.identity:
        raise WalCorrupt(path, 0, "the segment belongs to another member")
    if frame.chain != log.chain:
        raise WalCorrupt(before.path, log.end, "frames are missing at the end of the segment")


def _replay(log: Log, info: SegmentInfo, frame: Frame, offset: int) -> None:
    try:
        for record in decode_records(frame.payload):
            if isinstance(record, HardState):
                log.hard_state = record
            elif isinstance(record, Installing):
                log.installing = record.position
            elif isinstance(record, Installed):
                log.base, log.installing = record.position, None
                log.entries.clear()
            else:
                _replay_entry(log, record)
                info.max_index = max(info.max_index, record.index)
    except Malformed as error:
        raise WalCorrupt(info.path, offset, str(error)) from None


def _replay_entry(log: Log, entry: Entry) -> None:
    """A later entry replaces an earlier one at its index and all behind it (§5.3)."""
    position = entry.index - log.base.index - 1
    if position > len(log.entries):
        raise Malformed(f"entry {entry.index} follows entry {log.last.index}")
    if position < 0:
        # It replaces an entry of a segment that was removed since: those were all committed
        # in the end, so this index is as well, and the log may as well begin behind it.
        log.base = Position(entry.index, entry.term)
        log.entries.clear()
        return
    del log.entries[position:]
    log.entries.append(entry)
