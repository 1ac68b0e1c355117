"""What growth is measured as: points of two sides, kept as JSON, told as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench import report

# Of each part: what grows, its figures, and how they are told.
COMMON = {
    "put p50": "put p50 ms",
    "puts": "puts per second",
    "get p50": "get p50 ms",
    "gets": "gets per second",
}


@dataclass(frozen=True)
class Part:
    title: str
    what: str
    about: str
    figures: Mapping[str, str]


PARTS = {
    "keys": Part(
        "Keys",
        "keys",
        "One node, values of 128 bytes, put and got at random over all keys; p50 at 1 connection, per"
        " second at 64.",
        COMMON,
    ),
    "watchers": Part(
        "Watchers",
        "watchers",
        "One node, 10,000 keys. Puts and gets: while so many watch other keys, each one of its own. Events"
        " per second: while all watch one prefix.",
        {**COMMON, "events": "events per second"},
    ),
    "nodes": Part(
        "Nodes",
        "nodes",
        "All on this machine, which they share with the load; connections at the leader; 10,000 keys.",
        COMMON,
    ),
    "values": Part(
        "Values",
        "bytes",
        "One node, 64 keys; p50 at 1 connection, per second at 16. wrk makes and reads values on the same"
        " machine.",
        COMMON,
    ),
}


@dataclass(frozen=True)
class Point:
    size: int  # of what grows
    side: str
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Curves:
    """Of one part."""

    made: str  # where, of which commit, when
    points: Sequence[Point]

    def data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Curves:
        return cls(data["made"], [Point(**point) for point in data["points"]])

    def of(self, side: str, figure: str) -> list[tuple[int, float]]:
        """A curve."""
        return [(point.size, point.figures[figure]) for point in self.points if point.side == side]


def page(parts: Mapping[str, Curves]) -> str:
    """growth.md, of the parts that were measured."""
    sections = [section(PARTS[name], curves) for name, curves in parts.items()]
    return (
        "\n\n".join(
            [
                "# How cost grows",
                "Kvorum beside etcd, fsync on, one run a point. Made by `scripts/growth`;"
                " [README.md](README.md) says how load is made.",
                "![Four panels: keys, watchers, nodes, values](growth.svg)",
                *sections,
            ]
        )
        + "\n"
    )


def section(part: Part, curves: Curves) -> str:
    table = [heading(part), *(report.line(cells(part, point)) for point in curves.points)]
    return f"## {part.title}\n\n{part.about} {curves.made}.\n\n" + "\n".join(table)


def heading(part: Part) -> str:
    columns = [part.what, "", *part.figures.values()]
    return report.line(columns) + "\n" + "|---" * len(columns) + "|"


def cells(part: Part, point: Point) -> list[str]:
    figures = [figure_text(figure, point.figures[figure]) for figure in part.figures]
    return [f"{point.size:,}", point.side, *figures]


def figure_text(figure: str, value: float) -> str:
    return f"{value:.2f}" if figure.endswith("p50") else f"{value:,.0f}"
