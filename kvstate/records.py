"""The values in the tables, as bytes.

A revision is written ``main, sub``: the store's revision and the place within it. In keys it
is 12 bytes, big-endian, so that it sorts.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from kvstate.types import KeyValue

_REVISION = struct.Struct(">QI")
_HISTORY = struct.Struct(">QQI")
_KEY_RECORD = struct.Struct(">QQIQQq")
_REVISION_HEAD = struct.Struct(
    ">QQqQIHB"
)  # create, version, lease, wall clock, lengths of key and user, kind
REVISION_BYTES = _REVISION.size
_PUT, _TOMBSTONE = 0, 1


class Revision(NamedTuple):
    main: int
    sub: int


class KeyRecord(NamedTuple):
    """A key's newest revision. A deleted key stays, with version 0, until it is compacted away."""

    key_id: int  # names the key in HISTORY; another one after the key was compacted away
    main: int
    sub: int
    create_revision: int
    version: int
    lease: int

    @property
    def is_live(self) -> bool:
        return self.version > 0


class RevisionRecord(NamedTuple):
    """What happened at a revision, to which key, asked by whom and when (never used to decide)."""

    kv: KeyValue
    is_tombstone: bool
    user: str
    wall_clock_ms: int


def pack_revision(main: int, sub: int) -> bytes:
    return _REVISION.pack(main, sub)


def unpack_revision(data: bytes) -> Revision:
    return Revision(*_REVISION.unpack(data))


def pack_history(key_id: int, main: int, sub: int) -> bytes:
    return _HISTORY.pack(key_id, main, sub)


def unpack_history(data: bytes) -> Revision:
    _, main, sub = _HISTORY.unpack(data)
    return Revision(main, sub)


def pack_key_record(key_id: int, main: int, sub: int, create: int, version: int, lease: int) -> bytes:
    return _KEY_RECORD.pack(key_id, main, sub, create, version, lease)


def unpack_key_fields(data: bytes) -> tuple[int, int, int, int, int, int]:
    """A KeyRecord's fields, in its order."""
    fields: tuple[int, int, int, int, int, int] = _KEY_RECORD.unpack(data)
    return fields


def unpack_key_record(data: bytes) -> KeyRecord:
    return KeyRecord(*_KEY_RECORD.unpack(data))


def pack_put(kv: KeyValue, user: bytes, wall_clock_ms: int) -> bytes:
    key, create, _, version, value, lease = kv
    head = _REVISION_HEAD.pack(create, version, lease, wall_clock_ms, len(key), len(user), _PUT)
    return b"".join((head, key, user, value))


def pack_tombstone(key: bytes, user: bytes, wall_clock_ms: int) -> bytes:
    head = _REVISION_HEAD.pack(0, 0, 0, wall_clock_ms, len(key), len(user), _TOMBSTONE)
    return b"".join((head, key, user))


def unpack_record(main: int, data: bytes) -> RevisionRecord:
    create, version, lease, wall_clock_ms, key_bytes, user_bytes, kind = _REVISION_HEAD.unpack_from(data)
    key_end = _REVISION_HEAD.size + key_bytes
    user_end = key_end + user_bytes
    kv = KeyValue(data[_REVISION_HEAD.size : key_end], create, main, version, data[user_end:], lease)
    return RevisionRecord(kv, kind == _TOMBSTONE, data[key_end:user_end].decode(), wall_clock_ms)


def unpack_kv(main: int, data: bytes) -> KeyValue:
    """Only the key-value of a put's record."""
    create, version, lease, _, key_bytes, user_bytes, _ = _REVISION_HEAD.unpack_from(data)
    key_end = _REVISION_HEAD.size + key_bytes
    return KeyValue(
        data[_REVISION_HEAD.size : key_end], create, main, version, data[key_end + user_bytes :], lease
    )


def is_tombstone(data: bytes) -> bool:
    return data[_REVISION_HEAD.size - 1] == _TOMBSTONE
