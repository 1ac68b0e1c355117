"""Keys of any length in right order, memtables over stores, the map's growth, and broken promises."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstate.backend import Backend, MemoryStore, Memtable, Table
from kvstate.codec import VERSION, decode, encode
from kvstate.commands import (
    Compact,
    Compare,
    DeleteRange,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    SortOrder,
    Txn,
)
from kvstate.errors import DuplicateKey, EmptyKey, KeyNotFound, RequestError, StateFault, TooManyOps
from kvstate.lmdb_store import LmdbStore
from kvstate.machine import StateMachine
from kvstate.validation import check_txn

# Keys that share long beginnings and end around the chunks' borders.
PIECES = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"b", b"\0", b"\xff"]), st.sampled_from([0, 1, 2, 478, 479, 480, 481, 960])
    ),
    min_size=1,
    max_size=3,
)
LONG_KEYS = PIECES.map(lambda pieces: b"".join(byte * count for byte, count in pieces)).filter(len)
CHANGES = st.lists(st.tuples(LONG_KEYS, st.one_of(st.none(), st.binary(max_size=3))), max_size=12)


def write(backend: Backend, changes, *, flush: bool) -> None:
    for key, value in changes:
        if value is None:
            backend.delete(Table.KEYS, key)
        else:
            backend.put(Table.KEYS, key, value)
    if flush:
        backend.freeze()
        backend.write_frozen()
        backend.release_frozen()


@settings(max_examples=60)
@given(st.lists(st.tuples(CHANGES, st.booleans()), max_size=4), st.lists(LONG_KEYS, min_size=2, max_size=4))
def test_a_backend_is_a_sorted_dictionary(tmp_path_factory, batches, bounds) -> None:
    """get and scan, both ways and between any bounds, are those of a sorted dictionary, for keys of
    any length, flushed or not."""
    backend = Backend(LmdbStore(tmp_path_factory.mktemp("lmdb")))
    expected: dict[bytes, bytes] = {}
    for changes, flush in batches:
        write(backend, changes, flush=flush)
        for key, value in changes:
            expected.pop(key, None)
            if value is not None:
                expected[key] = value
    for key in {key for changes, _ in batches for key, _ in changes}:
        assert backend.get(Table.KEYS, key) == expected.get(key)
    for low in (b"", *bounds):
        for high in (None, *bounds):
            inside = [(k, expected[k]) for k in sorted(expected) if k >= low and (high is None or k < high)]
            assert list(backend.scan(Table.KEYS, low, high)) == inside
            assert list(backend.scan(Table.KEYS, low, high, reverse=True)) == inside[::-1]
    backend.close()


@given(st.lists(st.integers(0, 40), max_size=6), st.randoms(use_true_random=False))
def test_a_memtable_is_in_order_after_any_number_of_writes(batches: list[int], random: Random) -> None:
    """Whether a scan finds few new keys, which it puts in their places, or many, which it sorts in."""
    memtable = Memtable()
    for count in batches:
        for _ in range(count):
            memtable.data[random.randbytes(1)] = random.choice([b"", None])
        assert list(memtable.scan(b"", None, reverse=False)) == sorted(memtable.data.items())


def test_removed_long_keys_leave_nothing(tmp_path: Path) -> None:
    """When the last long key below a beginning goes, so do the namespaces it lived in."""
    backend = Backend(LmdbStore(tmp_path))
    before = backend.size_in_use_bytes
    keys = [b"k" * 3000 + b"%d" % number for number in range(50)]
    write(backend, [(key, b"v" * 100) for key in keys], flush=True)
    write(backend, [(key, None) for key in keys], flush=True)
    assert list(backend.scan(Table.KEYS)) == []
    assert backend.size_in_use_bytes <= before + 4096 * 2  # the counter of namespaces
    backend.close()


def test_the_map_grows(tmp_path: Path) -> None:
    """More data than the map was made for goes in all the same, and is there after a restart."""
    machine = StateMachine(Backend(LmdbStore(tmp_path, map_bytes=1 << 16)))
    for index in range(1, 200):
        machine.apply(index, 1, encode(Put(b"%d" % index, b"v" * 50_000), user="", wall_clock_ms=0))
        if index % 20 == 0:
            machine.freeze()
            machine.write_frozen()
            machine.release_frozen()
    machine.close()
    machine = StateMachine(Backend(LmdbStore(tmp_path, map_bytes=1 << 16)))
    assert machine.applied == (180, 1)
    assert machine.range(Range(b"\0", b"\0", count_only=True)).count == 180
    machine.close()


def test_a_store_that_fails_keeps_the_state_readable() -> None:
    """When the store cannot be written, the error comes out and nothing counts as durable."""
    store = MemoryStore()
    machine = StateMachine(Backend(store))
    machine.apply(1, 1, encode(Put(b"k", b"v"), user="", wall_clock_ms=0))
    machine.freeze()
    store.fail_with = StateFault("disk")
    with pytest.raises(StateFault):
        machine.write_frozen()
    assert machine.durable_applied[0] == 0
    assert machine.range(Range(b"k")).count == 1


def test_entries_must_follow_each_other() -> None:
    """A state machine that is handed the wrong entry stops: it is not the one it should be."""
    machine = StateMachine(Backend(MemoryStore()))
    machine.apply(1, 1, b"")
    with pytest.raises(StateFault):
        machine.apply(3, 1, b"")
    with pytest.raises(StateFault):
        machine.apply(1, 1, b"")


COMMANDS = [
    Put(b"k", b"v", 5, True, False, True),
    DeleteRange(b"a", b"b", True),
    Compact(7, True),
    Txn(
        (Compare(1, 3, b"k", b"z", b"v"), Compare(0, 0, b"k", b"", 5)),
        (Put(b"a"), Txn((), (Range(b"a", limit=3),), ())),
        (DeleteRange(b"x"),),
    ),
    LeaseGrant(-(1 << 63), 9_000_000_000),
    LeaseRevoke((1 << 63) - 1, 7),
    LeaseCheckpoint(((1, 300), (-2, 0)), 8),
    LeaseCheckpoint(),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_survive_the_log(command) -> None:
    """What is decoded is what was encoded, with who asked and when."""
    assert decode(encode(command, user="ünal", wall_clock_ms=123)) == ("ünal", 123, command)


def test_golden_bytes() -> None:
    """The encoding of commands does not change by accident: it stands in every log."""
    data = encode(Put(b"k", b"v", 5, True, False, True), user="u", wall_clock_ms=9)
    assert data.hex() == "9401a1750997" + "01c4016b" + "c40176" + "05c3c2c3"


@pytest.mark.parametrize(
    ("command", "golden"),
    [
        (LeaseGrant(-2, 60), "93" + "06fe3c"),
        (LeaseRevoke(1 << 62, 3), "93" + "07cf400000000000000003"),
        (LeaseCheckpoint(((5, 300),), 9), "93" + "08" + "91" + "9205cd012c" + "09"),
    ],
)
def test_golden_bytes_of_leases(command, golden: str) -> None:
    """Nor does that of what is asked of leases."""
    assert encode(command, user="u", wall_clock_ms=9).hex() == "9401a17509" + golden


@pytest.mark.parametrize(
    "data",
    [b"\x94" + bytes([VERSION + 1]) + b"\xa0\x00\x91\x01", b"\x94\x01\xa0\x00\x91\x63", b"junk", b"\xc1"],
)
def test_unknown_commands_stop_the_node(data: bytes) -> None:
    """A committed command that this version does not understand must not be skipped."""
    machine = StateMachine(Backend(MemoryStore()))
    with pytest.raises(StateFault):
        machine.apply(1, 1, data)


@pytest.mark.parametrize(
    ("txn", "error"),
    [
        (Txn(success=(Put(b"k"), Put(b"k"))), DuplicateKey),
        (Txn(success=(DeleteRange(b"a", b"z"), Put(b"k"))), DuplicateKey),
        (Txn(success=(DeleteRange(b"a", b"\0"), Put(b"k"))), None),
        (Txn(success=(DeleteRange(b"a", b"\0"), Put(b"k", ignore_value=True))), DuplicateKey),
        (Txn(success=(Txn(success=(Put(b"k"),), failure=(Put(b"k"),)),)), None),
        (Txn(success=(Range(b"k"),) * 3), None),
        (Txn(success=(Range(b"k"),) * 4), TooManyOps),
        (Txn(success=(Range(b"k"), Txn(success=(Range(b"k"),) * 2))), TooManyOps),
        (Txn(success=(None,)), KeyNotFound),
        (Txn(compare=(Compare(),)), EmptyKey),
    ],
)
def test_transactions_are_checked(txn: Txn, error: type[RequestError] | None) -> None:
    """What no state could make right is refused before it is proposed."""
    if error is None:
        check_txn(txn, 3)
    else:
        with pytest.raises(error):
            check_txn(txn, 3)


def test_compacted_keys_leave_nothing() -> None:
    """A key that was deleted at one compact revision is gone without trace after the next."""
    backend = Backend(MemoryStore())
    machine = StateMachine(backend)
    commands = [Put(b"k", b"1"), Put(b"k", b"2"), DeleteRange(b"k"), Compact(4), Put(b"other"), Compact(5)]
    for index, command in enumerate(commands, start=1):
        assert machine.apply(index, 1, encode(command, user="", wall_clock_ms=0)).error is None
        while not machine.compaction_step(1):
            pass
    assert [key for key, _ in backend.scan(Table.KEYS)] == [b"other"]
    assert len(list(backend.scan(Table.REVISIONS))) == 1
    assert list(backend.scan(Table.HISTORY)) == []


@pytest.mark.parametrize("reverse", [False, True])
def test_a_key_of_a_megabyte(reverse: bool, tmp_path: Path) -> None:
    """A key as long as a request may be is found, walked over and removed like any other."""
    machine = StateMachine(Backend(LmdbStore(tmp_path)))
    huge = b"k" * 1_500_000
    for index, key in enumerate((b"a", huge, huge + b"1", b"z"), start=1):
        machine.apply(index, 1, encode(Put(key, b"v"), user="", wall_clock_ms=0))
    machine.freeze()
    machine.write_frozen()
    machine.release_frozen()
    order = SortOrder.DESCEND if reverse else SortOrder.ASCEND
    found = [kv.key for kv in machine.range(Range(b"\0", b"\0", sort_order=order)).kvs]
    assert found == sorted([b"a", huge, huge + b"1", b"z"], reverse=reverse)
    result = machine.apply(5, 1, encode(DeleteRange(b"k", b"l"), user="", wall_clock_ms=0))
    assert result.response.deleted == 2
    machine.close()


def test_checking_a_transaction_takes_time_in_proportion() -> None:
    """A transaction made to have as many puts and deletions as the limits allow does not hold the
    server up: three levels of 42 operations are 74,088."""

    def nested(depth: int, number: list[int]) -> tuple:
        ops = []
        for _ in range(42):
            number[0] += 1
            name = b"%08d" % number[0]
            if depth:
                ops.append(Txn(success=nested(depth - 1, number)))
            else:
                ops.append(
                    Put(b"p" + name) if number[0] % 2 else DeleteRange(b"d" + name, b"d" + name + b"x")
                )
        return tuple(ops)

    txn = Txn(success=nested(2, [0]))
    started = time.process_time()
    check_txn(txn, 128)
    assert time.process_time() - started < 3


@given(
    st.lists(st.tuples(st.binary(max_size=2), st.one_of(st.just(b""), st.binary(min_size=1, max_size=2)))),
    st.binary(max_size=2),
)
def test_deletions_cover_what_comparing_says(deletions: list[tuple[bytes, bytes]], key: bytes) -> None:
    """A put collides with a deletion exactly if comparing it with each of them says so."""
    txn = Txn(success=(*(DeleteRange(low or b"x", high) for low, high in deletions), Put(key or b"x")))
    covered = any(
        op.key == (key or b"x") if not op.range_end else op.key <= (key or b"x") < op.range_end
        for op in txn.success
        if isinstance(op, DeleteRange)
    )
    if covered:
        with pytest.raises(DuplicateKey):
            check_txn(txn, 1000)
    else:
        check_txn(txn, 1000)
