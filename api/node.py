"""The composition root: opens everything one server is made of, in order, and closes it
in the reverse order.

    lock → write-ahead log → state → log storage → core → watch hub → driver → service

On disk, below the data directory: ``LOCK``, ``wal/`` and ``state/``.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import random
import struct
import time
from pathlib import Path
from typing import IO, Any

from api.config import ServerConfig
from api.identity import cluster_id, member_id
from api.scrubber import Scrubber
from api.service import Limits, Member, Service
from kvstate.backend import Backend
from kvstate.lmdb_store import LmdbStore
from kvstate.machine import ApplyResult, StateMachine
from raft.core.config import Config
from raft.core.consensus import Consensus
from raft.core.membership import decode
from raft.core.storage import MemoryStorage
from raft.core.types import Membership, Position, Role
from raft.driver import Driver, DriverSettings
from raft.filesystem import RealFilesystem
from raft.proposals import Proposals
from raft.restart import Discontinuous, resume
from raft.transport import NoPeers
from raft.wal.wal import Recovered, Wal
from watch.hub import Hub

log = logging.getLogger(__name__)

_IDENTITY = struct.Struct(">QQ")


class StartRefused(Exception):
    """The data directory does not allow a safe start; the message says why and what to do."""


class Node:
    """One running member. ``await Node.open(config)``, use ``service``, ``await stop()``."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.member_id = member_id(config.initial_advertise_peer_urls, config.initial_cluster_token)
        self.cluster_id = cluster_id([self.member_id])
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.service: Service
        self._lock: IO[bytes]
        self._driver: Driver
        self._machine: StateMachine
        self._scrubber: Scrubber
        self._hub: Hub
        self._progress: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, config: ServerConfig) -> Node:
        """Recover what the data directory holds and start to serve; returns when this node
        can take writes. Raises StartRefused, WalCorrupt, WalFailed, StateFault or OSError."""
        node = cls(config)
        node._lock = _lock_directory(config.data_dir)
        try:
            await node._assemble()
        except BaseException:
            node._lock.close()
            raise
        return node

    async def stop(self) -> None:
        """Finish what is under way, make it durable, release the data directory."""
        if self._progress is not None:
            self._progress.cancel()
        self._scrubber.stop()
        await self._driver.stop()
        self._machine.close()
        self._lock.close()

    async def _assemble(self) -> None:
        config = self.config
        wal, recovered = Wal.open(
            RealFilesystem(),
            config.data_dir / "wal",
            identity=_IDENTITY.pack(self.cluster_id, self.member_id),
        )
        if recovered.cut is not None:
            log.warning("%s", recovered.cut)
        self._machine = machine = StateMachine(Backend(LmdbStore(config.data_dir / "state")))
        storage = self._resume(wal, recovered)
        core = Consensus(
            Config(
                id=self.member_id,
                election_ticks=config.election_ticks,
                heartbeat_ticks=1,
                rng=random.Random(os.urandom(16)),
            ),
            storage,
            last_applied=machine.applied[0],
        )
        self._hub = Hub(machine)
        self._scrubber = Scrubber(machine, self._fail)
        self._driver = driver = self._make_driver(core, storage, wal)
        member = Member(
            self.member_id, config.name, config.initial_advertise_peer_urls, config.advertise_client_urls
        )
        limits = Limits(config.max_txn_ops, config.max_request_bytes)
        self.service = Service(machine, driver, self._hub, self._scrubber, (member,), limits)
        driver.start()
        await self._until_ready(core)
        self._scrubber.poke()
        self._tick_progress()

    def _resume(self, wal: Wal, recovered: Recovered) -> MemoryStorage:
        """The log to go on with. Raises StartRefused where state and log do not belong together."""
        machine, data_dir = self._machine, self.config.data_dir
        # A new state knows no membership, nor does an early one of a single member.
        founders = Membership(frozenset({self.member_id}))
        membership = decode(machine.membership) if machine.membership else founders
        try:
            return resume(wal, recovered, Position(*machine.applied), membership)
        except Discontinuous as error:
            raise StartRefused(
                f"In {data_dir / 'wal'} and {data_dir / 'state'} {error}: one of the two was changed or"
                " replaced. Restore both from the same moment."
            ) from error

    def _make_driver(self, core: Consensus, storage: MemoryStorage, wal: Wal) -> Driver:
        settings = DriverSettings(
            tick_interval=self.config.heartbeat_interval / 1000,
            request_timeout=5 + 2 * self.config.election_timeout / 1000,
            snapshot_count=self.config.snapshot_count,
        )
        loop = asyncio.get_running_loop()
        proposals = Proposals(self.member_id, time.time_ns() // 1_000_000, settings.request_timeout, loop)
        return Driver(
            core,
            storage,
            wal,
            self._machine,
            NoPeers(),
            proposals,
            settings,
            on_applied=self._applied,
            on_restored=self._restored,
            on_fatal=self._fail,
        )

    async def _until_ready(self, core: Consensus) -> None:
        """Wait until this node leads and has applied its log: from then on it knows
        everything that was ever acknowledged."""
        barrier: asyncio.Future[Any] | None = None
        while not self.failed.done():
            if core.role is Role.LEADER:
                barrier = barrier or self._driver.read_barrier()
                done, _ = await asyncio.wait({barrier, self.failed}, return_when=asyncio.FIRST_COMPLETED)
                if barrier in done:
                    await barrier
                    return
            else:
                await asyncio.sleep(0.001)
        raise StartRefused(f"The node failed while it started: {self.failed.result()}")

    def _applied(self, result: ApplyResult) -> None:
        if result.events:
            self._hub.publish(result.revision, result.events)
        elif self._machine.compaction_pending:
            self._scrubber.poke()

    def _restored(self) -> None:
        self._hub.restored()
        self._scrubber.poke()

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
