"""One file of the log: its name, its header, its life from creation to removal."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from raft.core.types import HardState, Position
from raft.filesystem import File, Filesystem
from raft.wal.record import MARKER_BYTES, Frame, decode_frame, encode_frame

FORMAT_VERSION = 1
FILE_MARKER = b"KVORUMWL"
"""How every segment begins: the marker of its header frame."""

TEMPORARY_NAME = "segment.tmp"
_NAME = re.compile(r"([0-9a-f]{16})\.wal")
# version, marker of this segment's other frames, sequence, base index and term, hard state; identity follows
_HEADER = struct.Struct(">H8sQQQQQQ")


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says about the log before it, so that older ones can be removed."""

    marker: bytes  # random: begins each frame of this segment, so that one can be found again
    sequence: int
    base: Position  # the last entry before this segment
    hard_state: HardState
    identity: bytes


def segment_name(sequence: int) -> str:
    return f"{sequence:016x}.wal"


def sequence_of(name: str) -> int | None:
    """The sequence number in a segment's file name; None for other files."""
    match = _NAME.fullmatch(name)
    return int(match[1], 16) if match else None


def encode_header(header: Header, chain: int) -> tuple[bytes, int]:
    fixed = _HEADER.pack(FORMAT_VERSION, header.marker, header.sequence, *header.base, *header.hard_state)
    return encode_frame(FILE_MARKER, 0, chain, fixed + header.identity)


def decode_header(data: bytes) -> tuple[Header, Frame] | str:
    """The header at the start of a segment's bytes, or what is wrong with it."""
    frame = decode_frame(data, 0, FILE_MARKER)
    if isinstance(frame, str):
        return frame
    if len(frame.payload) < 2:
        return "the header is too short"
    version = int.from_bytes(frame.payload[:2], "big")
    if version != FORMAT_VERSION:
        return f"the file has format version {version}, this program knows version {FORMAT_VERSION}"
    if len(frame.payload) < _HEADER.size:
        return "the header is too short"
    _, marker, sequence, index, term, *hard_state = _HEADER.unpack_from(frame.payload)
    identity = frame.payload[_HEADER.size :]
    return Header(marker, sequence, Position(index, term), HardState(*hard_state), identity), frame


def create_segment(
    filesystem: Filesystem, directory: Path, header: Header, chain: int
) -> tuple[File, int, int]:
    """A new segment, durable with its name: (file, bytes written, checksum to chain to).

    It gets its name only when its header is durable, so a segment that can be seen under its
    name always has a header.
    """
    data, checksum = encode_header(header, chain)
    temporary = directory / TEMPORARY_NAME
    file = filesystem.create(temporary)
    file.write_at(0, data)
    file.sync()
    filesystem.rename(temporary, directory / segment_name(header.sequence))
    filesystem.sync_directory(directory)
    return file, len(data), checksum


def new_marker(filesystem: Filesystem) -> bytes:
    return filesystem.random_bytes(MARKER_BYTES)
