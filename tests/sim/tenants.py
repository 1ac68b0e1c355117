"""Clients with leases: they are granted one, keep it alive or do not, hang keys on it, and let it go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstate.commands import (
    Compare,
    CompareResult,
    CompareTarget,
    LeaseGrant,
    LeaseGrantResponse,
    LeaseRevoke,
    Put,
    Range,
    Txn,
)
from kvstate.errors import LeaseNotFound
from tests.sim.history import KeepAlive, ListLeases, LookAtLease, Operation, Request
from tests.sim.workload import Client

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation


class Tenant(Client):
    """One lease after the other. Its keys are everybody's, so others overwrite, detach and delete them."""

    def __init__(self, sim: Simulation, number: int) -> None:
        super().__init__(sim, number)
        self._lease = 0
        self._resting = 0.0  # seconds, once what is asked now is answered
        self._think_time = max(self._think_time, 0.04)

    def _request(self) -> Request:
        if not self._lease:
            return self._grant()
        kinds = ("keep alive", "put", "txn", "look", "list", "of others", "revoke", "forget", "rest")
        (kind,) = self._random.choices(kinds, (30, 20, 6, 8, 2, 8, 4, 2, 10))
        match kind:
            case "keep alive":
                return KeepAlive(self._lease)
            case "put":
                return self._hang(self._lease)
            case "txn":
                compare = Compare(CompareResult.EQUAL, CompareTarget.LEASE, self._key(), b"", self._lease)
                own, plain = self._key_of(0), self._key_of(1)
                branch = (Put(own, self._value(), lease=self._lease), Put(plain, self._value()))
                return Txn((compare,), branch, (Put(own, self._value(), lease=self._lease), Range(plain)))
            case "look":
                return LookAtLease(self._lease, self._random.random() < 0.7)
            case "list":
                return ListLeases()
            case "of others":
                return self._meddle()
            case "revoke":
                return LeaseRevoke(self._lease)
            case "forget":
                self._lease = 0
                return self._grant()
        # As long as it takes a lease to run out, or almost.
        self._resting = self._random.choice([0.5, 0.9, 1.3, 2.5])
        return Range(self._key())

    def think(self, factor: int = 1) -> None:
        if self._resting:
            seconds, self._resting = self._resting, 0.0
            self._sim.queue.later(seconds, None, self._act)
        else:
            super().think(factor)

    def _grant(self) -> LeaseGrant:
        chosen = self._random.randrange(-(1 << 63), 1 << 63) if self._random.random() < 0.5 else 0
        return LeaseGrant(chosen, self._random.choice([1, 1, 2, 3]))

    def _hang(self, lease: int) -> Put:
        if self._random.random() < 0.1:
            return Put(self._key(), self._value(), ignore_lease=True)
        return Put(self._key(), self._value(), lease, prev_kv=self._random.random() < 0.3)

    def _meddle(self) -> Request:
        """With some lease that there is, or was."""
        lease = self._random.choice([*self._sim.history.leases, 4711])
        requests: list[Request] = [KeepAlive(lease), LookAtLease(lease, True), self._hang(lease)]
        return self._random.choice([*requests, self._hang(lease)])

    def _learn(self, operation: Operation) -> None:
        super()._learn(operation)
        match operation.request, operation.response:
            case LeaseGrant(), LeaseGrantResponse(lease_id, _):
                self._lease = lease_id
            case LeaseRevoke(lease_id), _:
                self._gone(lease_id)
            case KeepAlive(lease_id), 0:
                self._gone(lease_id)

    def _refused(self, operation: Operation) -> None:
        if isinstance(operation.error, LeaseNotFound):
            match operation.request:
                case LeaseRevoke(lease_id) | Put(lease=lease_id):
                    self._gone(lease_id)

    def _gone(self, lease_id: int) -> None:
        if self._lease == lease_id:
            self._lease = 0
