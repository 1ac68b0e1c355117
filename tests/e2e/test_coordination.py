"""Locks and elections over the API in a real cluster: lost leaders, stopping members, hang-ups."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.common.nodes import Node, b64, leader_of, nodes, running, start_all, wait_until

A, B, C = 1, 2, 3


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Node]]:
    members = nodes(tmp_path, 3)
    with running(members):
        start_all(members)
        for lease in (A, B, C):
            members[0].call("/v3/lease/grant", {"ID": lease, "TTL": 300})
        yield members


class Asked:
    """A request whose answer takes its time."""

    def __init__(self, node: Node, path: str, message: object) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
        self._connection.request("POST", path, json.dumps(message))

    def answer(self) -> tuple[int, dict[str, Any]]:
        with contextlib.closing(self._connection):
            response = self._connection.getresponse()
            return response.status, json.loads(response.read() or b"{}")

    def hang_up(self) -> None:
        self._connection.close()


def lock(node: Node, lease: int) -> Asked:
    return Asked(node, "/v3/lock/lock", {"name": b64(b"l"), "lease": lease})


def unlock(node: Node, lease: int) -> None:
    """Again and again, if the leader that would have done it is lost: it does no harm."""
    wait_until(lambda: node.ask("/v3/lock/unlock", {"key": b64(b"l/%x" % lease)})[0] == 200)


def line(node: Node) -> list[bytes]:
    """Who stands in it, first to last."""
    asked = {"key": b64(b"l/"), "range_end": b64(b"l0"), "sort_target": "CREATE", "sort_order": "ASCEND"}
    return [base64.b64decode(kv["key"]) for kv in node.call("/v3/kv/range", asked).get("kvs", [])]


def until_line(node: Node, *leases: int) -> None:
    keys = [b"l/%x" % lease for lease in leases]
    wait_until(lambda: line(node) == keys, otherwise=lambda: f"the line is {line(node)}, not {keys}")


def others(members: list[Node], one: Node) -> list[Node]:
    return [node for node in members if node is not one]


def test_a_line_outlives_the_leader(cluster: list[Node]) -> None:
    """Those who wait at members that stay go on waiting, and are answered in their order."""
    leader = leader_of(cluster)
    one, other = others(cluster, leader)
    assert lock(leader, A).answer()[0] == 200
    second = lock(one, B)
    until_line(one, A, B)
    third = lock(other, C)
    until_line(one, A, B, C)
    leader.kill()
    unlock(other, A)
    assert base64.b64decode(second.answer()[1]["key"]) == b"l/2"
    assert line(one) == [b"l/2", b"l/3"]
    unlock(one, B)
    assert base64.b64decode(third.answer()[1]["key"]) == b"l/3"


def test_who_hangs_up_while_there_is_no_leader_leaves_the_line_later(cluster: list[Node]) -> None:
    """His key is removed as soon as it can be."""
    leader = leader_of(cluster)
    one, other = others(cluster, leader)
    assert lock(one, A).answer()[0] == 200
    second = lock(one, B)
    until_line(one, A, B)
    leader.kill()
    other.kill()
    second.hang_up()
    other.start()
    other.wait_until_healthy()
    until_line(other, A)


def test_those_who_wait_at_a_member_that_stops_are_told(cluster: list[Node]) -> None:
    """At once, with their keys removed; they ask another one."""
    one, other = cluster[:2]
    assert lock(other, A).answer()[0] == 200
    second, observer = lock(one, B), Asked(one, "/v3/election/observe", {"name": b64(b"nobody")})
    until_line(other, A, B)
    begun = time.monotonic()
    assert one.stop() == 0
    assert time.monotonic() - begun < 5
    status, answer = second.answer()
    assert (status, answer["code"], answer["error"]) == (500, 2, "etcdserver: server stopped")
    assert observer.answer() == (200, {})
    until_line(other, A)


def test_who_waits_at_a_member_that_is_killed_keeps_his_place(cluster: list[Node]) -> None:
    """The key is the lease's, so he asks another member with the same lease and stands where he stood."""
    other = leader_of(cluster)  # what is asked while a leader is lost may be answered with an error
    one, third = others(cluster, other)
    assert lock(other, A).answer()[0] == 200
    lost = lock(one, B)
    until_line(other, A, B)
    last = lock(third, C)
    until_line(other, A, B, C)
    one.kill()
    lost.hang_up()
    again = lock(other, B)
    unlock(other, A)
    assert base64.b64decode(again.answer()[1]["key"]) == b"l/2"
    assert line(other) == [b"l/2", b"l/3"]
    unlock(other, B)
    assert last.answer()[0] == 200


def test_an_observer_outlives_the_leader(cluster: list[Node]) -> None:
    """Its stream goes on, without one of the leaders of the election missing."""
    leader = leader_of(cluster)
    one, other = others(cluster, leader)
    mine = leader.call("/v3/election/campaign", {"name": b64(b"e"), "lease": A, "value": b64(b"1")})["leader"]
    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", "/v3/election/observe", json.dumps({"name": b64(b"e")}))
        response = connection.getresponse()

        def value() -> bytes:
            return base64.b64decode(json.loads(response.readline())["result"]["kv"]["value"])

        assert value() == b"1"
        leader.kill()
        proclaim = {"leader": mine, "value": b64(b"2")}
        wait_until(lambda: other.ask("/v3/election/proclaim", proclaim)[0] == 200)
        assert value() == b"2"
        response.close()
