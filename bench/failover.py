"""How long nobody can write when the leader dies, beside real etcd.

    scripts/failover [--rounds 20] [--heartbeat-interval 100] [--election-timeout 1000]

Two clusters of three, started with the same flags. In each round, the sides in turn: clients write
without pause; the leader is killed (SIGKILL); when writes have come through again it is restarted,
and the round ends when all three are healthy. Client k begins at node k (modulo 3) and stays there
until a request fails: refused, cut off, an answer other than 200, or none in time. Then it goes on
to the next node at once.

The time a request is given is drawn anew for each. Were it the same, the clients would march in
step: a follower forwards what it is sent to the leader it still believes in, all requests of the
moment of the kill would be lost, and so would all those sent when their second is over. The figure
would be a multiple of that second, whatever the cluster does.

Two figures a round:

- without a write: the longest time around the kill in which no client anywhere had a success;
- at a survivor: the longest such time of any one client that was not at the leader when it was
  killed. It is longer, since such a client may wait for an answer the dead leader was to give.

What is not measured: a leader that loses its network or its disk instead of its process.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from bench import report
from tests.common.clusters import Cluster, start_etcd_cluster, start_kvorum_cluster

NODES = 3
CLIENTS = 12
REQUEST_SECONDS = (0.1, 0.5)  # drawn in between
PAUSE_AFTER_ERROR = 0.005  # else refused connections are all that a core does
FLOWING_SECONDS = 0.2  # writes come through again: a success is no older than this
RECOVERY_SECONDS = 60.0


COLUMNS = [
    "",
    "without a write, median ms",
    "worst ms",
    "at a survivor, median ms",
    "worst ms",
    "the first figure of all rounds, sorted",
]


class Gap(NamedTuple):
    everywhere_ms: float
    at_survivor_ms: float


@dataclass
class Client(threading.Thread):
    """Writes one value after another until it is stopped."""

    number: int
    ports: Sequence[int]
    successes: list[float] = field(default_factory=list)
    at: int = 0  # the node it talks to

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.at = self.number % len(self.ports)
        self.ended = threading.Event()

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        key = base64.b64encode(b"failover/%d" % self.number).decode()
        body = f'{{"key":"{key}","value":"{base64.b64encode(b"v" * 128).decode()}"}}'
        connection = self.connect()
        while not self.ended.is_set():
            try:
                if connection.sock is None:
                    connection.connect()
                connection.sock.settimeout(random.uniform(*REQUEST_SECONDS))
                connection.request("POST", "/v3/kv/put", body)
                response = connection.getresponse()
                response.read()
                accepted = response.status == 200
            except (OSError, http.client.HTTPException):
                accepted = False
            if accepted:
                self.successes.append(time.monotonic())
                continue
            connection.close()
            self.at = (self.at + 1) % len(self.ports)
            time.sleep(PAUSE_AFTER_ERROR)
            connection = self.connect()
        connection.close()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.ports[self.at], timeout=REQUEST_SECONDS[1])


def fail_over(cluster: Cluster, election_ms: int) -> Gap:
    """A round on one side. It leaves the cluster healthy."""
    clients = [Client(number, [member.port for member in cluster.members]) for number in range(CLIENTS)]
    with contextlib.ExitStack() as stack:
        for client in clients:
            client.start()
            stack.callback(client.ended.set)
        time.sleep(1 + random.random())  # a kill at any phase of the heartbeat
        leader = cluster.leader()
        at_survivor = [client for client in clients if client.at != leader]
        killed_at = time.monotonic()
        cluster.kill(leader)
        wait_until_flowing(clients, killed_at, not_before=killed_at + 2 * election_ms / 1000)
        ended_at = time.monotonic()
    for client in clients:
        client.join()
    cluster.restart(leader)
    cluster.wait_until_healthy()
    everywhere = sorted(moment for client in clients for moment in client.successes)
    return Gap(
        1000 * longest_gap(everywhere, killed_at, ended_at),
        1000 * max(longest_gap(client.successes, killed_at, ended_at) for client in at_survivor),
    )


def wait_until_flowing(clients: Sequence[Client], killed_at: float, not_before: float) -> None:
    """Until every client writes again. Before ``not_before`` it may be an answer of the dead leader
    that is only read now."""
    while time.monotonic() < killed_at + RECOVERY_SECONDS:
        now = time.monotonic()
        if now > not_before and all(
            client.successes and client.successes[-1] > max(now - FLOWING_SECONDS, killed_at)
            for client in clients
        ):
            return
        time.sleep(0.01)
    raise SystemExit(f"writes did not come through for {RECOVERY_SECONDS} s after the kill")


def longest_gap(successes: Sequence[float], killed_at: float, ended_at: float) -> float:
    """The longest time between one success and the next, from the last before the kill on."""
    before = [moment for moment in successes if moment <= killed_at]
    if not before:
        raise SystemExit("a client had no success before the kill")
    after = [moment for moment in successes if killed_at < moment <= ended_at]
    return max(later - earlier for earlier, later in pairwise([before[-1], *after, ended_at]))


def table(gaps: dict[str, list[Gap]]) -> str:
    lines = [
        report.line(COLUMNS),
        "|---" * len(COLUMNS) + "|",
    ]
    figures = {side: summary(of_side) for side, of_side in gaps.items()}
    for side, of_side in gaps.items():
        everywhere = " ".join(f"{gap.everywhere_ms:.0f}" for gap in sorted(of_side))
        lines.append(report.line([side, *(f"{value:,.0f}" for value in figures[side]), everywhere]))
    ratios = [
        f"**{ours / theirs:.2f}×**" for theirs, ours in zip(figures["etcd"], figures["kvorum"], strict=True)
    ]
    return "\n".join([*lines, report.line(["kvorum / etcd", *ratios, ""])])


def summary(gaps: Sequence[Gap]) -> tuple[float, float, float, float]:
    everywhere = [gap.everywhere_ms for gap in gaps]
    at_survivor = [gap.at_survivor_ms for gap in gaps]
    return statistics.median(everywhere), max(everywhere), statistics.median(at_survivor), max(at_survivor)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/failover", description="The leader is killed under load, beside real etcd."
    )
    parser.add_argument("--rounds", type=int, default=20, help="kills on each side")
    parser.add_argument("--heartbeat-interval", type=int, default=100, metavar="MS")
    parser.add_argument("--election-timeout", type=int, default=1000, metavar="MS")
    options = parser.parse_args()
    heartbeat, election = options.heartbeat_interval, options.election_timeout
    flags = (f"--heartbeat-interval={heartbeat}", f"--election-timeout={election}")
    facts = [
        report.machine(),
        f"{NODES} nodes each on loopback, fsync on, heartbeat {heartbeat} ms, election timeout {election} ms",
        f"{CLIENTS} clients over all nodes, {REQUEST_SECONDS[0]}-{REQUEST_SECONDS[1]} s a request",
        f"the leader killed {options.rounds} times on each side",
    ]
    print("; ".join(facts) + "\n", flush=True)
    gaps: dict[str, list[Gap]] = {"etcd": [], "kvorum": []}
    with (
        tempfile.TemporaryDirectory(prefix="kvorum-failover-") as directory,
        start_etcd_cluster(Path(directory, "etcd"), NODES, *flags) as theirs,
        start_kvorum_cluster(Path(directory, "kvorum"), NODES, *flags) as ours,
    ):
        for _ in range(options.rounds):
            for side, cluster in (("etcd", theirs), ("kvorum", ours)):
                gaps[side].append(fail_over(cluster, election))
    print(table(gaps))


if __name__ == "__main__":
    main()
