"""What is wrong with a request whatever the state: checked before it is proposed, in etcd's order."""

from __future__ import annotations

from collections.abc import Iterable

from kvstate.commands import DeleteRange, Put, Range, RequestOp, SortOrder, SortTarget, Txn
from kvstate.errors import (
    DuplicateKey,
    EmptyKey,
    InvalidSortOption,
    KeyNotFound,
    LeaseProvided,
    TooManyOps,
    ValueProvided,
)


def check_range(request: Range) -> None:
    if not request.key:
        raise EmptyKey
    # etcd 3.5 panics on an unknown sort target; 3.6 answers this.
    if not (0 <= request.sort_order < len(SortOrder) and 0 <= request.sort_target < len(SortTarget)):
        raise InvalidSortOption


def check_put(request: Put) -> None:
    if not request.key:
        raise EmptyKey
    if request.ignore_value and request.value:
        raise ValueProvided
    if request.ignore_lease and request.lease:
        raise LeaseProvided


def check_delete_range(request: DeleteRange) -> None:
    if not request.key:
        raise EmptyKey


def check_txn(txn: Txn, max_txn_ops: int) -> None:
    _check_ops(txn, max_txn_ops)
    _check_overlaps(txn.success)
    _check_overlaps(txn.failure)


def _check_ops(txn: Txn, max_txn_ops: int) -> None:
    most = max(len(txn.compare), len(txn.success), len(txn.failure))
    if most > max_txn_ops:
        raise TooManyOps
    if any(not compare.key for compare in txn.compare):
        raise EmptyKey
    for op in (*txn.success, *txn.failure):
        match op:
            case Range():
                check_range(op)
            case Put():
                check_put(op)
            case DeleteRange():
                check_delete_range(op)
            case Txn():
                # A nested transaction has only what its parent leaves of the budget.
                _check_ops(op, max_txn_ops - most)
            case None:
                raise KeyNotFound


def _check_overlaps(ops: Iterable[RequestOp]) -> tuple[dict[bytes, Put], list[DeleteRange]]:
    """One branch must not change a key twice. Returns its puts by key and the ranges it deletes.

    Puts of a nested transaction's two branches exclude each other, so they may share keys.
    """
    ops = tuple(ops)
    deletes = [op for op in ops if isinstance(op, DeleteRange)]
    puts: dict[bytes, Put] = {}
    for op in ops:
        if not isinstance(op, Txn):
            continue
        then_puts, then_deletes = _check_overlaps(op.success)
        else_puts, else_deletes = _check_overlaps(op.failure)
        _check_against(then_puts, puts, deletes)
        _check_against(else_puts, puts, deletes)
        puts |= then_puts | else_puts
        deletes += then_deletes
        deletes += else_deletes
    for op in ops:
        if isinstance(op, Put):
            _check_against({op.key: op}, puts, deletes)
            puts[op.key] = op
    return puts, deletes


def _check_against(new: dict[bytes, Put], puts: dict[bytes, Put], deletes: list[DeleteRange]) -> None:
    if not new.keys().isdisjoint(puts):
        raise DuplicateKey
    if any(_collides(delete, put) for delete in deletes for put in new.values()):
        raise DuplicateKey


def _collides(delete: DeleteRange, put: Put) -> bool:
    if not delete.range_end:
        return delete.key == put.key
    if delete.range_end == b"\0" and (put.ignore_value or put.ignore_lease):
        # It needs what the deletion takes away. etcd accepts this and then panics in apply.
        return delete.key <= put.key
    # As in etcd, an end of b"\0" is otherwise compared as it is: it covers nothing.
    return delete.key <= put.key < delete.range_end
