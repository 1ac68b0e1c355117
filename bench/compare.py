"""Beside real etcd: one node each or a cluster each, both with fsync on, the same load generator.

    scripts/bench                             every row, one node each
    scripts/bench --nodes 3                   clusters; all connections at the leader
    scripts/bench --nodes 3 --spread          … at all nodes alike
    scripts/bench --nodes 3 --only watch --quick
    scripts/bench --nodes 3 --write           into docs/benchmarks, with --only just those rows

The runs alternate (etcd, kvorum, etcd, kvorum, …), so that whatever else the machine does hits
both; ratios are made per pair of neighbours, and their median and spread are reported. Everything
is on one machine: load generator and nodes share its cores, and the network is loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import document, plot, report
from bench.clusters import Side, both
from bench.figures import Run
from bench.filling import fill
from bench.report import Row
from bench.works import FEW, Conditions, Stage, Work, pick, stages

PAIRS, SECONDS, MANY = 5, 5, 1_000_000
QUICK_PAIRS, QUICK_SECONDS, QUICK_MANY = 2, 2, 50_000


def main() -> None:
    options = parse_arguments()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    if options.write:
        plot.pyplot()  # better to fail now
    conditions = Conditions(
        options.nodes,
        options.spread,
        options.rounds,
        options.seconds,
        options.keys,
        options.heartbeat_interval,
        options.election_timeout,
    )
    picked = pick(stages(conditions.keys), options.only)
    facts = describe(conditions)
    print("; ".join([report.machine(), f"commit {report.commit()}", *facts]))
    print(f"\n{report.heading()}", flush=True)
    for stage in picked:
        for row in measure_stage(stage, conditions):
            print(*report.lines(row), sep="\n", flush=True)
            if options.write:  # each at once: what follows may fail
                document.write(conditions, facts, [row])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Kvorum beside real etcd.")
    parser.add_argument("--nodes", type=int, default=1, help="members of each cluster")
    parser.add_argument("--spread", action="store_true", help="connections over all nodes, not at the leader")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="rows with it in their name: 'put 64', 'txn', 'many'"
    )
    parser.add_argument("--keys", type=int, help=f"of the rows with many, in ten thousands ({MANY:,})")
    parser.add_argument("--rounds", type=int, help=f"pairs of runs per row ({PAIRS})")
    parser.add_argument("--seconds", type=int, help=f"length of one run ({SECONDS})")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"for a first look: {QUICK_PAIRS} pairs of {QUICK_SECONDS} s, {QUICK_MANY:,} keys are many",
    )
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks, besides printing it")
    parser.add_argument("--heartbeat-interval", type=int, default=100, metavar="MS")
    parser.add_argument("--election-timeout", type=int, default=1000, metavar="MS")
    options = parser.parse_args()
    options.rounds = options.rounds or (QUICK_PAIRS if options.quick else PAIRS)
    options.seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    options.keys = options.keys or (QUICK_MANY if options.quick else MANY)
    if options.keys % FEW:
        parser.error(f"--keys is to be a multiple of {FEW:,}, the keys of one range")
    return options


def describe(conditions: Conditions) -> list[str]:
    """How it is measured."""
    facts = [
        f"{conditions.nodes} node{'s' if conditions.nodes > 1 else ''} each on loopback, fsync on",
        f"heartbeat {conditions.heartbeat_ms} ms, election timeout {conditions.election_ms} ms",
        f"{conditions.rounds} pairs of runs a row, {conditions.seconds} s each",
        f"values of 128 bytes, {FEW:,} keys unless the row says more",
        "memory of all nodes together",
    ]
    if conditions.nodes > 1:
        facts += [
            "connections spread evenly over all nodes (a single one: at a follower)"
            if conditions.spread
            else "all connections at the leader",
            "watchers spread evenly over all nodes, their writer at the leader",
        ]
    return facts


def measure_stage(stage: Stage, conditions: Conditions) -> Iterator[Row]:
    if stage.anew:
        for work in stage.works:
            yield alternate(work, conditions)
        return
    with clusters(conditions) as sides:
        for side in sides:
            fill(side, stage.keys)
            stage.works[0].measure(side, conditions)  # once for nothing, so that all is warm
        for work in stage.works:
            yield alternate(work, conditions, sides)


@contextlib.contextmanager
def clusters(conditions: Conditions) -> Iterator[tuple[Side, Side]]:
    with (
        tempfile.TemporaryDirectory(prefix="kvorum-bench-") as directory,
        both(Path(directory), conditions.nodes, conditions.heartbeat_ms, conditions.election_ms) as sides,
    ):
        yield sides


def alternate(work: Work, conditions: Conditions, sides: tuple[Side, Side] | None = None) -> Row:
    """The rounds of a work; without ``sides`` each has clusters of its own."""
    runs: dict[str, list[Run]] = {"etcd": [], "kvorum": []}
    for _ in range(conditions.rounds):
        with contextlib.nullcontext(sides) if sides else clusters(conditions) as pair:
            for side in pair:
                runs[side.name].append(work.measure(side, conditions))
    return Row(work.name, work.title, work.figures, runs)


if __name__ == "__main__":
    main()
