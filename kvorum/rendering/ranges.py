"""Ranges of keys that somebody has read, and the few that cover them all: pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from kvorum.messages import prefix_end

AFTER_ALL = b"\xff" * 64
"""Behind every key that anybody has. A range to the end of all keys, b"\\0" to etcd, is one to here."""


class Range(NamedTuple):
    """The keys from ``start`` on that are before ``end``. Half open, both are plain bytes."""

    start: bytes
    end: bytes

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self.start <= key < self.end


def of_key(key: bytes) -> Range:
    return Range(key, key + b"\0")


def of_prefix(prefix: bytes) -> Range:
    end = prefix_end(prefix)
    return Range(prefix or b"\0", AFTER_ALL if end == b"\0" else end)


def cover(ranges: Iterable[Range], count: int) -> set[Range]:
    """No more than ``count`` ranges in which all these are. What overlaps is joined; then, while there are
    too many, those two neighbours whose names have most in common: so the keys between, which nobody has
    read, are few."""
    joined: list[Range] = []
    for one in sorted(ranges):
        if joined and one.start <= joined[-1].end:
            joined[-1] = Range(joined[-1].start, max(joined[-1].end, one.end))
        else:
            joined.append(one)
    while len(joined) > count:
        at = max(range(1, len(joined)), key=lambda i: _in_common(joined[i - 1], joined[i]))
        joined[at - 1 : at + 1] = [Range(joined[at - 1].start, joined[at].end)]
    return set(joined)


def _in_common(one: Range, other: Range) -> int:
    pairs = zip(one.start, other.start, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
