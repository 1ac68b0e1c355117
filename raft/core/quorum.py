"""The arithmetic of majorities. Pure functions; joint configurations will combine two of them."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping


class Vote(enum.Enum):
    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(count: int) -> int:
    """How many of ``count`` voters are more than half."""
    return count // 2 + 1


def committed_index(voters: Collection[int], match_index: Mapping[int, int]) -> int:
    """The highest index that a majority of voters holds. Who is not in ``match_index`` holds nothing."""
    if not voters:
        raise ValueError("a configuration without voters can commit nothing")
    matches = sorted((match_index.get(voter, 0) for voter in voters), reverse=True)
    return matches[majority(len(voters)) - 1]


def tally(voters: Collection[int], votes: Mapping[int, bool]) -> Vote:
    """How an election stands, given the votes that have arrived. Only voters' votes count."""
    needed = majority(len(voters))
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return Vote.WON
    if len(voters) - refused < needed:
        return Vote.LOST
    return Vote.PENDING
