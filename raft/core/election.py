"""Elections: RequestVote (paper §5.2, §5.4.1), pre-votes (thesis 9.6), TimeoutNow (thesis 3.10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.core.messages import (
    RequestPreVote,
    RequestPreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from raft.core.quorum import Vote, is_quorum, tally
from raft.core.types import NO_MEMBER, Role

if TYPE_CHECKING:
    from raft.core.consensus import Consensus


def timed_out(c: Consensus) -> None:
    """The election timeout elapsed (§5.2). Ask first whether an election could be won (thesis 9.6):
    a server that was cut off for a while then comes back without a term that deposes the leader."""
    if not c.config.pre_vote or is_quorum(c.membership, [c.id]):
        campaign(c)
        return
    c.become_pre_candidate()
    c.votes[c.id] = True  # promises nothing, so it need not be durable
    for voter in c.other_voters:
        c.send(RequestPreVote(c.id, voter, c.current_term + 1, c.log.last_index, c.log.last_term))


def campaign(c: Consensus, *, leadership_transfer: bool = False) -> None:
    """Figure 2, candidates: increment the term, vote for oneself, ask all others.

    The requests wait for the disk: a candidate that forgot its term and stood again in it
    with a shorter log could win on votes that were given to the longer one.
    """
    c.become_candidate()
    last_index, last_term = c.log.last_index, c.log.last_term
    for voter in c.other_voters:
        c.send_after_persist(
            RequestVote(c.id, voter, c.current_term, last_index, last_term, leadership_transfer)
        )


def on_request_pre_vote(c: Consensus, m: RequestPreVote) -> None:
    # Thesis 9.6: say whether we would vote, changing nothing. Whoever hears from a leader did not
    # come here (Consensus.step). The answer has the term asked for if it is yes, ours if no, so
    # that a candidate that lags behind learns of it.
    up_to_date = c.log.is_up_to_date(m.last_log_index, m.last_log_term)
    granted = m.term > c.current_term and up_to_date
    if not up_to_date and c.leader_id == NO_MEMBER:
        c.hurry()  # who asks cannot win, but we can: its leader is gone as well
    c.send_after_persist(
        RequestPreVoteResponse(c.id, m.source, m.term if granted else c.current_term, granted)
    )


def on_request_pre_vote_response(c: Consensus, m: RequestPreVoteResponse) -> None:
    if m.vote_granted and m.term != c.current_term + 1:
        return  # for an earlier attempt
    c.votes.setdefault(m.source, m.vote_granted)
    result = tally(c.membership, c.votes)
    if result is Vote.WON:
        campaign(c)
    elif result is Vote.LOST:
        c.become_follower(c.current_term, NO_MEMBER)


def on_request_vote(c: Consensus, m: RequestVote) -> None:
    # Figure 2, receiver rule 2: grant if we voted for nobody else in this term and the
    # candidate's log is at least as up to date as ours. Whether we think ourselves a voter does
    # not matter: we may lack the entry that made us one (§6).
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
    result = tally(c.membership, c.votes)
    if result is Vote.WON:
        c.become_leader()
    elif result is Vote.LOST:
        # Nobody leads yet; wait as a follower for whoever wins, or for the next timeout.
        c.become_follower(c.current_term, NO_MEMBER)
    elif not granted and c.role is Role.CANDIDATE:
        c.hurry()  # the vote is split, perhaps: somebody who might have voted for us stands itself


def on_timeout_now(c: Consensus, m: TimeoutNow) -> None:
    # Thesis 3.10: start an election at once, as if the timeout had elapsed; the leader wants it, so
    # nobody is asked beforehand.
    if c.may_stand:
        campaign(c, leadership_transfer=True)
