"""Clients of leases, locks and elections: what they share."""

from __future__ import annotations

import asyncio
import random

from tests.sim.history import Outcome
from tests.soak.call_wire import encode, note_answer
from tests.soak.calls import Ask, Call
from tests.soak.clients import Workload
from tests.soak.cluster import Member
from tests.soak.sending import send


async def ask(load: Workload, client: int, member: Member, request: Ask, seconds: float) -> Call:
    """Send one request once, and note what comes of it."""
    path, body = encode(request)
    call = Call(client, member.number, request, load.stamp())
    load.coordination.calls.append(call)
    sent = await send(load.session, member.url + path, body, seconds)
    why = sent.why
    if sent.status:
        why = note_answer(call, sent.status, sent.body)
    elif sent.never_left:
        call.outcome = Outcome.REFUSED
    call.returned = load.stamp()
    load.count(request, call.outcome, call.revision, why)
    return call


class Caller:
    """Two thirds stay with one member each, as other clients do (``clients.Client``)."""

    def __init__(self, load: Workload, number: int) -> None:
        self.number = number
        self.load = load
        self.random = random.Random(f"{load.seed}/caller/{number}")
        self._home = load.members[number % len(load.members)] if number % 3 else None
        self._seconds = 2.0 if number % 2 else 9.0
        self._made = 0

    @property
    def member(self) -> Member:
        return self._home or self.random.choice(self.load.members)

    async def ask(self, request: Ask) -> Call:
        call = await ask(self.load, self.number, self.member, request, self._seconds)
        if call.outcome in (Outcome.REFUSED, Outcome.UNKNOWN):
            await asyncio.sleep(0.1)
        return call

    def new_id(self) -> int:
        """Of a lease, by our own choice: nobody else's."""
        self._made += 1
        return self.number * 1_000_000 + self._made

    def mark(self) -> bytes:
        """For a value that nobody else writes."""
        self._made += 1
        return b"c%d-%d" % (self.number, self._made)

    async def think(self, seconds: float) -> None:
        await asyncio.sleep(min(self.random.expovariate(1 / seconds), 2.0))
