"""Whether an hour of steady load was steady: its last quarter beside its second.

The first quarter is not judged: caches fill, and files reach their size.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MIB_SLACK = 4.0
WAL_MIB_SLACK = 32.0  # two segments: the log is a saw
FILES_SLACK = 8
MINUTES_MIN = 4  # one a quarter


class Node(NamedTuple):
    anonymous_mib: float
    wal_mib: float
    state_mib: float
    open_files: int


class Latency(NamedTuple):
    p50_ms: float
    p99_ms: float
    max_ms: float  # not judged: it is one request


class Minute(NamedTuple):
    number: int
    put: Latency
    get: Latency
    failed: int
    nodes: Sequence[Node]  # at its end


class Verdict(NamedTuple):
    steady: bool
    told: str


def judge(minutes: Sequence[Minute]) -> list[Verdict]:
    """A verdict on each thing that is not to grow, and on failed requests."""
    second, last = quarter(minutes, 1), quarter(minutes, 3)
    failed = sum(minute.failed for minute in minutes)
    return [
        Verdict(failed == 0, f"{failed} requests failed"),
        *_latencies(second, last),
        *(verdict for i in range(len(minutes[0].nodes)) for verdict in _node(i, second, last)),
    ]


def quarter(minutes: Sequence[Minute], number: int) -> Sequence[Minute]:
    """Counted from 0."""
    return minutes[number * len(minutes) // 4 : (number + 1) * len(minutes) // 4]


def _latencies(second: Sequence[Minute], last: Sequence[Minute]) -> Iterator[Verdict]:
    for kind in ("put", "get"):
        for percentile, factor, slack in (("p50_ms", 1.25, 0.2), ("p99_ms", 1.5, 2.0)):
            before, after = (
                statistics.median(getattr(getattr(minute, kind), percentile) for minute in minutes)
                for minutes in (second, last)
            )
            yield grown(f"{kind} {percentile[:3]}", "ms", before, after, factor * before + slack)


def _node(i: int, second: Sequence[Minute], last: Sequence[Minute]) -> Iterator[Verdict]:
    before, after = ([minute.nodes[i] for minute in minutes] for minutes in (second, last))
    name = f"n{i + 1}"
    memory = statistics.median(node.anonymous_mib for node in before)
    memory_now = statistics.median(node.anonymous_mib for node in after)
    yield grown(f"{name} anonymous memory", "MiB", memory, memory_now, 1.1 * memory + MIB_SLACK)
    wal, wal_now = (max(node.wal_mib for node in nodes) for nodes in (before, after))
    yield grown(f"{name} log on disk, at most", "MiB", wal, wal_now, 1.1 * wal + WAL_MIB_SLACK)
    state, state_now = (max(node.state_mib for node in nodes) for nodes in (before, after))
    yield grown(f"{name} state on disk, at most", "MiB", state, state_now, 1.1 * state + MIB_SLACK)
    files, files_now = (max(node.open_files for node in nodes) for nodes in (before, after))
    yield grown(f"{name} open files, at most", "", files, files_now, files + FILES_SLACK)


def grown(what: str, unit: str, before: float, after: float, bound: float) -> Verdict:
    return Verdict(after <= bound, f"{what}: {before:.4g} → {after:.4g} {unit}".rstrip())
