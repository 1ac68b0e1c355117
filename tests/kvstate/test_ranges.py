"""Ranges in steps: whatever happens between two steps, the answer is the one of the moment it began."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from kvstate.backend import Backend, MemoryStore, Table
from kvstate.codec import encode
from kvstate.commands import Compact, DeleteRange, Put, Range, RangeResponse
from kvstate.errors import Compacted, FutureRevision
from kvstate.lmdb_store import LmdbStore
from kvstate.machine import StateMachine
from kvstate.ranges import PAGE_KEYS, is_plain
from kvstate.records import unpack_kvs
from kvstate.types import KeyValue

LONG = b"k" * 480
NAMES = [b"a", b"a\0", b"ab", b"b", b"c", b"d", LONG, LONG + b"\0", LONG + b"x" * 500, b"z"]
KEYS = st.sampled_from(NAMES)
ENDS = st.one_of(st.just(b"\0"), KEYS)
SMALL = st.integers(0, 12)
REQUESTS = st.builds(
    Range,
    key=st.one_of(st.just(b"\0"), KEYS),
    range_end=ENDS,
    limit=st.integers(0, 4),
    sort_order=st.integers(0, 2),
    sort_target=st.integers(0, 4),
    keys_only=st.booleans(),
    count_only=st.booleans(),
    min_mod_revision=SMALL,
    max_create_revision=SMALL,
)
PLAIN = st.builds(Range, key=st.one_of(st.just(b"\0"), KEYS), range_end=ENDS, limit=st.integers(0, 4))


class Kvs:
    """A sink that makes key-values all the same."""

    def __init__(self) -> None:
        self.kvs: list[KeyValue] = []

    def take(self, places, records) -> None:
        self.kvs += unpack_kvs(places, records)

    def clear(self) -> None:
        self.kvs.clear()


class Under:
    """A range under way, and what it must answer."""

    def __init__(self, machine: StateMachine, request: Range) -> None:
        self.request = request
        self.expected = machine.range(request), machine.revision
        self.sink = Kvs() if is_plain(request) else None
        self.steps = machine.range_steps(request, self.sink)

    def step(self) -> bool:
        """Whether it is over."""
        try:
            next(self.steps)
        except StopIteration as finished:
            response, revision = finished.value
            if self.sink is not None:
                assert response.kvs == []
                response = response._replace(kvs=self.sink.kvs)
            assert (response, revision) == self.expected
            return True
        return False


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.machine = StateMachine(Backend(LmdbStore(Path(self.directory.name))), page_keys=2)
        self.index = 0
        self.ranges: list[Under] = []
        self.is_frozen = False
        for name in NAMES:
            self.apply(Put(name, b"first"))

    def teardown(self) -> None:
        while self.ranges:
            self.step(0)
        # Nothing is held any more: what was compacted can go.
        while not self.machine.compaction_step(3):
            pass
        self.machine.close()
        self.directory.cleanup()

    def apply(self, command) -> None:
        self.index += 1
        self.machine.apply(self.index, 1, encode(command, user="u", wall_clock_ms=self.index))

    @rule(key=KEYS, value=st.binary(max_size=3))
    def put(self, key: bytes, value: bytes) -> None:
        self.apply(Put(key, value))

    @rule(key=KEYS, end=st.one_of(st.just(b""), ENDS))
    def delete(self, key: bytes, end: bytes) -> None:
        self.apply(DeleteRange(key, end))

    @rule(back=st.integers(0, 3))
    def compact(self, back: int) -> None:
        self.apply(Compact(self.machine.revision - back))

    @rule(limit=st.integers(1, 9))
    def scrub(self, limit: int) -> None:
        self.machine.compaction_step(limit)

    @rule()
    def flush(self) -> None:
        """The first half of a flush, or the second."""
        if self.is_frozen:
            self.machine.write_frozen()
            self.machine.release_frozen()
        else:
            self.machine.freeze()
        self.is_frozen = not self.is_frozen

    @rule(request=st.one_of(REQUESTS, PLAIN))
    def begin(self, request: Range) -> None:
        self.ranges.append(Under(self.machine, request))
        self.step(-1)

    @rule(request=st.one_of(REQUESTS, PLAIN), back=st.integers(0, 5))
    def begin_in_the_past(self, request: Range, back: int) -> None:
        revision = max(self.machine.revision - back, self.machine.compact_revision, 1)
        fields = {name: getattr(request, name) for name in Range.__match_args__}
        self.begin(Range(**{**fields, "revision": revision}))

    @precondition(lambda self: self.ranges)
    @rule(which=st.integers(0, 50))
    def step(self, which: int) -> None:
        which %= len(self.ranges)
        if self.ranges[which].step():
            del self.ranges[which]


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestRanges = Machine.TestCase


def filled(keys: int, *, value: bytes = b"v" * 128, backend: Backend | None = None) -> StateMachine:
    machine = StateMachine(backend or Backend(MemoryStore()))
    for index in range(1, keys + 1):
        put(machine, b"%06d" % index, value)
    return machine


def put(machine: StateMachine, key: bytes, value: bytes) -> None:
    command = encode(Put(key, value), user="", wall_clock_ms=0)
    assert machine.apply(machine.applied[0] + 1, 1, command).error is None


def compact(machine: StateMachine, revision: int) -> None:
    command = encode(Compact(revision), user="", wall_clock_ms=0)
    assert machine.apply(machine.applied[0] + 1, 1, command).error is None


def finish(steps) -> tuple[RangeResponse, int]:
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def count_steps(machine: StateMachine, request: Range) -> int:
    return sum(1 for _ in machine.range_steps(request)) + 1


EVERYTHING = Range(b"\0", b"\0")


def test_a_range_of_few_keys_is_one_step() -> None:
    """It has its answer in the first turn, as a get has."""
    machine = filled(300)
    assert count_steps(machine, EVERYTHING) == 1
    assert count_steps(machine, Range(b"\0", b"\0", limit=10)) == 1
    assert count_steps(machine, Range(b"\0", b"\0", sort_order=2, sort_target=4)) == 1


@pytest.mark.parametrize(
    "request_",
    [
        EVERYTHING,
        Range(b"\0", b"\0", keys_only=True),
        Range(b"\0", b"\0", sort_order=2, sort_target=3),
        Range(b"\0", b"\0", min_mod_revision=20_000),
        Range(b"\0", b"\0", revision=5000),
    ],
)
def test_a_large_range_is_many_steps(request_: Range) -> None:
    """Every 500 keys or so others have their turn, whatever is asked for."""
    machine = filled(10_000)
    assert count_steps(machine, request_) >= 19


def test_counting_takes_larger_steps() -> None:
    """A key that is only counted costs little, but it costs something."""
    assert 4 <= count_steps(filled(10_000), Range(b"\0", b"\0", count_only=True)) <= 10


def test_a_step_reads_no_more_of_large_values() -> None:
    """A step is bounded in bytes as well as in keys."""
    machine = filled(200, value=b"v" * 100_000)
    assert count_steps(machine, EVERYTHING) >= 15
    assert len(finish(machine.range_steps(EVERYTHING))[0].kvs) == 200


def test_a_range_that_needs_the_past_is_many_steps_too() -> None:
    """Where every key has changed since, looking into the history is what takes the time."""
    machine = filled(1000)
    steps = machine.range_steps(EVERYTHING)
    next(steps)
    for index in range(1, 1001):
        put(machine, b"%06d" % index, b"new")
    turns = 0
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            response, revision = finished.value
            break
        turns += 1
    assert turns >= 5
    assert revision == 1001
    assert {kv.value for kv in response.kvs} == {b"v" * 128}


@pytest.mark.parametrize(("order", "target"), [(0, 4), (1, 1), (2, 1), (2, 3), (1, 4), (2, 0)])
@pytest.mark.parametrize("limit", [0, 1, 4500])
def test_sorting_in_parts_is_sorting(order: int, target: int, limit: int) -> None:
    """What is too much to sort at once comes in the same order, equal ones included."""
    machine = filled(9000)
    for index in range(1, 9001, 7):
        put(machine, b"%06d" % index, b"%d" % (index % 5))
    for index in range(1, 9001, 91):
        put(machine, b"%06d" % index, b"again")
    request = Range(b"\0", b"\0", limit=limit, sort_order=order, sort_target=target)
    kvs = machine.range(EVERYTHING).kvs
    if limit and not order:
        del kvs[limit + 1 :]
    fields = [lambda kv: kv.key, lambda kv: kv.version, None, lambda kv: kv.mod_revision, lambda kv: kv.value]
    kvs.sort(key=fields[target], reverse=order == 2)
    response = machine.range(request)
    assert response.kvs == (kvs[:limit] if limit else kvs)
    assert response.more is bool(limit)
    assert response.count == 9000


def test_what_a_range_needs_is_not_scrubbed_away() -> None:
    """A compaction that passes a range under way is logical at once, but physical only when it is over."""
    backend = Backend(MemoryStore())
    machine = filled(1500, backend=backend)
    before = machine.range(EVERYTHING), machine.revision
    steps = machine.range_steps(EVERYTHING)
    next(steps)
    for index in range(1, 1501):
        put(machine, b"%06d" % index, b"new")
    compact(machine, machine.revision)
    assert not machine.compaction_step(10_000)
    with pytest.raises(Compacted):
        machine.range(Range(b"\0", b"\0", revision=before[1]))
    # A later one needs nothing of it, and does not keep anybody waiting.
    later = machine.range_steps(EVERYTHING)
    next(later)
    assert finish(steps) == before
    assert machine.compaction_step(10_000)
    assert finish(later)[0].count == 1500
    assert len(list(backend.scan(Table.REVISIONS))) == 1500


def test_a_range_that_is_given_up_holds_nothing() -> None:
    """Whoever closes a range lets the scrubber go on."""
    machine = filled(1500)
    steps = machine.range_steps(EVERYTHING)
    next(steps)
    put(machine, b"000001", b"new")
    compact(machine, machine.revision)
    assert not machine.compaction_step(10_000)
    steps.close()
    assert machine.compaction_step(10_000)


@pytest.mark.parametrize("with_sink", [False, True])
def test_a_new_state_is_read_from_the_beginning(with_sink: bool) -> None:
    """When a snapshot replaces the state under a range, the answer is wholly the new one's."""
    machine, other = filled(2000), StateMachine(Backend(store := MemoryStore()))
    for index in range(1, 3001):
        put(other, b"%06d" % index, b"other")
    other.freeze()
    other.write_frozen()
    sink = Kvs() if with_sink else None
    steps = machine.range_steps(EVERYTHING, sink)
    next(steps)
    machine.restore(store.copy)
    response, revision = finish(steps)
    kvs = response.kvs if sink is None else sink.kvs
    assert (kvs, response.count, revision) == (other.range(EVERYTHING).kvs, 3000, 3001)


def test_a_new_state_may_not_have_the_revision() -> None:
    """A range of the past can be refused by the state that replaces the one where it began."""
    machine, other = filled(2000), StateMachine(Backend(store := MemoryStore()))
    put(other, b"k", b"v")
    other.freeze()
    other.write_frozen()
    steps = machine.range_steps(Range(b"\0", b"\0", revision=1900))
    next(steps)
    machine.restore(store.copy)
    with pytest.raises(FutureRevision):
        next(steps)


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("keys", [PAGE_KEYS - 1, PAGE_KEYS, PAGE_KEYS + 1])
def test_pages_end_where_they_end(keys: int, flushed: bool) -> None:
    """Neither a full last page nor one key more is lost or read twice."""
    machine = filled(keys)
    if flushed:
        machine.freeze()
        machine.write_frozen()
        machine.release_frozen()
    response, _ = finish(machine.range_steps(EVERYTHING))
    assert [kv.key for kv in response.kvs] == [b"%06d" % index for index in range(1, keys + 1)]
    assert response.count == keys
