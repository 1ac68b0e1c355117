"""What a proposal or a read can meet on its way through the driver.

They differ in what the caller may conclude. After ``NotLeader``, ``ProposalDropped`` and
``Overloaded`` nothing happened and another try is safe. After ``LeadershipLost``, ``TimedOut`` and
``Stopped`` the outcome of a proposal is unknown: it may have been, or may yet be,
committed.
"""

from __future__ import annotations

from raft.core.errors import NotLeader, ProposalDropped

__all__ = ["LeadershipLost", "NotLeader", "Overloaded", "ProposalDropped", "Stopped", "TimedOut"]


class LeadershipLost(Exception):
    """The node was leader when it took the request and is not any more; outcome unknown."""


class TimedOut(Exception):
    """No answer within the request timeout; outcome unknown."""


class Stopped(Exception):
    """The node is stopping or has failed; outcome unknown."""


class Overloaded(Exception):
    """Too many proposals wait already; this one was not taken."""
