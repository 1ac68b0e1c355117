"""Streams that write to a sink: the same promises as with a reader, and one write for what one turn
brought, the same for all that are told the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.watch.test_hub import FakeHistory, Streams, revisions
from watch.feed import Encode
from watch.hub import PENDING_BYTES_MAX, Hub
from watch.stream import WatchStream
from watch.watcher import WatchCreate, WatchResponse


class Turns:
    """A loop's turns, taken when the test says so."""

    def __init__(self) -> None:
        self._due: list[Callable[[], None]] = []

    def call_soon(self, function: Callable[[], None]) -> None:
        self._due.append(function)

    def take_one(self) -> None:
        due, self._due = self._due, []
        for function in due:
            function()

    def take_all(self) -> None:
        for _ in range(100):
            self.take_one()
            if not self._due:
                return
        raise AssertionError("a hundred turns, and still something is due")


class Wire:
    """Bytes that stand for responses, so that it can be seen which are the same."""

    def __init__(self) -> None:
        self.encoded: list[WatchResponse] = []

    def encode(self, response: WatchResponse) -> bytes:
        self.encoded.append(response)
        return b"%d;" % (len(self.encoded) - 1)

    def decode(self, data: bytes) -> list[WatchResponse]:
        return [self.encoded[int(number)] for number in data.split(b";")[:-1]]


class FakeSink:
    """A client's socket with room for some responses."""

    def __init__(self, stream: WatchStream, wire: Wire, room: int = 1_000_000) -> None:
        self._stream = stream
        self._wire = wire
        self.room = room
        self.is_full = False
        self.written: list[bytes] = []
        self.has_ended = False
        stream.push_to(self, self._encode)

    @property
    def _encode(self) -> Encode:
        return self._wire.encode

    def send(self, data: bytes) -> None:
        assert not self.has_ended
        self.written.append(data)
        if not self.is_full and sum(data.count(b";") for data in self.written) > self.room:
            self.fill()

    def ended(self) -> None:
        assert not self.has_ended
        self.has_ended = True

    def fill(self) -> None:
        self.is_full = True
        self._stream.hold()

    def read(self) -> list[WatchResponse]:
        """The client reads all there is."""
        written, self.written = self.written, []
        if self.is_full:
            self.is_full = False
            self._stream.resume()
        return self._wire.decode(b"".join(written))


class PushedStreams(Streams):
    """As with readers, but turns pass and sinks fill up at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.turns, self.wire = Turns(), Wire()
        self.hub = Hub(
            self.history, queue_responses_max=4, queue_bytes_max=600, call_soon=self.turns.call_soon
        )
        self.streams = [self.hub.stream(), self.hub.stream()]
        self.sinks = [FakeSink(stream, self.wire, room=3) for stream in self.streams]

    def take(self, which: int) -> list[WatchResponse]:
        taken: list[WatchResponse] = []
        for _ in range(100):
            self.turns.take_all()
            had_room = not self.sinks[which].is_full
            more = self.sinks[which].read()
            if not more and had_room:
                return taken
            taken += more
        raise AssertionError("a stream has more to say again and again")

    @rule(count=st.integers(1, 3))
    def turns_pass(self, count: int) -> None:
        for _ in range(count):
            self.turns.take_one()

    @rule(which=st.integers(0, 1))
    def sink_fills(self, which: int) -> None:
        if not self.sinks[which].is_full:
            self.sinks[which].fill()

    @rule(which=st.integers(0, 1), count=st.integers(1, 6))
    def sink_gets_room(self, which: int, count: int) -> None:
        self.sinks[which].room = count


PushedStreams.TestCase.settings = settings(max_examples=200, stateful_step_count=50)
TestPushedStreams = PushedStreams.TestCase


@pytest.fixture
def history() -> FakeHistory:
    return FakeHistory()


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def hub(history: FakeHistory, turns: Turns) -> Hub:
    return Hub(history, call_soon=turns.call_soon)


@pytest.fixture
def wire() -> Wire:
    return Wire()


def watching(hub: Hub, wire: Wire, turns: Turns, *requests: WatchCreate) -> tuple[WatchStream, FakeSink]:
    """A stream whose watches were created and told so."""
    stream = hub.stream()
    sink = FakeSink(stream, wire)
    for request in requests:
        stream.create(request)
    turns.take_all()
    created = sink.read()
    assert all(response.created for response in created)
    assert len(created) == len(requests)
    return stream, sink


def publish(hub: Hub, history: FakeHistory, *changes: tuple[bytes, bytes | None]) -> None:
    hub.publish(history.revision + 1, history.add(*changes))


def test_what_one_turn_brings_is_one_write_and_the_same_bytes_for_all(
    hub: Hub, history: FakeHistory, turns: Turns, wire: Wire
) -> None:
    """Three revisions, a hundred watchers: three responses are encoded, and every client is written to
    once, the very same object."""
    sinks = [watching(hub, wire, turns, WatchCreate(b"a", b"b"))[1] for _ in range(100)]
    encoded = len(wire.encoded)
    for _ in range(3):
        publish(hub, history, (b"a", b"v"))
    assert all(not sink.written for sink in sinks)
    turns.take_one()
    assert len(wire.encoded) == encoded + 3
    assert all(len(sink.written) == 1 for sink in sinks)
    assert len({id(sink.written[0]) for sink in sinks}) == 1
    assert revisions(sinks[0].read()) == [2, 3, 4]


def test_a_turn_that_brings_very_much_is_written_in_pieces(
    hub: Hub, history: FakeHistory, turns: Turns, wire: Wire
) -> None:
    """However much is applied in one go, no more of it is held back than a sink may be sent at once."""
    _, sink = watching(hub, wire, turns, WatchCreate(b"a"))
    for _ in range(8):
        publish(hub, history, (b"a", b"v" * (PENDING_BYTES_MAX // 3)))
    assert len(sink.written) == 2
    turns.take_all()
    assert revisions(sink.read()) == list(range(2, 10))


def test_who_has_no_room_does_not_keep_the_others_waiting(
    hub: Hub, history: FakeHistory, turns: Turns, wire: Wire
) -> None:
    """A sink that fills up is written no more; its stream's queue is bounded, and with room again it gets
    all that it missed, and is then told with the others again."""
    hub.queue_responses_max = 10
    (slow, full), (_, quick) = (watching(hub, wire, turns, WatchCreate(b"a")) for _ in range(2))
    full.room = 0
    for _ in range(50):
        publish(hub, history, (b"a", b"v"))
        turns.take_all()
    assert len(full.written) == 1
    assert revisions(quick.read()) == list(range(2, 52))
    assert slow.is_full
    assert slow.is_lagging
    full.room = 1_000
    seen = full.read()
    turns.take_all()
    publish(hub, history, (b"a", b"v"))
    turns.take_all()
    assert revisions(seen + full.read()) == list(range(2, 53))
    assert not slow.is_lagging
    publish(hub, history, (b"a", b"v"))
    turns.take_all()
    assert full.written == quick.written[-1:]
    assert full.written[0] is quick.written[-1]


def test_a_cancellation_comes_behind_what_was_published_before(
    hub: Hub, history: FakeHistory, turns: Turns, wire: Wire
) -> None:
    """Whatever is asked between two turns is answered in the order in which it became true."""
    stream, sink = watching(hub, wire, turns, WatchCreate(b"a"))
    publish(hub, history, (b"a", b"2"))
    stream.request_progress()
    publish(hub, history, (b"a", b"3"))
    stream.cancel(0)
    publish(hub, history, (b"a", b"4"))
    turns.take_all()
    told = sink.read()
    assert [(one.watch_id, one.revision, len(one.events), one.canceled) for one in told] == [
        (0, 2, 1, False),
        (-1, 2, 0, False),
        (0, 3, 1, False),
        (0, 3, 0, True),
    ]


def test_watches_of_one_stream_are_told_in_order_of_revision(
    hub: Hub, history: FakeHistory, turns: Turns, wire: Wire
) -> None:
    """Two watches of a stream get a turn's revisions in one write, revision by revision; when one is
    cancelled the other is told with those of other streams."""
    stream, sink = watching(hub, wire, turns, WatchCreate(b"a"), WatchCreate(b"a", b"c"))
    _, other = watching(hub, wire, turns, WatchCreate(b"a"))
    for key in (b"a", b"b", b"a"):
        publish(hub, history, (key, b"v"))
    turns.take_all()
    assert len(sink.written) == 1
    told = [(one.revision, one.watch_id) for one in sink.read()]
    assert sorted(told) == [(2, 0), (2, 1), (3, 1), (4, 0), (4, 1)]
    assert [revision for revision, _ in told] == [2, 2, 3, 4, 4]
    stream.cancel(1)
    turns.take_all()
    sink.read(), other.read()
    publish(hub, history, (b"a", b"v"))
    turns.take_all()
    assert sink.written[0] is other.written[0]


def test_a_watch_of_the_future_joins_when_its_time_has_come(
    hub: Hub, history: FakeHistory, turns: Turns, wire: Wire
) -> None:
    """Until then it is told nothing that the others are told."""
    _, sink = watching(hub, wire, turns, WatchCreate(b"a", start_revision=4))
    _, other = watching(hub, wire, turns, WatchCreate(b"a"))
    for _ in range(5):
        publish(hub, history, (b"a", b"v"))
        turns.take_all()
    assert revisions(other.read()) == [2, 3, 4, 5, 6]
    assert revisions(sink.read()) == [4, 5, 6]


def test_progress_is_told_to_those_who_were_told_nothing(
    hub: Hub, history: FakeHistory, turns: Turns, wire: Wire
) -> None:
    """A feed's events count as having told something, for one tick."""
    _, busy = watching(hub, wire, turns, WatchCreate(b"a", progress_notify=True))
    _, quiet = watching(hub, wire, turns, WatchCreate(b"b", progress_notify=True))
    _, unasked = watching(hub, wire, turns, WatchCreate(b"b"))
    for expected in (["events"], ["progress"], ["progress"]):
        if expected == ["events"]:
            publish(hub, history, (b"a", b"v"))
        turns.take_all()
        hub.tick()
        turns.take_all()
        told = ["events" if one.events else "progress" for one in busy.read()]
        assert told == expected
        assert [one.revision for one in quiet.read()] == [2]
    assert unasked.read() == []


def test_after_a_snapshot_it_reads_the_past(hub: Hub, history: FakeHistory, turns: Turns, wire: Wire) -> None:
    """What was published and not sent, what the snapshot brought, what came after: each once, in order."""
    _, sink = watching(hub, wire, turns, WatchCreate(b"a"))
    publish(hub, history, (b"a", b"2"))
    for _ in range(3, 8):
        history.add((b"a", b"v"))
    hub.restored()
    publish(hub, history, (b"a", b"8"))
    turns.take_all()
    assert revisions(sink.read()) == list(range(2, 9))


def test_a_stream_that_is_closed_is_written_to_no_more(
    hub: Hub, history: FakeHistory, turns: Turns, wire: Wire
) -> None:
    """Neither what was pending when its client hung up, nor what comes after."""
    stream, sink = watching(hub, wire, turns, WatchCreate(b"a"))
    _, other = watching(hub, wire, turns, WatchCreate(b"a"))
    publish(hub, history, (b"a", b"v"))
    stream.close()
    stream.close()
    publish(hub, history, (b"a", b"v"))
    turns.take_all()
    assert sink.has_ended
    assert sink.written == []
    assert revisions(other.read()) == [2, 3]
    assert hub.watcher_count == 1


def test_a_node_that_stops_ends_every_stream(
    hub: Hub, history: FakeHistory, turns: Turns, wire: Wire
) -> None:
    """With what was published before, and those that are opened after it too."""
    _, sink = watching(hub, wire, turns, WatchCreate(b"a"))
    publish(hub, history, (b"a", b"v"))
    hub.close()
    assert revisions(sink.read()) == [2]
    assert sink.has_ended
    assert FakeSink(hub.stream(), wire).has_ended
