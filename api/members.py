"""Changes of members, by etcd's rules: who may be added, removed, promoted, and when.

Only the leader changes members, one change at a time. Another node passes the request on to it over the
peers' server (``CALL_PATH``) and waits for a leader as long as a request may take. The checks are
etcd's (``--strict-reconfig-check``): a change must leave a quorum of members that have started, and
voters are only changed while the others are there.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgpack

from api.config import ServerConfig
from api.errors import (
    BadMemberUrls,
    BadTransferee,
    LeaderWanted,
    LearnerNotReady,
    MemberNotFound,
    NotEnoughStarted,
    NotLearner,
    PeerUrlExists,
    TooManyLearners,
    UnhealthyCluster,
)
from api.identity import member_id
from api.roster import Details, Member, Roster, members_of, roster_of
from kvstate.machine import StateMachine
from raft.core.errors import MembershipRefused, NotLeader, TransferRefused
from raft.core.membership import Change, ChangeKind, decode
from raft.core.types import NO_MEMBER, Membership, Role
from raft.driver import Driver
from raft.errors import LeadershipLost, TimedOut
from raft.transport import CallFailed, NotReached, PeerTransport

log = logging.getLogger(__name__)

CALL_PATH: Final = "/raft/members"
HEALTH_SECONDS: Final = 5.0
"""A change needs the voters to have been connected for so long, as in etcd."""

_PEER_URL: Final = re.compile(
    r"(?P<scheme>(?i:https?))://(?P<host>[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})"
)
_RETRY_SECONDS = 0.05
_TELLABLE: Final = {
    kind.__name__: kind
    for kind in (
        BadTransferee,
        LearnerNotReady,
        LeadershipLost,
        MemberNotFound,
        NotEnoughStarted,
        NotLearner,
        PeerUrlExists,
        TimedOut,
        TooManyLearners,
        UnhealthyCluster,
    )
}


class Members:
    """The members as this node knows them, and how to change them through whoever leads."""

    def __init__(
        self,
        config: ServerConfig,
        machine: StateMachine,
        driver: Driver,
        transport: PeerTransport,
        timeout: float,
    ) -> None:
        self._config = config
        self._machine = machine
        self._driver = driver
        self._transport = transport
        self._timeout = timeout
        self._one_at_a_time = asyncio.Lock()
        # The last membership for which is_learner was worked out: it is asked for every request.
        self._looked_at: tuple[bytes, bool] = (b"", False)
        self._operations: dict[str, Callable[..., Awaitable[None]]] = {
            "add": self._add,
            "remove": self._remove,
            "update": self._update,
            "promote": self._promote,
            "publish": self._publish,
        }

    @property
    def applied(self) -> Membership:
        """The membership that is certain here; before the first one is, the one in force."""
        data = self._machine.membership
        return decode(data) if data else self._driver.core.membership

    @property
    def is_learner(self) -> bool:
        """Whether this member is one."""
        data = self._machine.membership
        if data is not self._looked_at[0]:
            self._looked_at = data, bool(data) and self._driver.core.id in decode(data).learners
        return self._looked_at[1]

    def listed(self) -> tuple[Member, ...]:
        return members_of(self.applied)

    async def add(self, peer_urls: Sequence[str], *, is_learner: bool) -> tuple[Member, tuple[Member, ...]]:
        """Raises BadMemberUrls, PeerUrlExists, TooManyLearners, NotEnoughStarted, UnhealthyCluster, …"""
        urls = _checked(peer_urls)
        # As etcd's, with the time: an id that was removed never comes back.
        new_id = member_id(urls, f"{self._config.initial_cluster_token}{time.time_ns()}")
        members = await self._at_leader("add", new_id, urls, is_learner)
        return next(one for one in members if one.id == new_id), members

    async def remove(self, member: int) -> tuple[Member, ...]:
        """Raises MemberNotFound, NotEnoughStarted, UnhealthyCluster, …"""
        return await self._at_leader("remove", member)

    async def update(self, member: int, peer_urls: Sequence[str]) -> tuple[Member, ...]:
        """Raises BadMemberUrls, MemberNotFound, PeerUrlExists, …"""
        return await self._at_leader("update", member, _checked(peer_urls))

    async def promote(self, member: int) -> tuple[Member, ...]:
        """Raises MemberNotFound, NotLearner, LearnerNotReady, NotEnoughStarted, …"""
        return await self._at_leader("promote", member)

    async def publish(self, name: str, client_urls: Sequence[str]) -> None:
        """Let everybody know what this member is called and where clients reach it."""
        await self._at_leader("publish", self._driver.core.id, name, tuple(client_urls))

    async def move_leader(self, target: int) -> None:
        """Returns when ``target`` leads. Raises LeaderWanted, BadTransferee or TimedOut."""
        driver = self._driver
        if driver.core.role is not Role.LEADER:
            raise LeaderWanted
        try:
            driver.transfer_leadership(target)
        except TransferRefused as error:
            raise BadTransferee from error
        deadline = time.monotonic() + self._timeout
        while driver.core.leader_id != target:
            if time.monotonic() > deadline or (
                driver.core.role is Role.LEADER and not driver.core.transfer_target
            ):
                raise TimedOut("the leadership was not transferred in time")
            await asyncio.sleep(_RETRY_SECONDS)

    async def answer(self, body: bytes) -> bytes:
        """As the leader: what ``_at_leader`` of another node asks."""
        operation, arguments = msgpack.unpackb(body, use_list=False)
        try:
            members = await self._here(operation, arguments)
        except NotLeader:
            return _pack({"error": "NotLeader"})
        except tuple(_TELLABLE.values()) as error:
            return _pack({"error": type(error).__name__})
        return _pack(
            {
                "members": [
                    [one.id, one.name, one.peer_urls, one.client_urls, one.is_learner] for one in members
                ]
            }
        )

    async def _at_leader(self, operation: str, *arguments: Any) -> tuple[Member, ...]:
        """Carry it out where the leader is, waiting for one if there is none."""
        core, deadline = self._driver.core, time.monotonic() + self._timeout
        while True:
            try:
                if core.role is Role.LEADER:
                    return await self._here(operation, arguments)
                if core.leader_id != NO_MEMBER:
                    return await self._there(core.leader_id, operation, arguments)
            except (NotLeader, NotReached):
                pass  # it was there, and led, a moment ago
            except CallFailed as error:
                raise TimedOut("the leader was asked and did not answer") from error
            if time.monotonic() > deadline:
                raise TimedOut("no leader was found in time")
            await asyncio.sleep(_RETRY_SECONDS)

    async def _there(self, leader: int, operation: str, arguments: Sequence[Any]) -> tuple[Member, ...]:
        answer = msgpack.unpackb(
            await self._transport.call(leader, CALL_PATH, _pack([operation, arguments])), use_list=False
        )
        if "error" in answer:
            if answer["error"] == "NotLeader":
                raise NotLeader(NO_MEMBER)
            raise _TELLABLE[answer["error"]]("the leader says so")
        return tuple(Member(*fields) for fields in answer["members"])

    async def _here(self, operation: str, arguments: Sequence[Any]) -> tuple[Member, ...]:
        async with self._one_at_a_time:
            await self._until_settled()
            try:
                await self._operations[operation](*arguments)
            except MembershipRefused as error:
                log.warning("the members cannot be changed: %s", error)
                raise UnhealthyCluster from error
        return self.listed()

    # As the leader.

    async def _add(self, new_id: int, peer_urls: Sequence[str], is_learner: bool) -> None:
        membership, roster = self._in_force()
        self._check_new_urls(peer_urls, NO_MEMBER)
        if is_learner:
            if len(membership.learners) >= self._config.max_learners:
                raise TooManyLearners
        elif self._config.strict_reconfig_check:
            self._check_started(adding=True)
        if self._config.strict_reconfig_check and self._connected(HEALTH_SECONDS) < len(membership.voters):
            raise UnhealthyCluster
        kind = ChangeKind.ADD_LEARNER if is_learner else ChangeKind.ADD_VOTER
        await self._change([Change(kind, new_id)], roster.with_member(new_id, Details("", tuple(peer_urls))))

    async def _remove(self, member: int) -> None:
        membership, roster = self._in_force()
        if member not in membership.members:
            raise MemberNotFound
        if self._config.strict_reconfig_check and member in membership.voters:
            self._check_started(without=member)
            is_down = member != self._driver.core.id and self._transport.connected_since(member) is None
            remaining = len(membership.voters) - 1
            if not is_down and self._connected(HEALTH_SECONDS) - 1 < remaining // 2 + 1:
                raise UnhealthyCluster
        await self._change([Change(ChangeKind.REMOVE, member)], roster.without(member))

    async def _update(self, member: int, peer_urls: Sequence[str]) -> None:
        membership, roster = self._in_force()
        if member not in membership.members:
            raise MemberNotFound
        self._check_new_urls(peer_urls, member)
        known = roster.details.get(member, Details())
        await self._change([], roster.with_member(member, known._replace(peer_urls=tuple(peer_urls))))

    async def _promote(self, member: int) -> None:
        membership, roster = self._in_force()
        if member not in membership.members:
            raise MemberNotFound
        if member not in membership.learners:
            raise NotLearner
        if self._config.strict_reconfig_check:
            self._check_started(adding=True, counting_it=True)
        try:
            await self._change([Change(ChangeKind.ADD_VOTER, member)], roster)
        except MembershipRefused as error:
            raise LearnerNotReady from error

    async def _publish(self, member: int, name: str, client_urls: Sequence[str]) -> None:
        membership, roster = self._in_force()
        if member not in membership.members:
            raise MemberNotFound
        known = roster.details.get(member, Details())
        told = known._replace(name=name, client_urls=tuple(client_urls))
        if told != known:
            await self._change([], roster.with_member(member, told))

    async def _until_settled(self) -> None:
        """What is in force is committed, and may be changed. From here to the proposal nothing may be
        awaited, or what is proposed would not be the roster of then with one thing changed."""
        core = self._driver.core
        deadline = time.monotonic() + self._timeout
        while core.role is Role.LEADER and not self._may_change():
            if time.monotonic() > deadline:
                raise TimedOut("another change of members is under way")
            await asyncio.sleep(_RETRY_SECONDS)
        if core.role is not Role.LEADER:
            raise NotLeader(core.leader_id)

    async def _change(self, changes: Sequence[Change], roster: Roster) -> None:
        """Propose it, and wait until it is certain."""
        context = roster.pack()
        if changes or context != self._driver.core.membership.context:
            await self._driver.change_members(changes, context)

    # The rules.

    def _in_force(self) -> tuple[Membership, Roster]:
        membership = self._driver.core.membership
        return membership, roster_of(membership.context)

    def _may_change(self) -> bool:
        core = self._driver.core
        return core.committed_in_own_term() and not core.change_under_way and not core.transfer_target

    def _check_new_urls(self, peer_urls: Sequence[str], owner: int) -> None:
        _, roster = self._in_force()
        taken = {url for one, details in roster.details.items() if one != owner for url in details.peer_urls}
        if taken & set(peer_urls):
            raise PeerUrlExists

    def _check_started(
        self, *, adding: bool = False, counting_it: bool = False, without: int = NO_MEMBER
    ) -> None:
        """Whether enough of the voters that there would be have started. etcd makes one exception: a
        second member may be added to a single one."""
        membership, _ = self._in_force()
        voters = [one for one in members_of(membership) if not one.is_learner and one.id != without]
        started = sum(one.is_started for one in voters) + counting_it
        total = len(voters) + adding
        if adding and not counting_it and started == 1 and total == 2:
            return
        if not total or started < total // 2 + 1:
            raise NotEnoughStarted

    def _connected(self, seconds: float) -> int:
        """How many voters, this one among them, have been there for so long."""
        since = asyncio.get_running_loop().time() - seconds
        core = self._driver.core
        return sum(
            one == core.id or (self._transport.connected_since(one) or float("inf")) <= since
            for one in core.membership.voters
        )


def _checked(peer_urls: Sequence[str]) -> tuple[str, ...]:
    """As etcd's types.NewURLs writes them. Raises BadMemberUrls; also for what etcd would take and no
    peer could ever reach: no host, no port or one that cannot be, Unix sockets, queries."""
    checked = []
    for url in peer_urls:
        match = _PEER_URL.fullmatch(url.strip())
        if match is None or int(match["port"]) > 65_535:
            raise BadMemberUrls
        checked.append(f"{match['scheme'].lower()}://{match['host']}:{match['port']}")
    if not checked:
        raise BadMemberUrls
    return tuple(sorted(checked))


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed
