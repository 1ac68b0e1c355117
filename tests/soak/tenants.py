"""Clients with leases: they are granted some, keep them alive or let them go, and hang keys on them."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from kvstate.commands import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    LeaseGrant,
    LeaseGrantResponse,
    LeaseRevoke,
    Put,
    Range,
    Txn,
)
from kvstate.errors import LeaseNotFound
from tests.sim.history import KeepAlive, Operation, Request
from tests.soak.caller import Caller
from tests.soak.clients import Workload
from tests.soak.lease_judge import TTL_MAX

_THINK_SECONDS = 0.12
_LEASES_MAX = 3


@dataclass(slots=True)
class _Rented:
    id: int
    ttl: int
    next_keepalive: float


class Tenant(Caller):
    """Its keys are its own, and sometimes everybody's, so that others overwrite and delete them."""

    def __init__(self, load: Workload, number: int) -> None:
        super().__init__(load, number)
        self._leases: list[_Rented] = []
        self._let_go: deque[int] = deque(maxlen=4)  # and some that are gone

    async def run(self) -> None:
        while not self.load.stopped:
            await self._act()
            await self.think(_THINK_SECONDS)

    async def _act(self) -> None:
        now = time.monotonic()
        due = [one for one in self._leases if one.next_keepalive <= now]
        if due:
            await self._keep_alive(due[0])
            return
        kinds = ("put", "txn", "detach", "delete", "grant", "revoke", "let go", "late")
        (kind,) = self.random.choices(kinds, (40, 12, 8, 8, 8, 6, 5, 8))
        if kind == "grant" or not self._leases:
            if len(self._leases) < _LEASES_MAX:
                await self._grant()
            return
        rented = self.random.choice(self._leases)
        match kind:
            case "put":
                await self._do(
                    Put(self._key(), self.mark(), lease=rented.id, prev_kv=self.random.random() < 0.3)
                )
            case "txn":
                await self._do(self._move(rented))
            case "detach":
                await self._do(Put(self._key(), self.mark(), ignore_lease=self.random.random() < 0.4))
            case "delete":
                await self._do(DeleteRange(self._key()))
            case "revoke":
                await self.ask(LeaseRevoke(rented.id))
                self._gone(rented.id)
            case "let go":
                self._gone(rented.id)
            case "late" if self._let_go:
                await self._try(self.random.choice(self._let_go))

    async def _grant(self) -> None:
        chosen = self.new_id() if self.random.random() < 0.5 else 0
        began = time.monotonic()
        call = await self.ask(LeaseGrant(chosen, self.random.randint(2, TTL_MAX)))
        if isinstance(call.told, LeaseGrantResponse):
            lease, ttl = call.told
            self._leases.append(_Rented(lease, ttl, began + ttl / 3))

    async def _keep_alive(self, rented: _Rented) -> None:
        began = time.monotonic()
        call = await self.ask(KeepAlive(rented.id))
        if call.told == 0:
            self._gone(rented.id)
        elif call.told is not None:
            # Now and then to the very end.
            rented.next_keepalive = began + rented.ttl * self.random.choice([0.33, 0.33, 0.6, 0.95])

    async def _try(self, lease: int) -> None:
        """What it was told is gone, or will soon be, may not come back."""
        if self.random.random() < 0.4:
            await self.ask(KeepAlive(lease))
        elif self.random.random() < 0.3:
            await self.ask(LeaseRevoke(lease))
        else:
            await self._do(Put(self._key(), self.mark(), lease=lease))

    def _move(self, rented: _Rented) -> Txn:
        key = self._key()
        other = self.random.choice(self._leases)
        compare = Compare(CompareResult.EQUAL, CompareTarget.LEASE, key, b"", other.id)
        return Txn((compare,), (Put(key, self.mark(), lease=rented.id),), (Range(key),))

    async def _do(self, request: Request) -> Operation:
        operation = await self.load.perform(self.number, self.member, request, self._seconds)
        if isinstance(operation.error, LeaseNotFound) and isinstance(request, Put):
            self._gone(request.lease)
        return operation

    def _gone(self, lease: int) -> None:
        self._leases = [one for one in self._leases if one.id != lease]
        self._let_go.append(lease)

    def _key(self) -> bytes:
        if self.random.random() < 0.2:
            return b"k%02d" % self.random.randrange(24)
        return b"l/%d/%d" % (self.number, self.random.randrange(5))
