"""The one shell around the pure core: it owns the order of disk, network and state machine.

All of it runs on the event loop in ``_step``, which is scheduled when there is
something to do and always goes the same way:

    core ← what came in: proposals as one batch, reads as one round
    ready = core.ready()
    transport.send(ready.messages)              these promise nothing, they leave at once
    wal.write(...) and its fdatasync            one at a time; what arrives meanwhile is the next batch
    machine.apply(ready.committed_entries)      while the disk works
    …the disk is done:
    transport.send(ready.messages_after_persist)
    core.advance(ready)                         now they count as durable, and may commit

So proposals that arrive during an fdatasync share the next one (group commit). A quick disk is
written to on the loop, for a change of threads takes as long; a slow one on a thread, so that
heartbeats and votes go on while it writes. What arrives at a follower goes to the
leader, and is answered here when it is applied here.

The state machine keeps its own changes in memory and makes them durable in the
background, in batches (``_flush``); until then the write-ahead log holds them. The log
is cut only behind what the state machine has made durable.

A snapshot replaces state and log in an order that a crash can interrupt anywhere
(``_install``): mark the log, replace the state, begin the log anew.

Any error of the disk, the state machine or the core is fatal: ``on_fatal`` is called
once, everybody who waits is told, and nothing more is promised.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from raft.barriers import ReadBarriers
from raft.core.consensus import Consensus
from raft.core.errors import InvariantViolated, TransferRefused
from raft.core.membership import Change, decode
from raft.core.messages import InstallSnapshot, Message, Propose
from raft.core.ready import Ready
from raft.core.storage import MemoryStorage
from raft.core.types import NO_MEMBER, Entry, EntryType, HardState, Membership, Position, Role
from raft.disks import Disks, Job
from raft.errors import LeadershipLost, Overloaded, Stopped, TimedOut
from raft.outbox import Outbox
from raft.outgoing import Outgoing
from raft.proposals import Proposals, split
from raft.wal.record import Installed, Installing
from raft.wal.wal import Batch, Wal

log = logging.getLogger(__name__)

_WRITES_JUDGED = 7


class StateMachine(Protocol):
    """What the driver asks of the state machine. ``apply`` is deterministic and never
    blocks; ``write_frozen`` is the only call made on another thread."""

    @property
    def durable_applied(self) -> tuple[int, int]:
        """Index and term of the last entry whose effects survive a crash."""

    @property
    def pending_bytes(self) -> int:
        """Roughly what is held in memory because it is not durable yet."""

    def apply(self, index: int, term: int, data: bytes) -> Any: ...
    def apply_membership(self, index: int, term: int, membership: bytes) -> None: ...
    def freeze(self) -> None: ...
    def write_frozen(self) -> None: ...
    def release_frozen(self) -> None: ...
    def restore(self, open_store: Callable[[], Any]) -> None:
        """Go on from a state that ``StagedSnapshot.install`` has made durable: close the old one, then
        open it (``StagedSnapshot.open``)."""


class StagedSnapshot(Protocol):
    """The content of a snapshot as it was received, complete and verified."""

    def install(self) -> None:
        """On a thread: make it the durable state, all or nothing."""

    def open(self) -> Any:
        """What the state machine goes on from, once it is installed."""

    def discard(self) -> None:
        """Nobody wants it: free what it takes up. Must not block."""


class Transport(Protocol):
    """How messages leave. An InstallSnapshot takes the content of the sender's durable state along,
    which may be newer than the message says, and says so then; its end is to be reported
    (``Driver.report_snapshot``)."""

    def send(self, messages: Sequence[Message]) -> None: ...


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """Times in seconds, sizes in bytes."""

    tick_interval: float = 0.1
    request_timeout: float = 7.0
    # Applied entries are made durable in the state machine after this long or this much.
    flush_interval: float = 0.5
    flush_bytes: int = 8 << 20
    # Beyond this much unflushed state, applying waits for the disk.
    pending_bytes_max: int = 256 << 20
    # The log is cut when this many entries or bytes lie behind the durable state; a tail stays.
    snapshot_count: int = 10_000
    catchup_entries: int = 5_000
    log_bytes_max: int = 64 << 20
    # Proposals and reads waiting for an answer; one more is refused.
    proposals_max: int = 20_000
    reads_max: int = 50_000
    # Proposals that are not in the log yet, or were passed on, take no more than this.
    proposals_bytes_max: int = 64 << 20
    # The log is written on the loop rather than on a thread while a write takes no longer than this, in
    # seconds, as a rule of late (``_writes_inline``).
    inline_write_max: float = -1.0
    # A read that a follower has passed on is asked for again after this long: a message may be lost.
    read_retry: float = 0.5


@dataclass(frozen=True, slots=True)
class _Changing:
    """Somebody waits for the change of members that begins at ``position``."""

    deadline: float
    position: Position
    future: asyncio.Future[None]


class Driver:
    """Runs one ``Consensus`` on a log, a state machine and a transport."""

    def __init__(
        self,
        core: Consensus,
        storage: MemoryStorage,
        wal: Wal,
        machine: StateMachine,
        transport: Transport,
        proposals: Proposals,
        settings: DriverSettings,
        *,
        on_applied: Callable[[Any], None],
        on_restored: Callable[[], None],
        on_fatal: Callable[[BaseException], None],
        on_membership: Callable[[Membership], None] = lambda membership: None,
        on_membership_applied: Callable[[Membership], None] = lambda membership: None,
        loop: asyncio.AbstractEventLoop | None = None,
        disks: tuple[Executor, Executor] | None = None,
    ) -> None:
        """``on_membership`` hears of a membership when it comes into force here, which is before it is
        committed (paper §6), ``on_membership_applied`` when it is certain. ``disks``: where the
        blocking work of the log and of the state is done, each one job at a time; a thread each
        if not given."""
        self.core = core
        self.settings = settings
        self.failure: BaseException | None = None
        self._storage = storage
        self._wal = wal
        self._machine = machine
        self._transport = transport
        self._proposals = proposals
        self._on_applied = on_applied
        self._on_restored = on_restored
        self._on_fatal = on_fatal
        self._loop = loop or asyncio.get_running_loop()
        self._disks = Disks(self._loop, disks, fail=self._fail, has_failed=lambda: self.failure is not None)
        self._outbox = Outbox(transport.send, self._loop)
        self._on_membership = on_membership
        self._on_membership_applied = on_membership_applied
        # Inbox of the next step.
        self._outgoing = Outgoing(core, proposals, settings.proposals_bytes_max)
        self._received: list[Message] = []
        self._staged: dict[Position, StagedSnapshot] = {}
        self._reads = ReadBarriers(
            core,
            self._loop,
            timeout=settings.request_timeout,
            retry_after=settings.read_retry,
            merge_within=settings.tick_interval,
            waiting_max=settings.reads_max,
        )
        self._scheduled = False
        # Readys whose content is not durable yet, oldest first.
        self._unsaved: list[Ready] = []
        self._carried: HardState | None = None
        self._to_apply: deque[Entry] = deque()
        # Who waits for a change of members, and who for this node to lead no more.
        self._changing: list[_Changing] = []
        self._heir = NO_MEMBER  # whom leadership was handed to, before a stop
        self._out_of_office: asyncio.Future[None] | None = None
        self._membership = core.membership
        # What the last writes of the log took. Half of them say what is the rule: on a busy machine some take
        # long though the disk is quick.
        self._write_seconds: deque[float] = deque([0.0] * _WRITES_JUDGED, _WRITES_JUDGED)
        self._leader = core.leader_id
        self._flushed_at = self._loop.time()
        self._ticker: asyncio.TimerHandle | None = None
        self._stopping = False
        self._installing: Ready | None = None  # the Ready whose snapshot is being installed
        self._after_flush: Callable[[], None] | None = None
        self._term, self._led = core.current_term, False

    # What the node asks for.

    def start(self, *, advance: bool = False) -> None:
        """Begin to tick. A sole voter needs nobody's consent and stands for election at once; others,
        if they are to ``advance``, as if they had waited the shortest time an election timeout can have."""
        if advance:
            self.core.elapsed_ticks = self.core.config.election_ticks - 1
        self._ticker = self._loop.call_later(self.settings.tick_interval, self._tick)
        if self.core.membership.voters == {self.core.id}:
            self.core.campaign()
        self._schedule()

    def propose(self, data: bytes) -> asyncio.Future[Any]:
        """Replicate ``data``; the future brings what ``apply`` returned for it.

        Without a leader it waits for one. Raises ``Overloaded`` at once; the future may bring
        ``ProposalDropped``, ``LeadershipLost``, ``TimedOut`` or ``Stopped``.
        """
        self._check_running()
        if len(self._proposals) >= self.settings.proposals_max:
            raise Overloaded
        self._outgoing.check_room(len(data))
        framed, future = self._proposals.register(data)
        self._outgoing.add(framed)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._step)
        return future

    def read_barrier(self) -> asyncio.Future[None]:
        """Done when the state machine holds every write acknowledged before this call
        (ReadIndex, thesis §6.4). All reads that arrive in one loop turn share one round. Raises
        ``Overloaded`` at once; the future may bring ``TimedOut`` or ``Stopped``."""
        self._check_running()
        waiter, is_first = self._reads.add()
        if is_first:
            self._schedule()
        return waiter

    def receive(self, message: Message) -> None:
        """A peer's message arrived."""
        if message.target != self.core.id:
            log.warning("a message for member %x came here and is dropped", message.target)
            return
        if type(message) is Propose:
            self._outbox.proposed(message.source)
        self._received.append(message)
        self._schedule()

    def receive_snapshot(self, message: InstallSnapshot, staged: StagedSnapshot) -> None:
        """A peer's snapshot arrived, with all of its content."""
        if (older := self._staged.get(message.snapshot.position)) is not None:
            older.discard()
        self._staged[message.snapshot.position] = staged
        self.receive(message)

    def suspect(self, member: int) -> None:
        """See ``Consensus.suspect``; stands within a heartbeat interval."""
        if member == self._heir:
            self._leave_office()  # it stops as well: nothing is to be waited for
        if self.failure is None and not self._stopping and self.core.suspect(member):
            delay = self.core.config.rng.uniform(0, self.settings.tick_interval)
            self._loop.call_later(delay, self._stand)

    def _stand(self) -> None:
        if self.failure is None and not self._stopping:
            self.core.stand()
            self._schedule()

    def report_snapshot(self, follower: int, index: int, *, arrived: bool) -> None:
        """The transfer of the snapshot that was asked for up to ``index`` is over."""
        self.core.report_snapshot(follower, index, arrived=arrived)
        self._schedule()

    def change_members(self, changes: Sequence[Change], context: bytes | None = None) -> asyncio.Future[None]:
        """See ``Consensus.propose_membership``; the future is done when the final membership of the change
        is applied here. It may bring ``LeadershipLost``, ``TimedOut`` or ``Stopped``."""
        self._check_running()
        index = self.core.propose_membership(changes, context)
        future = self._loop.create_future()
        deadline = self._loop.time() + self.settings.request_timeout
        self._changing.append(_Changing(deadline, Position(index, self.core.current_term), future))
        self._schedule()
        return future

    def transfer_leadership(self, target: int) -> None:
        """See ``Consensus.transfer_leadership``."""
        self._check_running()
        self.core.transfer_leadership(target)
        self._schedule()

    async def hand_over(self) -> None:
        """If this node leads, let the voter lead that is furthest, and wait for that, an election timeout at
        most: before a stop, so that nobody has to notice it first (thesis 3.10)."""
        core = self.core
        heirs = [one for one in core.membership.voters - {core.id} if one in core.progress]
        if self.failure is not None or core.role is not Role.LEADER or not heirs or self._heir:
            return
        self._heir = max(
            heirs, key=lambda one: (core.progress[one].recently_active, core.progress[one].match_index)
        )
        try:
            self.transfer_leadership(self._heir)
        except TransferRefused:
            return
        self._out_of_office = self._loop.create_future()
        await asyncio.wait(
            [self._out_of_office], timeout=core.config.election_ticks * self.settings.tick_interval
        )

    async def stop(self) -> None:
        """Finish the disk work under way, make the applied state durable, release everything."""
        if self._stopping:
            return
        self._stopping = True
        if self._ticker is not None:
            self._ticker.cancel()
        self._outbox.close()
        self._fail_waiters(Stopped("the node is stopping"))
        await self._disks.until_idle()
        if self.failure is None:
            self._machine.freeze()
            await self._disks.close(self._machine.write_frozen)
            self._machine.release_frozen()
        else:
            await self._disks.close(None)
        self._wal.close()

    # One turn.

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._scheduled = False
        if self.failure is not None:
            return
        try:
            self._feed()
            self._take_all()
            if self._staged:
                self._drop_unwanted_snapshots()
            self._save()
            self._apply()
        except Exception as error:
            self._fail(error)

    def _feed(self) -> None:
        """Hand the core what came in since the last turn."""
        if self._received:
            received, self._received = self._received, []
            for message in received:
                self.core.step(message)
            self._take_all()  # what was refused is known to have come to nothing: before the next line
        self._check_office()
        self._outgoing.hand_over()
        self._reads.ask()

    def _check_office(self) -> None:
        """In a new term whoever was asked may lead no more, and what it took may or may not be committed."""
        leads, term, leader = self.core.role is Role.LEADER, self.core.current_term, self.core.leader_id
        if term != self._term or (self._led and not leads):
            self._disown(LeadershipLost(f"the leader of term {self._term} was lost"))
        if leader != self._leader:
            if leader:
                log.info("member %x leads in term %d", leader, term)
                self._reads.ask_held()
            else:
                log.info("no leader is known in term %d", term)
        if not leads:
            self._leave_office()
        self._term, self._led, self._leader = term, leads, leader

    def _leave_office(self) -> None:
        """Nobody needs to wait any longer for this node to lead no more."""
        if self._out_of_office is not None and not self._out_of_office.done():
            self._out_of_office.set_result(None)

    def _take_all(self) -> None:
        while (ready := self.core.ready()) is not None:
            self._take(ready)

    def _take(self, ready: Ready) -> None:
        if ready.messages:
            reads_wait = bool(self.core.pending_reads.unconfirmed)
            self._outbox.send(ready.messages, reads_wait=reads_wait)
        self._to_apply.extend(ready.committed_entries)
        for read_state in ready.read_states:
            self._reads.confirm(read_state)
        for ctx in ready.refused_proposals:
            self._outgoing.refused(ctx)
        for ctx in ready.refused_reads:
            self._reads.refuse(ctx)
        if self.core.membership is not self._membership:
            self._membership = self.core.membership
            self._on_membership(self._membership)
        self._unsaved.append(ready)

    # The log's disk.

    def _save(self) -> None:
        """Start writing what is not durable yet, unless a write is under way: then it waits
        and becomes the next batch."""
        while self._unsaved and self._may_save():
            batch = self._next_batch()
            if batch[0].snapshot is not None:
                self._install(batch[0])
            elif any(ready.must_sync for ready in batch):
                carried, self._carried = self._carried, None
                parts = [(carried, ()), *((ready.hard_state, ready.entries) for ready in batch)]
                encoded = self._wal.encode(parts)
                if self._writes_inline():
                    self._write_inline(encoded, batch)
                else:
                    write = partial(self._timed_write, encoded)
                    self._disks.run(Job.SAVE, write, partial(self._saved, batch))
            else:
                # Nothing here promises anything: at most a commit index, which the next write carries along.
                for ready in batch:
                    self._carried = ready.hard_state or self._carried
                self._persisted(batch)

    def _may_save(self) -> bool:
        return not self._disks.is_busy(Job.SAVE) and self._installing is None and not self._stopping

    def _writes_inline(self) -> bool:
        """Two changes of threads take as long as a quick disk, and each comes late on a busy machine. A slow
        disk must not hold up the loop: its first slow writes do, then it is left to the thread."""
        if self._disks.is_busy(Job.CUT):
            return False
        return sorted(self._write_seconds)[_WRITES_JUDGED // 2] <= self.settings.inline_write_max

    def _write_inline(self, encoded: Batch, batch: list[Ready]) -> None:
        self._timed_write(encoded)
        self._persisted(batch)

    def _timed_write(self, encoded: Batch) -> None:
        begun = self._loop.time()
        self._wal.write(encoded)
        self._write_seconds.append(self._loop.time() - begun)

    def _next_batch(self) -> list[Ready]:
        """As many Readys as one write can hold: one with a snapshot stands alone."""
        count = 1
        if self._unsaved[0].snapshot is None:
            while count < len(self._unsaved) and self._unsaved[count].snapshot is None:
                count += 1
        batch, self._unsaved = self._unsaved[:count], self._unsaved[count:]
        return batch

    def _saved(self, batch: list[Ready]) -> None:
        self._persisted(batch)
        self._step()

    def _persisted(self, batch: list[Ready]) -> None:
        for ready in batch:
            if ready.entries:
                self._storage.append(ready.entries)
            if ready.hard_state is not None:
                self._storage.set_hard_state(ready.hard_state)
            if ready.messages_after_persist:
                self._transport.send(ready.messages_after_persist)
            self.core.advance(ready)
        # What became committed by this goes out in the same turn.
        self._take_all()

    # A snapshot from the leader.

    def _install(self, ready: Ready) -> None:
        """Replace state and log. A crash between any two of the steps leaves either the old state with
        its log, or the new one with a log that is marked as outdated (``raft.restart``)."""
        assert ready.snapshot is not None
        self._installing = ready
        position = ready.snapshot.position
        staged = self._staged.pop(position)
        mark = partial(self._wal.write, self._wal.encode([], Installing(position)))
        self._disks.run(Job.SAVE, mark, partial(self._replace_state, staged))

    def _drop_unwanted_snapshots(self) -> None:
        """The core has seen all that arrived, and took what it wanted."""
        wanted = {ready.snapshot.position for ready in self._unsaved if ready.snapshot is not None}
        for position in [one for one in self._staged if one not in wanted]:
            self._staged.pop(position).discard()

    def _replace_state(self, staged: StagedSnapshot) -> None:
        """The log is marked. A flush under way must end first: it is of the old state."""
        if self._disks.is_busy(Job.FLUSH):
            self._after_flush = partial(self._replace_state, staged)
        else:
            self._disks.run(Job.FLUSH, staged.install, partial(self._begin_log_anew, staged))

    def _begin_log_anew(self, staged: StagedSnapshot) -> None:
        """The state is the snapshot's, on disk and from here on in memory."""
        ready = self._installing
        assert ready is not None
        assert ready.snapshot is not None
        self._machine.restore(staged.open)
        if self._machine.durable_applied != ready.snapshot.position:
            raise InvariantViolated(
                f"the snapshot said to be at {ready.snapshot.position} has the state of"
                f" {self._machine.durable_applied}"
            )
        self._on_restored()
        # The state holds what was committed up to here; who waits for it can no longer be told its result.
        self._to_apply.clear()
        self._disown(LeadershipLost("this node was sent a snapshot"))
        self._carried = None
        parts = [(ready.hard_state, ready.entries)]
        finish = partial(self._wal.write, self._wal.encode(parts, Installed(ready.snapshot.position)))
        self._disks.run(Job.SAVE, finish, self._installed)

    def _installed(self) -> None:
        ready, self._installing = self._installing, None
        assert ready is not None
        assert ready.snapshot is not None
        position = ready.snapshot.position
        self._storage.restore(position)
        self._storage.snapshot = position
        self._persisted([ready])
        self.core.applied(position.index)
        self._reads.release(position.index)
        log.info("installed a snapshot: the state is at %s", position)
        self._on_membership_applied(ready.snapshot.membership)
        self._step()

    # The state machine.

    def _apply(self) -> None:
        queue, machine = self._to_apply, self._machine
        if not queue:
            return
        if machine.pending_bytes > self.settings.pending_bytes_max:
            self._flush()
            return  # goes on when the flush is done
        apply, resolve, on_applied = machine.apply, self._proposals.resolve, self._on_applied
        index, memberships = 0, []
        while queue:
            index, term, entry_type, data = queue.popleft()
            if entry_type is EntryType.NORMAL and data:
                proposal_id, command = split(data)
                result = apply(index, term, command)
                on_applied(result)
                resolve(proposal_id, result)
            elif entry_type is EntryType.MEMBERSHIP:
                machine.apply_membership(index, term, data)
                memberships.append(decode(data))
            else:
                apply(index, term, b"")
        self.core.applied(index)
        self._reads.release(index)
        for membership in memberships:
            self._on_membership_applied(membership)
        if memberships and not self.core.change_under_way:
            self._finish_changes(None)
        if machine.pending_bytes > self.settings.flush_bytes:
            self._flush()

    def _flush(self) -> None:
        """Make the state machine's changes durable, off the loop."""
        if self._disks.is_busy(Job.FLUSH) or self._stopping or self._installing is not None:
            return
        if self._machine.pending_bytes == 0:
            return
        self._flushed_at = self._loop.time()
        self._machine.freeze()
        self._disks.run(Job.FLUSH, self._machine.write_frozen, self._flushed)

    def _flushed(self) -> None:
        self._machine.release_frozen()
        self._storage.snapshot = Position(*self._machine.durable_applied)
        if self._after_flush is not None:
            then, self._after_flush = self._after_flush, None
            then()
            return
        self._cut_log()
        if self._to_apply:
            self._schedule()

    def _cut_log(self) -> None:
        """Drop what lies behind the durable state, but for a tail that spares a slow
        follower the snapshot."""
        durable, settings = self._machine.durable_applied[0], self.settings
        keep_from = durable - settings.catchup_entries
        if self._storage.bytes > settings.log_bytes_max:
            keep_from = durable
        elif durable - self._storage.first_index < settings.snapshot_count + settings.catchup_entries:
            return
        if self._storage.bytes <= 2 * settings.log_bytes_max:
            # Whoever is being sent a snapshot will need what follows it, not the next snapshot.
            keep_from = min(keep_from, self.core.snapshot_under_way or keep_from)
        if self._disks.is_busy(Job.CUT) or self._installing is not None:
            return
        if keep_from < self._storage.first_index:
            return
        log.debug("the log is cut up to %d", keep_from)
        self._storage.compact(keep_from)
        self._disks.run(Job.CUT, partial(self._wal.compact, keep_from), lambda: None)

    # Time and failure.

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(self.settings.tick_interval, self._tick)
        if self.failure is not None:
            return
        now = self._loop.time()
        self._proposals.expire(TimedOut("the proposal got no answer in time"))
        self._outgoing.tick()
        if self._changing and self._changing[0].deadline <= now:
            self._finish_changes(TimedOut("the change of members was not committed in time"))
        try:
            self._reads.expire()
            if self._leader:
                self._reads.ask_held()
            if now - self._flushed_at >= self.settings.flush_interval:
                self._flush()
            self.core.tick()
        except Exception as error:
            self._fail(error)
            return
        self._schedule()

    def _check_running(self) -> None:
        if self.failure is not None:
            raise Stopped(f"the node has failed: {self.failure}")
        if self._stopping:
            raise Stopped("the node is stopping")

    def _fail_waiters(self, error: Exception) -> None:
        """Nobody who waits here will get an answer."""
        self._reads.fail_all(error)
        self._outgoing.clear()
        self._proposals.fail_all(error)
        self._finish_changes(error)

    def _disown(self, error: Exception) -> None:
        """What was given to a leader will perhaps not be answered any more; what was not yet, will be. Reads
        can be asked for again."""
        self._proposals.fail_all(error, spare=self._outgoing.unsent)
        self._outgoing.forget_forwarded()
        self._reads.hold_all()
        # What is certain will be applied. What is gone from the log is no change under way either.
        is_settled, has = not self.core.change_under_way, self.core.log.has
        if not all(is_settled and has(*one.position) for one in self._changing):
            self._finish_changes(error)

    def _finish_changes(self, error: Exception | None) -> None:
        """Whoever waits for a change of members hears how it ended."""
        changing, self._changing = self._changing, []
        for one in changing:
            if not one.future.done():
                one.future.set_result(None) if error is None else one.future.set_exception(error)

    def _fail(self, error: BaseException) -> None:
        """A promise can no longer be kept: stop making any."""
        if self.failure is not None:
            return
        self.failure = error
        self._outbox.close()
        self._fail_waiters(Stopped(f"the node has failed: {error}"))
        self._on_fatal(error)
