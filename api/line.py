"""Waiting in line, which is what locks and elections have in common. The line is in the store.

Who wants to be the one puts a key ``<name>/<its lease in hexadecimal>`` with that lease. The line is these
keys in the order of their create revisions, and whoever has the oldest is the one. Each waits for the end of
the key just before its own, so an end wakes one and not all. A key ends when it is deleted or its lease does.

    line = Line(store, b"jobs")
    place = await line.enter(lease, b"")    # b"jobs/4d", revision 7
    await line.turn(place)                  # until no key is older
    await leave(store, place)

``Place.revision`` is also the fencing token: of two that were ever first, the later one has the greater.

Nothing here remembers anything: what a leader's change or a compaction interrupts is taken up from the
state, and reads are asked again for as long as the caller waits. Writes are not. Whether one was done is then
unknown, and who enters again with the same lease finds the key that he may have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple, Protocol, TypeVar

from api.service import Reply
from kvstate.commands import (
    Compare,
    CompareTarget,
    DeleteRange,
    LeaseGrantResponse,
    Put,
    Range,
    RangeResponse,
    RequestOp,
    SortOrder,
    SortTarget,
    Txn,
    TxnResponse,
)
from kvstate.types import EventType, KeyValue
from raft.errors import LeadershipLost, NotLeader, Overloaded, ProposalDropped, Stopped, TimedOut
from watch.stream import WatchStream
from watch.watcher import WatchCreate, WatchResponse

T = TypeVar("T")
RETRY_SECONDS = 0.05
"""Between two tries of what a leader's change has interrupted."""
_PASSING = (LeadershipLost, NotLeader, Overloaded, ProposalDropped, TimedOut)
_DELETES = frozenset({EventType.PUT})
"""The filter that leaves deletions only."""


class Store(Protocol):
    """``api.service.Service``, as far as it matters here."""

    async def range(self, request: Range) -> Reply: ...
    async def delete_range(self, request: DeleteRange) -> Reply: ...
    async def txn(self, request: Txn) -> Reply: ...
    async def lease_grant(self, ttl: int, lease_id: int = 0) -> Reply: ...
    def watch(self) -> WatchStream: ...


class Gone(Exception):
    """The place in the line is lost: its key was deleted, or its lease has ended."""


class Place(NamedTuple):
    """One who waits, or is first."""

    key: bytes
    lease: int
    revision: int  # the key's create revision
    value: bytes
    is_new: bool  # it did not stand in the line before
    is_first: bool
    as_of: int  # the store's revision when all this was so


class Line:
    """The keys ``<name>/…``, oldest first."""

    def __init__(self, store: Store, name: bytes) -> None:
        self._store = store
        self._prefix = name + b"/"
        self._end = name + b"0"
        self._oldest = Range(
            self._prefix, self._end, limit=1, sort_order=SortOrder.ASCEND, sort_target=SortTarget.CREATE
        )

    async def enter(self, lease: int, value: bytes) -> Place:
        """A place at the end of the line, or the one that this lease has already, with the value it has."""
        key = b"%b%b" % (self._prefix, f"{lease:x}".encode())
        put = Put(key, value, lease=lease)
        reply = await self._store.txn(_if_created_at(key, 0, (put, self._oldest), (Range(key), self._oldest)))
        found = _txn_response(reply)
        (_, own), (_, oldest) = found.responses
        assert isinstance(oldest, RangeResponse)
        first = oldest.kvs[0]
        if found.succeeded:
            return Place(key, lease, reply.revision, value, True, first.key == key, reply.revision)
        assert isinstance(own, RangeResponse)
        kv = own.kvs[0]
        is_first = first.create_revision == kv.create_revision
        return Place(key, lease, kv.create_revision, kv.value, False, is_first, reply.revision)

    async def turn(self, place: Place) -> int:
        """Wait until ``place`` is first; returns the store's revision as of which it is. Raises Gone as soon
        as it is in the line no more, and Stopped."""
        up_to_place = Range(
            self._prefix,
            self._end,
            limit=2,
            sort_order=SortOrder.DESCEND,
            sort_target=SortTarget.CREATE,
            max_create_revision=place.revision,
        )
        while True:
            # Of what must not have changed since, nothing is remembered: a wake-up is only a reason to look.
            kvs, revision = await self._read(up_to_place)
            if not kvs or (kvs[0].key, kvs[0].create_revision) != (place.key, place.revision):
                raise Gone
            if len(kvs) == 1:
                return revision
            # Its own end matters as well: a client that is no more must not wait for ever.
            await self._deletion(revision + 1, kvs[1].key, place.key)

    async def first(self) -> tuple[KeyValue | None, int]:
        """Who is first, and the store's revision as of which that is so."""
        kvs, revision = await self._read(self._oldest)
        return (kvs[0] if kvs else None), revision

    async def firsts(self) -> AsyncGenerator[tuple[KeyValue, int], None]:
        """Whoever is first, now and later, and its values, each with the store's revision when that was
        known. Some may be passed over, never the latest. Ends by raising Stopped."""
        seen = 0
        while True:
            kv, revision = await self.first()
            if kv is None:
                kv = await self._first_put(revision + 1)
                if kv is None:
                    continue
                revision = kv.mod_revision
            if kv.mod_revision != seen:
                seen = kv.mod_revision
                yield kv, revision
            async with aclosing(self._changes(kv.key, revision + 1)) as changes:
                async for changed, as_of in changes:
                    seen = changed.mod_revision
                    yield changed, as_of

    async def _read(self, request: Range) -> tuple[list[KeyValue], int]:
        reply = await persistently(lambda: self._store.range(request))
        assert isinstance(reply.response, RangeResponse)
        return reply.response.kvs, reply.revision

    async def _deletion(self, start: int, *keys: bytes) -> None:
        """Wait until one of the keys is deleted, or that part of the past is gone."""
        watches = [
            WatchCreate(key, start_revision=start, filters=_DELETES, watch_id=number)
            for number, key in enumerate(keys, 1)
        ]
        async with aclosing(self._watched(*watches)) as responses:
            async for response in responses:
                if response.events:
                    return

    async def _first_put(self, start: int) -> KeyValue | None:
        """The first one to enter the line, which is empty; None if that part of the past is gone."""
        watch = WatchCreate(self._prefix, self._end, start_revision=start)
        async with aclosing(self._watched(watch)) as responses:
            async for response in responses:
                for event in response.events:
                    if event.type == EventType.PUT:
                        return event.kv
        return None

    async def _changes(self, key: bytes, start: int) -> AsyncGenerator[tuple[KeyValue, int], None]:
        """What is put to a key, until it is deleted or that part of the past is gone."""
        async with aclosing(self._watched(WatchCreate(key, start_revision=start))) as responses:
            async for response in responses:
                for event in response.events:
                    if event.type == EventType.DELETE:
                        return
                    yield event.kv, response.revision

    async def _watched(self, *watches: WatchCreate) -> AsyncGenerator[WatchResponse, None]:
        """What these watches are told. Ends when one is cancelled, since what it asked for is compacted.
        Raises Stopped."""
        stream = self._store.watch()
        try:
            for watch in watches:
                stream.create(watch)
            while responses := await stream.next():
                for response in responses:
                    if response.canceled:
                        return
                    yield response
            raise Stopped
        finally:
            stream.close()


async def change(store: Store, place: Place, value: bytes) -> int | None:
    """Put another value to the place: the store's revision, or None if the place is lost."""
    put = Put(place.key, value, lease=place.lease)
    reply = await store.txn(_if_created_at(place.key, place.revision, (put,)))
    return reply.revision if _txn_response(reply).succeeded else None


async def leave(store: Store, place: Place) -> int:
    """Give the place up, unless it is lost already; returns the store's revision."""
    reply = await store.txn(_if_created_at(place.key, place.revision, (DeleteRange(place.key),)))
    return reply.revision


async def persistently(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer to what does no harm if it is asked again, however long there is no leader."""
    while True:
        try:
            return await ask()
        except _PASSING:
            await asyncio.sleep(RETRY_SECONDS)


def _if_created_at(
    key: bytes, revision: int, then: tuple[RequestOp, ...], otherwise: tuple[RequestOp, ...] = ()
) -> Txn:
    """``then``, if the key is the one that was created at ``revision`` (0: if there is none)."""
    return Txn((Compare(target=CompareTarget.CREATE, key=key, operand=revision),), then, otherwise)


def _txn_response(reply: Reply) -> TxnResponse:
    assert isinstance(reply.response, TxnResponse)
    return reply.response


async def new_lease(store: Store, ttl: int) -> int:
    """A lease that nobody renews but who learns of its id."""
    reply = await store.lease_grant(ttl)
    assert isinstance(reply.response, LeaseGrantResponse)
    return reply.response.id
