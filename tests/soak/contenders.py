"""Clients who want the same lock, or to lead.

Who holds it writes a guarded key by its fencing token. Some lose their lease, and go on writing as if they
had not: their tokens must be worth nothing then.
"""

from __future__ import annotations

import asyncio
from collections import deque

from api.concurrency import LeaderKey
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
from tests.sim.history import Campaign, KeepAlive, Lock, Outcome, Resign, Unlock
from tests.soak.caller import Caller, ask
from tests.soak.calls import GUARDED
from tests.soak.clients import Workload
from tests.soak.line_judge import guarded_value
from tests.soak.past import Place

_TTL = 2
_WAIT_SECONDS = 4.0  # then it hangs up
_PAUSE_SECONDS = 0.1
_NAMES = (b"lock/a", b"lock/a", b"lock/b", b"elect/a")


class Contender(Caller):
    def __init__(self, load: Workload, number: int) -> None:
        super().__init__(load, number)
        self._old: deque[Place] = deque(maxlen=4)  # which it does not hold any more, or so it seems

    async def run(self) -> None:
        while not self.load.stopped:
            call = await self.ask(LeaseGrant(self.new_id(), _TTL))
            if isinstance(call.told, LeaseGrantResponse):
                await self._session(call.told.id)

    async def _session(self, lease: int) -> None:
        keeping = asyncio.ensure_future(self._keep(lease))
        try:
            for _ in range(self.random.choice([1, 1, 2])):
                await self._contend(lease, keeping)
                if self.load.stopped:
                    break
        finally:
            keeping.cancel()
            (ended,) = await asyncio.gather(keeping, return_exceptions=True)
            if isinstance(ended, Exception):
                raise ended
        if self.random.random() < 0.3:
            await self.ask(LeaseRevoke(lease))

    async def _keep(self, lease: int) -> None:
        told: object = _TTL
        while told != 0:
            await asyncio.sleep(_TTL / 3)
            told = (await self.ask(KeepAlive(lease))).told

    async def _contend(self, lease: int, keeping: asyncio.Future[None]) -> None:
        name = self.random.choice(_NAMES)
        place = await (self._lead(name, lease) if name.startswith(b"elect/") else self._hold(name, lease))
        if place is None:
            return
        if self.random.random() < 0.25:
            keeping.cancel()  # its lease will run out
        for _ in range(self.random.randint(1, 12)):
            if not await self._write(place):
                break
            if self._old and self.random.random() < 0.1:
                await self._write(self.random.choice(self._old))
            await self.think(_PAUSE_SECONDS)
        if self.random.random() < 0.7:
            leaving = (
                Resign(LeaderKey(name, *place, lease)) if name.startswith(b"elect/") else Unlock(place.key)
            )
            await self.ask(leaving)
        self._old.append(place)

    async def _hold(self, name: bytes, lease: int) -> Place | None:
        call = await ask(self.load, self.number, self.member, Lock(name, lease), _WAIT_SECONDS)
        if not isinstance(call.told, bytes):
            return None
        read = await self.load.perform(self.number, self.member, Range(call.told), self._seconds)
        if isinstance(read.response, RangeResponse) and read.response.kvs:
            return Place(call.told, read.response.kvs[0].create_revision)
        return None

    async def _lead(self, name: bytes, lease: int) -> Place | None:
        campaign = Campaign(name, lease, b"%x" % lease)
        call = await ask(self.load, self.number, self.member, campaign, _WAIT_SECONDS)
        return Place(call.told.key, call.told.rev) if isinstance(call.told, LeaderKey) else None

    async def _write(self, place: Place) -> bool:
        """Whether the place may still be ours: no is certain, yes is not."""
        guarded = GUARDED + place.key.rpartition(b"/")[0]
        compare = Compare(CompareResult.EQUAL, CompareTarget.CREATE, place.key, b"", place.token)
        put = Put(guarded, guarded_value(place, self.mark()))
        request = Txn((compare,), (put,), (Range(guarded),))
        done = await self.load.perform(self.number, self.member, request, self._seconds)
        return done.outcome is not Outcome.OK or (
            isinstance(done.response, TxnResponse) and done.response.succeeded
        )
