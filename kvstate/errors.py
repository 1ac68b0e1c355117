"""How a request can be wrong, and how a node can.

A ``RequestError`` is an answer: every replica gives the same one, nothing was
changed, and the client gets ``message`` word for word as etcd says it. A
``StateFault`` means this node is no longer to be trusted and must stop.
"""

from __future__ import annotations

from typing import ClassVar


class RequestError(Exception):
    """Base of every refusal that the state itself decides. Subclasses carry etcd's text."""

    message: ClassVar[str] = ""

    def __str__(self) -> str:
        return self.message


class EmptyKey(RequestError):
    message = "etcdserver: key is not provided"


class KeyNotFound(RequestError):
    """ignore_value / ignore_lease on an absent key; also a txn operation with no member set."""

    message = "etcdserver: key not found"


class ValueProvided(RequestError):
    message = "etcdserver: value is provided"


class LeaseProvided(RequestError):
    message = "etcdserver: lease is provided"


class TooManyOps(RequestError):
    message = "etcdserver: too many operations in txn request"


class DuplicateKey(RequestError):
    message = "etcdserver: duplicate key given in txn request"


class InvalidSortOption(RequestError):
    message = "etcdserver: invalid sort option"


class Compacted(RequestError):
    """The revision asked for was compacted away. ``compact_revision`` is where history begins now."""

    message = "etcdserver: mvcc: required revision has been compacted"

    def __init__(self, compact_revision: int = 0) -> None:
        super().__init__(compact_revision)
        self.compact_revision = compact_revision


class FutureRevision(RequestError):
    message = "etcdserver: mvcc: required revision is a future revision"


class LeaseNotFound(RequestError):
    message = "etcdserver: requested lease not found"


class LeaseExists(RequestError):
    message = "etcdserver: lease already exists"


class LeaseTtlTooLarge(RequestError):
    message = "etcdserver: too large lease TTL"


class ExpiryOutdated(RequestError):
    """Who found that the lease has run out, or has so much left, does not lead any more, and its successor
    may have renewed it. Only leaders propose such a thing, so no client sees this."""

    message = "kvorum: the lease was found expired by a leader of another term"


class StateFault(Exception):
    """This node's state or storage broke a promise; the node must stop and say why."""


class CopyStopped(Exception):
    """The copy of the state was given up, because the state grew or was closed: another one may succeed."""
