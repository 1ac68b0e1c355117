"""One frozen class per RPC, with the field names of Figure 2.

Deviations from the figure, each for a reason:

* Request and response are separate one-way messages; they may be lost, doubled and reordered.
* ``Heartbeat`` is a message of its own rather than an empty AppendEntries, because it
  makes no claim about the log: its ``commit_index`` never exceeds what the follower is
  known to hold. Its ``ctx`` confirms ReadIndex rounds (thesis §6.4).
* ``AppendEntriesResponse`` carries a hint where the logs may agree (paper end of §5.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from raft.core.types import Entry


@dataclass(frozen=True, slots=True)
class RequestVote:
    source: int
    target: int
    term: int
    last_log_index: int
    last_log_term: int


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
    position at which the follower's log may still agree with the leader's."""

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


Message: TypeAlias = (
    RequestVote | RequestVoteResponse | AppendEntries | AppendEntriesResponse | Heartbeat | HeartbeatResponse
)
