"""Keys of any length in LMDB, whose own are limited to 511 bytes, in right order.

A key of at most 480 bytes is stored as it is. A longer one is cut into chunks of 480: its
first chunk, with one byte more, points to a *namespace*, and the rest of the key lives
there, under the namespace's id, cut again if need be:

    b"short"               → value                      (database "keys")
    480 × b"a" + b"\\1"     → namespace 7                (database "keys")
    id 7 + b"rest"         → value                      (database "long-keys")

A pointer is 481 bytes long and nothing else is, so the two cannot be confused; and since a
pointer sorts right behind its chunk and before everything larger, walking into namespaces
where they are met gives all keys in order. Short keys pay one comparison of lengths.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from operator import itemgetter
from typing import Any

CHUNK_BYTES = 480
_POINTER_SUFFIX = b"\x01"
_BEHIND_POINTER = b"\x02"
_POINTER_BYTES = CHUNK_BYTES + 1
_NAMESPACE = struct.Struct(">Q")
_NEXT_NAMESPACE = b"\xff" * _NAMESPACE.size  # sorts behind every namespace's content
_FIRST_ENTRIES = 16
_SEEK_ALL = b"\0"  # LMDB seeks no empty key


class LongKeys:
    """Maps keys of any length onto two LMDB databases. ``txn`` is an open LMDB transaction."""

    def __init__(self, database: Any, overflow: Any) -> None:
        self.database = database
        self.overflow = overflow

    def get(self, txn: Any, key: bytes) -> bytes | None:
        value: bytes | None
        if len(key) <= CHUNK_BYTES:
            value = txn.get(key, None, self.database)  # named arguments would double the time
            return value
        path = self._path(txn, key)
        if path is None:
            return None
        value = txn.get(path[-1], db=self.overflow)
        return value

    def set(self, txn: Any, key: bytes, value: bytes | None) -> None:
        """Store ``value``, or remove the key where it is None."""
        if len(key) <= CHUNK_BYTES:
            if value is None:
                txn.delete(key, db=self.database)
            else:
                txn.put(key, value, db=self.database)
        elif value is None:
            self._remove(txn, key)
        else:
            path = self._path(txn, key, create=True)
            assert path is not None
            txn.put(path[-1], value, db=self.overflow)

    def change(self, txn: Any, changes: Mapping[bytes, bytes | None]) -> None:
        """``set`` them all."""
        if max(map(len, changes), default=0) <= CHUNK_BYTES:
            change(txn, self.database, changes)
            return
        for key, value in changes.items():
            self.set(txn, key, value)

    def scan(self, txn: Any, low: bytes, high: bytes | None, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        return self._walk(txn, low, high, reverse)

    def page(self, txn: Any, low: bytes, high: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        """What ``scan`` finds first, up to ``limit`` entries; in few steps if no key among them is long."""
        if len(low) <= CHUNK_BYTES:
            with txn.cursor(self.database) as cursor:
                found = cursor.set_range(low or _SEEK_ALL)
                walk: Iterator[tuple[bytes, bytes]] = cursor.iternext() if found else iter(())
                # Most ranges are short, and to step over their end costs as much as to stay within.
                entries = list(islice(walk, min(limit, _FIRST_ENTRIES)))
                if high is None or (entries and entries[-1][0] < high):
                    entries += islice(walk, limit - len(entries))
            # Behind a pointer that is beyond ``high`` there may be keys that are not.
            if not self._has_long_keys(txn) or all(len(key) < _POINTER_BYTES for key, _ in entries):
                if high is not None and entries and entries[-1][0] >= high:
                    del entries[bisect_left(entries, high, key=itemgetter(0)) :]
                return entries
        return list(islice(self.scan(txn, low, high, reverse=False), limit))

    def _has_long_keys(self, txn: Any) -> bool:
        return bool(txn.stat(self.overflow)["entries"])

    def _path(self, txn: Any, key: bytes, create: bool = False) -> list[bytes] | None:
        """The LMDB keys on the way to a long key: its pointers, then its own place. None if a
        pointer is missing, unless it may be created."""
        path, namespace, database = [], b"", self.database
        while len(key) > CHUNK_BYTES:
            pointer = namespace + key[:CHUNK_BYTES] + _POINTER_SUFFIX
            path.append(pointer)
            found: bytes | None = txn.get(pointer, db=database)
            if found is None:
                if not create:
                    return None
                found = self._allocate(txn)
                txn.put(pointer, found, db=database)
            namespace, key, database = found, key[CHUNK_BYTES:], self.overflow
        path.append(namespace + key)
        return path

    def _allocate(self, txn: Any) -> bytes:
        """A new namespace id."""
        counter = txn.get(_NEXT_NAMESPACE, db=self.overflow)
        number = _NAMESPACE.unpack(counter)[0] if counter else 1
        txn.put(_NEXT_NAMESPACE, _NAMESPACE.pack(number + 1), db=self.overflow)
        return _NAMESPACE.pack(number)

    def _remove(self, txn: Any, key: bytes) -> None:
        """Remove a long key and the namespaces that it leaves empty."""
        path = self._path(txn, key)
        if path is None:
            return
        txn.delete(path[-1], db=self.overflow)
        for depth in range(len(path) - 2, -1, -1):
            namespace = path[depth + 1][: _NAMESPACE.size]
            with txn.cursor(self.overflow) as cursor:
                if cursor.set_range(namespace) and cursor.key().startswith(namespace):
                    return
            txn.delete(path[depth], db=self.overflow if depth else self.database)

    def _walk(self, txn: Any, low: bytes, high: bytes | None, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """The keys within [low, high) in order. Namespaces are walked by a stack of cursors rather
        than by recursion: a key of a megabyte is thousands of them deep."""
        stack = [_Level(txn, self.database, b"", b"", low, high, reverse)]
        while stack:
            level = stack[-1]
            descended = False
            for stored, value in level.entries:
                skip = level.skip
                if skip and (not stored.startswith(level.namespace) or stored == _NEXT_NAMESPACE):
                    break
                if len(stored) - skip == _POINTER_BYTES:
                    chunk = level.stem + stored[skip:-1]
                    if _is_outside(chunk, low, high, reverse):
                        break
                    stack.append(_Level(txn, self.overflow, value, chunk, low, high, reverse))
                    descended = True
                    break
                key = level.stem + stored[skip:] if skip else stored
                if high is not None and key >= high:
                    if reverse:
                        continue
                    break
                if key < low:
                    if reverse:
                        break
                    continue
                yield key, value
            if not descended:
                level.cursor.close()
                stack.pop()


class _Level:
    """A namespace being walked; all its keys begin with ``stem``."""

    __slots__ = ("cursor", "entries", "namespace", "skip", "stem")

    def __init__(
        self,
        txn: Any,
        database: Any,
        namespace: bytes,
        stem: bytes,
        low: bytes,
        high: bytes | None,
        reverse: bool,
    ) -> None:
        self.namespace = namespace
        self.skip = len(namespace)
        self.stem = stem
        self.cursor = txn.cursor(database)
        found = _seek(self.cursor, namespace, stem, low, high, reverse)
        walk = self.cursor.iterprev if reverse else self.cursor.iternext
        self.entries: Iterator[tuple[bytes, bytes]] = walk() if found else iter(())


def change(txn: Any, database: Any, changes: Mapping[bytes, bytes | None]) -> None:
    """Put what has a value and remove what has none. All is put in one call: it lets go of the interpreter's
    lock and waits for it as often as many calls, but does less between. To sort it first is not worth
    its time, all of which would be spent under that lock."""
    doomed = [key for key, value in changes.items() if value is None]
    items: Collection[tuple[bytes, bytes | None]] = changes.items()
    if doomed:
        items = [item for item in items if item[1] is not None]
    with txn.cursor(database) as cursor:
        cursor.putmulti(items)
    for key in doomed:
        txn.delete(key, db=database)


def _seek(cursor: Any, namespace: bytes, stem: bytes, low: bytes, high: bytes | None, reverse: bool) -> bool:
    """Place the cursor on the first entry of interest of a namespace; False if there is none."""
    if not reverse:
        rest = low[len(stem) :] if low.startswith(stem) else b""
        return bool(cursor.set_range(namespace + rest[:CHUNK_BYTES] or _SEEK_ALL))
    if high is not None and high.startswith(stem):
        rest = high[len(stem) :]
        behind = namespace + rest[:CHUNK_BYTES] + (_BEHIND_POINTER if len(rest) > CHUNK_BYTES else b"")
        if behind and cursor.set_range(behind):
            return bool(cursor.prev())
        return bool(cursor.last()) if behind else False
    if namespace:
        behind = _NAMESPACE.pack(_NAMESPACE.unpack(namespace)[0] + 1)
        if cursor.set_range(behind):
            return bool(cursor.prev())
    return bool(cursor.last())


def _is_outside(chunk: bytes, low: bytes, high: bytes | None, reverse: bool) -> bool:
    """Whether no key that begins with ``chunk`` and goes on, nor any behind it in this
    direction, is within [low, high)."""
    if reverse:
        return chunk < low[: len(chunk)]
    return high is not None and chunk >= high
