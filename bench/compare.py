"""Beside real etcd: one node each or a cluster each, both with fsync on, the same load generator.

    scripts/bench                             put and get, one node each
    scripts/bench --nodes 3                   clusters; all connections at the leader
    scripts/bench --nodes 3 --spread          … at all nodes alike
    scripts/bench --nodes 3 --only watch --quick

The runs alternate (etcd, kvorum, etcd, kvorum, …), so that whatever else the machine does hits
both; ratios are made per pair of neighbours, and their median and spread are reported. Everything
is on one machine: load generator and nodes share its cores, and the network is loopback.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from bench import report
from bench.clusters import Side, both
from bench.load import WORKS, WORKS_OF_ONE_NODE, Run, Work, fill, measure

PAIRS, SECONDS = 5, 5
QUICK_PAIRS, QUICK_SECONDS = 2, 2
MEASURE_ATTEMPTS = 3


def main() -> None:
    options = parse_arguments()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    works = pick(options.nodes, options.only)
    print(describe(options))
    print()
    with (
        tempfile.TemporaryDirectory(prefix="kvorum-bench-") as directory,
        both(Path(directory), options.nodes, options.heartbeat_interval, options.election_timeout) as sides,
    ):
        for side in sides:
            fill(side)
            measure(side, WORKS[1], 2, options.spread)  # so that everything is warm
        print(report.heading(), flush=True)
        for work in works:
            runs: dict[str, list[Run]] = {side.name: [] for side in sides}
            for _ in range(options.rounds):
                for side in sides:
                    runs[side.name].append(measure_under_one_leader(side, work, options))
            print(report.row(work, runs["etcd"], runs["kvorum"]), flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Kvorum beside real etcd.")
    parser.add_argument("--nodes", type=int, default=1, help="members of each cluster")
    parser.add_argument("--spread", action="store_true", help="connections over all nodes, not at the leader")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="rows with it in their name: 'put 64', 'txn'"
    )
    parser.add_argument("--rounds", type=int, help=f"pairs of runs per row ({PAIRS})")
    parser.add_argument("--seconds", type=int, help=f"length of one run ({SECONDS})")
    parser.add_argument("--quick", action="store_true", help="for a first look: 2 pairs of 2 s")
    parser.add_argument("--heartbeat-interval", type=int, default=100, metavar="MS", help="of clusters")
    parser.add_argument("--election-timeout", type=int, default=1000, metavar="MS", help="of clusters")
    options = parser.parse_args()
    options.rounds = options.rounds or (QUICK_PAIRS if options.quick else PAIRS)
    options.seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    return options


def pick(nodes: int, only: str) -> list[Work]:
    """All rows, but of one node put and get; with ``only`` those whose name has it."""
    if not only:
        return WORKS_OF_ONE_NODE if nodes == 1 else WORKS
    works = [work for work in WORKS if only in f"{work.kind} {work.connections}"]
    if not works:
        names = ", ".join(f"{work.kind} {work.connections}" for work in WORKS)
        raise SystemExit(f"{only!r} is in none of the rows' names: {names}")
    return works


def describe(options: argparse.Namespace) -> str:
    facts = [
        report.machine(),
        f"{options.rounds} pairs of {options.seconds} s a row; values of 128 bytes, fsync on",
    ]
    if options.nodes > 1:
        where = (
            "connections spread evenly over all nodes (a single one: at a follower)"
            if options.spread
            else "all connections at the leader"
        )
        facts += [
            f"{options.nodes} nodes each on loopback, heartbeat {options.heartbeat_interval} ms,"
            f" election timeout {options.election_timeout} ms",
            f"{where}; watchers spread evenly over all nodes, their writer at the leader",
        ]
    return "; ".join([*facts, "MiB: resident memory of all nodes together"])


def measure_under_one_leader(side: Side, work: Work, options: argparse.Namespace) -> Run:
    """A run in which the leader changed is told about and made again: it measured an election."""
    for _ in range(MEASURE_ATTEMPTS):
        leader = side.find_leader()
        run = measure(side, work, options.seconds, options.spread)
        if side.find_leader() == leader:
            return run
        print(f"{side.name}: the leader changed during {work.title}; once more", file=sys.stderr)
    raise SystemExit(f"{side.name}: the leader changed in each of {MEASURE_ATTEMPTS} runs")


if __name__ == "__main__":
    main()
