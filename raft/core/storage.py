"""The durable part of the log, as the core reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from raft.core.errors import Compacted, Unavailable
from raft.core.types import ORIGIN, Entry, HardState, Membership, Position

ENTRY_OVERHEAD_BYTES = 128
"""What an entry costs in memory beside its data, roughly."""


class LogStorage(Protocol):
    """Reads only: writing is the driver's business."""

    @property
    def first_index(self) -> int:
        """Index of the first entry that is still there."""

    @property
    def last_index(self) -> int:
        """Index of the last entry, ``first_index - 1`` if there is none."""

    @property
    def snapshot(self) -> Position | None:
        """The position of the newest state that a follower can be sent; None if there is none yet."""

    def initial_state(self) -> tuple[HardState, Membership]:
        """The hard state, and the membership as of what the state machine has applied durably."""

    def term(self, index: int) -> int:
        """Term of the entry at ``index``, known from ``first_index - 1`` on.
        Raises Compacted or Unavailable."""

    def entries(self, low: int, high: int, max_bytes: int) -> Sequence[Entry]:
        """Entries in [low, high) up to ``max_bytes``, but at least one. Raises Compacted or Unavailable."""


class MemoryStorage:
    """The log since the last compaction, in memory; the write-ahead log has the durable copy."""

    def __init__(
        self,
        membership: Membership,
        hard_state: HardState | None = None,
        base: Position = ORIGIN,
        entries: Iterable[Entry] = (),
    ) -> None:
        self._membership = membership
        self._hard_state = hard_state or HardState()
        self._base = base
        self._entries: list[Entry] = []
        self._bytes = 0
        self.snapshot: Position | None = None
        self.append(list(entries))

    @property
    def first_index(self) -> int:
        return self._base.index + 1

    @property
    def last_index(self) -> int:
        return self._base.index + len(self._entries)

    @property
    def bytes(self) -> int:
        """Roughly what the entries held occupy in memory."""
        return self._bytes

    def initial_state(self) -> tuple[HardState, Membership]:
        return self._hard_state, self._membership

    def term(self, index: int) -> int:
        offset = index - self._base.index
        if offset == 0:
            return self._base.term
        self._check(index, index + 1)
        return self._entries[offset - 1].term

    def entries(self, low: int, high: int, max_bytes: int) -> Sequence[Entry]:
        self._check(low, high)
        start = low - self.first_index
        chosen = self._entries[start : start + high - low]
        return limit_bytes(chosen, max_bytes)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries; from the first of them on they replace what was there."""
        if not entries:
            return
        position = entries[0].index - self.first_index
        if not 0 <= position <= len(self._entries):
            raise Unavailable(
                f"entry {entries[0].index} does not continue a log that ends at {self.last_index}"
            )
        if position < len(self._entries):
            self._bytes -= _cost(self._entries[position:])
            del self._entries[position:]
        self._entries.extend(entries)
        self._bytes += _cost(entries)

    def set_hard_state(self, hard_state: HardState) -> None:
        self._hard_state = hard_state

    def compact(self, index: int) -> None:
        """Forget all entries up to and with ``index``, but remember its term."""
        if index <= self._base.index:
            return
        self._check(index, index + 1)
        count = index - self._base.index
        self._base = Position(index, self._entries[count - 1].term)
        self._bytes -= _cost(self._entries[:count])
        del self._entries[:count]

    def restore(self, position: Position) -> None:
        """Forget everything: the log begins anew after ``position``."""
        self._base = position
        self._entries.clear()
        self._bytes = 0

    def _check(self, low: int, high: int) -> None:
        if low < self.first_index:
            raise Compacted(f"entry {low} was compacted; the log begins at {self.first_index}")
        if high > self.last_index + 1:
            raise Unavailable(f"entry {high - 1} is beyond the log's end at {self.last_index}")


def limit_bytes(entries: Sequence[Entry], max_bytes: int) -> Sequence[Entry]:
    """The longest prefix whose data is at most ``max_bytes``, but at least one entry."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.data)
        if size > max_bytes and count > 0:
            return entries[:count]
    return entries


def _cost(entries: Sequence[Entry]) -> int:
    return sum([len(entry.data) for entry in entries]) + len(entries) * ENTRY_OVERHEAD_BYTES
