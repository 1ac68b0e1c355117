"""One frozen class per RPC, with the field names of Figure 2.

Deviations from the figure and additions to it, each for a reason:

* Request and response are separate one-way messages; they may be lost, doubled and reordered.
* ``Heartbeat`` is a message of its own rather than an empty AppendEntries, because it
  makes no claim about the log: its ``commit_index`` never exceeds what the follower is
  known to hold. Its ``ctx`` confirms ReadIndex rounds (thesis §6.4).
* ``AppendEntriesResponse`` carries a hint where the logs may agree (paper end of §5.3).
* ``InstallSnapshot`` says only what the snapshot stands for; its content travels beside it, in
  whatever way the transport has, and the receiver steps the message when it has all of it.
* ``RequestPreVote`` (thesis 9.6) and ``TimeoutNow`` (thesis 3.10) are the thesis's.
* ``Propose`` and ``RequestReadIndex`` let a follower pass on what only the leader can do. A leader
  takes a ``Propose`` only in the term it was sent for and each context once, so that a
  doubled message is not proposed twice.

``term`` is the sender's current term, but for pre-votes: a request has the term that its
sender would campaign in, and so has the answer that grants it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from raft.core.types import Entry, SnapshotMeta


@dataclass(frozen=True, slots=True)
class RequestPreVote:
    source: int
    target: int
    term: int
    last_log_index: int
    last_log_term: int


@dataclass(frozen=True, slots=True)
class RequestPreVoteResponse:
    source: int
    target: int
    term: int
    vote_granted: bool


@dataclass(frozen=True, slots=True)
class RequestVote:
    """``leadership_transfer``: the leader itself asked for this election, so who follows it votes
    all the same (thesis 4.2.3)."""

    source: int
    target: int
    term: int
    last_log_index: int
    last_log_term: int
    leadership_transfer: bool = False


@dataclass(frozen=True, slots=True)
class RequestVoteResponse:
    source: int
    target: int
    term: int
    vote_granted: bool


@dataclass(frozen=True, slots=True)
class AppendEntries:
    source: int
    target: int
    term: int
    prev_log_index: int
    prev_log_term: int
    entries: tuple[Entry, ...]
    leader_commit: int


@dataclass(frozen=True, slots=True)
class AppendEntriesResponse:
    """``index`` is, on success, up to where the follower's log now equals the leader's; on
    failure, the prev_log_index that was refused. Only a failure uses the hint: the last
    position at which the follower's log may still agree with the leader's. Also answers
    InstallSnapshot."""

    source: int
    target: int
    term: int
    success: bool
    index: int
    hint_index: int = 0
    hint_term: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    source: int
    target: int
    term: int
    commit_index: int
    ctx: int  # the newest ReadIndex round asked for; 0 for none


@dataclass(frozen=True, slots=True)
class HeartbeatResponse:
    source: int
    target: int
    term: int
    ctx: int


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    source: int
    target: int
    term: int
    snapshot: SnapshotMeta


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    source: int
    target: int
    term: int


@dataclass(frozen=True, slots=True)
class Propose:
    """``ctx`` names the batch: it ascends within one ``life`` of the sender, from start to crash."""

    source: int
    target: int
    term: int
    life: int
    ctx: int
    data: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ProposeRefused:
    """Nothing of the batch was appended, nor will be."""

    source: int
    target: int
    term: int
    life: int
    ctx: int


@dataclass(frozen=True, slots=True)
class RequestReadIndex:
    source: int
    target: int
    term: int
    life: int
    ctx: int


@dataclass(frozen=True, slots=True)
class ReadIndexResponse:
    """``index`` None: the server asked does not lead."""

    source: int
    target: int
    term: int
    life: int
    ctx: int
    index: int | None


Message: TypeAlias = (
    RequestPreVote
    | RequestPreVoteResponse
    | RequestVote
    | RequestVoteResponse
    | AppendEntries
    | AppendEntriesResponse
    | Heartbeat
    | HeartbeatResponse
    | InstallSnapshot
    | TimeoutNow
    | Propose
    | ProposeRefused
    | RequestReadIndex
    | ReadIndexResponse
)
