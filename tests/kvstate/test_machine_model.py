"""The state machine against a model, over flushes, crashes, reopenings and compactions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvstate.backend import Backend, MemoryStore
from kvstate.codec import encode
from kvstate.commands import Compact, DeleteRange, Put, Range, Txn
from kvstate.errors import Compacted, FutureRevision
from kvstate.lmdb_store import LmdbStore
from kvstate.machine import ApplyResult, StateMachine
from tests.kvstate.model import Model

LONG = b"k" * 480
KEYS = st.sampled_from([b"a", b"a\0", b"ab", b"b", b"\0", b"\xff\xff", LONG, LONG + b"\0", LONG + b"x" * 500])
ENDS = st.one_of(st.just(b""), st.just(b"\0"), KEYS)
VALUES = st.binary(max_size=6)


def last_per_key(events) -> dict:
    return {event.kv.key: event for event in events}


class Machine(RuleBasedStateMachine):
    """One log of commands, applied to a machine on LMDB that crashes and flushes, and to one in
    memory that never does; both must be what the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.model = Model()
        self.log: list[bytes] = []
        self.open()
        self.reference = StateMachine(Backend(MemoryStore()))

    def open(self) -> None:
        # A map as small as can be, so that it has to grow.
        self.machine = StateMachine(Backend(LmdbStore(Path(self.directory.name), map_bytes=1 << 16)))

    def teardown(self) -> None:
        self.machine.close()
        self.directory.cleanup()

    def apply(self, command) -> ApplyResult:
        data = encode(command, user="somebody", wall_clock_ms=len(self.log))
        self.log.append(data)
        result = self.machine.apply(len(self.log), 1, data)
        expected = self.reference.apply(len(self.log), 1, data)
        assert type(result.error) is type(expected.error)
        assert result.response == expected.response
        assert (result.revision, result.events) == (expected.revision, expected.events)
        assert result.revision == self.machine.revision
        return result

    @rule(key=KEYS, value=VALUES, prev_kv=st.booleans())
    def put(self, key: bytes, value: bytes, prev_kv: bool) -> None:
        previous = self.model.at(key, self.model.revision)
        self.model.begin()
        self.model.put(key, value)
        self.model.commit()
        result = self.apply(Put(key, value, prev_kv=prev_kv))
        assert result.revision == self.model.revision
        assert result.response.prev_kv == (previous if prev_kv else None)
        assert list(result.events) == self.model.events[self.model.revision]

    @rule(key=KEYS, end=ENDS)
    def delete(self, key: bytes, end: bytes) -> None:
        self.model.begin()
        deleted = self.model.delete(key, end)
        self.model.commit()
        result = self.apply(DeleteRange(key, end))
        assert result.response.deleted == deleted
        assert result.revision == self.model.revision

    @rule(keys=st.lists(KEYS, unique=True, max_size=3), value=VALUES, key=KEYS, end=ENDS)
    def txn(self, keys: list[bytes], value: bytes, key: bytes, end: bytes) -> None:
        """Deletions first, then puts of other keys, read in between."""
        self.model.begin()
        deleted = self.model.delete(key, end)
        count = len(self.model.live(b"\0", b"\0", self.model.revision + 1))
        for name in keys:
            self.model.put(name, value)
        self.model.commit()
        ops = (
            DeleteRange(key, end),
            Range(b"\0", b"\0", count_only=True),
            *(Put(name, value) for name in keys),
        )
        result = self.apply(Txn(success=ops))
        answers = [answer for _, answer in result.response.responses]
        assert answers[0].deleted == deleted
        assert answers[1].count == count
        assert list(result.events) == self.model.events.get(self.model.revision, []) or not result.events
        assert result.revision == self.model.revision

    @rule(key=KEYS)
    def refused(self, key: bytes) -> None:
        """A transaction that is refused changes nothing."""
        before = self.machine.hash()
        result = self.apply(Txn(success=(Put(key, b"never"), Put(b"x", lease=1))))
        assert result.error is not None
        assert not result.events
        assert self.machine.hash() == before

    @rule(back=st.integers(0, 6), physical=st.booleans())
    def compact(self, back: int, physical: bool) -> None:
        revision = self.model.revision - back
        result = self.apply(Compact(revision, physical))
        if revision <= self.model.compact_revision:
            assert isinstance(result.error, Compacted)
        else:
            assert result.error is None
            self.model.compact(revision)

    @rule(ahead=st.integers(1, 3))
    def compact_the_future(self, ahead: int) -> None:
        assert isinstance(self.apply(Compact(self.model.revision + ahead)).error, FutureRevision)

    @rule(limit=st.integers(1, 4))
    def scrub(self, limit: int) -> None:
        before = self.machine.hash(), self.machine.hash_kv(0)
        self.machine.compaction_step(limit)
        assert (self.machine.hash(), self.machine.hash_kv(0)) == before

    @rule()
    def flush(self) -> None:
        self.machine.freeze()
        self.machine.write_frozen()
        self.machine.release_frozen()
        assert self.machine.durable_applied[0] == len(self.log)

    @rule(key=KEYS, value=VALUES)
    def write_during_a_flush(self, key: bytes, value: bytes) -> None:
        """While the frozen changes are being written, new ones go on top and reads see both."""
        self.machine.freeze()
        self.put(key, value, True)
        self.everything_is_as_the_model_says()
        self.machine.write_frozen()
        self.put(key, value + b"!", False)
        self.everything_is_as_the_model_says()
        self.machine.release_frozen()

    @rule()
    def crash(self) -> None:
        """What was not flushed is gone, and comes back from the log."""
        durable = self.machine.durable_applied[0]
        self.machine.close()
        self.open()
        assert self.machine.applied[0] == durable
        for index in range(durable, len(self.log)):
            self.machine.apply(index + 1, 1, self.log[index])

    @rule(revision=st.integers(-3, 40), key=KEYS, end=ENDS, limit=st.integers(0, 4))
    def read_the_past(self, revision: int, key: bytes, end: bytes, limit: int) -> None:
        request = Range(key, end, limit=limit, revision=revision)
        if revision > self.model.revision:
            with pytest.raises(FutureRevision):
                self.machine.range(request)
        elif 0 < revision < self.model.compact_revision:
            with pytest.raises(Compacted):
                self.machine.range(request)
        elif revision > 0 or self.model.compact_revision <= self.model.revision:
            asked = Range(key, end, limit=limit, revision=max(revision, 0))
            assert tuple(self.machine.range(request)) == self.model.range(asked)

    @rule(limit=st.integers(1, 5))
    def read_events_from_the_compact_revision(self, limit: int) -> None:
        self.read_events(max(self.model.compact_revision, 1), limit)

    @rule(start=st.integers(1, 40), limit=st.integers(1, 5))
    def read_events(self, start: int, limit: int) -> None:
        if start < self.model.compact_revision:
            with pytest.raises(Compacted):
                self.machine.events(start, limit, 1 << 20)
            return
        found = self.machine.events(start, limit, 1 << 20)
        first = max(start, self.model.compact_revision + 1)
        expected = [(r, tuple(e)) for r, e in sorted(self.model.events.items()) if r >= first]
        beyond = [item for item in found if item[0] >= first]
        assert beyond == expected[: len(beyond)]
        assert len(found) == limit or len(beyond) == len(expected)
        if start == self.model.compact_revision and start in self.model.events:
            # What the compact revision itself changed is still told, deletions included.
            assert found[0][0] == start
            assert last_per_key(found[0][1]) == last_per_key(self.model.events[start])

    @rule(key=KEYS)
    def read_previous(self, key: bytes) -> None:
        for revision in range(max(self.model.compact_revision + 1, 2), self.model.revision + 1):
            assert self.machine.previous(key, revision) == self.model.at(key, revision - 1)
        if self.model.compact_revision > 1:
            assert self.machine.previous(key, self.model.compact_revision) is None

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        response = self.machine.range(Range(b"\0", b"\0"))
        assert response.kvs == self.model.live(b"\0", b"\0", self.model.revision)
        assert self.machine.revision == self.model.revision

    @precondition(lambda self: self.log)
    @invariant()
    def both_have_the_same_hash(self) -> None:
        assert self.machine.hash() == self.reference.hash()
        assert self.machine.hash_kv(0) == self.reference.hash_kv(0)


Machine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestMachine = Machine.TestCase
