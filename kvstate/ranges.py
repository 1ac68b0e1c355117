"""A range, read in bounded steps (API.md 4.2).

A range may address a million keys, and whoever shares the event loop with it cannot wait for
seconds. So it is read a page at a time, and between two steps others may do as they please:

    for _ in run.steps():
        ...                     # writes, flushes, compactions: the answer stays the same
    run.response

What makes that correct: everything is read as of one revision, which was the newest when the
range began. Where a key has a newer one by now, HISTORY says what it had then. Nothing is kept
between two steps that a write or a flush could spoil: no cursor, only the key to go on with.
The caller sees to it that what lived at the revision is not scrubbed away meanwhile, and drops
the run where the whole state is replaced (``StateMachine.range_steps``).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from kvstate.backend import Backend, Table
from kvstate.commands import Range, RangeResponse, SortOrder, SortTarget
from kvstate.errors import StateFault
from kvstate.records import (
    DEAD,
    NEWEST,
    history_of,
    key_record_before,
    key_record_then,
    pack_revision,
    place_in_history,
    unpack_key_kv,
    unpack_kvs,
    unpack_revision,
)
from kvstate.types import KeyValue

_LAST_SUB = 0xFFFF_FFFF
_EVERYTHING = (1 << 63) - 1

PAGE_KEYS = 500
# What things cost, in units of some 0.4 µs; a step ends when it has spent as much as a page of values.
_STEP_COST = 2500
_KEY_COST, _VALUE_COST, _HISTORY_COST = 1, 4, 25
_SORTED_AT_ONCE = 4000
_MERGED_PER_STEP = 1000

_SORT_KEYS: dict[int, Callable[[KeyValue], Any]] = {
    SortTarget.KEY: lambda kv: kv.key,
    SortTarget.VERSION: lambda kv: kv.version,
    SortTarget.CREATE: lambda kv: kv.create_revision,
    SortTarget.MOD: lambda kv: kv.mod_revision,
    SortTarget.VALUE: lambda kv: kv.value,
}


class RangeRun:
    """One range of many keys under way; ``response`` is there when ``steps`` is exhausted. ``page_keys``
    is for tests, which have few keys."""

    def __init__(self, backend: Backend, request: Range, revision: int, page_keys: int = PAGE_KEYS) -> None:
        self._backend = backend
        self._request = request
        self.revision = revision
        # The last place that the range may see.
        self._horizon = pack_revision(revision, _LAST_SUB)
        self._page_keys = page_keys
        self._step_cost = _STEP_COST * page_keys // PAGE_KEYS
        self._spent = 0
        self.response: RangeResponse

    def steps(self) -> Iterator[None]:
        """Select at the revision, filter, sort, limit. ``count`` is of the selection, before
        filters and limit; counting never reads values. A range of few keys is one step."""
        request, backend = self._request, self._backend
        wanted = 0 if request.count_only else _fetch_limit(request)
        without_values = request.keys_only and request.sort_target != SortTarget.VALUE
        kvs: list[KeyValue] = []
        count = taken = 0
        low: bytes | None = request.key
        high = upper_bound(request.range_end)
        while low is not None:
            page, low = backend.page(Table.KEYS, low, high, self._page_keys)
            self._spent += len(page) * _KEY_COST
            if page and max([record[NEWEST] for _, record in page]) > self._horizon:
                yield from self._turn_back(page)
            living = [record for _, record in page if not record.endswith(DEAD)]
            count += len(living)
            if taken < wanted:
                found = page if len(living) == len(page) else _living(page)
                del found[wanted - taken :]
                taken += len(found)
                kvs += _filter(request, self._without_values(found) if without_values else self._read(found))
            if self._spent >= self._step_cost and low is not None:
                self._spent = 0
                yield
        if _is_sorted(request):
            yield from self._sort(kvs)
        more = 0 < request.limit < len(kvs)
        if more:
            del kvs[request.limit :]
        if request.keys_only and not without_values:
            kvs = [kv._replace(value=b"") for kv in kvs]
        self.response = RangeResponse(kvs, more, count)

    def _read(self, found: list[tuple[bytes, bytes]]) -> list[KeyValue]:
        """The key-values that KEYS points to."""
        self._spent += len(found) * _VALUE_COST
        places = [record[NEWEST] for _, record in found]
        values = self._backend.get_many(Table.REVISIONS, sorted(places))
        if len(values) < len(places):
            raise StateFault(f"{len(places) - len(values)} revisions are missing from the state")
        return unpack_kvs(places, values)

    def _without_values(self, found: list[tuple[bytes, bytes]]) -> list[KeyValue]:
        """A key's record has everything but the value."""
        self._spent += len(found) * _VALUE_COST
        return [unpack_key_kv(name, record) for name, record in found]

    def _turn_back(self, page: list[tuple[bytes, bytes]]) -> Iterator[None]:
        """Make of a page of KEYS what it was at the revision. It holds for good: a step may end here."""
        for index, (name, record) in enumerate(page):
            if record[NEWEST] > self._horizon:
                page[index] = (name, self._record_then(record))
                self._spent += _HISTORY_COST
                if self._spent >= self._step_cost:
                    self._spent = 0
                    yield

    def _record_then(self, record: bytes) -> bytes:
        """What KEYS said of a key at the revision, that now has the newer ``record``."""
        low, high = history_of(record, self._horizon)
        for entry, _ in self._backend.scan(Table.HISTORY, low, high, reverse=True):
            place = place_in_history(entry)
            data = self._backend.get(Table.REVISIONS, place)
            if data is None:
                main, sub = unpack_revision(place)
                raise StateFault(f"revision {main}.{sub} is missing from the state")
            return key_record_then(record, place, data)
        return key_record_before(record)

    def _sort(self, kvs: list[KeyValue]) -> Iterator[None]:
        """In place. What is too much to be sorted at once is sorted in parts, which are then merged."""
        request = self._request
        key, reverse = _SORT_KEYS[request.sort_target], request.sort_order == SortOrder.DESCEND
        if request.sort_target == SortTarget.KEY:
            if reverse:
                kvs.reverse()  # they come in ascending order
        elif len(kvs) <= _SORTED_AT_ONCE:
            kvs.sort(key=key, reverse=reverse)
        else:
            parts = []
            for begin in range(0, len(kvs), _SORTED_AT_ONCE):
                part = kvs[begin : begin + _SORTED_AT_ONCE]
                part.sort(key=key, reverse=reverse)
                parts.append(part)
                yield
            merged = heapq.merge(*parts, key=key, reverse=reverse)
            kvs.clear()
            while piece := list(islice(merged, _MERGED_PER_STEP)):
                kvs += piece
                yield
                if 0 < request.limit < len(kvs):
                    return


def upper_bound(range_end: bytes) -> bytes | None:
    """A range_end as the exclusive end of a scan: b"\\0" means there is none."""
    return None if range_end == b"\0" else range_end


def answer_one(request: Range, kv: KeyValue | None) -> RangeResponse:
    """The answer to a range that addresses a single key."""
    if kv is None:
        return RangeResponse([], False, 0)
    if request.count_only:
        return RangeResponse([], False, 1)
    return RangeResponse(_filter(request, [kv._replace(value=b"") if request.keys_only else kv]), False, 1)


def _living(page: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [entry for entry in page if not entry[1].endswith(DEAD)]


def _fetch_limit(request: Range) -> int:
    """How many key-values must be read: the limit and one more, unless sorting or filtering
    comes first. As in etcd, a sort target alone, without an order, does not count as sorting here."""
    if (
        request.limit <= 0
        or request.sort_order != SortOrder.NONE
        or request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    ):
        return _EVERYTHING
    return request.limit + 1


def _filter(request: Range, kvs: list[KeyValue]) -> list[KeyValue]:
    if request.max_mod_revision:
        kvs = [kv for kv in kvs if kv.mod_revision <= request.max_mod_revision]
    if request.min_mod_revision:
        kvs = [kv for kv in kvs if kv.mod_revision >= request.min_mod_revision]
    if request.max_create_revision:
        kvs = [kv for kv in kvs if kv.create_revision <= request.max_create_revision]
    if request.min_create_revision:
        kvs = [kv for kv in kvs if kv.create_revision >= request.min_create_revision]
    return kvs


def _is_sorted(request: Range) -> bool:
    return request.sort_order != SortOrder.NONE or request.sort_target != SortTarget.KEY
