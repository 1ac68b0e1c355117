"""The values in the tables, as bytes.

A revision is written ``main, sub``: the store's revision and the place within it. In keys it
is 12 bytes, big-endian, so that it sorts.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kvstate.types import KeyValue

_REVISION = struct.Struct(">QI")
_HISTORY = struct.Struct(">QQI")
_KEY_RECORD = struct.Struct(">QQIQQq")
_REVISION_HEAD = struct.Struct(
    ">QQqQIHB"
)  # create, version, lease, wall clock, lengths of key and user, kind
# Of a revision's head, what a key-value needs.
_KV_HEAD = struct.Struct(">QQq8xIHx")
unpack_kv_head = _KV_HEAD.unpack_from
"""Create revision, version, lease, and the lengths of key and user of a packed revision. Behind its first
KV_HEAD_BYTES come key, user and value. For those who make something else of very many than KeyValues."""
KV_HEAD_BYTES = _KV_HEAD.size
REVISION_BYTES = _REVISION.size
_PUT, _TOMBSTONE = 0, 1
_LAST_SUB = 0xFFFF_FFFF


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


def last_place(main: int) -> bytes:
    """Where a revision's sub-revisions end: what stands at or before it was there at that revision."""
    return _REVISION.pack(main, _LAST_SUB)


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


NEWEST = slice(8, 20)
"""Where in a packed KeyRecord its newest revision stands, as a key of REVISIONS. It sorts there too."""
DEAD = bytes(24)
"""How a packed KeyRecord ends if its newest revision is a tombstone, and no other does."""


def key_record_then(record: bytes, place: bytes, data: bytes) -> bytes:
    """The packed KeyRecord of a key when its newest revision was the one at ``place``, which is ``data``:
    both say create revision, version and lease in the same form, and zeros for a tombstone."""
    return record[: NEWEST.start] + place + data[: len(DEAD)]


def key_record_before(record: bytes) -> bytes:
    """The packed KeyRecord of a key that is not there yet."""
    return record[: NEWEST.stop] + DEAD


def history_of(record: bytes, last_place: bytes) -> tuple[bytes, bytes]:
    """Bounds in HISTORY of a key's replaced revisions up to ``last_place``, from its packed KeyRecord."""
    key_id = record[: NEWEST.start]
    return key_id, key_id + last_place + b"\0"


def place_in_history(entry: bytes) -> bytes:
    """The key in REVISIONS that a key of HISTORY speaks of."""
    return entry[NEWEST]


def unpack_key_kv(key: bytes, data: bytes) -> KeyValue:
    """A key's KeyRecord as a key-value without the value."""
    _, main, _, create, version, lease = _KEY_RECORD.unpack(data)
    return KeyValue(key, create, main, version, b"", lease)


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
    create, version, lease, key_bytes, user_bytes = _KV_HEAD.unpack_from(data)
    key_end = _REVISION_HEAD.size + key_bytes
    # tuple's constructor spares a third of the time, and a range makes thousands of these.
    return tuple.__new__(
        KeyValue,
        (data[_REVISION_HEAD.size : key_end], create, main, version, data[key_end + user_bytes :], lease),
    )


def unpack_kvs(places: Sequence[bytes], records: Mapping[bytes, bytes]) -> list[KeyValue]:
    """``unpack_kv`` of the records at ``places``, which are keys of REVISIONS."""
    kvs: list[KeyValue] = []
    take, unpack, new = kvs.append, _KV_HEAD.unpack_from, tuple.__new__
    head_bytes = _REVISION_HEAD.size
    for place in places:
        data = records[place]
        create, version, lease, key_bytes, user_bytes = unpack(data)
        key_end = head_bytes + key_bytes
        main = int.from_bytes(place[:8], "big")
        key, value = data[head_bytes:key_end], data[key_end + user_bytes :]
        take(new(KeyValue, (key, create, main, version, value, lease)))
    return kvs


def is_tombstone(data: bytes) -> bool:
    return data[_REVISION_HEAD.size - 1] == _TOMBSTONE
