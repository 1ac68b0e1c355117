"""Reads that wait: for a ReadIndex round (thesis §6.4), and then for the state machine to get there.

All reads that arrive in one loop turn share one round. A round is asked of the core, which asks the
leader; while there is none, or when the one asked is none any more, rounds are held
and asked again, since to ask for a read twice does no harm. Every question has a context of its own,
so an answer belongs to exactly one of them; any answer to a round's question will do, if all of the
round's reads were there when that was asked.

    next ──ask──► asked ──confirmed at index i──► confirmed ──applied ≥ i──► answered
            ▲       │ refused, new term
            └─ held ◄┘
"""

from __future__ import annotations

import asyncio
import heapq
from typing import Protocol

from raft.core.errors import NotLeader
from raft.core.types import ReadState
from raft.errors import Overloaded, TimedOut

Waiter = asyncio.Future[None]


class Core(Protocol):
    """What of ``Consensus`` matters here."""

    @property
    def last_applied(self) -> int: ...
    def read_index(self, ctx: int) -> None: ...


class _Round:
    """Reads that share one question."""

    __slots__ = ("counts_from", "deadline", "retry_at", "waiters")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.retry_at = deadline
        self.waiters: list[Waiter] = []
        # Older questions than this one do not count: reads have joined that came after them.
        self.counts_from = 0

    @property
    def is_answered(self) -> bool:
        return all(waiter.done() for waiter in self.waiters)

    def resolve(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(error)


class ReadBarriers:
    """Times in seconds by the loop's clock. ``waiting_max``: more reads than this are refused."""

    def __init__(
        self,
        core: Core,
        loop: asyncio.AbstractEventLoop,
        *,
        timeout: float,
        retry_after: float,
        merge_within: float,
        waiting_max: int,
    ) -> None:
        self._core = core
        self._loop = loop
        self._timeout = timeout
        self._retry_after = retry_after
        self._merge_within = merge_within
        self._waiting_max = waiting_max
        self._ctx = 0
        self._next: _Round | None = None
        self._asked: dict[int, _Round] = {}
        self._held: list[_Round] = []  # earliest deadline first
        self._confirmed: list[tuple[int, int, _Round]] = []  # (read index, ctx, round): a heap
        self._waiting = 0

    def add(self) -> tuple[Waiter, bool]:
        """One more read, and whether it is the first of its round. Raises Overloaded."""
        if self._waiting >= self._waiting_max:
            raise Overloaded
        waiter: Waiter = self._loop.create_future()
        waiter.add_done_callback(self._answered)
        self._waiting += 1
        is_first = self._next is None
        if self._next is None:
            self._next = _Round(self._loop.time() + self._timeout)
        self._next.waiters.append(waiter)
        return waiter, is_first

    def ask(self) -> None:
        """Put the question of the reads that have arrived since the last call."""
        if self._next is not None:
            read_round, self._next = self._next, None
            self._ask(read_round)

    def ask_held(self) -> None:
        """There may be a leader again."""
        held, self._held = self._held, []
        for read_round in held:
            self._ask(read_round)

    def confirm(self, read_state: ReadState) -> None:
        """The core's answer: whoever asked may read at this index."""
        read_round = self._asked.pop(read_state.ctx, None)
        if read_round is None or read_state.ctx < read_round.counts_from:
            return  # it timed out, or is asked again
        if read_state.index <= self._core.last_applied:
            read_round.resolve()
        else:
            heapq.heappush(self._confirmed, (read_state.index, read_state.ctx, read_round))

    def refuse(self, ctx: int) -> None:
        """The one that was asked does not lead."""
        read_round = self._asked.pop(ctx, None)
        if read_round is not None:
            self._hold(read_round)

    def hold_all(self) -> None:
        """Whoever was asked may lead no more, and may never answer."""
        asked, self._asked = self._asked, {}
        for read_round in asked.values():
            self._hold(read_round)

    def release(self, applied: int) -> None:
        """The state machine has got to ``applied``."""
        while self._confirmed and self._confirmed[0][0] <= applied:
            _, ctx, read_round = heapq.heappop(self._confirmed)
            if ctx >= read_round.counts_from:
                read_round.resolve()

    def expire(self) -> None:
        """Fail whoever has waited too long; ask again where an answer is overdue."""
        now = self._loop.time()
        error = TimedOut("the read index got no answer in time")
        for ctx, read_round in list(self._asked.items()):
            if read_round.deadline <= now or read_round.is_answered:
                del self._asked[ctx]
                read_round.fail(error)
            elif read_round.retry_at <= now:
                self._ask(read_round)  # the question or its answer may be lost
        for read_round in self._held:
            if read_round.deadline <= now:
                read_round.fail(error)
        self._held = [one for one in self._held if not one.is_answered]
        for _, _, read_round in self._confirmed:
            if read_round.deadline <= now:
                read_round.fail(error)

    def fail_all(self, error: Exception) -> None:
        rounds = [confirmed[2] for confirmed in self._confirmed]
        rounds += [*self._asked.values(), *self._held]
        if self._next is not None:
            rounds.append(self._next)
        self._next = None
        self._asked, self._held, self._confirmed = {}, [], []
        for read_round in rounds:
            read_round.fail(error)

    def _ask(self, read_round: _Round) -> None:
        self._ctx += 1
        read_round.retry_at = self._loop.time() + self._retry_after
        try:
            self._core.read_index(self._ctx)
        except NotLeader:
            self._hold(read_round)
        else:
            self._asked[self._ctx] = read_round

    def _hold(self, read_round: _Round) -> None:
        """Rounds of about the same time become one, or a long wait would end in a storm of questions."""
        if read_round.is_answered:
            return
        for other in reversed(self._held):
            if other is read_round:
                return
            if abs(other.deadline - read_round.deadline) <= self._merge_within:
                other.waiters += read_round.waiters
                other.counts_from = self._ctx + 1
                return
        self._held.append(read_round)

    def _answered(self, _: Waiter) -> None:
        self._waiting -= 1
