"""The Markdown table: medians of both sides, ratios made per pair of neighbours, and the goals.

Latencies are those of an answer (of a transaction of 100 puts, say), or of an event at a watcher.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bench.figures import Figure, Run
from bench.goals import goal_of
from tests.common.builds import is_compiled
from tests.common.servers import ROOT

COLUMNS = ["work", "", "etcd", "kvorum", "kvorum / etcd (spread)", "goal (reach for)", ""]


class Row(NamedTuple):
    """What one work gave, in all its rounds: ``etcd[i]`` and ``kvorum[i]`` are neighbours."""

    name: str
    title: str
    figures: Sequence[Figure]
    runs: Mapping[str, Sequence[Run]]  # of each side

    def medians(self, figure: Figure) -> tuple[float, float]:
        """etcd's and kvorum's."""
        etcd, kvorum = (
            statistics.median(run[figure] for run in self.runs[side]) for side in ("etcd", "kvorum")
        )
        return etcd, kvorum

    def ratios(self, figure: Figure) -> list[float]:
        pairs = zip(self.runs["etcd"], self.runs["kvorum"], strict=True)
        return [ours[figure] / theirs[figure] for theirs, ours in pairs]


def heading() -> str:
    return line(COLUMNS) + "\n" + "|---" * len(COLUMNS) + "|"


def lines(row: Row) -> Iterator[str]:
    """One for each figure."""
    for figure in row.figures:
        ratios = row.ratios(figure)
        goal = goal_of(row.name, figure)
        yield line(
            [
                row.title,
                figure.name,
                *(format(median, figure.style) for median in row.medians(figure)),
                ratio_text(ratios, bold=goal is not None),
                str(goal or ""),
                goal.verdict(statistics.median(ratios)) if goal else "",
            ]
        )


def ratio_text(ratios: Sequence[float], bold: bool = False) -> str:
    median = f"{statistics.median(ratios):.2f}×"
    return f"{f'**{median}**' if bold else median} ({min(ratios):.2f}–{max(ratios):.2f})"


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def machine() -> str:
    """And which build of kvorum runs on it."""
    build = "kvorum compiled" if is_compiled() else "kvorum not compiled"
    return f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, {build}"


def commit() -> str:
    """Of this tree, with a + if it was changed since; the results that benchmarks write do not count."""
    head, changed = (
        subprocess.run(["git", *command], capture_output=True, text=True, cwd=ROOT, check=False).stdout
        for command in (
            ("rev-parse", "--short", "HEAD"),
            ("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"),
        )
    )
    return (head.strip() or "unknown") + ("+" if changed.strip() else "")
