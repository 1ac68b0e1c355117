"""Keys at revisions: reading at any of them, and writing the next one (API.md 4.1, 4.2).

``View`` reads; ``Writer`` is a view that also collects the changes of one revision, each at
the next sub-revision, and sees them itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvstate.backend import Backend, Table
from kvstate.commands import DeleteRangeResponse, PutResponse, Range, RangeResponse
from kvstate.errors import Compacted, FutureRevision, KeyNotFound
from kvstate.ranges import PAGE_KEYS, RangeRun, Sink, answer_one, record_at, revision_data, upper_bound
from kvstate.records import (
    KeyRecord,
    last_place,
    pack_history,
    pack_key_record,
    pack_put,
    pack_revision,
    pack_tombstone,
    unpack_key_fields,
    unpack_key_record,
    unpack_kv,
)
from kvstate.types import Event, EventType, KeyValue

_PUT = EventType.PUT
_NO_PREVIOUS = PutResponse(None)


class View:
    """The store as it is at ``revision``, with its past back to ``compact_revision``."""

    def __init__(self, backend: Backend, revision: int, compact_revision: int) -> None:
        self._backend = backend
        self.revision = revision
        self.compact_revision = compact_revision

    @property
    def current_revision(self) -> int:
        """What a read sees: the revision, and what the transaction at hand has added."""
        return self.revision

    def live_record(self, key: bytes) -> KeyRecord | None:
        data = self._backend.get(Table.KEYS, key)
        if data is None:
            return None
        record = unpack_key_record(data)
        return record if record.is_live else None

    def live_records(self, key: bytes, range_end: bytes) -> Iterator[tuple[bytes, KeyRecord]]:
        """The living keys that a request addresses, in key order."""
        if not range_end:
            record = self.live_record(key)
            if record is not None:
                yield key, record
            return
        for name, data in self._backend.scan(Table.KEYS, key, upper_bound(range_end)):
            record = unpack_key_record(data)
            if record.is_live:
                yield name, record

    def kv_at(self, main: int, sub: int) -> KeyValue:
        return unpack_kv(main, revision_data(self._backend, pack_revision(main, sub)))

    def check_revision(self, revision: int) -> None:
        if revision > self.current_revision:
            raise FutureRevision
        if revision < self.compact_revision:
            raise Compacted(self.compact_revision)

    def range(self, request: Range) -> RangeResponse:
        """All of it at once; ``StateMachine.range_steps`` is for ranges that may be large."""
        if request.range_end:
            run = self.range_run(request)
            for _ in run.steps():
                pass
            return run.response
        return answer_one(request, self.kv_of(request.key, self._revision_of(request)))

    def range_run(self, request: Range, sink: Sink | None = None, page_keys: int = PAGE_KEYS) -> RangeRun:
        return RangeRun(self._backend, request, self._revision_of(request), sink, page_keys)

    def _revision_of(self, request: Range) -> int:
        """Where the request wants to read. Raises FutureRevision or Compacted."""
        current = self.current_revision
        revision = request.revision if request.revision > 0 else current
        self.check_revision(revision)
        return revision

    def kv_of(self, key: bytes, revision: int) -> KeyValue | None:
        """What the key was at ``revision``."""
        data = self._backend.get(Table.KEYS, key)
        if data is None:
            return None
        if revision < self.current_revision:
            data = record_at(self._backend, data, last_place(revision))
        _, main, sub, _, version, _ = unpack_key_fields(data)
        return self.kv_at(main, sub) if version else None


class Writer(View):
    """Collects the changes of one revision. Nothing is visible to other views until the
    machine takes over ``current_revision``; the caller checks everything before the first change."""

    def __init__(
        self,
        backend: Backend,
        revision: int,
        compact_revision: int,
        next_key_id: int,
        user: bytes,
        wall_clock_ms: int,
    ) -> None:
        super().__init__(backend, revision, compact_revision)
        self.next_key_id = next_key_id
        self.events: list[Event] = []
        self._user = user
        self._wall_clock_ms = wall_clock_ms

    @property
    def current_revision(self) -> int:
        return self.revision + 1 if self.events else self.revision

    def put(
        self, key: bytes, value: bytes, lease: int, prev_kv: bool, ignore_value: bool, ignore_lease: bool
    ) -> PutResponse:
        """Raises KeyNotFound, before any change, where something is to be kept of a key that is not."""
        backend, main, sub = self._backend, self.revision + 1, len(self.events)
        data = backend.get(Table.KEYS, key)
        previous = None
        if data is None:
            key_id, create, version = self.next_key_id, main, 1
            if ignore_value or ignore_lease:
                raise KeyNotFound
            self.next_key_id += 1
        else:
            key_id, old_main, old_sub, create, version, old_lease = unpack_key_fields(data)
            if ignore_value or ignore_lease or prev_kv:
                if version:
                    previous = self.kv_at(old_main, old_sub)
                elif ignore_value or ignore_lease:
                    raise KeyNotFound
            if ignore_value and previous is not None:
                value = previous.value
            if ignore_lease:
                lease = old_lease
            if not version:
                create = main
            version += 1
            backend.put(Table.HISTORY, pack_history(key_id, old_main, old_sub), b"")
        kv = KeyValue(key, create, main, version, value, lease)
        backend.put(Table.REVISIONS, pack_revision(main, sub), pack_put(kv, self._user, self._wall_clock_ms))
        backend.put(Table.KEYS, key, pack_key_record(key_id, main, sub, create, version, lease))
        self.events.append(Event(_PUT, kv))
        return PutResponse(previous) if prev_kv else _NO_PREVIOUS

    def delete_range(self, key: bytes, range_end: bytes, prev_kv: bool) -> DeleteRangeResponse:
        backend, main = self._backend, self.revision + 1
        doomed = list(self.live_records(key, range_end))
        prev_kvs = [self.kv_at(record.main, record.sub) for _, record in doomed] if prev_kv else []
        for name, record in doomed:
            sub = len(self.events)
            backend.put(Table.HISTORY, pack_history(record.key_id, record.main, record.sub), b"")
            tombstone = pack_tombstone(name, self._user, self._wall_clock_ms)
            backend.put(Table.REVISIONS, pack_revision(main, sub), tombstone)
            backend.put(Table.KEYS, name, pack_key_record(record.key_id, main, sub, 0, 0, 0))
            self.events.append(Event(EventType.DELETE, KeyValue(name, 0, main, 0, b"", 0)))
        return DeleteRangeResponse(len(doomed), prev_kvs)
