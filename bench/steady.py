"""An hour of steady load on three nodes: does anything grow that should not?

    scripts/steady [--minutes 60] [--rate 500] [--put-share 0.5] [--keys 10000]

Puts overwrite a bounded number of keys, gets are linearizable; every minute the history is compacted
to a revision some thousands behind. Recorded per minute are latencies (from when a request was due,
see bench/paced.py), and of every node its anonymous memory, what its data directory has on disk, and
its open files. In the end the last quarter is judged beside the second (bench/judging.py); the exit
code is 1 if anything grew. docs/benchmarks/steady.md gets a table and a plot.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import plot, report
from bench.clusters import Side, one
from bench.filling import fill
from bench.judging import MINUTES_MIN, Latency, Minute, Node, Verdict, judge
from bench.memory import memory
from bench.paced import Paced, Schedule
from bench.results import DIRECTORY

NODES = 3
CONNECTIONS = 48
QUICK_MINUTES, QUICK_SECONDS = 8, 4


def main() -> None:
    options = parse_arguments()
    if options.into:
        plot.pyplot()  # better to fail now
    facts = describe(options)
    print("; ".join(facts) + "\n\n" + report.line(COLUMNS), flush=True)
    with tempfile.TemporaryDirectory(prefix="kvorum-steady-") as directory:
        minutes = []
        for minute in run(Path(directory), options):
            minutes.append(minute)
            print(report.line(cells(minute)), flush=True)
    verdicts = judge(minutes)
    if options.into:
        write(options.into, facts, minutes, verdicts)
    print("\n" + "\n".join(told(verdicts)))
    sys.exit(not all(verdict.steady for verdict in verdicts))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/steady", description="Steady load, and what grows.")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--rate", type=float, default=500, help="requests a second, over all nodes")
    parser.add_argument("--put-share", type=float, default=0.5, help="of the requests; the others are gets")
    parser.add_argument("--keys", type=int, default=10_000, help="that are overwritten")
    parser.add_argument("--behind", type=int, default=5000, help="revisions that a compaction leaves")
    parser.add_argument("--into", type=Path, help="the page's directory (docs/benchmarks; quick: none)")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_MINUTES} 'minutes' of {QUICK_SECONDS} s: does it work?"
    )
    options = parser.parse_args()
    options.seconds = QUICK_SECONDS if options.quick else 60
    if options.quick:
        options.minutes = QUICK_MINUTES
    else:
        options.into = options.into or DIRECTORY
    if options.minutes < MINUTES_MIN:
        parser.error(f"fewer than {MINUTES_MIN} minutes cannot be judged")
    return options


def describe(options: argparse.Namespace) -> list[str]:
    return [
        report.machine(),
        f"commit {report.commit()}, {datetime.date.today().isoformat()}",
        f"{NODES} nodes on loopback, fsync on",
        f"{options.rate:g} requests a second over all nodes, {options.put_share:.0%} puts of 128 bytes,"
        f" else linearizable gets, of {options.keys:,} keys",
        f"every {'minute' if options.seconds == 60 else f'{options.seconds} s'} a compaction that leaves"
        f" {options.behind:,} revisions",
    ]


def run(directory: Path, options: argparse.Namespace) -> Iterator[Minute]:
    with one("kvorum", directory, NODES) as side:
        fill(side, options.keys)
        start = time.monotonic()
        schedule = Schedule(options.rate, options.put_share, start, random.Random())
        ports = [member.port for member in side.members]
        with contextlib.closing(Paced(ports, CONNECTIONS, schedule, options.keys)) as load:
            for number in range(1, options.minutes + 1):
                if load.revision > options.behind:
                    load.compact(load.revision - options.behind)
                measured = load.run(start + number * options.seconds)
                put, get = (latency(measured.latencies[kind]) for kind in ("put", "get"))
                yield Minute(number, put, get, measured.failed, nodes(side, directory / "kvorum"))
            used = time.process_time() / (time.monotonic() - start)
            print(f"the load generator used {used:.0%} of a core", file=sys.stderr)


def latency(seconds: Sequence[float]) -> Latency:
    if len(seconds) < 2:
        raise SystemExit("no request was answered for a whole minute")
    cuts = statistics.quantiles(seconds, n=100)
    return Latency(1000 * cuts[49], 1000 * cuts[98], 1000 * max(seconds))


def nodes(side: Side, directory: Path) -> list[Node]:
    """Each as it is now."""
    return [
        Node(
            memory([member.process.pid]).anonymous_mib,
            on_disk_mib(directory / f"n{i}" / "wal"),
            on_disk_mib(directory / f"n{i}" / "state"),
            len(os.listdir(f"/proc/{member.process.pid}/fd")),
        )
        for i, member in enumerate(side.members, 1)
    ]


def on_disk_mib(directory: Path) -> float:
    """Blocks, not lengths: files may have holes."""
    blocks = 0
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a segment may just have been removed
            blocks += path.stat().st_blocks
    return blocks * 512 / 2**20


COLUMNS = [
    "minute",
    *(f"{kind} {figure}" for kind in ("put", "get") for figure in ("p50 ms", "p99 ms", "max ms")),
    "anonymous MiB of each node",
    "log MiB",
    "state MiB",
    "open files",
]


def cells(minute: Minute) -> list[str]:
    latencies = [f"{value:.1f}" for kind in (minute.put, minute.get) for value in kind]
    of_nodes = [
        " / ".join(f"{getattr(node, name):.0f}" for node in minute.nodes)
        for name in ("anonymous_mib", "wal_mib", "state_mib", "open_files")
    ]
    return [str(minute.number), *latencies, *of_nodes]


def told(verdicts: Sequence[Verdict]) -> list[str]:
    summary = "Steady." if all(verdict.steady for verdict in verdicts) else "Not steady."
    return [
        f"{summary} The second quarter → the last:",
        "",
        *(f"- {verdict.told}{'' if verdict.steady else ': **grew**'}" for verdict in verdicts),
    ]


def page(facts: Sequence[str], minutes: Sequence[Minute], verdicts: Sequence[Verdict]) -> str:
    """Every fifth minute of a long run, every one of a short."""
    shown = [minute for minute in minutes if len(minutes) < 20 or minute.number % 5 == 0]
    return "\n".join(
        [
            "# Steady load",
            "",
            "; ".join(facts) + ". Latencies count from when a request was due. Made by `scripts/steady`.",
            "",
            *told(verdicts),
            "",
            report.line(COLUMNS),
            "|---" * len(COLUMNS) + "|",
            *(report.line(cells(minute)) for minute in shown),
            "",
            "![Latencies, memory, files over time](steady.svg)",
            "",
        ]
    )


def write(into: Path, facts: Sequence[str], minutes: Sequence[Minute], verdicts: Sequence[Verdict]) -> None:
    into.mkdir(parents=True, exist_ok=True)
    (into / "steady.md").write_text(page(facts, minutes, verdicts))
    plot.steady(into / "steady.svg", minutes)


if __name__ == "__main__":
    main()
