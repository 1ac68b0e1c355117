"""Locks, elections, counters and caches on three members whose leader is killed again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvorum import KvorumError
from tests.common.clusters import Cluster, start_kvorum_cluster
from tests.kvorum.clients import MakeClient

KILLS = 2
SECONDS = 60.0
TTL = 10


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with start_kvorum_cluster(tmp_path, 3, "--heartbeat-interval=50", "--election-timeout=500") as cluster:
        yield cluster


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Work:
    """What several threads do again and again until they are told to stop. Whatever one raises, ``stop``
    does."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, function: Callable[[], object]) -> None:
        def run() -> None:
            try:
                while not self._stop.is_set():
                    function()
            except BaseException as error:
                self._errors.append(error)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        if self._errors:
            raise self._errors[0]


def disturb(cluster: Cluster, progress: Callable[[], int]) -> None:
    """Kill the leader in the midst of the work, see that this goes on, and let it come back."""
    for _ in range(KILLS):
        before = progress()
        wait_until(lambda before=before: progress() > before + 2)
        leader = cluster.leader()
        cluster.kill(leader)
        before = progress()
        wait_until(lambda before=before: progress() > before + 2)
        cluster.restart(leader)
        cluster.wait_until_healthy()


def test_a_lock_is_never_held_by_two(cluster: Cluster, make_client: MakeClient) -> None:
    """Tokens grow from holder to holder, and what a holder does while it holds the lock for certain is
    whole."""
    tokens: list[int] = []
    inside: list[int] = []
    overlaps: list[list[int]] = []
    unreleased: list[KvorumError] = []
    clients = [make_client(cluster.urls, timeout=20) for _ in range(3)]
    work = Work()

    def contend(client: Any) -> None:
        lock = client.lock("jobs", TTL)
        lock.acquire()
        token = lock.token
        inside.append(token)
        if len(inside) > 1:
            overlaps.append(list(inside))
        tokens.append(token)
        inside.remove(token)
        lock.check()
        try:
            lock.release()
        except KvorumError as error:
            unreleased.append(error)

    entered = [client.__enter__() for client in clients]
    try:
        for client in entered:
            work.start(lambda client=client: contend(client))
        try:
            disturb(cluster, lambda: len(tokens))
        finally:
            work.stop()
    finally:
        for client in clients:
            client.__exit__(None, None, None)
    assert overlaps == []
    assert tokens == sorted(set(tokens))
    assert unreleased == []


def test_a_place_in_line_and_a_hold_survive_the_loss_of_the_member(
    cluster: Cluster, make_client: MakeClient
) -> None:
    """The one that was asked, which is also the leader: neither holder nor who waits hears of it."""
    lost: list[str] = []
    with make_client(cluster.urls, timeout=20) as client, make_client(cluster.urls, timeout=20) as other:
        holder, waiting = client.lock("jobs", TTL, on_lost=lost.append), other.lock("jobs", TTL)
        holder.acquire()
        acquired = threading.Thread(target=waiting.acquire)
        acquired.start()
        wait_until(lambda: client.range("jobs/", prefix=True).count == 2)
        token = holder.token
        for _ in range(3):  # so each member was lost once
            leader = cluster.leader()
            cluster.kill(leader)
            assert client.get(holder.key).create_revision == token
            assert acquired.is_alive()
            cluster.restart(leader)
            cluster.wait_until_healthy()
        assert holder.is_held
        holder.release()
        acquired.join(SECONDS)
        assert waiting.token > token
        waiting.release()
        assert lost == []


def test_leaders_of_an_election_are_seen_in_order(cluster: Cluster, make_client: MakeClient) -> None:
    """By an observer whose members are killed."""
    led: list[tuple[int, str]] = []
    seen: list[int] = []
    work = Work()
    with make_client(cluster.urls, timeout=20) as client:
        observation = client.election("boss").observe()
        observer = threading.Thread(target=lambda: seen.extend(kv.create_revision for kv in observation))
        observer.start()

        def lead(name: str) -> None:
            election = client.election("boss", TTL)
            election.campaign(name)
            led.append((election.token, name))
            election.resign()

        for name in ("one", "two"):
            work.start(lambda name=name: lead(name))
        try:
            disturb(cluster, lambda: len(led))
        finally:
            work.stop()
        last = client.election("boss", TTL)
        last.campaign("last")
        last_token = last.token
        wait_until(lambda: seen and seen[-1] == last_token)
        last.resign()
        observation.close()
        observer.join(SECONDS)
        assert not observer.is_alive()
    tokens = [token for token, _ in led]
    assert tokens == sorted(set(tokens))
    assert seen == sorted(set(seen))
    assert set(seen) <= {*tokens, last_token}


def test_a_counter_counts_what_was_acknowledged(cluster: Cluster, make_client: MakeClient) -> None:
    """Each once; of those whose outcome is unknown, each at most once. A cache has the same in the end."""
    results: list[int] = []
    unknown: list[KvorumError] = []
    work = Work()
    with make_client(cluster.urls, timeout=20) as client, client.cache("hits") as cache:

        def add() -> None:
            try:
                results.append(client.counter("hits").add(1))
            except KvorumError as error:
                if error.maybe_done:
                    unknown.append(error)

        for _ in range(3):
            work.start(add)
        try:
            disturb(cluster, lambda: len(results))
        finally:
            work.stop()
        total = client.counter("hits").get()
        assert len(results) == len(set(results))
        assert len(results) <= total <= len(results) + len(unknown)
        kv = client.get("hits")
        assert cache.wait_for(kv.mod_revision, SECONDS)
        assert cache.items() == [kv]
