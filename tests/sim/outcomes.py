"""What an error says about whether a request took effect."""

from __future__ import annotations

from api.errors import NoLeaderElected, NotElected, Refused, SessionExpired
from kvstate.errors import RequestError
from raft.errors import LeadershipLost, NotLeader, Overloaded, ProposalDropped, Stopped, TimedOut
from tests.sim.history import Outcome

_REFUSALS = (NotLeader, Overloaded, ProposalDropped)
_PROMISE_NOTHING = (LeadershipLost, TimedOut, Stopped)


def outcome_of(error: BaseException) -> Outcome | None:
    """None if no client may ever see such an error."""
    if isinstance(error, RequestError | SessionExpired | NotElected | NoLeaderElected):
        return Outcome.ERROR
    if isinstance(error, Refused):
        # A part of what was asked for may have been done.
        known = error.__cause__ is not None and outcome_of(error.__cause__) is not None
        return Outcome.UNKNOWN if known else None
    if isinstance(error, _REFUSALS):
        return Outcome.REFUSED
    if isinstance(error, _PROMISE_NOTHING):
        return Outcome.UNKNOWN
    return None
