"""The one shell around the pure core: it owns the order of disk, network and state machine.

All of it runs on the event loop in ``_step``, which is scheduled when there is
something to do and always goes the same way:

    core ← what came in: proposals as one batch, reads as one round
    ready = core.ready()
    transport.send(ready.messages)              these promise nothing, they leave at once
    wal.write(...) and its fdatasync, in a thread    one at a time; what arrives meanwhile is the next batch
    machine.apply(ready.committed_entries)      while the disk works
    …the disk is done:
    transport.send(ready.messages_after_persist)
    core.advance(ready)                         now they count as durable, and may commit

So proposals that arrive during an fdatasync share the next one (group commit), and
heartbeats and votes go on while a slow disk writes. What arrives at a follower goes to the
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
import heapq
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures import Future as ThreadFuture
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from raft.core.consensus import Consensus
from raft.core.errors import InvariantViolated
from raft.core.membership import Change
from raft.core.messages import InstallSnapshot, Message
from raft.core.ready import Ready
from raft.core.storage import MemoryStorage
from raft.core.types import Entry, EntryType, HardState, Position, ReadState, Role
from raft.errors import LeadershipLost, NotLeader, Overloaded, ProposalDropped, Stopped, TimedOut
from raft.proposals import Proposals, split
from raft.wal.record import Installed, Installing
from raft.wal.wal import Wal

log = logging.getLogger(__name__)

_SAVE, _FLUSH, _CUT = "save", "flush", "cut"


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
    flush_interval: float = 0.1
    flush_bytes: int = 8 << 20
    # Beyond this much unflushed state, applying waits for the disk.
    pending_bytes_max: int = 256 << 20
    # The log is cut when this many entries or bytes lie behind the durable state; a tail stays.
    snapshot_count: int = 10_000
    catchup_entries: int = 5_000
    log_bytes_max: int = 64 << 20
    # Proposals waiting for an answer; one more is refused.
    proposals_max: int = 20_000
    # A read that a follower has passed on is asked for again after this long: a message may be lost.
    read_retry: float = 0.5


class _ReadRound:
    """Reads that share one ReadIndex round."""

    __slots__ = ("deadline", "retry_at", "waiters")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.retry_at = deadline
        self.waiters: list[asyncio.Future[None]] = []

    @property
    def is_answered(self) -> bool:
        return all(waiter.done() for waiter in self.waiters)

    def resolve(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(error)


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
        loop: asyncio.AbstractEventLoop | None = None,
        disks: tuple[Executor, Executor] | None = None,
    ) -> None:
        """``disks``: where the blocking work of the log and of the state is done, each one job at a
        time; a thread each if not given."""
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
        self._log_disk, self._state_disk = disks or (
            ThreadPoolExecutor(1, "wal"),
            ThreadPoolExecutor(1, "state"),
        )
        # Inbox of the next step.
        self._proposed: list[bytes] = []
        self._received: list[Message] = []
        self._staged: dict[Position, StagedSnapshot] = {}
        # What was passed on to the leader, by the context the core knows it by.
        self._forward_ctx = 0
        self._forwarded: dict[int, list[bytes]] = {}
        self._next_round: _ReadRound | None = None
        self._scheduled = False
        # Readys whose content is not durable yet, oldest first.
        self._unsaved: list[Ready] = []
        self._carried: HardState | None = None
        self._to_apply: deque[Entry] = deque()
        # Reads: asked of the core by ctx; confirmed, waiting for applied >= index.
        self._read_ctx = 0
        self._asked: dict[int, _ReadRound] = {}
        self._confirmed: list[tuple[int, int, _ReadRound]] = []
        self._flushed_at = self._loop.time()
        self._ticker: asyncio.TimerHandle | None = None
        self._stopping = False
        self._busy: set[str] = set()  # what is under way on the disks' threads
        self._idle = asyncio.Event()  # set whenever nothing is
        self._idle.set()
        self._installing: Ready | None = None  # the Ready whose snapshot is being installed
        self._after_flush: Callable[[], None] | None = None
        self._term, self._led = core.current_term, False

    # What the node asks for.

    def start(self) -> None:
        """Begin to tick. A sole voter needs nobody's consent and stands for election at once."""
        self._ticker = self._loop.call_later(self.settings.tick_interval, self._tick)
        if self.core.membership.voters == {self.core.id}:
            self.core.campaign()
        self._schedule()

    def propose(self, data: bytes) -> asyncio.Future[Any]:
        """Replicate ``data``; the future brings what ``apply`` returned for it.

        Raises ``Overloaded`` at once; the future may bring ``NotLeader``, ``ProposalDropped``,
        ``LeadershipLost``, ``TimedOut`` or ``Stopped``.
        """
        self._check_running()
        if len(self._proposals) >= self.settings.proposals_max:
            raise Overloaded
        framed, future = self._proposals.register(data)
        self._proposed.append(framed)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._step)
        return future

    def read_barrier(self) -> asyncio.Future[None]:
        """Done when the state machine holds every write acknowledged before this call
        (ReadIndex, thesis §6.4). All reads that arrive in one loop turn share one round."""
        self._check_running()
        if self._next_round is None:
            self._next_round = _ReadRound(self._loop.time() + self.settings.request_timeout)
        future = self._loop.create_future()
        self._next_round.waiters.append(future)
        self._schedule()
        return future

    def receive(self, message: Message) -> None:
        """A peer's message arrived."""
        if message.target != self.core.id:
            log.warning("a message for member %d came here and is dropped", message.target)
            return
        self._received.append(message)
        self._schedule()

    def receive_snapshot(self, message: InstallSnapshot, staged: StagedSnapshot) -> None:
        """A peer's snapshot arrived, with all of its content."""
        if (older := self._staged.get(message.snapshot.position)) is not None:
            older.discard()
        self._staged[message.snapshot.position] = staged
        self.receive(message)

    def report_snapshot(self, follower: int, index: int, *, arrived: bool) -> None:
        """The transfer of the snapshot that was asked for up to ``index`` is over."""
        self.core.report_snapshot(follower, index, arrived=arrived)
        self._schedule()

    def propose_membership(self, changes: Sequence[Change], context: bytes = b"") -> int:
        """See ``Consensus.propose_membership``."""
        self._check_running()
        index = self.core.propose_membership(changes, context)
        self._schedule()
        return index

    def transfer_leadership(self, target: int) -> None:
        """See ``Consensus.transfer_leadership``."""
        self._check_running()
        self.core.transfer_leadership(target)
        self._schedule()

    async def stop(self) -> None:
        """Finish the disk work under way, make the applied state durable, release everything."""
        if self._stopping:
            return
        self._stopping = True
        if self._ticker is not None:
            self._ticker.cancel()
        self._fail_waiters(Stopped("the node is stopping"))
        while self._busy:
            await self._idle.wait()
        if self.failure is None:
            self._machine.freeze()
            await self._loop.run_in_executor(self._state_disk, self._machine.write_frozen)
            self._machine.release_frozen()
        self._log_disk.shutdown()
        self._state_disk.shutdown()
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
        if self._proposed:
            proposed, self._proposed = self._proposed, []
            self._hand_over(proposed)
        if self._next_round is not None:
            read_round, self._next_round = self._next_round, None
            self._ask(read_round)

    def _check_office(self) -> None:
        """In a new term whoever was asked may lead no more, and what it took may or may not be committed."""
        leads, term = self.core.role is Role.LEADER, self.core.current_term
        if term != self._term or (self._led and not leads):
            self._disown(LeadershipLost(f"the leader of term {self._term} was lost"))
        self._term, self._led = term, leads

    def _hand_over(self, proposed: list[bytes]) -> None:
        """Give the core a batch of proposals, which may pass it on to the leader."""
        self._forward_ctx += 1
        try:
            if not self.core.propose(proposed, self._forward_ctx):
                self._forwarded[self._forward_ctx] = proposed
        except (NotLeader, ProposalDropped) as error:
            self._proposals.refuse(proposed, error)

    def _ask(self, read_round: _ReadRound) -> None:
        self._read_ctx += 1
        read_round.retry_at = self._loop.time() + self.settings.read_retry
        try:
            self.core.read_index(self._read_ctx)
        except NotLeader as error:
            read_round.fail(error)
        else:
            self._asked[self._read_ctx] = read_round

    def _take_all(self) -> None:
        while (ready := self.core.ready()) is not None:
            self._take(ready)

    def _take(self, ready: Ready) -> None:
        if ready.messages:
            self._transport.send(ready.messages)
        self._to_apply.extend(ready.committed_entries)
        for read_state in ready.read_states:
            self._confirm(read_state)
        for ctx in ready.refused_proposals:
            self._proposals.refuse(self._forwarded.pop(ctx, []), NotLeader(self.core.leader_id))
        for ctx in ready.refused_reads:
            if (read_round := self._asked.pop(ctx, None)) is not None:
                read_round.fail(NotLeader(self.core.leader_id))
        self._unsaved.append(ready)

    # The log's disk.

    def _save(self) -> None:
        """Start writing what is not durable yet, unless a write is under way: then it waits
        and becomes the next batch."""
        while _SAVE not in self._busy and self._unsaved and self._installing is None and not self._stopping:
            batch = self._next_batch()
            if batch[0].snapshot is not None:
                self._install(batch[0])
            elif any(ready.must_sync for ready in batch):
                carried, self._carried = self._carried, None
                parts = [(carried, ()), *((ready.hard_state, ready.entries) for ready in batch)]
                write = partial(self._wal.write, self._wal.encode(parts))
                self._in_background(_SAVE, self._log_disk, write, partial(self._saved, batch))
            else:
                # Nothing here promises anything: at most a commit index, which the next write carries along.
                for ready in batch:
                    self._carried = ready.hard_state or self._carried
                self._persisted(batch)

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
        self._in_background(_SAVE, self._log_disk, mark, partial(self._replace_state, staged))

    def _drop_unwanted_snapshots(self) -> None:
        """The core has seen all that arrived, and took what it wanted."""
        wanted = {ready.snapshot.position for ready in self._unsaved if ready.snapshot is not None}
        for position in [one for one in self._staged if one not in wanted]:
            self._staged.pop(position).discard()

    def _replace_state(self, staged: StagedSnapshot) -> None:
        """The log is marked. A flush under way must end first: it is of the old state."""
        if _FLUSH in self._busy:
            self._after_flush = partial(self._replace_state, staged)
        else:
            self._in_background(
                _FLUSH, self._state_disk, staged.install, partial(self._begin_log_anew, staged)
            )

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
        self._in_background(_SAVE, self._log_disk, finish, self._installed)

    def _installed(self) -> None:
        ready, self._installing = self._installing, None
        assert ready is not None
        assert ready.snapshot is not None
        position = ready.snapshot.position
        self._storage.restore(position)
        self._storage.snapshot = position
        self._persisted([ready])
        self.core.applied(position.index)
        self._release_reads(position.index)
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
        index = 0
        while queue:
            index, term, entry_type, data = queue.popleft()
            if entry_type is EntryType.NORMAL and data:
                proposal_id, command = split(data)
                result = apply(index, term, command)
                on_applied(result)
                resolve(proposal_id, result)
            elif entry_type is EntryType.MEMBERSHIP:
                machine.apply_membership(index, term, data)
            else:
                apply(index, term, b"")
        self.core.applied(index)
        self._release_reads(index)
        if machine.pending_bytes > self.settings.flush_bytes:
            self._flush()

    def _flush(self) -> None:
        """Make the state machine's changes durable, off the loop."""
        if _FLUSH in self._busy or self._stopping or self._installing is not None:
            return
        if self._machine.pending_bytes == 0:
            return
        self._flushed_at = self._loop.time()
        self._machine.freeze()
        self._in_background(_FLUSH, self._state_disk, self._machine.write_frozen, self._flushed)

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
        if _CUT in self._busy or self._installing is not None or keep_from < self._storage.first_index:
            return
        self._storage.compact(keep_from)
        self._in_background(_CUT, self._log_disk, partial(self._wal.compact, keep_from), lambda: None)

    # Work on threads.

    def _in_background(
        self, job: str, disk: Executor, work: Callable[[], None], then: Callable[[], None]
    ) -> None:
        """Do ``work`` on a disk's thread and ``then`` on the loop; an error of either is fatal."""
        self._busy.add(job)
        self._idle.clear()

        def report(done: ThreadFuture[None]) -> None:
            self._loop.call_soon_threadsafe(self._ended, job, then, done)

        disk.submit(work).add_done_callback(report)

    def _ended(self, job: str, then: Callable[[], None], done: ThreadFuture[None]) -> None:
        self._busy.discard(job)
        if not self._busy:
            self._idle.set()
        try:
            done.result()
            if self.failure is None:
                then()
        except Exception as error:
            self._fail(error)

    # Reads.

    def _confirm(self, read_state: ReadState) -> None:
        read_round = self._asked.pop(read_state.ctx, None)
        if read_round is None:
            return  # it timed out
        if read_state.index <= self.core.last_applied:
            read_round.resolve()
        else:
            heapq.heappush(self._confirmed, (read_state.index, read_state.ctx, read_round))

    def _release_reads(self, applied: int) -> None:
        while self._confirmed and self._confirmed[0][0] <= applied:
            heapq.heappop(self._confirmed)[2].resolve()

    # Time and failure.

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(self.settings.tick_interval, self._tick)
        if self.failure is not None:
            return
        now = self._loop.time()
        self._proposals.expire(TimedOut("the proposal got no answer in time"))
        self._forget_answered()
        try:
            self._expire_reads(now)
            if now - self._flushed_at >= self.settings.flush_interval:
                self._flush()
            self.core.tick()
        except Exception as error:
            self._fail(error)
            return
        self._schedule()

    def _forget_answered(self) -> None:
        """Batches that were passed on and in which nobody waits any more, oldest first."""
        for ctx, proposed in list(self._forwarded.items()):
            if self._proposals.is_waited_for(proposed):
                return
            del self._forwarded[ctx]

    def _expire_reads(self, now: float) -> None:
        error = TimedOut("the read index got no answer in time")
        for ctx, read_round in list(self._asked.items()):
            if read_round.deadline <= now or read_round.is_answered:
                del self._asked[ctx]
                read_round.fail(error)
            elif read_round.retry_at <= now:
                # By a context of its own: an answer to either question will do.
                self._ask(read_round)
        for _, _, read_round in self._confirmed:
            if read_round.deadline <= now:
                read_round.fail(error)

    def _check_running(self) -> None:
        if self.failure is not None:
            raise Stopped(f"the node has failed: {self.failure}")
        if self._stopping:
            raise Stopped("the node is stopping")

    def _fail_waiters(self, error: Exception) -> None:
        """Nobody who waits here will get an answer."""
        rounds = [confirmed[2] for confirmed in self._confirmed]
        if self._next_round is not None:
            rounds.append(self._next_round)
        for read_round in rounds:
            read_round.fail(error)
        self._confirmed.clear()
        self._next_round = None
        self._disown(error)
        self._proposals.fail_all(error)

    def _disown(self, error: Exception) -> None:
        """What was given to a leader will perhaps not be answered any more; what was not yet, will be."""
        self._proposals.fail_all(error, spare=self._proposed)
        self._forwarded.clear()
        for read_round in self._asked.values():
            read_round.fail(error)
        self._asked.clear()

    def _fail(self, error: BaseException) -> None:
        """A promise can no longer be kept: stop making any."""
        if self.failure is not None:
            return
        self.failure = error
        self._proposed.clear()
        self._fail_waiters(Stopped(f"the node has failed: {error}"))
        self._on_fatal(error)
