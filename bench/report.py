"""The Markdown table: medians of both sides, and ratios made per pair of neighbours.

Latencies are those of an answer (of a transaction of 100 puts, say), or of an event at a watcher.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence

from bench.load import Run, Work
from tests.common.servers import ROOT

COLUMNS = [
    "work",
    "connections",
    "etcd /s",
    "kvorum /s",
    "ratio (spread)",
    "etcd p50 ms",
    "kvorum p50 ms",
    "etcd p99 ms",
    "kvorum p99 ms",
    "p99 ratio (spread)",
    "etcd MiB",
    "kvorum MiB",
]


def heading() -> str:
    return line(COLUMNS) + "\n" + "|---" * len(COLUMNS) + "|"


def row(work: Work, theirs: Sequence[Run], ours: Sequence[Run]) -> str:
    def medians(field: str, style: str) -> list[str]:
        return [
            format(statistics.median(getattr(run, field) for run in runs), style) for runs in (theirs, ours)
        ]

    return line(
        [
            work.title,
            str(work.connections),
            *medians("per_second", ",.0f"),
            ratios([b.per_second / a.per_second for a, b in zip(theirs, ours, strict=True)], bold=True),
            *medians("p50_ms", ".2f"),
            *medians("p99_ms", ".1f"),
            ratios([b.p99_ms / a.p99_ms for a, b in zip(theirs, ours, strict=True)]),
            *medians("resident_mib", ".0f"),
        ]
    )


def ratios(values: Sequence[float], bold: bool = False) -> str:
    median = f"{statistics.median(values):.2f}×"
    return f"{f'**{median}**' if bold else median} ({min(values):.2f}–{max(values):.2f})"


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def machine() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout.strip()
    system = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
    return f"{system}, commit {commit or 'unknown'}"
