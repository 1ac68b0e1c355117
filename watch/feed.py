"""Streams that write themselves: where their bytes go, and who is told the same bytes.

A thousand clients that watch one prefix and keep up are told the same, byte for byte. A ``Feed`` has
them all: publishing notes a revision once for the feed, and at the end of the turn what was noted is
encoded once and handed to every sink.

    publish 5, publish 6 ──► pending [5, 6] ──► flush: encode(5) + encode(6) ──► the same bytes to each sink

In a feed are only watchers that are alone on their stream (so that nothing has to be ordered between
them), have been told everything before, and whose sink has room. Whoever is asked something, or has no
room, leaves; what was pending then goes to its own stream's queue, and it comes back when that is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from watch.watcher import Batch, WatchResponse

if TYPE_CHECKING:
    from watch.watcher import Watcher

Encode = Callable[[WatchResponse], bytes]
"""The bytes of a response; the same for all that share the function."""


class Sink(Protocol):
    """Where a stream's bytes go. It takes whatever it is sent; when that is more than it likes, it says
    so by ``WatchStream.hold``, and by ``resume`` when it has room again."""

    def send(self, data: bytes) -> None:
        """Whole responses, one or several. May call ``hold``."""

    def ended(self) -> None:
        """The stream was closed by the hub: nothing will come any more."""


FeedKey = tuple[int, bool, Encode]


class Feed:
    """Watchers of one interest that are told the same bytes."""

    __slots__ = ("_key", "pending", "sinks", "told")

    def __init__(self, key: FeedKey) -> None:
        self._key = key
        self.sinks: dict[Watcher, Sink] = {}
        self.pending: list[tuple[int, Batch]] = []  # published, and not sent yet
        self.told = False  # since the last progress notification

    def flush(self) -> None:
        """Send what is pending."""
        pending, self.pending = self.pending, []
        if not pending or not self.sinks:
            return
        self.told = True
        watch_id, may_fragment, encode = self._key
        data = b"".join(
            [
                encode(WatchResponse(watch_id, revision, events=batch, may_fragment=may_fragment))
                for revision, batch in pending
            ]
        )
        for sink in list(self.sinks.values()):  # who has no room any more leaves meanwhile
            sink.send(data)
