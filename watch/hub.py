"""Where events are published and watchers are kept.

``publish`` finds the interests that an event touches by a dictionary (single keys) and an
interval table (ranges), so it costs by what matches and not by how many watch. Watchers that
are unsynced are not in any interest's list: publishing never looks at them, nor at those that a
feed tells. What feeds and streams with a sink have to send goes out in the loop's next turn, so
that all that is applied in one go is one write for each client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from kvstate.types import Event, EventType
from watch.feed import Encode, Feed, Sink
from watch.history import BYTES_PER_READ, REVISIONS_PER_READ, History
from watch.intervals import Intervals
from watch.stream import WatchStream
from watch.watcher import Batch, Interest, Watcher, event_bytes

# A pass that applies more than this sends it in pieces: it is what a slow sink is sent too much, at most.
PENDING_BYTES_MAX = 64 << 10

_InterestKey = tuple[bytes, bytes | None, frozenset[EventType], bool]


class Hub:
    """See the module's docstring. Queue limits are per stream. ``call_soon`` lets a function be called in
    the next turn; by default it is that of the running loop, which only streams with a sink need."""

    def __init__(
        self,
        history: History,
        *,
        queue_responses_max: int = 1024,
        queue_bytes_max: int = 4 << 20,
        revisions_per_read: int = REVISIONS_PER_READ,
        call_soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self.history = history
        self._revisions_per_read = revisions_per_read
        self.queue_responses_max = queue_responses_max
        self.queue_bytes_max = queue_bytes_max
        self._interests: dict[_InterestKey, tuple[Interest, int]] = {}  # with how many watchers refer to it
        self._points: dict[bytes, list[Interest]] = {}
        self._ranges: Intervals[Interest] = Intervals()
        self._streams: dict[WatchStream, None] = {}
        self._closed = False
        self._call_soon = call_soon
        self._flush_is_due = False
        self._pending: list[Feed] = []  # feeds that have something to send
        self._pending_bytes = 0
        self._ready: dict[WatchStream, None] = {}  # streams that have, and may
        self._told_to = history.revision  # synced watchers have been told everything up to here
        # The last read of history: watchers that fell behind together catch up together.
        self._read: tuple[int, int, list[tuple[int, tuple[Event, ...]]]] | None = None

    @property
    def revision(self) -> int:
        return self.history.revision

    @property
    def watcher_count(self) -> int:
        return sum(count for _, count in self._interests.values())

    def stream(self) -> WatchStream:
        """A new stream; ``close`` it when its client is gone."""
        stream = WatchStream(self)
        self._streams[stream] = None
        if self._closed:
            stream.close()
        return stream

    def close(self) -> None:
        """The node stops: end every stream, and those that are still asked for; clients go on elsewhere."""
        self._flush()
        self._closed = True
        for stream in list(self._streams):
            stream.close()

    def publish(self, revision: int, events: Iterable[Event]) -> None:
        """Tell the synced watchers of all the events of ``revision``. Revisions must ascend, and
        the history must already have them."""
        self._told_to = revision
        if not self._interests:
            return
        touched: dict[Interest, None] = {}
        points, ranges = self._points, self._ranges
        for event in events:
            key = event.kv.key
            for interest in (*points.get(key, ()), *ranges.covering(key)):
                if event.type not in interest.filters and (interest.feeds or interest.synced):
                    interest.collected.append(event)
                    touched[interest] = None
        for interest in touched:
            collected, interest.collected = interest.collected, []
            batch = interest.batch(collected, self.history)
            size = event_bytes(batch)
            if interest.feeds:
                self._pending_bytes += size
                for feed in interest.feeds.values():
                    if not feed.pending:
                        self._pending.append(feed)
                    feed.pending.append((revision, batch))
            for watcher in list(interest.synced):
                if watcher.next_revision <= revision:
                    watcher.stream.deliver(watcher, revision, batch, size)
        if self._pending_bytes > PENDING_BYTES_MAX:
            self._flush_feeds()
        elif self._pending:
            self._flush_soon()

    def restored(self) -> None:
        """The history has jumped ahead: a snapshot took its place. Watchers that are owed a part of it
        read it from there; those that wait for a future revision go on waiting (etcd 15271, 20221)."""
        self._read = None
        told_to, self._told_to = self._told_to, self.revision
        for interest, _ in self._interests.values():
            for feed in list(interest.feeds.values()):
                for watcher in list(feed.sinks):
                    watcher.stream.leave_feed()
            for watcher in list(interest.synced):
                # Up to here it has everything, even if none of that was its concern.
                watcher.next_revision = max(watcher.next_revision, told_to + 1)
                if watcher.next_revision <= self.revision:
                    watcher.stream.fall_behind(watcher)

    def tick(self) -> None:
        """Time for progress notifications; whoever owns the hub knows the interval."""
        for stream in list(self._streams):
            stream.notify_progress()
        for interest, _ in self._interests.values():
            for feed in interest.feeds.values():
                feed.told = False

    # For streams.

    def ready(self, stream: WatchStream) -> None:
        """The stream has something to send and may: it will be asked to ``pour``."""
        self._ready[stream] = None
        self._flush_soon()

    def join_feed(self, watcher: Watcher, sink: Sink, encode: Encode) -> bool:
        """Let a synced watcher be told with others, unless it waits for a revision to come. It must have
        been told everything, and feeds must have nothing pending: so only within ``pour``."""
        interest, key = watcher.interest, (watcher.watch_id, watcher.fragment, encode)
        if watcher.next_revision > self._told_to + 1:
            return False
        feed = interest.feeds.get(key)
        if feed is None:
            feed = interest.feeds[key] = Feed(key)
        assert not feed.pending
        del interest.synced[watcher]
        feed.sinks[watcher] = sink
        watcher.feed_key = key
        return True

    def leave_feed(self, watcher: Watcher) -> list[tuple[int, Batch]]:
        """Let a watcher be told by itself again: returns what it was not told yet."""
        feed = self._drop_from_feed(watcher)
        watcher.idle = watcher.idle and not feed.told
        watcher.interest.synced[watcher] = None
        return feed.pending

    def read_history(self, start_revision: int) -> tuple[list[tuple[int, tuple[Event, ...]]], int]:
        """Some whole revisions from ``start_revision`` on, and the revision up to which they are
        complete. Raises Compacted."""
        current = self.history.revision
        if self._read is None or self._read[:2] != (start_revision, current):
            found = self.history.events(start_revision, self._revisions_per_read, BYTES_PER_READ)
            self._read = (start_revision, current, found)
        found = self._read[2]
        complete_to = current
        if found and (len(found) >= self._revisions_per_read or found[-1][0] < current):
            complete_to = found[-1][0]
        return found, complete_to

    def interest(
        self, low: bytes, high: bytes | None, filters: frozenset[EventType], prev_kv: bool
    ) -> Interest:
        """The interest for a new watcher; give it back with ``release``."""
        key = (low, high, filters, prev_kv)
        interest, count = self._interests.get(key) or (Interest(low, high, filters, prev_kv), 0)
        self._interests[key] = (interest, count + 1)
        if count == 0:
            if interest.is_single_key:
                self._points.setdefault(low, []).append(interest)
            else:
                self._ranges.add(interest, low, high)
        return interest

    def release(self, watcher: Watcher) -> None:
        """The watcher is gone."""
        interest = watcher.interest
        interest.synced.pop(watcher, None)
        if watcher.feed_key is not None:
            self._drop_from_feed(watcher)
        key = (interest.low, interest.high, interest.filters, interest.prev_kv)
        _, count = self._interests[key]
        if count > 1:
            self._interests[key] = (interest, count - 1)
            return
        del self._interests[key]
        if interest.is_single_key:
            self._points[interest.low].remove(interest)
            if not self._points[interest.low]:
                del self._points[interest.low]
        else:
            self._ranges.remove(interest)

    def forget(self, stream: WatchStream) -> None:
        self._streams.pop(stream, None)
        self._ready.pop(stream, None)

    # Sending.

    def _flush_soon(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            call_soon = self._call_soon or asyncio.get_running_loop().call_soon
            call_soon(self._flush)

    def _flush(self) -> None:
        """Feeds first: those that join one while they pour must find nothing pending in it."""
        self._flush_is_due = False
        self._flush_feeds()
        ready, self._ready = self._ready, {}
        for stream in ready:
            stream.pour()

    def _flush_feeds(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        for feed in pending:
            feed.flush()

    def _drop_from_feed(self, watcher: Watcher) -> Feed:
        interest, key = watcher.interest, watcher.feed_key
        assert key is not None
        feed = interest.feeds[key]
        del feed.sinks[watcher]
        if not feed.sinks:
            del interest.feeds[key]
        watcher.feed_key = None
        return feed
