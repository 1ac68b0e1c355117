"""How cost grows: with keys, watchers, nodes and the size of values; kvorum, and beside it etcd.

    scripts/growth [--only keys|watchers|nodes|values] [--quick] [--most]

Each part has its own clusters, of one node where nodes are not what grows. A point is a run of each
kind: p50 at one connection, per second at several, the same for both sides, one after the other. One
run a point: these are curves, not comparisons (those are scripts/bench's). What was measured is kept in
docs/benchmarks/growth.json; growth.md and growth.svg are made from all that is there, so that a part
can be measured alone.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import plot, report
from bench.clusters import Side, both, one
from bench.curves import PARTS, Curves, Point, cells, heading, page
from bench.figures import P50, PER_SECOND
from bench.filling import VALUE_BYTES, fill
from bench.idle import idle_watchers
from bench.load import Load, wrk
from bench.results import DIRECTORY
from bench.watchers import watch

SECONDS, QUICK_SECONDS = 5, 1
CONNECTIONS = 64
CONNECTIONS_OF_VALUES = 16  # 64 requests of a mebibyte each would measure memory
FEW = 10_000
VALUE_KEYS = 64
KEYS = (1_000, 10_000, 100_000, 1_000_000)
MOST_KEYS = 10_000_000  # without etcd, which would want some ten gigabytes of memory
WATCHERS = (1, 10, 100, 1_000, 10_000)
NODES = (1, 3, 5, 7)
VALUES = (128, 1 << 10, 16 << 10, 128 << 10, 1 << 20)
QUICK = {"keys": 2, "watchers": 5, "nodes": 2, "values": 3}  # so many of the points


@dataclass(frozen=True)
class Conditions:
    seconds: int
    quick: bool
    most: bool

    def points(self, part: str, sizes: Sequence[int]) -> Sequence[int]:
        return sizes[: QUICK[part]] if self.quick else sizes


def main() -> None:
    options = parse_arguments()
    conditions = Conditions(QUICK_SECONDS if options.quick else SECONDS, options.quick, options.most)
    if options.into:
        plot.pyplot()  # better to fail now
    made = f"{report.machine()}; commit {report.commit()}, {datetime.date.today().isoformat()}"
    for part in [options.only] if options.only else list(PARTS):
        print("\n" + heading(PARTS[part]), flush=True)
        points = []
        for point in MEASURES[part](conditions):
            print(report.line(cells(PARTS[part], point)), flush=True)
            points.append(point)
        if options.into:
            keep(options.into, part, Curves(made, points))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/growth", description="How cost grows.")
    parser.add_argument("--only", choices=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="the first points only, a second each")
    parser.add_argument("--most", action="store_true", help=f"also {MOST_KEYS:,} keys, of kvorum alone")
    parser.add_argument("--into", type=Path, help="the page's directory (docs/benchmarks; quick: none)")
    options = parser.parse_args()
    if not options.quick:
        options.into = options.into or DIRECTORY
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed: apt-get install wrk")
    return options


def keep(into: Path, part: str, curves: Curves) -> None:
    """Beside what is kept of the other parts."""
    into.mkdir(parents=True, exist_ok=True)
    path = into / "growth.json"
    kept = {}
    if path.exists():
        kept = {name: Curves.from_data(data) for name, data in json.loads(path.read_text()).items()}
    kept = {name: curves if name == part else kept[name] for name in PARTS if name == part or name in kept}
    path.write_text(json.dumps({name: one.data() for name, one in kept.items()}, indent=1) + "\n")
    (into / "growth.md").write_text(page(kept))
    plot.growth(into / "growth.svg", kept)


def measure_keys(conditions: Conditions) -> Iterator[Point]:
    with temporary() as directory, both(directory, 1, 100, 1000) as sides:
        there = 0
        for keys in conditions.points("keys", KEYS):
            for side in sides:
                fill(side, keys, first=there)
            there = keys
            for side in sides:
                yield Point(keys, side.name, puts_and_gets(side, keys, conditions))
    if conditions.most:
        with temporary() as directory, one("kvorum", directory, 1) as side:
            fill(side, MOST_KEYS)
            yield Point(MOST_KEYS, side.name, puts_and_gets(side, MOST_KEYS, conditions))


def measure_watchers(conditions: Conditions) -> Iterator[Point]:
    with temporary() as directory, both(directory, 1, 100, 1000) as sides:
        for side in sides:
            fill(side, FEW)
        for watchers in conditions.points("watchers", WATCHERS):
            for side in sides:
                with idle_watchers(side, watchers):
                    figures = puts_and_gets(side, FEW, conditions)
                events = watch(side, watchers, lambda seconds, _: seconds >= conditions.seconds)
                yield Point(watchers, side.name, {**figures, "events": events.per_second})


def measure_nodes(conditions: Conditions) -> Iterator[Point]:
    """One side at a time: fourteen nodes on some cores would measure each other's heartbeats."""
    for nodes in conditions.points("nodes", NODES):
        for name in ("etcd", "kvorum"):
            with temporary() as directory, one(name, directory, nodes) as side:
                fill(side, FEW)
                yield Point(nodes, name, puts_and_gets(side, FEW, conditions))


def measure_values(conditions: Conditions) -> Iterator[Point]:
    for size in conditions.points("values", VALUES):
        with temporary() as directory, both(directory, 1, 100, 1000) as sides:
            for side in sides:
                fill(side, VALUE_KEYS, value_bytes=size)
                yield Point(
                    size,
                    side.name,
                    puts_and_gets(side, VALUE_KEYS, conditions, size, CONNECTIONS_OF_VALUES),
                )


MEASURES: dict[str, Callable[[Conditions], Iterator[Point]]] = {
    "keys": measure_keys,
    "watchers": measure_watchers,
    "nodes": measure_nodes,
    "values": measure_values,
}


def puts_and_gets(
    side: Side,
    keys: int,
    conditions: Conditions,
    value_bytes: int = VALUE_BYTES,
    connections: int = CONNECTIONS,
) -> dict[str, float]:
    """Gets are linearizable. Puts come last: they add to the history."""
    figures: dict[str, float] = {}
    for kind in ("get", "put"):
        alone = wrk(side, Load(kind, 1, keys, value_bytes), conditions.seconds)
        many = wrk(side, Load(kind, connections, keys, value_bytes), conditions.seconds)
        figures |= {f"{kind} p50": alone[P50], f"{kind}s": many[PER_SECOND]}
    return figures


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kvorum-growth-") as directory:
        yield Path(directory)


if __name__ == "__main__":
    main()
