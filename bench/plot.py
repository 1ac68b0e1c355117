"""Plots as SVG, the same bytes for the same figures. Only what writes docs/benchmarks needs matplotlib."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.curves import PARTS, Curves
from bench.goals import goal_of
from bench.judging import Minute
from bench.report import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

GOOD, BAD, BETTER = "#2a7f3f", "#c0392b", "#1f5fa8"
COLOURS = {"missed": BAD, "met": GOOD, "reached": BETTER}


def pyplot() -> Any:
    """matplotlib.pyplot, without a display, and deterministic."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {
            "svg.hashsalt": "kvorum",
            "svg.fonttype": "none",  # text as text: smaller, and it can be searched
            "font.size": 9,
            "font.family": "sans-serif",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
        }
    )
    import matplotlib.pyplot

    return matplotlib.pyplot


def save(drawing: Drawing, path: Path) -> None:
    drawing.savefig(path, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    pyplot().close(drawing)
    # matplotlib ends lines in blanks, which version control complains of.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def ratios(path: Path, rows: Sequence[Row]) -> None:
    """What has a goal: how many times as good as etcd, lowest and highest of the pairs as a bar, the
    goals as marks."""
    lines = [
        (row, figure, goal) for row in rows for figure in row.figures if (goal := goal_of(row.name, figure))
    ]
    drawing, axes = pyplot().subplots(figsize=(9, 1 + 0.32 * len(lines)), layout="constrained")
    for y, (row, figure, goal) in enumerate(lines):
        times = [figure.ratio_is(ratio) for ratio in row.ratios(figure)]
        colour = COLOURS[goal.verdict(statistics.median(row.ratios(figure)))]
        axes.plot([min(times), max(times)], [y, y], color=colour, linewidth=5, alpha=0.35)
        axes.plot(figure.ratio_is(statistics.median(row.ratios(figure))), y, "o", color=colour)
        axes.plot(goal.least, y, "|", color="black", markersize=13)
        if goal.reach is not None:
            axes.plot(goal.reach, y, "|", color="grey", markersize=13)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.set_yticks(range(len(lines)), [f"{row.title}: {figure.name}" for row, figure, _ in lines])
    axes.invert_yaxis()
    axes.set_xlabel("times as good as etcd (right is better); | at least, grey | to reach for")
    save(drawing, path)


def steady(path: Path, minutes: Sequence[Minute]) -> None:
    """Latencies, and of every node memory and what is on disk, minute by minute."""
    drawing, ((latencies, memory), (log, state)) = pyplot().subplots(
        2, 2, figsize=(9, 5.5), layout="constrained"
    )
    numbers = [minute.number for minute in minutes]
    for kind, colour in (("put", BAD), ("get", BETTER)):
        for percentile, style in (("p50_ms", "-"), ("p99_ms", ":")):
            values = [getattr(getattr(minute, kind), percentile) for minute in minutes]
            latencies.plot(numbers, values, style, color=colour, label=f"{kind} {percentile[:3]}")
    latencies.set_title("latency, ms")
    latencies.set_yscale("log")
    latencies.legend()
    panels = [(memory, "anonymous_mib", "anonymous memory"), (log, "wal_mib", "log on disk")]
    for axes, name, title in [*panels, (state, "state_mib", "state on disk")]:
        for i in range(len(minutes[0].nodes)):
            axes.plot(numbers, [getattr(minute.nodes[i], name) for minute in minutes], label=f"n{i + 1}")
        axes.set_title(f"{title}, MiB")
        axes.set_ylim(bottom=0)
        axes.legend()
    for axes in (log, state):
        axes.set_xlabel("minute")
    save(drawing, path)


def growth(path: Path, parts: Mapping[str, Curves]) -> None:
    """A panel each: p50 of puts and gets, kvorum's solid and etcd's dashed; events with watchers."""
    from matplotlib import ticker

    drawing, panels = pyplot().subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    for axes, (name, part) in zip(panels.flat, PARTS.items(), strict=True):
        figures = ["events"] if name == "watchers" else ["put p50", "get p50"]
        axes.set_title("events per second" if name == "watchers" else "p50 ms")
        axes.set_xlabel(part.what)
        if name not in parts:
            continue
        for side, style in (("kvorum", "-o"), ("etcd", "--.")):
            for figure, colour in zip(figures, (BAD, BETTER), strict=False):
                curve = parts[name].of(side, figure)
                axes.plot(*zip(*curve, strict=True), style, color=colour, label=f"{side} {figure}")
        axes.set_yscale("log")
        sizes = sorted({point.size for point in parts[name].points})
        if name != "nodes":
            axes.set_xscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.minorticks_off()
        axes.set_xticks(sizes, [short(size, 1024 if name == "values" else 1000) for size in sizes])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.legend()
    save(drawing, path)


def short(size: int, thousand: int) -> str:
    """1k, 1M; of bytes 1Ki, 1Mi."""
    unit = "i" if thousand == 1024 else ""
    for power, name in ((thousand**2, "M"), (thousand, "k" if thousand == 1000 else "K")):
        if size >= power:
            return f"{size / power:g}{name}{unit}"
    return str(size)
