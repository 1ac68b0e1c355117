"""Figures of durations."""

from __future__ import annotations

import pytest

from kvorum.load.measuring import Measured, figures, percentile


def test_figures() -> None:
    """Of a thousand values that are known."""
    found = figures(Measured(took=[number / 1000 for number in range(1000, 0, -1)], seconds=10.0))
    assert (found.count, found.per_second) == (1000, 100.0)
    assert (found.fastest, found.slowest) == (0.001, 1.0)
    assert (found.percentiles[50.0], found.percentiles[99.0], found.percentiles[99.9]) == (0.5, 0.99, 0.999)
    assert found.mean == pytest.approx(0.5005)
    assert found.stddev == pytest.approx(0.288675, abs=1e-6)


def test_of_few_values_the_percentiles_are_among_them() -> None:
    """The slowest of two is the 99th percentile, the faster one the median."""
    assert [percentile([1.0, 2.0], percent) for percent in (0, 50, 51, 99.9, 100)] == [
        1.0,
        1.0,
        2.0,
        2.0,
        2.0,
    ]


def test_nothing_measured_is_zero() -> None:
    """And no division by it."""
    assert figures(Measured(seconds=5.0)).per_second == 0.0
