"""Watches of all that was read: who is told of a change, and from which revision on.

A range is watched from the revision after the one it was read at, so no change falls between. Each watch is a
thread that puts what it hears into one queue; whoever waits there decides.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from kvorum.client import Watch
from kvorum.errors import KvorumError
from kvorum.rendering.ranges import Range, cover

WATCHES_MAX = 32
"""Each is a connection and a thread. Who reads more keys than that watches ranges in which they are."""


class Watcher(Protocol):
    """As much of a client as is needed here."""

    def watch(self, key: bytes, range_end: bytes | None = None, *, start_revision: int = 0) -> Watch: ...


@dataclass(frozen=True)
class Changed:
    key: bytes
    revision: int


@dataclass(frozen=True)
class Lost:
    """The range is watched no longer: there may have been changes that nobody was told of."""

    range: Range
    error: KvorumError


News = Changed | Lost


class Follower:
    def __init__(self, client: Watcher, watches_max: int = WATCHES_MAX) -> None:
        self._client = client
        self._watches_max = watches_max
        self._watches: dict[Range, Watch] = {}
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()

    def follow(self, read_at: Mapping[Range, int]) -> None:
        """Watch these from now on, each since it was read, and nothing else. What is watched goes on."""
        wanted = cover(read_at, self._watches_max)
        for gone in self._watches.keys() - wanted:
            self._watches.pop(gone).close()
        for new in wanted - self._watches.keys():
            start = 1 + min(revision for one, revision in read_at.items() if one.start in new)
            watch = self._client.watch(new.start, new.end, start_revision=start)
            self._watches[new] = watch
            threading.Thread(target=self._listen, args=(new, watch), daemon=True).start()

    def next_news(self, timeout: float | None = None) -> list[News]:
        """All that there is, waiting for the first; none when ``timeout`` seconds have passed."""
        try:
            found = [self._news.get(timeout=timeout)]
        except queue.Empty:
            return []
        while not self._news.empty():
            found.append(self._news.get())
        for one in found:
            if isinstance(one, Lost) and one.range in self._watches:
                self._watches.pop(one.range).close()
        return found

    def news_until_quiet(self, quiet: float, at_most: float) -> list[News]:
        """More that comes in a burst: until nothing came for ``quiet`` seconds, or ``at_most`` are over."""
        deadline = time.monotonic() + at_most
        found: list[News] = []
        while more := self.next_news(max(min(quiet, deadline - time.monotonic()), 0)):
            found += more
            if time.monotonic() > deadline:
                break
        return found

    def close(self) -> None:
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()

    def _listen(self, range_: Range, watch: Watch) -> None:
        try:
            for event in watch:
                self._news.put(Changed(event.key, event.revision))
        except KvorumError as error:
            self._news.put(Lost(range_, error))
