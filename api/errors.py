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


@dataclass(frozen=True, slots=True)
class Kind:
    """How a failure is told: gRPC code, HTTP status, and the text (None: the error's own)."""

    code: int
    status: int
    message: str | None = None


_INVALID = (3, 400)
_OUT_OF_RANGE = (11, 400)
_UNAVAILABLE = (14, 503)

KINDS: Final[dict[type[Exception], Kind]] = {
    BadRequest: Kind(*_INVALID),
    RequestTooLarge: Kind(*_INVALID, "etcdserver: request is too large"),
    MessageTooLarge: Kind(8, 429),
    BodyStalled: Kind(4, 408, "the request body stopped coming: send all of it, or close the connection"),
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
