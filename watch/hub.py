"""Where events are published and watchers are kept.

``publish`` finds the interests that an event touches by a dictionary (single keys) and an
interval table (ranges), so it costs by what matches and not by how many watch. Watchers that
are unsynced are not in any interest's list: publishing never looks at them.
"""

from __future__ import annotations

from collections.abc import Iterable

from kvstate.types import Event, EventType
from watch.history import BYTES_PER_READ, REVISIONS_PER_READ, History
from watch.intervals import Intervals
from watch.stream import WatchStream
from watch.watcher import Interest, Watcher, event_bytes

_InterestKey = tuple[bytes, bytes | None, frozenset[EventType], bool]


class Hub:
    """See the module's docstring. Queue limits are per stream."""

    def __init__(
        self,
        history: History,
        *,
        queue_responses_max: int = 1024,
        queue_bytes_max: int = 4 << 20,
        revisions_per_read: int = REVISIONS_PER_READ,
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
                if event.type not in interest.filters and interest.synced:
                    interest.collected.append(event)
                    touched[interest] = None
        for interest in touched:
            collected, interest.collected = interest.collected, []
            batch = interest.batch(collected, self.history)
            size = event_bytes(batch)
            for watcher in list(interest.synced):
                if watcher.next_revision <= revision:
                    watcher.stream.deliver(watcher, revision, batch, size)

    def restored(self) -> None:
        """The history has jumped ahead: a snapshot took its place. Watchers that are owed a part of it
        read it from there; those that wait for a future revision go on waiting (etcd 15271, 20221)."""
        self._read = None
        told_to, self._told_to = self._told_to, self.revision
        for interest, _ in self._interests.values():
            for watcher in list(interest.synced):
                # Up to here it has everything, even if none of that was its concern.
                watcher.next_revision = max(watcher.next_revision, told_to + 1)
                if watcher.next_revision <= self.revision:
                    watcher.stream.fall_behind(watcher)

    def tick(self) -> None:
        """Time for progress notifications; whoever owns the hub knows the interval."""
        for stream in list(self._streams):
            stream.notify_progress()

    # For streams.

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
