"""The client library where connections break at any byte: what it says of its writes is true, and a watch
tells all of them once."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from kvorum import Client, KvorumError
from tests.common.servers import Server
from tests.kvorum.bad_network import bad_networks
from tests.kvorum.clients import MakeClient
from tests.kvorum.test_client import wait_until

WRITERS, WRITES, SECONDS = 4, 60, 60


class Account:
    """What became of the writes, as far as the client knows."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}  # key → revision
        self.unknown: set[str] = set()
        self.not_done: set[str] = set()
        self.wrong: list[str] = []  # what reads showed

    def write(self, client: Any, prefix: str) -> None:
        for number in range(WRITES):
            key = f"{prefix}{number}"
            try:
                self.done[key] = client.put(key, "x").revision
            except KvorumError as error:
                (self.unknown if error.maybe_done else self.not_done).add(key)
            try:
                found = client.get(key)
            except KvorumError:
                continue
            if key not in self.unknown and (found.mod_revision if found else None) != self.done.get(key):
                self.wrong.append(key)


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_said_of_writes_is_true_and_a_watch_is_whole(
    store: Server, make_client: MakeClient, key: str, seed: int
) -> None:
    account = Account()
    told: list[Any] = []
    with (
        Client(store.url) as onlooker,
        bad_networks(store.port, 3, seed) as networks,
        make_client([network.url for network in networks], timeout=1) as client,
    ):
        watch = client.watch(key, prefix=True)
        watch.start()
        follower = threading.Thread(target=lambda: told.extend(watch))
        writers = [
            threading.Thread(target=account.write, args=(client, f"{key}{i}/")) for i in range(WRITERS)
        ]
        for thread in (follower, *writers):
            thread.start()
        for thread in writers:
            thread.join(SECONDS)
        for network in networks:
            network.heal()
        last = onlooker.put(f"{key}last", "").revision
        wait_until(lambda: watch.next_revision > last)
        watch.close()
        follower.join(SECONDS)
        assert not follower.is_alive()
        there = {kv.key.decode(): kv for kv in onlooker.items(key)}
    assert not account.wrong
    assert {name: there[name].mod_revision for name in account.done} == account.done
    assert not account.not_done & there.keys(), "said not to be done"
    assert {kv.version for kv in there.values()} == {1}, "a write was repeated"
    assert [event.revision for event in told] == sorted(kv.mod_revision for kv in there.values())
    assert account.unknown, "the network was not as bad as it should be"
