"""The client library on three members whose leader is killed again and again: nothing that was acknowledged
is missing, nothing that is said not to have been done was, and a watch tells all of it once and in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kvorum import KvorumError
from tests.common.clusters import Cluster, start_kvorum_cluster
from tests.kvorum.clients import MakeClient

KILLS = 1
WRITES_BETWEEN = 20
SECONDS = 60
PACE_SECONDS = 0.01  # the machine is to be kept busy by the cluster, not by us
PREFIX = "cluster/"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with start_kvorum_cluster(tmp_path, 3, "--heartbeat-interval=50", "--election-timeout=500") as cluster:
        yield cluster


@dataclass
class Writer:
    """One after the other, it puts 0, 1, 2 … into its key; what became of each is kept."""

    key: str
    idempotent: bool
    acknowledged: dict[int, int] = field(default_factory=dict)  # number → revision
    unknown: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    seen: list[int] = field(default_factory=list)  # what reads showed

    def write(self, client: Any, stop: threading.Event) -> None:
        number = 0
        while not stop.is_set():
            try:
                put = client.put(self.key, str(number), idempotent=self.idempotent)
                self.acknowledged[number] = put.revision
            except KvorumError as error:
                (self.unknown if error.maybe_done else self.failed).add(number)
            number += 1
            stop.wait(PACE_SECONDS)

    def read(self, client: Any, stop: threading.Event) -> None:
        while not stop.is_set():
            found = client.get(self.key)
            self.seen.append(int(found.value) if found else -1)
            stop.wait(PACE_SECONDS)


def test_a_client_lives_through_the_loss_of_leaders(cluster: Cluster, make_client: MakeClient) -> None:
    writers = [Writer(f"{PREFIX}{i}", idempotent=i == 0) for i in range(3)]
    told: list[Any] = []
    lost: list[str] = []
    stop = threading.Event()
    with make_client(cluster.urls, timeout=20) as client:
        watch = client.watch(PREFIX, prefix=True)
        watch.start()
        follower = threading.Thread(target=lambda: told.extend(watch))
        work: list[Callable[[Any, threading.Event], None]] = [writer.write for writer in writers]
        work.append(writers[0].read)
        threads = [threading.Thread(target=one, args=(client, stop)) for one in work]
        with client.lease(10, on_lost=lost.append) as lease:
            for thread in (follower, *threads):
                thread.start()
            killed: set[int] = set()
            for _ in range(KILLS):
                killed.add(kill_and_restart(cluster, cluster.leader(), writers))
            # Whichever member the watch and the writers were at, they have lost it once.
            for member in {0, 1, 2} - killed:
                kill_and_restart(cluster, member, writers)
            wait_for_writes(writers)
            stop.set()
            for thread in threads:
                thread.join(SECONDS)
            assert not lost
            assert client.time_to_live(lease.id).ttl > 0
        last = client.put(f"{PREFIX}last", "", idempotent=True)
        wait_until(lambda: watch.next_revision > last.revision)
        watch.close()
        follower.join(SECONDS)
        assert not follower.is_alive()
    judge(writers, [event for event in told if event.key != f"{PREFIX}last".encode()])


def judge(writers: list[Writer], told: list[Any]) -> None:
    revisions = [event.revision for event in told]
    assert revisions == sorted(set(revisions)), "out of order, or twice"
    for writer in writers:
        events = [event for event in told if event.key == writer.key.encode()]
        assert [event.kv.version for event in events] == list(range(1, len(events) + 1)), "a gap"
        by_revision = {event.revision: int(event.value) for event in events}
        for number, revision in writer.acknowledged.items():
            assert by_revision.get(revision) == number, f"{writer.key}: {number} was acknowledged"
        numbers = list(by_revision.values())
        assert not writer.failed & set(numbers), "said not to be done"
        assert set(numbers) <= writer.acknowledged.keys() | writer.unknown
        if writer.idempotent:
            assert not writer.unknown
            assert not writer.failed
        else:
            assert len(numbers) == len(set(numbers)), "a write was repeated that may not be"
    assert writers[0].seen == sorted(writers[0].seen), "a read went back"


def kill_and_restart(cluster: Cluster, member: int, writers: list[Writer]) -> int:
    wait_for_writes(writers)
    cluster.kill(member)
    wait_for_writes(writers)
    cluster.restart(member)
    cluster.wait_until_healthy()
    return member


def wait_for_writes(writers: list[Writer]) -> None:
    """Until each has made some more."""
    goals = [len(writer.acknowledged) + WRITES_BETWEEN for writer in writers]
    wait_until(lambda: all(len(w.acknowledged) >= goal for w, goal in zip(writers, goals, strict=True)))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
