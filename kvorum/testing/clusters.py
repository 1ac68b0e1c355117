"""A whole cluster for tests, each member a process of its own.

with cluster(size=3) as running:
    lost = running.leader()
    lost.kill()
    running.leader()        # another one, some tenths of a second later
    lost.restart()
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvorum.testing.clients import Clients
from kvorum.testing.launcher import launcher
from kvorum.testing.ports import ReservedPort
from kvorum.testing.servers import START_SECONDS, Server, checked, own_directory, until

if TYPE_CHECKING:
    from kvorum import Client

SIZE_MAX = 7


class Cluster:
    """``members`` are servers, the dead ones too, called n1, n2, …"""

    def __init__(self, members: Sequence[Server]) -> None:
        self.members = list(members)
        self._clients = Clients(self.endpoints)

    @property
    def endpoints(self) -> list[str]:
        """All members', such as ``127.0.0.1:40923``."""
        return [member.endpoint for member in self.members]

    @property
    def urls(self) -> list[str]:
        return [member.url for member in self.members]

    def client(self, **options: Any) -> Client:
        """A client of all members, closed with them; ``options`` are those of ``kvorum.Client``."""
        return self._clients.make(**options)

    def leader(self) -> Server:
        """The member that leads; waits for one. Raises TimeoutError where there is none for long."""
        found: list[Server] = []

        def is_found() -> bool:
            found[:] = self._leaders()
            return bool(found)

        if not until(is_found, START_SECONDS):
            raise TimeoutError(f"no member leads after {START_SECONDS:g} s\n{self.logs()}")
        return found[-1]

    def followers(self) -> list[Server]:
        """The running members other than the leader."""
        leader = self.leader()
        return [member for member in self.members if member is not leader and member.is_running()]

    def wait_until_healthy(self) -> None:
        """Until every running member is. Raises StartFailed."""
        for member in self.members:
            if member.is_running():
                member.wait_until_healthy()

    def logs(self) -> str:
        """The end of every member's log."""
        return "\n".join(f"--- {member.name}\n{member.log[-4000:]}" for member in self.members)

    def close(self) -> None:
        """Close its clients; the members are closed by whoever made them."""
        self._clients.close()

    def _leaders(self) -> list[Server]:
        """Those that say they lead, the one of the latest term last: an older one may not know yet."""
        leaders = []
        for member in self.members:
            status = member.status() if member.is_running() else None
            if status and status.get("leader") == status["header"]["member_id"]:
                leaders.append((int(status["raftTerm"]), member))
        return [member for _, member in sorted(leaders, key=lambda one: one[0])]


@contextlib.contextmanager
def cluster(*, size: int = 3, flags: Sequence[str] = ()) -> Iterator[Cluster]:
    """A healthy cluster of ``size`` members (1 to 7); ``flags`` go to every member. Raises StartFailed."""
    if not isinstance(size, int) or not 1 <= size <= SIZE_MAX:
        raise ValueError(f"size is {size!r}: expected a number of members from 1 to {SIZE_MAX}")
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(own_directory())
        peer_urls = []
        for _ in range(size):
            port = ReservedPort()
            stack.callback(port.close)
            peer_urls.append(f"http://127.0.0.1:{port.number}")
        members = _members(directory, peer_urls, checked(flags), stack)
        for member in members:
            member.start(wait=False)
        for member in members:
            member.wait_until_healthy()
        made = Cluster(members)
        stack.callback(made.close)
        yield made


def _members(
    directory: Path, peer_urls: Sequence[str], flags: Sequence[str], stack: contextlib.ExitStack
) -> list[Server]:
    names = [f"n{i + 1}" for i in range(len(peer_urls))]
    everybody = ",".join(f"{name}={url}" for name, url in zip(names, peer_urls, strict=True))
    members = []
    for name, url in zip(names, peer_urls, strict=True):
        shared = (
            f"--listen-peer-urls={url}",
            f"--initial-cluster={everybody}",
            f"--initial-cluster-token={directory.name}",
        )
        member = Server(launcher(), directory, (*shared, *flags), name)
        stack.callback(member.close)
        members.append(member)
    return members
