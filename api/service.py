"""The rules of every operation, with no HTTP in them.

One method per operation: typed request in, typed result out, errors raised as the
kinds listed in ``api.errors``. The protocols are thin skins over this class; a new one
needs no new rule.

Writes go through the log (``raft.driver``); reads wait for the read barrier and then
look into the state (``kvstate``), or skip the barrier when ``serializable``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from api.errors import MessageTooLarge, NotSupportedForLearner, RequestTooLarge
from api.roster import Member
from api.scrubber import Scrubber
from api.turns import Turns
from kvstate.codec import encode
from kvstate.commands import (
    Command,
    Compact,
    DeleteRange,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    Response,
    Txn,
)
from kvstate.machine import ApplyResult, StateMachine, is_read_only
from kvstate.ranges import Sink
from kvstate.validation import check_delete_range, check_lease_grant, check_put, check_range, check_txn
from raft.core.consensus import Consensus
from raft.errors import Stopped
from watch.hub import Hub
from watch.stream import WatchStream

GRPC_OVERHEAD_BYTES = 512 * 1024
"""How far above the request limit etcd's gRPC layer reads a message before refusing it."""


class Reply(NamedTuple):
    """A response and the store's revision for its header."""

    response: Response
    revision: int


@dataclass(frozen=True, slots=True)
class Status:
    """What one member knows of itself and the cluster."""

    revision: int
    db_size: int
    db_size_in_use: int
    leader: int
    raft_index: int
    raft_term: int
    raft_applied_index: int
    is_learner: bool


@dataclass(frozen=True, slots=True)
class Limits:
    max_txn_ops: int
    max_request_bytes: int


class MembersOfCluster(Protocol):
    """``api.members.Members``, as far as it matters here."""

    @property
    def is_learner(self) -> bool: ...
    def listed(self) -> tuple[Member, ...]: ...
    async def add(
        self, peer_urls: tuple[str, ...], *, is_learner: bool
    ) -> tuple[Member, tuple[Member, ...]]: ...
    async def remove(self, member: int) -> tuple[Member, ...]: ...
    async def update(self, member: int, peer_urls: tuple[str, ...]) -> tuple[Member, ...]: ...
    async def promote(self, member: int) -> tuple[Member, ...]: ...
    async def move_leader(self, target: int) -> None: ...


class TimeToLive(NamedTuple):
    """What is left of a lease, in whole seconds, of how many; and the keys attached to it, if asked for."""

    ttl: int
    granted_ttl: int
    keys: list[bytes]


class LeasesOfCluster(Protocol):
    """``api.leases.Leases``, as far as it matters here."""

    @property
    def minimum_ttl(self) -> int: ...
    def new_id(self) -> int: ...
    async def keep_alive(self, lease_id: int) -> int: ...
    async def time_to_live(self, lease_id: int, *, keys: bool) -> TimeToLive | None: ...
    async def ids(self) -> list[int]: ...


class ReplicatedLog(Protocol):
    """``raft.driver.Driver``, as far as it matters here."""

    @property
    def core(self) -> Consensus: ...
    def propose(self, data: bytes) -> asyncio.Future[Any]: ...
    def read_barrier(self) -> asyncio.Future[None]: ...


class Service:
    """Everything a client can ask of this node."""

    def __init__(
        self,
        machine: StateMachine,
        driver: ReplicatedLog,
        hub: Hub,
        scrubber: Scrubber,
        members: MembersOfCluster,
        leases: LeasesOfCluster,
        limits: Limits,
        wall_clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._machine = machine
        self._driver = driver
        self._hub = hub
        self._scrubber = scrubber
        self._members = members
        self._leases = leases
        self._limits = limits
        self._wall_clock_ms = wall_clock_ms
        self._user = ""  # nobody logs in yet
        self.turns = Turns()

    @property
    def raft_term(self) -> int:
        return self._driver.core.current_term

    @property
    def revision(self) -> int:
        return self._machine.revision

    # Keys.

    async def range(self, request: Range, sink: Sink | None = None) -> Reply:
        """A ``sink`` takes the key-values of a plain range of many keys."""
        check_range(request)
        if not request.serializable:
            self._check_not_learner()
            await self._driver.read_barrier()
        if request.range_end:
            return await self._range_in_steps(request, sink)
        return Reply(self._machine.range(request), self._machine.revision)

    async def _range_in_steps(self, request: Range, sink: Sink | None) -> Reply:
        """The whole answer is as of one revision, however much is written meanwhile."""
        steps = self._machine.range_steps(request, sink)
        try:
            while True:
                try:
                    next(steps)
                except StopIteration as finished:
                    return Reply(*finished.value)
                await self.turns.next()
                if self._machine.is_closed:
                    raise Stopped
        finally:
            steps.close()

    async def put(self, request: Put) -> Reply:
        check_put(request)
        return await self._write(request)

    async def delete_range(self, request: DeleteRange) -> Reply:
        check_delete_range(request)
        return await self._write(request)

    async def txn(self, request: Txn) -> Reply:
        check_txn(request, self._limits.max_txn_ops)
        if not is_read_only(request):
            return await self._write(request)
        self._check_not_learner()
        if not _is_serializable(request):
            await self._driver.read_barrier()
        return Reply(self._machine.read_txn(request), self._machine.revision)

    async def compact(self, request: Compact) -> Reply:
        reply = await self._write(request)
        if request.physical:
            await self._scrubber.done()
        return reply

    # Leases.

    async def lease_grant(self, ttl: int, lease_id: int = 0) -> Reply:
        """The answer says what the TTL really is, and the id, where none was given."""
        request = LeaseGrant(lease_id or self._leases.new_id(), max(ttl, self._leases.minimum_ttl))
        check_lease_grant(request)
        return await self._write(request)

    async def lease_revoke(self, lease_id: int) -> Reply:
        return await self._write(LeaseRevoke(lease_id))

    async def lease_keep_alive(self, lease_id: int) -> int:
        """The TTL that the lease has from the moment on at which this was asked; 0 if there is no such lease.
        One that has run out is waited for, until it is gone."""
        self._check_not_learner()
        return await self._leases.keep_alive(lease_id)

    async def lease_time_to_live(self, lease_id: int, *, keys: bool = False) -> TimeToLive | None:
        """None if there is no such lease."""
        self._check_not_learner()
        return await self._leases.time_to_live(lease_id, keys=keys)

    async def lease_list(self) -> list[int]:
        """The ids of all leases, ascending."""
        self._check_not_learner()
        return await self._leases.ids()

    # The cluster and this member.

    async def check_health(self) -> None:
        """Raises what keeps this node from a linearizable read."""
        await self._driver.read_barrier()

    async def hash_kv(self, revision: int) -> tuple[int, int, int]:
        """(hash, revision, compact revision) of this member's history up to ``revision``."""
        self._check_not_learner()
        await self._driver.read_barrier()
        return self._machine.hash_kv(revision)

    def hash(self) -> int:
        return self._machine.hash()

    def status(self) -> Status:
        core = self._driver.core
        return Status(
            revision=self._machine.revision,
            db_size=self._machine.size_bytes,
            db_size_in_use=self._machine.size_in_use_bytes,
            leader=core.leader_id,
            raft_index=core.commit_index,
            raft_term=core.current_term,
            raft_applied_index=core.last_applied,
            is_learner=self._members.is_learner,
        )

    async def member_list(self, *, linearizable: bool) -> tuple[Member, ...]:
        self._check_not_learner()
        if linearizable:
            await self._driver.read_barrier()
        return self._members.listed()

    async def member_add(
        self, peer_urls: tuple[str, ...], *, is_learner: bool
    ) -> tuple[Member, tuple[Member, ...]]:
        """(the new member, all members)"""
        self._check_not_learner()
        return await self._members.add(peer_urls, is_learner=is_learner)

    async def member_remove(self, member_id: int) -> tuple[Member, ...]:
        self._check_not_learner()
        return await self._members.remove(member_id)

    async def member_update(self, member_id: int, peer_urls: tuple[str, ...]) -> tuple[Member, ...]:
        self._check_not_learner()
        return await self._members.update(member_id, peer_urls)

    async def member_promote(self, member_id: int) -> tuple[Member, ...]:
        self._check_not_learner()
        return await self._members.promote(member_id)

    async def move_leader(self, target: int) -> None:
        """Only the leader does it, as in etcd. Returns when ``target`` leads."""
        self._check_not_learner()
        await self._members.move_leader(target)

    def watch(self) -> WatchStream:
        self._check_not_learner()
        return self._hub.stream()

    def end_watches(self) -> None:
        """The node stops: clients resume their watches at another."""
        self._hub.close()

    def _check_not_learner(self) -> None:
        """A learner may be far behind, and answers what may be stale only."""
        if self._members.is_learner:
            raise NotSupportedForLearner

    # How a write goes.

    async def _write(self, command: Command) -> Reply:
        self._check_not_learner()
        data = encode(command, user=self._user, wall_clock_ms=self._wall_clock_ms())
        if len(data) > self._limits.max_request_bytes:
            limit = self._limits.max_request_bytes + GRPC_OVERHEAD_BYTES
            if len(data) > limit:
                raise MessageTooLarge(len(data), limit)
            raise RequestTooLarge
        result: ApplyResult = await self._driver.propose(data)
        if result.error is not None:
            raise result.error
        assert result.response is not None
        return Reply(result.response, result.revision)


def _is_serializable(txn: Txn) -> bool:
    """Whether every range in a read-only transaction says it may be stale."""
    return all(
        op.serializable if isinstance(op, Range) else isinstance(op, Txn) and _is_serializable(op)
        for op in (*txn.success, *txn.failure)
    )
