"""The arithmetic of majorities, plain and joint (paper §6: "agreement requires separate
majorities from both the old and new configurations"). Pure functions."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping

from raft.core.types import Membership


class Vote(enum.Enum):
    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(count: int) -> int:
    """How many of ``count`` voters are more than half."""
    return count // 2 + 1


def committed_index(membership: Membership, match_index: Mapping[int, int]) -> int:
    """The highest index that a quorum holds. Who is not in ``match_index`` holds nothing."""
    index = _majority_index(membership.voters, match_index)
    if membership.voters_outgoing:
        index = min(index, _majority_index(membership.voters_outgoing, match_index))
    return index


def tally(membership: Membership, votes: Mapping[int, bool]) -> Vote:
    """How an election stands, given the votes that have arrived. Only voters' votes count."""
    result = _majority_vote(membership.voters, votes)
    if not membership.voters_outgoing or result is Vote.LOST:
        return result
    outgoing = _majority_vote(membership.voters_outgoing, votes)
    # Both must be won; one that is lost decides.
    return outgoing if result is Vote.WON or outgoing is Vote.LOST else result


def is_quorum(membership: Membership, members: Collection[int]) -> bool:
    """Whether these members alone can decide."""
    return tally(membership, dict.fromkeys(members, True)) is Vote.WON


def _majority_index(voters: Collection[int], match_index: Mapping[int, int]) -> int:
    if not voters:
        raise ValueError("a membership without voters can commit nothing")
    matches = sorted((match_index.get(voter, 0) for voter in voters), reverse=True)
    return matches[majority(len(voters)) - 1]


def _majority_vote(voters: Collection[int], votes: Mapping[int, bool]) -> Vote:
    needed = majority(len(voters))
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return Vote.WON
    if len(voters) - refused < needed:
        return Vote.LOST
    return Vote.PENDING
