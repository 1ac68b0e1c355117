"""Frames and records, as bytes. Pure: no file is touched here. FORMAT.md explains the format.

A *frame* is what one write puts on disk, and the unit of damage: it is valid as a whole or
not at all. Inside are *records*: entries, hard states, and marks of a snapshot's installation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import google_crc32c

from raft.core.types import Entry, EntryType, HardState, Position

MARKER_BYTES = 8
# marker, offset in the file, payload length, checksum of the frame before; then the checksum of these.
# The offset tells a frame from a copy of one inside a stored value.
_HEAD = struct.Struct(">8sQII")
_CHECKSUM = struct.Struct(">I")
HEAD_BYTES = _HEAD.size + _CHECKSUM.size
FRAME_OVERHEAD_BYTES = HEAD_BYTES + _CHECKSUM.size

_RECORD = struct.Struct(">BI")  # kind, payload length
_HARD_STATE = struct.Struct(">QQQ")
_ENTRY = struct.Struct(">QQB")  # index, term, type; the data follows
_ENTRY_RECORD = struct.Struct(">BIQQB")
_POSITION = struct.Struct(">QQ")
KIND_HARD_STATE = 1
KIND_ENTRY = 2
KIND_INSTALLING = 3
KIND_INSTALLED = 4


class Malformed(Exception):
    """Bytes whose checksum is right do not mean anything: written by something else than this code."""


@dataclass(frozen=True, slots=True)
class Installing:
    """From here on the state may turn into that of the snapshot at ``position``."""

    position: Position


@dataclass(frozen=True, slots=True)
class Installed:
    """The state is that of the snapshot at ``position``: the log begins anew behind it."""

    position: Position


Record = HardState | Entry | Installing | Installed


@dataclass(frozen=True, slots=True)
class Frame:
    payload: bytes
    chain: int  # the checksum of the frame before, as this frame states it
    checksum: int  # what the next frame must state
    size: int  # in the file


def encode_frame(marker: bytes, offset: int, chain: int, payload: bytes) -> tuple[bytes, int]:
    """The frame for ``offset``, and the checksum that the next one must be chained to."""
    head = _HEAD.pack(marker, offset, len(payload), chain)
    head += _CHECKSUM.pack(google_crc32c.value(head))
    checksum: int = google_crc32c.extend(google_crc32c.extend(chain, head), payload)
    return b"".join((head, payload, _CHECKSUM.pack(checksum))), checksum


def decode_frame(data: bytes, offset: int, marker: bytes) -> Frame | str:
    """The frame at ``offset``, or what is wrong with the bytes there."""
    if len(data) - offset < FRAME_OVERHEAD_BYTES:
        return "the frame is incomplete"
    found, stated, length, chain = _HEAD.unpack_from(data, offset)
    if found != marker or stated != offset:
        return "there is no frame"
    head = data[offset : offset + HEAD_BYTES]
    if google_crc32c.value(head[: _HEAD.size]) != _CHECKSUM.unpack_from(head, _HEAD.size)[0]:
        return "the frame's head has a wrong checksum"
    end = offset + HEAD_BYTES + length
    if len(data) < end + _CHECKSUM.size:
        return "the frame is incomplete"
    payload = data[offset + HEAD_BYTES : end]
    checksum: int = google_crc32c.extend(google_crc32c.extend(chain, head), payload)
    if checksum != _CHECKSUM.unpack_from(data, end)[0]:
        return "the frame has a wrong checksum"
    return Frame(payload, chain, checksum, length + FRAME_OVERHEAD_BYTES)


def find_frame(data: bytes, offset: int, marker: bytes) -> int | None:
    """Where, at ``offset`` or later, a valid frame begins, whatever lies before it."""
    while (offset := data.find(marker, offset)) >= 0:
        if isinstance(decode_frame(data, offset, marker), Frame):
            return offset
        offset += 1
    return None


def encode_hard_state(hard_state: HardState) -> bytes:
    return _RECORD.pack(KIND_HARD_STATE, _HARD_STATE.size) + _HARD_STATE.pack(*hard_state)


def encode_entries(entries: Iterable[Entry]) -> list[bytes]:
    """The records of these entries, as pieces to be joined."""
    pieces: list[bytes] = []
    pack, fixed = _ENTRY_RECORD.pack, _ENTRY.size
    for index, term, entry_type, data in entries:
        pieces.append(pack(KIND_ENTRY, fixed + len(data), index, term, entry_type))
        pieces.append(data)
    return pieces


def encode_snapshot(mark: Installing | Installed) -> bytes:
    kind = KIND_INSTALLING if isinstance(mark, Installing) else KIND_INSTALLED
    return _RECORD.pack(kind, _POSITION.size) + _POSITION.pack(*mark.position)


def decode_records(payload: bytes) -> Iterator[Record]:
    """What a frame holds, in order. Raises Malformed."""
    offset = 0
    while offset < len(payload):
        try:
            kind, length = _RECORD.unpack_from(payload, offset)
            offset += _RECORD.size
            if length > len(payload) - offset:
                raise Malformed("a record is longer than its frame")
            body = payload[offset : offset + length]
            offset += length
            if kind == KIND_HARD_STATE:
                yield HardState(*_HARD_STATE.unpack(body))
            elif kind == KIND_ENTRY:
                index, term, entry_type = _ENTRY.unpack_from(body)
                yield Entry(index, term, EntryType(entry_type), body[_ENTRY.size :])
            elif kind == KIND_INSTALLING:
                yield Installing(Position(*_POSITION.unpack(body)))
            elif kind == KIND_INSTALLED:
                yield Installed(Position(*_POSITION.unpack(body)))
            else:
                raise Malformed(f"a record is of kind {kind}, which this version does not know")
        except (struct.error, ValueError) as error:
            raise Malformed(f"a record cannot be read: {error}") from None
