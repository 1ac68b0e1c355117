"""Leases in a cluster of real processes: on every member, over lost leaders and restarts."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.common.nodes import Node, b64, leader_of, nodes, running, start_all, wait_until

ELECTION = 0.5
LATE = 3.0
"""What a busy machine may add."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Node]]:
    members = nodes(tmp_path, 3)
    with running(members):
        start_all(members)
        yield members


def grant(node: Node, lease: int, ttl: int) -> None:
    assert node.call("/v3/lease/grant", {"ID": lease, "TTL": ttl})["TTL"] == str(ttl)


def put(node: Node, key: bytes, lease: int) -> None:
    node.call("/v3/kv/put", {"key": b64(key), "lease": lease})


def keep_alive(node: Node, lease: int) -> int:
    return int(node.call("/v3/lease/keepalive", {"ID": lease})["result"].get("TTL", 0))


def left(node: Node, lease: int) -> int:
    return int(node.call("/v3/lease/timetolive", {"ID": lease}).get("TTL", 0))


def is_gone(node: Node, key: bytes) -> bool:
    return node.get(key) is None


def test_every_member_serves_leases(cluster: list[Node]) -> None:
    """Whoever leads; keepalives at one member count for all, and an end is seen by all."""
    for number, node in enumerate(cluster, 1):
        grant(node, number, 100)
        put(node, b"leased/%d" % number, number)
    for node in cluster:
        listed = node.call("/v3/lease/leases", {})["leases"]
        assert listed == [{"ID": "1"}, {"ID": "2"}, {"ID": "3"}]
        for number in (1, 2, 3):
            assert keep_alive(node, number) == 100
            found = node.call("/v3/lease/timetolive", {"ID": number, "keys": True})
            assert 90 < int(found["TTL"]) <= 100
            assert found["grantedTTL"] == "100"
            assert found["keys"] == [b64(b"leased/%d" % number)]
        assert keep_alive(node, 9) == 0
        assert left(node, 9) == -1
    for number, node in enumerate(cluster, 1):
        node.call("/v3/kv/lease/revoke", {"ID": number})
        for other in cluster:
            assert is_gone(other, b"leased/%d" % number)
            assert keep_alive(other, number) == 0


def test_a_lease_lives_as_long_as_it_is_kept_alive_at_a_follower(cluster: list[Node]) -> None:
    """And then runs out: no sooner than its TTL after the last keepalive was asked for, nor much later."""
    leader = leader_of(cluster)
    follower = next(node for node in cluster if node is not leader)
    grant(follower, 7, 2)
    put(follower, b"kept", 7)
    begun = time.monotonic()
    while time.monotonic() < begun + 4:
        asked = time.monotonic()
        assert keep_alive(follower, 7) == 2
    for node in cluster:
        assert node.get(b"kept") == b""
    wait_until(lambda: is_gone(follower, b"kept"))
    assert 2 <= time.monotonic() - asked < 2 + LATE
    assert keep_alive(follower, 7) == 0


def test_leases_survive_a_lost_leader(cluster: list[Node]) -> None:
    """They begin anew with the next: none ends sooner, and all end."""
    leader = leader_of(cluster)
    grant(leader, 7, 3)
    put(leader, b"survivor", 7)
    wait_until(lambda: left(leader, 7) < 2)  # the next leader will not know that some is gone
    leader.kill()
    killed = time.monotonic()
    rest = [node for node in cluster if node is not leader]
    assert keep_alive(rest[0], 7) == 3
    kept = time.monotonic()
    assert rest[1].get(b"survivor") == b""
    wait_until(lambda: is_gone(rest[0], b"survivor"))
    ended = time.monotonic()
    assert ended - killed >= 3
    assert ended - kept < 3 + 2 * ELECTION + LATE


def test_an_old_leader_that_was_stopped_and_goes_on_keeps_nothing_alive(cluster: list[Node]) -> None:
    """It is asked while it stands, and still takes itself for the leader when it goes on; the others
    have ended the lease meanwhile."""
    old = leader_of(cluster)
    grant(old, 7, 60)
    rest = [node for node in cluster if node is not old]
    assert old.server is not None
    connection = http.client.HTTPConnection("127.0.0.1", old.port, timeout=30)
    connection.request("POST", "/v3/lease/keepalive", json.dumps({"ID": 7}))
    assert json.loads(connection.getresponse().read())["result"]["TTL"] == "60"
    os.kill(old.server.process.pid, signal.SIGSTOP)
    try:
        connection.request("POST", "/v3/lease/keepalive", json.dumps({"ID": 7}))
        leader_of(rest)
        rest[0].call("/v3/lease/revoke", {"ID": 7})
    finally:
        os.kill(old.server.process.pid, signal.SIGCONT)
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    assert "TTL" not in answer["result"], answer


def test_leases_survive_a_restart_of_all(cluster: list[Node]) -> None:
    """With their keys; and their time goes on."""
    grant(cluster[0], 7, 3)
    put(cluster[0], b"durable", 7)
    grant(cluster[0], 8, 1000)
    for node in cluster:
        node.kill()
    start_all(cluster)
    begun = time.monotonic()
    assert cluster[1].get(b"durable") == b""
    assert left(cluster[2], 8) > 900
    wait_until(lambda: is_gone(cluster[1], b"durable"))
    assert time.monotonic() - begun < 3 + 2 * ELECTION + LATE
    assert cluster[2].call("/v3/lease/leases", {})["leases"] == [{"ID": "8"}]
