"""docs/benchmarks/README.md: a section for each number of nodes, replaced when it is measured again."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from bench import plot, report, results
from bench.figures import SECONDS
from bench.goals import flatness
from bench.report import Row
from bench.results import DIRECTORY, Kept, Results
from bench.works import Conditions, stages


def write(conditions: Conditions, facts: Sequence[str], rows: Sequence[Row]) -> Path:
    """Keeps the rows, with the others of the same conditions, and writes the page and the plot."""
    name = f"{conditions.nodes}-node{'s' if conditions.nodes > 1 else ''}"
    name += "-spread" if conditions.spread else ""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    kept = results.load(DIRECTORY / f"{name}.json", [report.machine(), *facts])
    today, commit = datetime.date.today().isoformat(), report.commit()
    kept.rows |= {row.name: Kept(row, commit, today) for row in rows}
    results.save(DIRECTORY / f"{name}.json", kept)
    order = [work.name for stage in stages(conditions.keys) for work in stage.works]
    plot.ratios(DIRECTORY / f"{name}.svg", [one.row for one in kept.ordered(order)])
    page = DIRECTORY / "README.md"
    text = page.read_text() if page.exists() else "# Benchmarks\n"
    page.write_text(replace_section(text, title(conditions), section(kept, order, f"{name}.svg")))
    return page


def title(conditions: Conditions) -> str:
    nodes = "1 node" if conditions.nodes == 1 else f"{conditions.nodes} nodes"
    return f"{nodes}, connections at all nodes" if conditions.spread else nodes


def section(kept: Results, order: Sequence[str], svg: str) -> str:
    """Facts, table, plot."""
    rows = kept.ordered(order)
    table = [report.heading(), *(line for one in rows for line in report.lines(one.row))]
    when = "; ".join(sorted({f"commit {one.commit}, {one.date}" for one in rows}))
    return "\n\n".join(
        [
            "; ".join([*kept.conditions, when]) + ".",
            "\n".join(table),
            *restart_sentence({one.row.name: one.row for one in rows}),
            f"![Ratios, their spread and the goals]({svg})",
        ]
    )


def restart_sentence(rows: dict[str, Row]) -> list[str]:
    """Whether a restart takes longer with more keys, if both rows are there."""
    if not {"restart", "many restart"} <= rows.keys():
        return []
    few, many = rows["restart"].medians(SECONDS), rows["many restart"].medians(SECONDS)
    etcd, kvorum = (b / a for a, b in zip(few, many, strict=True))
    return [
        f"A restart with many keys takes kvorum {kvorum:.2f} times as long as one with few"
        f" (etcd {etcd:.2f} times): {flatness(many[1], few[1])}."
    ]


def replace_section(text: str, title: str, body: str) -> str:
    """``text`` with this body under the heading of this title: in its place, or at the end."""
    parts = text.rstrip("\n").split("\n## ")
    new = f"{title}\n\n{body}\n"
    for i, part in enumerate(parts[1:], 1):
        if part.split("\n", 1)[0] == title:
            parts[i] = new
            break
    else:
        parts.append(new)
    return "\n\n## ".join(part.rstrip("\n") for part in parts) + "\n"
