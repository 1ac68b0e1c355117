"""One follower as the leader sees it (Figure 2, "volatile state on leaders")."""

from __future__ import annotations

import enum
from collections import deque


class ProgressState(enum.Enum):
    PROBE = "probe"  # where the logs agree is unknown: one AppendEntries at a time
    REPLICATE = "replicate"  # known: AppendEntries are pipelined, next_index runs ahead
    SNAPSHOT = "snapshot"  # it needs what was compacted: a snapshot is under way, nothing else is sent


class Progress:
    __slots__ = (
        "_inflight",
        "inflight_bytes",
        "inflight_bytes_max",
        "inflight_max",
        "match_index",
        "may_ask",
        "may_fall_back",
        "next_index",
        "paused",
        "recently_active",
        "snapshot_index",
        "state",
        "told_commit",
    )

    def __init__(
        self, next_index: int, inflight_max: int, inflight_bytes_max: int, match_index: int = 0
    ) -> None:
        self.match_index = match_index  # known to be in the follower's durable log
        self.next_index = next_index  # match_index < next_index
        self.state = ProgressState.PROBE
        self.paused = False  # a probe is under way
        # Once per heartbeat each: ask whether what was sent has arrived; give up a pipeline over a refusal.
        self.may_ask = self.may_fall_back = True
        self.told_commit = 0  # the commit index last sent; it may have been lost
        self.snapshot_index = 0  # of the snapshot under way
        self.recently_active = True  # it was heard of since the last check of the quorum
        self.inflight_max = inflight_max
        self.inflight_bytes_max = inflight_bytes_max
        self.inflight_bytes = 0
        # (last index, bytes) of each AppendEntries under way, ascending
        self._inflight: deque[tuple[int, int]] = deque()

    @property
    def may_send(self) -> bool:
        if self.state is ProgressState.REPLICATE:
            return len(self._inflight) < self.inflight_max and self.inflight_bytes < self.inflight_bytes_max
        return self.state is ProgressState.PROBE and not self.paused

    @property
    def inflight(self) -> int:
        return len(self._inflight)

    def sent(self, last_index: int, size: int) -> None:
        """An AppendEntries with entries up to ``last_index`` left, ``size`` bytes of them."""
        if self.state is ProgressState.PROBE:
            self.paused = True
        else:
            self.next_index = last_index + 1
            self._inflight.append((last_index, size))
            self.inflight_bytes += size

    def sent_snapshot(self, index: int) -> None:
        """A snapshot that stands for everything up to ``index`` left."""
        self.state = ProgressState.SNAPSHOT
        self.snapshot_index = index
        self._forget_inflight()

    def succeeded(self, index: int) -> bool:
        """The follower holds everything up to ``index``. Returns whether that is news."""
        news = index > self.match_index
        self.match_index = max(self.match_index, index)
        self.next_index = max(self.next_index, index + 1)
        if self.state is ProgressState.PROBE or (
            self.state is ProgressState.SNAPSHOT and self.match_index >= self.snapshot_index
        ):
            self._replicate()
        while self._inflight and self._inflight[0][0] <= index:
            self.inflight_bytes -= self._inflight.popleft()[1]
        return news

    def failed(self, refused_index: int, next_index: int) -> bool:
        """The follower refused prev_log_index ``refused_index``; ``next_index`` is the better guess.
        Returns False for an answer to an older question."""
        if self.state is ProgressState.SNAPSHOT:
            return False
        if self.state is ProgressState.REPLICATE:
            # Where messages overtake each other, each refusal would send a whole window anew, and those
            # bring more refusals than they answer: a storm (found by simulation, seed 10433).
            if refused_index <= self.match_index or not self.may_fall_back:
                return False
            self.may_fall_back = False
            self.next_index = self.match_index + 1
        else:
            if refused_index != self.next_index - 1:
                return False
            self.next_index = max(min(refused_index, next_index), self.match_index + 1)
        self._probe()
        return True

    def snapshot_ended(self, *, arrived: bool) -> None:
        """The transfer of the snapshot is over. One that arrived was perhaps installed: the next
        heartbeat's answer lets a probe behind it find out."""
        if self.state is not ProgressState.SNAPSHOT:
            return
        self.next_index = max(self.match_index, self.snapshot_index if arrived else 0) + 1
        self._probe()
        self.paused = True

    def _probe(self) -> None:
        self.state = ProgressState.PROBE
        self.paused = False
        self._forget_inflight()

    def _replicate(self) -> None:
        self.state = ProgressState.REPLICATE
        self.paused = False
        self.next_index = self.match_index + 1

    def _forget_inflight(self) -> None:
        self._inflight.clear()
        self.inflight_bytes = 0
