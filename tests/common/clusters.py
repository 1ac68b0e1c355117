"""Real clusters for tests and benchmarks: ours, and etcd's as the oracle, on 127.0.0.1.

    with start_kvorum_cluster(tmp_path, 3, "--election-timeout=500") as cluster:
        lost = cluster.leader()
        cluster.kill(lost)                      # SIGKILL
        ...                                     # the other two go on
        cluster.restart(lost)                   # the same command, data directory and ports
        cluster.wait_until_healthy()

Member ``i`` (counted from 0, as ``cluster.members`` is) is called ``n{i+1}``; below ``directory`` it
keeps its data in ``n{i+1}`` and its log in ``n{i+1}.log``, which goes on over restarts. Both kinds
of cluster are started with the very same flags; ``flags`` go to every member.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.common.ports import free_ports
from tests.common.processes import KVORUM_SERVE
from tests.common.servers import START_SECONDS, Server, etcd_binary


class Cluster:
    """The members of one cluster, as processes. Inside ``with`` all are healthy, behind it stopped."""

    def __init__(self, commands: Sequence[Sequence[str]], ports: Sequence[int], logs: Sequence[Path]) -> None:
        self._commands, self._logs = commands, logs
        self.members = [
            Server(command, port, log) for command, port, log in zip(commands, ports, logs, strict=True)
        ]

    @property
    def urls(self) -> list[str]:
        return [member.url for member in self.members]

    def alive(self) -> list[int]:
        """The members whose processes run."""
        return [i for i, member in enumerate(self.members) if member.process.poll() is None]

    def status(self, i: int) -> dict[str, Any] | None:
        """What member ``i`` answers to /v3/maintenance/status; None if it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.members[i].port, timeout=2)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("POST", "/v3/maintenance/status", "{}")
            response = connection.getresponse()
            if response.status == 200:
                answer: dict[str, Any] = json.loads(response.read())
                return answer
        return None

    def leader(self, seconds: float = START_SECONDS) -> int:
        """The member that says it leads; of several, the one of the latest term. Waits for it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (leader := self._leader_now()) is not None:
                return leader
            time.sleep(0.02)
        raise AssertionError(f"no leader in {seconds} s\n{self.logs()}")

    def _leader_now(self) -> int | None:
        terms = {
            int(status["raftTerm"]): i
            for i in self.alive()
            if (status := self.status(i)) and status.get("leader") == status["header"]["member_id"]
        }
        return terms[max(terms)] if terms else None

    def wait_until_healthy(self) -> Cluster:
        """Until every member answers /health with 200, the killed and not restarted ones too."""
        for member in self.members:
            member.wait_until_healthy()
        return self

    def kill(self, i: int) -> None:
        """SIGKILL: nothing is finished, nothing flushed."""
        self.members[i].kill()

    def restart(self, i: int) -> Server:
        """The same command again; what runs is stopped first. Does not wait until it is healthy."""
        self.members[i].stop()
        self.members[i] = Server(self._commands[i], self.members[i].port, self._logs[i])
        return self.members[i]

    def stop(self) -> None:
        """SIGTERM, the leader last: etcd's waits seven seconds to hand over to one that stops too."""
        leader = self._leader_now()
        followers = [member for i, member in enumerate(self.members) if i != leader]
        try:
            with ThreadPoolExecutor(len(self.members)) as pool:
                list(pool.map(Server.stop, followers))
        finally:
            if leader is not None:
                self.members[leader].stop()

    def logs(self) -> str:
        """The end of every member's log, for the message of a failed test."""
        return "\n".join(f"--- {log}\n{log.read_text(errors='replace')[-4000:]}" for log in self._logs)

    def __enter__(self) -> Cluster:
        try:
            return self.wait_until_healthy()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_kvorum_cluster(directory: Path, size: int, *flags: str) -> Cluster:
    return _start(KVORUM_SERVE, directory, size, flags)


def start_etcd_cluster(directory: Path, size: int, *flags: str) -> Cluster:
    return _start([str(etcd_binary())], directory, size, ("--log-level=error", *flags))


def _start(serve: Sequence[str], directory: Path, size: int, flags: Sequence[str]) -> Cluster:
    directory.mkdir(parents=True, exist_ok=True)
    ports = free_ports(2 * size)
    clients, peers = ports[:size], [f"http://127.0.0.1:{port}" for port in ports[size:]]
    names = [f"n{i + 1}" for i in range(size)]
    members = ",".join(f"{name}={peer}" for name, peer in zip(names, peers, strict=True))
    commands = [
        [
            *serve,
            f"--name={name}",
            f"--data-dir={directory / name}",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={members}",
            "--initial-cluster-state=new",
            f"--initial-cluster-token={directory.name}",
            *flags,
        ]
        for name, client, peer in zip(names, clients, peers, strict=True)
    ]
    return Cluster(commands, clients, [directory / f"{name}.log" for name in names])
