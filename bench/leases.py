"""What leases cost: many that are kept alive, and many that run out at once while others write.

    python -m bench.leases [--nodes 3] [--leases 100000] [--ending 10000]     # 0: leave that out

One line for each figure. Processor time is that of all server processes together. A stall is what a put
took that was asked for every two milliseconds; the same without leases, for as long, is said beside it, for
on a shared machine most of the worst of it is the machine's.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from bench.connection import Connection
from bench.paced import Paced, Schedule
from bench.report import machine
from tests.common.clusters import Cluster, start_kvorum_cluster

CONNECTIONS = 64
PUTS_PER_SECOND = 500
KEYS = 1000
TTL = 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--leases", type=int, default=100_000)
    parser.add_argument("--ending", type=int, default=10_000)
    asked = parser.parse_args()
    print(f"{asked.nodes} nodes, {machine()}, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as directory:
        if asked.leases:
            with start_kvorum_cluster(Path(directory) / "many", asked.nodes) as cluster:
                many(cluster, asked.leases)
        if asked.ending:
            with start_kvorum_cluster(Path(directory) / "ending", asked.nodes) as cluster:
                ending(cluster, asked.ending)


def many(cluster: Cluster, count: int) -> None:
    ports = [member.port for member in cluster.members]
    leader = [cluster.members[cluster.leader()].port]
    idle_before = idle(cluster)
    say("grants", *cost(cluster, partial(run, ports, grants(range(1, count + 1), TTL))))
    idle_after = idle(cluster)
    print(f"idle: {idle_before:.2%} of a core without leases, {idle_after:.2%} with {count}")
    keepalives = [b'{"ID":%d}' % lease for lease in range(1, count + 1)]
    for name, where in (("the leader", leader), ("all members", ports)):
        requests = [("/v3/lease/keepalive", body) for body in keepalives]
        say(f"keepalives at {name}", *cost(cluster, partial(run, where, requests)))
    puts = [("/v3/kv/put", b'{"key":"YQ==","value":"YQ=="}')] * 20_000
    say("puts at the leader, to compare", *cost(cluster, partial(run, leader, puts)))


def ending(cluster: Cluster, count: int) -> None:
    """Granted one after the other, they all end within the same second."""
    ports = [member.port for member in cluster.members]
    seconds = 8 + count / 500
    print(f"puts without leases: {worst(ports, seconds)}")
    end = time.monotonic() + 15 + count / 1000
    for first in range(1, count + 1, 100):
        batch = range(first, min(first + 100, count + 1))
        run(ports, grants(batch, round(end - time.monotonic())))
        run(ports, (("/v3/kv/put", b'{"key":"%b","lease":%d}' % (b"%08d" % one, one)) for one in batch))
    assert time.monotonic() < end, "this machine is too slow for so many"
    time.sleep(max(0.0, end - 3 - time.monotonic()))
    begun = time.monotonic()
    print(f"puts while {count} leases run out: {worst(ports, seconds)}")
    left = list_leases(ports[0])
    print(f"after {time.monotonic() - begun:.0f} s {left} leases are left")


def grants(leases: Iterable[int], ttl: int) -> Iterator[tuple[str, bytes]]:
    return (("/v3/lease/grant", b'{"ID":%d,"TTL":%d}' % (lease, ttl)) for lease in leases)


def run(ports: list[int], requests: Iterable[tuple[str, bytes]]) -> int:
    """All of them, on some connections at once; how many there were."""
    idle_ones = deque(Connection(ports[i % len(ports)]) for i in range(CONNECTIONS))
    busy: list[Connection] = []
    remaining, count = iter(requests), 0
    while True:
        while idle_ones and (request := next(remaining, None)) is not None:
            connection = idle_ones.popleft()
            connection.send(*request)
            busy.append(connection)
            count += 1
        if not busy:
            break
        for connection in select.select(busy, [], [])[0]:
            if connection.receive() is not None:
                busy.remove(connection)
                idle_ones.append(connection)
    for connection in idle_ones:
        connection.close()
    return count


def list_leases(port: int) -> int:
    connection = Connection(port)
    connection.send("/v3/lease/leases", b"{}")
    while (answer := connection.receive()) is None:
        pass
    connection.close()
    return answer.count(b'"ID"')


def worst(ports: list[int], seconds: float) -> str:
    start = time.monotonic() + 0.1
    load = Paced(ports, CONNECTIONS, Schedule(PUTS_PER_SECOND, 1.0, start, random.Random(1)), KEYS)
    latencies = sorted(load.run(start + seconds).latencies["put"])
    load.close()
    p50, p99, p999 = (latencies[int(len(latencies) * part)] for part in (0.5, 0.99, 0.999))
    return (
        f"{len(latencies)}, p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, p99.9 {p999 * 1e3:.1f} ms,"
        f" longest {latencies[-1] * 1e3:.1f} ms"
    )


def cost(cluster: Cluster, work: Callable[[], int]) -> tuple[int, float, float]:
    """How many, in how many seconds, with how many of processor time."""
    cpu, begun = processor_seconds(cluster), time.monotonic()
    count = work()
    return count, time.monotonic() - begun, processor_seconds(cluster) - cpu


def idle(cluster: Cluster) -> float:
    cpu, begun = processor_seconds(cluster), time.monotonic()
    time.sleep(5)
    return (processor_seconds(cluster) - cpu) / (time.monotonic() - begun)


def processor_seconds(cluster: Cluster) -> float:
    ticks = 0
    for member in cluster.members:
        fields = Path(f"/proc/{member.process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def say(what: str, count: int, seconds: float, cpu: float) -> None:
    print(f"{what}: {count}, {count / seconds:.0f} a second, {cpu / count * 1e6:.0f} µs of processor each")


if __name__ == "__main__":
    main()
