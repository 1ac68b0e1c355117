"""The values consensus is made of: entries, positions, hard state, roles, membership.

Names are those of Figure 2 of the Raft paper in snake_case. A log position is
written ``index@term`` wherever a person reads it. Indexes start at 1; index 0 with
term 0 is the position before the first entry.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

NO_MEMBER = 0
"""The id that no member has: "voted for nobody", "no leader known"."""


class Role(enum.Enum):
    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class EntryType(enum.IntEnum):
    """What an entry's data means. The numbers are in the WAL: never reuse one."""

    NORMAL = 0  # opaque bytes for the state machine; empty for a new leader's no-op
    MEMBERSHIP = 1  # an encoded Membership


class Entry(NamedTuple):
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    term: int
    type: EntryType
    data: bytes


class Position(NamedTuple):
    """A place in the log. Prints as ``index@term``."""

    index: int  # type: ignore[assignment]
    term: int

    def __str__(self) -> str:
        return f"{self.index}@{self.term}"


ORIGIN = Position(0, 0)


class HardState(NamedTuple):
    """What a server must remember over a crash (Figure 2, "persistent state"),
    with the commit index beside it, which may lag and only spares work."""

    current_term: int = 0
    voted_for: int = NO_MEMBER
    commit_index: int = 0


@dataclass(frozen=True, slots=True)
class Membership:
    """Who takes part. ``voters`` count for quorums; ``learners`` only receive the log.

    Membership does not change yet; joint configurations (paper §6) will add
    ``voters_outgoing`` here.
    """

    voters: frozenset[int]
    learners: frozenset[int] = frozenset()


class ReadState(NamedTuple):
    """A ReadIndex request (thesis §6.4) that was confirmed: whoever asked with
    ``ctx`` may read as soon as the state machine has applied ``index``."""

    ctx: int
    index: int  # type: ignore[assignment]
