"""What can be asked of the store, and what it answers.

Requests mirror etcd's protobuf messages field by field; absent fields have
protobuf's defaults. ``Put``, ``DeleteRange``, ``Txn``, ``Compact`` and those of leases are
commands: they travel through the log. ``Range`` is a read, alone or inside a ``Txn``.

All are values: nobody changes one that is made. ``Put`` and ``Range`` are not frozen by the language,
though: there is one for every put, on every node, and for every read, and a frozen dataclass takes
three times as long to make, fifteen times where it is compiled.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from kvstate.types import KeyValue


class SortOrder(enum.IntEnum):
    NONE = 0
    ASCEND = 1
    DESCEND = 2


class SortTarget(enum.IntEnum):
    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class CompareResult(enum.IntEnum):
    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class CompareTarget(enum.IntEnum):
    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


@dataclass(init=False, slots=True, unsafe_hash=True)
class Range:
    """Read one key, or all in [key, range_end). ``range_end`` b"" is the single key,
    b"\\0" is every key from ``key`` on. ``revision`` <= 0 is the latest."""

    key: bytes
    range_end: bytes
    limit: int
    revision: int
    # Enum fields are plain ints: protobuf is open to unknown numbers, the checks are not.
    sort_order: int
    sort_target: int
    serializable: bool
    keys_only: bool
    count_only: bool
    min_mod_revision: int
    max_mod_revision: int
    min_create_revision: int
    max_create_revision: int

    def __init__(
        self,
        key: bytes = b"",
        range_end: bytes = b"",
        limit: int = 0,
        revision: int = 0,
        sort_order: int = SortOrder.NONE,
        sort_target: int = SortTarget.KEY,
        serializable: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        min_mod_revision: int = 0,
        max_mod_revision: int = 0,
        min_create_revision: int = 0,
        max_create_revision: int = 0,
    ) -> None:
        self.key = key
        self.range_end = range_end
        self.limit = limit
        self.revision = revision
        self.sort_order = sort_order
        self.sort_target = sort_target
        self.serializable = serializable
        self.keys_only = keys_only
        self.count_only = count_only
        self.min_mod_revision = min_mod_revision
        self.max_mod_revision = max_mod_revision
        self.min_create_revision = min_create_revision
        self.max_create_revision = max_create_revision


@dataclass(init=False, slots=True, unsafe_hash=True)
class Put:
    key: bytes
    value: bytes
    lease: int
    prev_kv: bool
    ignore_value: bool
    ignore_lease: bool

    def __init__(
        self,
        key: bytes = b"",
        value: bytes = b"",
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> None:
        self.key = key
        self.value = value
        self.lease = lease
        self.prev_kv = prev_kv
        self.ignore_value = ignore_value
        self.ignore_lease = ignore_lease


@dataclass(frozen=True, slots=True)
class DeleteRange:
    key: bytes = b""
    range_end: bytes = b""
    prev_kv: bool = False


@dataclass(frozen=True, slots=True)
class Compare:
    """``operand`` is the member of the target_union that was set: an int for
    VERSION/CREATE/MOD/LEASE, bytes for VALUE, None when none was set (compares as 0 / b"").
    A member of the union that does not fit ``target`` counts as not set, as in etcd."""

    result: int = CompareResult.EQUAL
    target: int = CompareTarget.VERSION
    key: bytes = b""
    range_end: bytes = b""
    operand: int | bytes | None = None


@dataclass(frozen=True, slots=True)
class Txn:
    """If all of ``compare`` hold, do ``success``, else ``failure``. An op of None is a
    RequestOp with no member set."""

    compare: tuple[Compare, ...] = ()
    success: tuple[RequestOp, ...] = ()
    failure: tuple[RequestOp, ...] = ()


RequestOp: TypeAlias = "Range | Put | DeleteRange | Txn | None"


@dataclass(frozen=True, slots=True)
class Compact:
    revision: int = 0
    physical: bool = False


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """Who proposes has chosen the ``id``, any but 0, and raised ``ttl``, in seconds, to the minimum."""

    id: int = 0
    ttl: int = 0


@dataclass(frozen=True, slots=True)
class LeaseRevoke:
    """End a lease and delete all keys attached to it, in one revision.

    ``expired_in_term``, if not 0: the leader of that term found that the lease has run out. Its successor
    may have renewed it meanwhile, so in an entry of another term this is refused (ExpiryOutdated)."""

    id: int = 0
    expired_in_term: int = 0


@dataclass(frozen=True, slots=True)
class LeaseCheckpoint:
    """Pairs of a lease's id and the seconds that it has left, for the next leader to begin with; 0 takes back
    an earlier one. Leases that are gone are passed over.

    ``term``, if not 0, is that of the leader whose clock says so. In an entry of another term this is
    refused (ExpiryOutdated): its successor may have renewed them, and the one after that would cut them
    short."""

    checkpoints: tuple[tuple[int, int], ...] = ()
    term: int = 0


Command: TypeAlias = Put | DeleteRange | Txn | Compact | LeaseGrant | LeaseRevoke | LeaseCheckpoint


class RangeResponse(NamedTuple):
    kvs: list[KeyValue]
    more: bool
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs


class PutResponse(NamedTuple):
    prev_kv: KeyValue | None


class DeleteRangeResponse(NamedTuple):
    deleted: int
    prev_kvs: list[KeyValue]


class TxnResponse(NamedTuple):
    """``responses[i]`` answers operation i of the branch taken, each with the revision its
    nested header shows."""

    succeeded: bool
    responses: list[tuple[int, Response]]


class CompactResponse(NamedTuple):
    pass


class LeaseGrantResponse(NamedTuple):
    id: int
    ttl: int


class LeaseRevokeResponse(NamedTuple):
    id: int


class LeaseCheckpointResponse(NamedTuple):
    pass


Response: TypeAlias = (
    "RangeResponse | PutResponse | DeleteRangeResponse | TxnResponse | CompactResponse"
    " | LeaseGrantResponse | LeaseRevokeResponse | LeaseCheckpointResponse"
)
