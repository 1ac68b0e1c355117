"""From durations to figures. All times are in seconds."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass
class Measured:
    """``took`` of what was answered; what was not is counted under its reason."""

    took: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    client_cpu: float = 0.0  # seconds of processor time that we ourselves used


@dataclass(frozen=True)
class Figures:
    count: int
    per_second: float
    mean: float
    stddev: float
    fastest: float
    slowest: float
    percentiles: dict[float, float]


def figures(measured: Measured) -> Figures:
    """Of the answers alone; all 0 where there was none."""
    took = sorted(measured.took)
    if not took:
        return Figures(0, 0.0, 0.0, 0.0, 0.0, 0.0, dict.fromkeys(PERCENTS, 0.0))
    return Figures(
        count=len(took),
        per_second=len(took) / measured.seconds if measured.seconds else 0.0,
        mean=statistics.fmean(took),
        stddev=statistics.pstdev(took),
        fastest=took[0],
        slowest=took[-1],
        percentiles={percent: percentile(took, percent) for percent in PERCENTS},
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The least of the values that as many percent do not exceed."""
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]
