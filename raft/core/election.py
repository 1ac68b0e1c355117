"""RequestVote: standing for election and voting (paper §5.2 and §5.4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.core.messages import RequestVote, RequestVoteResponse
from raft.core.quorum import Vote, tally
from raft.core.types import NO_MEMBER

if TYPE_CHECKING:
    from raft.core.consensus import Consensus


def campaign(c: Consensus) -> None:
    """Figure 2, candidates: increment the term, vote for oneself, ask all others.

    The requests wait for the disk: a candidate that forgot its term and stood again in it
    with a shorter log could win on votes that were given to the longer one.
    """
    c.become_candidate()
    for peer in c.peers:
        c.send_after_persist(RequestVote(c.id, peer, c.current_term, c.log.last_index, c.log.last_term))


def on_request_vote(c: Consensus, m: RequestVote) -> None:
    # Figure 2, receiver rule 2: grant if we voted for nobody else in this term and the
    # candidate's log is at least as up to date as ours.
    granted = c.voted_for in (NO_MEMBER, m.source) and c.log.is_up_to_date(m.last_log_index, m.last_log_term)
    if granted:
        c.voted_for = m.source
        c.elapsed_ticks = 0  # Figure 2, followers: granting a vote restarts the election timeout
    c.send_after_persist(RequestVoteResponse(c.id, m.source, c.current_term, granted))


def on_request_vote_response(c: Consensus, m: RequestVoteResponse) -> None:
    count_vote(c, m.source, granted=m.vote_granted)


def count_vote(c: Consensus, voter: int, *, granted: bool) -> None:
    """A vote of the current term is known; the first word of a voter counts."""
    c.votes.setdefault(voter, granted)
    result = tally(c.membership.voters, c.votes)
    if result is Vote.WON:
        c.become_leader()
    elif result is Vote.LOST:
        # Nobody leads yet; wait as a follower for whoever wins, or for the next timeout.
        c.become_follower(c.current_term, NO_MEMBER)
