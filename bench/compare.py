"""Put and get beside real etcd: one node each, both with fsync on, the same load generator.

The runs alternate (etcd, kvorum, etcd, kvorum, …), so that whatever else the machine does hits
both; ratios are made per pair of neighbours, and their median and spread are reported.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.common.servers import ROOT, Server, running, start_etcd, start_kvorum

SCRIPT = Path(__file__).parent / "requests.lua"
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


class Run(NamedTuple):
    per_second: float
    p50_ms: float
    p99_ms: float


def measure(server: Server, work: str, connections: int, seconds: int) -> Run:
    """One run of wrk. Any answer that is not 200 makes the figures worthless, and fails."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(SCRIPT), server.url]
    environment = {**os.environ, "WORK": work}
    output = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"{server.url} answered with errors:\n{output}")
    latencies = {
        percent: float(number) * UNITS[unit]
        for percent, number, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s|m)", output)
    }
    return Run(float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]), latencies["50"], latencies["99"])


def compare(etcd: Server, kvorum: Server, work: str, connections: int, rounds: int, seconds: int) -> str:
    """A row of the table."""
    theirs, ours = [], []
    for _ in range(rounds):
        theirs.append(measure(etcd, work, connections, seconds))
        ours.append(measure(kvorum, work, connections, seconds))
    ratios = [b.per_second / a.per_second for a, b in zip(theirs, ours, strict=True)]
    tails = [b.p99_ms / a.p99_ms for a, b in zip(theirs, ours, strict=True)]
    columns = [
        work,
        str(connections),
        *(f"{statistics.median(run.per_second for run in runs):,.0f}" for runs in (theirs, ours)),
        f"**{statistics.median(ratios):.2f}×** ({min(ratios):.2f}–{max(ratios):.2f})",
        *(f"{statistics.median(run.p50_ms for run in runs):.2f}" for runs in (theirs, ours)),
        *(f"{statistics.median(run.p99_ms for run in runs):.1f}" for runs in (theirs, ours)),
        f"{statistics.median(tails):.2f}× ({min(tails):.2f}–{max(tails):.2f})",
    ]
    return "| " + " | ".join(columns) + " |"


def rows(options: argparse.Namespace) -> Iterator[str]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvorum-bench-")))
        etcd = stack.enter_context(running(start_etcd(directory)))
        kvorum = stack.enter_context(running(start_kvorum(directory)))
        for server in (etcd, kvorum):
            measure(server, "put", 64, 3)  # so that the keys are there, and everything is warm
        for work in ("put", "get"):
            for connections in (1, 64, 256):
                yield compare(etcd, kvorum, work, connections, options.rounds, options.seconds)


def machine() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout.strip()
    system = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
    return f"{system}, commit {commit or 'unknown'}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Put and get beside real etcd.")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs per row")
    parser.add_argument("--seconds", type=int, default=5, help="length of one run")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    print(f"{machine()}; {options.rounds} pairs of {options.seconds} s a row; values of 128 bytes, fsync on")
    print("| work | connections | etcd /s | kvorum /s | ratio (spread) | etcd p50 ms | kvorum p50 ms"
          " | etcd p99 ms | kvorum p99 ms | p99 ratio (spread) |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows(options):
        print(row, flush=True)


if __name__ == "__main__":
    main()
