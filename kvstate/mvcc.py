"""Keys at revisions: reading at any of them, and writing the next one (API.md 4.1, 4.2).

``View`` reads; ``Writer`` is a view that also collects the changes of one revision, each at
the next sub-revision, and sees them itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvstate.backend import Backend, Table
from kvstate.commands import DeleteRangeResponse, Put, PutResponse, Range, RangeResponse
from kvstate.errors import Compacted, FutureRevision, KeyNotFound, LeaseNotFound
from kvstate.leases import attach, detach, find_lease
from kvstate.ranges import PAGE_KEYS, RangeRun, Sink, answer_one, record_at, revision_data, upper_bound
from kvstate.records import (
    DEAD,
    NEWEST_BEGIN,
    NEWEST_END,
    KeyRecord,
    history_entry,
    last_place,
    pack_change,
    pack_history,
    pack_revision,
    unpack_key_record,
    unpack_kv_at,
    unpack_lineage,
)
from kvstate.types import KeyValue

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
        data = self._backend.key_record(key)
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
        place = pack_revision(main, sub)
        return unpack_kv_at(place, revision_data(self._backend, place))

    def check_revision(self, revision: int) -> None:
        if revision > self.current_revision:
            raise FutureRevision
        if revision < self.compact_revision:
            raise Compacted(self.compact_revision)

    def check_lease(self, lease_id: int) -> None:
        if find_lease(self._backend, lease_id) is None:
            raise LeaseNotFound

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
        record = self._backend.key_record(key)
        if record is None:
            return None
        if revision < self.current_revision:
            record = record_at(self._backend, record, last_place(revision))
        return self._kv_of_record(record)

    def _kv_of_record(self, record: bytes) -> KeyValue | None:
        """What a key is that has this packed KeyRecord."""
        if record.endswith(DEAD):
            return None
        place = record[NEWEST_BEGIN:NEWEST_END]
        return unpack_kv_at(place, revision_data(self._backend, place))


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
        # As View does; to call its __init__ takes longer.
        self._backend = backend
        self.revision = revision
        self.compact_revision = compact_revision
        self.next_key_id = next_key_id
        self.changes: list[bytes] = []  # what was written to REVISIONS, in order
        self._user = user
        self._wall_clock_ms = wall_clock_ms

    @property
    def current_revision(self) -> int:
        return self.revision + 1 if self.changes else self.revision

    def put(self, op: Put) -> PutResponse:
        """Raises KeyNotFound, before any change, where something is to be kept of a key that is not. The
        caller has checked that the lease is there."""
        key, value, lease, previous = op.key, op.value, op.lease, None
        record = self._backend.key_record(key)
        if op.prev_kv or op.ignore_value or op.ignore_lease:
            previous = None if record is None else self._kv_of_record(record)
            if op.ignore_value or op.ignore_lease:
                if previous is None:
                    raise KeyNotFound
                value = previous.value if op.ignore_value else value
                lease = previous.lease if op.ignore_lease else lease
        if record is None:
            key_id = self.next_key_id
            self.next_key_id = key_id + 1
            self._write(key_id, self.revision + 1, 1, lease, key, value, None)
            if lease:
                attach(self._backend, lease, key)
        else:
            key_id, create, version, old_lease = unpack_lineage(record)
            create = create or self.revision + 1  # a deleted key begins anew
            self._write(key_id, create, version + 1, lease, key, value, history_entry(record))
            if old_lease != lease:
                self._change_lease(key, old_lease, lease)
        return PutResponse(previous) if op.prev_kv else _NO_PREVIOUS

    def delete_range(self, key: bytes, range_end: bytes, prev_kv: bool) -> DeleteRangeResponse:
        doomed = list(self.live_records(key, range_end))
        prev_kvs = [self.kv_at(record.main, record.sub) for _, record in doomed] if prev_kv else []
        for name, record in doomed:
            replaced = pack_history(record.key_id, record.main, record.sub)
            self._write(record.key_id, 0, 0, 0, name, b"", replaced)
            if record.lease:
                detach(self._backend, record.lease, name)
        return DeleteRangeResponse(len(doomed), prev_kvs)

    def _change_lease(self, key: bytes, old: int, new: int) -> None:
        if old:
            detach(self._backend, old, key)
        if new:
            attach(self._backend, new, key)

    def _write(
        self,
        key_id: int,
        create: int,
        version: int,
        lease: int,
        key: bytes,
        value: bytes,
        replaced: bytes | None,
    ) -> None:
        record, place, data = pack_change(
            key_id,
            self.revision + 1,
            len(self.changes),
            create,
            version,
            lease,
            self._user,
            self._wall_clock_ms,
            key,
            value,
        )
        self._backend.put_revision(key, record, place, data, replaced)
        self.changes.append(data)
