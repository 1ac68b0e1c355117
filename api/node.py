"""The composition root: opens everything one server is made of, in order, and closes it
in the reverse order.

    ports → lock → who we are → write-ahead log → state → log storage → core → watch hub → peers
          → driver → members → leases → service → peers' server

On disk, below the data directory: ``LOCK``, ``wal/``, ``state/`` and ``snapshots/``, which holds
nothing that a restart needs.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from api.bootstrap import Origin, StartRefused, check_name, from_data, from_flags
from api.config import ServerConfig
from api.leases import OF_LEASES, Leases, LeaseSettings, minimum_ttl
from api.members import Members
from api.peers import Peers, Removed
from api.roster import removed_from, roster_of
from api.scrubber import Scrubber
from api.service import Limits, Service
from kvstate.backend import Backend
from kvstate.machine import ApplyResult, StateMachine
from kvstate.snapshot import StateDirectory
from raft.core.config import Config
from raft.core.consensus import Consensus
from raft.core.membership import decode
from raft.core.storage import MemoryStorage
from raft.core.types import Membership, Position
from raft.driver import Driver, DriverSettings
from raft.errors import LeadershipLost, TimedOut
from raft.filesystem import RealFilesystem
from raft.proposals import ID_BYTES, Proposals
from raft.restart import Discontinuous, resume
from raft.wal.recovery import read_identity
from raft.wal.wal import Recovered, Wal
from watch.hub import Hub

__all__ = ["Node", "Removed", "StartRefused"]

log = logging.getLogger(__name__)

_PUBLISH_RETRY_SECONDS = 0.1
_REMIND_SECONDS = 10.0


class Node:
    """One running member. ``await Node.open(config)``, use ``service``, ``await stop()``."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.service: Service
        self.members: Members
        self._origin: Origin
        self._lock: IO[bytes]
        self._driver: Driver
        self._machine: StateMachine
        self._scrubber: Scrubber
        self._hub: Hub
        self._peers: Peers
        self._leases: Leases
        self._progress: asyncio.TimerHandle | None = None
        self._publishing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, config: ServerConfig) -> Node:
        """Recover what the data directory holds and take part; returns when this node may serve. That is
        when it has heard from the cluster everything that was ever acknowledged; or, if it has a state
        from before, after a while, for stale reads are better than none. Raises StartRefused, WalCorrupt,
        WalFailed, StateFault or OSError."""
        node = cls(config)
        node._lock = _lock_directory(config.data_dir)
        try:
            await node._assemble()
        except BaseException:
            node._lock.close()
            raise
        try:
            await node._until_ready()
        except BaseException:
            with suppress(Exception):
                await node.stop()
            raise
        return node

    @property
    def member_id(self) -> int:
        return self._origin.member_id

    @property
    def cluster_id(self) -> int:
        return self._origin.cluster_id

    async def hand_over(self) -> None:
        """If this node leads, let another: requests go on being answered here meanwhile."""
        await self._driver.hand_over()

    async def stop(self) -> None:
        """Let another member lead, finish what is under way, make it durable, release the data directory."""
        if self._publishing is not None:
            self._publishing.cancel()
        if self._progress is not None:
            self._progress.cancel()
        self._scrubber.stop()
        await self.hand_over()
        self._leases.stop()
        try:
            await self._driver.stop()
        finally:
            await self._peers.close()
            self._machine.close()
            self._lock.close()

    async def _assemble(self) -> None:
        config, wal_directory, files = self.config, self.config.data_dir / "wal", RealFilesystem()
        identity = read_identity(files, wal_directory) if wal_directory.is_dir() else None
        origin = await from_flags(config) if identity is None else from_data(config, identity)
        self._origin = origin
        wal, recovered = Wal.open(files, wal_directory, identity=origin.identity)
        if recovered.cut is not None:
            log.warning("%s", recovered.cut)
        state = StateDirectory(config.data_dir / "state")
        self._machine = machine = StateMachine(Backend(state.open()))
        storage = self._resume(wal, recovered)
        core = Consensus(
            Config(
                id=self.member_id,
                election_ticks=config.election_ticks,
                heartbeat_ticks=1,
                pre_vote=config.pre_vote,
                rng=random.Random(os.urandom(16)),
            ),
            storage,
            last_applied=machine.applied[0],
        )
        if not core.membership.members and config.initial_cluster_state == "new":
            # A joiner waits to be told who the others are; a founder would wait for ever.
            raise StartRefused(
                f"{config.data_dir} holds the log of a cluster ({self.cluster_id:x}) that is not the one that"
                " the flags describe, and does not say who its members are: give the --initial-cluster, peer"
                " URLs and --initial-cluster-token of its first start, or an empty --data-dir."
            )
        self._hub = Hub(machine)
        self._scrubber = Scrubber(machine, self._fail)
        self._peers = peers = Peers(config, origin, state, self._fail)
        try:
            self._driver = driver = self._make_driver(core, storage, wal)
            self.members = Members(config, machine, driver, peers.transport, driver.settings.request_timeout)
            self._leases = self._make_leases()
            limits = Limits(config.max_txn_ops, config.max_request_bytes)
            self.service = Service(
                machine, driver, self._hub, self._scrubber, self.members, self._leases, limits
            )
            await peers.open(driver, self.members, self._leases)
            peers.membership_changed(core.membership)
        except BaseException:
            await peers.close()
            raise
        # Without pre-votes it would depose a leader that it has not heard from yet.
        driver.start(advance=config.initial_election_tick_advance and config.pre_vote)
        self._leases.start()

    def _resume(self, wal: Wal, recovered: Recovered) -> MemoryStorage:
        """The log to go on with. Raises StartRefused where state and log do not belong together, or are
        not ours to go on with."""
        machine, data_dir = self._machine, self.config.data_dir
        # A new state knows no membership, nor does an early one of a single member.
        membership = decode(machine.membership) if machine.membership else self._origin.membership
        roster = roster_of(membership.context)
        check_name(self.config, self.member_id, roster)
        if self.member_id in removed_from(membership):
            raise self._refused_for_good()
        try:
            return resume(wal, recovered, Position(*machine.applied), membership)
        except Discontinuous as error:
            raise StartRefused(
                f"In {data_dir / 'wal'} and {data_dir / 'state'} {error}: one of the two was changed or"
                " replaced. Restore both from the same moment."
            ) from error

    def _refused_for_good(self) -> StartRefused:
        """This member was removed: its own state says so, or whom it has called."""
        return StartRefused(
            f"member {self.member_id:x} in {self.config.data_dir} has been removed from the cluster: to come"
            " back, it must be added anew and start with an empty --data-dir."
        )

    def _make_driver(self, core: Consensus, storage: MemoryStorage, wal: Wal) -> Driver:
        config = self.config
        settings = DriverSettings(
            tick_interval=config.heartbeat_interval / 1000,
            request_timeout=5 + 2 * config.election_timeout / 1000,
            snapshot_count=config.snapshot_count,
            catchup_entries=config.snapshot_catchup_entries,
            inline_write_max=0.002,
        )
        loop = asyncio.get_running_loop()
        proposals = Proposals(int.from_bytes(os.urandom(ID_BYTES), "big"), settings.request_timeout, loop)
        return Driver(
            core,
            storage,
            wal,
            self._machine,
            self._peers.transport,
            proposals,
            settings,
            on_applied=self._applied,
            on_restored=self._restored,
            on_fatal=self._fail,
            on_membership=self._peers.membership_changed,
            on_membership_applied=self._membership_applied,
        )

    def _make_leases(self) -> Leases:
        config = self.config
        settings = LeaseSettings(
            election_timeout=config.election_timeout / 1000,
            request_timeout=self._driver.settings.request_timeout,
            minimum_ttl=minimum_ttl(config.election_ticks, config.heartbeat_interval),
        )
        rng = random.Random(os.urandom(16))
        return Leases(self._machine, self._driver, self._peers.transport, settings, rng=rng)

    async def _until_ready(self) -> None:
        self._scrubber.poke()
        self._tick_progress()
        loop = asyncio.get_running_loop()
        self._publishing = publishing = loop.create_task(self._publish())
        # A node with a past has something to serve while it waits for the others.
        patience = 2 * self.config.election_timeout / 1000 if self._machine.applied[0] else None
        deadline = None if patience is None else loop.time() + patience
        while True:
            rest = _REMIND_SECONDS
            if deadline is not None:
                rest = max(0.0, min(rest, deadline - loop.time()))
            waiting: set[asyncio.Future[Any]] = {publishing, self.failed}
            await asyncio.wait(waiting, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
            if self.failed.done():
                error = self.failed.result()
                if isinstance(error, Removed):
                    raise self._refused_for_good() from error
                if isinstance(error, StartRefused):
                    raise error
                raise StartRefused(f"The node failed while it started: {error}")
            if publishing.done():
                publishing.result()
                return
            log.warning("waiting for the cluster: %s", self._peers.describe_connections())
            if deadline is not None and loop.time() >= deadline:
                return

    async def _publish(self) -> None:
        """Catch up with everything acknowledged, then tell the others what we are called and where clients
        reach us, if they do not know."""
        config, told = self.config, False
        while not told:
            try:
                await self._driver.read_barrier()
                own = roster_of(self.members.applied.context).details.get(self.member_id)
                if own is None or own[::2] != (config.name, config.advertise_client_urls):
                    await self.members.publish(config.name, config.advertise_client_urls)
                told = True
            except (TimedOut, LeadershipLost) as error:
                log.debug("not published yet: %s", error)
            except Exception as error:
                if self.failed.done():
                    return
                log.debug("not published yet: %r", error)
                await asyncio.sleep(_PUBLISH_RETRY_SECONDS)

    def _applied(self, result: ApplyResult) -> None:
        if isinstance(result.response, OF_LEASES):
            self._leases.applied(result.response)
        if result.events:
            self._hub.publish(result.revision, result.events)
        elif self._machine.compaction_pending:
            self._scrubber.poke()

    def _restored(self) -> None:
        self._hub.restored()
        self._leases.restored()
        self._scrubber.poke()

    def _membership_applied(self, membership: Membership) -> None:
        self._peers.settled(membership)
        if self.member_id in removed_from(membership):
            # A moment, so that those who asked hear of it, and the others what was committed.
            later = self.config.election_timeout / 1000
            asyncio.get_running_loop().call_later(later, self._fail, Removed(self.member_id))

    def _tick_progress(self) -> None:
        seconds = self.config.watch_progress_notify_interval / 1000
        self._progress = asyncio.get_running_loop().call_later(seconds, self._tick_progress)
        self._hub.tick()

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_result(error)


def _lock_directory(data_dir: Path) -> IO[bytes]:
    """Create the data directory and hold its lock, so that no two servers use it at once."""
    try:
        RealFilesystem().make_directory(data_dir)
        lock = (data_dir / "LOCK").open("wb")
    except OSError as error:
        raise StartRefused(f"The data directory {data_dir} cannot be used: {error}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StartRefused(
            f"The data directory {data_dir} is in use by another server: stop that one,"
            " or give another --data-dir."
        ) from None
    return lock
