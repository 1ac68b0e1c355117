"""Proposals: into the leader's log, or on their way to the leader.

A forwarded batch is taken at most once: only in the term it was sent for, in which there is one
leader with one memory, and only with a context above all that its sender's life has shown. So
a doubled or late message is never proposed twice, nor refused after it was taken; one that
comes out of order is dropped without an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raft.core.errors import NotLeader, ProposalDropped
from raft.core.messages import Propose, ProposeRefused
from raft.core.types import NO_MEMBER, Entry, EntryType, Role

if TYPE_CHECKING:
    from raft.core.consensus import Consensus


def append(c: Consensus, data: Sequence[bytes]) -> int:
    """As the leader. Raises ProposalDropped."""
    if c.transfer_target:
        raise ProposalDropped("leadership is being transferred: expected a new leader soon")
    size = sum([len(one) for one in data])
    if c.uncommitted_bytes and c.uncommitted_bytes + size > c.config.uncommitted_bytes_max:
        raise ProposalDropped(
            f"{c.uncommitted_bytes} bytes are proposed and not committed yet:"
            f" expected at most {c.config.uncommitted_bytes_max}"
        )
    c.uncommitted_bytes += size
    start, term = c.log.last_index + 1, c.current_term
    c.append([Entry(start + n, term, EntryType.NORMAL, one) for n, one in enumerate(data)])
    return start


def forward(c: Consensus, data: Sequence[bytes], ctx: int) -> None:
    """As a follower. Raises NotLeader where no leader is known."""
    if c.leader_id == NO_MEMBER:
        raise NotLeader(NO_MEMBER)
    c.send(Propose(c.id, c.leader_id, c.current_term, c.life, ctx, tuple(data)))


def on_propose(c: Consensus, m: Propose) -> None:
    """Also for a message of an older term, which is refused."""
    newest = c.newest_forwarded.get((m.source, m.life), 0)
    if m.ctx <= newest:
        return
    c.newest_forwarded[m.source, m.life] = m.ctx
    if c.role is not Role.LEADER or m.term != c.current_term:
        _refuse(c, m)
        return
    try:
        append(c, m.data)
    except ProposalDropped:
        _refuse(c, m)


def _refuse(c: Consensus, m: Propose) -> None:
    """Say that nothing of it was appended, nor will be; but only where that is known: an earlier
    life of this server may have taken a message of a term it had already seen."""
    if m.term > c.first_term:
        c.send(ProposeRefused(c.id, m.source, c.current_term, m.life, m.ctx))


def on_propose_refused(c: Consensus, m: ProposeRefused) -> None:
    if m.life == c.life:
        c.refuse_proposal(m.ctx)
