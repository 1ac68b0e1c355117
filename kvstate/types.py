"""What the store holds and says: key-values, events and leases, in etcd's words.

Field order is that of etcd's ``mvccpb`` protobuf messages.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class KeyValue(NamedTuple):
    """One key at one revision. A tombstone (in a DELETE event) has only ``key`` and
    ``mod_revision``; all else is zero."""

    key: bytes
    create_revision: int
    mod_revision: int
    version: int
    value: bytes
    lease: int


class EventType(enum.IntEnum):
    PUT = 0
    DELETE = 1


class Event(NamedTuple):
    """One change of one key. Events of one revision are ordered by sub-revision."""

    type: EventType
    kv: KeyValue


class Lease(NamedTuple):
    """What the log says of a lease. Its end is not in there: the leader's clock knows, and proposes it."""

    id: int
    granted_ttl: int  # seconds
    remaining_ttl: int  # seconds left at the last checkpoint; 0 if there was none
