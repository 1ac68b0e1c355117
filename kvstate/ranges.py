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
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Protocol

from kvstate.backend import Backend, Table
from kvstate.commands import Range, RangeResponse, SortOrder, SortTarget
from kvstate.errors import StateFault
from kvstate.records import (
    DEAD,
    NEWEST_BEGIN,
    NEWEST_END,
    history_of,
    key_record_before,
    key_record_then,
    last_place,
    place_in_history,
    unpack_key_kv,
    unpack_kvs,
    unpack_revision,
)
from kvstate.types import KeyValue

_EVERYTHING = (1 << 63) - 1
_REVISIONS: Final = Table.REVISIONS  # looked up in its enum once

PAGE_KEYS = 500
# What things cost, in units of some 0.4 µs; a step ends when it has spent as much as a page of values.
_STEP_COST = 2500
_KEY_COST, _VALUE_COST, _HISTORY_COST = 1, 4, 25
_BYTES_PER_COST = 256
_FIRST_BATCH_KEYS = 16
_BATCH_BYTES = 256 << 10
_SORTED_AT_ONCE = 4000
_MERGED_PER_STEP = 1000

_SORT_KEYS: dict[int, Callable[[KeyValue], Any]] = {
    SortTarget.KEY: lambda kv: kv.key,
    SortTarget.VERSION: lambda kv: kv.version,
    SortTarget.CREATE: lambda kv: kv.create_revision,
    SortTarget.MOD: lambda kv: kv.mod_revision,
    SortTarget.VALUE: lambda kv: kv.value,
}


class Sink(Protocol):
    """Takes what a plain range finds (``is_plain``) as it is stored, for something better than KeyValues."""

    def take(self, places: Sequence[bytes], records: Mapping[bytes, bytes]) -> None:
        """The next key-values in order: REVISIONS, keyed by place."""

    def clear(self) -> None:
        """The range begins once more."""


class RangeRun:
    """One range of many keys under way; ``response`` is there when ``steps`` is exhausted. It has no
    key-values if a ``sink`` took them. ``page_keys`` is for tests, which have few keys."""

    def __init__(
        self,
        backend: Backend,
        request: Range,
        revision: int,
        sink: Sink | None = None,
        page_keys: int = PAGE_KEYS,
    ) -> None:
        assert sink is None or is_plain(request)
        self._backend = backend
        self._request = request
        self._sink = sink
        self.revision = revision
        self._horizon = last_place(revision)
        self._page_keys = page_keys
        self._step_cost = _STEP_COST * page_keys // PAGE_KEYS
        self._spent = 0
        self._batch_keys = min(_FIRST_BATCH_KEYS, page_keys)  # values may be large: first see some
        self.response: RangeResponse

    def steps(self) -> Iterator[None]:
        """Select at the revision, filter, sort, limit. ``count`` is of the selection, before
        filters and limit; counting never reads values. A range of few keys is one step."""
        request, backend, sink = self._request, self._backend, self._sink
        wanted = 0 if request.count_only else _fetch_limit(request, sink)
        kvs: list[KeyValue] = []
        count = taken = 0
        low: bytes | None = request.key
        high = upper_bound(request.range_end)
        while low is not None:
            page, low = backend.page(Table.KEYS, low, high, self._page_keys)
            self._spent += len(page) * _KEY_COST
            if page and max([record[NEWEST_BEGIN:NEWEST_END] for _, record in page]) > self._horizon:
                yield from self._turn_back(page)
            living = [entry for entry in page if not entry[1].endswith(DEAD)]
            count += len(living)
            if taken < wanted:
                del living[wanted - taken :]
                taken += len(living)
                yield from self._take(living, kvs)
            if self._spent >= self._step_cost and low is not None:
                self._spent = 0
                yield
        if _is_sorted(request):
            yield from self._sort(kvs)
        more = 0 < request.limit < (len(kvs) if sink is None else count)
        if more:
            del kvs[request.limit :]
        if request.keys_only and request.sort_target == SortTarget.VALUE:
            kvs = [kv._replace(value=b"") for kv in kvs]
        self.response = RangeResponse(kvs, more, count)

    def _take(self, living: list[tuple[bytes, bytes]], kvs: list[KeyValue]) -> Iterator[None]:
        """Read what entries of KEYS point to; a step may end in between."""
        request, sink = self._request, self._sink
        if request.keys_only and request.sort_target != SortTarget.VALUE:
            # A key's record has everything but the value.
            self._spent += len(living) * _VALUE_COST
            kvs += _filter(request, [unpack_key_kv(name, record) for name, record in living])
            return
        begin = 0
        while begin < len(living):
            if self._spent >= self._step_cost:
                self._spent = 0
                yield
            places = [
                record[NEWEST_BEGIN:NEWEST_END] for _, record in living[begin : begin + self._batch_keys]
            ]
            begin += len(places)
            records = self._read(places)
            if sink is None:
                kvs += _filter(request, unpack_kvs(places, records))
            else:
                sink.take(places, records)

    def _read(self, places: list[bytes]) -> dict[bytes, bytes]:
        """What stands in REVISIONS. The next batch is no larger than this one's sizes let expect."""
        records = self._backend.get_many(Table.REVISIONS, sorted(places))
        if len(records) < len(places):
            raise StateFault(f"{len(places) - len(records)} revisions are missing from the state")
        size = sum(map(len, records.values()))
        self._spent += len(places) * _VALUE_COST + size // _BYTES_PER_COST
        self._batch_keys = min(self._page_keys, max(1, _BATCH_BYTES * len(places) // (size + 1)))
        return records

    def _turn_back(self, page: list[tuple[bytes, bytes]]) -> Iterator[None]:
        """Make of a page of KEYS what it was at the revision. It holds for good: a step may end here."""
        for index, (name, record) in enumerate(page):
            if record[NEWEST_BEGIN:NEWEST_END] > self._horizon:
                page[index] = (name, record_at(self._backend, record, self._horizon))
                self._spent += _HISTORY_COST
                if self._spent >= self._step_cost:
                    self._spent = 0
                    yield

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


def record_at(backend: Backend, record: bytes, horizon: bytes) -> bytes:
    """What KEYS said of a key at the revision whose last place is ``horizon``; now it says ``record``."""
    if record[NEWEST_BEGIN:NEWEST_END] <= horizon:
        return record
    low, high = history_of(record, horizon)
    for entry, _ in backend.scan(Table.HISTORY, low, high, reverse=True):
        place = place_in_history(entry)
        return key_record_then(record, place, revision_data(backend, place))
    return key_record_before(record)


def revision_data(backend: Backend, place: bytes) -> bytes:
    """What stands in REVISIONS at a place that is known to be there. Raises StateFault."""
    data = backend.get(_REVISIONS, place)
    if data is None:
        main, sub = unpack_revision(place)
        raise StateFault(f"revision {main}.{sub} is missing from the state")
    return data


def upper_bound(range_end: bytes) -> bytes | None:
    """A range_end as the exclusive end of a scan: b"\\0" means there is none."""
    return None if range_end == b"\0" else range_end


def answer_one(request: Range, kv: KeyValue | None) -> RangeResponse:
    """The answer to a range that addresses a single key."""
    if kv is None:
        return RangeResponse([], False, 0)
    if request.count_only:
        return RangeResponse([], False, 1)
    kvs = _filter(request, [kv._replace(value=b"") if request.keys_only else kv])
    return tuple.__new__(RangeResponse, (kvs, False, 1))  # as in unpack_kv


def is_plain(request: Range) -> bool:
    """Whether the answer is what is found, in the order in which it is found."""
    return not (request.count_only or request.keys_only or _is_sorted(request) or _is_filtered(request))


def _is_sorted(request: Range) -> bool:
    return request.sort_order != SortOrder.NONE or request.sort_target != SortTarget.KEY


def _is_filtered(request: Range) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _fetch_limit(request: Range, sink: Sink | None) -> int:
    """How many key-values must be read: the limit and one more, unless sorting or filtering
    comes first. As in etcd, a sort target alone, without an order, does not count as sorting here."""
    if request.limit <= 0 or request.sort_order != SortOrder.NONE or _is_filtered(request):
        return _EVERYTHING
    return request.limit + (sink is None)  # what a sink has taken cannot be dropped


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
