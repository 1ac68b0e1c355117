"""ReadIndex: linearizable reads without writing to the log (thesis §6.4).

A read asked for at commit index i may be served from a state that has applied i, once a
majority has confirmed, after the read was asked for, that this server still leads.
One heartbeat round confirms every read that was asked for before it left.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from raft.core.quorum import Vote, tally
from raft.core.types import ReadState

if TYPE_CHECKING:
    from raft.core.consensus import Consensus


class PendingReads:
    """Reads of one leadership; a new one begins empty."""

    def __init__(self) -> None:
        # Asked before an entry of the own term was committed: until then the leader does not
        # know what is committed (thesis §6.4, step 1).
        self.waiting: list[int] = []
        # (ctx, read index), ascending in both; to be confirmed by a majority.
        self.unconfirmed: deque[tuple[int, int]] = deque()
        self.newest_ctx = 0
        self.acknowledged: dict[int, int] = {}  # the newest ctx each follower has answered


def request(c: Consensus, ctx: int) -> None:
    if not c.committed_in_own_term():
        c.pending_reads.waiting.append(ctx)
        return
    if c.membership.voters == {c.id}:
        c.confirm_reads([ReadState(ctx, c.log.commit_index)])
        return
    pending = c.pending_reads
    pending.unconfirmed.append((ctx, c.log.commit_index))
    pending.newest_ctx = ctx
    c.broadcast_heartbeat()


def release_waiting(c: Consensus) -> None:
    """The first entry of this term is committed."""
    waiting, c.pending_reads.waiting = c.pending_reads.waiting, []
    for ctx in waiting:
        request(c, ctx)


def acknowledge(c: Consensus, follower: int, ctx: int) -> None:
    """``follower`` answered a heartbeat that carried ``ctx``: it knows of no newer leader."""
    pending = c.pending_reads
    pending.acknowledged[follower] = max(ctx, pending.acknowledged.get(follower, 0))
    while pending.unconfirmed:
        asked, index = pending.unconfirmed[0]
        votes = {peer: True for peer, answered in pending.acknowledged.items() if answered >= asked}
        votes[c.id] = True
        if tally(c.membership.voters, votes) is not Vote.WON:
            return
        pending.unconfirmed.popleft()
        c.confirm_reads([ReadState(asked, index)])
