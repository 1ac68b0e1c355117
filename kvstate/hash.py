"""Checksums of the state, to compare replicas.

Both look only at what a reader could reach, so they do not depend on how far a compaction
has been carried out physically.
"""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c

from kvstate.backend import Backend, Table
from kvstate.ranges import record_at
from kvstate.records import (
    DEAD,
    RevisionRecord,
    last_place,
    pack_history,
    pack_revision,
    unpack_history,
    unpack_key_record,
    unpack_record,
    unpack_revision,
)
from kvstate.types import KeyValue


def hash_state(backend: Backend, revision: int, compact_revision: int) -> int:
    """CRC32C over every reachable revision with who made it and when, over every lease with what is
    attached to it, and the two revisions."""
    checksum: int = google_crc32c.value(b"%d %d" % (revision, compact_revision))
    for place, data in backend.scan(Table.REVISIONS):
        main, sub = unpack_revision(place)
        if main <= compact_revision and not _survives(backend, main, sub, data, compact_revision):
            continue
        checksum = google_crc32c.extend(google_crc32c.extend(checksum, place), data)
    for lease, ttls in backend.scan(Table.LEASES):
        checksum = google_crc32c.extend(google_crc32c.extend(checksum, lease), ttls)
    for attached, _ in backend.scan(Table.LEASE_KEYS):
        checksum = google_crc32c.extend(google_crc32c.extend(checksum, _varint(len(attached))), attached)
    return checksum


def hash_kv(backend: Backend, revision: int, compact_revision: int) -> int:
    """etcd's HashKV, to the bit: CRC32C over the name of its bucket and every revision up to
    ``revision`` as etcd stores it. Of what is at or below the compact revision, only what is a
    key's value at ``revision`` counts; if no key has a value then, everything that is kept."""
    checksum: int = google_crc32c.value(b"key")
    newest = last_place(revision)
    nothing_lives = all(record_at(backend, now, newest).endswith(DEAD) for _, now in backend.scan(Table.KEYS))
    for place, data in backend.scan(Table.REVISIONS, high=pack_revision(revision + 1, 0)):
        main, sub = unpack_revision(place)
        if main <= compact_revision:
            horizon = compact_revision if nothing_lives else revision
            if not _survives(backend, main, sub, data, horizon):
                continue
        record = unpack_record(main, data)
        checksum = google_crc32c.extend(checksum, b"".join(_as_etcd(main, sub, record)))
    return checksum


def _survives(backend: Backend, main: int, sub: int, data: bytes, horizon: int) -> bool:
    """Whether this revision is its key's value at revision ``horizon``."""
    record = unpack_record(main, data)
    if record.is_tombstone:
        return False
    found = backend.get(Table.KEYS, record.kv.key)
    if found is None:
        return False
    newest = unpack_key_record(found)
    if (newest.main, newest.sub) == (main, sub):
        return True
    low = pack_history(newest.key_id, main, sub) + b"\0"
    high = pack_history(newest.key_id + 1, 0, 0)
    for history, _ in backend.scan(Table.HISTORY, low, high):
        return unpack_history(history).main > horizon
    return newest.main > horizon


def _as_etcd(main: int, sub: int, record: RevisionRecord) -> Iterator[bytes]:
    """A revision's key and value in etcd's database."""
    yield main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big")
    if record.is_tombstone:
        yield b"t"
    yield _as_protobuf(KeyValue(record.kv.key, 0, 0, 0, b"", 0) if record.is_tombstone else record.kv)


def _as_protobuf(kv: KeyValue) -> bytes:
    """mvccpb.KeyValue in protobuf's wire format; defaults are left out."""
    pieces = []
    fields: tuple[int | bytes, ...] = kv
    for number, value in enumerate(fields, start=1):
        if not value:
            continue
        if isinstance(value, bytes):
            pieces += [_varint(number << 3 | 2), _varint(len(value)), value]
        else:
            pieces += [_varint(number << 3), _varint(value & 0xFFFF_FFFF_FFFF_FFFF)]
    return b"".join(pieces)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
