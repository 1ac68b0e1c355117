"""The two that are compared, on the same machine: etcd and kvorum, each with one node or several.

Both run all the time; the one that is not measured has no load but its heartbeats. Both have fsync
on, and the same heartbeat interval and election timeout.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.common.clusters import start_etcd_cluster, start_kvorum_cluster
from tests.common.servers import Server, running, start_etcd, start_kvorum


@dataclass(frozen=True)
class Side:
    name: str
    members: list[Server]
    find_leader: Callable[[], int]

    @property
    def leader(self) -> Server:
        return self.members[self.find_leader()]

    @property
    def followers(self) -> list[Server]:
        leader = self.find_leader()
        return [member for i, member in enumerate(self.members) if i != leader]

    def resident_mib(self) -> float:
        """Resident memory of all members together, mapped files counted."""
        return sum(resident_kib(member.process.pid) for member in self.members) / 1024


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


@contextlib.contextmanager
def both(directory: Path, nodes: int, heartbeat_ms: int, election_ms: int) -> Iterator[tuple[Side, Side]]:
    """etcd and kvorum, healthy."""
    raise_open_files()
    flags = (f"--heartbeat-interval={heartbeat_ms}", f"--election-timeout={election_ms}")
    with contextlib.ExitStack() as stack:
        if nodes == 1:
            servers = [stack.enter_context(running(start(directory))) for start in (start_etcd, start_kvorum)]
            etcd, kvorum = ([server] for server in servers)
            yield Side("etcd", etcd, lambda: 0), Side("kvorum", kvorum, lambda: 0)
        else:
            theirs = stack.enter_context(start_etcd_cluster(directory / "etcd", nodes, *flags))
            ours = stack.enter_context(start_kvorum_cluster(directory / "kvorum", nodes, *flags))
            yield (
                Side("etcd", theirs.members, theirs.leader),
                Side("kvorum", ours.members, ours.leader),
            )


def raise_open_files() -> None:
    """A thousand watchers are a thousand sockets, here and in the servers, which inherit the limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
