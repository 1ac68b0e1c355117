"""Leases in the state: what hangs on them, how they end, and states from before there were any."""

from __future__ import annotations

from pathlib import Path

import lmdb
import pytest

from kvstate.backend import Backend, MemoryStore, Table
from kvstate.codec import encode
from kvstate.commands import (
    Command,
    Compact,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    Txn,
)
from kvstate.errors import ExpiryOutdated, KeyNotFound, LeaseExists, LeaseNotFound, LeaseTtlTooLarge
from kvstate.lmdb_store import LmdbStore
from kvstate.machine import ApplyResult, StateMachine
from kvstate.types import EventType, Lease
from kvstate.validation import MAX_LEASE_TTL, check_lease_grant

FIRST_ID, LAST_ID = -(1 << 63), (1 << 63) - 1


def apply(machine: StateMachine, command: Command, term: int = 1) -> ApplyResult:
    data = encode(command, user="", wall_clock_ms=0)
    return machine.apply(machine.applied[0] + 1, term, data)


def leased(*commands: Command) -> StateMachine:
    """A machine in memory with leases 7 and 8, to which the commands were applied."""
    machine = StateMachine(Backend(MemoryStore()))
    for command in (LeaseGrant(7, 60), LeaseGrant(8, 600), *commands):
        assert apply(machine, command).error is None
    return machine


def flush(machine: StateMachine) -> None:
    machine.freeze()
    machine.write_frozen()
    machine.release_frozen()


def test_a_revoked_lease_takes_its_keys_along() -> None:
    """All of them in one revision, in order of the keys; other keys stay."""
    machine = leased(Put(b"c", lease=7), Put(b"a", lease=7), Put(b"b", lease=8), Put(b"d"))
    result = apply(machine, LeaseRevoke(7))
    assert result.response == (7,)
    assert [(event.type, event.kv.key, event.kv.mod_revision) for event in result.events] == [
        (EventType.DELETE, b"a", 6),
        (EventType.DELETE, b"c", 6),
    ]
    assert result.revision == 6
    assert [kv.key for kv in machine.range(Range(b"\0", b"\0")).kvs] == [b"b", b"d"]
    assert list(machine.leases()) == [(8, 600, 0)]
    assert isinstance(apply(machine, LeaseRevoke(7)).error, LeaseNotFound)


def test_what_leases_do_by_themselves_is_no_revision() -> None:
    """Granting, checkpointing, and revoking what nothing hangs on: the store's revision stays."""
    machine = leased(LeaseCheckpoint(((7, 5),)), LeaseRevoke(7), LeaseRevoke(8))
    assert machine.revision == 1
    assert list(machine.leases()) == []
    assert machine.pending_bytes > 0


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (Put(b"k", b"2"), []),
        (Put(b"k", b"2", lease=7), [b"k"]),
        (Put(b"k", b"2", lease=8), []),
        (Put(b"k", b"2", ignore_lease=True), [b"k"]),
        (Put(b"k", lease=8, ignore_value=True), []),
        (DeleteRange(b"a", b"z"), []),
        (Txn(success=(Txn(success=(DeleteRange(b"k"),)), Put(b"other", lease=7))), [b"other"]),
    ],
)
def test_a_key_hangs_on_the_lease_of_its_last_put(change: Command, left: list[bytes]) -> None:
    """A put without a lease detaches it, and so does one with another lease, and a deletion."""
    machine = leased(Put(b"k", b"1", lease=7), change)
    assert machine.lease_keys(7) == left
    living = {kv.key: kv.lease for kv in machine.range(Range(b"\0", b"\0")).kvs}
    assert machine.lease_keys(8) == [key for key, lease in living.items() if lease == 8]
    apply(machine, LeaseRevoke(7))
    assert [kv.key for kv in machine.range(Range(b"\0", b"\0")).kvs] == [k for k in living if k not in left]


def test_a_key_that_begins_anew_is_attached_anew() -> None:
    """A key keeps nothing of the lease of its former life, compacted away or not."""
    machine = leased(Put(b"k", lease=7), DeleteRange(b"k"), Put(b"k"), DeleteRange(b"k"), Compact(5))
    apply(machine, Put(b"x"))
    apply(machine, Compact(6))
    while not machine.compaction_step(10):
        pass
    assert machine.lease_keys(7) == []
    apply(machine, Put(b"k", lease=7))
    assert machine.lease_keys(7) == [b"k"]


@pytest.mark.parametrize(
    "command",
    [
        Put(b"k", b"2", lease=9),
        Put(b"absent", lease=9, ignore_value=True),
        Txn(success=(DeleteRange(b"k"), Put(b"a", lease=7), Put(b"b", lease=9))),
        Txn(success=(Put(b"a"), Txn(success=(Put(b"b", lease=9),)))),
        LeaseRevoke(9),
        LeaseGrant(0, 60),
    ],
)
def test_a_lease_must_be_there(command: Command) -> None:
    """A request that names one that is not is refused as a whole."""
    machine = leased(Put(b"k", b"1", lease=7))
    before = machine.hash()
    assert isinstance(apply(machine, command).error, LeaseNotFound)
    assert (machine.hash(), machine.lease_keys(7)) == (before, [b"k"])


def test_in_a_transaction_the_key_is_looked_for_first() -> None:
    """As in etcd, whose put outside of a transaction looks for the lease first."""
    machine = leased()
    put = Put(b"absent", lease=9, ignore_value=True)
    assert isinstance(apply(machine, Txn(success=(put,))).error, KeyNotFound)
    assert isinstance(apply(machine, put).error, LeaseNotFound)


def test_the_branch_not_taken_may_name_any_lease() -> None:
    """Only what is done is checked."""
    machine = leased()
    assert apply(machine, Txn(success=(Put(b"k"),), failure=(Put(b"k", lease=9),))).error is None


def test_a_transaction_compares_leases() -> None:
    """With the one that the key hangs on before the transaction changes anything."""
    machine = leased(Put(b"k", lease=7))
    holds = Compare(CompareResult.EQUAL, CompareTarget.LEASE, b"k", operand=7)
    move = Txn((holds,), success=(Put(b"k", lease=8), Txn((holds,), success=(Put(b"seen", lease=7),))))
    assert apply(machine, move).response.succeeded  # type: ignore[union-attr]
    assert (machine.lease_keys(7), machine.lease_keys(8)) == ([b"seen"], [b"k"])
    assert not apply(machine, move).response.succeeded  # type: ignore[union-attr]


def test_only_the_term_whose_leader_saw_it_expire_may_end_a_lease() -> None:
    """The next leader may have renewed the lease before this entry was in its log."""
    machine = leased(Put(b"k", lease=7))
    for term in (3, 5):
        result = apply(machine, LeaseRevoke(7, expired_in_term=4), term)
        assert isinstance(result.error, ExpiryOutdated)
    assert machine.lease_keys(7) == [b"k"]
    assert apply(machine, LeaseRevoke(7, expired_in_term=5), 5).response == (7,)
    # A client's revoke counts in whatever term it is.
    assert apply(machine, LeaseRevoke(8), 9).response == (8,)


def test_a_lease_is_granted_once() -> None:
    """The id of one that is there is refused, and free again once it is revoked."""
    machine = leased(Put(b"k", lease=7), LeaseCheckpoint(((7, 30),)))
    assert isinstance(apply(machine, LeaseGrant(7, 5)).error, LeaseExists)
    assert machine.lease(7) == Lease(7, 60, 30)
    apply(machine, LeaseRevoke(7))
    assert machine.lease(7) is None
    assert apply(machine, LeaseGrant(7, 5)).response == (7, 5)
    assert (machine.lease(7), machine.lease_keys(7)) == (Lease(7, 5, 0), [])


def test_checkpoints_of_what_is_gone_are_passed_over() -> None:
    """Between the leader's look at the clock and the entry, a lease may have been revoked."""
    machine = leased(LeaseRevoke(7), LeaseCheckpoint(((7, 10), (8, 20))))
    assert list(machine.leases()) == [(8, 600, 20)]
    apply(machine, LeaseCheckpoint(((8, 0),)))
    assert machine.lease(8) == Lease(8, 600, 0)


def test_ids_are_signed_and_ordered() -> None:
    """Any but 0 may be chosen. None of them sees the keys of its neighbours."""
    machine = StateMachine(Backend(MemoryStore()))
    ids = [FIRST_ID, FIRST_ID + 1, -1, 1, 2, LAST_ID - 1, LAST_ID]
    for number in reversed(ids):
        apply(machine, LeaseGrant(number, 60))
        apply(machine, Put(b"%d" % number, lease=number))
    assert [lease.id for lease in machine.leases()] == ids
    assert [machine.lease_keys(number) for number in ids] == [[b"%d" % number] for number in ids]


@pytest.mark.parametrize(
    "change",
    [
        LeaseGrant(9, 60),
        LeaseRevoke(8),
        LeaseCheckpoint(((7, 30),)),
    ],
)
def test_the_hash_covers_leases(change: Command) -> None:
    """Replicas that do not have the same leases do not have the same state."""
    machine = leased(Put(b"k", lease=7))
    before = machine.hash()
    assert apply(machine, change).error is None
    assert machine.hash() != before


def test_the_hash_covers_what_is_attached() -> None:
    """Even where the keys' own records agree."""
    backend = Backend(MemoryStore())
    machine = StateMachine(backend)
    for command in (LeaseGrant(7, 60), Put(b"k", lease=7)):
        apply(machine, command)
    before = machine.hash()
    (entry,) = [entry for entry, _ in backend.scan(Table.LEASE_KEYS)]
    backend.delete(Table.LEASE_KEYS, entry)
    assert machine.hash() != before


def test_golden_bytes() -> None:
    """The tables are on every disk and in every snapshot: their bytes do not change by accident."""
    backend = Backend(MemoryStore())
    machine = StateMachine(backend)
    for command in (LeaseGrant(-1, 60), LeaseGrant(7, 600), LeaseCheckpoint(((7, 30),)), Put(b"k", lease=7)):
        apply(machine, command)
    assert [(key.hex(), value.hex()) for key, value in backend.scan(Table.LEASES)] == [
        ("7fffffffffffffff", "000000000000003c" + "0000000000000000"),
        ("8000000000000007", "0000000000000258" + "000000000000001e"),
    ]
    assert list(backend.scan(Table.LEASE_KEYS)) == [(bytes.fromhex("8000000000000007") + b"k", b"")]


@pytest.mark.parametrize("length", [1, 471, 472, 473, 480, 481, 2000])
def test_keys_of_any_length_hang_on_a_lease(length: int, tmp_path: Path) -> None:
    """Also where the key with the id before it is longer than LMDB's keys may be; durably; and nothing is
    left of them when the lease is revoked."""
    machine = StateMachine(Backend(LmdbStore(tmp_path)))
    keys = [b"k" * length + bytes([number]) for number in range(20)]
    for number in (6, 7, 8):
        apply(machine, LeaseGrant(number, 60))
    for key in keys:
        apply(machine, Put(key, lease=7))
    apply(machine, Put(b"k", lease=8))
    flush(machine)
    machine.close()
    store = LmdbStore(tmp_path)
    machine = StateMachine(Backend(store))
    assert [machine.lease_keys(number) for number in (6, 7, 8)] == [[], keys, [b"k"]]
    assert apply(machine, LeaseRevoke(7)).error is None
    assert machine.lease_keys(7) == []
    flush(machine)
    assert len(list(store.scan(Table.LEASE_KEYS, b"", None, reverse=False))) == 1
    assert [lease.id for lease in machine.leases()] == [6, 8]
    assert machine.range(Range(b"\0", b"\0", count_only=True)).count == 1
    machine.close()


def test_a_state_from_before_there_were_leases(tmp_path: Path) -> None:
    """It opens with what it holds, has no leases, and takes some; its hash is what it was."""
    machine = StateMachine(Backend(LmdbStore(tmp_path)))
    apply(machine, Put(b"k" * 1000, b"v"))
    flush(machine)
    before = machine.hash()
    machine.close()
    with lmdb.open(str(tmp_path), max_dbs=8, map_size=1 << 30) as env:
        for name in (b"leases", b"lease-keys"):
            database = env.open_db(name)
            with env.begin(write=True) as txn:
                txn.drop(database)
    machine = StateMachine(Backend(LmdbStore(tmp_path)))
    assert (machine.applied, machine.hash(), list(machine.leases())) == ((1, 1), before, [])
    assert isinstance(apply(machine, Put(b"k" * 1000, b"w", lease=7)).error, LeaseNotFound)
    apply(machine, LeaseGrant(7, 60))
    apply(machine, Put(b"k" * 1000, b"w", lease=7))
    flush(machine)
    machine.close()
    machine = StateMachine(Backend(LmdbStore(tmp_path)))
    assert (list(machine.leases()), machine.lease_keys(7)) == ([(7, 60, 0)], [b"k" * 1000])
    machine.close()


def test_a_ttl_has_a_limit() -> None:
    """In nanoseconds it must fit into 64 bits, which is checked before it is proposed."""
    check_lease_grant(LeaseGrant(1, MAX_LEASE_TTL))
    with pytest.raises(LeaseTtlTooLarge):
        check_lease_grant(LeaseGrant(1, MAX_LEASE_TTL + 1))
