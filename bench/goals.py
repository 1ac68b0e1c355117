"""The goals of issue 5, for three nodes: how many times as good as etcd a row is to be.

For a throughput, 2 is twice etcd's; for a latency, a memory or a time, half of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import ANONYMOUS, P50, P99, PER_SECOND, RESIDENT, SECONDS, Figure

FRACTIONS = {1.0: "1", 1.5: "⅔", 2.0: "½", 3.0: "⅓", 4.0: "¼", 8.0: "⅛"}
FLAT = 1.25  # a restart with many keys may take this many times as long as with few


@dataclass(frozen=True)
class Goal:
    works: tuple[str, ...]  # their names
    figure: Figure
    least: float
    reach: float | None  # None: what to reach for is not a ratio

    def __str__(self) -> str:
        """As bounds on kvorum / etcd: ``≥ 2× (4×)``, ``≤ ½× (⅓×)``."""
        bounds = [bound for bound in (self.least, self.reach) if bound is not None]
        if self.figure.more_is_better:
            texts = [f"{bound:g}×" for bound in bounds]
        else:
            texts = [f"{FRACTIONS[bound]}×" for bound in bounds]
        sign = "≥" if self.figure.more_is_better else "≤"
        return f"{sign} {texts[0]}" + "".join(f" ({text})" for text in texts[1:])

    def verdict(self, ratio: float) -> str:
        """Of a median kvorum / etcd."""
        times = self.figure.ratio_is(ratio)
        if times < self.least:
            return "missed"
        return "reached" if self.reach is not None and times >= self.reach else "met"


GOALS: Sequence[Goal] = [
    Goal(("put 1",), P50, 1, 1.5),
    Goal(("put 64", "put 256"), PER_SECOND, 2, 4),
    Goal(("put 64",), P99, 2, 3),
    Goal(("get 64", "get 256"), PER_SECOND, 1.5, 3),
    Goal(("serializable 64", "serializable 256"), PER_SECOND, 1.5, 4),
    Goal(("txn 1", "txn 16"), PER_SECOND, 2, 3),
    Goal(("watch 1000",), PER_SECOND, 4, 8),
    Goal(("memory",), RESIDENT, 4, 8),
    Goal(("many memory",), ANONYMOUS, 4, 8),
    Goal(("many restart",), SECONDS, 2, None),  # to reach for: as fast as with few keys
    Goal(("range", "many range"), PER_SECOND, 1.5, 3),
    Goal(("many mixed",), P99, 2, 3),
]


def goal_of(work: str, figure: Figure) -> Goal | None:
    return next((goal for goal in GOALS if work in goal.works and goal.figure == figure), None)


def flatness(many_seconds: float, few_seconds: float) -> str:
    """Whether a restart takes the same time with many keys as with few."""
    return "flat" if many_seconds <= FLAT * few_seconds else "not flat"
