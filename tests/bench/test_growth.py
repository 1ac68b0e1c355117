"""Curves of growth: kept, told as tables, drawn with short names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import plot
from bench.curves import PARTS, Curves, Point, page
from bench.growth import MEASURES, keep
from bench.plot import short

FIGURES = {"put p50": 0.5, "puts": 8000.0, "get p50": 0.25, "gets": 20000.0}
KEYS = Curves("2 cores", [Point(1000, "etcd", FIGURES), Point(1000, "kvorum", FIGURES)])


def test_every_part_is_measured() -> None:
    """A part that is told is one that can be measured, and the other way round."""
    assert MEASURES.keys() == PARTS.keys()


def test_curves_are_read_back_as_they_were() -> None:
    """Through JSON."""
    assert Curves.from_data(json.loads(json.dumps(KEYS.data()))) == KEYS


def test_a_part_is_a_table() -> None:
    """Every line has as many cells as the heading."""
    lines = [line for line in page({"keys": KEYS}).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert lines[-1] == "| 1,000 | kvorum | 0.50 | 8,000 | 0.25 | 20,000 |"


def test_parts_measured_alone_stand_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--only nodes leaves the keys as they were, and the parts keep their order."""
    monkeypatch.setattr(plot, "growth", lambda path, parts: None)
    keep(tmp_path, "nodes", Curves("then", [Point(3, "kvorum", FIGURES)]))
    keep(tmp_path, "keys", KEYS)
    keep(tmp_path, "nodes", Curves("now", [Point(5, "kvorum", FIGURES)]))
    text = (tmp_path / "growth.md").read_text()
    assert text.index("## Keys") < text.index("## Nodes")
    assert "then" not in text
    assert "| 5 | kvorum |" in text


def test_sizes_are_short() -> None:
    """Thousands of keys, kibibytes of values."""
    assert [short(size, 1000) for size in (7, 1_000, 10_000_000)] == ["7", "1k", "10M"]
    assert [short(size, 1024) for size in (128, 16 << 10, 1 << 20)] == ["128", "16Ki", "1Mi"]
