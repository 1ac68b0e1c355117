"""Streams of watches against a model: whatever is published, read, cancelled or compacted, each
watcher gets exactly the history of its range from its start."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from kvstate.errors import Compacted
from kvstate.types import Event, EventType, KeyValue
from watch.hub import Hub
from watch.intervals import Intervals
from watch.stream import WatchStream
from watch.watcher import WatchCreate, WatchEvent, WatchResponse


class FakeHistory:
    """All events ever, with a compact revision."""

    def __init__(self) -> None:
        self.revision = 1
        self.compact_revision = -1
        self.all: dict[int, tuple[Event, ...]] = {}
        self.reads = 0

    def add(self, *changes: tuple[bytes, bytes | None]) -> tuple[Event, ...]:
        self.revision += 1
        events = tuple(
            Event(EventType.DELETE, KeyValue(key, 0, self.revision, 0, b"", 0))
            if value is None
            else Event(EventType.PUT, KeyValue(key, 0, self.revision, 1, value, 0))
            for key, value in changes
        )
        self.all[self.revision] = events
        return events

    def events(self, start_revision: int, limit_revisions: int, limit_bytes: int):
        self.reads += 1
        if start_revision < self.compact_revision:
            raise Compacted(self.compact_revision)
        found = [(r, e) for r, e in sorted(self.all.items()) if r >= start_revision]
        return found[: min(limit_revisions, 3)] if self.reads % 2 else found[:limit_revisions]

    def previous(self, key: bytes, mod_revision: int) -> KeyValue | None:
        for revision in range(mod_revision - 1, max(self.compact_revision, 1) - 1, -1):
            for event in self.all.get(revision, ()):
                if event.kv.key == key:
                    return event.kv if event.type == EventType.PUT else None
        return None


def read_now(stream: WatchStream, patience: int = 60) -> list[WatchResponse]:
    """What the stream has to say before it would have to wait."""

    async def read() -> list[WatchResponse]:
        task = asyncio.ensure_future(stream.next())
        for _ in range(patience):
            if task.done():
                return task.result()
            await asyncio.sleep(0)
        task.cancel()
        return []

    return asyncio.run(read())


KEYS = st.sampled_from([b"a", b"aa", b"b", b"c", b"\xff"])
ENDS = st.sampled_from([b"", b"", b"\0", b"b", b"c", b"\xff"])


class Watched:
    """What one watcher should have seen, and has."""

    def __init__(self, request: WatchCreate, start: int, stream: int) -> None:
        self.request = request
        self.start = start
        self.stream = stream
        self.seen: list[tuple[int, WatchEvent]] = []
        self.claimed = start - 1  # the highest revision that a response has spoken for
        self.over = False

    def wants(self, event: Event) -> bool:
        key, end = self.request.key, self.request.range_end
        inside = (
            event.kv.key == key if not end else event.kv.key >= key and (end == b"\0" or event.kv.key < end)
        )
        return inside and event.type not in self.request.filters

    def expected(self, history: FakeHistory, until: int) -> list[tuple[int, Event]]:
        return [
            (revision, event)
            for revision, events in sorted(history.all.items())
            if self.start <= revision <= until
            for event in events
            if self.wants(event)
        ]


class Streams(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.history = FakeHistory()
        # Queues so small that every watcher falls behind sooner or later.
        self.hub = Hub(self.history, queue_responses_max=4, queue_bytes_max=600)
        self.streams = [self.hub.stream(), self.hub.stream()]
        self.watched: dict[tuple[int, int], Watched] = {}
        self.refused = 0

    @rule(
        changes=st.lists(
            st.tuples(KEYS, st.one_of(st.none(), st.binary(max_size=90))), min_size=1, max_size=3
        )
    )
    def publish(self, changes: list) -> None:
        events = self.history.add(*changes)
        self.hub.publish(self.history.revision, events)

    @rule(
        which=st.integers(0, 1),
        key=KEYS,
        end=ENDS,
        offset=st.one_of(st.none(), st.integers(-8, 4)),
        filters=st.sets(st.sampled_from(EventType)).map(frozenset),
        prev_kv=st.booleans(),
    )
    def create(self, which: int, key: bytes, end: bytes, offset: int | None, filters, prev_kv: bool) -> None:
        start = 0 if offset is None else max(self.history.revision + offset, 1)
        request = WatchCreate(key, end, start, filters=filters, prev_kv=prev_kv)
        self.pending = Watched(request, start or self.history.revision + 1, which)
        if end and end != b"\0" and key >= end:
            return
        self.read(which)
        if not self.streams[which].is_full:
            self.streams[which].create(request)
            self.read(which, created=self.pending)

    @rule(which=st.integers(0, 1))
    def reader_reads(self, which: int) -> None:
        self.read(which)

    @rule(back=st.integers(0, 5))
    def compact(self, back: int) -> None:
        self.history.compact_revision = max(self.history.compact_revision, self.history.revision - back)

    @precondition(lambda self: self.watched)
    @rule(data=st.data())
    def cancel(self, data) -> None:
        which, watch_id = data.draw(st.sampled_from(sorted(self.watched)))
        self.streams[which].cancel(watch_id)
        self.read(which)

    @rule(which=st.integers(0, 1))
    def progress(self, which: int) -> None:
        self.streams[which].request_progress()
        self.hub.tick()

    def read(self, which: int, created: Watched | None = None) -> None:
        for response in read_now(self.streams[which]):
            self.judge(which, response, created)

    def judge(self, which: int, response: WatchResponse, created: Watched | None) -> None:
        watched = self.watched.get((which, response.watch_id))
        if response.watch_id == -1:
            for (stream, _), one in self.watched.items():
                if stream == which and not one.over:
                    self.check_complete(one, response.revision)
        elif response.created:
            assert watched is None
            assert created is not None
            self.watched[which, response.watch_id] = created
        elif response.canceled:
            assert watched is not None
            watched.over = True
            if response.compact_revision:
                missed = [
                    r for r, _ in watched.expected(self.history, self.history.revision) if r > watched.claimed
                ]
                assert watched.claimed + 1 < self.history.compact_revision or not missed
            del self.watched[which, response.watch_id]
        else:
            assert watched is not None, "an event after the cancellation"
            watched.seen += [(event.kv.mod_revision, event) for event in response.events]
            self.check_complete(watched, response.revision)

    def check_complete(self, watched: Watched, revision: int) -> None:
        """Up to the header's revision, and no further, the watcher has everything, once, in order."""
        seen = [(r, Event(event.type, event.kv)) for r, event in watched.seen]
        assert seen == watched.expected(self.history, max(revision, watched.claimed))
        watched.claimed = max(watched.claimed, revision)

    def teardown(self) -> None:
        """Every reader reads to the end: then each watcher that lives has everything."""
        for which, stream in enumerate(self.streams):
            while responses := read_now(stream):
                for response in responses:
                    self.judge(which, response, None)
            stream.close()
        for watched in self.watched.values():
            self.check_complete(watched, self.history.revision)
        assert self.hub.watcher_count == 0


Streams.TestCase.settings = settings(max_examples=120, stateful_step_count=40)
TestStreams = Streams.TestCase


@given(
    st.lists(st.tuples(st.binary(max_size=2), st.one_of(st.none(), st.binary(max_size=2))), max_size=12),
    st.lists(st.binary(max_size=3), max_size=10),
    st.data(),
)
def test_intervals_are_found_as_by_comparing(ranges, keys, data) -> None:
    """The interval table finds what comparing with every range would, also after removals."""
    table: Intervals[int] = Intervals()
    ranges = {n: (low, high) for n, (low, high) in enumerate(ranges) if high is None or low < high}
    for number, (low, high) in ranges.items():
        table.add(number, low, high)
    for number in data.draw(st.lists(st.sampled_from(sorted(ranges)), unique=True)) if ranges else []:
        table.remove(number)
        del ranges[number]
    for key in keys:
        expected = [n for n, (low, high) in ranges.items() if key >= low and (high is None or key < high)]
        assert list(table.covering(key)) == expected


def test_a_reader_that_stalls_costs_a_bounded_queue() -> None:
    """A hundred thousand events later a stream that nobody reads holds no more than its limit, and
    publishing does not look at its watchers any more; when it is read, nothing is missing."""
    history = FakeHistory()
    hub = Hub(history, queue_responses_max=50, queue_bytes_max=1 << 20)
    stalled, lively = hub.stream(), hub.stream()
    for stream in (stalled, lively):
        stream.create(WatchCreate(b"a", b"b"))
    read_now(lively)
    received = 0
    for number in range(5000):
        events = history.add((b"a%d" % number, b"v" * 100))
        hub.publish(history.revision, events)
        if number % 10 == 0:
            received += sum(len(response.events) for response in read_now(lively))
    first = read_now(stalled)
    assert len(first) <= 51
    total = sum(len(response.events) for response in first)
    while responses := read_now(stalled):
        total += sum(len(response.events) for response in responses)
    assert total == 5000
    assert received >= 4990


def test_watchers_of_one_range_share_their_events() -> None:
    """A thousand watchers of one prefix get the very same tuple, so that it is encoded once."""
    history = FakeHistory()
    hub = Hub(history)
    streams = [hub.stream() for _ in range(1000)]
    for stream in streams:
        stream.create(WatchCreate(b"p/", b"p0", prev_kv=True))
    hub.publish(2, history.add((b"p/x", b"1")))
    batches = {id(read_now(stream)[-1].events) for stream in streams}
    assert len(batches) == 1


@pytest.mark.parametrize("future", [3, 10])
def test_a_watch_of_the_future_gets_nothing_from_before(future: int) -> None:
    """etcd's bugs 15271 and 20221: a watch from a revision to come must not see older events."""
    history = FakeHistory()
    hub = Hub(history)
    stream = hub.stream()
    stream.create(WatchCreate(b"a", start_revision=future))
    for _ in range(12):
        events = history.add((b"a", b"v"))
        hub.publish(history.revision, events)
    revisions = [event.kv.mod_revision for response in read_now(stream) for event in response.events]
    assert revisions == list(range(future, 14))


def test_closing_wakes_the_reader() -> None:
    """A stream that is closed says so to whoever waits on it."""

    async def scenario() -> list[WatchResponse]:
        stream = Hub(FakeHistory()).stream()
        reading = asyncio.ensure_future(stream.next())
        await asyncio.sleep(0)
        stream.close()
        return await asyncio.wait_for(reading, 1)

    assert asyncio.run(scenario()) == []
