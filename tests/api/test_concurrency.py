"""Locks and elections in one process: who is first, and what is left behind by those who go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any

import pytest

from api.concurrency import Concurrency, LeaderKey
from api.errors import LeaderKeyMissing, NoLeaderElected, NotElected, Refused, SessionExpired
from kvstate.commands import Compact
from raft.errors import LeadershipLost, NotLeader, Stopped, TimedOut
from tests.common.local_store import LocalStore

A, B, C = 0xA, 0xB, 0xC
Job = asyncio.Task[Any]


@pytest.fixture
def store() -> LocalStore:
    made = LocalStore()
    made.grant(A, B, C)
    return made


@pytest.fixture
def concurrency(store: LocalStore) -> Concurrency:
    return Concurrency(store)


def begin(call: Coroutine[Any, Any, Any]) -> Job:
    return asyncio.ensure_future(call)


async def settled(turns: int = 60) -> None:
    """All that can happen without anybody doing anything has happened."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Within some seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what changes it has no event to set
            await asyncio.sleep(0)


async def waiting(*jobs: Job) -> None:
    """They have got as far as they get, and are not done."""
    await settled()
    assert not any(job.done() for job in jobs)


# ---- locks ---------------------------------------------------------------------------------------


async def test_a_free_lock_is_had_at_once(store: LocalStore, concurrency: Concurrency) -> None:
    """The key carries the lease, and its create revision is in the answer."""
    assert await concurrency.lock(b"jobs", A) == (b"jobs/a", 2)
    [kv] = store.kvs()
    assert (kv.key, kv.create_revision, kv.value, kv.lease) == (b"jobs/a", 2, b"", A)


async def test_who_holds_a_lock_has_it_again(store: LocalStore, concurrency: Concurrency) -> None:
    """With the same lease it is the same hold: nothing is written."""
    await concurrency.lock(b"jobs", A)
    store.put(b"else")
    assert await concurrency.lock(b"jobs", A) == (b"jobs/a", 3)


async def test_the_line_moves_in_order_of_arrival(store: LocalStore, concurrency: Concurrency) -> None:
    """Whatever the keys are called: the oldest is first."""
    held = await concurrency.lock(b"jobs", B)
    second = begin(concurrency.lock(b"jobs", C))
    await settled()
    third = begin(concurrency.lock(b"jobs", A))
    await waiting(second, third)
    await concurrency.unlock(held.key)
    assert (await second).key == b"jobs/c"
    await waiting(third)
    await concurrency.unlock(b"jobs/c")
    assert (await third).key == b"jobs/a"


async def test_one_in_the_middle_goes(store: LocalStore, concurrency: Concurrency) -> None:
    """Who waited for it waits for the one before it."""
    held = await concurrency.lock(b"jobs", A)
    second, third = begin(concurrency.lock(b"jobs", B)), begin(concurrency.lock(b"jobs", C))
    await waiting(second, third)
    second.cancel()
    await waiting(third)
    assert store.keys() == [b"jobs/a", b"jobs/c"]
    await concurrency.unlock(held.key)
    assert (await third).key == b"jobs/c"


async def test_names_that_begin_alike_are_different(store: LocalStore, concurrency: Concurrency) -> None:
    """b, b0 and the empty name have nothing to do with each other."""
    for name in (b"b", b"b0", b"b.", b""):
        await asyncio.wait_for(concurrency.lock(name, A), 1)


async def test_the_end_of_a_lease_hands_on(store: LocalStore, concurrency: Concurrency) -> None:
    """The holder's lease ends: the next one has the lock."""
    await concurrency.lock(b"jobs", A)
    second = begin(concurrency.lock(b"jobs", B))
    await waiting(second)
    store.revoke(A)
    assert (await second).key == b"jobs/b"


async def test_who_loses_the_lease_while_waiting_is_told(store: LocalStore, concurrency: Concurrency) -> None:
    """At once, and not when the lock would be his."""
    await concurrency.lock(b"jobs", A)
    second = begin(concurrency.lock(b"jobs", B))
    await waiting(second)
    store.revoke(B)
    with pytest.raises(SessionExpired):
        await second


async def test_a_place_that_was_lost_and_taken_again_is_another(
    store: LocalStore, concurrency: Concurrency
) -> None:
    """A key of the same name further back is not the one that waited."""
    await concurrency.lock(b"jobs", A)
    second = begin(concurrency.lock(b"jobs", B))
    await waiting(second)
    await concurrency.unlock(b"jobs/b")
    store.put(b"jobs/b", lease=B)
    with pytest.raises(SessionExpired):
        await second
    await settled()
    assert store.keys() == [b"jobs/a", b"jobs/b"]


async def test_without_a_lease_there_is_one_of_a_minute(store: LocalStore, concurrency: Concurrency) -> None:
    """Its id stands in the key."""
    held = await concurrency.lock(b"jobs", 0)
    [lease] = [lease for lease in store.machine.leases() if lease.id not in (A, B, C)]
    assert lease.granted_ttl == 60
    assert held.key == b"jobs/%x" % lease.id


async def test_an_unknown_lease_is_refused_without_a_code(
    store: LocalStore, concurrency: Concurrency
) -> None:
    """In the store's words."""
    with pytest.raises(Refused, match="requested lease not found"):
        await concurrency.lock(b"jobs", 77)
    assert store.keys() == []


async def test_unlocking_what_nobody_holds_is_no_mistake(store: LocalStore, concurrency: Concurrency) -> None:
    """The answer is the revision."""
    assert await concurrency.unlock(b"jobs/a") == 1


# ---- elections -----------------------------------------------------------------------------------


async def test_an_election(store: LocalStore, concurrency: Concurrency) -> None:
    """Campaign, leader, proclaim, resign."""
    with pytest.raises(NoLeaderElected):
        await concurrency.leader(b"boss")
    mine, revision = await concurrency.campaign(b"boss", A, b"one")
    assert (mine, revision) == (LeaderKey(b"boss", b"boss/a", 2, A), 2)
    other = begin(concurrency.campaign(b"boss", B, b"two"))
    await waiting(other)
    assert (await concurrency.leader(b"boss"))[0].value == b"one"
    assert await concurrency.proclaim(mine, b"uno") == 4
    assert (await concurrency.leader(b"boss"))[0].value == b"uno"
    await concurrency.resign(mine)
    theirs, _ = await other
    assert theirs.key == b"boss/b"
    with pytest.raises(NotElected):
        await concurrency.proclaim(mine, b"tres")
    await concurrency.resign(mine)
    assert (await concurrency.leader(b"boss"))[0].value == b"two"


async def test_a_second_campaign_of_a_lease_proclaims(store: LocalStore, concurrency: Concurrency) -> None:
    """The place stays, the value is the new one."""
    mine, _ = await concurrency.campaign(b"boss", A, b"one")
    again, _ = await concurrency.campaign(b"boss", A, b"two")
    assert again == mine
    assert [(kv.create_revision, kv.value) for kv in store.kvs()] == [(2, b"two")]


async def test_a_candidate_without_a_lease_is_not_elected(
    store: LocalStore, concurrency: Concurrency
) -> None:
    """etcd would tell it that it leads."""
    await concurrency.campaign(b"boss", A, b"one")
    other = begin(concurrency.campaign(b"boss", B, b"two"))
    await waiting(other)
    store.revoke(B)
    with pytest.raises(NotElected):
        await other


@pytest.mark.parametrize("call", [lambda c: c.proclaim(None, b"x"), lambda c: c.resign(None)])
async def test_as_whom_must_be_said(call: Callable[[Concurrency], Any], concurrency: Concurrency) -> None:
    """A request without a leader is not one with an empty one."""
    with pytest.raises(LeaderKeyMissing):
        await call(concurrency)


# ---- observing -----------------------------------------------------------------------------------


class Observer:
    """What an observation has told so far."""

    def __init__(self, concurrency: Concurrency, name: bytes) -> None:
        self.seen: list[tuple[bytes, bytes]] = []
        self.job = begin(self._observe(concurrency, name))

    async def _observe(self, concurrency: Concurrency, name: bytes) -> None:
        async with aclosing(concurrency.observe(name)) as leaders:
            async for kv, revision in leaders:
                assert revision >= kv.mod_revision
                self.seen.append((kv.key, kv.value))

    async def news(self) -> list[tuple[bytes, bytes]]:
        await settled()
        seen, self.seen = self.seen, []
        return seen


@pytest.fixture
async def observer(concurrency: Concurrency) -> AsyncIterator[Observer]:
    made = Observer(concurrency, b"boss")
    yield made
    made.job.cancel()
    with suppress(asyncio.CancelledError):
        await made.job


async def test_an_observer_is_told_of_every_leader(
    store: LocalStore, concurrency: Concurrency, observer: Observer
) -> None:
    """The first, its values, and who follows; of candidates that wait nothing."""
    assert await observer.news() == []
    mine, _ = await concurrency.campaign(b"boss", B, b"1")
    assert await observer.news() == [(b"boss/b", b"1")]
    other = begin(concurrency.campaign(b"boss", A, b"2"))
    assert await observer.news() == []
    await concurrency.proclaim(mine, b"3")
    assert await observer.news() == [(b"boss/b", b"3")]
    await concurrency.resign(mine)
    await other
    assert await observer.news() == [(b"boss/a", b"2")]
    store.revoke(A)
    assert await observer.news() == []
    await concurrency.campaign(b"boss", C, b"4")
    assert await observer.news() == [(b"boss/c", b"4")]


async def test_an_observer_outlives_a_compaction(
    store: LocalStore, concurrency: Concurrency, observer: Observer
) -> None:
    """Where etcd's stream would end, the leader is looked up anew."""
    await concurrency.campaign(b"boss", A, b"1")
    assert await observer.news() == [(b"boss/a", b"1")]
    store.revoke(A)
    store.put(b"boss/b", b"2", lease=B)
    store.put(b"else")
    store.apply(Compact(store.machine.revision))
    assert await observer.news() == [(b"boss/b", b"2")]


async def test_an_observer_outlives_a_change_of_the_cluster_leader(
    store: LocalStore, concurrency: Concurrency
) -> None:
    """A read that comes to nothing is asked again."""
    store.fail_reads(TimedOut(), times=2)
    observer = Observer(concurrency, b"boss")
    await concurrency.campaign(b"boss", A, b"1")
    await until(lambda: observer.seen)
    observer.job.cancel()


async def test_when_the_node_stops_observations_end(
    store: LocalStore, concurrency: Concurrency, observer: Observer
) -> None:
    """Without an error: clients go on elsewhere."""
    await observer.news()
    store.hub.close()
    await observer.job


# ---- interruptions -------------------------------------------------------------------------------

CALLS = {
    "lock": lambda c: c.lock(b"line", B),
    "lock without a lease": lambda c: c.lock(b"line", 0),
    "campaign": lambda c: c.campaign(b"line", B, b"v"),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("held", [True, False])
async def test_who_hangs_up_leaves_nothing_behind(name: str, held: bool) -> None:
    """At whatever moment: before, between and after any step."""
    for moment in range(1000):
        store = LocalStore()
        store.grant(A, B)
        concurrency = Concurrency(store)
        before = []
        if held:
            before = [(await concurrency.lock(b"line", A)).key]
        job = begin(CALLS[name](concurrency))
        await settled(moment)
        done = job.done()
        job.cancel()
        with suppress(asyncio.CancelledError):
            await job
        await settled()
        if done:
            assert not held
            assert len(store.keys()) == 1
            return
        assert store.keys() == before, f"cancelled in turn {moment}"
        if held and moment > 40:
            return  # it waits for ever
    raise AssertionError("it is never done")


async def test_who_hangs_up_as_his_turn_comes_hands_it_on() -> None:
    """Between the end of the one before and the answer, at whatever moment."""
    for moment in range(1000):
        store = LocalStore()
        store.grant(A, B, C)
        concurrency = Concurrency(store)
        held = await concurrency.lock(b"line", A)
        second, third = begin(concurrency.lock(b"line", B)), begin(concurrency.lock(b"line", C))
        await settled()
        unlocking = begin(concurrency.unlock(held.key))
        await settled(moment)
        if second.done():
            third.cancel()
            return
        second.cancel()
        assert (await asyncio.wait_for(third, 1)).key == b"line/c", f"cancelled in turn {moment}"
        await unlocking
    raise AssertionError("it is never done")


async def test_a_second_wish_of_the_same_lease_is_not_undone(
    store: LocalStore, concurrency: Concurrency
) -> None:
    """Who hangs up before he was told anything takes nothing from the call that he repeats."""
    await concurrency.lock(b"jobs", A)
    again = begin(concurrency.lock(b"jobs", A))
    await settled(1)
    again.cancel()
    await settled()
    assert store.keys() == [b"jobs/a"]


async def test_a_removal_is_tried_until_it_is_done(store: LocalStore, concurrency: Concurrency) -> None:
    """Though there is no leader for a while, and though nobody waits for it."""
    await concurrency.lock(b"jobs", A)
    second = begin(concurrency.lock(b"jobs", B))
    await waiting(second)
    for error in (NotLeader(0), LeadershipLost(), TimedOut()):
        store.fail(error, applied=False)
    second.cancel()
    await until(lambda: store.keys() == [b"jobs/a"])


async def test_an_entry_of_unknown_outcome_can_be_asked_for_again(
    store: LocalStore, concurrency: Concurrency
) -> None:
    """The lock may be ours by then; with the same lease it is found."""
    store.fail(LeadershipLost(), applied=True)
    with pytest.raises(Refused, match="leader changed"):
        await concurrency.lock(b"jobs", A)
    assert (await concurrency.lock(b"jobs", A)).key == b"jobs/a"


async def test_when_the_node_stops_those_who_wait_are_told(
    store: LocalStore, concurrency: Concurrency
) -> None:
    """And their keys are removed, as long as it can still be done."""
    await concurrency.lock(b"jobs", A)
    second = begin(concurrency.lock(b"jobs", B))
    await waiting(second)
    store.hub.close()
    with pytest.raises(Refused, match="server stopped"):
        await second
    await settled()
    assert store.keys() == [b"jobs/a"]


async def test_a_removal_ends_with_the_node(store: LocalStore, concurrency: Concurrency) -> None:
    """What cannot be done any more is left to the lease."""
    await concurrency.lock(b"jobs", A)
    second = begin(concurrency.lock(b"jobs", B))
    await waiting(second)
    store.fail(Stopped(), applied=False)
    second.cancel()
    await settled()
    assert store.keys() == [b"jobs/a", b"jobs/b"]


async def test_a_compaction_does_not_disturb_those_who_wait(
    store: LocalStore, concurrency: Concurrency
) -> None:
    """What they missed they read from the state."""
    await concurrency.lock(b"jobs", A)
    second = begin(concurrency.lock(b"jobs", B))
    await waiting(second)
    store.revoke(A)
    store.apply(Compact(store.machine.revision))
    assert (await second).key == b"jobs/b"


async def contend(lease: int, rng: random.Random, store: LocalStore, tokens: list[int]) -> None:
    """Lock, hold for a moment, unlock; or hang up, or lose the lease, whenever it may be."""
    concurrency = Concurrency(store)
    for _ in range(4):
        if store.machine.lease(lease) is None:
            store.grant(lease)
        job = begin(concurrency.lock(b"line", lease))
        await settled(rng.randrange(30))
        if rng.random() < 0.2:
            job.cancel()
        if rng.random() < 0.1:
            store.revoke(lease)
        with suppress(SessionExpired, asyncio.CancelledError, Refused):
            held = await job
            if any(kv.key == held.key for kv in store.kvs()):
                oldest = min(store.kvs(), key=lambda kv: kv.create_revision)
                assert oldest.key == held.key
                tokens.append(oldest.create_revision)
                await settled(rng.randrange(5))
                await concurrency.unlock(held.key)


async def test_at_most_one_holds_at_any_revision() -> None:
    """Whoever is told that he holds is first in the line, and tokens only grow."""
    for seed in range(40):
        store, tokens = LocalStore(), list[int]()
        jobs = [contend(lease, random.Random(100 * seed + lease), store, tokens) for lease in range(1, 7)]
        await asyncio.wait_for(asyncio.gather(*jobs), 20)
        await settled()
        assert store.keys() == [], seed
        assert tokens == sorted(set(tokens))
        assert len(tokens) > 5
