"""Locks and elections for clients that cannot do them themselves: etcd's services v3lock and v3election.

    lock(b"jobs", lease=77)             b"jobs/4d" once nobody else holds it
    unlock(b"jobs/4d")
    campaign(b"boss", 77, b"host1")     who leads now: LeaderKey(b"boss", b"boss/4d", 12, 77)
    leader(b"boss")                     key and value of who leads
    observe(b"boss")                    and of all who follow

Both are a line in the store (``api.line``): the oldest key of a name is the holder or the leader. Whoever
gives no lease gets one of 60 seconds, which only he can renew who reads its id out of the key.

Promises. Who is told that he holds or leads was first in the line at the revision of the answer, with the
lease alive. A call that ends in any other way, because its client has hung up, the node stops or its lease
has run out, leaves no key of its own behind: the removal goes on when the call is over, until it is done or
the node is. What remains unknown is what a network can lose: an answer on its way to the client, and
whether a write was done whose node has lost its leader.

Every refusal of the store comes out of these services without its code (gRPC's Unknown), as from etcd's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any, NamedTuple

from api.errors import (
    LeaderKeyMissing,
    NoLeaderElected,
    NotElected,
    NotSupportedForLearner,
    Refused,
    SessionExpired,
    is_expected,
    kind_of,
    message_of,
)
from api.line import Gone, Line, Place, Store, change, leave, new_lease, persistently
from kvstate.commands import DeleteRange
from kvstate.types import KeyValue
from raft.errors import Stopped

log = logging.getLogger(__name__)

SESSION_TTL_SECONDS = 60
"""Of the lease that is made for who gives none."""


class Held(NamedTuple):
    """A lock: its key, and the store's revision for the answer's header."""

    key: bytes
    revision: int


class LeaderKey(NamedTuple):
    """How a leader proves itself: who has it may proclaim and resign."""

    name: bytes = b""
    key: bytes = b""
    rev: int = 0
    lease: int = 0


class Concurrency:
    """Locks and elections of one node's clients."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._removals: set[asyncio.Task[None]] = set()  # which nobody waits for

    async def lock(self, name: bytes, lease: int) -> Held:
        """Wait until the lock is ours. Who holds it already, with the same lease, has it at once."""
        with _without_codes():
            line = Line(self._store, name)
            place = await self._enter(line, lease, b"")
            if place.is_first:
                return Held(place.key, place.as_of)
            try:
                async with self._or_leave(place):
                    return Held(place.key, await line.turn(place))
            except Gone:
                raise SessionExpired from None

    async def unlock(self, key: bytes) -> int:
        """Whoever knows the key may, and there need not be any; returns the store's revision."""
        with _without_codes():
            return (await self._store.delete_range(DeleteRange(key))).revision

    async def campaign(self, name: bytes, lease: int, value: bytes) -> tuple[LeaderKey, int]:
        """Wait until we lead, with this value; also the store's revision when we entered."""
        with _without_codes():
            line = Line(self._store, name)
            place = await self._enter(line, lease, value)
            try:
                async with self._or_leave(place):
                    if place.value != value and await change(self._store, place, value) is None:
                        raise Gone
                    if not place.is_first:
                        await line.turn(place)
            except Gone:
                raise NotElected from None
            return LeaderKey(name, place.key, place.revision, place.lease), place.as_of

    async def proclaim(self, leader: LeaderKey | None, value: bytes) -> int:
        """Change the value of who leads, or stands in line; returns the store's revision."""
        with _without_codes():
            place = _place_of(leader)
            if not place.lease:
                # etcd makes a session before it looks at anything, and the key gets its lease.
                place = place._replace(lease=await new_lease(self._store, SESSION_TTL_SECONDS))
            revision = await change(self._store, place, value)
            if revision is None:
                raise NotElected
            return revision

    async def resign(self, leader: LeaderKey | None) -> int:
        """Who does not lead any more has nothing to give up; returns the store's revision."""
        with _without_codes():
            return await leave(self._store, _place_of(leader))

    async def leader(self, name: bytes) -> tuple[KeyValue, int]:
        """Who leads, and the store's revision."""
        with _without_codes():
            kv, revision = await Line(self._store, name).first()
            if kv is None:
                raise NoLeaderElected
            return kv, revision

    async def observe(self, name: bytes) -> AsyncGenerator[tuple[KeyValue, int], None]:
        """Whoever leads, now and later, and its values. Ends when the node stops."""
        with _without_codes(), suppress(Stopped):
            async with aclosing(Line(self._store, name).firsts()) as firsts:
                async for kv, revision in firsts:
                    yield kv, revision

    async def removals(self, timeout: float) -> None:
        """Wait for those that are under way, but not for longer."""
        if self._removals:
            await asyncio.wait(self._removals, timeout=timeout)

    async def _enter(self, line: Line, lease: int, value: bytes) -> Place:
        if not lease:
            lease = await new_lease(self._store, SESSION_TTL_SECONDS)
        entering = asyncio.ensure_future(line.enter(lease, value))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            self._go_on(self._undo(entering))
            raise

    @asynccontextmanager
    async def _or_leave(self, place: Place) -> AsyncIterator[None]:
        """If this ends before its time, the place is given up."""
        try:
            yield
        except Gone:
            raise
        except BaseException:
            self._go_on(self._leave(place))
            raise

    async def _undo(self, entering: asyncio.Future[Place]) -> None:
        """Leave, where somebody hung up who was about to enter."""
        place = await entering
        if place.is_new:
            await self._leave(place)

    async def _leave(self, place: Place) -> None:
        await persistently(lambda: leave(self._store, place))

    def _go_on(self, removal: Coroutine[Any, Any, None]) -> None:
        """Though nobody waits for it any more."""
        task = asyncio.ensure_future(removal)
        self._removals.add(task)
        task.add_done_callback(self._gone_on)

    def _gone_on(self, task: asyncio.Task[None]) -> None:
        self._removals.discard(task)
        error = None if task.cancelled() else task.exception()
        # If the node has stopped, or what was to be entered was refused, there is nothing to be done.
        if isinstance(error, Exception) and not is_expected(error):
            log.error("the key of a caller who is gone was not removed", exc_info=error)


def _place_of(leader: LeaderKey | None) -> Place:
    if leader is None:
        raise LeaderKeyMissing
    _, key, revision, lease = leader
    return Place(key, lease, revision, b"", is_new=False, is_first=False, as_of=0)


@contextmanager
def _without_codes() -> Iterator[None]:
    """The store's refusals as these services tell them: in the same words. That a learner does not
    do such things is said before they come into it."""
    try:
        yield
    except NotSupportedForLearner:
        raise
    except Exception as error:
        if not is_expected(error) or kind_of(error).code == 2:
            raise
        raise Refused(message_of(error)) from error
