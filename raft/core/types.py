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
    PRE_CANDIDATE = "pre-candidate"  # asks whether it could win, without raising its term (thesis 9.6)
    CANDIDATE = "candidate"
    LEADER = "leader"


class EntryType(enum.IntEnum):
    """What an entry's data means. The numbers are in the WAL: never reuse one."""

    NORMAL = 0  # opaque bytes for the state machine; empty for a new leader's no-op
    MEMBERSHIP = 1  # an encoded Membership with a context (membership.encode)


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
    """Who takes part. ``learners`` only receive the log; ``voters`` decide by majority. While
    ``voters_outgoing`` is not empty the membership is *joint* (paper §6): every decision needs
    a majority of both. ``context`` is whatever else the proposer wants to be known of the members,
    such as where they are reached; it means nothing to consensus."""

    voters: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    voters_outgoing: frozenset[int] = frozenset()
    context: bytes = b""

    @property
    def is_joint(self) -> bool:
        return bool(self.voters_outgoing)

    @property
    def all_voters(self) -> frozenset[int]:
        """Whoever has a vote in the old or the new half."""
        return self.voters | self.voters_outgoing

    @property
    def members(self) -> frozenset[int]:
        return self.voters | self.voters_outgoing | self.learners

    def left(self) -> Membership:
        """What a joint membership becomes in the end."""
        return Membership(self.voters, self.learners, context=self.context)


class SnapshotMeta(NamedTuple):
    """A state that stands for the log up to ``position``, and the membership as of there (§7: "the
    latest configuration in the log as of last included index")."""

    position: Position
    membership: Membership


class ReadState(NamedTuple):
    """A ReadIndex request (thesis §6.4) that was confirmed: whoever asked with
    ``ctx`` may read as soon as the state machine has applied ``index``."""

    ctx: int
    index: int  # type: ignore[assignment]
