"""What turns what was read into what should be, in one transaction: all of it, or nothing.

The transaction compares what the changes rest on, so that it fails where somebody else was faster:

- every key that is changed or removed is as it was read, and every key that is added is still missing;
- what already is as it should be is still so, as far as there is room: a server takes MAX_OPERATIONS compares
  (unless told otherwise), and a large file of which little changed shall not fail for that;
- of ranges that the changes claim to know whole (``known``), nothing was written since they were read.

A put keeps the lease of a key that is there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvorum.messages import Message, b64, prefix_end
from kvorum.txn import Compare, Delete, Operation, Put
from kvorum.types import KeyValue

MAX_OPERATIONS = 128  # etcd's default, and ours


@dataclass(frozen=True)
class Snapshot:
    """Keys at one revision of the store."""

    revision: int
    kvs: Mapping[bytes, KeyValue]

    def values(self) -> dict[bytes, bytes]:
        return {key: kv.value for key, kv in self.kvs.items()}


@dataclass(frozen=True, slots=True)
class Unwritten(Compare):
    """That no key of a range was written after a revision. (That none was deleted cannot be told so.)"""

    range_end: bytes = b""

    @classmethod
    def since(cls, revision: int, prefix: bytes) -> Unwritten:
        return cls("MOD", prefix or b"\0", "LESS", revision + 1, prefix_end(prefix))

    def message(self) -> Message:
        return {**Compare.message(self), "range_end": b64(self.range_end)}


@dataclass(frozen=True)
class Changes:
    """To ``put`` and to ``remove``, beside what must stay as it was (``kept``). ``leases`` says which lease a
    key gets that has none of its own to keep."""

    before: Snapshot
    put: Mapping[bytes, bytes]
    remove: Sequence[bytes] = ()
    kept: Sequence[bytes] = ()
    known: Sequence[bytes] = ()  # prefixes
    remove_prefix: bytes | None = None  # all that ``remove`` names, and nothing else, is under it
    leases: Mapping[bytes, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.put) + len(self.remove)

    def compares(self) -> list[Compare]:
        found: list[Compare] = [Unwritten.since(self.before.revision, prefix) for prefix in self.known]
        for key in (*self.put, *self.remove):
            # A new key in a range where nothing was written is missing still.
            if key in self.before.kvs or not key.startswith(tuple(self.known)):
                found.append(self._as_read(key))
        room = MAX_OPERATIONS - len(found)
        if len(self.kept) <= room:
            found += map(self._as_read, self.kept)
        return found

    def _as_read(self, key: bytes) -> Compare:
        kv = self.before.kvs.get(key)
        return Compare("MOD", key, "EQUAL", kv.mod_revision if kv else 0)

    def operations(self) -> list[Operation[Any]]:
        puts = [Put(key, value, lease=self._lease(key)) for key, value in self.put.items()]
        if self.remove_prefix is not None:
            return [Delete(self.remove_prefix, prefix=True), *puts]
        return [*map(Delete, self.remove), *puts]

    def _lease(self, key: bytes) -> int:
        kv = self.before.kvs.get(key)
        return self.leases.get(key, kv.lease if kv else 0)


def towards(
    before: Snapshot,
    wanted: Mapping[bytes, bytes],
    *,
    prune: bytes | None = None,
    known: Iterable[bytes] = (),
) -> Changes:
    """What makes the wanted keys have their values, and with ``prune``, a prefix that ``before`` holds whole,
    be the only ones under it."""
    values = before.values()
    put = {key: value for key, value in wanted.items() if values.get(key) != value}
    kept = [key for key in wanted if key not in put]
    if prune is None:
        return Changes(before, put, kept=kept, known=tuple(known))
    remove = [key for key in before.kvs if key.startswith(prune) and key not in wanted]
    return Changes(before, put, remove, kept, (prune,))


def after(changes: Changes) -> dict[bytes, bytes]:
    """What was read, changed, in the order of keys."""
    values = {**changes.before.values(), **changes.put}
    return {key: values[key] for key in sorted(values.keys() - set(changes.remove))}
