"""Proposals on their way into the log: not yet handed to the core, or passed on to the leader.

While no leader is known, or leadership is being transferred, they are held: an election takes a
second, and a client that waits for it is better off than one that is told to try again. What the
leader has refused comes back and is handed over once more at the next tick. Each waits no longer than
its client does, and all together take no more than a bounded amount of memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from raft.core.consensus import Consensus
from raft.core.errors import NotLeader, ProposalDropped
from raft.core.types import NO_MEMBER, Role
from raft.errors import Overloaded
from raft.proposals import Proposals

BATCH_BYTES = 1 << 20
"""About how much is handed over, and travels, as one."""


class Outgoing:
    """Contexts are those of ``Consensus.propose``; they ascend."""

    def __init__(self, core: Consensus, proposals: Proposals, bytes_max: int) -> None:
        self._core = core
        self._proposals = proposals
        self._bytes_max = bytes_max
        self._queue: list[bytes] = []
        self._returned: list[bytes] = []  # refused by who was asked; for the next tick
        self._ctx = 0
        self._forwarded: dict[int, list[bytes]] = {}
        self._bytes = 0

    @property
    def unsent(self) -> list[bytes]:
        """What nobody but this node has heard of."""
        return [*self._returned, *self._queue]

    def check_room(self, size: int) -> None:
        """Raises Overloaded."""
        if self._bytes and self._bytes + size > self._bytes_max:
            raise Overloaded

    def add(self, proposal: bytes) -> None:
        self._queue.append(proposal)
        self._bytes += len(proposal)

    def hand_over(self) -> None:
        """Give the core what is queued, if there is somebody to take it."""
        if not self._queue or not self._may_propose():
            return
        queue, self._queue = self._queue, []
        for batch in _batches(queue):
            self._hand_over(batch)

    def refused(self, ctx: int) -> None:
        """The leader that was asked takes nothing of this batch, nor ever will."""
        batch = self._forwarded.pop(ctx, [])
        self._returned += batch

    def tick(self) -> None:
        """Forget what nobody waits for any more; let what was refused be tried again."""
        for ctx, batch in list(self._forwarded.items()):
            # One that was lost on its way is waited for longer than many that came after it.
            if not self._proposals.is_waited_for(batch):
                del self._forwarded[ctx]
                self._forget(batch)
        waiting = [*self._returned, *self._queue]
        self._returned = []
        self._queue = [one for one in waiting if self._proposals.is_waited_for([one])]
        self._bytes -= sum(map(len, waiting)) - sum(map(len, self._queue))

    def forget_forwarded(self) -> None:
        """Nobody waits for what was passed on: the leader that has it is none any more."""
        for batch in self._forwarded.values():
            self._forget(batch)
        self._forwarded.clear()

    def clear(self) -> None:
        self._queue, self._returned = [], []
        self._forwarded.clear()
        self._bytes = 0

    def _may_propose(self) -> bool:
        core = self._core
        return core.leader_id != NO_MEMBER and not (core.role is Role.LEADER and core.transfer_target)

    def _hand_over(self, batch: list[bytes]) -> None:
        self._ctx += 1
        try:
            if not self._core.propose(batch, self._ctx):
                self._forwarded[self._ctx] = batch
                return
        except (NotLeader, ProposalDropped) as error:
            self._proposals.refuse(batch, error)
        self._forget(batch)

    def _forget(self, batch: list[bytes]) -> None:
        self._bytes -= sum(map(len, batch))


def _batches(queue: list[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for proposal in queue:
        if batch and size + len(proposal) > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(proposal)
        size += len(proposal)
    if batch:
        yield batch
