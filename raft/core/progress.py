"""One follower as the leader sees it (Figure 2, "volatile state on leaders")."""

from __future__ import annotations

import enum
from collections import deque


class ProgressState(enum.Enum):
    PROBE = "probe"  # where the logs agree is unknown: one AppendEntries at a time
    REPLICATE = "replicate"  # known: AppendEntries are pipelined, next_index runs ahead


class Progress:
    __slots__ = ("_inflight", "inflight_max", "match_index", "next_index", "paused", "state", "told_commit")

    def __init__(self, next_index: int, inflight_max: int, match_index: int = 0) -> None:
        self.match_index = match_index  # known to be in the follower's durable log
        self.next_index = next_index  # match_index < next_index
        self.state = ProgressState.PROBE
        self.paused = False  # a probe is under way
        self.told_commit = 0  # the commit index last sent; it may have been lost
        self.inflight_max = inflight_max
        self._inflight: deque[int] = deque()  # last index of each AppendEntries under way, ascending

    @property
    def may_send(self) -> bool:
        if self.state is ProgressState.PROBE:
            return not self.paused
        return len(self._inflight) < self.inflight_max

    def sent(self, last_index: int) -> None:
        """An AppendEntries with entries up to ``last_index`` left."""
        if self.state is ProgressState.PROBE:
            self.paused = True
        else:
            self.next_index = last_index + 1
            self._inflight.append(last_index)

    def succeeded(self, index: int) -> bool:
        """The follower holds everything up to ``index``. Returns whether that is news."""
        news = index > self.match_index
        self.match_index = max(self.match_index, index)
        self.next_index = max(self.next_index, index + 1)
        if self.state is ProgressState.PROBE:
            self.state = ProgressState.REPLICATE
            self.paused = False
            self.next_index = self.match_index + 1
        while self._inflight and self._inflight[0] <= index:
            self._inflight.popleft()
        return news

    def failed(self, refused_index: int, next_index: int) -> bool:
        """The follower refused prev_log_index ``refused_index``; ``next_index`` is the better guess.
        Returns False for an answer to an older question."""
        if self.state is ProgressState.REPLICATE:
            if refused_index <= self.match_index:
                return False
            self.next_index = self.match_index + 1
        else:
            if refused_index != self.next_index - 1:
                return False
            self.next_index = max(min(refused_index, next_index), self.match_index + 1)
        self.state = ProgressState.PROBE
        self.paused = False
        self._inflight.clear()
        return True

    def heard(self) -> None:
        """A heartbeat was answered: the follower lives, so what was under way may be lost; let one
        more message go."""
        self.paused = False
        if self.state is ProgressState.REPLICATE and len(self._inflight) >= self.inflight_max:
            self._inflight.popleft()

    @property
    def inflight(self) -> int:
        return len(self._inflight)
