"""A start with wrong flags, or with data that is not ours to go on with, is refused: one clear line, an exit
code that is not 0, and nothing left behind that would keep the right start from working."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from raft.filesystem import RealFilesystem
from raft.wal import recovery
from tests.common.nodes import Node, nodes, running, start_all, wait_until
from tests.common.ports import free_ports
from tests.common.servers import start_etcd

MISMATCH = "cluster ID mismatch"


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One that wants to join where nobody answers. That takes ten seconds, so it begins before all else."""
    members = nodes(tmp_path_factory.mktemp("lonely"), 3)
    with running(members):
        yield members[0].start(initial_cluster_state="existing")


@pytest.fixture(scope="module")
def cluster(lonely: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Three members that run; whoever stops one starts it again."""
    members = nodes(tmp_path_factory.mktemp("founded"), 3)
    with running(members):
        for node in members:
            node.start()
        for node in members:
            node.wait_until_healthy()
        yield members
        for node in members:
            assert node.is_running, node.said()
            assert "Traceback" not in node.log.read_text()


def newcomer(name: str, directory: Path, cluster: list[Node]) -> Node:
    """One that has ports and an empty disk of its own, and names the members of ``cluster`` and itself."""
    node = Node(name, directory, *free_ports(2))
    node.founders = [*(one for one in cluster if one.name != name), node]
    node.flags = dict(cluster[0].flags)
    return node


def refusal(node: Node, **flags: str | None) -> str:
    """Start it, and return what it is refused with."""
    with running([node]):
        assert node.start(**flags).exit_code() == 1
        return node.last_words()


def test_wrong_token(tmp_path: Path) -> None:
    """One of three has another --initial-cluster-token: it stops and both sides say why; the others go on
    without it, and take it in when it has the right one."""
    members = n1, n2, n3 = nodes(tmp_path, 3)
    with running(members):
        n1.start()
        n2.start()
        n3.start(initial_cluster_token="another")
        assert n3.exit_code() == 1
        words = n3.last_words()
        assert words.startswith("kvorum: this member cannot take part in the cluster: " + MISMATCH)
        assert "--initial-cluster-token" in words
        n1.wait_until_healthy()
        n2.wait_until_healthy()
        n1.wait_until_it_says("was refused: " + MISMATCH)
        n2.wait_until_it_says("was refused: " + MISMATCH)
        n3.start().wait_until_healthy()


def test_a_log_with_nothing_but_a_vote_in_another_cluster(tmp_path: Path) -> None:
    """Without pre-vote a member alone has soon voted. What it has promised it must not forget, so the right
    flags alone do not help: it is said what does."""
    n1, n2, n3 = members = nodes(tmp_path, 3)
    with running(members):
        n3.start(initial_cluster_token="another", pre_vote="false")
        wait_until(lambda: read_identity(n3) is not None)
        n3.kill()
        words = refusal(n3)
        assert "that is not the one that the flags describe" in words
        start_all([n1, n2])
        shutil.rmtree(n3.data_dir)
        n3.start().wait_until_healthy()


def read_identity(node: Node) -> bytes | None:
    """Whose log it is; None while nothing is in it."""
    directory = node.data_dir / "wal"
    if not directory.exists():
        return None
    return recovery.read_identity(RealFilesystem(), directory)


def test_the_same_name_twice_in_the_flags(tmp_path: Path) -> None:
    """A name that --initial-cluster has twice is one member with two URLs, which this one does not have."""
    n1, n2, _ = nodes(tmp_path, 3)
    with running([n1]):
        n1.start(initial_cluster=f"n1={n1.peer_url},n1={n2.peer_url}")
        assert n1.exit_code() == 2
        said = " ".join(n1.said().split())
    assert f"--initial-cluster has n1 for 2 URLs, {n1.peer_url} and {n2.peer_url}" in said
    assert "two names for two members" in said
    assert not n1.data_dir.exists()


@pytest.mark.parametrize("state", ["new", "existing"])
def test_a_name_that_another_member_has(cluster: list[Node], tmp_path: Path, state: str) -> None:
    """Somebody who calls himself n2, with a peer URL of his own, does not get into n2's cluster."""
    impostor = newcomer("n2", tmp_path, cluster)
    words = refusal(impostor, initial_cluster_state=state)
    if state == "new":
        assert MISMATCH in words
        cluster[0].wait_until_it_says("was refused: " + MISMATCH)
    else:
        assert f"has no member with the peer URL {impostor.peer_url}" in words
        assert not (impostor.data_dir / "wal").exists()


def test_the_name_and_peer_url_of_another_member(cluster: list[Node], tmp_path: Path) -> None:
    """Started a second time, elsewhere, with n2's flags: the cluster knows that n2 has been started."""
    n2 = cluster[1]
    second = newcomer("n2", tmp_path, cluster)
    second.founders = cluster
    words = refusal(second, initial_advertise_peer_urls=n2.peer_url)
    assert "is empty, but the cluster says that n2" in words
    assert "has been started before" in words


def test_an_advertised_url_that_the_flags_do_not_have(tmp_path: Path) -> None:
    """--initial-advertise-peer-urls and --initial-cluster must say the same."""
    n1, *_ = nodes(tmp_path, 3)
    with running([n1]):
        assert n1.start(initial_advertise_peer_urls="http://127.0.0.1:14999").exit_code() == 2
        said = " ".join(n1.said().split())
    assert "--initial-advertise-peer-urls and --initial-cluster differ about n1" in said
    assert not n1.data_dir.exists()


def test_a_peer_url_that_leads_to_another_member(tmp_path: Path) -> None:
    """n3 has n1's and n2's URLs the wrong way round: it is told that it is of another cluster."""
    members = n1, n2, n3 = nodes(tmp_path, 3)
    with running(members):
        n1.start()
        n2.start()
        n1.wait_until_healthy()
        swapped = f"n1={n1.peer_url},n2={n1.peer_url.replace('127.0.0.1', 'localhost')},n3={n3.peer_url}"
        assert n3.start(initial_cluster=swapped).exit_code() == 1
        assert MISMATCH in n3.last_words()
        n1.wait_until_it_says("was refused: " + MISMATCH)
        n3.start().wait_until_healthy()


def test_a_peer_url_that_leads_to_something_else(tmp_path: Path) -> None:
    """An HTTP server and etcd are no members: it is said at which URL, and the member that all of its flags
    lead astray stops."""

    class Web(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=web.serve_forever).start()
    n1, _, n3 = nodes(tmp_path, 3)
    etcd = start_etcd(
        tmp_path,
        f"--listen-peer-urls={n3.peer_url}",
        f"--initial-advertise-peer-urls={n3.peer_url}",
        f"--initial-cluster=default={n3.peer_url}",
    )
    try:
        etcd.wait_until_healthy()
        elsewhere = f"n1={n1.peer_url},n2=http://127.0.0.1:{web.server_port},n3={n3.peer_url}"
        words = refusal(n1, initial_cluster=elsewhere)
    finally:
        etcd.stop()
        web.shutdown()
        web.server_close()
    assert "is no member of a Kvorum cluster" in words
    assert f"http://127.0.0.1:{web.server_port}" in n1.said()
    assert n3.peer_url in n1.said()


@pytest.mark.parametrize("state", ["new", "existing"])
def test_a_cluster_that_does_not_have_the_member(cluster: list[Node], tmp_path: Path, state: str) -> None:
    """Whoever was not added first is turned away, and hears how to be added."""
    stranger = newcomer("n4", tmp_path, cluster)
    words = refusal(stranger, initial_cluster_state=state)
    if state == "existing":
        assert f"has no member with the peer URL {stranger.peer_url}" in words
        assert "`kvorum member add n4 --peer-urls" in words
    else:
        assert MISMATCH in words


def test_flags_that_name_members_of_two_clusters(cluster: list[Node], tmp_path: Path) -> None:
    """A newcomer that is sent to two clusters joins neither."""
    (alone,) = nodes(tmp_path, 1)
    with running([alone]):
        alone.start().wait_until_healthy()
        stranger = newcomer("n4", tmp_path, cluster)
        both = f"n1={cluster[0].peer_url},n2={alone.peer_url},n4={stranger.peer_url}"
        words = refusal(stranger, initial_cluster=both, initial_cluster_state="existing")
        assert "are not of one cluster" in words
        words = refusal(stranger, initial_cluster=both)
        assert MISMATCH in words


def test_the_data_of_another_member(cluster: list[Node]) -> None:
    """n3 with n2's data is neither; both come back with their own."""
    _, n2, n3 = cluster
    assert n2.stop() == n3.stop() == 0
    words = refusal(n3, data_dir=str(n2.data_dir))
    assert f"{n2.data_dir} holds the data of member n2" in words
    assert "but --name is 'n3'" in words
    for node in (n2, n3):
        node.start()
    for node in (n2, n3):
        node.wait_until_healthy()


@pytest.mark.parametrize("state", ["new", "existing"])
def test_an_empty_disk_of_one_that_was_started_before(
    cluster: list[Node], tmp_path: Path, state: str
) -> None:
    """It has forgotten its votes, so it must not come back as if nothing had happened."""
    n2 = cluster[1]
    assert n2.stop() == 0
    empty = tmp_path / "empty"
    words = refusal(n2, data_dir=str(empty), initial_cluster_state=state)
    assert f"{empty} is empty, but the cluster says that" in words
    assert "remove it with `kvorum member remove`" in words
    assert not (empty / "wal").exists()
    n2.start().wait_until_healthy()


def test_a_removed_member_with_its_old_data(tmp_path: Path) -> None:
    """It is told so, by itself if it heard of its removal and by the others if not, and they say that they
    refuse it."""
    members = n1, _, n3 = nodes(tmp_path, 3)
    with running(members):
        for node in members:
            node.start()
        for node in members:
            node.wait_until_healthy()
        member = n3.call("/v3/maintenance/status", {})["header"]["member_id"]
        n3.kill()  # it does not hear of its removal
        n1.call("/v3/cluster/member/remove", {"ID": member})
        for _ in range(2):
            # With patience: a node that has heard nothing for two election timeouts serves stale reads.
            assert n3.start(election_timeout="1500").exit_code() == 1
            assert "has been removed from the cluster" in n3.last_words()
        n1.wait_until_it_says("has been permanently removed from the cluster")


@pytest.mark.parametrize("flag", ["listen_client_urls", "listen_peer_urls"])
def test_a_port_in_use(cluster: list[Node], tmp_path: Path, flag: str) -> None:
    """It is said which URL cannot be had and what asks for it, before anything is written."""
    (node,) = nodes(tmp_path, 1)
    taken = cluster[0].client_url if flag == "listen_client_urls" else cluster[0].peer_url
    words = refusal(node, **{flag: taken, "initial_advertise_peer_urls": node.peer_url})
    assert f"cannot listen on {taken} (--{flag.replace('_', '-')})" in words
    assert not node.data_dir.exists()
    with running([node]):
        node.start().wait_until_healthy()


def test_a_member_that_lost_its_disk_gives_no_quorum_to_one_that_lags(tmp_path: Path) -> None:
    """Two of three acknowledge a write that the third has not; one of the two loses its disk while nobody
    is there to tell it that it was part of the cluster. With the third it would be a quorum that knows
    nothing of the write: it is turned away, and the write is there when the other one comes back."""
    members = n1, n2, n3 = nodes(tmp_path, 3)
    with running(members):
        for node in members:
            node.start()
        for node in members:
            node.wait_until_healthy()
        n2.kill()
        n1.wait_until_healthy()  # n2 may have led
        assert n1.put(b"key", b"value") > 1
        n1.kill()
        n3.kill()
        shutil.rmtree(n3.data_dir)
        n3.start()
        n2.start()
        assert n3.exit_code() == 1
        words = n3.last_words()
        # It has asked n2 who is a member, or n2 was not there yet, and it was refused when it called.
        assert "has been started before" in words or "comes back with an empty log" in words
        n1.start()
        for node in (n1, n2):
            node.wait_until_healthy()
            assert node.get(b"key") == b"value"


def test_joining_when_nobody_answers(lonely: Node) -> None:
    """It asks for a while, and says whom."""
    assert lonely.exit_code() == 1
    _, n2, n3 = lonely.founders
    assert f"none of the cluster's members answers at {n2.peer_url}, {n3.peer_url}" in lonely.last_words()
    assert not (lonely.data_dir / "wal").exists()
