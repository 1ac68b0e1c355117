"""Forgetting the past (API.md 4.4): what ``compact(revision)`` makes unreachable, removed in
bounded steps.

A revision becomes unreachable when it is replaced at or before the compact revision. So it
is enough to walk the revisions from the last compaction to this one: each replaced at most
one older revision of its key, and a tombstone goes itself once it is older than the
compact revision. The work is in proportion to what was written, not to what is stored.

A tombstone *at* the compact revision stays until the next compaction: a watch may start
there, and must see the deletion (etcd's bug 18089).
"""

from __future__ import annotations

from kvstate.backend import Backend, Table
from kvstate.records import (
    is_tombstone,
    pack_history,
    pack_revision,
    unpack_history,
    unpack_key_record,
    unpack_record,
    unpack_revision,
)


def scrub(backend: Backend, position: bytes, compact_revision: int, limit: int) -> bytes | None:
    """Process up to ``limit`` revisions from ``position`` on, which is a place in REVISIONS. Returns
    where to go on, or None when everything up to ``compact_revision`` is done."""
    end = pack_revision(compact_revision + 1, 0)
    batch: list[tuple[bytes, bytes]] = []
    for entry in backend.scan(Table.REVISIONS, position, end):
        if len(batch) == limit:
            break
        batch.append(entry)
    else:
        entry = (b"", b"")
    # First everything is looked up, then removed: a look-up after a removal has its table's memtable
    # sorted again.
    doomed: list[tuple[Table, bytes]] = []
    searched: dict[int, bytes] = {}
    for place, data in batch:
        _scrub_one(backend, place, data, compact_revision, searched, doomed)
    for table, key in doomed:
        backend.delete(table, key)
    return entry[0] or None


def _scrub_one(
    backend: Backend,
    place: bytes,
    data: bytes,
    compact_revision: int,
    searched: dict[int, bytes],
    doomed: list[tuple[Table, bytes]],
) -> None:
    """Find what the revision at ``place`` replaced, and itself if it is an outdated tombstone.
    ``searched``: up to where each key's history was seen for earlier ones."""
    main, sub = unpack_revision(place)
    key = unpack_record(main, data).kv.key
    found = backend.get(Table.KEYS, key)
    if found is None:
        return  # the key and all its past went with a newer tombstone in this very walk
    record = unpack_key_record(found)
    high = pack_history(record.key_id, main, sub)
    low = searched.get(record.key_id) or pack_history(record.key_id, 0, 0)
    searched[record.key_id] = high
    for history, _ in backend.scan(Table.HISTORY, low, high):
        doomed.append((Table.REVISIONS, pack_revision(*unpack_history(history))))
        doomed.append((Table.HISTORY, history))
    if is_tombstone(data) and main < compact_revision:
        doomed.append((Table.REVISIONS, place))
        if (record.main, record.sub) == (main, sub):
            doomed.append((Table.KEYS, key))
        else:
            doomed.append((Table.HISTORY, high))
