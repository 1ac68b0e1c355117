"""A snapshot's state takes the place of the state at hand, and what consensus keeps in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvstate.backend import Backend, Changes, MemoryStore, Store, Table
from kvstate.codec import encode
from kvstate.commands import Compact, DeleteRange, Put, Range
from kvstate.errors import StateFault
from kvstate.lmdb_store import LmdbStore
from kvstate.machine import StateMachine


class CountingStore:
    """A MemoryStore that remembers each transaction, and whether it was closed."""

    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.transactions: list[Changes] = []
        self.closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)

    def write(self, changes: Changes) -> None:
        self.memory.write(changes)
        self.transactions.append([dict(changed) for changed in changes])

    def close(self) -> None:
        self.closed = True


def flush(machine: StateMachine) -> None:
    machine.freeze()
    machine.write_frozen()
    machine.release_frozen()


def apply(machine: StateMachine, *commands) -> None:
    """Apply each as the next entry, of term 1."""
    for command in commands:
        data = encode(command, user="somebody", wall_clock_ms=5)
        assert machine.apply(machine.applied[0] + 1, 1, data).error is None


def seen(machine: StateMachine) -> tuple:
    """All that tells one state from another."""
    kvs = machine.range(Range(b"\0", b"\0")).kvs
    hashes = machine.hash(), machine.hash_kv(0)
    return hashes, machine.revision, machine.compact_revision, machine.applied, machine.membership, kvs


def written(store: Store) -> StateMachine:
    """Some history, a compaction that is half carried out, a membership; all of it durable."""
    machine = StateMachine(Backend(store))
    apply(
        machine, *(Put(b"k%d" % (n % 4), b"v%d" % n) for n in range(12)), DeleteRange(b"k2"), Put(b"z", b"z")
    )
    machine.apply_membership(15, 1, b"three of us")
    apply(machine, Compact(9))
    machine.compaction_step(3)
    flush(machine)
    return machine


def test_a_restored_machine_is_the_one_that_was_copied() -> None:
    """Hash, revision, compact revision, applied index and membership are the snapshot's, durably; and from
    there on both machines go the same way."""
    store = MemoryStore()
    source = written(store)
    machine = StateMachine(Backend(MemoryStore()))
    apply(machine, Put(b"old", b"1"))
    machine.restore(store.copy)
    assert seen(machine) == seen(source)
    assert machine.durable_applied == source.durable_applied == (16, 1)
    assert machine.pending_bytes == 0
    assert machine.compaction_pending
    for one in (source, machine):
        apply(
            one, Put(b"k1", b"after"), Put(b"new", b"1"), Put(b"new", b"2"), Put(b"newer", b"1"), Compact(12)
        )
        while not one.compaction_step(5):
            pass
    assert seen(machine) == seen(source)
    assert machine.events(12, 100, 1 << 20) == source.events(12, 100, 1 << 20)
    for revision in range(12, source.revision + 1):
        then = Range(b"\0", b"\0", revision=revision)
        assert machine.range(then) == source.range(then)


def test_what_was_not_durable_is_forgotten() -> None:
    """Nothing of the old state shines through: not what was flushed, not what was still in memory, not even
    where the new state has nothing."""
    store = MemoryStore()
    apply(source := StateMachine(Backend(store)), Put(b"k", b"new"))
    source.apply_membership(2, 1, b"the snapshot's")
    flush(source)
    old = MemoryStore()
    machine = StateMachine(Backend(old))
    machine.apply_membership(1, 1, b"the old one")
    apply(machine, Put(b"k", b"old"), Put(b"flushed", b"1"), Compact(2))
    flush(machine)
    apply(machine, Put(b"in memory", b"1"), DeleteRange(b"k"), Put(b"k", b"older"))
    machine.restore(store.copy)
    assert seen(machine) == seen(source)
    assert [kv.key for kv in machine.range(Range(b"\0", b"\0")).kvs] == [b"k"]
    assert not machine.compaction_pending
    assert len(machine.events(1, 100, 1 << 20)) == 1


def test_a_restored_machine_writes_to_its_new_store() -> None:
    """What is applied after a snapshot is flushed into the snapshot's state, and not into the old one."""
    snapshot, old = written(store := MemoryStore()), CountingStore()
    machine = StateMachine(Backend(old))
    apply(machine, Put(b"old", b"1"))
    copy = store.copy()
    assert not old.closed
    machine.restore(lambda: copy)
    assert old.closed
    apply(machine, Put(b"k1", b"after"))
    flush(machine)
    apply(snapshot, Put(b"k1", b"after"))
    assert seen(StateMachine(Backend(copy))) == seen(machine) == seen(snapshot)
    assert StateMachine(Backend(old)).applied == (0, 0)


def test_entries_continue_the_snapshot() -> None:
    """After a snapshot the next entry is the one behind it, no longer the one that was next before."""
    store = MemoryStore()
    written(store)
    machine = StateMachine(Backend(MemoryStore()))
    machine.restore(store.copy)
    with pytest.raises(StateFault, match="cannot follow entry 16"):
        machine.apply(1, 1, b"")
    machine.apply(17, 2, b"")


def test_a_snapshot_on_disk(tmp_path: Path) -> None:
    """The same over LMDB: the old environment is closed, the new one has everything after a restart."""
    source = written(LmdbStore(tmp_path / "source"))
    expected = seen(source)
    source.close()
    machine = StateMachine(Backend(LmdbStore(tmp_path / "old")))
    apply(machine, Put(b"old", b"1"))
    machine.restore(lambda: LmdbStore(tmp_path / "source"))
    assert seen(machine) == expected
    apply(machine, Put(b"after", b"1"))
    flush(machine)
    expected = seen(machine)
    machine.close()
    machine = StateMachine(Backend(LmdbStore(tmp_path / "source")))
    assert seen(machine) == expected
    machine.close()
    machine = StateMachine(Backend(LmdbStore(tmp_path / "old")))  # can be opened: nobody holds it
    assert machine.applied == (0, 0)
    machine.close()


# The membership that consensus keeps here.


def test_a_membership_survives_a_restart(tmp_path: Path) -> None:
    """Once it is flushed; before, the log still has it, and the applied index says so."""
    machine = StateMachine(Backend(LmdbStore(tmp_path)))
    assert machine.membership == b""
    apply(machine, Put(b"k", b"v"))
    machine.apply_membership(2, 1, b"one")
    flush(machine)
    machine.apply_membership(3, 2, b"two")
    assert machine.membership == b"two"
    assert machine.pending_bytes > 0
    machine.close()
    machine = StateMachine(Backend(LmdbStore(tmp_path)))
    assert (machine.membership, machine.applied) == (b"one", (2, 1))
    machine.apply_membership(3, 2, b"two")
    flush(machine)
    machine.close()
    machine = StateMachine(Backend(LmdbStore(tmp_path)))
    assert (machine.membership, machine.applied) == (b"two", (3, 2))
    assert machine.revision == 2
    machine.close()


def test_a_membership_and_its_index_are_one_transaction() -> None:
    """A state that says it has applied a membership has it, and the other way round: they are written
    at once, with the data, or not at all."""
    store = CountingStore()
    machine = StateMachine(Backend(store))
    flush(machine)
    before = store.copy()
    apply(machine, Put(b"k", b"v"))
    machine.apply_membership(2, 1, b"one")
    machine.freeze()
    machine.apply_membership(3, 1, b"two")  # comes too late for what was frozen
    store.memory.fail_with = StateFault("disk")
    with pytest.raises(StateFault):
        machine.write_frozen()
    reopened = StateMachine(Backend(store.copy()))
    assert (reopened.membership, reopened.applied) == (b"", (0, 0))
    store.memory.fail_with = None
    machine.write_frozen()
    machine.release_frozen()
    assert machine.durable_applied == (2, 1)
    _, changes = store.transactions
    assert changes[Table.KEYS].keys() == {b"k"}
    before.write(changes)  # this one transaction brings it all
    reopened = StateMachine(Backend(before))
    assert (reopened.membership, reopened.applied, reopened.revision) == (b"one", (2, 1), 2)


def test_a_membership_must_follow_like_any_entry() -> None:
    """It has a place in the log as all else has."""
    machine = StateMachine(Backend(MemoryStore()))
    machine.apply_membership(1, 1, b"one")
    for index in (1, 3):
        with pytest.raises(StateFault):
            machine.apply_membership(index, 1, b"two")
    assert machine.membership == b"one"


def test_a_copy_is_a_store_of_its_own() -> None:
    """What is written to a store, or deleted from it, after it was copied is not in the copy; nor the
    other way round."""
    store = MemoryStore()
    empty: Changes = [{} for _ in Table]
    rest: Changes = [{b"h": b""}, {b"m": b"4"}, {b"l": b"5"}, {b"lk": b""}]
    store.write([{b"a": b"1", b"b": b"2", b"gone": b"0"}, {b"r": b"3"}, *rest])
    store.write([{b"gone": None}, *empty[1:]])
    copy = store.copy()

    def content(one: MemoryStore) -> list:
        return [list(one.scan(table, b"", None, False)) for table in Table]

    before = content(store)
    assert content(copy) == before
    assert before[:2] == [[(b"a", b"1"), (b"b", b"2")], [(b"r", b"3")]]
    assert before[2:] == [list(changed.items()) for changed in rest]
    store.write([{b"a": None, b"b": b"changed", b"c": b"new"}, *empty[1:]])
    assert content(copy) == before
    after = content(store)
    copy.write([{b"b": None, b"d": b"other"}, {b"r": None}, *empty[2:]])
    assert content(store) == after
    assert copy.get(Table.KEYS, b"a") == b"1"
    store.fail_with = StateFault("disk")
    copy.write(empty)
