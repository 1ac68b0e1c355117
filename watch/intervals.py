"""Which ranges cover a key? Pure.

The ranges' ends cut the key space into segments, and each segment lists the ranges that
cover it: a query is one binary search. The table is made anew on the first query after a
change: many watches that come one after the other cost one rebuild.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Intervals(Generic[T]):
    """Half-open ranges [low, high) with a value each; ``high`` None has no end."""

    def __init__(self) -> None:
        self._ranges: dict[T, tuple[bytes, bytes | None]] = {}
        self._bounds: list[bytes] = []
        self._segments: list[tuple[T, ...]] = [()]
        self._stale = False

    def __len__(self) -> int:
        return len(self._ranges)

    def add(self, value: T, low: bytes, high: bytes | None) -> None:
        self._ranges[value] = (low, high)
        self._stale = True

    def remove(self, value: T) -> None:
        del self._ranges[value]
        self._stale = True

    def covering(self, key: bytes) -> Sequence[T]:
        """The values of all ranges that contain ``key``, in the order they were added."""
        if self._stale:
            self._rebuild()
        return self._segments[bisect_right(self._bounds, key)]

    def _rebuild(self) -> None:
        ends = {low for low, _ in self._ranges.values()}
        ends.update(high for _, high in self._ranges.values() if high is not None)
        self._bounds = sorted(ends)
        place = {bound: position + 1 for position, bound in enumerate(self._bounds)}
        lists: list[list[T]] = [[] for _ in range(len(self._bounds) + 1)]
        for value, (low, high) in self._ranges.items():
            last = len(lists) if high is None else place[high]
            for segment in range(place[low], last):
                lists[segment].append(value)
        self._segments = [tuple(one) for one in lists]
        self._stale = False
