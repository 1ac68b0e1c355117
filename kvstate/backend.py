"""An ordered map on disk whose commits never hold anybody up.

An LMDB write transaction must be committed on the thread that began it, and a durable
commit takes milliseconds: on the event loop it would stall every request. So writes go into
a *memtable*, a dictionary over the store, and a frozen memtable is written behind the
loop's back, in one durable transaction:

    put/delete ──► active ──freeze()──► frozen ──write_frozen() on a thread──► store
    get/scan   ◄── active, then frozen, then store

What the store holds is therefore always the state after some prefix of the log; the
write-ahead log has the rest.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Protocol

ENTRY_OVERHEAD_BYTES: Final = 100
"""What a memtable entry costs beside its key and value, roughly."""


class Table(enum.IntEnum):
    """Tables of the map. The names are on disk: never reuse one."""

    KEYS = 0  # user key → KeyRecord; keys may be of any length
    REVISIONS = 1  # main, sub → RevisionRecord
    HISTORY = 2  # key id, main, sub of a revision that a newer one of its key replaced
    META = 3
    LEASES = 4  # lease id → seconds granted, seconds left at the last checkpoint (see leases.py)
    LEASE_KEYS = 5  # lease id, user key → empty; keys may be of any length


_KEYS: Final = Table.KEYS  # to look a member up in its enum takes longer than to look up a key
_ABSENT: Final[Any] = object()  # None marks a deletion
_FEW: Final = 16  # fresh keys of a memtable that are quicker inserted one by one than sorted in

Changes = Sequence[Mapping[bytes, bytes | None]]
"""Per table: key → new value, or None where it is deleted."""


class Store(Protocol):
    """What lies under the memtables. ``write`` is called on a thread, all else on the loop."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def scan(
        self, table: Table, low: bytes, high: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]: ...

    def page(self, table: Table, low: bytes, high: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        """What ``scan`` finds first: ``limit`` entries, fewer only if there are no more."""

    def get_many(self, table: Table, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those of ``keys`` that are there. Quickest for keys in order."""

    def reserve(self, entries: int, size: int) -> None:
        """Make room for changes of this size."""

    def write(self, changes: Changes) -> None:
        """Make all changes durable, all or none. Raises StateFault."""

    def refresh(self) -> None:
        """Let reads see what was written last."""

    def close(self) -> None: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def size_in_use_bytes(self) -> int: ...


class Memtable:
    """Changes of one table since the last flush; None marks a deletion. Nothing is ever taken out of
    ``data``, so its keys that are not in ``_sorted`` yet are its last ones."""

    __slots__ = ("_sorted", "data")

    def __init__(self) -> None:
        self.data: dict[bytes, bytes | None] = {}
        self._sorted: list[bytes] = []

    def scan(self, low: bytes, high: bytes | None, reverse: bool) -> Iterator[tuple[bytes, bytes | None]]:
        keys, begin, end = self._between(low, high)
        chosen = keys[begin:end]
        if reverse:
            chosen.reverse()
        return zip(chosen, map(self.data.__getitem__, chosen), strict=True)

    def page(self, low: bytes, high: bytes | None, limit: int) -> list[tuple[bytes, bytes | None]]:
        """What ``scan`` finds first."""
        keys, begin, end = self._between(low, high)
        data = self.data
        return [(key, data[key]) for key in keys[begin : min(end, begin + limit)]]

    def _between(self, low: bytes, high: bytes | None) -> tuple[list[bytes], int, int]:
        """All keys in order, and where in them those with low <= key < high begin and end."""
        keys = self._sorted
        fresh = len(self.data) - len(keys)
        if fresh > _FEW:
            # Sorting a sorted list with a short tail is a merge: cheap, and only when somebody scans.
            keys += islice(reversed(self.data), fresh)
            keys.sort()
        elif fresh:
            # But a merge looks at all keys, and many a command scans for little: each revoke of a lease.
            for key in islice(reversed(self.data), fresh):
                insort(keys, key)
        return keys, bisect_left(keys, low), len(keys) if high is None else bisect_left(keys, high)


class Backend:
    """The map that the state machine works on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._frozen: list[Memtable] | None = None
        self._frozen_bytes = 0
        self._begin()

    def _begin(self) -> None:
        """With nothing in the active memtables."""
        self._active = _empty()
        self._active_bytes = 0
        # What every put writes, without going by way of the table's number.
        self._keys = self._active[Table.KEYS].data
        self._revisions = self._active[Table.REVISIONS].data
        self._history = self._active[Table.HISTORY].data

    @property
    def pending_bytes(self) -> int:
        """Roughly what the memtables occupy."""
        return self._active_bytes + self._frozen_bytes

    @property
    def size_bytes(self) -> int:
        return self._store.size_bytes

    @property
    def size_in_use_bytes(self) -> int:
        return self._store.size_in_use_bytes

    def get(self, table: Table, key: bytes) -> bytes | None:
        found = self._active[table].data.get(key, _ABSENT)
        if found is _ABSENT and self._frozen is not None:
            found = self._frozen[table].data.get(key, _ABSENT)
        return self._store.get(table, key) if found is _ABSENT else found

    def key_record(self, key: bytes) -> bytes | None:
        """``get`` from KEYS: what every put begins with, and every read of one key."""
        found = self._keys.get(key, _ABSENT)
        if found is _ABSENT and self._frozen is not None:
            found = self._frozen[_KEYS].data.get(key, _ABSENT)
        return self._store.get(_KEYS, key) if found is _ABSENT else found

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self._active[table].data[key] = value
        self._active_bytes += len(key) + len(value) + ENTRY_OVERHEAD_BYTES

    def put_revision(
        self, key: bytes, record: bytes, place: bytes, data: bytes, replaced: bytes | None
    ) -> None:
        """``put`` what a new revision of a key changes: its record in KEYS, what stands at the revision's
        place in REVISIONS, and the entry in HISTORY of the revision that it ``replaced``, if it did."""
        self._keys[key] = record
        self._revisions[place] = data
        self._active_bytes += len(key) + len(record) + len(place) + len(data) + 2 * ENTRY_OVERHEAD_BYTES
        if replaced is not None:
            self._history[replaced] = b""
            self._active_bytes += len(replaced) + ENTRY_OVERHEAD_BYTES

    def delete(self, table: Table, key: bytes) -> None:
        self._active[table].data[key] = None
        self._active_bytes += len(key) + ENTRY_OVERHEAD_BYTES

    def scan(
        self, table: Table, low: bytes = b"", high: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries with low <= key < high in key order, or in reverse. No write may come between
        two steps of the iterator."""
        layers = [self._active[table]]
        if self._frozen is not None:
            layers.append(self._frozen[table])
        below: Iterator[tuple[bytes, bytes | None]] = self._store.scan(table, low, high, reverse)
        for layer in reversed(layers):
            if layer.data:
                below = _overlay(layer.scan(low, high, reverse), below, reverse)
        for key, value in below:
            if value is not None:
                yield key, value

    def page(
        self, table: Table, low: bytes, high: bytes | None, limit: int
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """The first entries with low <= key < high, some ``limit`` of them, and where to go on; None
        there means that these are all. The list is the caller's."""
        stored = self._store.page(table, low, high, limit)
        end = stored[-1][0] + b"\0" if len(stored) == limit else None  # complete up to here
        entries: list[tuple[bytes, bytes | None]] | None = None  # with what lies above, if anything does
        for layer in (self._frozen, self._active):
            if layer is None or not layer[table].data:
                continue
            above = layer[table].page(low, high if end is None else end, limit)
            if not above:
                continue
            if len(above) == limit:
                end = above[-1][0] + b"\0"
            below = stored if entries is None else entries
            entries = _merge(above, below, end) if below else above
        if end is not None and high is not None and end >= high:
            end = None
        if entries is None:
            return stored, end
        return [(key, value) for key, value in entries if value is not None], end

    def get_many(self, table: Table, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those of ``keys`` that are there. Quickest for keys in order."""
        above: dict[bytes, bytes | None] = {}
        for layer in (self._active, self._frozen):
            if layer is None:
                continue
            data = layer[table].data
            if data and not data.keys().isdisjoint(keys):
                picked = {key: data[key] for key in keys if key in data}
                keys = [key for key in keys if key not in picked] if len(picked) < len(keys) else ()
                above.update(picked)
        found = self._store.get_many(table, keys) if keys else {}
        if above:
            found.update((key, value) for key, value in above.items() if value is not None)
        return found

    def freeze(self) -> None:
        """What was written so far becomes what ``write_frozen`` will write."""
        if self._frozen is not None:
            raise AssertionError("a frozen memtable must be released before the next one is frozen")
        self._frozen, self._frozen_bytes = self._active, self._active_bytes
        self._begin()
        entries = sum(len(table.data) for table in self._frozen)
        self._store.reserve(entries, self._frozen_bytes)

    def write_frozen(self) -> None:
        """On a thread: make the frozen changes durable. Raises StateFault."""
        assert self._frozen is not None
        self._store.write([table.data for table in self._frozen])

    def release_frozen(self) -> None:
        """Back on the loop, after ``write_frozen``: the store has them now."""
        self._store.refresh()
        self._frozen = None
        self._frozen_bytes = 0

    def replace(self, open_store: Callable[[], Store]) -> None:
        """Lie over another store, with nothing in the memtables. No flush may be under way. The old store
        is closed before the new one is opened: both may go by the same name."""
        self._store.close()
        self._store = open_store()
        self._begin()
        self._frozen = None
        self._frozen_bytes = 0

    def close(self) -> None:
        self._store.close()


def _empty() -> list[Memtable]:
    return [Memtable() for _ in Table]


def _merge(
    above: list[tuple[bytes, bytes | None]], below: Sequence[tuple[bytes, bytes | None]], end: bytes | None
) -> list[tuple[bytes, bytes | None]]:
    """Both in order up to ``end``, ``above`` winning where both have a key."""
    merged = dict(below)
    merged.update(above)
    if end is None:
        return [(key, merged[key]) for key in sorted(merged)]
    return [(key, merged[key]) for key in sorted(merged) if key < end]


def _overlay(
    above: Iterator[tuple[bytes, bytes | None]], below: Iterator[tuple[bytes, bytes | None]], reverse: bool
) -> Iterator[tuple[bytes, bytes | None]]:
    """Both in order, ``above`` winning where both have a key."""
    upper = next(above, None)
    lower = next(below, None)
    while upper is not None and lower is not None:
        if upper[0] == lower[0]:
            yield upper
            upper, lower = next(above, None), next(below, None)
        elif (upper[0] < lower[0]) is not reverse:
            yield upper
            upper = next(above, None)
        else:
            yield lower
            lower = next(below, None)
    if upper is not None:
        yield upper
        yield from above
    if lower is not None:
        yield lower
        yield from below


class MemoryStore:
    """A store without a disk, for the simulator and tests: "durable" means written here."""

    def __init__(self) -> None:
        self._tables = _empty()
        self.fail_with: Exception | None = None

    def copy(self) -> MemoryStore:
        """What is durable now, as a snapshot's content."""
        other = MemoryStore()
        for table, copied in zip(self._tables, other._tables, strict=True):
            for key, value in table.data.items():
                if value is not None:
                    copied.data[key] = value
        return other

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._tables[table].data.get(key)

    def scan(
        self, table: Table, low: bytes, high: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._tables[table].scan(low, high, reverse):
            if value is not None:
                yield key, value

    def page(self, table: Table, low: bytes, high: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        return list(islice(self.scan(table, low, high, reverse=False), limit))

    def get_many(self, table: Table, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        data = self._tables[table].data
        return {key: value for key in keys if (value := data.get(key)) is not None}

    def reserve(self, entries: int, size: int) -> None:
        pass

    def write(self, changes: Changes) -> None:
        if self.fail_with is not None:
            raise self.fail_with
        for table, changed in zip(self._tables, changes, strict=True):
            table.data.update(changed)

    def refresh(self) -> None:
        pass

    def close(self) -> None:
        pass

    @property
    def size_bytes(self) -> int:
        return sum(len(table.data) for table in self._tables)

    @property
    def size_in_use_bytes(self) -> int:
        return self.size_bytes
