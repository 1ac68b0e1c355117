"""The state machine: committed commands in, results and events out, the same on every node.

``apply`` reads no clock, no randomness and no order it did not make itself. What it changes
is in the backend's memtable at once and durable later (``backend``); the applied index and
term are made durable in the same transaction as the data they stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import msgpack

from kvstate import txn as transactions
from kvstate.backend import Backend, Store, Table
from kvstate.codec import decode
from kvstate.commands import (
    Command,
    Compact,
    CompactResponse,
    DeleteRange,
    LeaseCheckpoint,
    LeaseCheckpointResponse,
    LeaseGrant,
    LeaseGrantResponse,
    LeaseRevoke,
    LeaseRevokeResponse,
    Put,
    Range,
    RangeResponse,
    Response,
    Txn,
    TxnResponse,
)
from kvstate.compaction import scrub
from kvstate.errors import (
    Compacted,
    ExpiryOutdated,
    FutureRevision,
    LeaseExists,
    LeaseNotFound,
    RequestError,
    StateFault,
)
from kvstate.hash import hash_kv, hash_state
from kvstate.leases import all_leases, find_lease, keys_of_lease, lease_page, remove_lease, write_lease
from kvstate.mvcc import View, Writer
from kvstate.ranges import PAGE_KEYS, RangeRun, Sink
from kvstate.records import pack_revision, unpack_event, unpack_revision
from kvstate.txn import is_read_only
from kvstate.types import Event, KeyValue, Lease

__all__ = ["ApplyResult", "Events", "StateMachine", "is_read_only"]

FORMAT_VERSION = 1
NEVER_COMPACTED = -1
META_KEY = b"machine"


class Events:
    """The events of one revision, in order of sub-revision. They are made when somebody looks, of what
    was stored: mostly nobody watches, and to make them takes a good part of the time of a put."""

    def __init__(self, revision: int, stored: list[bytes]) -> None:
        self._revision = revision
        self._stored = stored

    def __len__(self) -> int:
        return len(self._stored)

    def __iter__(self) -> Iterator[Event]:
        return iter([unpack_event(self._revision, data) for data in self._stored])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Events) and tuple(self) == tuple(other)

    def __repr__(self) -> str:
        return repr(tuple(self))


NO_EVENTS = Events(0, [])


class ApplyResult:
    """``revision`` is the store's after the entry."""

    def __init__(
        self, response: Response | None, error: RequestError | None, events: Events, revision: int
    ) -> None:
        self.response = response
        self.error = error
        self.events = events
        self.revision = revision

    def __repr__(self) -> str:
        return f"ApplyResult({self.response}, {self.error!r}, {self.events}, {self.revision})"


class StateMachine:
    """The store's state on a backend. Revision 1 is the empty store; ``compact_revision`` is -1
    until something was compacted, as in etcd. ``membership`` is kept for consensus, whose entries
    about it may be gone from the log: opaque bytes, empty in a new store. ``page_keys`` is for tests: how
    many keys a step of a range reads."""

    def __init__(self, backend: Backend, page_keys: int = PAGE_KEYS) -> None:
        self._backend = backend
        self._page_keys = page_keys
        self.revision = 1
        self.compact_revision = NEVER_COMPACTED
        self.applied = (0, 0)
        self.membership = b""
        self._next_key_id = 1
        # Where physical compaction goes on; None when it is done.
        self._scrub_position: bytes | None = None
        self._meta_changed = False
        self._ranges: list[RangeRun] = []  # that are under way, in steps
        self._times_replaced = 0
        self.is_closed = False
        self._load()

    # Writing.

    def apply(self, index: int, term: int, data: bytes) -> ApplyResult:
        """Apply the committed entry at ``index``; empty data changes nothing but the applied index.

        What the request did wrong comes back as ``error``; StateFault means this node must stop.
        """
        self._advance_to(index, term)
        if not data:
            return ApplyResult(None, None, NO_EVENTS, self.revision)
        user, wall_clock_ms, command = decode(data)
        writer = Writer(
            self._backend,
            self.revision,
            self.compact_revision,
            self._next_key_id,
            user.encode(),
            wall_clock_ms,
        )
        try:
            response = self._execute(command, writer)
        except RequestError as error:
            if writer.changes:
                raise StateFault(f"a refused command had begun to change the state: {error}") from error
            return ApplyResult(None, error, NO_EVENTS, self.revision)
        if not writer.changes:
            return ApplyResult(response, None, NO_EVENTS, self.revision)
        self.revision += 1
        self._next_key_id = writer.next_key_id
        return ApplyResult(response, None, Events(self.revision, writer.changes), self.revision)

    def apply_membership(self, index: int, term: int, membership: bytes) -> None:
        """Apply an entry of consensus's own: from here on the membership is this one."""
        self._advance_to(index, term)
        self.membership = membership

    def _advance_to(self, index: int, term: int) -> None:
        if index != self.applied[0] + 1:
            raise StateFault(f"entry {index} cannot follow entry {self.applied[0]}")
        self.applied = (index, term)

    def _execute(self, command: Command, writer: Writer) -> Response:
        if isinstance(command, Put):
            if command.lease:
                writer.check_lease(command.lease)
            return writer.put(command)
        if isinstance(command, Txn):
            return transactions.write(transactions.plan(command, writer), writer)
        if isinstance(command, Compact):
            self._compact(command.revision)
            return CompactResponse()
        if isinstance(command, DeleteRange):
            return writer.delete_range(command.key, command.range_end, command.prev_kv)
        if isinstance(command, LeaseGrant):
            return self._grant(command)
        if isinstance(command, LeaseRevoke):
            return self._revoke(command, writer)
        return self._checkpoint(command)

    def _compact(self, revision: int) -> None:
        if revision <= self.compact_revision:
            raise Compacted(self.compact_revision)
        if revision > self.revision:
            raise FutureRevision
        # From the last compact revision on, whose own tombstones were kept until now; or from where
        # an unfinished walk stands.
        start = pack_revision(max(self.compact_revision, 0), 0)
        self._scrub_position = min(start, self._scrub_position or start)
        self.compact_revision = revision

    def _grant(self, command: LeaseGrant) -> LeaseGrantResponse:
        if not command.id:
            raise LeaseNotFound  # as etcd says it; whoever proposes chooses another one
        if self.lease(command.id) is not None:
            raise LeaseExists
        write_lease(self._backend, Lease(command.id, command.ttl, 0))
        return LeaseGrantResponse(command.id, command.ttl)

    def _revoke(self, command: LeaseRevoke, writer: Writer) -> LeaseRevokeResponse:
        self._check_clock(command.expired_in_term)
        writer.check_lease(command.id)
        for key in self.lease_keys(command.id):
            writer.delete_range(key, b"", prev_kv=False)
        remove_lease(self._backend, command.id)
        return LeaseRevokeResponse(command.id)

    def _checkpoint(self, command: LeaseCheckpoint) -> LeaseCheckpointResponse:
        self._check_clock(command.term)
        for lease_id, remaining_ttl in command.checkpoints:
            lease = self.lease(lease_id)
            if lease is not None:
                write_lease(self._backend, lease._replace(remaining_ttl=remaining_ttl))
        return LeaseCheckpointResponse()

    def _check_clock(self, leaders_term: int) -> None:
        """Who leads in the term of this entry may go by another clock than who proposed it."""
        if leaders_term not in (0, self.applied[1]):
            raise ExpiryOutdated

    @property
    def compaction_pending(self) -> bool:
        """Whether compacted revisions still take up space."""
        return self._scrub_position is not None

    def compaction_step(self, max_revisions: int) -> bool:
        """Remove some of what was compacted; True when nothing is left to remove. No reader can
        tell whether, or when, this was called: what a range under way still needs is not touched."""
        if self._scrub_position is not None:
            if any(run.revision < self.compact_revision for run in self._ranges):
                return False
            self._scrub_position = scrub(
                self._backend, self._scrub_position, self.compact_revision, max_revisions
            )
            self._meta_changed = True
        return self._scrub_position is None

    # Reading.

    def view(self) -> View:
        return View(self._backend, self.revision, self.compact_revision)

    def range(self, request: Range) -> RangeResponse:
        return self.view().range(request)

    def range_steps(
        self, request: Range, sink: Sink | None = None
    ) -> Generator[None, None, tuple[RangeResponse, int]]:
        """A range of many keys in bounded steps, between which anything may happen; returns the answer
        and the store's revision as of which it is given. A range of few keys is one step. It must be run
        to its end, or be closed. A ``sink`` takes the key-values of a plain range."""
        while True:
            view, replaced = self.view(), self._times_replaced
            run = view.range_run(request, sink, self._page_keys)
            self._ranges.append(run)
            try:
                for _ in run.steps():
                    yield
                    if self._times_replaced != replaced:
                        if sink is not None:
                            sink.clear()
                        break  # what was read belongs to another state: once more, from this one
                else:
                    return run.response, view.revision
            finally:
                self._ranges.remove(run)

    def read_txn(self, txn: Txn) -> TxnResponse:
        """Carry out a transaction that only reads."""
        view = self.view()
        return transactions.read(transactions.plan(txn, view), view)

    def events(
        self, start_revision: int, limit_revisions: int, limit_bytes: int
    ) -> list[tuple[int, tuple[Event, ...]]]:
        """The past from ``start_revision`` on: whole revisions, in order, until one of the limits is
        reached; always at least one if there is any. Raises Compacted if some of it is gone."""
        if start_revision < self.compact_revision:
            raise Compacted(self.compact_revision)
        revisions: list[tuple[int, list[Event]]] = []
        size = 0
        for place, data in self._backend.scan(Table.REVISIONS, pack_revision(max(start_revision, 0), 0)):
            main, _ = unpack_revision(place)
            if not revisions or revisions[-1][0] != main:
                if len(revisions) == limit_revisions or size > limit_bytes:
                    break
                revisions.append((main, []))
            size += len(data)
            revisions[-1][1].append(unpack_event(main, data))
        return [(main, tuple(events)) for main, events in revisions]

    def previous(self, key: bytes, mod_revision: int) -> KeyValue | None:
        """The key's value just before ``mod_revision``; None if it had none or it was compacted."""
        before = mod_revision - 1
        if before < self.compact_revision:
            return None
        return self.view().kv_of(key, before)

    def lease(self, lease_id: int) -> Lease | None:
        return find_lease(self._backend, lease_id)

    def leases(self) -> Iterator[Lease]:
        """All there are, in order of their ids. Nothing may be applied between two steps of the iterator."""
        return all_leases(self._backend)

    def lease_page(self, place: bytes, limit: int) -> tuple[list[Lease], bytes | None]:
        """See ``kvstate.leases.lease_page``."""
        return lease_page(self._backend, place, limit)

    def lease_keys(self, lease_id: int) -> list[bytes]:
        """The keys attached to a lease, in order; none if there is no such lease."""
        return keys_of_lease(self._backend, lease_id)

    def hash(self) -> int:
        """CRC32C of the whole logical state."""
        return hash_state(self._backend, self.revision, self.compact_revision)

    def hash_kv(self, revision: int) -> tuple[int, int, int]:
        """(etcd's HashKV up to ``revision``, that revision, compact revision); 0 means the latest.
        Raises Compacted or FutureRevision."""
        if 0 < revision <= self.compact_revision:
            raise Compacted(self.compact_revision)
        if revision > self.revision:
            raise FutureRevision
        revision = revision if revision > 0 else self.revision
        return hash_kv(self._backend, revision, self.compact_revision), revision, self.compact_revision

    # Durability.

    @property
    def durable_applied(self) -> tuple[int, int]:
        """Index and term of the last entry whose effects survive a crash."""
        return self._durable_applied

    @property
    def pending_bytes(self) -> int:
        """Roughly what is in memory because it is not durable yet; never 0 if anything is."""
        unsaved = self.applied != self._durable_applied or self._meta_changed
        return self._backend.pending_bytes + unsaved

    @property
    def size_bytes(self) -> int:
        return self._backend.size_bytes

    @property
    def size_in_use_bytes(self) -> int:
        return self._backend.size_in_use_bytes

    def freeze(self) -> None:
        """Everything applied so far is what ``write_frozen`` makes durable."""
        self._backend.put(Table.META, META_KEY, self._pack_meta())
        self._meta_changed = False
        self._freezing_applied = self.applied
        self._backend.freeze()

    def write_frozen(self) -> None:
        """On a thread. Raises StateFault."""
        self._backend.write_frozen()

    def release_frozen(self) -> None:
        self._backend.release_frozen()
        self._durable_applied = self._freezing_applied

    def restore(self, open_store: Callable[[], Store]) -> None:
        """Go on from another, durable state: a snapshot's, opened when the old one is closed. What was not
        durable yet is forgotten."""
        self._times_replaced += 1
        self._backend.replace(open_store)
        if self._backend.get(Table.META, META_KEY) is None:
            raise StateFault("the snapshot holds no state: expected one with its applied index")
        self._load()

    def close(self) -> None:
        self.is_closed = True
        self._backend.close()

    def _pack_meta(self) -> bytes:
        packed: bytes = msgpack.packb(
            {
                "format": FORMAT_VERSION,
                "applied": self.applied,
                "revision": self.revision,
                "compact_revision": self.compact_revision,
                "next_key_id": self._next_key_id,
                "scrub_position": self._scrub_position,
                "membership": self.membership,
            }
        )
        return packed

    def _load(self) -> None:
        """Take over what the store holds durably; a new store holds nothing."""
        packed = self._backend.get(Table.META, META_KEY)
        if packed is not None:
            meta = _unpack_meta(packed)
            index, term = meta["applied"]
            self.applied = (index, term)
            self.revision = meta["revision"]
            self.compact_revision = meta["compact_revision"]
            self._next_key_id = meta["next_key_id"]
            self._scrub_position = meta["scrub_position"]
            self.membership = meta.get("membership", b"")  # early states of a single member lack it
        self._durable_applied = self._freezing_applied = self.applied
        self._meta_changed = False


def stands_for(packed_meta: bytes) -> tuple[tuple[int, int], bytes]:
    """(applied index and term, membership) of a state, from its value at META_KEY. Raises StateFault."""
    meta = _unpack_meta(packed_meta)
    index, term = meta["applied"]
    return (index, term), meta.get("membership", b"")


def _unpack_meta(packed: bytes) -> dict[str, Any]:
    meta: dict[str, Any] = msgpack.unpackb(packed)
    if meta["format"] != FORMAT_VERSION:
        raise StateFault(
            f"the state has format version {meta['format']}, this program knows {FORMAT_VERSION}"
        )
    return meta
