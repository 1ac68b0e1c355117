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

    @rule(
        revisions=st.lists(st.tuples(KEYS, st.one_of(st.none(), st.binary(max_size=90))), max_size=6),
        compacted=st.one_of(st.none(), st.integers(0, 8)),
    )
    def restore(self, revisions: list, compacted: int | None) -> None:
        """A snapshot came: history has gone on unpublished, and a part of it may be compacted already."""
        for change in revisions:
            self.history.add(change)
        if compacted is not None:
            self.compact(compacted)
        self.hub.restored()

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
        for response in self.take(which):
            self.judge(which, response, created)

    def take(self, which: int) -> list[WatchResponse]:
        return read_now(self.streams[which])

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
            while responses := self.take(which):
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


def revisions(responses: list[WatchResponse]) -> list[int]:
    """Of the events in them; nothing else may be in them than events and the answer to the creation."""
    assert not any(response.canceled for response in responses)
    return [event.kv.mod_revision for response in responses for event in response.events]


def read_all(stream: WatchStream) -> list[WatchResponse]:
    """What the stream has to say until it waits for what is to come."""
    responses = []
    while more := read_now(stream):
        responses += more
    return responses


def publish(hub: Hub, history: FakeHistory, *changes: tuple[bytes, bytes | None]) -> None:
    hub.publish(history.revision + 1, history.add(*changes))


@pytest.fixture
def history() -> FakeHistory:
    return FakeHistory()


@pytest.fixture
def hub(history: FakeHistory) -> Hub:
    return Hub(history)


def test_after_a_snapshot_watchers_catch_up(history: FakeHistory, hub: Hub) -> None:
    """What a snapshot brought and nobody published is read from the new history: all that a watcher is owed,
    once and in order, and then what is published goes on."""
    one, range_, deletes = streams = [hub.stream() for _ in range(3)]
    one.create(WatchCreate(b"a"))
    range_.create(WatchCreate(b"a", b"c"))
    deletes.create(WatchCreate(b"\0", b"\0", filters=frozenset({EventType.PUT})))
    publish(hub, history, (b"a", b"2"))
    for revision in range(3, 20):
        key = [b"a", b"b", b"c"][revision % 3]
        history.add((key, b"v" if revision % 4 else None))
    hub.restored()
    publish(hub, history, (b"a", b"20"), (b"b", None))
    for stream, wanted in zip(
        streams,
        (
            lambda key, kind: key == b"a",
            lambda key, kind: key < b"c",
            lambda key, kind: kind is EventType.DELETE,
        ),
        strict=True,
    ):
        responses = read_all(stream)
        expected = [
            r for r, events in sorted(history.all.items()) for e in events if wanted(e.kv.key, e.type)
        ]
        assert revisions(responses) == expected
    publish(hub, history, (b"a", b"21"))
    assert revisions(read_now(one)) == [21]
    assert not one.is_lagging


def test_a_reader_that_waits_is_woken_by_a_snapshot(history: FakeHistory, hub: Hub) -> None:
    """Whoever waits for the next event gets what the snapshot brought without anything being published."""

    async def scenario() -> list[WatchResponse]:
        stream = hub.stream()
        stream.create(WatchCreate(b"a"))
        await stream.next()
        reading = asyncio.ensure_future(stream.next())
        await asyncio.sleep(0)
        history.add((b"a", b"v"))
        hub.restored()
        return await asyncio.wait_for(reading, 1)

    assert revisions(asyncio.run(scenario())) == [2]


@pytest.mark.parametrize("start", [7, 8, 12])
def test_a_watch_of_the_future_goes_on_waiting_over_a_snapshot(
    start: int, history: FakeHistory, hub: Hub
) -> None:
    """etcd's bug 20221: a snapshot that does not reach the revision a watch starts at brings it nothing;
    the watch begins there all the same."""
    stream = hub.stream()
    stream.create(WatchCreate(b"a", start_revision=start))
    publish(hub, history, (b"a", b"2"))
    for _ in range(3, 7):
        history.add((b"a", b"v"))
    hub.restored()  # at revision 6
    assert not stream.is_lagging
    assert revisions(read_now(stream)) == []
    for _ in range(7, 15):
        publish(hub, history, (b"a", b"v"))
    assert revisions(read_now(stream)) == list(range(start, 15))


@pytest.mark.parametrize("start", [3, 6])
def test_a_watch_of_the_future_begins_within_a_snapshot(start: int, history: FakeHistory, hub: Hub) -> None:
    """A snapshot that reaches beyond the revision a watch starts at is read from there on, not before."""
    stream = hub.stream()
    stream.create(WatchCreate(b"a", start_revision=start))
    for _ in range(2, 7):
        history.add((b"a", b"v"))
    history.compact_revision = start  # what the watch does not want may be gone
    hub.restored()
    publish(hub, history, (b"a", b"7"))
    assert revisions(read_all(stream)) == list(range(start, 8))


@pytest.mark.parametrize("compacted", [3, 9, 10, 11])
def test_a_quiet_watcher_is_not_cancelled_over_what_it_does_not_lack(
    compacted: int, history: FakeHistory, hub: Hub
) -> None:
    """A watcher of a key that changed long ago has been told everything up to the last revision published:
    a new history that begins behind that key's last event, and no later than the next revision, owes it
    nothing but what is new."""
    stream = hub.stream()
    stream.create(WatchCreate(b"quiet"))
    publish(hub, history, (b"quiet", b"2"))
    assert revisions(read_now(stream)) == [2]
    for _ in range(3, 11):
        publish(hub, history, (b"busy", b"v"))
    for _ in range(11, 16):
        history.add((b"busy", b"v"))
    history.compact_revision = compacted
    hub.restored()
    assert read_now(stream) == []
    assert not stream.is_lagging
    publish(hub, history, (b"quiet", b"16"))
    assert revisions(read_now(stream)) == [16]


def test_a_watcher_that_lacks_what_is_compacted_is_cancelled(history: FakeHistory, hub: Hub) -> None:
    """A new history that begins behind what a watcher was told last may lack events of its: it is told so,
    and from which revision on a watch may start."""
    stream = hub.stream()
    stream.create(WatchCreate(b"a"))
    stream.create(WatchCreate(b"a", start_revision=13))
    publish(hub, history, (b"a", b"2"))
    read_now(stream)
    for _ in range(3, 16):
        history.add((b"a", b"v"))
    history.compact_revision = 4
    hub.restored()
    responses = read_all(stream)
    [cancellation] = [response for response in responses if response.canceled]
    assert cancellation == WatchResponse(0, 15, canceled=True, compact_revision=4)
    responses.remove(cancellation)
    assert revisions(responses) == [13, 14, 15]  # the other lacks nothing
    assert hub.watcher_count == 1


def test_a_watcher_that_had_fallen_behind_goes_on_after_a_snapshot(history: FakeHistory) -> None:
    """Who was reading the past when the snapshot came reads on where it stood, also in what was read from
    the old history for others."""
    hub = Hub(history, revisions_per_read=2)
    stream, other = hub.stream(), hub.stream()
    for _ in range(2, 9):
        publish(hub, history, (b"a", b"v"))
    stream.create(WatchCreate(b"a", start_revision=2))
    assert revisions(read_now(stream)) == []
    responses = read_now(stream)
    for _ in range(9, 13):
        history.add((b"a", b"v"))
    hub.restored()
    other.create(WatchCreate(b"a", start_revision=2))
    for reader, got in ((stream, responses), (other, [])):
        got += read_all(reader)
        assert revisions(got) == list(range(2, 13))


def test_a_snapshot_that_brings_nothing_disturbs_nobody(history: FakeHistory, hub: Hub) -> None:
    """One at the very revision that was published last."""
    stream = hub.stream()
    stream.create(WatchCreate(b"a"))
    publish(hub, history, (b"a", b"2"))
    history.compact_revision = 2
    hub.restored()
    assert not stream.is_lagging
    publish(hub, history, (b"a", b"3"))
    assert revisions(read_now(stream)) == [2, 3]


def test_closing_wakes_the_reader() -> None:
    """A stream that is closed says so to whoever waits on it."""

    async def scenario() -> list[WatchResponse]:
        stream = Hub(FakeHistory()).stream()
        reading = asyncio.ensure_future(stream.next())
        await asyncio.sleep(0)
        stream.close()
        return await asyncio.wait_for(reading, 1)

    assert asyncio.run(scenario()) == []


async def test_a_hub_that_closes_ends_all_streams(hub: Hub) -> None:
    """Those that wait, and those that come later; closing one again does no harm."""
    stream = hub.stream()
    stream.create(WatchCreate(key=b"a"))
    assert await stream.next()
    waiting = asyncio.ensure_future(stream.next())
    await asyncio.sleep(0)
    hub.close()
    assert await waiting == []
    assert await hub.stream().next() == []
    stream.close()
    assert hub.watcher_count == 0
