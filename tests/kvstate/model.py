"""The store as simple as can be: for each key, a list of what happened to it. Slow and obvious.

What is attached to a lease is what now names it: nothing else remembers.
"""

from __future__ import annotations

from kvstate.commands import Range
from kvstate.types import Event, EventType, KeyValue, Lease


class Model:
    def __init__(self) -> None:
        self.revision = 1
        self.compact_revision = -1
        self.history: dict[bytes, list[tuple[int, KeyValue | None]]] = {}
        self.events: dict[int, list[Event]] = {}
        self.leases: dict[int, Lease] = {}

    def at(self, key: bytes, revision: int) -> KeyValue | None:
        """The key's value at a revision."""
        found = None
        for main, kv in self.history.get(key, []):
            if main <= revision:
                found = kv
        return found

    def live(self, key: bytes, end: bytes, revision: int) -> list[KeyValue]:
        if not end:
            names = [key]
        else:
            names = [n for n in self.history if n >= key and (end == b"\0" or n < end)]
        return [kv for name in sorted(names) if (kv := self.at(name, revision)) is not None]

    def begin(self) -> None:
        """What follows belongs to the next revision."""
        self.changed = False

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        main = self.revision + 1
        old = self._now(key)
        create, version = (old.create_revision, old.version) if old else (main, 0)
        kv = KeyValue(key, create, main, version + 1, value, lease)
        self._add(key, kv, Event(EventType.PUT, kv))

    def delete(self, key: bytes, end: bytes) -> int:
        doomed = [kv.key for kv in self.live(key, end, self.revision + 1)]
        for name in doomed:
            self._add(name, None, Event(EventType.DELETE, KeyValue(name, 0, self.revision + 1, 0, b"", 0)))
        return len(doomed)

    def lease_keys(self, lease: int) -> list[bytes]:
        return [kv.key for kv in self.live(b"\0", b"\0", self.revision) if kv.lease == lease]

    def revoke(self, lease: int) -> None:
        for key in self.lease_keys(lease):
            self.delete(key, b"")
        del self.leases[lease]

    def commit(self) -> None:
        if self.changed:
            self.revision += 1

    def compact(self, revision: int) -> None:
        self.compact_revision = revision

    def range(self, request: Range) -> tuple[list[KeyValue], bool, int]:
        """What a range without sorting and filters answers."""
        kvs = self.live(request.key, request.range_end, request.revision or self.revision)
        more = 0 < request.limit < len(kvs)
        return (kvs[: request.limit] if more else kvs), more, len(kvs)

    def _now(self, key: bytes) -> KeyValue | None:
        return self.at(key, self.revision + 1)

    def _add(self, key: bytes, kv: KeyValue | None, event: Event) -> None:
        self.history.setdefault(key, []).append((self.revision + 1, kv))
        self.events.setdefault(self.revision + 1, []).append(event)
        self.changed = True
