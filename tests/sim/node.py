"""One simulated server: the product's own code, wired as ``api/node.py`` wires it, on simulated
disks, network and time. A crash forgets all of it but the disks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from api.concurrency import Concurrency
from api.leases import OF_LEASES, Leases, LeaseSettings, minimum_ttl
from api.roster import Member
from api.scrubber import Scrubber
from api.service import Limits, Service
from kvstate.backend import Backend, MemoryStore
from kvstate.errors import StateFault
from kvstate.machine import NO_EVENTS, ApplyResult, StateMachine
from raft.core.config import Config
from raft.core.consensus import Consensus
from raft.core.errors import InvariantViolated
from raft.core.membership import decode
from raft.core.messages import InstallSnapshot, Message
from raft.core.ready import Ready
from raft.core.storage import MemoryStorage
from raft.core.types import Membership, Position, ReadState
from raft.driver import Driver, DriverSettings
from raft.proposals import Proposals
from raft.restart import Discontinuous, resume
from raft.wal.wal import Wal, WalCorrupt, WalFailed
from tests.raft.wal.lossy import Crash
from tests.sim.calls import Calls
from tests.sim.clock import Handle, LocalClock, SimLoop
from tests.sim.disk import SimDisk, SimExecutor
from tests.sim.oracle import WAL
from tests.sim.recorded import RecordedStore
from watch.hub import Hub

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation


class _ProcessEnds(BaseException):
    """What a task meets where it waits when its node crashes."""


class Staged:
    """A snapshot's content that has arrived; ``install`` is atomic, as a rename is."""

    def __init__(self, node: Node, store: MemoryStore) -> None:
        self.store = store
        self._node = node

    def install(self) -> None:
        self._node.disk.step("install")
        self._node.store = self.store

    def open(self) -> MemoryStore:
        return self.store

    def discard(self) -> None:
        pass


class NobodyListed:
    """Names and URLs of members mean nothing here, and changes of members are asked of the driver."""

    is_learner = False

    def listed(self) -> tuple[Member, ...]:
        return ()

    async def add(self, peer_urls: tuple[str, ...], *, is_learner: bool) -> tuple[Member, tuple[Member, ...]]:
        raise NotImplementedError

    async def remove(self, member: int) -> tuple[Member, ...]:
        raise NotImplementedError

    async def update(self, member: int, peer_urls: tuple[str, ...]) -> tuple[Member, ...]:
        raise NotImplementedError

    async def promote(self, member: int) -> tuple[Member, ...]:
        raise NotImplementedError

    async def move_leader(self, target: int) -> None:
        raise NotImplementedError


class ObservedLog:
    """The driver as the node's own leases use it: what they propose, they propose as the leader."""

    def __init__(self, node: Node, driver: Driver) -> None:
        self._node = node
        self._driver = driver

    @property
    def core(self) -> Consensus:
        return self._driver.core

    def propose(self, data: bytes) -> asyncio.Future[Any]:
        self._node.sim.oracle.leases.proposed(self._node, data)
        return self._driver.propose(data)

    def read_barrier(self) -> asyncio.Future[None]:
        return self._driver.read_barrier()


class ObservedCore(Consensus):
    """The real core; the simulation looks at what it does with a write that is done, and with reads."""

    def __init__(self, node: Node, config: Config, storage: MemoryStorage, last_applied: int) -> None:
        self._node = node
        self._asked: dict[int, int] = {}
        super().__init__(config, storage, last_applied=last_applied)

    def read_index(self, ctx: int) -> None:
        self._asked[ctx] = self._node.sim.oracle.commit_index
        super().read_index(ctx)

    def advance(self, ready: Ready) -> None:
        before = Position(self.log.last_index, self.log.last_term)
        super().advance(ready)
        story = f"{self._node} had {before} as its last entry before a write was done, and has it no more"
        self._node.sim.oracle.expect(self.log.has(*before), "the end of a write changes no entry", story)

    def confirm_read(self, read_state: ReadState) -> None:
        self._node.sim.oracle.read_confirmed(self._node, read_state, self._asked.get(read_state.ctx, 0))
        super().confirm_read(read_state)


class ObservedMachine(StateMachine):
    """The real state machine; the simulation looks over its shoulder."""

    def __init__(self, node: Node) -> None:
        self._node = node
        super().__init__(Backend(node.store))

    def apply(self, index: int, term: int, data: bytes) -> ApplyResult:
        result = super().apply(index, term, data)
        self._node.sim.oracle.applied(self._node, index, term, data, result)
        return result

    def apply_membership(self, index: int, term: int, membership: bytes) -> None:
        super().apply_membership(index, term, membership)
        result = ApplyResult(None, None, NO_EVENTS, self.revision)
        self._node.sim.oracle.applied(self._node, index, term, membership, result)


class Node:
    """``disk`` and ``store`` survive a crash; everything below them is made by ``boot``."""

    def __init__(self, sim: Simulation, member: int, founders: Membership) -> None:
        self.sim = sim
        self.queue = sim.queue
        self.member = member
        self.founders = founders
        self.disk = SimDisk(f"{sim.seed}/disk/{member}")
        self.disk.on_removed = lambda: sim.oracle.segment_removed(self)
        self.store = MemoryStore()
        self.life = 0
        self.up = False
        self.paused = False
        self.clock = LocalClock(sim.queue)
        self.wall_clock_at_start = 1.7e9  # it jumps, and back as well
        self.slowness = 1.0
        self._held: list[Handle] = []  # events that came while paused, and timers while the clock stood
        self._random = random.Random(f"{sim.seed}/node/{member}")
        # Made by boot.
        self.loop: SimLoop
        self.core: Consensus
        self.machine: ObservedMachine
        self.hub: Hub
        self.driver: Driver
        self.leases: Leases
        self.service: Service
        self.concurrency: Concurrency
        self.disks: tuple[SimExecutor, SimExecutor]
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order of their beginning
        self.crash_in_install = 0  # crash at the so-many-th operation of the disk after a snapshot came
        self.crash_at_send = 0  # crash instead of the so-many-th sending from now; 0: do not

    # Time.

    def set_clock_rate(self, rate: float) -> None:
        self.clock.set_rate(rate)
        self.sim.clock_changed()
        self._release()

    def jump_clock(self, seconds: float) -> None:
        self.clock.jump(seconds)
        self.sim.clock_changed(seconds)

    def pause(self, paused: bool) -> None:
        self.paused = paused
        self._release()

    def takes(self, handle: Handle) -> bool:
        """Whether an event may happen here now; if not, it is kept until it may."""
        if self.paused or (handle.is_timer and self.clock.rate == 0):
            self._held.append(handle)
            return False
        return True

    def _release(self) -> None:
        held, self._held = self._held, []
        for handle in held:
            self.queue.again(handle)

    def run(self, handle: Handle) -> None:
        """Let the node do something; it may crash over it."""
        self.inside(handle.function, *handle.args)

    def inside(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call ``function`` as the node's event loop would."""
        around = asyncio._get_running_loop()
        asyncio._set_running_loop(self.loop)
        try:
            return function(*args)
        except Crash as crash:
            self.crash(str(crash))
            return None
        finally:
            asyncio._set_running_loop(around)

    def start_task(self, coroutine: Any) -> asyncio.Task[Any]:
        return self.loop.create_task(coroutine)

    def started(self, task: asyncio.Task[Any]) -> None:
        """The loop tells of every task: all of them end with the process."""
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def abandon_tasks(self) -> None:
        """What they still try on their way out comes to nothing."""
        self.inside(self._abandon_tasks)

    def _abandon_tasks(self) -> None:
        while self._tasks:
            task, _ = self._tasks.popitem()
            if task.done():
                continue
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine: Any = task.get_coro()
            # Not ``close``, which asynchronous generators do not survive well.
            with suppress(_ProcessEnds, StopIteration, ValueError):  # ValueError: it is the one that runs
                coroutine.throw(_ProcessEnds)

    # Life.

    def boot(self) -> None:
        """Start from the disks. May crash or fail over it, and is down again then."""
        self.life += 1
        self.up, self.paused = True, False
        self._held.clear()
        self.disk.has_failed = False
        self.loop = SimLoop(self.queue, self)
        self._tasks = {}
        try:
            self.inside(self._assemble)
        except (OSError, WalFailed) as error:
            self.crash(f"cannot start: {error}")
        except (WalCorrupt, Discontinuous, InvariantViolated, StateFault) as error:
            self.sim.oracle.fail("a node starts from whatever a crash left", f"{self}: {error}")

    def _assemble(self) -> None:
        sim, settings, loop = self.sim, self.sim.options, self.loop
        wal, recovered = Wal.open(
            self.disk, WAL, identity=b"member %d" % self.member, segment_bytes=settings.segment_bytes
        )
        sim.oracle.recovered(self, recovered)
        self.machine = machine = ObservedMachine(self)
        membership = decode(machine.membership) if machine.membership else self.founders
        storage = resume(wal, recovered, Position(*machine.applied), membership)
        config = Config(
            id=self.member,
            rng=random.Random(f"{sim.seed}/core/{self.member}/{self.life}"),
            election_ticks=settings.election_ticks,
            heartbeat_ticks=settings.heartbeat_ticks,
            pre_vote=settings.pre_vote,
            append_bytes_max=settings.append_bytes_max,
            inflight_max=settings.inflight_max,
            inflight_bytes_max=settings.inflight_bytes_max,
            uncommitted_bytes_max=settings.uncommitted_bytes_max,
            promotion_lag_max=20,
        )
        self.core = ObservedCore(self, config, storage, machine.applied[0])
        self.hub = Hub(
            machine,
            queue_responses_max=settings.watch_queue_max,
            revisions_per_read=settings.watch_revisions_per_read,
        )
        scrubber = Scrubber(machine, self._failed)
        driver_settings = DriverSettings(
            tick_interval=settings.tick_interval,
            request_timeout=settings.request_timeout,
            flush_interval=settings.flush_interval,
            flush_bytes=1 << 14,
            snapshot_count=settings.snapshot_count,
            catchup_entries=settings.catchup_entries,
            read_retry=settings.request_timeout / 4,
            inline_write_max=1.0 if settings.inline_writes else -1.0,
        )
        # Every life has proposal ids of its own, as chance provides for outside.
        proposals = Proposals(self.member << 56 | self.life << 32, settings.request_timeout, loop)
        self.disks = (SimExecutor(self, self._latency), SimExecutor(self, self._latency))
        self.driver = Driver(
            self.core,
            storage,
            wal,
            machine,
            self,
            proposals,
            driver_settings,
            on_applied=self._applied,
            on_restored=self._restored,
            on_fatal=self._failed,
            loop=loop,
            disks=self.disks,  # type: ignore[arg-type]
        )
        self._scrubber = scrubber
        self.leases = Leases(
            machine,
            ObservedLog(self, self.driver),
            Calls(self),
            LeaseSettings(
                election_timeout=settings.election_ticks * settings.tick_interval,
                request_timeout=settings.request_timeout,
                minimum_ttl=minimum_ttl(settings.election_ticks, int(settings.tick_interval * 1000)),
                checkpoint_interval=settings.checkpoint_interval,
            ),
            rng=random.Random(f"{sim.seed}/leases/{self.member}/{self.life}"),
            wall_clock_ms=self._wall_clock_ms,
            loop=loop,
        )
        limits = Limits(max_txn_ops=128, max_request_bytes=1 << 20)
        self.service = Service(
            machine,
            self.driver,
            self.hub,
            scrubber,
            NobodyListed(),
            self.leases,
            limits,
            self._wall_clock_ms,
        )
        self.concurrency = Concurrency(RecordedStore(self))
        sim.oracle.booted(self)
        text = "%s boots in term %d, its log ends at %d, its state is at %d"
        sim.trace(text, self, self.core.current_term, self.core.last_index, machine.applied[0])
        self.driver.start()
        self.leases.start()
        scrubber.poke()
        self._tick_progress()

    def crash(self, why: str) -> None:
        """The process is gone, with all that the disks have not got."""
        if not self.up:
            return
        self.sim.trace("%s crashes %s", self, why)
        self.up = False
        self.abandon_tasks()
        self.life += 1
        self.crash_at_send = 0
        self._held.clear()
        before, had_unsynced = self.disk.shadow, self.disk.has_unsynced
        self.disk.crash()
        self.disk.reread(WAL)
        self.sim.oracle.crashed(self, before, had_unsynced)
        self.sim.clients.crashed(self)
        self.sim.network.connections_end(self)
        if self.sim.calm:
            # An error of before the calm has come out: outside, too, somebody would start it again.
            self.queue.later(0.1, None, self.boot)

    def _latency(self) -> float:
        """Half of what one job on a disk takes; a hanging disk comes back after some seconds."""
        return min(self._random.uniform(0.2, 1.0) * self.sim.options.disk_latency * self.slowness, 2.0)

    def _failed(self, error: BaseException) -> None:
        """The product gave up: outside, the process ends."""
        self.sim.oracle.node_failed(self, error)
        raise Crash(f"because it failed: {error}")

    def _wall_clock_ms(self) -> int:
        return int((self.wall_clock_at_start + self.clock.now()) * 1000)

    def _applied(self, result: ApplyResult) -> None:
        if isinstance(result.response, OF_LEASES):
            self.leases.applied(result.response)
        if result.events:
            self.hub.publish(result.revision, result.events)
        elif self.machine.compaction_pending:
            self._scrubber.poke()

    def _tick_progress(self) -> None:
        self.loop.call_later(0.4, self._tick_progress)
        self.hub.tick()

    def _restored(self) -> None:
        self.sim.oracle.restored(self)
        self.hub.restored()
        self.leases.restored()
        self._scrubber.poke()

    # The driver's transport.

    def send(self, messages: Sequence[Message]) -> None:
        if self.crash_at_send:
            self.crash_at_send -= 1
            if not self.crash_at_send:
                raise Crash("before it sends")
        for message in messages:
            self.sim.oracle.sending(self, message)
            self.sim.network.post(self, message)

    def deliver(self, message: Message, store: MemoryStore | None) -> None:
        if isinstance(message, InstallSnapshot):
            assert store is not None
            if self.crash_in_install:
                self.disk.crash_at = self.disk.operations + self.crash_in_install
                self.crash_in_install = 0
            self.driver.receive_snapshot(message, Staged(self, store))
        else:
            self.driver.receive(message)

    def __str__(self) -> str:
        return f"n{self.member}"
