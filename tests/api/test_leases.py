"""Leases on the members: who answers a keepalive and when, who ends leases, and what is passed on to whom.

The state is real, the log is a list, and time stands until a test moves it.
"""

from __future__ import annotations

import asyncio
import random
import types
from collections.abc import Callable
from typing import Any

import pytest

from api.batches import Batches
from api.leases import (
    CHECKPOINTS_MAX,
    OF_LEASES,
    PAGE,
    REVOCATIONS_MAX,
    REVOCATIONS_SECONDS,
    Leases,
    LeaseSettings,
    minimum_ttl,
)
from api.lessor import CHECKPOINT_SECONDS
from api.service import TimeToLive
from kvstate.backend import Backend, MemoryStore
from kvstate.codec import decode, encode
from kvstate.commands import LeaseCheckpoint, LeaseGrant, LeaseRevoke, Put
from kvstate.machine import StateMachine
from raft.core.types import NO_MEMBER, Role
from raft.errors import LeadershipLost, Overloaded, TimedOut
from raft.transport import NotReached

SETTINGS = LeaseSettings(election_timeout=1.0, request_timeout=1.0, minimum_ttl=2)


class SteppedLoop:
    """The running loop, but for time: that passes when it is told to."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self.now = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, function: Callable[[], None]) -> Any:
        self._timers.append((self.now + delay, function))
        return types.SimpleNamespace(cancel=lambda: None)

    def pass_seconds(self, seconds: float) -> None:
        """Timers that are due fire once, late: as in a process that was stopped."""
        self.now += seconds
        due = [timer for timer in self._timers if timer[0] <= self.now]
        self._timers = [timer for timer in self._timers if timer[0] > self.now]
        for _, function in due:
            function()


class Member:
    """One member with its state, its part of the log, and its leases."""

    def __init__(self, network: Network, member: int) -> None:
        self.core = types.SimpleNamespace(id=member, role=Role.FOLLOWER, current_term=1, leader_id=NO_MEMBER)
        self.machine = StateMachine(Backend(MemoryStore()))
        self.loop = SteppedLoop()
        self.proposed: list[tuple[Any, asyncio.Future[Any]]] = []
        self.barriers: list[asyncio.Future[None]] = []
        self.confirms = True  # barriers, at once
        self.is_overloaded = False
        self.leases = Leases(self.machine, self, network, SETTINGS, rng=random.Random(member), loop=self.loop)
        self.leases.start()
        network.members[member] = self

    # The driver.

    def propose(self, data: bytes) -> asyncio.Future[Any]:
        if self.is_overloaded:
            raise Overloaded
        _, _, command = decode(data)
        future = asyncio.get_running_loop().create_future()
        self.proposed.append((command, future))
        return future

    def read_barrier(self) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        self.barriers.append(future)
        if self.confirms:
            future.set_result(None)
        return future

    # What happens to it.

    def lead(self, term: int) -> None:
        self.follow(self.core.id, term)
        self.core.role = Role.LEADER
        self.apply(None)

    def follow(self, leader: int, term: int) -> None:
        self.core.role, self.core.leader_id, self.core.current_term = Role.FOLLOWER, leader, term

    def apply(self, command: Any, term: int = 0) -> Any:
        data = b"" if command is None else encode(command, user="", wall_clock_ms=0)
        result = self.machine.apply(self.machine.applied[0] + 1, term or self.core.current_term, data)
        if isinstance(result.response, OF_LEASES):
            self.leases.applied(result.response)
        return result

    def commit(self) -> list[Any]:
        """What was proposed is applied, and answered; returns the commands."""
        proposed, self.proposed = self.proposed, []
        for command, future in proposed:
            result = self.apply(command)
            if not future.done():
                future.set_result(result)
        return [command for command, _ in proposed]

    def confirm(self) -> None:
        for future in self.barriers:
            if not future.done():
                future.set_result(None)


class Network:
    """Calls reach the member at once, unless it is cut off."""

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}
        self.cut_off: set[int] = set()
        self.calls: list[int] = []
        self.hanging: set[int] = set()

    async def call(self, member: int, path: str, body: bytes) -> bytes:
        self.calls.append(member)
        if member in self.hanging:
            await asyncio.get_running_loop().create_future()
        if member in self.cut_off:
            raise NotReached("it is cut off")
        return await self.members[member].leases.answer(body)


async def settle() -> None:
    """Let everybody go on as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def network() -> Network:
    return Network()


@pytest.fixture
async def leader(network: Network) -> Member:
    """Member 1 leads in term 2; lease 7 was granted for 60 seconds."""
    one = Member(network, 1)
    one.lead(2)
    one.apply(LeaseGrant(7, 60))
    return one


async def left(member: Member, lease_id: int = 7) -> int | None:
    found = await member.leases.time_to_live(lease_id, keys=False)
    return None if found is None else found.ttl


@pytest.mark.parametrize(
    ("ticks", "heartbeat", "seconds"), [(10, 100, 2), (50, 100, 8), (10, 10, 1), (5, 100, 1)]
)
def test_the_minimum_ttl_is_etcds(ticks: int, heartbeat: int, seconds: int) -> None:
    """One and a half election timeouts, in whole seconds, rounded up."""
    assert minimum_ttl(ticks, heartbeat) == seconds


async def test_a_keepalive_renews(leader: Member) -> None:
    """From now on the lease has its TTL again; one that is not there has none."""
    leader.loop.pass_seconds(20)
    assert await left(leader) == 40
    assert await leader.leases.keep_alive(7) == 60
    assert await left(leader) == 60
    assert await leader.leases.keep_alive(8) == 0
    assert await left(leader, 8) is None


async def test_a_keepalive_is_answered_behind_a_barrier_that_began_after_it_arrived(leader: Member) -> None:
    """And the lease is renewed from the arrival on, not from the answer: whoever was elected in between
    gives it its TTL from a later moment."""
    leader.confirms = False
    asked = asyncio.ensure_future(leader.leases.keep_alive(7))
    await settle()
    leader.loop.pass_seconds(30)
    await settle()
    assert len(leader.barriers) == 1
    assert not asked.done()
    leader.confirms = True
    leader.confirm()
    assert await asked == 60
    assert await left(leader) == 30


async def test_an_old_leader_that_was_stopped_and_goes_on_renews_nothing(
    leader: Member, network: Network
) -> None:
    """It takes itself for the leader until it hears more; no quorum confirms that. What it was asked, the
    new leader answers, which has revoked the lease meanwhile."""
    successor = Member(network, 2)
    for command in (None, LeaseGrant(7, 60)):
        successor.apply(command)
    leader.confirms = False
    leader.loop.pass_seconds(50)  # it was stopped; its clock says that the lease lives
    asked = asyncio.ensure_future(leader.leases.keep_alive(7))
    successor.lead(3)
    successor.apply(LeaseRevoke(7))
    await settle()
    assert not asked.done()
    leader.follow(2, 3)
    leader.confirm()  # by the new leader: such a barrier is good for reads
    assert await asked == 0
    assert network.calls == [2]


async def test_who_leads_again_in_a_later_term_begins_anew(leader: Member) -> None:
    """Its clock of the earlier term knows nothing of keepalives that others answered meanwhile."""
    leader.confirms = False
    asked = asyncio.ensure_future(leader.leases.keep_alive(7))
    await settle()
    leader.follow(2, 3)
    leader.apply(LeaseGrant(9, 30))
    leader.loop.pass_seconds(100)
    leader.lead(4)
    leader.confirms = True
    leader.confirm()
    assert await asked == 60
    assert await left(leader, 9) == 31
    assert leader.commit() == []


async def test_a_new_leader_answers_nothing_before_it_has_applied_an_entry_of_its_term(
    network: Network,
) -> None:
    """It does not know all leases before that."""
    one = Member(network, 1)
    one.follow(1, 2)
    one.core.role = Role.LEADER
    one.loop.pass_seconds(1)
    asked = asyncio.ensure_future(one.leases.keep_alive(7))
    await settle()
    assert not asked.done()
    one.apply(LeaseGrant(7, 60), term=1)
    one.apply(None)
    assert await asked == 60


async def test_a_lease_granted_in_office_has_its_ttl_and_no_more(network: Network) -> None:
    """Though nobody had looked before whether this node leads."""
    one = Member(network, 1)
    one.lead(2)
    one.apply(LeaseGrant(7, 60))
    assert await left(one) == 60
    one.loop.pass_seconds(0.5)
    assert await left(one) == 59


async def test_a_lease_that_has_run_out_is_revoked_by_the_leader(leader: Member) -> None:
    """Once, with the term of who says so, and its keys go with it."""
    leader.apply(Put(b"a", b"1", lease=7))
    leader.loop.pass_seconds(59.9)
    assert leader.proposed == []
    leader.loop.pass_seconds(0.2)
    leader.loop.pass_seconds(0.2)
    assert leader.commit() == [LeaseRevoke(7, expired_in_term=2)]
    assert leader.machine.view().kv_of(b"a", leader.machine.revision) is None
    leader.loop.pass_seconds(100)
    assert leader.proposed == []


async def test_a_keepalive_of_a_lease_that_has_run_out_waits_for_its_end(leader: Member) -> None:
    """As in etcd: then it is told that there is no such lease."""
    leader.loop.pass_seconds(60)
    asked = asyncio.ensure_future(leader.leases.keep_alive(7))
    await settle()
    assert not asked.done()
    leader.commit()
    assert await asked == 0


async def test_a_revocation_that_fails_is_proposed_again(leader: Member) -> None:
    """Whether it was lost, or not even taken."""
    leader.loop.pass_seconds(60)
    [(_, future)] = leader.proposed
    leader.proposed.clear()
    future.set_exception(TimedOut("no answer"))
    await settle()
    leader.is_overloaded = True
    leader.loop.pass_seconds(0.1)
    assert leader.proposed == []
    leader.is_overloaded = False
    leader.loop.pass_seconds(0.1)
    assert leader.commit() == [LeaseRevoke(7, expired_in_term=2)]


async def test_a_leader_that_is_none_any_more_revokes_nothing(leader: Member) -> None:
    """Nor does what it had proposed count in another's term."""
    leader.loop.pass_seconds(60)
    [(command, future)] = leader.proposed
    future.set_exception(LeadershipLost("another leads"))
    leader.proposed.clear()
    leader.follow(2, 3)
    leader.loop.pass_seconds(0.1)
    leader.loop.pass_seconds(0.1)
    assert leader.proposed == []
    assert leader.apply(command).error is not None
    assert leader.machine.lease(7) is not None


async def test_leases_that_run_out_together_are_revoked_in_groups(leader: Member) -> None:
    """The next group comes when the one before is done, so that writes are not held up."""
    for lease_id in range(100, 100 + 3 * REVOCATIONS_MAX):
        leader.apply(LeaseGrant(lease_id, 30))
    leader.loop.pass_seconds(30)
    assert len(leader.proposed) == REVOCATIONS_MAX
    leader.loop.pass_seconds(1)
    assert len(leader.proposed) == REVOCATIONS_MAX
    leader.commit()
    await settle()
    leader.loop.pass_seconds(REVOCATIONS_SECONDS)
    assert len(leader.proposed) == REVOCATIONS_MAX


async def test_a_thousand_leases_a_second_are_revoked(leader: Member) -> None:
    for lease_id in range(100, 3100):
        leader.apply(LeaseGrant(lease_id, 30))
    leader.loop.pass_seconds(30)
    revoked = 0
    for _ in range(100):
        leader.loop.pass_seconds(REVOCATIONS_SECONDS / 2)
        revoked += len(leader.commit())
        await settle()
    assert 900 <= revoked <= 1100


async def test_long_leases_get_checkpoints_through_the_log(leader: Member) -> None:
    """A next leader goes on from there; a keepalive first takes it back."""
    leader.apply(LeaseGrant(8, 1000))
    leader.loop.pass_seconds(CHECKPOINT_SECONDS)
    assert leader.commit() == [LeaseRevoke(7, 2), LeaseCheckpoint(((8, 700),), 2)]
    assert leader.machine.lease(8).remaining_ttl == 700
    asked = asyncio.ensure_future(leader.leases.keep_alive(8))
    await settle()
    assert not asked.done()
    assert leader.commit() == [LeaseCheckpoint(((8, 0),), 2)]
    assert await asked == 1000
    assert leader.machine.lease(8).remaining_ttl == 0


async def test_a_checkpoint_of_an_earlier_leader_counts_for_nothing(leader: Member) -> None:
    """It was passed on to one who may have renewed the lease meanwhile."""
    leader.apply(LeaseGrant(8, 1000))
    leader.loop.pass_seconds(CHECKPOINT_SECONDS)
    leader.follow(2, 3)
    leader.commit()
    assert leader.machine.lease(8).remaining_ttl == 0


async def test_a_new_leader_takes_back_no_checkpoint_in_anothers_term(leader: Member) -> None:
    """Then the keepalive is asked again, of who leads."""
    leader.apply(LeaseGrant(8, 1000))
    leader.loop.pass_seconds(CHECKPOINT_SECONDS)
    leader.commit()
    asked = asyncio.ensure_future(leader.leases.keep_alive(8))
    await settle()
    leader.lead(3)
    leader.commit()
    for _ in range(3):
        await asyncio.sleep(0.03)
        leader.commit()
    assert await asked == 1000
    assert leader.machine.lease(8).remaining_ttl == 0


async def test_checkpoints_come_in_groups(leader: Member) -> None:
    """However many are due."""
    for lease_id in range(1000, 1000 + CHECKPOINTS_MAX + 1):
        leader.apply(LeaseGrant(lease_id, 1000))
    leader.apply(LeaseRevoke(7))
    leader.loop.pass_seconds(CHECKPOINT_SECONDS)
    leader.loop.pass_seconds(0.1)
    sizes = [len(command.checkpoints) for command, _ in leader.proposed]
    assert sizes == [CHECKPOINTS_MAX, 1]


# Many leases.


def many(member: Member, count: int) -> None:
    for lease_id in range(1000, 1000 + count):
        member.apply(LeaseGrant(lease_id, 60))


async def test_an_office_with_many_leases_is_taken_in_steps(network: Network) -> None:
    """Between which everything may happen; then all leases are known."""
    one = Member(network, 1)
    many(one, 3 * PAGE)
    one.lead(2)
    asked = asyncio.ensure_future(one.leases.keep_alive(1000))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    one.apply(LeaseRevoke(1001))
    one.apply(LeaseRevoke(1000 + 3 * PAGE - 1))
    one.apply(LeaseGrant(7, 60))
    assert not asked.done()
    assert await asked == 60
    assert [await left(one, lease) for lease in (7, 1000, 1001, 1002)] == [60, 61, None, 61]
    assert await left(one, 1000 + 3 * PAGE - 1) is None


async def test_an_office_that_is_over_before_all_leases_are_read_leaves_nothing(network: Network) -> None:
    """The next one reads all anew."""
    one = Member(network, 1)
    many(one, 3 * PAGE)
    one.lead(2)
    asked = asyncio.ensure_future(one.leases.keep_alive(1000))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    one.lead(3)
    one.apply(LeaseRevoke(1000))
    assert await asked == 0
    assert await left(one, 1001) == 61


async def test_a_list_of_many_is_as_of_its_end(leader: Member) -> None:
    """What is granted and revoked while it is made, before or behind the place that was come to, counts."""
    many(leader, 3 * PAGE)
    asked = asyncio.ensure_future(leader.leases.ids())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not asked.done()
    for command in (
        LeaseRevoke(7),
        LeaseGrant(-8, 60),
        LeaseRevoke(1000 + 3 * PAGE - 1),
        LeaseGrant(9999, 60),
    ):
        leader.apply(command)
    assert await asked == [-8, *range(1000, 1000 + 3 * PAGE - 1), 9999]


async def test_a_list_begins_again_where_the_state_was_replaced(leader: Member) -> None:
    """What was read is of another one."""
    many(leader, 3 * PAGE)
    asked = asyncio.ensure_future(leader.leases.ids())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leader.machine.restore(other_state)
    leader.leases.restored()
    assert await asked == [5]


def other_state() -> MemoryStore:
    store = MemoryStore()
    machine = StateMachine(Backend(store))
    machine.apply(1, 1, encode(LeaseGrant(5, 60), user="", wall_clock_ms=0))
    machine.freeze()
    machine.write_frozen()
    machine.release_frozen()
    return store


# Members that do not lead.


@pytest.fixture
async def follower(network: Network, leader: Member) -> Member:
    """Member 2 follows and has the same state."""
    one = Member(network, 2)
    one.follow(1, 2)
    for command in (None, LeaseGrant(7, 60)):
        one.apply(command)
    return one


async def test_a_follower_passes_keepalives_on(follower: Member, leader: Member, network: Network) -> None:
    """Those that come together in one call; the leader's clock counts."""
    leader.loop.pass_seconds(20)
    assert await asyncio.gather(*(follower.leases.keep_alive(lease_id) for lease_id in (7, 8, 7))) == [
        60,
        0,
        60,
    ]
    assert network.calls == [1]
    assert await left(leader) == 60


async def test_a_follower_passes_looks_on_and_has_the_keys_itself(follower: Member, leader: Member) -> None:
    """In order of the keys."""
    for member in (leader, follower):
        member.apply(Put(b"b", b"", lease=7))
        member.apply(Put(b"a", b"", lease=7))
    leader.loop.pass_seconds(20.5)
    for member in (leader, follower):
        assert await member.leases.time_to_live(7, keys=True) == TimeToLive(39, 60, [b"a", b"b"])
        assert await member.leases.time_to_live(7, keys=False) == TimeToLive(39, 60, [])
        assert await member.leases.time_to_live(8, keys=True) is None


async def test_a_follower_hears_of_the_end_of_a_lease_that_has_run_out(
    follower: Member, leader: Member
) -> None:
    """When it has applied that; one lease that waits holds up no other."""
    leader.loop.pass_seconds(60)
    waiting = asyncio.ensure_future(follower.leases.keep_alive(7))
    await settle()
    assert await follower.leases.keep_alive(8) == 0
    assert not waiting.done()
    leader.commit()
    follower.apply(LeaseRevoke(7))
    assert await waiting == 0


async def test_without_a_leader_a_keepalive_waits_for_one(follower: Member, network: Network) -> None:
    """But not for ever."""
    follower.follow(NO_MEMBER, 3)
    asked = asyncio.ensure_future(follower.leases.keep_alive(7))
    await settle()
    assert not asked.done()
    follower.lead(4)
    assert await asked == 60
    follower.follow(NO_MEMBER, 5)
    with pytest.raises(TimedOut):
        await follower.leases.keep_alive(7)


async def test_a_leader_that_cannot_be_reached_is_asked_again(follower: Member, network: Network) -> None:
    """It may be there in a moment."""
    network.cut_off.add(1)
    asked = asyncio.ensure_future(follower.leases.keep_alive(7))
    await settle()
    network.cut_off.clear()
    assert await asked == 60
    assert len(network.calls) == 2


async def test_who_waits_for_a_leader_of_before_is_passed_on_to_the_new_one(
    follower: Member, network: Network
) -> None:
    """Though the old one, whom the network swallows, never answers."""
    third = Member(network, 3)
    third.apply(LeaseGrant(7, 60))
    third.lead(3)
    network.hanging.add(1)
    asked = asyncio.ensure_future(follower.leases.keep_alive(7))
    await settle()
    follower.follow(3, 3)
    follower.loop.pass_seconds(0.1)
    assert await asked == 60
    assert network.calls == [1, 3]


async def test_who_does_not_lead_says_so(follower: Member, leader: Member, network: Network) -> None:
    """A member asked for what only the leader knows does not answer for it."""
    leader.follow(2, 3)
    follower.follow(1, 3)
    asked = asyncio.ensure_future(follower.leases.keep_alive(7))
    await asyncio.sleep(0.02)
    assert not asked.done()
    leader.lead(4)
    assert await asked == 60


async def test_batches_grow_while_calls_are_under_way() -> None:
    """Two calls at a time; what comes meanwhile is one batch."""
    calls: list[tuple[list[int], asyncio.Future[None]]] = []

    async def send(requests: Any) -> list[int]:
        gate = asyncio.get_running_loop().create_future()
        calls.append((list(requests), gate))
        await gate
        return [2 * request for request in requests]

    batches = Batches(send, asyncio.get_running_loop())
    futures = []
    for request in (1, 2, 3, 4, 5):
        futures.append(batches.add(request))
        await settle()
    assert [asked for asked, _ in calls] == [[1], [2]]
    calls[0][1].set_result(None)
    await settle()
    assert [asked for asked, _ in calls] == [[1], [2], [3, 4, 5]]
    calls[1][1].set_exception(NotReached("gone"))
    calls[2][1].set_result(None)
    await settle()
    assert [one.result() for one in (futures[0], *futures[2:])] == [2, 6, 8, 10]
    with pytest.raises(NotReached):
        futures[1].result()
