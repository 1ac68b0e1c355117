"""What the core refuses, and what must never happen."""

from __future__ import annotations


class NotLeader(Exception):
    """Only a leader takes this, and none is known or it is not this server. ``leader_id`` is whom
    this server believes to lead, 0 if it knows of none. Nothing happened; try there."""

    def __init__(self, leader_id: int) -> None:
        super().__init__(f"not leader; the leader is {leader_id or 'unknown'}")
        self.leader_id = leader_id


class ProposalDropped(Exception):
    """The leader does not take this proposal now; the message says why. Nothing happened."""


class MembershipRefused(Exception):
    """This change of members is not possible, or not now; the message says why. Nothing happened."""


class TransferRefused(Exception):
    """Leadership cannot go there; the message says why. Nothing happened."""


class Compacted(Exception):
    """The log no longer holds this index; whoever needs it needs a snapshot."""


class Unavailable(Exception):
    """The log does not hold this index yet."""


class InvariantViolated(Exception):
    """A property that Raft guarantees does not hold. The message tells the story; the node must stop."""
