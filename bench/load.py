"""What is measured, and one run of it: requests by wrk, or watchers (bench/watchers.py)."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.clusters import Side
from bench.watchers import watch

SCRIPT = Path(__file__).parent / "requests.lua"
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
KEYS = 10_000
PUTS_PER_TXN = 100


class Run(NamedTuple):
    per_second: float
    p50_ms: float
    p99_ms: float
    resident_mib: float = 0.0


@dataclass(frozen=True)
class Work:
    kind: str  # a WORK of requests.lua, or "watch"
    connections: int
    title: str
    per_answer: int = 1  # what an answer counts for: a transaction is 100 puts


WORKS = [
    *(Work("put", connections, "put") for connections in (1, 64, 256)),
    *(Work("get", connections, "get, linearizable") for connections in (1, 64, 256)),
    *(Work("serializable", connections, "get, serializable") for connections in (1, 64, 256)),
    *(Work("txn", connections, "puts in txns of 100", PUTS_PER_TXN) for connections in (1, 16)),
    Work("watch", 1000, "events to watchers of one prefix"),
]
WORKS_OF_ONE_NODE = [work for work in WORKS if work.kind in ("put", "get")]


def measure(side: Side, work: Work, seconds: int, spread: bool) -> Run:
    """One run. Any answer that is not 200, and any event that is missing, fails it."""
    if work.kind == "watch":
        result = watch(side.members, side.leader, work.connections, seconds, side.resident_mib)
        print(
            f"{side.name}: the watchers' load generator used {result.client_cpu:.0%} of a core",
            file=sys.stderr,
        )
        return Run(result.per_second, result.p50_ms, result.p99_ms, result.resident_mib)
    return wrk(side, work, seconds, spread)


def wrk(side: Side, work: Work, seconds: int, spread: bool) -> Run:
    """At the leader; with ``spread`` at all nodes alike, or if there is one connection, at a follower."""
    target, threads, nodes = side.leader, 1, ""
    if spread and len(side.members) > 1:
        if work.connections == 1:
            target = side.followers[0]
        else:
            # wrk gives every thread as many connections, and so leaves out what remains.
            threads, nodes = len(side.members), ",".join(str(member.port) for member in side.members)
    command = [
        "wrk",
        f"-t{threads}",
        f"-c{work.connections}",
        f"-d{seconds}s",
        "--timeout=10s",
        "--latency",
        "-s",
        str(SCRIPT),
        target.url,
    ]
    environment = {**os.environ, "WORK": work.kind, "NODES": nodes}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    try:
        run = parse_wrk(done.stdout)
    except ValueError as error:
        raise SystemExit(f"{side.name}, {work.title}: {error}\n{done.stdout}{done.stderr}") from None
    return run._replace(per_second=run.per_second * work.per_answer, resident_mib=side.resident_mib())


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
    return Run(float(rate[1]), latencies["50"], latencies["99"])


def fill(side: Side) -> None:
    """Every key that requests.lua names, so that every get finds one."""
    leader = side.leader
    connection = http.client.HTTPConnection("127.0.0.1", leader.port, timeout=30)
    value = base64.b64encode(b"v" * 128).decode()
    for first in range(1, KEYS + 1, PUTS_PER_TXN):
        puts = [
            {"request_put": {"key": base64.b64encode(b"bench/key%08d" % i).decode(), "value": value}}
            for i in range(first, first + PUTS_PER_TXN)
        ]
        connection.request("POST", "/v3/kv/txn", json.dumps({"success": puts}))
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise SystemExit(f"{side.name} answered {response.status} while it was filled: {answer!r}")
    connection.close()
