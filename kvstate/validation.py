"""What is wrong with a request whatever the state: checked before it is proposed, in etcd's order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from kvstate.commands import DeleteRange, LeaseGrant, Put, Range, RequestOp, SortOrder, SortTarget, Txn
from kvstate.errors import (
    DuplicateKey,
    EmptyKey,
    InvalidSortOption,
    KeyNotFound,
    LeaseProvided,
    LeaseTtlTooLarge,
    TooManyOps,
    ValueProvided,
)

MAX_LEASE_TTL = 9_000_000_000
"""In seconds: as nanoseconds, it just fits into 64 bits."""


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


def check_lease_grant(request: LeaseGrant) -> None:
    if request.ttl > MAX_LEASE_TTL:
        raise LeaseTtlTooLarge


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


class _Deleted:
    """The keys that some deletions cover, as ranges that do not overlap, in order: looking a key up
    takes a binary search, however many deletions a request has."""

    def __init__(self) -> None:
        self._lows: list[bytes] = []
        self._highs: list[bytes] = []
        self._open_from: bytes | None = None  # from here on without end

    def add(self, delete: DeleteRange) -> None:
        if delete.range_end == b"\0":
            start = self._open_from
            self._open_from = delete.key if start is None else min(start, delete.key)
        else:
            self._add(delete.key, delete.range_end or delete.key + b"\0")

    def update(self, other: _Deleted) -> None:
        for low, high in zip(other._lows, other._highs, strict=True):
            self._add(low, high)
        if other._open_from is not None:
            self.add(DeleteRange(other._open_from, b"\0"))

    def covers(self, put: Put) -> bool:
        needs_what_was = put.ignore_value or put.ignore_lease
        if needs_what_was and self._open_from is not None and self._open_from <= put.key:
            # etcd takes an end of b"\0" as it stands here, so as covering nothing: it accepts this
            # and then panics in apply.
            return True
        place = bisect_right(self._lows, put.key) - 1
        return place >= 0 and put.key < self._highs[place]

    def _add(self, low: bytes, high: bytes) -> None:
        if low >= high:
            return
        first = bisect_left(self._highs, low)
        last = bisect_right(self._lows, high)
        if first < last:
            low, high = min(low, self._lows[first]), max(high, self._highs[last - 1])
        self._lows[first:last] = [low]
        self._highs[first:last] = [high]


def _check_overlaps(ops: tuple[RequestOp, ...]) -> tuple[dict[bytes, Put], _Deleted]:
    """One branch must not change a key twice. Returns its puts by key, and what it deletes.

    Puts of a nested transaction's two branches exclude each other, so they may share keys.
    """
    deleted = _Deleted()
    for op in ops:
        if isinstance(op, DeleteRange):
            deleted.add(op)
    puts: dict[bytes, Put] = {}
    for op in ops:
        if not isinstance(op, Txn):
            continue
        then_puts, then_deleted = _check_overlaps(op.success)
        else_puts, else_deleted = _check_overlaps(op.failure)
        for put in (*then_puts.values(), *else_puts.values()):
            _check_against(put, puts, deleted)
        puts |= then_puts | else_puts
        deleted.update(then_deleted)
        deleted.update(else_deleted)
    for op in ops:
        if isinstance(op, Put):
            _check_against(op, puts, deleted)
            puts[op.key] = op
    return puts, deleted


def _check_against(put: Put, puts: dict[bytes, Put], deleted: _Deleted) -> None:
    if put.key in puts or deleted.covers(put):
        raise DuplicateKey
