"""The log as consensus sees it: a durable part behind a ``LogStorage``, and a tail in memory.

    storage                          tail (not durable yet)
    first_index ... durable_index | durable_index+1 ... handed_index ... last_index
                                     └ in a Ready, being written ┘

``commit_index`` and ``handing_index`` (up to where committed entries were handed out for
applying) only grow. Entries are handed out for applying only when they are committed
and durable here, so the state machine is never ahead of this server's own log.

While a snapshot is being installed (``installing``), the log is already the one behind it: it
begins after the snapshot's position, and nothing in it is handed out for applying.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from raft.core.errors import Compacted, InvariantViolated, Unavailable
from raft.core.storage import LogStorage, limit_bytes
from raft.core.types import Entry, Position

NO_LIMIT = 1 << 62


class RaftLog:
    def __init__(self, storage: LogStorage, commit_index: int, last_applied: int) -> None:
        self.storage = storage
        self.commit_index = commit_index
        self.last_applied = last_applied
        self.handing_index = last_applied
        self.durable_index = storage.last_index
        self.handed_index = storage.last_index
        self.installing: Position | None = None
        self._tail: list[Entry] = []
        # Of each Ready with entries that is being written: up to where they still stand.
        self._writing: deque[int] = deque()

    @property
    def first_index(self) -> int:
        return self.storage.first_index if self.installing is None else self.installing.index + 1

    @property
    def last_index(self) -> int:
        return self.durable_index + len(self._tail)

    @property
    def last_term(self) -> int:
        return self.term(self.last_index)

    def term(self, index: int) -> int:
        """Raises Compacted or Unavailable."""
        if index > self.durable_index:
            offset = index - self.durable_index - 1
            if offset >= len(self._tail):
                raise Unavailable(f"entry {index} is beyond the log's end at {self.last_index}")
            return self._tail[offset].term
        if self.installing is not None:
            if index < self.installing.index:
                raise Compacted(f"entry {index} lies before the snapshot at {self.installing}")
            return self.installing.term
        return self.storage.term(index)

    def has(self, index: int, term: int) -> bool:
        """Whether the log holds an entry at ``index`` with ``term`` (or the position before the first)."""
        try:
            return self.term(index) == term
        except (Compacted, Unavailable):
            return False

    def is_up_to_date(self, last_log_index: int, last_log_term: int) -> bool:
        """Whether a candidate's log is at least as up to date as this one (§5.4.1)."""
        return (last_log_term, last_log_index) >= (self.last_term, self.last_index)

    def entries(self, low: int, high: int, max_bytes: int = NO_LIMIT) -> tuple[Entry, ...]:
        """Entries in [low, high), at most ``max_bytes`` of data but at least one. Raises Compacted."""
        if low >= high:
            return ()
        boundary = self.durable_index + 1
        chosen: list[Entry] = []
        if low < boundary:
            if self.installing is not None:
                raise Compacted(f"entry {low} lies before the snapshot at {self.installing}")
            chosen.extend(self.storage.entries(low, min(high, boundary), max_bytes))
            if len(chosen) < min(high, boundary) - low:
                return tuple(chosen)
        if high > boundary:
            start = max(low, boundary) - boundary
            chosen.extend(self._tail[start : high - boundary])
        return tuple(limit_bytes(chosen, max_bytes))

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries at the end, as a leader does."""
        self._tail.extend(entries)

    def merge(self, prev_log_index: int, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Take over a leader's entries after ``prev_log_index``, which matches (§5.3): what is
        there already stays, a conflicting entry and all that follow it go. Returns those that
        were added; the first of them tells from where on the log changed."""
        for position, entry in enumerate(entries):
            if entry.index > self.last_index or self.term(entry.index) != entry.term:
                self._truncate(entry.index, entry)
                added = entries[position:]
                self._tail.extend(added)
                return added
        return ()

    def _truncate(self, index: int, because: Entry) -> None:
        """Drop everything from ``index`` on."""
        if index > self.last_index:
            return
        if index <= self.commit_index:
            raise InvariantViolated(
                f"Leader Completeness: entry {because.index}@{because.term} conflicts with committed"
                f" entry {index}@{self.term(index)} (commit index {self.commit_index})"
            )
        if index <= self.durable_index:
            self._tail.clear()
            self.durable_index = index - 1
        else:
            del self._tail[index - self.durable_index - 1 :]
        self.handed_index = min(self.handed_index, index - 1)
        self._writing = deque(min(last, index - 1) for last in self._writing)

    def restore(self, position: Position) -> None:
        """A snapshot up to ``position`` takes the place of the whole log (Figure 13, rule 7)."""
        self._tail.clear()
        self._writing = deque(0 for _ in self._writing)
        self.installing = position
        self.durable_index = self.handed_index = position.index
        self.commit_index = self.handing_index = position.index

    def commit_to(self, index: int) -> None:
        """Raise the commit index; it never falls."""
        if index <= self.commit_index:
            return
        if index > self.last_index:
            raise InvariantViolated(f"commit index {index} is beyond the log's end at {self.last_index}")
        self.commit_index = index

    def take_unhanded(self) -> tuple[Entry, ...]:
        """Entries that are to be made durable and were in no Ready yet."""
        entries = tuple(self._tail[self.handed_index - self.durable_index :])
        if entries:
            self.handed_index = self.last_index
            self._writing.append(self.last_index)
        return entries

    @property
    def has_committed(self) -> bool:
        """Whether ``take_committed`` would bring something."""
        return self.installing is None and min(self.commit_index, self.durable_index) > self.handing_index

    def take_committed(self) -> tuple[Entry, ...]:
        """Entries that are committed and durable and were not handed out yet."""
        if not self.has_committed:
            return ()
        until = min(self.commit_index, self.durable_index)
        chosen = self.entries(self.handing_index + 1, until + 1)
        self.handing_index = until
        return chosen

    def made_durable(self) -> None:
        """The entries of the oldest Ready with entries are on disk and in the storage. Those that a
        conflict or a snapshot has replaced since do not count, even if they have come back meanwhile:
        what stands now is in a later Ready, which may be written over by one in between."""
        last = self._writing.popleft()
        if last > self.durable_index:
            del self._tail[: last - self.durable_index]
            self.durable_index = last

    def installed(self, position: Position) -> None:
        """The snapshot up to ``position`` is durable here, and the storage begins behind it."""
        if self.installing == position:
            self.installing = None

    def applied(self, index: int) -> None:
        if not self.last_applied <= index <= self.handing_index:
            raise InvariantViolated(
                f"State Machine Safety: applied {index}, but {self.last_applied} was applied before"
                f" and only {self.handing_index} was handed out"
            )
        self.last_applied = index

    def agreement_hint(self, index: int, term: int) -> Position:
        """The last position at or before ``index`` whose term is at most ``term``: where a log that
        has ``term`` at ``index`` may still agree with this one. Spares a probe per entry (end of §5.3)."""
        index = min(index, self.last_index)
        while index > 0:
            try:
                found = self.term(index)
            except Compacted:
                return Position(index, 0)
            if found <= term:
                return Position(index, found)
            index -= 1
        return Position(0, 0)
