"""The state machine against a model, over flushes, crashes, reopenings, snapshots and compactions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvstate.backend import Backend, MemoryStore
from kvstate.codec import encode
from kvstate.commands import (
    Compact,
    DeleteRange,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    Txn,
)
from kvstate.errors import (
    Compacted,
    ExpiryOutdated,
    FutureRevision,
    KeyNotFound,
    LeaseExists,
    LeaseNotFound,
)
from kvstate.lmdb_store import DATA_FILE, LmdbStore
from kvstate.machine import ApplyResult, StateMachine
from kvstate.types import Lease
from tests.kvstate.model import Model

LONG = b"k" * 480
KEYS = st.sampled_from([b"a", b"a\0", b"ab", b"b", b"\0", b"\xff\xff", LONG, LONG + b"\0", LONG + b"x" * 500])
ENDS = st.one_of(st.just(b""), st.just(b"\0"), KEYS)
VALUES = st.binary(max_size=6)
LEASES = st.sampled_from([1, -1, (1 << 63) - 1])
NEVER_GRANTED = 5
TERM = 3


def last_per_key(events) -> dict:
    return {event.kv.key: event for event in events}


class Machine(RuleBasedStateMachine):
    """One log of commands, applied to a machine on LMDB that crashes and flushes, and to one in
    memory that never does; both must be what the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.state = Path(self.directory.name) / "0"
        self.model = Model()
        self.log: list[bytes] = []
        self.machine = StateMachine(Backend(self.open()))
        self.reference = StateMachine(Backend(MemoryStore()))

    def open(self) -> LmdbStore:
        # A map as small as can be, so that it has to grow.
        self.store = LmdbStore(self.state, map_bytes=1 << 16)
        return self.store

    def teardown(self) -> None:
        self.machine.close()
        self.directory.cleanup()

    def apply(self, command) -> ApplyResult:
        data = encode(command, user="somebody", wall_clock_ms=len(self.log))
        self.log.append(data)
        result = self.machine.apply(len(self.log), TERM, data)
        expected = self.reference.apply(len(self.log), TERM, data)
        assert type(result.error) is type(expected.error)
        assert result.response == expected.response
        assert (result.revision, result.events) == (expected.revision, expected.events)
        assert result.revision == self.machine.revision
        return result

    def replay(self) -> None:
        """What the log has and the state has not."""
        for index in range(self.machine.applied[0], len(self.log)):
            self.machine.apply(index + 1, TERM, self.log[index])

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

    @rule(lease=LEASES, ttl=st.integers(2, 9_000_000_000))
    def grant(self, lease: int, ttl: int) -> None:
        result = self.apply(LeaseGrant(lease, ttl))
        if lease in self.model.leases:
            assert isinstance(result.error, LeaseExists)
        else:
            assert result.response == (lease, ttl)
            self.model.leases[lease] = Lease(lease, ttl, 0)
        assert result.revision == self.model.revision

    @rule(lease=LEASES, expired_in_term=st.sampled_from([0, 0, TERM, TERM - 1, TERM + 1]))
    def revoke(self, lease: int, expired_in_term: int) -> None:
        result = self.apply(LeaseRevoke(lease, expired_in_term))
        if expired_in_term not in (0, TERM):
            assert isinstance(result.error, ExpiryOutdated)
        elif lease not in self.model.leases:
            assert isinstance(result.error, LeaseNotFound)
        else:
            self.model.begin()
            self.model.revoke(lease)
            self.model.commit()
            assert result.response == (lease,)
            assert list(result.events) == (
                self.model.events[self.model.revision] if self.model.changed else []
            )
        assert result.revision == self.model.revision

    @rule(pairs=st.lists(st.tuples(LEASES, st.integers(0, 1000)), max_size=4))
    def checkpoint(self, pairs: list[tuple[int, int]]) -> None:
        for lease, remaining in pairs:
            if lease in self.model.leases:
                self.model.leases[lease] = self.model.leases[lease]._replace(remaining_ttl=remaining)
        assert self.apply(LeaseCheckpoint(tuple(pairs))).error is None

    @rule(key=KEYS, value=VALUES, lease=LEASES)
    def put_with_a_lease(self, key: bytes, value: bytes, lease: int) -> None:
        result = self.apply(Put(key, value, lease))
        if lease in self.model.leases:
            self.model.begin()
            self.model.put(key, value, lease)
            self.model.commit()
            assert list(result.events) == self.model.events[self.model.revision]
        else:
            assert isinstance(result.error, LeaseNotFound)
        assert result.revision == self.model.revision

    @rule(key=KEYS, value=VALUES, number=st.integers(0, 8))
    def put_and_keep_the_lease(self, key: bytes, value: bytes, number: int) -> None:
        """Mostly of a key that has one."""
        attached = sorted(key for lease in self.model.leases for key in self.model.lease_keys(lease))
        key = attached[number] if number < len(attached) else key
        previous = self.model.at(key, self.model.revision)
        result = self.apply(Put(key, value, ignore_lease=True))
        if previous is None:
            assert isinstance(result.error, KeyNotFound)
        else:
            self.model.begin()
            self.model.put(key, value, previous.lease)
            self.model.commit()
        assert result.revision == self.model.revision

    @rule(
        keys=st.lists(KEYS, unique=True, max_size=3),
        leases=st.lists(st.one_of(st.just(0), LEASES), min_size=3, max_size=3),
        value=VALUES,
        key=KEYS,
        end=ENDS,
    )
    def txn(self, keys: list[bytes], leases: list[int], value: bytes, key: bytes, end: bytes) -> None:
        """Deletions first, then puts of other keys, with a lease if it is there, read in between."""
        self.model.begin()
        deleted = self.model.delete(key, end)
        count = len(self.model.live(b"\0", b"\0", self.model.revision + 1))
        puts = [
            Put(name, value, lease if lease in self.model.leases else 0)
            for name, lease in zip(keys, leases, strict=False)
        ]
        for put in puts:
            self.model.put(put.key, value, put.lease)
        self.model.commit()
        ops = (DeleteRange(key, end), Range(b"\0", b"\0", count_only=True), *puts)
        result = self.apply(Txn(success=ops))
        answers = [answer for _, answer in result.response.responses]
        assert answers[0].deleted == deleted
        assert answers[1].count == count
        assert list(result.events) == self.model.events.get(self.model.revision, []) or not result.events
        assert result.revision == self.model.revision

    @rule(key=KEYS, lease=LEASES)
    def refused(self, key: bytes, lease: int) -> None:
        """A transaction that is refused changes nothing, not even what is attached to a lease."""
        before = self.machine.hash()
        lease = lease if lease in self.model.leases else 0
        ops = (DeleteRange(b"b"), Put(key + b"y", b"never", lease), Put(b"x", lease=NEVER_GRANTED))
        result = self.apply(Txn(success=(Txn(success=ops),)))
        assert isinstance(result.error, LeaseNotFound)
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
        self.machine = StateMachine(Backend(self.open()))
        assert self.machine.applied[0] == durable
        self.replay()

    @precondition(lambda self: self.machine.durable_applied[0])
    @rule()
    def restore(self) -> None:
        """A copy of what is durable takes the state's place, and what was not comes back from the log."""
        durable = self.machine.durable_applied
        self.state = self.state.with_name(f"{int(self.state.name) + 1}")
        self.state.mkdir()
        self.store.copy_to(self.state / DATA_FILE)
        self.machine.restore(self.open)
        assert self.machine.applied == self.machine.durable_applied == durable
        self.replay()

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

    @invariant()
    def leases_are_as_the_model_says(self) -> None:
        assert list(self.machine.leases()) == sorted(self.model.leases.values())
        for lease in (*self.model.leases, NEVER_GRANTED):
            assert self.machine.lease(lease) == self.model.leases.get(lease)
            assert self.machine.lease_keys(lease) == self.model.lease_keys(lease)

    @precondition(lambda self: self.log)
    @invariant()
    def both_have_the_same_hash(self) -> None:
        assert self.machine.hash() == self.reference.hash()
        assert self.machine.hash_kv(0) == self.reference.hash_kv(0)


Machine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestMachine = Machine.TestCase
