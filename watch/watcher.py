"""What a watch asks for, what it is told, and one watcher's state. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from kvstate.types import Event, EventType, KeyValue
from watch.history import History

if TYPE_CHECKING:
    from watch.feed import Feed, FeedKey
    from watch.stream import WatchStream

INVALID_WATCH_ID = -1
"""The id in answers that are about no watcher: progress of a whole stream, a refused create."""


class WatchEvent(NamedTuple):
    type: EventType
    kv: KeyValue
    prev_kv: KeyValue | None


Batch = tuple[WatchEvent, ...]
"""Events that go out together. Watchers that want the same get the same object, so that whoever
encodes it can do so once."""


@dataclass(frozen=True, slots=True)
class WatchCreate:
    """``filters`` are the kinds of event *not* wanted; ``start_revision`` 0 means from now on;
    ``watch_id`` 0 lets the stream choose."""

    key: bytes
    range_end: bytes = b""
    start_revision: int = 0
    progress_notify: bool = False
    filters: frozenset[EventType] = frozenset()
    prev_kv: bool = False
    watch_id: int = 0
    fragment: bool = False


class WatchResponse(NamedTuple):
    """``revision`` is for the header. It never claims more than was delivered: every event of this
    watcher up to ``revision`` is in this response or an earlier one."""

    watch_id: int
    revision: int
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: Batch = ()
    may_fragment: bool = False


class Interest:
    """A set of events that one or many watchers want: matched once for all of them."""

    __slots__ = ("collected", "feeds", "filters", "high", "low", "prev_kv", "synced")

    def __init__(self, low: bytes, high: bytes | None, filters: frozenset[EventType], prev_kv: bool) -> None:
        self.low = low
        self.high = high  # None: no end
        self.filters = filters
        self.prev_kv = prev_kv
        # Who is synced is told one by one (an ordered set), or in a feed.
        self.synced: dict[Watcher, None] = {}
        self.feeds: dict[FeedKey, Feed] = {}
        self.collected: list[Event] = []  # of the revision being published

    @property
    def is_single_key(self) -> bool:
        return self.high == self.low + b"\0"

    def wants(self, event: Event) -> bool:
        key = event.kv.key
        return key >= self.low and (self.high is None or key < self.high) and event.type not in self.filters

    def batch(self, events: Iterable[Event], history: History) -> Batch:
        """These events as they go out."""
        if not self.prev_kv:
            return tuple(WatchEvent(kind, kv, None) for kind, kv in events)
        return tuple(WatchEvent(kind, kv, history.previous(kv.key, kv.mod_revision)) for kind, kv in events)


class Watcher:
    """One watch of one stream."""

    __slots__ = (
        "feed_key",
        "fragment",
        "idle",
        "interest",
        "next_revision",
        "progress_notify",
        "stream",
        "watch_id",
    )

    def __init__(
        self, stream: WatchStream, watch_id: int, interest: Interest, request: WatchCreate, start: int
    ) -> None:
        self.stream = stream
        self.watch_id = watch_id
        self.interest = interest
        self.progress_notify = request.progress_notify
        self.fragment = request.fragment
        # Every event before it was queued already or is not wanted. In a feed it stands still.
        self.next_revision = start
        self.feed_key: FeedKey | None = None  # of the interest's feed that tells it
        self.idle = True  # nothing was sent since the last progress notification


def event_bytes(batch: Batch) -> int:
    """Roughly what a batch occupies, for bounding queues."""
    size = 0
    for _, kv, prev_kv in batch:
        size += len(kv.key) + len(kv.value) + 100
        if prev_kv is not None:
            size += len(prev_kv.value)
    return size
