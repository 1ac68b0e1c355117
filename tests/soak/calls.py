"""What clients ask of leases, locks and elections, and what they were told: the evidence beside the history.

These are not operations of the history: their answers leave open when exactly they took effect, and whether
they changed anything. ``coordination_judge`` finds that out from what the watches saw.

    client 101 [7..9]    grant 4711, 2 s   → ok @12, 2 s
    client 101 [15..16]  keep 4711 alive   → ok, 2 s     lives until 2 s after moment 15, at the least
    client 101 [20..31]  lock lock/a       → unknown     entered the line or not, left it again or not

Times are positions in the order of the run (``Workload.stamp``); ``Coordination.moments`` says for each what
the machine's monotonic clock showed. All members have that clock too: libfaketime sets off the other one.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

from api.concurrency import LeaderKey
from kvstate.commands import LeaseGrant, LeaseGrantResponse, LeaseRevoke
from tests.sim.history import Campaign, KeepAlive, ListLeases, Lock, Outcome, Resign, Unlock


def line_key(name: bytes, lease: int) -> bytes:
    return b"%b/%x" % (name, lease)


def key_of(request: Lock | Unlock | Campaign | Resign) -> bytes:
    """The key in a line that it is about."""
    match request:
        case Lock(name, lease) | Campaign(name, lease):
            return line_key(name, lease)
        case Unlock(key):
            return key
        case Resign(leader):
            return leader.key


LINES = (b"lock/", b"elect/")
"""Nobody but those who lock and campaign touches keys that begin so."""
GUARDED = b"guard/"
"""Before the name of a lock or election: a key that only its holder writes, by its fencing token."""

Ask = LeaseGrant | LeaseRevoke | KeepAlive | ListLeases | Lock | Unlock | Campaign | Resign
Told = LeaseGrantResponse | LeaderKey | int | bytes | list[int] | None


@dataclass(slots=True)
class Call:
    """One request of this kind. ``error``: the text, if the state decided it (``Outcome.ERROR``)."""

    client: int
    node: int
    request: Ask
    invoked: int
    returned: int = 0
    outcome: Outcome = Outcome.UNKNOWN
    revision: int = 0
    told: Told = None
    error: str = ""

    def __str__(self) -> str:
        answer = f"ok @{self.revision} {self.told!r}" if self.outcome is Outcome.OK else self.outcome.value
        about = f"{self.request} → {answer}{self.error and f': {self.error}'}"
        return f"«client {self.client} via node {self.node} [{self.invoked}..{self.returned}] {about}»"


class Look(NamedTuple):
    """A list of all leases after the faults and the clients' end. ``calm_since``: from there on until the
    list was asked for, all members served and one of them led."""

    listing: Call
    calm_since: float


@dataclass(slots=True)
class Coordination:
    calls: list[Call] = field(default_factory=list)
    # By stamp, in seconds: before a request was sent, after an answer was read.
    moments: array[float] = field(default_factory=lambda: array("d", [0.0]))
    looks: list[Look] = field(default_factory=list)
    candidates_look_again: bool = True  # see ``Target``
