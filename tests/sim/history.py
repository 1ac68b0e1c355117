"""What clients did and were told, as they saw it: the evidence a run is judged by.

Times are positions in one total order of everything that happens in a run (``Queue.stamp``);
only their order means anything. The same records serve the simulator and, later, real processes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from api.concurrency import LeaderKey
from api.service import TimeToLive
from kvstate.commands import Compact, DeleteRange, LeaseGrant, LeaseRevoke, Put, Range, Response, Txn
from kvstate.types import Event, KeyValue
from watch.watcher import WatchCreate, WatchResponse


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Answered by the TTL, 0 if there is no such lease."""

    id: int


@dataclass(frozen=True, slots=True)
class LookAtLease:
    """Answered by a TimeToLive, None if there is no such lease."""

    id: int
    keys: bool = False


@dataclass(frozen=True, slots=True)
class ListLeases:
    """Answered by the ids, ascending."""


@dataclass(frozen=True, slots=True)
class Lock:
    """Answered by the key."""

    name: bytes
    lease: int


@dataclass(frozen=True, slots=True)
class Unlock:
    key: bytes


@dataclass(frozen=True, slots=True)
class Campaign:
    """Answered by a LeaderKey, and the revision at which the line was entered."""

    name: bytes
    lease: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Proclaim:
    leader: LeaderKey
    value: bytes


@dataclass(frozen=True, slots=True)
class Resign:
    leader: LeaderKey


@dataclass(frozen=True, slots=True)
class FindLeader:
    """Answered by his key-value."""

    name: bytes


GUARDED = b"a-guarded-"
"""Before a lock's name: the key that only its holder may write."""
OfLines = Lock | Unlock | Campaign | Proclaim | Resign | FindLeader
OfLeases = LeaseGrant | LeaseRevoke | KeepAlive | LookAtLease | ListLeases
Request = Put | DeleteRange | Txn | Compact | Range | OfLeases | OfLines
Answer: TypeAlias = "Response | TimeToLive | int | list[int] | bytes | LeaderKey | KeyValue"


class Outcome(enum.Enum):
    OK = "ok"  # answered, with ``response`` and the store's ``revision`` from its header
    ERROR = "error"  # answered with ``error``, which the state itself decided: nothing was changed
    REFUSED = "refused"  # the server promised that nothing happened, nor ever will
    UNKNOWN = "unknown"  # no answer, or one that promises nothing: happened once, or never


@dataclass(slots=True)
class Operation:
    """One request. Clients never send a request twice, and every value written is unique. What is read
    of leases is answered without a revision, which is 0 then."""

    client: int
    node: int
    request: Request
    invoked: int
    returned: int | None = None  # None: still unanswered at the end
    outcome: Outcome = Outcome.UNKNOWN
    revision: int = 0
    response: Answer | None = None
    error: BaseException | None = None


@dataclass(slots=True)
class WatchLog:
    """One watch and everything that its stream delivered for it, in order, each with its time.

    ``connected``: the stream was still open at the end and its reader had read all there was, so
    nothing may be missing up to the end of the history (unless it was cancelled).
    """

    node: int
    request: WatchCreate
    invoked: int
    responses: list[tuple[int, WatchResponse]] = field(default_factory=list)
    connected: bool = False


@dataclass(slots=True)
class Observation:
    """What somebody was told who looked on an election: who leads, and the revision as of which."""

    node: int
    name: bytes
    invoked: int
    told: list[tuple[KeyValue, int]] = field(default_factory=list)


class Moment(NamedTuple):
    """When something happened in the store that need not make a revision: the time, and the store's revision
    after it."""

    time: int
    revision: int


@dataclass(slots=True)
class LeaseLife:
    """A lease, from grant to end, as the store says. It has run out, or was revoked by a client."""

    id: int
    ttl: int
    granted: Moment
    ended: Moment | None = None
    has_run_out: bool = False
    made_revision: bool = False  # there were keys that went with it


@dataclass(slots=True)
class History:
    """``events`` and ``leases`` are what the store says happened: every revision from 2 on, in full, with
    its events, and every lease by its id, which nobody uses twice. In the simulator they are collected as
    entries are applied, for the first time anywhere; elsewhere from watches."""

    operations: list[Operation] = field(default_factory=list)
    watches: list[WatchLog] = field(default_factory=list)
    events: dict[int, tuple[Event, ...]] = field(default_factory=dict)
    leases: dict[int, LeaseLife] = field(default_factory=dict)
    observations: list[Observation] = field(default_factory=list)
    # Not None: somebody else (``tests.soak.coordination_judge``) has judged leases, locks and elections.
    # These are the revisions that they made, and ``leases`` says as long as each *may* have been there.
    elsewhere: frozenset[int] | None = None
