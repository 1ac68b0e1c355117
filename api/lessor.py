"""The leader's clock of all leases. Pure: time comes as an argument, what is to be done goes out as values.

The log says which leases there are and how long they were granted for (``kvstate``); when each runs out,
only the leader knows, from its own monotonic clock, in seconds:

    lessor.promote(now, term, leases)       this node leads: every lease begins anew
    lessor.granted(7, 60, now)              one more was applied; it runs out at now + 60
    lessor.renew(7, now + 20)               60: it now runs out at now + 80
    lessor.run_out(now + 81, limit=100)     [7]: propose to revoke it, and nobody renews it any more
    lessor.revoked(7)                       that was applied
    lessor.demote()                         another leads: forget everything

Promises. A lease runs out no sooner than its TTL after it was granted, or after the latest keepalive that
was answered here arrived. A lease that has run out is not renewed, whatever becomes of its revocation. Only
one that has run out is handed out by ``run_out``.

A leader that is new does not know how much of a lease was left. It gives all of them their full TTL once
more, and an election timeout; so long ones get their remaining time through the log now and then, a
*checkpoint*, which the next leader goes on from. Who renews a lease that has a checkpoint must take that
back through the log first (``checkpoints_in_the_way``), or the next leader would cut the lease short.

There is one heap for all leases that are to run out, and one for checkpoints. Each holds a lease once, under
a time that may have become too early: a keepalive changes a field, and what comes to the top too early is
put back. So a keepalive costs a look-up, and a tick what is really due.

What this does not do: propose, wait, or know whether this node leads (``api.leases``).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence

from kvstate.types import Lease

CHECKPOINT_SECONDS = 300
"""The usual ``checkpoint_interval``, as in etcd."""
EXPIRIES_PER_SECOND = 750
"""At most so many leases are let run out together by a new leader: they would come as one wave."""
_STALE_MAX = 1000
_STEPS_MAX = 5000
"""So many leases are looked at in one go, some milliseconds: of many that were granted at the same moment and
renewed since, the rest has its turn the next time."""

NOT_PROMOTED = -1


class _Clock:
    """One lease."""

    __slots__ = ("checkpoint", "checkpoint_from", "deadline", "has_run_out", "id", "ttl")

    def __init__(self, lease_id: int, ttl: int, deadline: float, now: float) -> None:
        self.id = lease_id
        self.ttl = ttl
        self.deadline = deadline
        self.has_run_out = False  # and is to be revoked
        self.checkpoint = 0  # which of our checkpoints the log may hold of it; 0: none
        self.checkpoint_from = now  # since when there was neither a checkpoint nor a keepalive


_Due = tuple[float, int, _Clock]


class _DueLeases:
    """A heap of leases by a time that is never later than the true one."""

    def __init__(self) -> None:
        self._heap: list[_Due] = []
        self._sequence = 0  # decides between equal times

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, time: float, clock: _Clock) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (time, self._sequence, clock))

    def pop(self, now: float) -> _Clock | None:
        """One whose time has come."""
        if self._heap and self._heap[0][0] <= now:
            return heapq.heappop(self._heap)[2]
        return None

    def keep(self, clocks: dict[int, _Clock]) -> None:
        """Drop those that are not among ``clocks`` any more."""
        self._heap = [due for due in self._heap if clocks.get(due[2].id) is due[2]]
        heapq.heapify(self._heap)


class Lessor:
    """See the module's docstring. ``extension``: what a new leader adds to every lease, an election timeout.
    A lease with a longer TTL than ``checkpoint_interval`` gets a checkpoint when it was not renewed for so
    long. ``term`` is that of the office, NOT_PROMOTED without one."""

    def __init__(self, extension: float, checkpoint_interval: float = CHECKPOINT_SECONDS) -> None:
        self._extension = extension
        self._checkpoint_interval = checkpoint_interval
        self.term = NOT_PROMOTED
        self.next_term = NOT_PROMOTED  # of the office that is being taken
        self._clocks: dict[int, _Clock] = {}
        self._ends = _DueLeases()
        self._checkpoints = _DueLeases()
        self._last_checkpoint = 0
        # Of the leases that are being adopted: how many end in which second, and where there is room behind
        # one that is full.
        self._in_second: dict[int, int] = {}
        self._room_from: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._clocks)

    def __contains__(self, lease_id: int) -> bool:
        return lease_id in self._clocks

    # Office.

    def promote(self, now: float, term: int, leases: Iterable[Lease]) -> None:
        """This node leads in ``term`` and has applied everything that was committed before it: ``leases`` are
        all there are."""
        self.begin(term)
        self.adopt(leases, now)
        self.complete()

    def begin(self, term: int) -> None:
        """The same in steps, for leases that are many. From now on it is told what is granted and revoked;
        ``adopt`` gives it the others bit by bit, and with ``complete`` it is in office."""
        self.demote()
        self.next_term = term

    def adopt(self, leases: Iterable[Lease], now: float) -> None:
        """These stand in the state now."""
        for lease_id, granted, remaining in leases:
            if lease_id in self._clocks:
                continue  # it was granted since
            deadline = self._spread(now + (remaining or granted) + self._extension)
            clock = self._add(lease_id, granted, deadline, now)
            if remaining:
                clock.checkpoint = self._number_checkpoint()

    def complete(self) -> None:
        """All are known."""
        self.term = self.next_term
        self._in_second.clear()
        self._room_from.clear()

    def demote(self) -> None:
        """This node leads no more: who does, knows better."""
        self.term = self.next_term = NOT_PROMOTED
        self._clocks = {}
        self._ends, self._checkpoints = _DueLeases(), _DueLeases()
        self._in_second.clear()
        self._room_from.clear()

    # What was applied.

    def granted(self, lease_id: int, ttl: int, now: float) -> None:
        if self.next_term != NOT_PROMOTED:
            self._add(lease_id, ttl, now + ttl, now)

    def revoked(self, lease_id: int) -> None:
        self._clocks.pop(lease_id, None)
        # Those that did not live to their end stay in the heaps, which must not grow by that for ever.
        for heap in (self._ends, self._checkpoints):
            if len(heap) > 2 * len(self._clocks) + _STALE_MAX:
                heap.keep(self._clocks)

    def _add(self, lease_id: int, ttl: int, deadline: float, now: float) -> _Clock:
        clock = self._clocks[lease_id] = _Clock(lease_id, ttl, deadline, now)
        self._ends.add(deadline, clock)
        if ttl > self._checkpoint_interval:
            self._checkpoints.add(now + self._checkpoint_interval, clock)
        return clock

    def _spread(self, deadline: float) -> float:
        """Later by whole seconds, so that no more than EXPIRIES_PER_SECOND end in one. After an election all
        begin anew, and those of one TTL would run out at one moment."""
        second = first = int(deadline)
        while self._in_second.get(second, 0) >= EXPIRIES_PER_SECOND:
            second = self._room_from.get(second, second + 1)
        if second > first:
            self._room_from[first] = second
        self._in_second[second] = self._in_second.get(second, 0) + 1
        return deadline + (second - first)

    # Keepalives.

    def has_run_out(self, lease_id: int, now: float) -> bool:
        """Whether it is there, and had run out at ``now`` or is to be revoked."""
        clock = self._clocks.get(lease_id)
        return clock is not None and (clock.has_run_out or clock.deadline <= now)

    def checkpoints_in_the_way(self, lease_ids: Sequence[int], now: float) -> dict[int, int]:
        """Those that could be renewed but for a checkpoint, each with its number: take these back
        through the log, say so (``checkpoint_taken_back``), and look again."""
        clocks = self._clocks
        found = {}
        for lease_id in lease_ids:
            clock = clocks.get(lease_id)
            if clock is not None and clock.checkpoint and not self.has_run_out(lease_id, now):
                found[lease_id] = clock.checkpoint
        return found

    def checkpoint_taken_back(self, lease_id: int, number: int) -> None:
        """It was applied that the lease has none. A newer one may be on its way."""
        clock = self._clocks.get(lease_id)
        if clock is not None and clock.checkpoint == number:
            clock.checkpoint = 0

    def renew(self, lease_id: int, now: float) -> int | None:
        """A keepalive arrived at ``now``, which may be some time ago: the TTL that the lease has from then
        on. None if there is no such lease, or it has run out, or has a checkpoint."""
        clock = self._clocks.get(lease_id)
        if clock is None or clock.has_run_out or clock.deadline <= now or clock.checkpoint:
            return None
        # An earlier keepalive that was answered later takes nothing away.
        clock.deadline = max(clock.deadline, now + clock.ttl)
        clock.checkpoint_from = max(clock.checkpoint_from, now)
        return clock.ttl

    def time_left(self, lease_id: int, now: float) -> tuple[float, int] | None:
        """Seconds until it runs out, 0 if it has, and its granted TTL. None if there is no such lease."""
        clock = self._clocks.get(lease_id)
        return None if clock is None else (max(0.0, clock.deadline - now), clock.ttl)

    # What is due.

    def run_out(self, now: float, limit: int) -> list[int]:
        """Up to ``limit`` leases that have run out, to be revoked, those of the earliest end first. Each is
        named once, unless ``not_revoked`` brings it back."""
        found: list[int] = []
        for _ in range(_STEPS_MAX):
            if len(found) == limit or (clock := self._ends.pop(now)) is None:
                break
            if self._clocks.get(clock.id) is not clock:
                continue  # it was revoked
            if clock.deadline > now:
                self._ends.add(clock.deadline, clock)  # it was renewed
                continue
            clock.has_run_out = True
            found.append(clock.id)
        return found

    def not_revoked(self, lease_id: int) -> None:
        """What was proposed of this lease came to nothing, or so it seems: it is due again."""
        clock = self._clocks.get(lease_id)
        if clock is not None and clock.has_run_out:
            self._ends.add(clock.deadline, clock)

    def checkpoints_due(self, now: float, limit: int) -> list[tuple[int, int]]:
        """Up to ``limit`` leases whose remaining seconds are to go through the log. From now on they count as
        having a checkpoint, whatever becomes of it."""
        found: list[tuple[int, int]] = []
        for _ in range(_STEPS_MAX):
            if len(found) == limit or (clock := self._checkpoints.pop(now)) is None:
                break
            if self._clocks.get(clock.id) is not clock or clock.has_run_out or clock.deadline <= now:
                continue
            due = clock.checkpoint_from + self._checkpoint_interval
            if due <= now:
                found.append((clock.id, _seconds(clock.deadline - now, clock.ttl)))
                clock.checkpoint, clock.checkpoint_from = self._number_checkpoint(), now
                due = now + self._checkpoint_interval
            self._checkpoints.add(due, clock)
        return found

    def _number_checkpoint(self) -> int:
        self._last_checkpoint += 1
        return self._last_checkpoint


def _seconds(left: float, ttl: int) -> int:
    """Rounded up, so that no leader cuts it short; not above what was granted, which a new leader adds to."""
    return max(1, min(ttl, math.ceil(left)))
