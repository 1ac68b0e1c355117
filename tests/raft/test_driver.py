"""The driver: batches, the order of disk and answers, waiting, and failing."""

from __future__ import annotations

import asyncio
import gc
import random
import struct
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from raft.core.config import Config
from raft.core.consensus import Consensus
from raft.core.errors import InvariantViolated
from raft.core.membership import Change, ChangeKind, encode
from raft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    Propose,
    ProposeRefused,
    ReadIndexResponse,
    RequestPreVote,
    RequestReadIndex,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from raft.core.storage import MemoryStorage
from raft.core.types import Entry, EntryType, Membership, Position, Role, SnapshotMeta
from raft.driver import Driver, DriverSettings
from raft.errors import LeadershipLost, Overloaded, Stopped, TimedOut
from raft.proposals import Proposals
from raft.wal.recovery import recover
from raft.wal.wal import Wal
from tests.raft.wal.lossy import LossyDisk

WAL = Path("/wal")
THREE = Membership(frozenset({1, 2, 3}))
M = TypeVar("M")


class GatedDisk(LossyDisk):
    """A disk whose sync waits at a gate, and counts."""

    def __init__(self, story: list[str]) -> None:
        super().__init__()
        self.story = story
        self.gate = threading.Event()
        self.gate.set()
        self.syncs = 0
        self.waiting = threading.Event()
        self.delay = 0.0
        self.thread = ""  # where it was synced last

    def step(self, what: str) -> None:
        if what == "sync":
            self.waiting.set()
            assert self.gate.wait(10)
            time.sleep(self.delay)
            self.thread = threading.current_thread().name
            self.syncs += 1
            self.story.append("log synced")
        super().step(what)


class Recorder:
    """A state machine that remembers what it applied. Its flushes wait at a gate."""

    def __init__(self, story: list[str]) -> None:
        self.story = story
        self.flushing = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
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

    def freeze(self) -> None:
        self.frozen = (self.index, self.term)

    def write_frozen(self) -> None:
        self.flushing.set()
        assert self.gate.wait(10)
        self.story.append("state flushed")

    def release_frozen(self) -> None:
        self.durable_applied = self.frozen

    def restore(self, open_store: Callable[[], Position]) -> None:
        self.story.append("machine restored")
        self.index, self.term = self.durable_applied = open_store()
        self.pending_bytes = 0


class Staged:
    """A snapshot's content; its installation waits at a gate. ``state``: where it really is."""

    def __init__(self, disk: LossyDisk, story: list[str], state: Position) -> None:
        self.disk = disk
        self.story = story
        self.state = state
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.thread = ""
        self.is_discarded = False
        self.marked: Position | None = None  # what the log said when the installation began

    def install(self) -> None:
        self.thread = threading.current_thread().name
        self.marked = recover(self.disk, WAL).installing
        self.begun.set()
        assert self.gate.wait(10)
        self.story.append("state installed")

    def open(self) -> Position:
        return self.state

    def discard(self) -> None:
        self.is_discarded = True


class Wire:
    """A transport that keeps what is sent."""

    def __init__(self, story: list[str]) -> None:
        self.story = story
        self.sent: list[Message] = []

    def send(self, messages: Sequence[Message]) -> None:
        self.sent += messages
        self.story += [f"{type(message).__name__} sent" for message in messages]

    def of(self, kind: type[M]) -> list[M]:
        return [message for message in self.sent if isinstance(message, kind)]


class Rig:
    """A driver with everything around it under control."""

    def __init__(self, voters: int = 1, election_ticks: int = 10, **settings: float) -> None:
        self.story: list[str] = []  # what happened, in order
        self.disk = GatedDisk(self.story)
        self.machine = Recorder(self.story)
        self.wire = Wire(self.story)
        self.failures: list[BaseException] = []
        wal, _ = Wal.open(self.disk, WAL, identity=b"")
        storage = MemoryStorage(Membership(frozenset(range(1, voters + 1))))
        core = Consensus(Config(id=1, rng=random.Random(0), election_ticks=election_ticks), storage)
        chosen = DriverSettings(**{"tick_interval": 0.01, **settings})
        loop = asyncio.get_running_loop()
        self.driver = Driver(
            core,
            storage,
            wal,
            self.machine,
            self.wire,
            Proposals(1 << 48, chosen.request_timeout, loop),
            chosen,
            on_applied=lambda result: None,
            on_restored=lambda: self.story.append("owner told"),
            on_fatal=self.failures.append,
        )
        self.driver.start()

    async def ticked(self, count: int = 1) -> None:
        """So many ticks from now on have passed."""
        for _ in range(count):
            awaited = self.driver._ticker
            await eventually(lambda awaited=awaited: self.driver._ticker is not awaited)


@asynccontextmanager
async def rig(voters: int = 1, election_ticks: int = 10, **settings: float) -> AsyncIterator[Rig]:
    made = Rig(voters, election_ticks, **settings)
    try:
        if voters == 1:
            await leading(made)
        yield made
    finally:
        made.disk.gate.set()
        made.machine.gate.set()
        await made.driver.stop()


async def leading(made: Rig) -> None:
    await made.driver.read_barrier()


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


async def test_without_a_leader_proposals_and_reads_wait_and_time_out() -> None:
    """One of three that has heard of nobody keeps them for as long as their clients wait, and no longer."""
    async with rig(voters=3, request_timeout=0.1) as r:
        proposal, read = r.driver.propose(b"x"), r.driver.read_barrier()
        with pytest.raises(TimedOut):
            await proposal
        with pytest.raises(TimedOut):
            await read
        r.driver.receive(Heartbeat(2, 1, 1, 0, 0))
        await turns()
        assert r.wire.of(Propose) == []
        assert r.wire.of(RequestReadIndex) == []


async def test_what_waited_for_a_leader_goes_to_it() -> None:
    """As soon as one is heard of, and all together: proposals in batches, reads as one question."""
    async with rig(voters=3) as r:
        proposals = [r.driver.propose(b"%d" % n) for n in range(3)]
        reads = []
        for _ in range(3):
            reads.append(r.driver.read_barrier())
            await turns()
        r.driver.receive(Heartbeat(2, 1, 1, 0, 0))
        await eventually(lambda: bool(r.wire.of(RequestReadIndex)))
        [message], [asked] = r.wire.of(Propose), r.wire.of(RequestReadIndex)
        log = tuple(Entry(n, 1, EntryType.NORMAL, data) for n, data in enumerate(message.data, start=1))
        r.driver.receive(AppendEntries(2, 1, 1, 0, 0, log, 3))
        r.driver.receive(ReadIndexResponse(2, 1, 1, asked.life, asked.ctx, 3))
        assert await asyncio.gather(*proposals) == ["result of 0", "result of 1", "result of 2"]
        await asyncio.gather(*reads)


async def test_more_than_can_wait_is_refused_at_once() -> None:
    """Counted in proposals, in their bytes and in reads: nothing queues up without bound."""
    async with rig(voters=3, proposals_max=2, reads_max=2, proposals_bytes_max=100) as r:
        waiting: list[asyncio.Future[Any]] = [r.driver.propose(b"x" * 60)]
        with pytest.raises(Overloaded):
            r.driver.propose(b"x" * 60)
        waiting.append(r.driver.propose(b"x"))
        with pytest.raises(Overloaded):
            r.driver.propose(b"x")
        waiting += [r.driver.read_barrier(), r.driver.read_barrier()]
        with pytest.raises(Overloaded):
            r.driver.read_barrier()
        await r.driver.stop()
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, Stopped)


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
        await eventually(lambda: r.machine.durable_applied[0] == 201)
        await eventually(lambda: 201 - r.driver.core.log.first_index < 31)
        assert len(r.machine.applied) == 200


# Followers and leaders of three. Their election timeout never comes.


PATIENT = 10**6


@asynccontextmanager
async def following(**settings: float) -> AsyncIterator[Rig]:
    """Member 1 follows member 2, which leads term 1."""
    async with rig(voters=3, election_ticks=PATIENT, **settings) as r:
        r.driver.receive(AppendEntries(2, 1, 1, 0, 0, (), 0))
        await eventually(lambda: bool(r.wire.of(AppendEntriesResponse)))
        r.wire.sent.clear()
        r.story.clear()
        yield r


@asynccontextmanager
async def in_office(**settings: float) -> AsyncIterator[Rig]:
    """Member 1 leads, and member 2 has all it has."""
    async with rig(voters=3, election_ticks=PATIENT, **settings) as r:
        r.driver.core.campaign()
        r.driver.receive(RequestVoteResponse(2, 1, 1, True))
        await eventually(lambda: r.driver.core.role is Role.LEADER)
        acknowledge(r)
        await eventually(lambda: r.driver.core.last_applied == 1)
        yield r


def acknowledge(r: Rig) -> None:
    """Member 2 has the leader's whole log."""
    core = r.driver.core
    r.driver.receive(AppendEntriesResponse(2, 1, core.current_term, True, core.last_index))


async def write(r: Rig, count: int) -> None:
    """So many proposals are committed and applied."""
    expected = r.driver.core.last_index + count
    futures = [r.driver.propose(b"x") for _ in range(count)]
    await eventually(lambda: r.driver.core.last_index == expected)
    acknowledge(r)
    await asyncio.gather(*futures)


async def turns() -> None:
    """Let the loop run through all that it could do now."""
    for _ in range(30):
        await asyncio.sleep(0)


def entry(index: int, data: bytes, proposal_id: int = 0) -> Entry:
    return Entry(index, 1, EntryType.NORMAL, struct.pack(">Q", proposal_id) + data)


def send_snapshot(r: Rig, position: Position, state: Position | None = None) -> Staged:
    """Member 2 sends a snapshot; what can be done with what is returned is to close its gate."""
    staged = Staged(r.disk, r.story, state or position)
    r.driver.receive_snapshot(InstallSnapshot(2, 1, 1, SnapshotMeta(position, THREE)), staged)
    return staged


async def answered(r: Rig, index: int) -> None:
    answer = AppendEntriesResponse(1, 2, 1, True, index)
    await eventually(lambda: answer in r.wire.sent)


# A snapshot that arrives.


async def test_a_snapshot_replaces_state_and_log_in_order() -> None:
    """First the log is marked, then the state replaced on the state's disk, then in memory, then the
    owner hears of it, then the log begins anew, and only then the leader is told."""
    async with following() as r:
        staged = send_snapshot(r, Position(10, 1))
        await answered(r, 10)
        assert r.story == [
            "log synced",
            "state installed",
            "machine restored",
            "owner told",
            "log synced",
            "AppendEntriesResponse sent",
        ]
        assert staged.marked == (10, 1)
        assert staged.thread.startswith("state")
        log = recover(r.disk, WAL)
        assert (log.base, log.entries, log.installing) == ((10, 1), [], None)
        assert log.hard_state == (1, 0, 10)
        core = r.driver.core
        assert (core.last_applied, core.commit_index, core.log.first_index) == (10, 10, 11)
        assert core.log.storage.snapshot == (10, 1)


async def test_a_snapshot_is_acknowledged_only_when_it_is_durable() -> None:
    """While either disk hangs nothing later is begun, and nothing answered but heartbeats."""
    async with following() as r:
        r.disk.gate.clear()
        r.disk.waiting.clear()
        staged = send_snapshot(r, Position(10, 1))
        staged.gate.clear()
        await until(r.disk.waiting)  # with the mark
        await turns()
        assert not staged.begun.is_set()

        r.disk.gate.set()
        await until(staged.begun)
        r.disk.gate.clear()
        r.disk.waiting.clear()
        r.driver.receive(Heartbeat(2, 1, 1, 0, 7))
        await turns()
        assert "machine restored" not in r.story
        assert r.wire.sent == [HeartbeatResponse(1, 2, 1, 7)]

        staged.gate.set()
        await until(r.disk.waiting)  # with the end of the installation
        await turns()
        assert "machine restored" in r.story
        assert r.wire.of(AppendEntriesResponse) == []

        r.disk.gate.set()
        await answered(r, 10)


async def test_a_snapshot_keeps_its_place_among_the_writes() -> None:
    """Entries that came before it are written before its mark, those that came after it behind its end."""
    async with following() as r:
        r.disk.gate.clear()
        r.disk.waiting.clear()
        r.driver.receive(AppendEntries(2, 1, 1, 0, 0, (entry(1, b"old"),), 0))
        await until(r.disk.waiting)
        r.driver.receive(AppendEntries(2, 1, 1, 1, 1, (entry(2, b"old"),), 0))
        await turns()
        staged = send_snapshot(r, Position(10, 1))
        await turns()
        r.driver.receive(AppendEntries(2, 1, 1, 10, 1, (entry(11, b"new"),), 10))
        await turns()
        assert recover(r.disk, WAL).installing is None
        assert not staged.begun.is_set()
        r.disk.gate.set()
        await answered(r, 11)
        assert [answer.index for answer in r.wire.of(AppendEntriesResponse)] == [1, 2, 10, 11]
        assert r.story.index("AppendEntriesResponse sent") < r.story.index("state installed")
        log = recover(r.disk, WAL)
        assert (log.base, log.entries) == ((10, 1), [entry(11, b"new")])
        assert r.machine.applied == []


async def test_a_snapshot_waits_for_the_flush_under_way() -> None:
    """What a flush writes is of the old state: it ends before the state is replaced, and none begins
    until the log has begun anew."""
    async with following(flush_interval=0.0) as r:
        r.machine.gate.clear()
        r.machine.pending_bytes = 1
        await until(r.machine.flushing)
        staged = send_snapshot(r, Position(10, 1))
        await eventually(lambda: recover(r.disk, WAL).installing == (10, 1))
        await turns()
        assert not staged.begun.is_set()
        staged.gate.clear()
        r.machine.gate.set()
        await until(staged.begun)
        await r.ticked(3)
        assert r.story.count("state flushed") == 1
        staged.gate.set()
        await answered(r, 10)
        story = [what for what in r.story if what.startswith(("state", "machine"))]
        assert story[:3] == ["state flushed", "state installed", "machine restored"]


async def test_no_flush_is_begun_while_a_snapshot_is_installed() -> None:
    """It would write what is about to be replaced, or what has just been."""
    async with following(flush_interval=0.0) as r:
        r.disk.gate.clear()
        r.disk.waiting.clear()
        send_snapshot(r, Position(10, 1))
        await until(r.disk.waiting)
        r.machine.pending_bytes = 1
        await r.ticked(3)
        assert not r.machine.flushing.is_set()
        r.disk.gate.set()
        await answered(r, 10)
        assert not r.machine.flushing.is_set()
        r.machine.pending_bytes = 1
        await until(r.machine.flushing)


async def test_what_waits_to_be_applied_is_in_the_snapshot() -> None:
    """Committed entries that waited for a flush when the snapshot came are not applied on top of it."""
    async with following(pending_bytes_max=0) as r:
        r.machine.gate.clear()
        r.machine.pending_bytes = 1
        r.driver.receive(AppendEntries(2, 1, 1, 0, 0, (entry(1, b"old"),), 1))
        await until(r.machine.flushing)
        send_snapshot(r, Position(10, 1))
        r.driver.receive(AppendEntries(2, 1, 1, 10, 1, (entry(11, b"new"),), 11))
        await turns()
        r.machine.gate.set()
        await answered(r, 11)
        await eventually(lambda: r.machine.applied == [b"new"])
        assert r.failures == []


async def test_a_commit_index_of_before_does_not_come_back() -> None:
    """A commit index that waited to be written along with something is outdated by the snapshot."""
    async with following() as r:
        r.driver.receive(AppendEntries(2, 1, 1, 0, 0, (entry(1, b"x"),), 0))
        await answered(r, 1)
        r.driver.receive(Heartbeat(2, 1, 1, 1, 0))
        await eventually(lambda: r.machine.applied == [b"x"])
        send_snapshot(r, Position(10, 1))
        await answered(r, 10)
        r.driver.receive(AppendEntries(2, 1, 1, 10, 1, (entry(11, b"y"),), 10))
        await answered(r, 11)
        assert recover(r.disk, WAL).hard_state == (1, 0, 10)


async def test_reads_of_what_a_snapshot_holds_are_served_with_it() -> None:
    """A read that the leader has confirmed waits for its index, however the state comes to it."""
    async with following() as r:
        read = r.driver.read_barrier()
        await eventually(lambda: bool(r.wire.of(RequestReadIndex)))
        [asked] = r.wire.of(RequestReadIndex)
        r.driver.receive(ReadIndexResponse(2, 1, 1, asked.life, asked.ctx, 10))
        await turns()
        assert not read.done()
        send_snapshot(r, Position(10, 1))
        async with asyncio.timeout(10):
            await read
        assert r.machine.index == 10


async def test_who_waits_is_told_when_a_snapshot_comes() -> None:
    """A proposal that was passed on may be answered nowhere any more: its outcome is unknown. A read is
    asked for once more."""
    async with following() as r:
        proposal, read = r.driver.propose(b"x"), r.driver.read_barrier()
        await eventually(lambda: bool(r.wire.of(Propose) and r.wire.of(RequestReadIndex)))
        send_snapshot(r, Position(10, 1))
        with pytest.raises(LeadershipLost, match="sent a snapshot"):
            await proposal
        await answered(r, 10)
        await eventually(lambda: len(r.wire.of(RequestReadIndex)) == 2)
        asked = r.wire.of(RequestReadIndex)[1]
        r.driver.receive(ReadIndexResponse(2, 1, 1, asked.life, asked.ctx, 10))
        await read


async def test_entries_that_follow_a_snapshot_are_applied_after_it() -> None:
    """What comes while the snapshot is being installed, committed or not, waits for it and goes on from it,
    at once."""
    async with following(tick_interval=60) as r:
        r.disk.gate.clear()
        r.disk.waiting.clear()
        send_snapshot(r, Position(10, 1))
        await until(r.disk.waiting)
        r.driver.receive(AppendEntries(2, 1, 1, 10, 1, (entry(11, b"a"), entry(12, b"b")), 11))
        await turns()
        assert r.machine.applied == []
        r.disk.gate.set()
        await answered(r, 12)
        await eventually(lambda: r.machine.applied == [b"a"])
        r.driver.receive(Heartbeat(2, 1, 1, 12, 0))
        await eventually(lambda: r.machine.applied == [b"a", b"b"])
        log = recover(r.disk, WAL)
        assert log.base == (10, 1)
        assert log.entries == [entry(11, b"a"), entry(12, b"b")]


async def test_a_snapshot_may_be_followed_by_another() -> None:
    """A newer snapshot that comes while one is being installed is installed after it."""
    async with following() as r:
        r.disk.gate.clear()
        r.disk.waiting.clear()
        send_snapshot(r, Position(10, 1))
        await until(r.disk.waiting)
        send_snapshot(r, Position(20, 1))
        await turns()
        r.disk.gate.set()
        await answered(r, 20)
        assert r.story.count("machine restored") == 2
        assert r.machine.durable_applied == (20, 1)
        assert recover(r.disk, WAL).base == (20, 1)
        assert r.driver.core.last_applied == 20


async def test_the_same_snapshot_twice_leaves_one_content() -> None:
    """Two leaders may send the same position: the content that comes later takes the place of the other,
    which is discarded and not forgotten."""
    async with following() as r:
        first, second = send_snapshot(r, Position(10, 1)), send_snapshot(r, Position(10, 1))
        await answered(r, 10)
        assert (first.is_discarded, second.is_discarded) == (True, False)
        assert (first.begun.is_set(), second.begun.is_set()) == (False, True)


async def test_a_snapshot_of_what_is_there_is_dropped() -> None:
    """A doubled or late snapshot is answered, and its content not looked at."""
    async with following() as r:
        send_snapshot(r, Position(10, 1))
        await answered(r, 10)
        r.wire.sent.clear()
        late = send_snapshot(r, Position(9, 1)), send_snapshot(r, Position(10, 1))
        await eventually(lambda: len(r.wire.of(AppendEntriesResponse)) == 2)
        assert {answer.index for answer in r.wire.of(AppendEntriesResponse)} == {10}
        await turns()
        assert not any(one.begun.is_set() for one in late)
        assert all(one.is_discarded for one in late)
        contents = [weakref.ref(one) for one in late]
        del late
        gc.collect()
        assert [content() for content in contents] == [None, None], "they are kept in memory"


@pytest.mark.parametrize("state", [Position(9, 1), Position(10, 2), Position(11, 1)])
async def test_a_snapshot_that_is_not_at_its_position_stops_the_node(state: Position) -> None:
    """A state that is not the one the leader spoke of is not acknowledged."""
    async with following() as r:
        send_snapshot(r, Position(10, 1), state)
        await eventually(lambda: bool(r.failures))
        [failure] = r.failures
        assert isinstance(failure, InvariantViolated)
        assert "said to be at 10@1" in str(failure)
        await turns()
        assert r.wire.sent == []
        assert "owner told" not in r.story


# What a follower passes on.


async def test_a_follower_passes_proposals_on_and_answers_them() -> None:
    """The proposals of one turn go to the leader together, and each is answered with what it brought when
    it is applied here."""
    async with following() as r:
        futures = [r.driver.propose(b"a"), r.driver.propose(b"b")]
        await eventually(lambda: bool(r.wire.of(Propose)))
        [message] = r.wire.of(Propose)
        assert (message.source, message.target, message.term) == (1, 2, 1)
        log = tuple(Entry(n, 1, EntryType.NORMAL, data) for n, data in enumerate(message.data, start=1))
        r.driver.receive(AppendEntries(2, 1, 1, 0, 0, log, 1))
        assert await futures[0] == "result of a"
        await turns()
        assert not futures[1].done()
        r.driver.receive(Heartbeat(2, 1, 1, 2, 0))
        assert await futures[1] == "result of b"


@pytest.mark.parametrize("term", [1, 5])
async def test_what_the_leader_refused_did_not_happen(term: int) -> None:
    """A refusal says that nothing was appended, also where it is the first to tell of a newer term: then
    these proposals go to the leader once more, and of others that were passed on nobody knows."""
    async with following() as r:
        refused = [r.driver.propose(b"a"), r.driver.propose(b"b")]
        await eventually(lambda: len(r.wire.of(Propose)) == 1)
        other = r.driver.propose(b"c")
        await eventually(lambda: len(r.wire.of(Propose)) == 2)
        first = r.wire.of(Propose)[0]
        r.driver.receive(ProposeRefused(2, 1, term, first.life, first.ctx))
        if term == 5:
            r.driver.receive(Heartbeat(3, 1, term, 0, 0))
        await eventually(lambda: len(r.wire.of(Propose)) == 3)
        again = r.wire.of(Propose)[2]
        assert (again.target, again.data) == (2 if term == 1 else 3, first.data)
        assert not any(future.done() for future in refused)
        if term == 1:
            assert not other.done()
        else:
            with pytest.raises(LeadershipLost):
                await other


async def test_a_refusal_for_an_earlier_life_means_nothing() -> None:
    """Contexts begin anew with every start: an answer to who asked before that is none to who asks now."""
    async with following() as r:
        future = r.driver.propose(b"a")
        await eventually(lambda: bool(r.wire.of(Propose)))
        [message] = r.wire.of(Propose)
        r.driver.receive(ProposeRefused(2, 1, 1, message.life + 1, message.ctx))
        await turns()
        assert not future.done()
        assert len(r.wire.of(Propose)) == 1
        r.driver.receive(ProposeRefused(2, 1, 1, message.life, message.ctx))
        await eventually(lambda: len(r.wire.of(Propose)) == 2)


async def test_what_was_not_passed_on_yet_goes_to_the_new_leader() -> None:
    """A proposal that comes in the very turn that brings a new leader was given to nobody yet: it is not
    given up, but what the old leader has is."""
    async with following() as r:
        old = r.driver.propose(b"old")
        await eventually(lambda: bool(r.wire.of(Propose)))
        r.driver.receive(Heartbeat(3, 1, 2, 0, 0))
        new = r.driver.propose(b"new")
        with pytest.raises(LeadershipLost):
            await old
        await eventually(lambda: len(r.wire.of(Propose)) == 2)
        message = r.wire.of(Propose)[1]
        assert (message.target, message.term) == (3, 2)
        assert not new.done()
        log = (Entry(1, 2, EntryType.NORMAL, message.data[0]),)
        r.driver.receive(AppendEntries(3, 1, 2, 0, 0, log, 1))
        assert await new == "result of new"


async def test_a_follower_passes_reads_on() -> None:
    """The reads of one turn ask the leader once, and are served when this node has applied what the leader
    names."""
    async with following() as r:
        reads = [r.driver.read_barrier() for _ in range(3)]
        await eventually(lambda: bool(r.wire.of(RequestReadIndex)))
        [asked] = r.wire.of(RequestReadIndex)
        assert (asked.source, asked.target, asked.term) == (1, 2, 1)
        r.driver.receive(ReadIndexResponse(2, 1, 1, asked.life, asked.ctx, 1))
        await turns()
        assert not any(read.done() for read in reads)
        r.driver.receive(AppendEntries(2, 1, 1, 0, 0, (entry(1, b"x"),), 1))
        await asyncio.gather(*reads)
        assert r.machine.applied == [b"x"]
        later = r.driver.read_barrier()
        await eventually(lambda: len(r.wire.of(RequestReadIndex)) == 2)
        r.driver.receive(ReadIndexResponse(2, 1, 1, asked.life, r.wire.of(RequestReadIndex)[1].ctx, 1))
        await later


@pytest.mark.parametrize("which", [0, -1])
async def test_a_read_that_gets_no_answer_is_asked_for_again(which: int) -> None:
    """A question may be lost, or its answer: it is put again, by a context of its own, and the answer to
    any of them will do."""
    async with following(read_retry=0.0) as r:
        read = r.driver.read_barrier()
        await eventually(lambda: len(r.wire.of(RequestReadIndex)) >= 3)
        contexts = [asked.ctx for asked in r.wire.of(RequestReadIndex)]
        assert len(set(contexts)) == len(contexts)
        assert not read.done()
        life = r.driver.core.life
        r.driver.receive(ReadIndexResponse(2, 1, 1, life, contexts[which], 0))
        await read
        await r.ticked()
        asked_until_now = len(r.wire.of(RequestReadIndex))
        await r.ticked()
        assert len(r.wire.of(RequestReadIndex)) == asked_until_now


async def test_a_read_is_not_asked_for_again_too_soon() -> None:
    """Who has an answer to come gets time for it."""
    async with following(read_retry=60) as r:
        read = r.driver.read_barrier()
        await r.ticked(5)
        assert len(r.wire.of(RequestReadIndex)) == 1
        assert not read.done()
        read.cancel()


async def test_a_read_refused_by_one_that_does_not_lead_is_asked_for_again() -> None:
    """Whoever leads by then answers it."""
    async with following() as r:
        read = r.driver.read_barrier()
        await eventually(lambda: bool(r.wire.of(RequestReadIndex)))
        [asked] = r.wire.of(RequestReadIndex)
        r.driver.receive(ReadIndexResponse(2, 1, 1, asked.life, asked.ctx, None))
        r.driver.receive(Heartbeat(3, 1, 2, 0, 0))
        await eventually(lambda: len(r.wire.of(RequestReadIndex)) == 2)
        again = r.wire.of(RequestReadIndex)[1]
        assert again.target == 3
        r.driver.receive(ReadIndexResponse(3, 1, 2, again.life, again.ctx, 0))
        await read


async def test_a_read_without_an_answer_times_out() -> None:
    """However often it was asked for."""
    async with following(request_timeout=0.05, read_retry=0.0) as r:
        with pytest.raises(TimedOut):
            await r.driver.read_barrier()
        await r.ticked()
        asked_until_now = len(r.wire.of(RequestReadIndex))
        await r.ticked()
        assert len(r.wire.of(RequestReadIndex)) == asked_until_now


# The end of promises.


async def test_nothing_leaves_after_a_fatal_error() -> None:
    """A node whose state machine broke acknowledges no more, not even what its disk was writing well."""
    async with following() as r:
        r.machine.fail_on = b"bad"
        r.driver.receive(AppendEntries(2, 1, 1, 0, 0, (entry(1, b"bad"),), 0))
        await answered(r, 1)
        r.wire.sent.clear()
        r.disk.gate.clear()
        r.disk.waiting.clear()
        r.driver.receive(AppendEntries(2, 1, 1, 1, 1, (entry(2, b"good"),), 0))
        await until(r.disk.waiting)
        r.driver.receive(Heartbeat(2, 1, 1, 1, 0))
        await eventually(lambda: bool(r.failures))
        r.wire.sent.clear()
        r.disk.gate.set()
        r.driver.receive(Heartbeat(2, 1, 1, 2, 0))
        r.driver.receive(AppendEntries(2, 1, 1, 2, 1, (entry(3, b"good"),), 0))
        await r.driver.stop()  # all that was under way has ended
        await turns()
        assert r.wire.sent == []
        assert r.machine.applied == []
        assert len(r.failures) == 1


@pytest.mark.parametrize("sync", [1, 2])
async def test_a_disk_that_fails_during_an_installation_ends_all_promises(sync: int) -> None:
    """A snapshot whose mark, or whose end, could not be written is not acknowledged."""
    async with following() as r:
        staged = Staged(r.disk, r.story, Position(10, 1))
        install = staged.install

        def fail_next() -> None:
            install()
            r.disk.fail_at = r.disk.operations + 1

        staged.install = fail_next  # type: ignore[method-assign]
        if sync == 1:
            r.disk.fail_at = r.disk.operations + 1
        snapshot = SnapshotMeta(Position(10, 1), THREE)
        r.driver.receive_snapshot(InstallSnapshot(2, 1, 1, snapshot), staged)
        await eventually(lambda: bool(r.failures))
        await turns()
        assert staged.begun.is_set() is (sync == 2)
        assert r.wire.sent == []


# What leaders do.


async def test_the_log_keeps_what_follows_a_snapshot_under_way() -> None:
    """Whoever is being sent a snapshot will need the entries behind it: they stay until it has come to
    its end, however much is written meanwhile."""
    async with in_office(snapshot_count=20, catchup_entries=10, flush_interval=0.0) as r:
        core = r.driver.core
        r.machine.pending_bytes = 1
        await write(r, 100)
        await eventually(lambda: core.log.first_index > 80)
        r.driver.receive(HeartbeatResponse(3, 1, 1, 0))  # it has nothing, and what it lacks is gone
        await eventually(lambda: bool(r.wire.of(InstallSnapshot)))
        [message] = r.wire.of(InstallSnapshot)
        sent = message.snapshot.position.index
        assert core.snapshot_under_way == sent
        for _ in range(3):
            await write(r, 100)
            await eventually(lambda: r.machine.durable_applied[0] == core.last_applied)
        await eventually(lambda: core.log.first_index == sent + 1)
        await r.ticked(2)
        assert core.log.first_index == sent + 1

        r.driver.report_snapshot(3, sent, arrived=True)
        await write(r, 100)
        await eventually(lambda: core.log.first_index > sent + 300)


async def test_a_log_that_grew_too_large_is_cut_all_the_same() -> None:
    """Memory is not given away for one follower: beyond twice its limit the log keeps nothing for it."""
    async with in_office(log_bytes_max=1, flush_interval=0.0) as r:
        core = r.driver.core
        r.machine.pending_bytes = 1
        await write(r, 10)
        await eventually(lambda: core.log.first_index == 12)
        r.driver.receive(HeartbeatResponse(3, 1, 1, 0))
        await eventually(lambda: core.snapshot_under_way == 11)
        await write(r, 10)
        await eventually(lambda: core.log.first_index == 22)
        assert core.snapshot_under_way == 11


async def test_a_message_for_another_member_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """What was delivered to the wrong address changes nothing here but the log file."""
    async with following() as r:
        r.driver.receive(Heartbeat(2, 3, 99, 0, 0))
        await turns()
        assert r.driver.core.current_term == 1
        assert r.wire.sent == []
        assert r.failures == []
        assert "a message for member 3 came here" in caplog.text
        r.driver.receive(Heartbeat(2, 1, 1, 0, 0))
        await eventually(lambda: bool(r.wire.of(HeartbeatResponse)))


async def test_no_proposal_is_taken_while_leadership_is_transferred() -> None:
    """It waits; when the transfer has failed, it is taken here."""
    async with in_office() as r:
        r.driver.transfer_leadership(3)
        proposal = r.driver.propose(b"x")
        await turns()
        assert r.driver.core.last_index == 1
        r.driver.core.transfer_target = 0
        await eventually(lambda: r.driver.core.last_index == 2)
        assert not proposal.done()


async def test_a_change_of_members_that_is_gone_from_the_log_did_not_succeed() -> None:
    """The new leader's log has another entry in its place: who waits for it hears that leadership was lost,
    and the change that the new leader makes is not taken for it."""
    async with in_office() as r:
        change = r.driver.change_members([Change(ChangeKind.REMOVE, 3)])
        other = Entry(3, 2, EntryType.MEMBERSHIP, encode(Membership(THREE.voters, frozenset({4}))))
        r.driver.receive(AppendEntries(2, 1, 2, 1, 1, (Entry(2, 2, EntryType.NORMAL, b""), other), 3))
        with pytest.raises(LeadershipLost):
            await change
        await eventually(lambda: r.driver.core.last_applied == 3)
        assert r.driver.core.membership.voters == THREE.voters


async def test_a_batch_that_was_lost_keeps_no_room_taken_but_its_own() -> None:
    """What was passed on after it, and was answered, counts no more."""
    async with following(proposals_bytes_max=100) as r:
        lost = r.driver.propose(b"lost")
        await eventually(lambda: len(r.wire.of(Propose)) == 1)
        r.wire.sent.clear()
        for index in range(1, 10):
            proposal = r.driver.propose(b"x" * 50)
            await eventually(lambda: bool(r.wire.of(Propose)))
            [sent] = r.wire.of(Propose)
            r.wire.sent.clear()
            taken = Entry(index, 1, EntryType.NORMAL, sent.data[0])
            previous = (index - 1, min(index - 1, 1))
            r.driver.receive(AppendEntries(2, 1, 1, *previous, (taken,), index))
            await proposal
            await r.ticked(2)
        assert lost.cancel()


# A leader that is gone, news that can wait, quick disks.


async def test_a_leader_that_is_gone_is_not_waited_for() -> None:
    """Whoever suspects its leader asks for votes within a heartbeat, not after an election timeout."""
    async with following() as r:
        r.driver.suspect(3)
        await r.ticked(3)
        assert r.wire.of(RequestPreVote) == []
        r.driver.suspect(2)
        await eventually(lambda: len(r.wire.of(RequestPreVote)) == 2)


async def test_a_suspicion_is_forgotten_when_the_leader_is_heard_of() -> None:
    """It was only a connection that broke."""
    async with following(tick_interval=0.05) as r:
        r.driver.suspect(2)
        r.driver.receive(Heartbeat(2, 1, 1, 0, 0))
        await r.ticked(3)
        assert r.wire.of(RequestPreVote) == []
        assert r.driver.core.leader_id == 2


async def test_news_of_a_commit_waits_for_entries_that_bring_it() -> None:
    """Where one write follows the other no heartbeat is sent; behind the last one, soon."""
    async with in_office(tick_interval=10) as r:
        await write(r, 1)
        r.wire.sent.clear()
        future = r.driver.propose(b"next")
        await eventually(lambda: bool(r.wire.of(AppendEntries)))
        assert [type(m) for m in r.wire.sent if m.target == 2] == [AppendEntries]
        acknowledge(r)
        await future
        await eventually(lambda: bool([m for m in r.wire.of(Heartbeat) if m.target == 2]))
        assert r.wire.of(Heartbeat)[-1].commit_index == r.driver.core.commit_index


async def test_news_of_a_commit_does_not_wait_where_clients_do() -> None:
    """A follower that has passed a proposal on hears at once that it is committed."""
    async with in_office(tick_interval=10) as r:
        r.driver.receive(Propose(2, 1, 1, 7, 1, (bytes(8) + b"x",)))
        await eventually(lambda: r.driver.core.last_index == 2)
        r.wire.sent.clear()
        acknowledge(r)
        await eventually(lambda: r.driver.core.last_applied == 2)
        assert [m.target for m in r.wire.of(Heartbeat)] == [2]


async def test_a_quick_disk_is_written_to_on_the_loop_and_a_slow_one_is_not() -> None:
    """Its first slow writes hold the loop up, until they are the rule; then heartbeats go on meanwhile."""
    async with in_office(inline_write_max=0.1) as r:
        r.disk.delay = 0.15
        for _ in range(4):
            await write(r, 1)
            assert r.disk.thread == threading.current_thread().name
        await write(r, 1)
        assert r.disk.thread != threading.current_thread().name


async def test_a_slow_write_now_and_then_makes_no_slow_disk() -> None:
    async with in_office(inline_write_max=0.1) as r:
        for delay in (0.15, 0.0, 0.15, 0.0, 0.15, 0.0, 0.0, 0.15):
            r.disk.delay = delay
            await write(r, 1)
            assert r.disk.thread == threading.current_thread().name


async def test_an_inline_write_that_fails_ends_all_promises() -> None:
    """As on the thread: nothing is acknowledged, nor sent after it."""
    async with following(inline_write_max=1) as r:
        r.disk.fail_at = r.disk.operations + 1
        r.driver.receive(AppendEntries(2, 1, 1, 0, 0, (entry(1, b"x"),), 1))
        await eventually(lambda: bool(r.failures))
        assert r.wire.of(AppendEntriesResponse) == []
        assert r.machine.applied == []


async def test_leadership_is_handed_over_before_a_stop() -> None:
    """To the voter that is furthest; whoever waits for that does so no longer than the heir is there."""
    async with in_office() as r:
        handing = asyncio.ensure_future(r.driver.hand_over())
        await eventually(lambda: [m.target for m in r.wire.of(TimeoutNow)] == [2])
        assert not handing.done()
        r.driver.receive(RequestVote(2, 1, 2, 9, 1, True))
        async with asyncio.timeout(5):
            await handing
    async with in_office() as r:
        handing = asyncio.ensure_future(r.driver.hand_over())
        await eventually(lambda: bool(r.wire.of(TimeoutNow)))
        r.driver.suspect(2)
        async with asyncio.timeout(5):
            await handing
