"""The store as simple as can be: for each key, a list of what happened to it. Slow and obvious."""

from __future__ import annotations

from kvstate.commands import Range
from kvstate.types import Event, EventType, KeyValue


class Model:
    def __init__(self) -> None:
        self.revision = 1
        self.compact_revision = -1
        self.history: dict[bytes, list[tuple[int, KeyValue | None]]] = {}
        self.events: dict[int, list[Event]] = {}

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

    def put(self, key: bytes, value: bytes) -> None:
        main = self.revision + 1
        old = self._now(key)
        kv = KeyValue(
            key, old.create_revision if old else main, main, (old.version if old else 0) + 1, value, 0
        )
        self._add(key, kv, Event(EventType.PUT, kv))

    def delete(self, key: bytes, end: bytes) -> int:
        doomed = [kv.key for kv in self.live(key, end, self.revision + 1)]
        for name in doomed:
            self._add(name, None, Event(EventType.DELETE, KeyValue(name, 0, self.revision + 1, 0, b"", 0)))
        return len(doomed)

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
