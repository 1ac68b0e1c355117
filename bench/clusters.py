"""The two that are compared, on the same machine: etcd and kvorum, each with one node or several.

Both run all the time; the one that is not measured has no load but its heartbeats. Both have fsync
on, and the same heartbeat interval and election timeout.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.memory import Memory, memory
from tests.common.clusters import Cluster, start_etcd_cluster, start_kvorum_cluster
from tests.common.servers import Server

# Benchmarks keep every revision; etcd would refuse puts from 2 GiB on.
ETCD_QUOTA = f"--quota-backend-bytes={64 << 30}"


@dataclass(frozen=True)
class Side:
    name: str
    cluster: Cluster

    @property
    def members(self) -> list[Server]:
        return self.cluster.members

    @property
    def leader(self) -> Server:
        return self.members[self.cluster.leader()]

    @property
    def followers(self) -> list[Server]:
        leader = self.cluster.leader()
        return [member for i, member in enumerate(self.members) if i != leader]

    def memory(self) -> Memory:
        """Of all members together."""
        return memory(member.process.pid for member in self.members)


@contextlib.contextmanager
def both(directory: Path, nodes: int, heartbeat_ms: int, election_ms: int) -> Iterator[tuple[Side, Side]]:
    """etcd and kvorum, healthy."""
    with (
        one("etcd", directory, nodes, heartbeat_ms, election_ms) as etcd,
        one("kvorum", directory, nodes, heartbeat_ms, election_ms) as kvorum,
    ):
        yield etcd, kvorum


@contextlib.contextmanager
def one(
    name: str, directory: Path, nodes: int, heartbeat_ms: int = 100, election_ms: int = 1000
) -> Iterator[Side]:
    """A cluster of ``etcd`` or of ``kvorum``, healthy."""
    raise_open_files()
    flags = (f"--heartbeat-interval={heartbeat_ms}", f"--election-timeout={election_ms}")
    if name == "etcd":
        started = start_etcd_cluster(directory / name, nodes, *flags, ETCD_QUOTA)
    else:
        started = start_kvorum_cluster(directory / name, nodes, *flags)
    with started as cluster:
        yield Side(name, cluster)


def raise_open_files() -> None:
    """A thousand watchers are a thousand sockets, here and in the servers, which inherit the limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
