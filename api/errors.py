"""One table: what can go wrong → gRPC code and HTTP status, with etcd's texts (API.md 1.3).

The kinds of failure are defined once: those the state decides in ``kvstate.errors``, those of
consensus in ``raft.errors``, those of a request's form here. Each protocol asks this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvstate import errors as kv
from raft import errors as raft


class BadRequest(Exception):
    """The request cannot be understood. The text is etcd's where it has one."""


class MessageTooLarge(Exception):
    """The request exceeds what is read at all."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"grpc: received message larger than max ({size} vs. {limit})")


class RequestTooLarge(Exception):
    """The request exceeds --max-request-bytes."""


class BodyStalled(Exception):
    """The client stopped sending in the middle of a request."""


class MemberNotFound(Exception):
    """No such member, or it was removed."""


class PeerUrlExists(Exception):
    """Another member has this peer URL."""


class BadMemberUrls(Exception):
    """Peer URLs that are none."""


class NotEnoughStarted(Exception):
    """The change would leave too few members that have started."""


class UnhealthyCluster(Exception):
    """Voters are missing, so no change of members is made now."""


class NotLearner(Exception):
    """Only a learner can be promoted."""


class LearnerNotReady(Exception):
    """The learner has not caught up with the leader yet."""


class TooManyLearners(Exception):
    """More learners than --max-learners."""


class BadTransferee(Exception):
    """Leadership cannot go to this member."""


class LeaderWanted(Exception):
    """This is done by the leader only, and is not passed on."""


class NotSupportedForLearner(Exception):
    """A learner serves stale reads only."""


class SessionExpired(Exception):
    """Who waited for a lock has lost his place: his lease has ended, or somebody deleted his key."""


class NotElected(Exception):
    """The election's key that was given, or waited for, is not there any more."""


class NoLeaderElected(Exception):
    """Nobody stands in this election."""


class LeaderKeyMissing(Exception):
    """To proclaim or resign, say as whom."""


class Refused(Exception):
    """What locks and elections met in the store. The text is the refusal's; its code is lost, as in etcd."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a failure is told: gRPC code, HTTP status, and the text (None: the error's own)."""

    code: int
    status: int
    message: str | None = None


_INVALID = (3, 400)
_OUT_OF_RANGE = (11, 400)
_UNAVAILABLE = (14, 503)
_UNKNOWN = (2, 500)
_FAILED_PRECONDITION = (9, 400)

KINDS: Final[dict[type[Exception], Kind]] = {
    BadRequest: Kind(*_INVALID),
    RequestTooLarge: Kind(*_INVALID, "etcdserver: request is too large"),
    MessageTooLarge: Kind(8, 429),
    BodyStalled: Kind(4, 408, "the request body stopped coming: send all of it, or close the connection"),
    MemberNotFound: Kind(5, 404, "etcdserver: member not found"),
    PeerUrlExists: Kind(*_FAILED_PRECONDITION, "etcdserver: Peer URLs already exists"),
    BadMemberUrls: Kind(*_INVALID, "etcdserver: given member URLs are invalid"),
    # etcd forgets to give this one a code on its way out.
    NotEnoughStarted: Kind(
        *_UNKNOWN, "etcdserver: re-configuration failed due to not enough started members"
    ),
    UnhealthyCluster: Kind(*_UNAVAILABLE, "etcdserver: unhealthy cluster"),
    NotLearner: Kind(*_FAILED_PRECONDITION, "etcdserver: can only promote a learner member"),
    LearnerNotReady: Kind(
        *_FAILED_PRECONDITION,
        "etcdserver: can only promote a learner member which is in sync with leader",
    ),
    TooManyLearners: Kind(*_FAILED_PRECONDITION, "etcdserver: too many learner members in cluster"),
    BadTransferee: Kind(*_FAILED_PRECONDITION, "etcdserver: bad leader transferee"),
    LeaderWanted: Kind(*_FAILED_PRECONDITION, "etcdserver: not leader"),
    NotSupportedForLearner: Kind(*_UNAVAILABLE, "etcdserver: rpc not supported for learner"),
    SessionExpired: Kind(*_UNKNOWN, "mutex: session is expired"),
    NotElected: Kind(*_UNKNOWN, "election: not leader"),
    NoLeaderElected: Kind(*_UNKNOWN, "election: no leader"),
    LeaderKeyMissing: Kind(*_UNKNOWN, '"leader" field must be provided'),
    Refused: Kind(*_UNKNOWN),
    kv.EmptyKey: Kind(*_INVALID),
    kv.KeyNotFound: Kind(*_INVALID),
    kv.ValueProvided: Kind(*_INVALID),
    kv.LeaseProvided: Kind(*_INVALID),
    kv.TooManyOps: Kind(*_INVALID),
    kv.DuplicateKey: Kind(*_INVALID),
    kv.InvalidSortOption: Kind(*_INVALID),
    kv.Compacted: Kind(*_OUT_OF_RANGE),
    kv.FutureRevision: Kind(*_OUT_OF_RANGE),
    kv.LeaseNotFound: Kind(5, 404),
    kv.LeaseExists: Kind(*_FAILED_PRECONDITION),
    kv.LeaseTtlTooLarge: Kind(*_OUT_OF_RANGE),
    kv.ExpiryOutdated: Kind(*_FAILED_PRECONDITION),
    raft.NotLeader: Kind(*_UNAVAILABLE, "etcdserver: no leader"),
    raft.LeadershipLost: Kind(*_UNAVAILABLE, "etcdserver: leader changed"),
    raft.TimedOut: Kind(*_UNAVAILABLE, "etcdserver: request timed out"),
    raft.Stopped: Kind(*_UNAVAILABLE, "etcdserver: server stopped"),
    raft.Overloaded: Kind(8, 429, "etcdserver: too many requests"),
    raft.ProposalDropped: Kind(8, 429, "etcdserver: too many requests"),
}
_UNFORESEEN: Final = Kind(13, 500, "internal error: see the server's log")


def kind_of(error: Exception) -> Kind:
    return KINDS.get(type(error), _UNFORESEEN)


def is_expected(error: Exception) -> bool:
    """Whether this is a failure we know, rather than a defect of ours."""
    return type(error) in KINDS


def message_of(error: Exception) -> str:
    message = kind_of(error).message
    return str(error) if message is None else message
