"""The store on LMDB: one environment, one database per table, durable commits.

LMDB's map has a size that must be set beforehand. It costs address space only, so it is begun
so large that it need hardly ever grow; it does in ``reserve``, while no write is under way.

A **copy** is made on threads while the loop reads and the flush thread writes:

    thread: env.copyfd ──► socket ──► copy_to, on the caller's thread: file, SHA-256

``copyfd`` reads the map, and growing or closing moves the map away under it. So whoever does
that ends every copy first, for certain and at once: the socket is shut down, ``copyfd`` fails in
its next write, its thread is waited for. ``copy_to`` then raises CopyStopped.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

import lmdb

from kvstate.backend import Changes, Table
from kvstate.errors import CopyStopped, StateFault
from kvstate.long_keys import LongKeys, change

INITIAL_MAP_BYTES = 1 << 38
DATA_FILE, LOCK_FILE = "data.mdb", "lock.mdb"
_DATABASES = {
    Table.KEYS: b"keys",
    Table.REVISIONS: b"revisions",
    Table.HISTORY: b"history",
    Table.META: b"meta",
    Table.LEASES: b"leases",
    Table.LEASE_KEYS: b"lease-keys",
}
_LONG_KEYS = b"long-keys"
_KEYS: Final = Table.KEYS  # looked up in its enum once
_LEASE_KEYS: Final = Table.LEASE_KEYS
# A change may copy a handful of pages on its way down the tree, and old ones are reused late.
_BYTES_PER_CHANGE = 16 << 10
_HEADROOM_BYTES = 32 << 20
_FULL_BYTES = 1 << 20  # less than this is no room for a commit
_COPY_CHUNK_BYTES = 1 << 20
# A copy's pages go to the disk while it is made: what gathers would hold up the log's next fdatasync.
_COPY_SYNC_BYTES = 16 << 20


class LmdbStore:
    """See the module's docstring; the methods are those of ``backend.Store``."""

    def __init__(self, directory: Path, *, map_bytes: int = 0) -> None:
        """``map_bytes``: for tests; INITIAL_MAP_BYTES if 0."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        existing = directory / DATA_FILE
        is_new = not existing.exists()
        try:
            at_least = 0 if is_new else 2 * existing.stat().st_size
            self._env, map_bytes = _open(directory, map_bytes or INITIAL_MAP_BYTES, at_least)
            databases = {table: self._env.open_db(name) for table, name in _DATABASES.items()}
            long_keys = self._env.open_db(_LONG_KEYS)
        except lmdb.Error as error:
            raise StateFault(f"the state in {directory} cannot be opened: {error}") from error
        # LMDB syncs its file, but not the name of a file that it has just made.
        for changed in (directory, directory.parent) if is_new else ():
            sync_directory(changed)
        self._databases = databases
        # The tables whose keys may be of any length share what lies beyond LMDB's limit.
        self._keys = LongKeys(databases[Table.KEYS], long_keys)
        self._lease_keys = LongKeys(databases[Table.LEASE_KEYS], long_keys)
        self._map_bytes = map_bytes
        self._reader: Any = self._env.begin()
        self._copies_lock = threading.Lock()
        self._copies: set[_Copy] = set()
        self._is_closed = False

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
        if table is _KEYS:
            return self._keys.get(self._reader, key)
        if table is _LEASE_KEYS:
            return self._lease_keys.get(self._reader, key)
        value: bytes | None = self._reader.get(key, None, self._databases[table])
        return value

    def scan(
        self, table: Table, low: bytes, high: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        long_keys = self._long_keys(table)
        if long_keys is not None:
            return long_keys.scan(self._reader, low, high, reverse)
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

    def page(self, table: Table, low: bytes, high: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        long_keys = self._long_keys(table)
        if long_keys is not None:
            return long_keys.page(self._reader, low, high, limit)
        return list(islice(self._scan_forward(table, low, high), limit))

    def get_many(self, table: Table, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        assert self._long_keys(table) is None, "keys of any length are not looked up in one call"
        with self._reader.cursor(self._databases[table]) as cursor:
            return dict(cursor.getmulti(keys))

    def reserve(self, entries: int, size: int) -> None:
        needed = self.size_bytes + 2 * size + entries * _BYTES_PER_CHANGE + _HEADROOM_BYTES
        if needed <= self._map_bytes:
            return
        # No transaction of this process may be open while the map is moved, nor a copy be under way:
        # none can begin either, as that takes the lock.
        with self._copies_lock:
            self._stop_copies()
            self._grow(needed)

    def _grow(self, needed: int) -> None:
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
            raise StateFault(
                f"the state in {self._directory} cannot be written: {error}{self._fullness()}"
            ) from error

    def _fullness(self) -> str:
        """LMDB calls a write that was cut short an input/output error, also where the disk is full."""
        disk = os.statvfs(self._directory)
        free = disk.f_bavail * disk.f_frsize
        return " (No space left on device)" if free < _FULL_BYTES else ""

    def _write_table(self, txn: Any, table: Table, changed: Mapping[bytes, bytes | None]) -> None:
        long_keys = self._long_keys(table)
        if long_keys is not None:
            long_keys.change(txn, changed)
        else:
            change(txn, self._databases[table], changed)

    def _long_keys(self, table: Table) -> LongKeys | None:
        """Where a table's keys are if they may be of any length."""
        if table is _KEYS:
            return self._keys
        return self._lease_keys if table is _LEASE_KEYS else None

    def refresh(self) -> None:
        self._reader.abort()
        self._reader = self._env.begin()

    def copy_to(self, path: Path) -> str:
        """On a thread: write what is durable now to a new file, and make it durable. Returns its SHA-256.
        Raises CopyStopped, OSError or StateFault; the file may then be there in part."""
        with self._copies_lock:
            if self._is_closed:
                raise CopyStopped("the state was closed or replaced")
            copy = _Copy(self._env)
            self._copies.add(copy)
        try:
            return copy.save(path)
        except lmdb.Error as error:
            raise StateFault(f"the state in {self._directory} cannot be copied: {error}") from error
        finally:
            copy.stop()
            with self._copies_lock:  # for nobody stops what is released
                self._copies.discard(copy)
                copy.release()

    def stop_copies(self) -> None:
        """Copies under way end with CopyStopped, before this returns."""
        with self._copies_lock:
            self._stop_copies()

    def _stop_copies(self) -> None:
        for copy in self._copies:
            copy.stop()

    def close(self) -> None:
        with self._copies_lock:
            self._is_closed = True
            self._stop_copies()
        self._reader.abort()
        self._env.close()


class _Copy:
    """LMDB's copy, on a thread of its own, and the pipe that it comes through. A socket is a pipe that can
    be shut down while others use it."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._error: Exception | None = None
        self._was_stopped = False
        self._inlet, self._outlet = socket.socketpair()
        self._worker = threading.Thread(target=self._run, name="copy", daemon=True)
        self._worker.start()

    def _run(self) -> None:
        try:
            self._env.copyfd(self._inlet.fileno())
        except Exception as error:
            self._error = error
        finally:
            self._inlet.close()

    def save(self, path: Path) -> str:
        digest = hashlib.sha256()
        chunk = memoryview(bytearray(_COPY_CHUNK_BYTES))
        unsynced = 0
        with path.open("xb", buffering=0) as file:
            while count := self._outlet.recv_into(chunk):
                digest.update(chunk[:count])
                written = 0
                while written < count:
                    written += file.write(chunk[written:count])
                unsynced += count
                if unsynced >= _COPY_SYNC_BYTES:
                    os.fdatasync(file.fileno())
                    unsynced = 0
            self._worker.join()
            if self._was_stopped:
                raise CopyStopped("the copy was stopped")
            if self._error is not None:
                raise self._error
            os.fsync(file.fileno())
        return digest.hexdigest()

    def stop(self) -> None:
        """From any thread, any number of times. What is complete stays so."""
        if self._worker.is_alive():
            self._was_stopped = True
        with suppress(OSError):  # the other end is closed: it was over already
            self._outlet.shutdown(socket.SHUT_RDWR)
        self._worker.join()

    def release(self) -> None:
        self._outlet.close()


def read_copy(path: Path, table: Table, key: bytes) -> bytes | None:
    """One value of a store that lies in the file ``path`` and that nobody has open; touches no more of it
    than that takes. Raises StateFault."""
    try:
        env = lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_dbs=1, map_size=1 << 20)
        try:
            with env.begin() as txn:
                database = env.open_db(_DATABASES[table], txn=txn, create=False)
                value: bytes | None = txn.get(key, db=database)
                return value
        finally:
            env.close()
    except lmdb.Error as error:
        raise StateFault(f"{path} is not a state that this program can read: {error}") from error


def sync_directory(directory: Path) -> None:
    """Make the names in it durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(directory: Path, map_bytes: int, at_least: int) -> tuple[Any, int]:
    """The environment, and how large its map is: less than was asked for where addresses are limited."""
    map_bytes = max(map_bytes, at_least)
    while True:
        try:
            # max_dbs: the tables and the long keys. The lock file guards our own readers only;
            # two servers on one directory are ruled out before this is opened.
            env = lmdb.open(
                str(directory), map_size=map_bytes, max_dbs=len(Table) + 1, max_readers=126, mode=0o600
            )
            return env, map_bytes
        except lmdb.MemoryError:
            if map_bytes // 2 < max(at_least, _HEADROOM_BYTES):
                raise
            map_bytes //= 2
