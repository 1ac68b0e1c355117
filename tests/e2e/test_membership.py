"""Members are added, promoted, replaced, moved and removed while the cluster serves, as real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.common.nodes import (
    Node,
    Watch,
    assert_same_state,
    b64,
    leader_of,
    nodes,
    running,
    start_all,
    wait_until,
)
from tests.common.ports import free_ports
from tests.e2e.test_rolling_restart import Client, progress

ADD, REMOVE, UPDATE, PROMOTE, LIST = (
    f"/v3/cluster/member/{operation}" for operation in ("add", "remove", "update", "promote", "list")
)
NOT_FOR_LEARNERS = "etcdserver: rpc not supported for learner"


def accepted(node: Node, path: str, body: object, *passing: str) -> dict[str, Any]:
    """The answer, once ``passing`` is what it is refused with no more."""
    found: list[dict[str, Any]] = []

    def try_it() -> bool:
        status, answer = node.ask(path, body)
        found[:] = [answer]
        assert status == 200 or answer["error"] in passing, answer
        return status == 200

    wait_until(try_it, otherwise=lambda: f"still refused: {found}")
    return found[0]


def added(by: Node, node: Node, members: list[Node], *, learner: bool = False) -> str:
    """Make ``node``, which is to join ``members``, known to them; returns its id. As with etcd, all voters
    must have been connected for five seconds."""
    node.founders = [*members, node]
    node.flags = {**node.flags, "initial_cluster_state": "existing"}
    body = {"peerURLs": [node.peer_url], **({"isLearner": True} if learner else {})}
    answer = accepted(by, ADD, body, "etcdserver: unhealthy cluster")
    assert answer["member"]["peerURLs"] == [node.peer_url]
    return str(answer["member"]["ID"])


def names(node: Node) -> list[str]:
    return sorted(one.get("name", "") for one in node.call(LIST, {})["members"])


def apart(name: str, directory: Path) -> Node:
    return Node(name, directory, *free_ports(2))


def test_a_single_node_without_cluster_flags_grows_to_three(tmp_path: Path) -> None:
    """It is started again with a peer URL, its member is given that URL, and then others can join: one as a
    learner that is promoted, one as a voter at once."""
    n1, n2, n3 = (apart(name, tmp_path) for name in ("default", "n2", "n3"))
    with running([n1, n2, n3]):
        alone = {"name": None, "initial_cluster": None}
        n1.start(**alone, listen_peer_urls=None).wait_until_healthy()
        for i in range(100):
            n1.put(b"k%d" % i, b"v")
        assert n1.stop() == 0
        n1.flags = dict(alone)
        n1.start().wait_until_healthy()
        n1.call(UPDATE, {"ID": n1.member_id, "peerURLs": [n1.peer_url]})

        learner = added(n1, n2, [n1], learner=True)
        n2.start()
        n2.wait_until_it_says("Kvorum serves")
        assert_serves_stale_reads_only(n2)
        status, answer = n1.ask(ADD, {"peerURLs": [n3.peer_url], "isLearner": True})
        assert (status, answer["error"]) == (400, "etcdserver: too many learner members in cluster")
        accepted(
            n1,
            PROMOTE,
            {"ID": learner},
            "etcdserver: can only promote a learner member which is in sync with leader",
        )
        n2.wait_until_healthy()
        assert n2.get(b"k99") == b"v"

        added(n2, n3, [n1, n2])
        n3.start().wait_until_healthy()
        assert n3.get(b"k99") == b"v"
        wait_until(lambda: all(names(node) == ["default", "n2", "n3"] for node in (n1, n2, n3)))
        assert_same_state([n1, n2, n3])
        n1.kill()  # any two of the three are enough
        wait_until(lambda: n3.ask("/v3/kv/put", {"key": b64(b"after")})[0] == 200)
        assert n2.get(b"after") == b""
        n1.start().wait_until_healthy()  # with the flags of a node that is alone
        assert_same_state([n1, n2, n3])


def assert_serves_stale_reads_only(learner: Node) -> None:
    """etcd's rule: what a learner says may be old, so only those who do not mind are answered."""
    wait_until(lambda: learner.get(b"k99", serializable=True) == b"v")
    key = b64(b"k99")
    for path, body in (
        ("/v3/kv/range", {"key": key}),
        ("/v3/kv/put", {"key": key}),
        ("/v3/kv/deleterange", {"key": key}),
        ("/v3/kv/txn", {"success": [{"request_range": {"key": key}}]}),
        ("/v3/kv/compaction", {"revision": 2}),
        ("/v3/watch", {"create_request": {"key": key}}),
        ("/v3/maintenance/hashkv", {}),
        (LIST, {}),
        (ADD, {"peerURLs": ["http://127.0.0.1:1"]}),
        (REMOVE, {"ID": "1"}),
    ):
        status, answer = learner.ask(path, body)
        assert (status, answer["code"], answer["error"]) == (503, 14, NOT_FOR_LEARNERS), path
    assert learner.status()["isLearner"]


def test_a_dead_member_is_replaced_under_load(tmp_path: Path) -> None:
    """The leader dies and its disk is lost: it is removed at once, and another takes its place with an empty
    disk, while clients go on writing."""
    members = nodes(tmp_path, 3)
    new = apart("n4", tmp_path)
    new.flags = dict(members[0].flags)
    with running([*members, new]):
        start_all(members)
        dead = leader_of(members)
        alive = [node for node in members if node is not dead]
        member = dead.member_id
        clients = [Client(number, alive) for number in range(4)]
        progress(clients)
        dead.kill()
        alive[0].call(REMOVE, {"ID": member})  # waits for whoever leads next
        progress(clients)
        added(alive[1], new, alive)
        new.start().wait_until_healthy()
        progress(clients)
        for client in clients:
            client.finish()
        assert_same_state([*alive, new])
        last = new.put(b"end")
        assert [revision for revision, _, _ in Watch(new, 2).wait_for(last)] == list(range(2, last + 1))
        assert names(new) == sorted(node.name for node in (*alive, new))
        alive[0].kill()
        wait_until(lambda: new.ask("/v3/kv/put", {"key": b64(b"after")})[0] == 200)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Three members; the last test that has it uses it up."""
    members = nodes(tmp_path_factory.mktemp("members"), 3)
    with running(members):
        start_all(members)
        yield members


def test_a_member_moves_to_another_port(cluster: list[Node]) -> None:
    """Its peer URL is changed in the cluster, and it is started again there with its old data; and this is
    how addresses that are taken, or leaders that are asked for, are answered."""
    members = n1, n2, n3 = cluster
    status, answer = n1.ask(ADD, {"peerURLs": [n2.peer_url]})
    assert (status, answer["error"]) == (400, "etcdserver: Peer URLs already exists")
    ids = {node.name: node.member_id for node in members}
    status, answer = n1.ask(UPDATE, {"ID": ids["n3"], "peerURLs": [n2.peer_url]})
    assert (status, answer["error"]) == (400, "etcdserver: Peer URLs already exists")

    before = n3.peer_url
    n3.peer_url = f"http://127.0.0.1:{free_ports(1)[0]}"
    n1.call(UPDATE, {"ID": ids["n3"], "peerURLs": [n3.peer_url]})
    assert n3.stop() == 0
    n3.start().wait_until_healthy()
    assert n3.member_id == ids["n3"]
    (listed,) = (one for one in n2.call(LIST, {})["members"] if one["ID"] == ids["n3"])
    assert listed["peerURLs"] == [n3.peer_url] != [before]
    for node in members:
        assert node.stop() == 0
    start_all(members)  # all know the new one from their data
    n3.put(b"moved")

    for target in members:
        leader = leader_of(members)
        if target is leader:
            continue
        status, answer = target.ask("/v3/maintenance/transfer-leadership", {"targetID": ids[target.name]})
        assert (status, answer["error"]) == (400, "etcdserver: not leader")
        leader.call("/v3/maintenance/transfer-leadership", {"targetID": ids[target.name]})
        assert leader_of(members) is target
        target.put(b"led by", target.name.encode())
    assert_same_state(members)


def test_members_that_are_removed_stop(cluster: list[Node]) -> None:
    """A leader and a follower that are removed end by themselves with 0 and say why; the rest go on, down to
    a single one; who was removed does not come back with its old data."""
    left = list(cluster)
    for which in ("leader", "follower"):
        leader = leader_of(left)
        goes = leader if which == "leader" else next(node for node in left if node is not leader)
        asked = next(node for node in left if node is not goes)
        member = goes.member_id
        accepted(asked, REMOVE, {"ID": member}, "etcdserver: unhealthy cluster")
        left.remove(goes)
        assert goes.exit_code() == 0
        assert goes.last_words().endswith("has been removed from the cluster, and stops")
        assert f"{int(member):x}" in goes.last_words()
        wait_until(lambda: left[0].ask("/v3/kv/put", {"key": b64(b"k")})[0] == 200)
        assert names(left[0]) == sorted(node.name for node in left)
        assert goes.start().exit_code() == 1
        assert "has been removed from the cluster: to come back" in goes.last_words()
    status, answer = left[0].ask(REMOVE, {"ID": left[0].member_id})
    assert (status, answer["error"]) == (
        500,
        "etcdserver: re-configuration failed due to not enough started members",
    )
