"""The content of a prefix, in memory, as a watch tells it: what caches and bound configurations stand on.
Plans.

    following = Following(core, b"/app/")
    yield from following.load()                     # in pages, all at one revision
    while True:
        for change in (yield from following.next_changes()):
            ...                                     # and the mirror has it already

The mirror is at every moment what the store was at ``mirror.revision``. Where the history that a watch
would go on with is compacted meanwhile, everything is loaded anew, and what is different comes as one
change: nothing is missing in the end, only steps on the way there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn

from kvorum.endpoints import LONGEST_PAUSE_SECONDS
from kvorum.errors import Compacted, KvorumError
from kvorum.messages import key_range, range_result, revision_of
from kvorum.operations import RANGE, Pages
from kvorum.plans import Core, Plan, Sleep
from kvorum.types import Event, KeyValue
from kvorum.watching import WatchPlans, watch_request

PAGE = 1000


class Change(NamedTuple):
    """What one revision changed, or, after history was compacted, several: ``revision`` is the last of
    them."""

    revision: int
    events: tuple[Event, ...]


class Mirror:
    """Keys and values. One may change it while others read, each time all as of one revision. ``revision``
    only grows, and 0 is: nothing is known yet."""

    def __init__(self) -> None:
        self.revision = 0
        self._kvs: dict[bytes, KeyValue] = {}
        self._in_order: list[bytes] | None = []  # None: not known
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kvs)

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def get(self, key: bytes) -> KeyValue | None:
        with self._lock:
            return self._kvs.get(key)

    def items(self) -> list[KeyValue]:
        """In the order of the keys."""
        with self._lock:
            if self._in_order is None:
                self._in_order = sorted(self._kvs)
            return [self._kvs[key] for key in self._in_order]

    def load(self, kvs: Iterable[KeyValue], revision: int) -> Change:
        """Be what the store was at ``revision``; returns in what that differs. The events are deletions,
        which have that revision since theirs is not known, then puts in their order."""
        new = {kv.key: kv for kv in kvs}
        with self._lock:
            old, self._kvs, self._in_order = self._kvs, new, None
            self.revision = revision
        gone = [_deletion(kv, revision) for key, kv in old.items() if key not in new]
        put = [Event("PUT", kv, old.get(key)) for key, kv in new.items() if old.get(key) != kv]
        return Change(revision, (*gone, *sorted(put, key=lambda event: event.revision)))

    def apply(self, revision: int, events: Iterable[Event]) -> Change | None:
        """What one revision changed; each event gets its ``prev_kv``. None for what is known already."""
        with self._lock:
            if revision <= self.revision:
                return None
            told = tuple(self._applied(event) for event in events)
            self.revision = revision
        return Change(revision, told)

    def confirm(self, since: int, revision: int) -> bool:
        """The store's content was the same at ``since`` and at ``revision``: if it is what is here, it counts
        as that of the later one. What changed between, and back, is not told any more. False if it is not."""
        with self._lock:
            if self.revision != since:
                return False
            self.revision = max(since, revision)
            return True

    def _applied(self, event: Event) -> Event:
        before = self._kvs.get(event.key)
        if event.is_put:
            if before is None:
                self._in_order = None
            self._kvs[event.key] = event.kv
        elif before is not None:
            self._in_order = None
            del self._kvs[event.key]
        return Event(event.type, event.kv, before)


def _deletion(kv: KeyValue, revision: int) -> Event:
    return Event("DELETE", KeyValue(kv.key, b"", 0, revision, 0, 0), kv)


class Following:
    """A mirror that follows the store."""

    def __init__(self, core: Core, prefix: bytes, page: int = PAGE) -> None:
        self.mirror = Mirror()
        self.prefix = prefix
        self._core = core
        self._page = page
        self._watch: WatchPlans | None = None
        self._is_ended = False

    def load(self) -> Plan[Change]:
        """What is there. Raises what a call does."""
        while True:
            pages, kvs = Pages(self._core, self.prefix, self._page, 0), list[KeyValue]()
            try:
                while not pages.is_at_end:
                    kvs += yield from pages.next_page()
            except Compacted:
                continue  # what was read first is history by now
            return self.mirror.load(kvs, pages.revision)

    def next_changes(self) -> Plan[list[Change]]:
        """Wait for what comes next; none once this has ended. Raises ServerError where the server refuses
        the watch, or, when everything is to be loaded anew, what a call does; then this may be tried
        again."""
        while not self._is_ended:
            if self._watch is None:
                create = watch_request(key_range(self.prefix, prefix=True), False, True, True)
                self._watch = WatchPlans(self._core, create, self.mirror.revision + 1)
            try:
                batches = yield from self._watch.next_batches()
            except Compacted:
                change = yield from self.load()
                self._watch = None
                if change.events:
                    return [change]
                continue
            told = [self.mirror.apply(batch.revision, batch.events) for batch in batches]
            if changes := [change for change in told if change is not None]:
                return changes
        return []

    def catch_up(self) -> Plan[tuple[int, int]]:
        """Ask whether the mirror is what the store is now. The revision that it was of, and the store's, of
        which it is now; 0 for that where it has to hear more first. So nobody need wait for what a watch is
        told, which hears nothing while nothing here is changed."""
        known, count = self.mirror.revision, len(self.mirror)
        newer = {"min_mod_revision": str(known + 1), "keys_only": True, "limit": "1"}
        request = {**key_range(self.prefix, prefix=True), **newer}
        answer = yield from self._core.call(RANGE, request, safe=True)
        # If no key is newer, all that are there are here; and if they are as many, all that are here are
        # there.
        found = range_result(answer, revision_of(answer))
        if found.kvs or found.count != count or not self.mirror.confirm(known, found.revision):
            return known, 0
        return known, found.revision

    @property
    def failure(self) -> KvorumError | None:
        """What keeps the watch from being told what is new; None if nothing does."""
        return self._watch.failure if self._watch else None

    def end(self) -> Any:
        """Whoever waits for changes is to wait no longer; returns the stream that he reads, if there is
        one."""
        self._is_ended = True
        if self._watch is None:
            return None
        self._watch.is_closed = True
        return self._watch.stream


def follow(
    core: Core,
    following: Following,
    on_change: Callable[[Change], None],
    on_trouble: Callable[[KvorumError | None], None],
) -> Plan[NoReturn]:
    """Follow for ever. ``on_trouble`` is told what keeps it from that, each time it is tried again, and None
    when it goes on."""
    failures = 0
    while True:
        try:
            changes = yield from following.next_changes()
        except KvorumError as error:
            failures += 1
            on_trouble(error)
            yield Sleep(min(LONGEST_PAUSE_SECONDS, 0.1 * 2 ** min(failures, 10)) * core.rng.uniform(0.5, 1.0))
            continue
        if failures:
            failures = 0
            on_trouble(None)
        for change in changes:
            on_change(change)
