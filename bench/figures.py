"""What a run gives: numbers that know how they are printed and whether more of them is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    name: str
    style: str
    more_is_better: bool = False

    def ratio_is(self, ratio: float) -> float:
        """How many times as good as etcd: 2 for twice the throughput, and for half the latency."""
        return ratio if self.more_is_better else 1 / ratio


Run = Mapping[Figure, float]

PER_SECOND = Figure("per second", ",.0f", more_is_better=True)
P50 = Figure("p50 ms", ".2f")
P99 = Figure("p99 ms", ".1f")
RESIDENT = Figure("resident MiB", ",.0f")
ANONYMOUS = Figure("anonymous MiB", ",.0f")
SECONDS = Figure("seconds", ".2f")

FIGURES = {figure.name: figure for figure in (PER_SECOND, P50, P99, RESIDENT, ANONYMOUS, SECONDS)}
