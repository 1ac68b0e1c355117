"""What a core is told about itself and its limits."""

from __future__ import annotations

import random
from dataclasses import dataclass

from raft.core.types import NO_MEMBER


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one server. Times are in ticks; whoever calls ``tick()`` decides how long one is."""

    id: int
    rng: random.Random  # the only source of chance: randomised election timeouts
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    pre_vote: bool = True  # ask before raising the term (thesis 9.6)
    # One AppendEntries carries about this much, but always at least one entry.
    append_bytes_max: int = 1 << 20
    # Under way to one follower before its acknowledgements are awaited: AppendEntries, and their bytes.
    inflight_max: int = 256
    inflight_bytes_max: int = 16 << 20
    # Proposals beyond this much that is not committed yet are dropped, unless there is nothing else.
    uncommitted_bytes_max: int = 64 << 20
    # A learner that lacks more entries than this is not promoted.
    promotion_lag_max: int = 1000

    def __post_init__(self) -> None:
        if self.id == NO_MEMBER:
            raise ValueError("Config.id is 0, which means nobody: expected the member's id.")
        if self.heartbeat_ticks < 1:
            raise ValueError(f"heartbeat_ticks is {self.heartbeat_ticks}: expected 1 or more.")
        if self.election_ticks <= self.heartbeat_ticks:
            raise ValueError(
                f"election_ticks is {self.election_ticks}: expected more than heartbeat_ticks"
                f" ({self.heartbeat_ticks}), or followers would campaign between two heartbeats."
            )
        limits = ("append_bytes_max", "inflight_max", "inflight_bytes_max", "uncommitted_bytes_max")
        for name in limits:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more.")
