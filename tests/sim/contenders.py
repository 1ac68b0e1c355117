"""Clients that want to be the one: they wait for a lock or an election, and act while they hold it.

What they do as holders is fenced: a transaction that compares the create revision of their key, their token.
Some forget that they hold, sleep beyond their lease, hang up, or go on with a token that is worth nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from api.concurrency import LeaderKey
from api.errors import NotElected, SessionExpired
from kvstate.commands import (
    Compare,
    CompareResult,
    CompareTarget,
    LeaseGrant,
    LeaseGrantResponse,
    LeaseRevoke,
    Put,
    Range,
    RangeResponse,
    Txn,
    TxnResponse,
)
from kvstate.errors import LeaseNotFound
from tests.sim.history import (
    GUARDED,
    Campaign,
    FindLeader,
    KeepAlive,
    Lock,
    Operation,
    Proclaim,
    Request,
    Resign,
    Unlock,
)
from tests.sim.workload import Client

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.simulation import Simulation

# Before the keys of the other clients, who delete from some key of theirs to the end of all.
LOCKS = (b"a-lock", b"a-lock", b"b-lock")
ELECTION = b"a-boss"


class _Hold(NamedTuple):
    name: bytes
    key: bytes
    token: int  # the key's create revision; 0 until it is read
    leader: LeaderKey | None = None


class Contender(Client):
    def __init__(self, sim: Simulation, number: int) -> None:
        super().__init__(sim, number)
        self._lease = 0
        self._hold: _Hold | None = None
        self._resting = 0.0  # seconds, once what is asked now is answered
        self._think_time = max(self._think_time, 0.04)

    # When.

    def think(self, factor: int = 1) -> None:
        if self._resting:
            seconds, self._resting = self._resting, 0.0
            self._sim.queue.later(seconds, None, self._act)
        else:
            super().think(factor)

    def _act(self) -> None:
        if not self._sim.clients.stopped:
            super()._act()
        elif self._hold is not None and self.operation is None:
            # The others still wait for it.
            node = self._random.choice([self._sim.nodes[member] for member in sorted(self._sim.nodes)])
            if not node.up:
                self.think()
                return
            self.send(node, self._release(self._hold))
            self._hold = None

    def send(self, node: Node, request: Request) -> Operation:
        operation = super().send(node, request)
        if isinstance(request, Lock | Campaign) and self._random.random() < 0.2:
            self._sim.queue.later(self._random.uniform(0.05, 1.5), None, self._give_up, operation)
        return operation

    def _give_up(self, operation: Operation) -> None:
        """The client hangs up, and the server notices."""
        if self.operation is operation and self._task is not None and self._on is not None:
            self._sim.queue.soon(self._on, self._task.cancel)
        super()._give_up(operation)

    # What.

    def _request(self) -> Request:
        if not self._lease:
            return LeaseGrant(0, self._random.choice([1, 1, 2, 3]))
        if self._hold is None:
            return self._contend()
        return self._hold_on(self._hold)

    def _contend(self) -> Request:
        match self._random.randrange(10):
            case 0 | 1 | 2:
                return KeepAlive(self._lease)
            case 3:
                return FindLeader(ELECTION)
            case 4 | 5 | 6:
                return Campaign(ELECTION, self._lease, self._value())
        return Lock(self._random.choice(LOCKS), self._lease)

    def _hold_on(self, hold: _Hold) -> Request:
        if not hold.token:
            return Range(hold.key)
        kinds = ("act", "keep alive", "proclaim", "look", "release", "revoke", "forget", "rest")
        (kind,) = self._random.choices(kinds, (30, 25, 15, 5, 12, 4, 4, 10))
        match kind:
            case "keep alive":
                return KeepAlive(self._lease)
            case "proclaim" if hold.leader is not None:
                return Proclaim(hold.leader, self._value())
            case "look":
                return FindLeader(ELECTION)
            case "release":
                self._hold = None
                return self._release(hold)
            case "revoke":
                return LeaseRevoke(self._lease)
            case "forget":
                self._hold, self._lease = None, 0
                return LeaseGrant(0, 1)
            case "rest":
                self._resting = self._random.choice([0.3, 0.8, 1.5, 2.5])
        compare = Compare(CompareResult.EQUAL, CompareTarget.CREATE, hold.key, b"", hold.token)
        return Txn((compare,), (Put(GUARDED + hold.name, self._value()),), (Range(hold.key),))

    def _release(self, hold: _Hold) -> Request:
        return Unlock(hold.key) if hold.leader is None else Resign(hold.leader)

    # What was told.

    def _learn(self, operation: Operation) -> None:
        super()._learn(operation)
        hold = self._hold
        match operation.request, operation.response:
            case LeaseGrant(), LeaseGrantResponse(lease_id, _):
                self._lease = lease_id
            case (LeaseRevoke(), _) | (KeepAlive(), 0):
                self._lease_is_gone()
            case Lock(name), bytes(key):
                self._hold = _Hold(name, key, 0)
            case Range(key), RangeResponse(kvs) if hold is not None and key == hold.key:
                self._hold = hold._replace(token=kvs[0].create_revision) if kvs else None
            case Campaign(name), LeaderKey(_, key, revision) as leader:
                self._hold = _Hold(name, key, revision, leader)
            case Txn(), TxnResponse(False):
                self._hold = None

    def _refused(self, operation: Operation) -> None:
        match operation.error:
            case SessionExpired() | NotElected():
                self._hold = None
                self._lease_is_gone()
            case LeaseNotFound():
                self._lease_is_gone()

    def _lease_is_gone(self) -> None:
        """Not everybody understands what that means for what he holds."""
        self._lease = 0
        if self._random.random() < 0.5:
            self._hold = None
