"""The members as processes: started, watched over, ended by pid, and what is asked of the cluster.

A member that ends though nobody ended it is a violation, unless a fault that is on (or was, a moment
ago) explains it: its disk fails or is full, or it was removed. Then it is started again, as an operator
would, once the fault is over or every now and then while it lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests.soak.lab import Lab, call, libfaketime
from tests.soak.relay import Relay
from tests.soak.target import Flags, Target
from tests.soak.wire import error_text

HEARTBEAT_MS, ELECTION_MS = 100, 1000
STOP_SECONDS = 20.0
_RESTART_SECONDS = 1.0  # between attempts to start a member whose disk does not let it run


class Violation(AssertionError):
    """Seen while it runs: something that the store, or the cluster, must not do."""


class Refused(Exception):
    """What was asked of the cluster was not done; it may be asked again."""


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


@dataclass(slots=True)
class Report:
    """What a run counts."""

    starts: int = 0
    stops_by_fault: int = 0


class Member:
    """One place of the cluster and the process that fills it."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.number = number
        self.name = f"n{number}"
        self.generation = 0  # goes up when the member is replaced
        self.process: asyncio.subprocess.Process | None = None
        self.is_wanted = False  # running is its normal state now
        self.excuse: str | None = None  # why it may end by itself
        self.relay: Relay | None = None
        self.has_small_disk = False
        self.is_new_cluster = True
        self.member_id = 0  # as the cluster knows it, once we have asked
        self._cluster = cluster
        self._task: asyncio.Task[None] | None = None
        self._home = cluster.directory / self.name
        self._home.mkdir()
        self.data_dir.mkdir()
        self.clock_file.write_text("+0\n")

    @property
    def home(self) -> Path:
        return self._home

    @property
    def data_dir(self) -> Path:
        return self._home / "disk"

    @property
    def clock_file(self) -> Path:
        return self._home / "clock"

    @property
    def log(self) -> Path:
        return self._home / "log"

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self._cluster.lab.client(self.number))

    @property
    def peer_listen_url(self) -> str:
        return "http://{}:{}".format(*self._cluster.lab.peer(self.number, self.generation))

    @property
    def peer_url(self) -> str:
        if self.relay is not None:
            return "http://{}:{}".format(*self._cluster.lab.relay(self.number))
        return self.peer_listen_url

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    # Its life.

    async def start(self) -> None:
        assert not self.is_running, f"{self.name} runs already"
        self.is_wanted = True
        await self._spawn()
        self._task = asyncio.ensure_future(self._watch_over())

    async def _spawn(self) -> None:
        cluster = self._cluster
        flags = Flags(
            name=self.name,
            # Below the mount point, so that it can be wiped.
            data_dir=self.data_dir / "data",
            client_url=self.url,
            peer_listen_url=self.peer_listen_url,
            peer_url=self.peer_url,
            initial_cluster={m.name: m.peer_url for m in cluster.initial_members(self)},
            is_new_cluster=self.is_new_cluster,
            token=cluster.token,
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KVORUM_")}
        library = libfaketime() if cluster.with_clocks else None
        command = cluster.target.argv(flags, HEARTBEAT_MS, ELECTION_MS, cluster.snapshot_count)
        if library is not None:
            command = [
                "env",
                f"LD_PRELOAD={library}",
                f"FAKETIME_TIMESTAMP_FILE={self.clock_file}",
                "FAKETIME_CACHE_DURATION=1",  # read once a second; at each call it is ten times slower
                "FAKETIME_DONT_FAKE_MONOTONIC=1",
                *command,
            ]
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *cluster.lab.prefix(self.number),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        cluster.report.starts += 1

    async def _watch_over(self) -> None:
        while True:
            assert self.process is not None
            code = await self.process.wait()
            if not self.is_wanted:
                return
            self._cluster.say(
                f"{self.name} ended by itself with {code} ({self.excuse or 'without a reason'})"
            )
            if self.excuse is None:
                self._cluster.fail(
                    f"{self.name} ended by itself, with exit code {code}, and no fault explains it;"
                    f" the end of {self.log}: {self.tail()}"
                )
                return
            self._cluster.report.stops_by_fault += 1
            await asyncio.sleep(_RESTART_SECONDS)
            if self.is_wanted:
                await self._spawn()

    def tail(self, lines: int = 12) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 8000))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def send(self, number: int) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def end(self, number: int = signal.SIGKILL) -> int | None:
        """End the process; it stays ended. Its exit code, or None if it did not run."""
        self.is_wanted = False
        code = None
        if self.process is not None and self.process.returncode is None:
            self.send(number)
            try:
                code = await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
            except TimeoutError:
                self.send(signal.SIGKILL)
                await self.process.wait()
                self._cluster.fail(f"{self.name} did not stop within {STOP_SECONDS:.0f} s of SIGTERM")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        return code

    @contextlib.contextmanager
    def excused(self, why: str) -> Iterator[None]:
        """It may end by itself now, and for as long afterwards as a stop may take."""
        self.excuse = why
        try:
            yield
        finally:
            asyncio.get_running_loop().call_later(STOP_SECONDS, self._no_excuse, why)

    def _no_excuse(self, why: str) -> None:
        if self.excuse == why:
            self.excuse = None

    def wipe(self) -> None:
        shutil.rmtree(self.data_dir / "data", ignore_errors=True)

    # Its small disk.

    async def mount(self, megabytes: int) -> None:
        await call("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(self.data_dir))
        self.has_small_disk = True

    async def unmount(self) -> None:
        if self.has_small_disk:
            with contextlib.suppress(OSError):
                await call("umount", "-l", str(self.data_dir))
            self.has_small_disk = False


class Cluster:
    def __init__(
        self,
        target: Target,
        lab: Lab,
        directory: Path,
        *,
        token: str,
        snapshot_count: int,
        with_clocks: bool,
        say: Callable[[str], None],
        fail: Callable[[str], None],
    ) -> None:
        self.target = target
        self.lab = lab
        self.directory = directory
        self.token = token
        self.snapshot_count = snapshot_count
        self.with_clocks = with_clocks
        self.say = say
        self.fail = fail
        self.report = Report()
        self.members = [Member(self, number) for number in range(1, lab.nodes + 1)]
        self.leaders: dict[int, int] = {}  # by term
        self._session: aiohttp.ClientSession | None = None

    @property
    def minority(self) -> int:
        return (len(self.members) - 1) // 2

    def initial_members(self, starting: Member) -> list[Member]:
        return self.members

    async def start(self, relays: list[int], seed: int) -> None:
        self._session = aiohttp.ClientSession()
        await self.lab.set_up()
        for member in self.members:
            if member.number in relays:
                await self.relay_before(member, seed)
        for member in self.members:
            await member.start()

    async def relay_before(self, member: Member, seed: int) -> None:
        relay = Relay(
            self.lab.relay(member.number),
            self.lab.peer(member.number, member.generation),
            self.lab.relay_source,
            seed + member.number,
        )
        await relay.start()
        member.relay = relay

    async def stop(self) -> None:
        """End everything, whatever state it is in."""
        for member in self.members:
            if member.is_running:
                member.send(signal.SIGCONT)
        await asyncio.gather(*(member.end(signal.SIGKILL) for member in self.members))
        for member in self.members:
            if member.relay is not None:
                await member.relay.stop()
            await member.unmount()
        if self._session is not None:
            await self._session.close()

    # Questions and orders.

    async def ask(
        self, member: Member, path: str, message: dict[str, Any], seconds: float = 5.0
    ) -> dict[str, Any]:
        """Raises Refused if it could not be done, or nobody knows whether it was."""
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.post(
                member.url + path, data=orjson.dumps(message), timeout=timeout
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Refused(f"{member.name}{path}: {type(error).__name__}") from error
        if answer.status != 200:
            raise Refused(f"{member.name}{path}: {error_text(body)}")
        found: dict[str, Any] = orjson.loads(body)
        return found

    async def status(self, member: Member) -> dict[str, Any]:
        status = await self.ask(member, "/v3/maintenance/status", {}, seconds=2.0)
        self._note_leader(member, int(status.get("raftTerm", 0)), int(status.get("leader", 0)))
        member.member_id = int(status["header"]["member_id"])
        return status

    def _note_leader(self, member: Member, term: int, leader: int) -> None:
        if not leader:
            return
        known = self.leaders.setdefault(term, leader)
        if known != leader and self.target.status_is_atomic:
            self.fail(f"two leaders in term {term}: {known:x}, and {leader:x} according to {member.name}")

    async def leader(self) -> Member | None:
        """The member that those who answer call leader, in the highest term."""
        best: tuple[int, int] = (0, 0)
        for member in self.members:
            if member.is_running:
                with contextlib.suppress(Refused):
                    status = await self.status(member)
                    best = max(best, (int(status.get("raftTerm", 0)), int(status.get("leader", 0))))
        return next((m for m in self.members if best[1] and m.member_id == best[1]), None)

    async def transfer_leadership(self) -> str:
        leader = await self.leader()
        others = [m for m in self.members if m is not leader and m.is_running and m.member_id]
        if leader is None or not others:
            raise Refused("nobody to transfer the leadership from or to")
        to = others[self.report.starts % len(others)]
        await self.ask(leader, "/v3/maintenance/transfer-leadership", {"targetID": str(to.member_id)}, 10.0)
        return f"{leader.name} → {to.name}"

    async def replace(self, member: Member, *, as_learner: bool, new_peer_url: bool, seconds: float) -> None:
        """Remove a member, wipe its disk, add a new one in its place. Each step may need several
        tries, and may have been done though the answer was lost: what counts is the members' list."""
        deadline = time.monotonic() + seconds
        old = member.member_id
        await self._insist(
            "member/remove", {"ID": str(old)}, deadline, member,
            lambda listed: all(int(one["ID"]) != old for one in listed),
            before=lambda: setattr(member, "excuse", "it was removed"),
        )  # fmt: skip
        await member.end(signal.SIGKILL)
        member.wipe()
        if new_peer_url:
            member.generation += 1
            if member.relay is not None:
                await member.relay.stop()
                await self.relay_before(member, member.generation)
        url = member.peer_url
        listed = await self._insist(
            "member/add", {"peerURLs": [url], "isLearner": as_learner}, deadline, member,
            lambda listed: any(one["peerURLs"] == [url] for one in listed),
        )  # fmt: skip
        new = next(int(one["ID"]) for one in listed if one["peerURLs"] == [url])
        member.is_new_cluster = False
        member.excuse = None
        await member.start()
        if as_learner:
            await self._insist(
                "member/promote", {"ID": str(new)}, deadline, member,
                lambda listed: any(int(one["ID"]) == new and not one.get("isLearner") for one in listed),
            )  # fmt: skip
        member.member_id = new

    async def _insist(
        self,
        what: str,
        message: dict[str, Any],
        deadline: float,
        about: Member,
        is_done: Callable[[list[dict[str, Any]]], bool],
        before: Callable[[], None] = lambda: None,
    ) -> list[dict[str, Any]]:
        before()
        others = [m for m in self.members if m is not about]
        problem: object = None
        turn = 0
        while time.monotonic() < deadline:
            via = others[turn % len(others)]
            turn += 1
            try:
                listed: list[dict[str, Any]] = (await self.ask(via, "/v3/cluster/member/list", {}))["members"]
                if is_done(listed):
                    return listed
                await self.ask(via, f"/v3/cluster/{what}", message, seconds=8.0)
            except Refused as error:
                problem = error
                await asyncio.sleep(0.2)
        raise Violation(f"{what} of {about.name} was not done in time: {problem}")
