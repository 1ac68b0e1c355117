"""Leases on the members of a cluster: who keeps their time, ends them, and answers keepalives.

The leader does. Here its clock (``api.lessor``) meets the log and the network:

    this node leads, and has applied an entry of its term ──► lessor.promote
    a tick ──► lessor.run_out ──► LeaseRevoke through the log ──► applied ──► lessor.revoked
    a keepalive ──► the read barrier ──► lessor.renew ──► the TTL

A keepalive does not go through the log, so whoever answers it must be certain to lead: one that was stopped
for a while and goes on may have a successor that gave the lease up. The barrier asks a quorum, and counts
only if it began after the keepalive had arrived. And the lease is renewed from that arrival on: whoever was
elected later gives the lease its full TTL from a later moment.

What a leader proposes of its own, ends and checkpoints, names its term, and is refused in the log of another:
it may be passed on to a successor that knows better.

A member that does not lead passes keepalives on (``CALL_PATH``), as many as there are in one call, and
waits for a leader as long as a request may take: to be asked twice does no harm to a keepalive. Whoever asks
for a lease that has run out hears of it when the lease is revoked, not before.

What this does not do: grant and revoke for clients, which are writes like any other (``api.service``).
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import msgpack

from api.batches import Batches
from api.lessor import CHECKPOINT_SECONDS, NOT_PROMOTED, Lessor
from api.service import ReplicatedLog, TimeToLive
from api.turns import Turns
from kvstate.codec import encode
from kvstate.commands import (
    Command,
    LeaseCheckpoint,
    LeaseGrantResponse,
    LeaseRevoke,
    LeaseRevokeResponse,
    Response,
)
from kvstate.machine import ApplyResult, StateMachine
from raft.core.types import NO_MEMBER, Role
from raft.errors import LeadershipLost, NotLeader, Overloaded, ProposalDropped, Stopped, TimedOut
from raft.transport import CallFailed, NotReached

T = TypeVar("T")

CALL_PATH: Final = "/raft/leases"
OF_LEASES: Final = (LeaseGrantResponse, LeaseRevokeResponse)
"""Answers that ``Leases.applied`` wants to hear of."""
TICK_SECONDS: Final = 0.1
REVOCATIONS_MAX: Final = 20
REVOCATIONS_SECONDS: Final = 0.02
"""So many leases end at a time, and the next that soon: about 1000 a second, as in etcd, in groups that hold
a write up for two milliseconds rather than ten."""
CHECKPOINTS_MAX: Final = 1000
PAGE: Final = 500
"""So many leases are read from the state in one go, a millisecond or two."""

_RETRY_SECONDS = 0.05
_REVOCATION_SECONDS = 0.25  # then the leader is asked again: it may be another
_HAS_RUN_OUT = -1
_NOT_THERE = 0
# A keepalive or a look at a lease that meets one of these can be tried again, there or elsewhere.
_TRY_AGAIN = (NotLeader, LeadershipLost, ProposalDropped, CallFailed)
_UNWILLING = (NotLeader, LeadershipLost, Overloaded, ProposalDropped, Stopped, TimedOut)


class Calls(Protocol):
    """``raft.transport.PeerTransport``, as far as it matters here."""

    async def call(self, member: int, path: str, body: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Times in seconds."""

    election_timeout: float
    request_timeout: float
    minimum_ttl: int
    checkpoint_interval: float = CHECKPOINT_SECONDS


def minimum_ttl(election_ticks: int, heartbeat_ms: int) -> int:
    """etcd's: a lease must outlive an election."""
    return math.ceil(3 * election_ticks // 2 * heartbeat_ms / 1000)


class Leases:
    """See the module's docstring. ``start`` it, tell it what was ``applied``, and ``stop`` it."""

    def __init__(
        self,
        machine: StateMachine,
        driver: ReplicatedLog,
        calls: Calls,
        settings: LeaseSettings,
        *,
        rng: random.Random,
        wall_clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._machine = machine
        self._driver = driver
        self._calls = calls
        self._settings = settings
        self._rng = rng
        self._wall_clock_ms = wall_clock_ms
        self._loop = loop or asyncio.get_running_loop()
        self._lessor = Lessor(settings.election_timeout, settings.checkpoint_interval)
        self._ticker: asyncio.TimerHandle | None = None
        self._revoking: set[asyncio.Future[ApplyResult]] = set()
        # Who waits for a lease to be revoked.
        self._mourners: dict[int, list[asyncio.Future[None]]] = {}
        self._passed_on: dict[int, Batches] = {}
        self._turns = Turns()
        self._listings: list[set[int]] = []  # that are under way, kept up to date
        self._times_restored = 0

    @property
    def minimum_ttl(self) -> int:
        return self._settings.minimum_ttl

    def new_id(self) -> int:
        """For a lease whose client leaves the choice to us: positive, as in etcd."""
        return self._rng.randrange(1, 1 << 63)

    def start(self) -> None:
        self._ticker = self._loop.call_later(TICK_SECONDS, self._tick)

    def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        for batches in self._passed_on.values():
            batches.abandon(Stopped("the node is stopping"))

    # What the node tells.

    def applied(self, response: Response) -> None:
        """This was the answer to an entry that has just been applied."""
        if isinstance(response, LeaseGrantResponse):
            self._is_in_office()
            self._lessor.granted(response.id, response.ttl, self._loop.time())
            for listing in self._listings:
                listing.add(response.id)
        elif isinstance(response, LeaseRevokeResponse):
            self._lessor.revoked(response.id)
            for listing in self._listings:
                listing.discard(response.id)
            for mourner in self._mourners.pop(response.id, ()):
                if not mourner.done():
                    mourner.set_result(None)

    def restored(self) -> None:
        """The state is another one."""
        self._times_restored += 1

    # What the service asks.

    async def ids(self) -> list[int]:
        """Of all leases, ascending, as of one moment after this call."""
        await self._driver.read_barrier()
        while True:
            restored, listing = self._times_restored, set[int]()
            self._listings.append(listing)
            try:
                await self._list(listing)
            finally:
                self._listings.remove(listing)
            if self._times_restored == restored:
                return sorted(listing)

    async def _list(self, listing: set[int]) -> None:
        place: bytes | None = b""
        while place is not None:
            page, place = self._machine.lease_page(place, PAGE)
            listing.update([lease.id for lease in page])
            if place is not None:
                await self._turns.next()
                if self._machine.is_closed:
                    raise Stopped

    async def keep_alive(self, lease_id: int) -> int:
        """The TTL that the lease has from some moment after this call on; 0 if there is no such lease. Raises
        TimedOut, or what the driver raises."""
        if self._driver.core.role is Role.LEADER:
            # The usual way, without what waiting would cost.
            try:
                [ttl] = await self._renew([lease_id])
            except _TRY_AGAIN:
                ttl = _HAS_RUN_OUT
            if ttl != _HAS_RUN_OUT:
                return ttl
        return await self._in_time(self._keep_alive_somewhere(lease_id))

    async def time_to_live(self, lease_id: int, *, keys: bool) -> TimeToLive | None:
        """None if there is no such lease."""
        return await self._in_time(self._at_leader(partial(self._look, lease_id, keys)))

    async def answer(self, body: bytes) -> bytes:
        """As the leader: what another node asks by CALL_PATH."""
        operation, argument = msgpack.unpackb(body, use_list=False)
        try:
            if operation == "renew":
                return _pack({"ttls": await self._renew(argument)})
            return _pack({"left": await self._time_left(argument)})
        except _UNWILLING as error:
            return _pack({"error": type(error).__name__})

    # Keepalives.

    async def _keep_alive_somewhere(self, lease_id: int) -> int:
        while True:
            ttl = await self._at_leader(partial(self._renew_at, lease_id))
            if ttl != _HAS_RUN_OUT:
                return ttl
            await self._until_revoked(lease_id)

    async def _renew_at(self, lease_id: int, leader: int) -> int:
        if leader == self._driver.core.id:
            [ttl] = await self._renew([lease_id])
            return ttl
        batches = self._passed_on.get(leader)
        if batches is None:
            batches = self._passed_on[leader] = Batches(partial(self._pass_on, leader), self._loop)
        return await batches.add(lease_id)

    async def _pass_on(self, leader: int, lease_ids: Sequence[int]) -> Sequence[int]:
        answer = await self._call(leader, "renew", lease_ids)
        ttls: Sequence[int] = answer["ttls"]
        return ttls

    async def _renew(self, lease_ids: Sequence[int]) -> list[int]:
        """As the leader: the TTL of each, _HAS_RUN_OUT for those that are to be revoked. Raises NotLeader or
        what the driver raises."""
        arrived, term = self._loop.time(), self._driver.core.current_term
        await self._driver.read_barrier()
        self._check_office(term)
        lessor = self._lessor
        while in_the_way := lessor.checkpoints_in_the_way(lease_ids, arrived):
            await self._take_back(in_the_way, term)
            self._check_office(term)
        ttls = []
        for lease_id in lease_ids:
            ttl = lessor.renew(lease_id, arrived)
            ttls.append(ttl or (_HAS_RUN_OUT if lease_id in lessor else _NOT_THERE))
        return ttls

    async def _take_back(self, checkpoints: Mapping[int, int], term: int) -> None:
        command = LeaseCheckpoint(tuple((lease_id, 0) for lease_id in checkpoints), term)
        result: ApplyResult = await self._driver.propose(self._encode(command))
        if result.error is not None:
            raise NotLeader(NO_MEMBER)
        for lease_id, number in checkpoints.items():
            self._lessor.checkpoint_taken_back(lease_id, number)

    async def _until_revoked(self, lease_id: int) -> None:
        """Or for a moment. It may be gone already, or another leader may let it live on."""
        mourner = self._loop.create_future()
        mourners = self._mourners.setdefault(lease_id, [])
        mourners.append(mourner)
        try:
            await asyncio.wait([mourner], timeout=_REVOCATION_SECONDS)
        finally:
            mourners.remove(mourner)
            if not mourners and self._mourners.get(lease_id) is mourners:
                del self._mourners[lease_id]

    # A look at a lease.

    async def _look(self, lease_id: int, keys: bool, leader: int) -> TimeToLive | None:
        if leader == self._driver.core.id:
            left = await self._time_left(lease_id)
            attached = self._machine.lease_keys(lease_id) if keys else []
        else:
            # Our own state has the keys: only the time is asked for, and later, so that it is not too long.
            attached = await self._keys(lease_id) if keys else []
            answer = await self._call(leader, "left", lease_id)
            left = answer["left"]
        return None if left is None else TimeToLive(*left, attached)

    async def _keys(self, lease_id: int) -> list[bytes]:
        await self._driver.read_barrier()
        return self._machine.lease_keys(lease_id)

    async def _time_left(self, lease_id: int) -> tuple[int, int] | None:
        """As the leader: whole seconds left, and granted."""
        term = self._driver.core.current_term
        await self._driver.read_barrier()
        self._check_office(term)
        found = self._lessor.time_left(lease_id, self._loop.time())
        return None if found is None else (int(found[0]), found[1])

    # Who leads.

    def _check_office(self, term: int) -> None:
        """Raises NotLeader unless this node has led since ``term`` began; behind a barrier, that means
        that the lessor knows everything."""
        if not self._is_in_office() or self._lessor.term != term:
            raise NotLeader(NO_MEMBER)

    def _is_in_office(self) -> bool:
        """Whether this node leads, and has applied all that was committed before; the lessor follows suit."""
        core, lessor = self._driver.core, self._lessor
        term = core.current_term
        if core.role is Role.LEADER and lessor.term == term:
            return True
        if lessor.next_term != NOT_PROMOTED and (core.role is not Role.LEADER or lessor.next_term != term):
            lessor.demote()
        if core.role is not Role.LEADER or self._machine.applied[1] != term:
            return False
        if lessor.next_term == NOT_PROMOTED:
            lessor.begin(term)
            self._adopt(term, b"")
        return lessor.term == term

    def _adopt(self, term: int, place: bytes) -> None:
        """A page of the leases, then everybody else's turn, then the next: there may be very many."""
        lessor = self._lessor
        if lessor.next_term != term:
            return  # this office is over already
        page, following = self._machine.lease_page(place, PAGE)
        lessor.adopt(page, self._loop.time())
        if following is None:
            lessor.complete()
        else:
            self._loop.call_soon(self._adopt, term, following)

    async def _at_leader(self, ask: Callable[[int], Awaitable[T]]) -> T:
        """Ask whoever leads; wait for one if there is none."""
        core = self._driver.core
        while True:
            if core.leader_id != NO_MEMBER:
                try:
                    return await ask(core.leader_id)
                except _TRY_AGAIN:
                    pass
            await asyncio.sleep(_RETRY_SECONDS)

    async def _in_time(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._settings.request_timeout):
                return await work
        except TimeoutError:
            raise TimedOut("no leader answered in time") from None

    async def _call(self, leader: int, operation: str, argument: object) -> Any:
        answer = msgpack.unpackb(
            await self._calls.call(leader, CALL_PATH, _pack([operation, argument])), use_list=False
        )
        if "error" in answer:
            raise NotReached(f"member {leader:x} did not do it: {answer['error']}")
        return answer

    # The leader's clock.

    def _tick(self) -> None:
        try:
            self._do_what_is_due()
        finally:
            pause = REVOCATIONS_SECONDS if self._revoking else TICK_SECONDS
            self._ticker = self._loop.call_later(pause, self._tick)

    def _do_what_is_due(self) -> None:
        for member, batches in self._passed_on.items():
            if member != self._driver.core.leader_id:
                batches.abandon(NotReached(f"member {member:x} leads no more"))
        if self._is_in_office():
            self._end_leases()
            self._make_checkpoints()

    def _end_leases(self) -> None:
        lessor = self._lessor
        room = REVOCATIONS_MAX - len(self._revoking)
        for lease_id in lessor.run_out(self._loop.time(), room):
            proposed = self._try_to_propose(LeaseRevoke(lease_id, lessor.term))
            if proposed is None:
                lessor.not_revoked(lease_id)
            else:
                self._revoking.add(proposed)
                proposed.add_done_callback(partial(self._revocation_done, lease_id, lessor.term))

    def _revocation_done(self, lease_id: int, term: int, proposed: asyncio.Future[ApplyResult]) -> None:
        self._revoking.discard(proposed)
        failed = proposed.cancelled() or proposed.exception() is not None
        if failed and self._lessor.term == term:
            self._lessor.not_revoked(lease_id)

    def _make_checkpoints(self) -> None:
        due = self._lessor.checkpoints_due(self._loop.time(), CHECKPOINTS_MAX)
        if due:
            proposed = self._try_to_propose(LeaseCheckpoint(tuple(due), self._lessor.term))
            if proposed is not None:
                # If it comes to nothing, there is another one later.
                proposed.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _try_to_propose(self, command: Command) -> asyncio.Future[ApplyResult] | None:
        try:
            return self._driver.propose(self._encode(command))
        except (Overloaded, Stopped):
            return None

    def _encode(self, command: Command) -> bytes:
        return encode(command, user="", wall_clock_ms=self._wall_clock_ms())


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed
