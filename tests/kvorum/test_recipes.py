"""Locks, elections, barriers and counters: both shells, on ours and on etcd."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kvorum import Client, KvorumError, LeaseLost
from kvorum.clock import now
from tests.common.servers import Server, running, start_kvorum
from tests.kvorum.clients import MakeClient

SECONDS = 20.0


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def name(key: str) -> str:
    return key.rstrip("/")


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def other(store: Server) -> Any:
    """Another process's client, as it were: a plain blocking one."""
    with Client(store.url) as client:
        yield client


def line(client: Any, name: str) -> list[Any]:
    return list(client.range(f"{name}/", prefix=True, sort_by="CREATE"))


class TestLock:
    def test_it_is_held_in_its_block(self, client: Any, other: Client, name: str) -> None:
        """Its key is there, with a lease, and both are gone behind it."""
        with client.lock(name) as lock:
            [kv] = line(other, name)
            assert lock.key == kv.key == f"{name}/{kv.lease:x}".encode()
            assert lock.token == kv.create_revision
            assert lock.is_held
            lock.check()
        assert not lock.is_held
        assert line(other, name) == []
        assert other.time_to_live(kv.lease).ttl == -1
        with pytest.raises(LeaseLost, match="is not held"):
            lock.check()

    def test_who_comes_later_waits_and_order_is_kept(
        self, client: Any, other: Client, name: str, pool: ThreadPoolExecutor
    ) -> None:
        """Tokens grow from holder to holder."""
        holders: list[int] = []
        first = other.lock(name)
        first.acquire()
        locks = [client.lock(name) for _ in range(3)]
        waiting: list[Future[bool]] = []
        for number, lock in enumerate(locks):
            waiting.append(pool.submit(lock.acquire))
            wait_until(lambda number=number: len(line(other, name)) == number + 2)
        tokens = [first.token]
        first.release()
        for lock, acquired in zip(locks, waiting, strict=True):
            assert acquired.result(SECONDS)
            tokens.append(lock.token)
            holders.append(len(line(other, name)))
            lock.release()
        assert tokens == sorted(set(tokens))
        assert holders == [3, 2, 1]

    def test_who_does_not_want_to_wait_leaves_the_line(self, client: Any, other: Client, name: str) -> None:
        """Also at once; and may try again."""
        lock = client.lock(name)
        with other.lock(name):
            assert not lock.acquire(timeout=0)
            began = time.monotonic()
            assert not lock.acquire(timeout=0.3)
            assert 0.3 <= time.monotonic() - began < 5
            assert len(line(other, name)) == 1
        assert lock.acquire(timeout=0)
        lock.release()

    def test_it_stands_in_line_with_the_servers_own_service(
        self, client: Any, other: Client, name: str, pool: ThreadPoolExecutor
    ) -> None:
        """The keys are the same, whoever puts them."""
        from kvorum.messages import b64

        lease = other.grant(60)
        held = other.call("/v3/lock/lock", {"name": b64(name.encode()), "lease": str(lease)})
        lock = client.lock(name)
        acquired = pool.submit(lock.acquire)
        wait_until(lambda: len(line(other, name)) == 2)
        assert not acquired.done()
        other.call("/v3/lock/unlock", {"key": held["key"]})
        assert acquired.result(SECONDS)
        lock.release()

    @pytest.mark.parametrize("how", ["key deleted", "lease revoked"])
    def test_its_loss_is_told(self, how: str, client: Any, other: Client, name: str) -> None:
        """Once, long before its lease would have ended; it can be had again."""
        lost: list[str] = []
        lock = client.lock(name, 60, on_lost=lost.append)
        lock.acquire()
        [kv] = line(other, name)
        if how == "key deleted":
            other.delete(kv.key)
        else:
            other.revoke(kv.lease)
        wait_until(lambda: lost, 3)
        assert lost == ["its key is gone"]
        assert not lock.is_held
        with pytest.raises(LeaseLost, match="is lost: its key is gone"):
            lock.check()
        assert lock.token == kv.create_revision
        assert lock.acquire(timeout=0)
        assert lock.token > kv.create_revision
        lock.release()
        assert lost == ["its key is gone"]

    def test_who_waits_is_told_when_his_place_is_lost(
        self, client: Any, other: Client, name: str, pool: ThreadPoolExecutor
    ) -> None:
        """At the latest when he looks at the line the next time."""
        with other.lock(name):
            waiting = pool.submit(client.lock(name).acquire)
            wait_until(lambda: len(line(other, name)) == 2)
            other.revoke(line(other, name)[1].lease)
            with pytest.raises(LeaseLost):
                waiting.result(SECONDS)

    def test_it_is_renewed(self, client: Any, other: Client, name: str) -> None:
        """Held and waited for longer than its lease lives by itself."""
        with client.lock(name, 2) as lock:
            until = lock.sure_until
            wait_until(lambda: lock.sure_until > until + 2.5)
            assert lock.is_held
            assert [kv.key for kv in line(other, name)] == [lock.key]

    def test_it_is_not_held_twice(self, client: Any, name: str) -> None:
        """That is the caller's mistake."""
        with client.lock(name) as lock, pytest.raises(RuntimeError, match="is held already"):
            lock.acquire()

    def test_an_error_in_the_block_gives_it_up(self, client: Any, other: Client, name: str) -> None:
        """And comes through."""
        with pytest.raises(ZeroDivisionError), client.lock(name):
            raise ZeroDivisionError
        assert line(other, name) == []


class TestElection:
    def test_one_leads_after_the_other(
        self, client: Any, other: Client, name: str, pool: ThreadPoolExecutor
    ) -> None:
        """All see who, and with which value; the next in line follows."""
        assert client.election(name).leader() is None
        one, two = client.election(name), client.election(name)
        assert one.campaign("host1")
        waiting = pool.submit(two.campaign, "host2")
        wait_until(lambda: len(line(other, name)) == 2)
        leader = other.election(name).leader()
        assert leader is not None
        assert (leader.key, leader.value) == (one.key, b"host1")
        assert one.is_leader
        assert not two.is_leader
        one.proclaim("host1 again")
        assert two.leader().value == b"host1 again"
        one.resign()
        assert waiting.result(SECONDS)
        assert other.election(name).leader().value == b"host2"
        assert two.token > leader.create_revision
        two.resign()
        assert two.leader() is None

    def test_only_who_leads_proclaims(self, client: Any, other: Client, name: str) -> None:
        """Whoever has lost it is told so."""
        election = client.election(name)
        with pytest.raises(LeaseLost, match="is not held"):
            election.proclaim("a")
        with election:
            election.campaign("a")
            other.delete(f"{name}/", prefix=True)
            with pytest.raises(LeaseLost, match="its key is gone"):
                election.proclaim("b")
        assert line(other, name) == []

    def test_leaders_are_observed(self, client: Any, other: Client, name: str) -> None:
        """From the first on, each of their values, until the observer has enough."""
        seen: list[bytes] = []
        observation = client.election(name).observe()
        observer = threading.Thread(target=lambda: seen.extend(kv.value for kv in observation))
        observer.start()
        one, two = other.election(name), other.election(name)
        one.campaign("host1")
        wait_until(lambda: seen == [b"host1"])
        one.proclaim("host1 again")
        wait_until(lambda: seen == [b"host1", b"host1 again"])
        one.resign()
        with two:
            two.campaign("host2")
            wait_until(lambda: seen[2:] == [b"host2"])
        observation.close()
        observer.join(SECONDS)
        assert not observer.is_alive()
        assert len(seen) == 3


class TestBarrier:
    def test_who_comes_waits_until_it_is_released(
        self, client: Any, other: Client, name: str, pool: ThreadPoolExecutor
    ) -> None:
        """All of them go on."""
        barrier = client.barrier(name)
        assert barrier.wait(timeout=0)
        assert barrier.hold()
        assert not other.barrier(name).hold()
        assert not barrier.wait(timeout=0.1)
        waiting = [pool.submit(client.barrier(name).wait) for _ in range(3)]
        assert not any(one.done() for one in waiting)
        other.barrier(name).release()
        assert all(one.result(SECONDS) for one in waiting)
        barrier.release()  # of one that is open is no error


class TestDoubleBarrier:
    def test_all_enter_and_leave_together(
        self, client: Any, other: Client, name: str, pool: ThreadPoolExecutor
    ) -> None:
        """Round after round."""
        barriers = [who.double_barrier(name, 3) for who in (client, client, other)]
        for _ in range(3):
            entering = [pool.submit(one.enter) for one in barriers[:2]]
            wait_until(lambda: len(line(other, name)) == 2)
            assert not any(one.done() for one in entering)
            assert barriers[2].enter(SECONDS)
            assert all(one.result(SECONDS) for one in entering)
            leaving = [pool.submit(one.leave) for one in barriers[:2]]
            wait_until(lambda: sum(kv.value.startswith(b"out") for kv in line(other, name)) == 2)
            assert not any(one.done() for one in leaving)
            assert barriers[2].leave(SECONDS)
            assert all(one.result(SECONDS) for one in leaving)
            wait_until(lambda: line(other, name) == [])

    def test_who_does_not_want_to_wait_has_not_come(self, client: Any, other: Client, name: str) -> None:
        """Nor is he waited for."""
        barrier = client.double_barrier(name, 2)
        assert not barrier.enter(timeout=0.1)
        assert line(other, name) == []
        with pytest.raises(RuntimeError, match="was not entered"):
            barrier.leave()

    def test_who_is_no_more_is_not_waited_for(
        self, client: Any, other: Client, name: str, pool: ThreadPoolExecutor
    ) -> None:
        """His key goes with his lease."""
        lost: list[str] = []
        one, two = client.double_barrier(name, 2), other.double_barrier(name, 2, on_lost=lost.append)
        entering = pool.submit(one.enter)
        assert two.enter(SECONDS)
        assert entering.result(SECONDS)
        leaving = pool.submit(one.leave)
        wait_until(lambda: any(kv.value.startswith(b"out") for kv in line(other, name)))
        [dead] = [kv for kv in line(other, name) if not kv.value.startswith(b"out")]
        other.revoke(dead.lease)
        assert leaving.result(SECONDS)
        wait_until(lambda: lost == ["its key is gone"])
        with pytest.raises(LeaseLost):
            two.leave()

    def test_an_error_in_the_block_waits_for_nobody(
        self, client: Any, other: Client, name: str, pool: ThreadPoolExecutor
    ) -> None:
        """And comes through; the others need not wait either."""
        entering = pool.submit(other.double_barrier(name, 2).enter)
        with pytest.raises(ZeroDivisionError), client.double_barrier(name, 2):
            raise ZeroDivisionError
        assert entering.result(SECONDS)
        assert len(line(other, name)) == 1

    def test_parties_are_at_least_one(self, client: Any, name: str) -> None:
        with pytest.raises(ValueError, match="a barrier for 0 parties: expected at least 1"):
            client.double_barrier(name, 0)


class TestCounter:
    def test_it_counts(self, client: Any, name: str) -> None:
        """From nothing on, up and down."""
        counter = client.counter(name)
        assert counter.get() == 0
        assert counter.add(5) == 5
        assert counter.add(-7) == -2
        assert counter.add() == -1
        assert counter.get() == -1
        assert client.get(name).value == b"-1"
        counter.set(40)
        assert counter.add(2) == 42

    def test_all_that_add_are_counted(
        self, client: Any, other: Client, name: str, pool: ThreadPoolExecutor
    ) -> None:
        """Each once, each with a result of its own."""
        adding = [pool.submit(who.counter(name).add) for _ in range(15) for who in (client, other)]
        assert sorted(one.result(SECONDS) for one in adding) == list(range(1, 31))

    def test_what_is_no_number_is_refused(self, client: Any, name: str) -> None:
        """And stays."""
        client.put(name, "many")
        for use in (client.counter(name).get, client.counter(name).add):
            with pytest.raises(KvorumError, match=r"is b'many': expected a whole number$"):
                use()
        assert client.get(name).value == b"many"


def test_a_lock_is_left_when_its_client_is_closed(store: Server, make_client: MakeClient, name: str) -> None:
    """It is not kept alive any more, and ends with its lease."""
    with Client(store.url) as other:
        with make_client(store.url) as client:
            client.lock(name, 2).acquire()
        with other.lock(name) as lock:
            assert lock.is_held


def test_a_lock_that_nobody_renews_is_not_held_when_another_may_have_it(
    tmp_path: Path, make_client: MakeClient, name: str
) -> None:
    """By the clock alone: the server is stopped and says nothing. Its owner is told at that moment."""
    told: list[float] = []
    with running(start_kvorum(tmp_path)) as server, make_client(server.url, timeout=30) as client:
        lock = client.lock(name, 3, on_lost=lambda why: told.append(now()))
        lock.acquire()
        server.process.send_signal(signal.SIGSTOP)
        try:
            until = lock.sure_until
            wait_until(lambda: not lock.is_held)
            assert until <= now() < until + 1
            wait_until(lambda: told)
            assert until - 0.5 < told[0] < until + 1
            with pytest.raises(LeaseLost, match=r"is lost: the lease (could not be|was not) renewed"):
                lock.check()
        finally:
            server.process.send_signal(signal.SIGCONT)
        lock.release()
        assert told[1:] == []
