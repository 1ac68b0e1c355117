"""Transactions (API.md 4.3): decide every branch first, check every operation taken, then do them.

As in etcd, the compares of nested transactions are evaluated together with the outer ones,
on the state before any change.
"""

from __future__ import annotations

from kvstate.commands import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    Put,
    Range,
    Response,
    Txn,
    TxnResponse,
)
from kvstate.errors import KeyNotFound
from kvstate.mvcc import View, Writer
from kvstate.types import KeyValue

_ABSENT = KeyValue(b"", 0, 0, 0, b"", 0)


class Plan:
    """A transaction with its branch decided; ``ops`` holds plans where there are nested ones."""

    def __init__(self, succeeded: bool, ops: list[Range | Put | DeleteRange | Plan]) -> None:
        self.succeeded = succeeded
        self.ops = ops


def is_read_only(txn: Txn) -> bool:
    """Whether no branch could change anything."""
    return all(
        isinstance(op, Range) or (isinstance(op, Txn) and is_read_only(op))
        for op in (*txn.success, *txn.failure)
    )


def plan(txn: Txn, view: View) -> Plan:
    """Decide the branches and check what will be done. Raises RequestError; changes nothing."""
    puts: list[Put] = []
    ranges: list[Range] = []
    decided = _decide(txn, view, puts, ranges)
    for put in puts:
        check_put_state(put, view)
    for request in ranges:
        view.check_revision(request.revision)
    return decided


def check_put_state(op: Put, view: View) -> None:
    """What of a put in a transaction depends on the state."""
    if (op.ignore_value or op.ignore_lease) and view.live_record(op.key) is None:
        raise KeyNotFound
    if op.lease:
        view.check_lease(op.lease)


def read(decided: Plan, view: View) -> TxnResponse:
    """Carry out a read-only plan."""
    return _run(decided, view, None)


def write(decided: Plan, writer: Writer) -> TxnResponse:
    """Carry out a plan. Nothing can fail any more."""
    return _run(decided, writer, writer)


def _decide(txn: Txn, view: View, puts: list[Put], ranges: list[Range]) -> Plan:
    """Adds to ``puts`` and ``ranges`` those that depend on the state, in order."""
    succeeded = not txn.compare or all(_holds(compare, view) for compare in txn.compare)
    ops: list[Range | Put | DeleteRange | Plan] = []
    for op in txn.success if succeeded else txn.failure:
        if isinstance(op, Txn):
            ops.append(_decide(op, view, puts, ranges))
            continue
        assert op is not None, "an empty operation is refused before it is proposed"
        if isinstance(op, Put):
            if op.lease or op.ignore_value or op.ignore_lease:
                puts.append(op)
        elif isinstance(op, Range) and op.revision:
            ranges.append(op)
        ops.append(op)
    return Plan(succeeded, ops)


def _run(decided: Plan, view: View, writer: Writer | None) -> TxnResponse:
    responses: list[tuple[int, Response]] = []
    for op in decided.ops:
        response: Response
        match op:
            case Put():  # the most frequent
                assert writer is not None
                response = writer.put(op)
                revision = view.current_revision
            case Range():
                response = view.range(op)
                revision = view.current_revision
            case Plan():
                response = _run(op, view, writer)
                revision = 0  # as in etcd, the header of a nested transaction is empty
            case DeleteRange(key, range_end, prev_kv):
                assert writer is not None
                response = writer.delete_range(key, range_end, prev_kv)
                revision = view.current_revision
        responses.append((revision, response))
    return TxnResponse(decided.succeeded, responses)


def _holds(compare: Compare, view: View) -> bool:
    """A compare of a range holds if it holds for every key in it; with no key at all, a missing
    key compares as zeros, but has no value: VALUE is false then, even NOT_EQUAL."""
    found = False
    for _, record in view.live_records(compare.key, compare.range_end):
        found = True
        if compare.target == CompareTarget.VALUE:
            kv = view.kv_at(record.main, record.sub)
        else:
            kv = KeyValue(b"", record.create_revision, record.main, record.version, b"", record.lease)
        if not _compare(compare, kv):
            return False
    if found:
        return True
    return compare.target != CompareTarget.VALUE and _compare(compare, _ABSENT)


def _compare(compare: Compare, kv: KeyValue) -> bool:
    match compare.target:
        case CompareTarget.VALUE:
            operand = compare.operand if isinstance(compare.operand, bytes) else b""
            difference = (kv.value > operand) - (kv.value < operand)
        case CompareTarget.VERSION:
            difference = _difference(kv.version, compare)
        case CompareTarget.CREATE:
            difference = _difference(kv.create_revision, compare)
        case CompareTarget.MOD:
            difference = _difference(kv.mod_revision, compare)
        case CompareTarget.LEASE:
            difference = _difference(kv.lease, compare)
        case _:
            difference = 0
    match compare.result:
        case CompareResult.EQUAL:
            return difference == 0
        case CompareResult.NOT_EQUAL:
            return difference != 0
        case CompareResult.GREATER:
            return difference > 0
        case CompareResult.LESS:
            return difference < 0
    return True


def _difference(actual: int, compare: Compare) -> int:
    operand = compare.operand if isinstance(compare.operand, int) else 0
    return (actual > operand) - (actual < operand)
