"""The driver: batches, the order of disk and answers, waiting, and failing."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from raft.core.config import Config
from raft.core.consensus import Consensus
from raft.core.messages import AppendEntries, Heartbeat, Message, RequestVoteResponse
from raft.core.storage import MemoryStorage
from raft.core.types import Membership
from raft.driver import Driver, DriverSettings
from raft.errors import LeadershipLost, NotLeader, Overloaded, Stopped, TimedOut
from raft.proposals import Proposals
from raft.wal.wal import Wal
from tests.raft.wal.lossy import LossyDisk


class GatedDisk(LossyDisk):
    """A disk whose sync waits at a gate, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.syncs = 0
        self.waiting = threading.Event()

    def step(self, what: str) -> None:
        if what == "sync":
            self.waiting.set()
            assert self.gate.wait(10)
            self.syncs += 1
        super().step(what)


class Recorder:
    """A state machine that remembers what it applied."""

    def __init__(self) -> None:
        self.applied: list[bytes] = []
        self.index = self.term = 0
        self.durable_applied = (0, 0)
        self.pending_bytes = 0
        self.fail_on: bytes | None = None

    def apply(self, index: int, term: int, data: bytes) -> str:
        assert index == self.index + 1
        self.term = term
        if data == self.fail_on:
            raise RuntimeError("the state machine broke")
        self.index = index
        if data:
            self.applied.append(data)
        return f"result of {data.decode()}"

    def apply_membership(self, index: int, term: int, membership: bytes) -> None:
        self.apply(index, term, b"")

    def freeze(self) -> None: ...

    def write_frozen(self) -> None: ...

    def release_frozen(self) -> None:
        self.durable_applied = (self.index, self.term)


class Wire:
    """A transport that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, messages: Sequence[Message]) -> None:
        self.sent += messages


class Rig:
    """A driver with everything around it under control."""

    def __init__(self, voters: int = 1, **settings: float) -> None:
        self.disk = GatedDisk()
        self.machine = Recorder()
        self.wire = Wire()
        self.failures: list[BaseException] = []
        wal, _ = Wal.open(self.disk, Path("/wal"), identity=b"")
        storage = MemoryStorage(Membership(frozenset(range(1, voters + 1))))
        core = Consensus(Config(id=1, rng=random.Random(0)), storage)
        chosen = DriverSettings(**{"tick_interval": 0.01, **settings})
        loop = asyncio.get_running_loop()
        self.driver = Driver(
            core,
            storage,
            wal,
            self.machine,
            self.wire,
            Proposals(1, 0, chosen.request_timeout, loop),
            chosen,
            on_applied=lambda result: None,
            on_restored=lambda: None,
            on_fatal=self.failures.append,
        )
        self.driver.start()


@asynccontextmanager
async def rig(voters: int = 1, **settings: float) -> AsyncIterator[Rig]:
    made = Rig(voters, **settings)
    try:
        if voters == 1:
            await leading(made)
        yield made
    finally:
        made.disk.gate.set()
        await made.driver.stop()


async def leading(made: Rig) -> None:
    while True:
        try:
            await made.driver.read_barrier()
            return
        except NotLeader:
            await asyncio.sleep(0.001)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # the driver has no event for what tests look at
            await asyncio.sleep(0.001)


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


async def test_proposals_are_answered_with_what_apply_returned() -> None:
    """Each waiter gets the result of its own entry, in order."""
    async with rig() as r:
        results = await asyncio.gather(*(r.driver.propose(b"%d" % n) for n in range(50)))
        assert results == [f"result of {n}" for n in range(50)]
        assert r.machine.applied == [b"%d" % n for n in range(50)]


async def test_what_arrives_during_a_sync_shares_the_next_one() -> None:
    """Group commit: while one fdatasync is under way, a hundred proposals come; one more
    fdatasync makes all of them durable."""
    async with rig() as r:
        r.disk.waiting.clear()
        r.disk.gate.clear()
        before = r.disk.syncs
        first = r.driver.propose(b"first")
        await until(r.disk.waiting)
        rest = [r.driver.propose(b"%d" % n) for n in range(100)]
        await asyncio.sleep(0.05)
        assert not first.done()
        assert not any(one.done() for one in rest)
        r.disk.gate.set()
        await asyncio.gather(first, *rest)
        assert r.disk.syncs - before == 2


async def test_nothing_is_answered_before_it_is_durable() -> None:
    """As long as the disk has not said so, nobody is told, and nothing is applied."""
    async with rig() as r:
        r.disk.gate.clear()
        r.disk.waiting.clear()
        future = r.driver.propose(b"x")
        await until(r.disk.waiting)
        await asyncio.sleep(0.05)
        assert not future.done()
        assert r.machine.applied == []
        r.disk.gate.set()
        assert await future == "result of x"


async def test_reads_of_one_turn_share_a_round_and_see_what_was_acknowledged() -> None:
    """A read that comes after an acknowledgement finds it applied."""
    async with rig() as r:
        await r.driver.propose(b"x")
        await asyncio.gather(*(r.driver.read_barrier() for _ in range(100)))
        assert r.machine.applied == [b"x"]


async def test_a_failing_disk_ends_all_promises() -> None:
    """Whoever waits is told, whoever comes later too, and the owner is told once."""
    async with rig() as r:
        r.disk.fail_at = r.disk.operations + 1
        futures = [r.driver.propose(b"%d" % n) for n in range(3)]
        for result in await asyncio.gather(*futures, return_exceptions=True):
            assert isinstance(result, Stopped)
        with pytest.raises(Stopped):
            r.driver.propose(b"later")
        with pytest.raises(Stopped):
            r.driver.read_barrier()
        assert len(r.failures) == 1
        assert "Input/output error" in str(r.failures[0])
        assert r.machine.applied == []


async def test_a_broken_state_machine_ends_all_promises() -> None:
    """An exception in apply stops the node; it does not go on with the next entry."""
    async with rig() as r:
        r.machine.fail_on = b"bad"
        good, bad, later = (r.driver.propose(data) for data in (b"good", b"bad", b"later"))
        assert await good == "result of good"
        for future in (bad, later):
            with pytest.raises(Stopped):
                await future
        assert r.machine.applied == [b"good"]
        assert len(r.failures) == 1


async def test_too_many_waiting_proposals_are_refused() -> None:
    """Beyond a limit a proposal is refused at once, and nothing was done of it."""
    async with rig(proposals_max=2) as r:
        r.disk.gate.clear()
        taken = [r.driver.propose(b"1"), r.driver.propose(b"2")]
        with pytest.raises(Overloaded):
            r.driver.propose(b"3")
        r.disk.gate.set()
        await asyncio.gather(*taken)
        assert await r.driver.propose(b"4") == "result of 4"
        assert b"3" not in r.machine.applied


async def test_a_proposal_without_an_answer_times_out() -> None:
    """A hanging disk keeps nobody waiting for ever; what was proposed may be done later all the same."""
    async with rig(request_timeout=0.1) as r:
        r.disk.gate.clear()
        with pytest.raises(TimedOut):
            await r.driver.propose(b"slow")
        r.disk.gate.set()
        await leading(r)
        await eventually(lambda: r.machine.applied == [b"slow"])


async def test_without_a_leader_proposals_and_reads_are_refused() -> None:
    """One of three that has heard of nobody takes nothing."""
    async with rig(voters=3) as r:
        with pytest.raises(NotLeader):
            await r.driver.propose(b"x")
        with pytest.raises(NotLeader):
            await r.driver.read_barrier()


async def test_a_leader_that_loses_its_office_says_so() -> None:
    """Who waits on a leader that another has replaced is told that the outcome is unknown."""
    async with rig(voters=2) as r:
        r.driver.core.campaign()
        r.driver.receive(RequestVoteResponse(2, 1, r.driver.core.current_term, True))
        await eventually(lambda: r.driver.core.leader_id == 1)
        proposal = r.driver.propose(b"x")
        await asyncio.sleep(0.02)
        r.driver.receive(AppendEntries(2, 1, 99, 0, 0, (), 0))
        with pytest.raises(LeadershipLost):
            await proposal


async def test_heartbeats_go_on_while_the_disk_hangs() -> None:
    """A leader whose own fdatasync takes long does not lose its office over it."""
    async with rig(voters=2) as r:
        r.driver.core.campaign()
        r.driver.receive(RequestVoteResponse(2, 1, r.driver.core.current_term, True))
        await eventually(lambda: r.driver.core.leader_id == 1)
        r.disk.gate.clear()
        r.disk.waiting.clear()
        r.driver.propose(b"x").add_done_callback(lambda future: future.exception())
        await until(r.disk.waiting)
        before = len(r.wire.sent)
        await eventually(lambda: sum(isinstance(m, Heartbeat) for m in r.wire.sent[before:]) >= 3)


async def test_the_log_is_cut_behind_what_is_durable() -> None:
    """The log in memory keeps a tail, and no more than it must."""
    async with rig(snapshot_count=20, catchup_entries=10, flush_interval=0.01) as r:
        r.machine.pending_bytes = 1
        for _ in range(20):
            await asyncio.gather(*(r.driver.propose(b"x") for _ in range(10)))
        await eventually(lambda: r.driver.core.log.first_index >= 180)
        assert r.machine.durable_applied[0] - r.driver.core.log.first_index < 31
        assert len(r.machine.applied) == 200
