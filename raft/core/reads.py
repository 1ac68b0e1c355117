"""ReadIndex: linearizable reads without writing to the log (thesis §6.4).

A read asked for at commit index i may be served from a state that has applied i, once a
quorum has confirmed, after the read was asked for, that this server still leads.
One heartbeat round confirms every read that was asked for before it left.

A follower passes its reads on to the leader and is sent the index (thesis §6.4, "followers").
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from raft.core.messages import ReadIndexResponse, RequestReadIndex
from raft.core.quorum import is_quorum
from raft.core.types import ReadState, Role

if TYPE_CHECKING:
    from raft.core.consensus import Consensus


class Asked(NamedTuple):
    """Who asked, in which of its lives, by which context."""

    member: int
    life: int
    ctx: int


class PendingReads:
    """Reads of one leadership; a new one begins empty."""

    def __init__(self) -> None:
        # Asked before an entry of the own term was committed: until then the leader does not
        # know what is committed (thesis §6.4, step 1).
        self.waiting: list[Asked] = []
        # (round, who asked, read index), ascending in round and index; to be confirmed by a quorum.
        self.unconfirmed: deque[tuple[int, Asked, int]] = deque()
        self.newest_round = 0
        self.acknowledged: dict[int, int] = {}  # the newest round each member has answered


def request(c: Consensus, asked: Asked) -> None:
    """As the leader: confirm, then tell who asked."""
    if not c.committed_in_own_term():
        c.pending_reads.waiting.append(asked)
        return
    if is_quorum(c.membership, [c.id]):
        _answer(c, asked, c.log.commit_index)
        return
    pending = c.pending_reads
    pending.newest_round += 1
    pending.unconfirmed.append((pending.newest_round, asked, c.log.commit_index))
    c.broadcast_heartbeat()


def forward(c: Consensus, ctx: int) -> None:
    """As a follower: let the leader do it."""
    c.send(RequestReadIndex(c.id, c.leader_id, c.current_term, c.life, ctx))


def release_waiting(c: Consensus) -> None:
    """The first entry of this term is committed."""
    waiting, c.pending_reads.waiting = c.pending_reads.waiting, []
    for asked in waiting:
        request(c, asked)


def acknowledge(c: Consensus, follower: int, newest_round: int) -> None:
    """``follower`` answered a heartbeat that carried this round: it knows of no newer leader."""
    acknowledged = c.pending_reads.acknowledged
    acknowledged[follower] = max(newest_round, acknowledged.get(follower, 0))
    confirm(c)


def confirm(c: Consensus) -> None:
    """Answer what a quorum has acknowledged."""
    pending = c.pending_reads
    while pending.unconfirmed:
        read_round, asked, index = pending.unconfirmed[0]
        agreeing = [member for member, answered in pending.acknowledged.items() if answered >= read_round]
        if not is_quorum(c.membership, [c.id, *agreeing]):
            return
        pending.unconfirmed.popleft()
        _answer(c, asked, index)


def _answer(c: Consensus, asked: Asked, index: int) -> None:
    if asked.member == c.id:
        c.confirm_read(ReadState(asked.ctx, index))
    else:
        c.send(ReadIndexResponse(c.id, asked.member, c.current_term, asked.life, asked.ctx, index))


def on_request_read_index(c: Consensus, m: RequestReadIndex) -> None:
    if c.role is Role.LEADER:
        request(c, Asked(m.source, m.life, m.ctx))
    else:
        refuse(c, m)


def refuse(c: Consensus, m: RequestReadIndex) -> None:
    """We do not lead, or not in the term that was meant."""
    c.send(ReadIndexResponse(c.id, m.source, c.current_term, m.life, m.ctx, None))


def on_read_index_response(c: Consensus, m: ReadIndexResponse) -> None:
    # An index is good whoever leads by now: the read was asked for before it was confirmed. But
    # not one that an earlier life of this server asked for: its contexts were other reads.
    if m.life != c.life:
        return
    if m.index is None:
        c.refuse_read(m.ctx)
    else:
        c.confirm_read(ReadState(m.ctx, m.index))


def refuse_all(c: Consensus) -> None:
    """Leadership is lost: nobody will confirm these."""
    pending = c.pending_reads
    unanswered = [*pending.waiting, *(asked for _, asked, _ in pending.unconfirmed)]
    for member, life, ctx in unanswered:
        if member == c.id:
            c.refuse_read(ctx)
        else:
            c.send(ReadIndexResponse(c.id, member, c.current_term, life, ctx, None))
