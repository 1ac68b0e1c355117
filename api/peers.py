"""This node among the others: the transport and the peers' server, with what the node knows of the members.

Whom we send to follows the membership in force, and those that left stay reachable for a moment, so
that they hear of it. A peer that refuses us may be right: who is removed stops; who founds a cluster
and is refused by so many that no quorum can come about without them has wrong flags, and
says so instead of waiting for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp
from aiohttp import web

from api.bootstrap import MEMBERS_PATH, Origin, StartRefused, members_page
from api.config import ServerConfig, peer_address
from api.leases import CALL_PATH as LEASES_PATH
from api.leases import Leases
from api.members import CALL_PATH as MEMBERS_CALL_PATH
from api.members import Members
from api.roster import removed_from, roster_of
from kvstate.snapshot import StateDirectory
from raft.core.messages import InstallSnapshot, Message
from raft.core.types import Membership
from raft.driver import Driver
from raft.handshake import Identity, Reason
from raft.link import LinkSettings
from raft.peer_server import PeerServer
from raft.snapshot_transfer import PATH as SNAPSHOT_PATH
from raft.snapshot_transfer import SnapshotReceiver, SnapshotSender
from raft.transport import PeerTransport

log = logging.getLogger(__name__)


class Removed(Exception):
    """This member has been removed from the cluster: it has nothing to do here any more."""

    def __init__(self, member: int) -> None:
        super().__init__(f"member {member:x} has been removed from the cluster")


class Peers:
    """``transport`` can be used at once; the server needs the driver, and comes with ``open``."""

    def __init__(
        self,
        config: ServerConfig,
        origin: Origin,
        state: StateDirectory,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._config = config
        self._origin = origin
        self._state = state
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._driver: Driver | None = None
        self._server: PeerServer | None = None
        self._known: Mapping[int, tuple[str, ...]] = self._origin.addresses
        self._departing: dict[int, tuple[str, ...]] = {}
        self._refusals: dict[int, str] = {}
        self._dropping: set[asyncio.Task[None]] = set()
        election = config.election_timeout / 1000
        self._us = Identity(origin.cluster_id, origin.member_id, config.initial_advertise_peer_urls)
        settings = LinkSettings(connect_timeout=max(1.0, election), unacknowledged_max=max(1.0, election))
        directory = config.data_dir / "snapshots"
        self._session = aiohttp.ClientSession()
        self._sender = SnapshotSender(directory, state, self._session)
        self._receiver = SnapshotReceiver(directory, state.stands_for, self._deliver_snapshot)
        self.transport = PeerTransport(
            self._us,
            settings,
            self._sender,
            on_snapshot_sent=self._snapshot_sent,
            on_refused=self._refused,
            on_gone=self._gone,
            log_is_empty=self._log_is_empty,
        )
        self._ping_interval = settings.ping_interval

    async def open(self, driver: Driver, members: Members, leases: Leases) -> None:
        """Listen for the others. Raises StartRefused."""
        self._driver = driver

        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(body=await members.answer(await request.read()))

        async def answer_for_leases(request: web.Request) -> web.StreamResponse:
            return web.Response(body=await leases.answer(await request.read()))

        async def page(request: web.Request) -> web.StreamResponse:
            return web.json_response(
                members_page(self._origin.cluster_id, members.applied, driver.core.last_applied)
            )

        self._server = PeerServer(
            self._us,
            receive=self._receive,
            heard_of=self.transport.heard_of,
            removed=lambda: removed_from(members.applied),
            has_started=self._has_started,
            handlers={
                MEMBERS_CALL_PATH: answer,
                LEASES_PATH: answer_for_leases,
                SNAPSHOT_PATH + "/{id}": self._receiver.handle,
            },
            open_pages={MEMBERS_PATH: page},
            ping_interval=self._ping_interval,
        )
        addresses = [peer_address(url, "--listen-peer-urls") for url in self._config.listen_peer_urls]
        try:
            await self._server.open(addresses)
        except OSError as error:
            raise StartRefused(
                f"cannot listen for peers on {', '.join(self._config.listen_peer_urls)}: {error}"
            ) from error

    async def close(self) -> None:
        await self.transport.close()
        if self._server is not None:
            await self._server.close()
        await self._receiver.close()
        await self._sender.close()
        await self._session.close()

    def membership_changed(self, membership: Membership) -> None:
        """Another membership is in force here, committed or not."""
        before, known = self._known, dict(self._addresses(membership))
        for member, urls in before.items():
            if member in membership.voters_outgoing:
                known.setdefault(member, urls)  # it has left the roster, but votes until the change is final
            elif member not in known:
                self._departing[member] = urls
                later = 2 * self._config.election_timeout / 1000
                self._loop.call_later(later, self._depart, member)
        for member in known:
            self._departing.pop(member, None)
        self._known = known
        self._set_peers()

    def settled(self, membership: Membership) -> None:
        """A membership is certain: whoever was removed has no business here."""
        if self._server is not None:
            for member in removed_from(membership):
                dropping = self._loop.create_task(self._server.drop(member))
                self._dropping.add(dropping)
                dropping.add_done_callback(self._dropping.discard)

    def describe_connections(self) -> str:
        """For people who wait."""
        others = sorted(self._known.keys() - {self._us.member_id})
        missing = [one for one in others if self.transport.connected_since(one) is None]
        if not missing:
            return f"connected to all {len(others)} others, but no leader is known yet"
        return f"no connection to {', '.join(f'{one:x}' for one in missing)} of {len(others)} other members"

    def _addresses(self, membership: Membership) -> Mapping[int, tuple[str, ...]]:
        if not membership.members:
            return self._origin.addresses
        return roster_of(membership.context).addresses(membership.members)

    def _set_peers(self) -> None:
        self.transport.set_peers({**self._departing, **self._known})

    def _depart(self, member: int) -> None:
        if self._departing.pop(member, None) is not None:
            self._set_peers()

    def _snapshot_sent(self, follower: int, index: int, arrived: bool) -> None:
        if self._driver is not None:
            self._driver.report_snapshot(follower, index, arrived=arrived)

    def _deliver_snapshot(self, message: InstallSnapshot, path: Path) -> None:
        assert self._driver is not None
        self._driver.receive_snapshot(message, self._state.stage(path))

    def _log_is_empty(self) -> bool:
        return self._driver is not None and self._driver.core.last_index == 0

    def _has_started(self, member: int) -> bool:
        """Whether we know, from whatever our log says, that this member has taken part."""
        assert self._driver is not None
        details = roster_of(self._driver.core.membership.context).details.get(member)
        return details is not None and bool(details.client_urls)

    def _receive(self, message: Message) -> None:
        """A node with an empty log may have lost it: it listens to nobody who has not let it in."""
        driver = self._driver
        assert driver is not None
        if driver.core.last_index or self.transport.connected_since(message.source) is not None:
            driver.receive(message)

    def _gone(self, member: int) -> None:
        if self._driver is not None:
            self._driver.suspect(member)

    def _refused(self, member: int, reason: Reason | None, text: str) -> None:
        if reason is Reason.REMOVED:
            # A moment, since the one that was asked to remove it may be this one, and has not answered yet.
            later = self._config.election_timeout / 1000
            self._loop.call_later(later, self._fail, Removed(self._us.member_id))
            return
        if reason is Reason.FORGETFUL:
            if not self._log_is_empty():
                return  # it was when we called: a first start, which the other had heard of meanwhile
            self._fail(StartRefused(f"{self._config.data_dir} is empty, but {text}."))
            return
        assert self._driver is not None
        self._refusals[member] = text
        core = self._driver.core
        if core.last_index or core.leader_id:
            return  # it is, or was, part of the cluster: the others may be wrong
        voters = core.membership.voters or self._origin.addresses.keys()
        refusing = {
            one: text
            for one, text in self._refusals.items()
            if self.transport.connected_since(one) is None and one in voters
        }
        if len(refusing) > len(voters) - (len(voters) // 2 + 1):
            self._fail(StartRefused(f"this member cannot take part in the cluster: {text}"))
