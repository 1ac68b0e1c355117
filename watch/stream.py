"""One client's stream: its watchers, and one bounded queue of what it is to be told, in order.

Everything goes through that queue: answers, live events and events of the past. So what a
client reads is in the order in which it became true. Whoever has the queue emptied is either a
reader, who calls ``next``, or a sink (``push_to``), to which the stream writes by itself. With a sink
that keeps up, a stream's only watcher need not even queue: it is told in a feed (``watch.feed``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from kvstate.errors import Compacted
from watch.watcher import (
    INVALID_WATCH_ID,
    Batch,
    WatchCreate,
    Watcher,
    WatchResponse,
    event_bytes,
)

if TYPE_CHECKING:
    from watch.feed import Encode, Sink
    from watch.hub import Hub

DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream"
EMPTY_RANGE = "mvcc: watcher range is empty"
# How many of a stream's watchers may read history before the event loop gets its turn.
CATCH_UPS_PER_TURN = 8
POUR_BYTES = 64 << 10
"""About how much is written to a sink before it is asked whether it has room for more."""


class WatchStream:
    """Made by ``Hub.stream``. One reader calls ``next``, or a sink is set at once; requests may come at
    any time."""

    __slots__ = (
        "_closed",
        "_drain_waiters",
        "_encode",
        "_fed",
        "_held",
        "_hub",
        "_next_id",
        "_queue",
        "_queued_bytes",
        "_reader",
        "_sink",
        "_unsynced",
        "_watchers",
    )

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._watchers: dict[int, Watcher] = {}
        self._unsynced: deque[Watcher] = deque()
        self._next_id = 0
        self._queue: deque[WatchResponse] = deque()
        self._queued_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._drain_waiters: list[asyncio.Future[None]] = []
        self._sink: Sink | None = None
        self._encode: Encode | None = None
        self._held = False  # the sink has no room
        self._fed: Watcher | None = None  # our only watcher, if a feed tells it: then the queue is empty
        self._closed = False

    # Requests.

    def create(self, request: WatchCreate) -> None:
        """Begin to watch; the answer comes through the stream."""
        self.leave_feed()
        revision = self._hub.revision
        low = request.key or b"\0"
        high = _upper_bound(low, request.range_end)
        if high is not None and low >= high:
            self._refuse(revision, EMPTY_RANGE)
            return
        if request.start_revision < 0:
            self._refuse(revision, Compacted.message)
            return
        if request.watch_id == 0:
            while self._next_id in self._watchers:
                self._next_id += 1
            watch_id = self._next_id
            self._next_id += 1
        elif request.watch_id in self._watchers:
            self._refuse(revision, DUPLICATE_ID)
            return
        else:
            watch_id = request.watch_id
        interest = self._hub.interest(low, high, request.filters, request.prev_kv)
        start = request.start_revision or revision + 1
        watcher = self._watchers[watch_id] = Watcher(self, watch_id, interest, request, start)
        self._push(WatchResponse(watch_id, revision, created=True))
        if start > revision:
            interest.synced[watcher] = None
        else:
            self._unsynced.append(watcher)

    def cancel(self, watch_id: int) -> None:
        """Stop a watch. An unknown id is met with silence, as in etcd."""
        watcher = self._watchers.get(watch_id)
        if watcher is not None:
            self.leave_feed()
            self._remove(watcher)
            self._push(WatchResponse(watch_id, self._hub.revision, canceled=True))

    def request_progress(self) -> None:
        """Tell the client up to which revision it has everything: only if that is true of all its
        watchers; otherwise nothing is said and the client asks again."""
        self.leave_feed()
        if not self._unsynced:
            self._push(WatchResponse(INVALID_WATCH_ID, self._hub.revision))

    def close(self) -> None:
        """The client is gone, or the node stops."""
        if self._closed:
            return
        self._closed = True
        self._fed = None
        for watcher in list(self._watchers.values()):
            self._remove(watcher)
        self._queue.clear()
        self._hub.forget(self)
        self._release_drain_waiters()
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.ended()
        else:
            self._wake()

    # The sink's side.

    def push_to(self, sink: Sink, encode: Encode) -> None:
        """From now on write to ``sink`` what there is to say, as soon as it has room. Before the first
        request; there is no reader then."""
        if self._closed:
            sink.ended()
        else:
            self._sink, self._encode = sink, encode

    def hold(self) -> None:
        """The sink has no room."""
        self._held = True
        self.leave_feed()

    def resume(self) -> None:
        """The sink has room again."""
        self._held = False
        self._wake()

    def leave_feed(self) -> None:
        """Be told through the queue, until that is empty again."""
        watcher, self._fed = self._fed, None
        if watcher is None:
            return
        for revision, batch in self._hub.leave_feed(watcher):
            if watcher in watcher.interest.synced:  # not once it fell behind
                self.deliver(watcher, revision, batch, event_bytes(batch))
        self._wake()

    def pour(self) -> None:
        """Write what is queued, as long as the sink has room; then read a piece of the past, if one is
        missing; else be told with the others."""
        sink, encode = self._sink, self._encode
        if sink is None or encode is None:
            return
        queue = self._queue
        while queue and not self._held:
            pieces: list[bytes] = []
            size = 0
            while queue and size < POUR_BYTES:
                response = queue.popleft()
                self._queued_bytes -= event_bytes(response.events)
                pieces.append(encode(response))
                size += len(pieces[-1])
            sink.send(b"".join(pieces))
        if self._held:
            return
        self._release_drain_waiters()
        if self._unsynced:
            self._catch_up()
            self._wake()
        elif self._fed is None and len(self._watchers) == 1:
            (watcher,) = self._watchers.values()
            if self._hub.join_feed(watcher, sink, encode):
                self._fed = watcher

    # The reader's side.

    @property
    def is_full(self) -> bool:
        """Whether the reader should be let to catch up before more is asked."""
        hub = self._hub
        return len(self._queue) >= hub.queue_responses_max or self._queued_bytes >= hub.queue_bytes_max

    @property
    def has_unread(self) -> bool:
        """Whether something waits for the reader."""
        return bool(self._queue)

    @property
    def is_lagging(self) -> bool:
        """Whether one of its watchers still reads the past."""
        return bool(self._unsynced)

    async def drained(self) -> None:
        """Wait until the reader has taken what is queued."""
        if self._queue:
            waiter = asyncio.get_running_loop().create_future()
            self._drain_waiters.append(waiter)
            await waiter

    async def next(self) -> list[WatchResponse]:
        """Wait until there is something to say, and take all of it. Empty when closed."""
        while not self._queue and not self._closed:
            if self._unsynced:
                self._catch_up()
                # Reading the past is work: let others have a turn in between.
                await asyncio.sleep(0)
            else:
                self._reader = asyncio.get_running_loop().create_future()
                await self._reader
        taken = list(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        self._release_drain_waiters()
        return taken

    # The hub's side.

    def deliver(self, watcher: Watcher, revision: int, batch: Batch, size: int) -> None:
        """A synced watcher's events of ``revision``; without room it becomes unsynced."""
        if self.is_full:
            watcher.next_revision = revision
            self.fall_behind(watcher)
            return
        watcher.next_revision = revision + 1
        self._push_events(watcher, revision, batch, size)

    def fall_behind(self, watcher: Watcher) -> None:
        """A synced watcher will read from history what it needs next."""
        del watcher.interest.synced[watcher]
        self._unsynced.append(watcher)
        self._wake()

    def notify_progress(self) -> None:
        revision = self._hub.revision
        for watcher in self._watchers.values():
            if watcher.progress_notify:
                self.leave_feed()
            if self.is_full:
                return
            if watcher.progress_notify and watcher.idle and watcher in watcher.interest.synced:
                self._push(WatchResponse(watcher.watch_id, revision))
            watcher.idle = True

    # Within.

    def _catch_up(self) -> None:
        """Let some unsynced watchers read a piece of the past each, in turn."""
        for _ in range(min(CATCH_UPS_PER_TURN, len(self._unsynced))):
            if self.is_full:
                return
            watcher = self._unsynced.popleft()
            self._read_past(watcher)

    def _read_past(self, watcher: Watcher) -> None:
        hub, interest = self._hub, watcher.interest
        compact_revision = hub.history.compact_revision
        try:
            if watcher.next_revision < compact_revision:
                raise Compacted(compact_revision)
            found, complete_to = hub.read_history(watcher.next_revision)
        except Compacted:
            self._cancel_compacted(watcher, compact_revision)
            return
        wanted = [event for _, events in found for event in events if interest.wants(event)]
        watcher.next_revision = complete_to + 1
        if wanted:
            batch = interest.batch(wanted, hub.history)
            self._push_events(watcher, complete_to, batch, event_bytes(batch))
        # No await since the history was read: nothing can have been published in between.
        if complete_to >= hub.revision:
            interest.synced[watcher] = None
        else:
            self._unsynced.append(watcher)

    def _cancel_compacted(self, watcher: Watcher, compact_revision: int) -> None:
        self._remove(watcher)
        self._push(
            WatchResponse(
                watcher.watch_id, self._hub.revision, canceled=True, compact_revision=compact_revision
            )
        )

    def _refuse(self, revision: int, reason: str) -> None:
        self._push(
            WatchResponse(INVALID_WATCH_ID, revision, created=True, canceled=True, cancel_reason=reason)
        )

    def _remove(self, watcher: Watcher) -> None:
        del self._watchers[watcher.watch_id]
        if watcher in self._unsynced:
            self._unsynced.remove(watcher)
        self._hub.release(watcher)

    def _push_events(self, watcher: Watcher, revision: int, batch: Batch, size: int) -> None:
        watcher.idle = False
        self._queued_bytes += size
        self._push(WatchResponse(watcher.watch_id, revision, events=batch, may_fragment=watcher.fragment))

    def _push(self, response: WatchResponse) -> None:
        self._queue.append(response)
        self._wake()

    def _release_drain_waiters(self) -> None:
        waiters, self._drain_waiters = self._drain_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _wake(self) -> None:
        if self._sink is not None:
            if not self._held:
                self._hub.ready(self)
        elif self._reader is not None:
            if not self._reader.done():
                self._reader.set_result(None)
            self._reader = None


def _upper_bound(low: bytes, range_end: bytes) -> bytes | None:
    """The exclusive end of what is watched: None if there is none."""
    if not range_end:
        return low + b"\0"
    return None if range_end == b"\0" else range_end
