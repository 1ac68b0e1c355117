"""What was measured, kept as JSON beside the pages that are made from it.

So a row can be measured again without the others. Rows that were measured under other conditions
are not kept: a table compares only what belongs together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import FIGURES, Run
from bench.report import Row

DIRECTORY = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"


@dataclass(frozen=True)
class Kept:
    row: Row
    commit: str
    date: str


@dataclass
class Results:
    conditions: Sequence[str]
    rows: dict[str, Kept] = field(default_factory=dict)  # by the work's name

    def ordered(self, names: Sequence[str]) -> list[Kept]:
        return [self.rows[name] for name in names if name in self.rows]


def load(path: Path, conditions: Sequence[str]) -> Results:
    """What was kept under these conditions, or nothing."""
    if path.exists():
        data = json.loads(path.read_text())
        if data["conditions"] == list(conditions):
            return Results(conditions, {name: _kept(name, kept) for name, kept in data["rows"].items()})
    return Results(conditions)


def save(path: Path, results: Results) -> None:
    rows = {
        name: {
            "title": kept.row.title,
            "commit": kept.commit,
            "date": kept.date,
            "figures": [figure.name for figure in kept.row.figures],
            **{side: [_names(run) for run in runs] for side, runs in kept.row.runs.items()},
        }
        for name, kept in results.rows.items()
    }
    data = {"conditions": list(results.conditions), "rows": rows}
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def _names(run: Run) -> dict[str, float]:
    return {figure.name: round(value, 4) for figure, value in run.items()}


def _kept(name: str, data: dict[str, Any]) -> Kept:
    runs = {
        side: [{FIGURES[figure]: value for figure, value in run.items()} for run in data[side]]
        for side in ("etcd", "kvorum")
    }
    figures = [FIGURES[figure] for figure in data["figures"]]
    return Kept(Row(name, data["title"], figures, runs), data["commit"], data["date"])
