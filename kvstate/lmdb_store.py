"""The store on LMDB: one environment, one database per table, durable commits.

LMDB's map has a size that must be set beforehand. It costs address space only, and grows
here, in ``reserve``, while no write is under way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb

from kvstate.backend import Changes, Table
from kvstate.errors import StateFault
from kvstate.long_keys import LongKeys

INITIAL_MAP_BYTES = 1 << 30
_DATABASES = {
    Table.KEYS: b"keys",
    Table.REVISIONS: b"revisions",
    Table.HISTORY: b"history",
    Table.META: b"meta",
}
_LONG_KEYS = b"long-keys"
# A change may copy a handful of pages on its way down the tree, and old ones are reused late.
_BYTES_PER_CHANGE = 16 << 10
_HEADROOM_BYTES = 32 << 20


class LmdbStore:
    """See the module's docstring; the methods are those of ``backend.Store``."""

    def __init__(self, directory: Path, *, map_bytes: int = INITIAL_MAP_BYTES) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        existing = directory / "data.mdb"
        if existing.exists():
            map_bytes = max(map_bytes, 2 * existing.stat().st_size)
        try:
            # max_dbs: the tables and the long keys. The lock file guards our own readers only;
            # two servers on one directory are ruled out before this is opened.
            self._env = lmdb.open(
                str(directory), map_size=map_bytes, max_dbs=len(Table) + 1, max_readers=126, mode=0o600
            )
            databases = {table: self._env.open_db(name) for table, name in _DATABASES.items()}
            long_keys = self._env.open_db(_LONG_KEYS)
        except lmdb.Error as error:
            raise StateFault(f"the state in {directory} cannot be opened: {error}") from error
        # LMDB syncs its file, but not the name of a file that it has just made.
        for changed in (directory, directory.parent):
            descriptor = os.open(changed, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(descriptor)
            os.close(descriptor)
        self._databases = databases
        self._keys = LongKeys(databases[Table.KEYS], long_keys)
        self._map_bytes = map_bytes
        self._reader: Any = self._env.begin()

    @property
    def size_bytes(self) -> int:
        info = self._env.info()
        return int((info["last_pgno"] + 1) * self._env.stat()["psize"])

    @property
    def size_in_use_bytes(self) -> int:
        pages = 2  # LMDB's own
        for database in (*self._databases.values(), self._keys.overflow):
            stat = self._reader.stat(database)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages * self._env.stat()["psize"])

    def get(self, table: Table, key: bytes) -> bytes | None:
        if table is Table.KEYS:
            return self._keys.get(self._reader, key)
        value: bytes | None = self._reader.get(key, db=self._databases[table])
        return value

    def scan(
        self, table: Table, low: bytes, high: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        if table is Table.KEYS:
            return self._keys.scan(self._reader, low, high, reverse)
        if reverse:
            return self._scan_reverse(table, low, high)
        return self._scan_forward(table, low, high)

    def _scan_forward(self, table: Table, low: bytes, high: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        with self._reader.cursor(self._databases[table]) as cursor:
            found = cursor.set_range(low) if low else cursor.first()
            if not found:
                return
            for key, value in cursor.iternext():
                if high is not None and key >= high:
                    return
                yield key, value

    def _scan_reverse(self, table: Table, low: bytes, high: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        with self._reader.cursor(self._databases[table]) as cursor:
            if high is not None and cursor.set_range(high):
                found = cursor.prev()
            else:
                found = cursor.last()
            if not found:
                return
            for key, value in cursor.iterprev():
                if key < low:
                    return
                yield key, value

    def reserve(self, entries: int, size: int) -> None:
        needed = self.size_bytes + 2 * size + entries * _BYTES_PER_CHANGE + _HEADROOM_BYTES
        if needed <= self._map_bytes:
            return
        # No transaction of this process may be open while the map is moved.
        self._reader.abort()
        while self._map_bytes < needed:
            self._map_bytes *= 2
        try:
            self._env.set_mapsize(self._map_bytes)
        except lmdb.Error as error:
            raise StateFault(
                f"the state in {self._directory} cannot grow to {self._map_bytes} bytes: {error}"
            ) from error
        self._reader = self._env.begin()

    def write(self, changes: Changes) -> None:
        try:
            with self._env.begin(write=True) as txn:
                for table, changed in zip(Table, changes, strict=True):
                    self._write_table(txn, table, changed)
        except lmdb.Error as error:
            raise StateFault(f"the state in {self._directory} cannot be written: {error}") from error

    def _write_table(self, txn: Any, table: Table, changed: Any) -> None:
        if table is Table.KEYS:
            for key, value in sorted(changed.items()):
                self._keys.set(txn, key, value)
            return
        database = self._databases[table]
        put, delete = txn.put, txn.delete
        for key, value in sorted(changed.items()):
            if value is None:
                delete(key, db=database)
            else:
                put(key, value, db=database)

    def refresh(self) -> None:
        self._reader.abort()
        self._reader = self._env.begin()

    def close(self) -> None:
        self._reader.abort()
        self._env.close()
