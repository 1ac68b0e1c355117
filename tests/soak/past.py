"""What the history says of leases and lines, revision by revision. Pure; one walk through all events.

    2: put lock/a/4d (lease 77)    first in lock/a: 4d, token 2    on lease 77: lock/a/4d
    3: put lock/a/4e (lease 78)    first in lock/a: still 4d
    4: delete lock/a/4d            first in lock/a: 4e, token 3    all that hung on 77: it may have ended

The first of a line is the key with the smallest create revision, which is its fencing token.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Generic, NamedTuple, TypeVar

from kvstate.types import Event, EventType, KeyValue
from tests.sim.model import BadHistory, Events, tell
from tests.soak.calls import LINES

T = TypeVar("T")


class Place(NamedTuple):
    """In a line."""

    key: bytes
    token: int  # its create revision


class Exit(NamedTuple):
    """A place is gone."""

    revision: int
    place: Place


class Changing(Generic[T]):
    """A value that some revisions change."""

    def __init__(self, first: T) -> None:
        self._revisions = [0]
        self._values = [first]

    def set(self, revision: int, value: T) -> None:
        if value != self._values[-1]:
            self._revisions.append(revision)
            self._values.append(value)

    def at(self, revision: int) -> T:
        return self._values[bisect_right(self._revisions, revision) - 1]

    def between(self, first: int, last: int) -> list[T]:
        """All that it was from the one revision to the other."""
        low, high = (bisect_right(self._revisions, revision) for revision in (first, last))
        return self._values[low - 1 : high]


class Past:
    def __init__(self, events: Events) -> None:
        self.top = 1 + len(events)
        self.entries: list[KeyValue] = []  # into lines
        self.exits: list[Exit] = []
        self.ends: dict[
            int, int
        ] = {}  # revision → the lease of which everything was deleted, and nothing else
        self.attached: list[KeyValue] = []  # each put that names a lease
        self.last_attached: dict[int, int] = {}  # lease → the last revision of such a put
        self._hanging: dict[int, set[bytes]] = {}
        self._hung: dict[int, Changing[frozenset[bytes]]] = {}
        self._lease_of: dict[bytes, int] = {}
        self._lines: dict[bytes, dict[bytes, int]] = {}
        self._firsts: dict[bytes, Changing[Place | None]] = {}
        for revision in sorted(events):
            self._note_end(revision, events[revision])
            for event in events[revision]:
                self._note(revision, event, len(events[revision]))

    def first(self, name: bytes, revision: int) -> Place | None:
        """Who holds the lock, or leads."""
        return self._firsts[name].at(revision) if name in self._firsts else None

    def firsts(self, name: bytes, since: int, until: int) -> list[Place | None]:
        return self._firsts[name].between(since, until) if name in self._firsts else [None]

    def hung(self, lease: int, revision: int) -> frozenset[bytes]:
        """What hangs on a lease as of a revision."""
        return self._hung[lease].at(revision) if lease in self._hung else frozenset()

    def _note_end(self, revision: int, events: tuple[Event, ...]) -> None:
        if any(event.type != EventType.DELETE for event in events):
            return
        lease = self._lease_of.get(events[0].kv.key, 0)
        hanging = sorted(self._hanging[lease]) if lease else []
        gone = [Event(EventType.DELETE, KeyValue(key, 0, revision, 0, b"", 0)) for key in hanging]
        if events == tuple(gone):
            self.ends[revision] = lease

    def _note(self, revision: int, event: Event, together: int) -> None:
        kind, kv = event
        self._attach(revision, kv.key, kv.lease if kind == EventType.PUT else 0)
        if kind == EventType.PUT and kv.lease:
            self.attached.append(kv)
            self.last_attached[kv.lease] = revision
        if not kv.key.startswith(LINES):
            return
        if kind == EventType.PUT:
            if together > 1 or kv.version != 1 or kv.key.rpartition(b"/")[2] != b"%x" % kv.lease:
                raise BadHistory(f"no way to stand in line: revision {revision} is {tell(event)}")
            self.entries.append(kv)
            self._stand(revision, kv.key, kv.create_revision)
        else:
            self._leave(revision, kv.key)

    def _attach(self, revision: int, key: bytes, lease: int) -> None:
        before = self._lease_of.pop(key, 0)
        if before:
            self._hanging[before].discard(key)
        if lease:
            self._lease_of[key] = lease
            self._hanging.setdefault(lease, set()).add(key)
        for one in {before, lease} - {0}:
            past = self._hung.setdefault(one, Changing(frozenset()))
            past.set(revision, frozenset(self._hanging[one]))

    def _stand(self, revision: int, key: bytes, token: int) -> None:
        name = key.rpartition(b"/")[0]
        self._lines.setdefault(name, {})[key] = token
        self._set_first(revision, name)

    def _leave(self, revision: int, key: bytes) -> None:
        name = key.rpartition(b"/")[0]
        token = self._lines.get(name, {}).pop(key, None)
        if token is None:
            raise BadHistory(f"revision {revision} deletes {tell([key])}, which was not there")
        self.exits.append(Exit(revision, Place(key, token)))
        self._set_first(revision, name)

    def _set_first(self, revision: int, name: bytes) -> None:
        line = self._lines[name]
        key = min(line, key=line.__getitem__, default=None)
        first = None if key is None else Place(key, line[key])
        self._firsts.setdefault(name, Changing(None)).set(revision, first)
