"""One run of wrk with one kind of request (bench/requests.lua)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.clusters import Side
from bench.figures import P50, P99, PER_SECOND, Run
from bench.filling import VALUE_BYTES

SCRIPT = Path(__file__).parent / "requests.lua"
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
ATTEMPTS = 3


@dataclass(frozen=True)
class Load:
    kind: str  # a WORK of requests.lua
    connections: int
    keys: int
    value_bytes: int = VALUE_BYTES
    per_answer: int = 1  # what an answer counts for: a transaction is 100 puts


def wrk(side: Side, load: Load, seconds: float, spread: bool = False) -> Run:
    """At the leader; with ``spread`` at all nodes alike, or if there is one connection, at a follower.
    An answer that is not 200 fails it."""
    return under_one_leader(side, load.kind, lambda: _wrk(side, load, seconds, spread))


def under_one_leader(side: Side, what: str, run: Callable[[], Run]) -> Run:
    """A run in which the leader changed is told about and made again: it measured an election."""
    for _ in range(ATTEMPTS):
        leader = side.cluster.leader()
        result = run()
        if side.cluster.leader() == leader:
            return result
        print(f"{side.name}: the leader changed during {what}; once more", file=sys.stderr)
    raise SystemExit(f"{side.name}: the leader changed in each of {ATTEMPTS} runs")


def _wrk(side: Side, load: Load, seconds: float, spread: bool) -> Run:
    target, threads, nodes = side.leader, 1, ""
    if spread and len(side.members) > 1:
        if load.connections == 1:
            target = side.followers[0]
        else:
            # wrk gives every thread as many connections, and so leaves out what remains.
            threads, nodes = len(side.members), ",".join(str(member.port) for member in side.members)
    command = [
        "wrk",
        f"-t{threads}",
        f"-c{load.connections}",
        f"-d{seconds:.0f}s",
        "--timeout=10s",
        "--latency",
        "-s",
        str(SCRIPT),
        target.url,
    ]
    environment = {
        **os.environ,
        "WORK": load.kind,
        "KEYS": str(load.keys),
        "VALUE_BYTES": str(load.value_bytes),
        "NODES": nodes,
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    try:
        run = parse_wrk(done.stdout)
    except ValueError as error:
        raise SystemExit(f"{side.name}, {load.kind}: {error}\n{done.stdout}{done.stderr}") from None
    return {**run, PER_SECOND: run[PER_SECOND] * load.per_answer}


def parse_wrk(output: str) -> Run:
    """Of wrk --latency. ValueError if an answer was an error or did not come."""
    if "Non-2xx" in output or "Socket errors" in output:
        raise ValueError("not every answer was 200")
    latencies = {
        percent: float(number) * UNITS[unit]
        for percent, number, unit in re.findall(r"^\s+(\d+)%\s+([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)
    }
    rate = re.search(r"^Requests/sec:\s+([\d.]+)$", output, re.MULTILINE)
    if rate is None or not {"50", "99"} <= latencies.keys() or float(rate[1]) == 0:
        raise ValueError("wrk gave no figures")
    return {PER_SECOND: float(rate[1]), P50: latencies["50"], P99: latencies["99"]}
