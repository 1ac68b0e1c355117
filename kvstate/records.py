"""The values in the tables, as bytes.

A revision is written ``main, sub``: the store's revision and the place within it. In keys it
is 12 bytes, big-endian, so that it sorts.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from kvstate.types import Event, EventType, KeyValue

_REVISION = struct.Struct(">QI")
_HISTORY = struct.Struct(">QQI")
_KEY_RECORD = struct.Struct(">QQIQQq")
_LINEAGE = struct.Struct(">Q12xQQq")  # of a key record: key id, create revision, version, lease
_REVISION_HEAD = struct.Struct(
    ">QQqQIHB"
)  # create, version, lease, wall clock, lengths of key and user, kind
# Of a revision's head, what a key-value needs.
_KV_HEAD = struct.Struct(">QQq8xIHx")
unpack_kv_head: Final = _KV_HEAD.unpack_from
"""Create revision, version, lease, and the lengths of key and user of a packed revision. Behind its first
KV_HEAD_BYTES come key, user and value. For those who make something else of very many than KeyValues."""
KV_HEAD_BYTES: Final = 39
_KEY_RECORD_BYTES: Final = 44
assert (_KEY_RECORD.size, _REVISION_HEAD.size) == (_KEY_RECORD_BYTES, KV_HEAD_BYTES)
# A key record ends with what its newest revision begins with: both are packed in one go.
_BOTH = struct.Struct(">QQIQQqQIHB")
_pack_both: Final = _BOTH.pack
_unpack_lineage: Final = _LINEAGE.unpack
_PUT: Final = 0
_TOMBSTONE: Final = 1
_EVENT_TYPES = (EventType.PUT, EventType.DELETE)  # by kind
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


def pack_change(
    key_id: int,
    main: int,
    sub: int,
    create: int,
    version: int,
    lease: int,
    user: bytes,
    wall_clock_ms: int,
    key: bytes,
    value: bytes,
) -> tuple[bytes, bytes, bytes]:
    """The newest revision of a key: its KeyRecord, its place in REVISIONS, and what stands there. It is a
    tombstone if ``version`` is 0."""
    kind = _PUT if version else _TOMBSTONE
    heads: bytes = _pack_both(
        key_id, main, sub, create, version, lease, wall_clock_ms, len(key), len(user), kind
    )
    data = b"".join((heads[NEWEST_END:], key, user, value))
    return heads[:_KEY_RECORD_BYTES], heads[NEWEST_BEGIN:NEWEST_END], data


def unpack_lineage(record: bytes) -> tuple[int, int, int, int]:
    """Key id, create revision, version and lease of a packed KeyRecord."""
    lineage: tuple[int, int, int, int] = _unpack_lineage(record)
    return lineage


def unpack_key_record(data: bytes) -> KeyRecord:
    return tuple.__new__(KeyRecord, _KEY_RECORD.unpack(data))  # as in unpack_kv


NEWEST_BEGIN: Final = 8
NEWEST_END: Final = 20
"""Where in a packed KeyRecord its newest revision stands, as a key of REVISIONS. It sorts there too."""
DEAD: Final = bytes(24)
"""How a packed KeyRecord ends if its newest revision is a tombstone, and no other does."""


def key_record_then(record: bytes, place: bytes, data: bytes) -> bytes:
    """The packed KeyRecord of a key when its newest revision was the one at ``place``, which is ``data``:
    both say create revision, version and lease in the same form, and zeros for a tombstone."""
    return record[:NEWEST_BEGIN] + place + data[: len(DEAD)]


def key_record_before(record: bytes) -> bytes:
    """The packed KeyRecord of a key that is not there yet."""
    return record[:NEWEST_END] + DEAD


def history_of(record: bytes, last_place: bytes) -> tuple[bytes, bytes]:
    """Bounds in HISTORY of a key's replaced revisions up to ``last_place``, from its packed KeyRecord."""
    key_id = record[:NEWEST_BEGIN]
    return key_id, key_id + last_place + b"\0"


def history_entry(record: bytes) -> bytes:
    """The key in HISTORY of what is a key's newest revision by its packed KeyRecord, once it is replaced."""
    return record[:NEWEST_END]


def place_in_history(entry: bytes) -> bytes:
    """The key in REVISIONS that a key of HISTORY speaks of."""
    return entry[NEWEST_BEGIN:NEWEST_END]


def unpack_key_kv(key: bytes, data: bytes) -> KeyValue:
    """A key's KeyRecord as a key-value without the value."""
    _, main, _, create, version, lease = _KEY_RECORD.unpack(data)
    return KeyValue(key, create, main, version, b"", lease)


def unpack_record(main: int, data: bytes) -> RevisionRecord:
    create, version, lease, wall_clock_ms, key_bytes, user_bytes, kind = _REVISION_HEAD.unpack_from(data)
    key_end = KV_HEAD_BYTES + key_bytes
    user_end = key_end + user_bytes
    kv = KeyValue(data[KV_HEAD_BYTES:key_end], create, main, version, data[user_end:], lease)
    return RevisionRecord(kv, kind == _TOMBSTONE, data[key_end:user_end].decode(), wall_clock_ms)


def unpack_kv(main: int, data: bytes) -> KeyValue:
    """Only the key-value of a revision's record."""
    head: tuple[int, int, int, int, int] = unpack_kv_head(data)
    create, version, lease, key_bytes, user_bytes = head
    key_end = KV_HEAD_BYTES + key_bytes
    # tuple's constructor spares a third of the time, and a range makes thousands of these.
    return tuple.__new__(
        KeyValue,
        (data[KV_HEAD_BYTES:key_end], create, main, version, data[key_end + user_bytes :], lease),
    )


def unpack_kv_at(place: bytes, data: bytes) -> KeyValue:
    """``unpack_kv`` of what stands at ``place`` in REVISIONS."""
    return unpack_kv(int.from_bytes(place[:8], "big"), data)


def unpack_event(main: int, data: bytes) -> Event:
    """What a revision's record says to those who watch."""
    return tuple.__new__(Event, (_EVENT_TYPES[data[KV_HEAD_BYTES - 1]], unpack_kv(main, data)))


def unpack_kvs(places: Sequence[bytes], records: Mapping[bytes, bytes]) -> list[KeyValue]:
    """``unpack_kv`` of the records at ``places``, which are keys of REVISIONS."""
    kvs: list[KeyValue] = []
    take, unpack, new = kvs.append, _KV_HEAD.unpack_from, tuple.__new__
    for place in places:
        data = records[place]
        create, version, lease, key_bytes, user_bytes = unpack(data)
        key_end = KV_HEAD_BYTES + key_bytes
        main = int.from_bytes(place[:8], "big")
        key, value = data[KV_HEAD_BYTES:key_end], data[key_end + user_bytes :]
        take(new(KeyValue, (key, create, main, version, value, lease)))
    return kvs


def is_tombstone(data: bytes) -> bool:
    return data[KV_HEAD_BYTES - 1] == _TOMBSTONE
