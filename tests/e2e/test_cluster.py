"""Three members as real processes: every node serves everything, what a lost quorum does, and how nodes come
and go."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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

TIMED_OUT = {"code": 14, "error": "etcdserver: request timed out", "message": "etcdserver: request timed out"}
REQUEST_TIMEOUT = 5 + 2 * 0.5
ROOM = 1.0
"""What a busy machine may add."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Three members that run; tests leave them so."""
    members = nodes(tmp_path_factory.mktemp("cluster"), 3)
    with running(members):
        start_all(members)
        yield members
        for node in members:
            assert node.stop() == 0
            assert "Traceback" not in node.log.read_text()


def others(members: list[Node], *but: Node) -> list[Node]:
    return [node for node in members if node not in but]


def test_a_write_at_any_node_is_read_at_every_node(cluster: list[Node]) -> None:
    """An acknowledged put is in the next linearizable read, wherever it is asked for."""
    for turn in range(10):
        for writer in cluster:
            value = f"{turn} by {writer.name}".encode()
            revision = writer.put(b"everywhere", value)
            for reader in cluster:
                answer = reader.call("/v3/kv/range", {"key": b64(b"everywhere")})
                assert answer["kvs"][0]["value"] == b64(value)
                assert int(answer["header"]["revision"]) >= revision


def test_a_watch_at_any_node_has_every_event_once_and_in_order(cluster: list[Node]) -> None:
    """Whoever writes, and wherever: all watches see the same history."""
    start = cluster[0].put(b"watched/start")
    watches = [Watch(node, start + 1) for node in cluster]

    def write(number: int) -> None:
        node = cluster[number % 3]
        for i in range(20):
            node.put(b"watched/%d" % number, b"%d" % i)
            puts = [
                {"request_put": {"key": b64(b"watched/%d/%d" % (number, j)), "value": b64(b"%d" % i)}}
                for j in range(3)
            ]
            node.call("/v3/kv/txn", {"success": puts})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    end = cluster[0].put(b"watched/end")
    seen = [watch.wait_for(end) for watch in watches]
    assert seen[0] == seen[1] == seen[2]
    revisions = [revision for revision, _, _ in seen[0]]
    assert sorted(set(revisions)) == list(range(start + 1, end + 1))
    assert revisions == sorted(revisions)
    assert len(seen[0]) == len({(revision, key) for revision, key, _ in seen[0]}) == 6 * 20 * 4 + 1
    for number in range(6):
        values = [value for _, key, value in seen[0] if key == b"watched/%d" % number]
        assert values == [b"%d" % i for i in range(20)]


def test_transactions_and_compaction_at_a_follower(cluster: list[Node]) -> None:
    """They are passed on to the leader; every node has their effects."""
    follower = others(cluster, leader_of(cluster))[0]
    before = follower.put(b"txn", b"1")
    guarded = {
        "compare": [{"key": b64(b"txn"), "target": "MOD", "mod_revision": before}],
        "success": [{"request_put": {"key": b64(b"txn"), "value": b64(b"2")}}],
        "failure": [{"request_range": {"key": b64(b"txn")}}],
    }
    assert follower.call("/v3/kv/txn", guarded)["succeeded"]
    again = follower.call("/v3/kv/txn", guarded)
    assert "succeeded" not in again
    assert again["responses"][0]["response_range"]["kvs"][0]["value"] == b64(b"2")
    after = follower.put(b"txn", b"3")
    follower.call("/v3/kv/compaction", {"revision": after})
    for node in cluster:
        assert node.get(b"txn") == b"3"
        status, answer = node.ask("/v3/kv/range", {"key": b64(b"txn"), "revision": before})
        assert (status, answer["code"]) == (400, 11)
        assert "compacted" in answer["error"]
    assert_same_state(cluster)


def timed(ask: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    answer = ask()
    return answer, time.monotonic() - began


def assert_without_quorum(node: Node) -> None:
    """Writes and linearizable reads end with etcd's error in time; stale reads go on meanwhile."""
    key = b64(b"quorum")
    asked = [
        ("/v3/kv/put", {"key": key}),
        ("/v3/kv/range", {"key": key}),
        ("/v3/kv/txn", {"success": [{"request_put": {"key": key}}]}),
        ("/v3/kv/deleterange", {"key": key}),
        ("/v3/cluster/member/list", {"linearizable": True}),
        ("/health", None),
    ]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = [pool.submit(timed, lambda one=one: node.ask(*one)) for one in asked]
        for _ in range(20):
            stale, seconds = timed(lambda: node.get(b"quorum", serializable=True))
            assert stale == b"there"
            assert seconds < ROOM
        assert node.ask("/health?serializable=true") == (200, {"health": "true", "reason": ""})
        for (path, _), future in zip(asked, answers, strict=True):
            (status, answer), seconds = future.result()
            assert seconds < REQUEST_TIMEOUT + ROOM, path
            assert status == 503, (path, answer)
            if path == "/health":
                assert answer["health"] == "false"
                assert "request timed out" in answer["reason"]
            else:
                assert answer == TIMED_OUT, path


def test_without_a_quorum(tmp_path: Path) -> None:
    """What is left of three, be it the leader, a follower, or one that was started again, refuses in time
    what needs a quorum and serves stale reads; when the others are back, all goes on by itself."""
    members = nodes(tmp_path, 3)
    with running(members):
        start_all(members)
        members[0].put(b"quorum", b"there")
        leader = leader_of(members)
        lost = others(members, leader)
        for node in lost:
            node.kill()
        wait_until(lambda: "leader" not in leader.status())  # what it has taken before is answered earlier
        assert_without_quorum(leader)

        leader.kill()
        began = time.monotonic()
        leader.start()
        wait_until(lambda: answers_stale_reads(leader))
        assert time.monotonic() - began < 2 * 0.5 + 3 * ROOM
        assert leader.get(b"quorum", serializable=True) == b"there"

        watch = Watch(leader)
        for node in lost:
            node.start()
        for node in members:
            node.wait_until_healthy()
        assert watch.wait_for(lost[0].put(b"quorum", b"back"))[-1][1:] == (b"quorum", b"back")

        leader = leader_of(members)
        survivor, third = others(members, leader)
        leader.put(b"quorum", b"there")
        survivor.get(b"quorum")  # so it has it
        leader.kill()
        third.kill()
        assert_without_quorum(survivor)
        start_all([leader, third])
        survivor.wait_until_healthy()
        survivor.put(b"quorum", b"back")
        assert_same_state(members)


def answers_stale_reads(node: Node) -> bool:
    try:
        return node.get(b"quorum", serializable=True) is not None
    except OSError:
        return False


class Writer(threading.Thread):
    """Puts at one node, over and over; how long it had to wait at most, and what went wrong."""

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self.longest = 0.0
        self.failures: list[object] = []
        self.count = 0
        self._node = node
        self._stop_now = threading.Event()
        self.start()

    def run(self) -> None:
        last = time.monotonic()
        while not self._stop_now.is_set():
            status, answer = self._node.ask("/v3/kv/put", {"key": b64(b"writer")})
            if status != 200:
                self.failures.append(answer)
                continue
            self.count += 1
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now

    def finish(self) -> None:
        self._stop_now.set()
        self.join()

    def wait_for(self, count: int) -> None:
        wanted = self.count + count
        wait_until(lambda: self.count >= wanted or not self.is_alive())
        assert self.is_alive(), f"the writer at {self._node.name} broke off"


def test_a_leader_that_stops_lets_another_lead_first(tmp_path: Path) -> None:
    """Writers at the other nodes hardly notice: there is no election to wait for."""
    members = nodes(tmp_path, 3, heartbeat_interval="100", election_timeout="2000")
    with running(members):
        start_all(members)
        leader = leader_of(members)
        writers = [Writer(node) for node in others(members, leader)]
        for writer in writers:
            writer.wait_for(50)
        watch = Watch(leader)
        code, seconds = timed(leader.stop)
        assert code == 0
        assert seconds < 2 * ROOM  # nor does an open watch hold it up
        wait_until(lambda: watch.end == "closed")
        for writer in writers:
            writer.wait_for(50)
            writer.finish()
            assert writer.longest < 1.0
            # What was on its way to the old leader may or may not have been taken, and this is said.
            assert all(one["error"] == "etcdserver: leader changed" for one in writer.failures)
            assert len(writer.failures) <= 1
        assert leader_of(others(members, leader)) is not leader


def snapshots_of(node: Node) -> list[Path]:
    """What is being received, or sent."""
    directory = node.data_dir / "snapshots"
    return sorted(directory.iterdir()) if directory.exists() else []


FREQUENT = {"snapshot_count": "50", "snapshot_catchup_entries": "10", "log_level": "debug"}


def last_index(node: Node) -> int:
    return int(node.call("/v3/maintenance/status", {})["raftIndex"])


def wait_until_only_a_snapshot_helps(leader: Node, index: int) -> None:
    """A dead member whose log ends there at most: the leader has cut its own behind that, or still tries to
    send it a snapshot, and cuts nothing until it has."""
    cut = re.compile(r"the log is cut up to (\d+)")

    def is_so() -> bool:
        said = leader.said()
        is_cut = any(int(up_to) > index for up_to in cut.findall(said))
        return is_cut or said.count("gets a snapshot up to") > said.count("has the snapshot at")

    wait_until(is_so)


def test_a_node_that_lags_far_behind_gets_a_snapshot(tmp_path: Path) -> None:
    """Stopped or asleep while the others cut their logs, it gets the whole state; a watch that slept with it
    goes on without a gap."""
    members = nodes(tmp_path, 3, **FREQUENT)
    with running(members):
        start_all(members)
        leader = leader_of(members)
        lagging = others(members, leader)[0]
        start = leader.put(b"start")
        watch = Watch(lagging, start)
        watch.wait_for(start)

        os.kill(lagging.server.process.pid, signal.SIGSTOP)
        known = last_index(leader)
        for i in range(150):
            leader.put(b"k%d" % (i % 50), b"x" * 60_000)
        leader.wait_until_it_says("cannot be reached")  # so nothing waits in a connection any more
        for i in range(150):
            last = leader.put(b"k%d" % (i % 50), b"%d" % i)
        wait_until_only_a_snapshot_helps(leader, known)
        os.kill(lagging.server.process.pid, signal.SIGCONT)
        assert [revision for revision, _, _ in watch.wait_for(last)] == list(range(start, last + 1))
        lagging.wait_until_it_says("the snapshot at")
        lagging.wait_until_healthy()
        assert_same_state(members)

        assert lagging.stop() == 0
        known = last_index(leader)
        for i in range(150):
            last = leader.put(b"k%d" % (i % 50), b"%d" % i)
        wait_until_only_a_snapshot_helps(leader, known)
        lagging.start().wait_until_healthy()
        lagging.wait_until_it_says("the snapshot at")
        seen = Watch(lagging, start).wait_for(last)
        assert [revision for revision, _, _ in seen] == list(range(start, last + 1))
        assert_same_state(members)
        assert lagging.stop() == 0
        lagging.start().wait_until_healthy()
        assert_same_state(members)
        assert "Traceback" not in lagging.log.read_text()


def test_a_crash_while_a_snapshot_is_installed(tmp_path: Path) -> None:
    """Killed at any moment of it, a node starts again and has everything in the end."""
    members = nodes(tmp_path, 3, **FREQUENT)
    with running(members):
        start_all(members)
        leader = leader_of(members)
        lagging = others(members, leader)[0]
        state = lagging.data_dir / "state" / "data.mdb"

        def arriving() -> bool:
            return bool(snapshots_of(lagging)) or arrived()  # it is quick, and who looks may be slow

        def arrived() -> bool:
            return "arrived" in lagging.said()

        def replaced() -> bool:
            return state.stat().st_ino != before

        moments = [
            (arriving, 0.0),
            (arriving, 0.01),
            (arrived, 0.0),
            (arrived, 0.005),
            (replaced, 0.0),
            (replaced, 0.01),
        ]
        lagging.kill()
        for turn, (moment, later) in enumerate(moments):
            known = last_index(leader)
            for i in range(70):
                leader.put(b"%d/%d" % (turn, i), os.urandom(30_000))
            for i in range(70):
                leader.put(b"k%d" % i, b"%d" % turn)
            wait_until_only_a_snapshot_helps(leader, known)
            before = state.stat().st_ino
            lagging.start()
            spin_until(moment)
            time.sleep(later)
            lagging.kill()
        lagging.start().wait_until_healthy()
        assert_same_state(members)
        for turn in range(len(moments)):
            assert lagging.get(b"%d/69" % turn) == leader.get(b"%d/69" % turn)
        assert "Traceback" not in lagging.log.read_text()


def spin_until(condition: Callable[[], bool]) -> None:
    """As soon as it is true: what is waited for is over soon."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


def memory_of(node: Node) -> int:
    """Resident bytes, at most so far."""
    for line in Path(f"/proc/{node.server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


def test_overload(tmp_path: Path) -> None:
    """Without a quorum nothing is answered, so all that comes piles up: at the limit more is refused at once,
    and the memory it takes is bounded; with a quorum all is well again."""
    members = nodes(tmp_path, 3)
    with running(members):
        start_all(members)
        leader = leader_of(members)
        survivor, third = others(members, leader)
        leader.kill()
        third.kill()
        before = memory_of(survivor)

        # 400 connections with 50 puts each that do not wait for answers: one at a time is taken from each.
        small = request(b"small", b"x" * 1000)
        with contextlib.ExitStack() as open_ones:
            for _ in range(400):
                sock = socket.create_connection(("127.0.0.1", survivor.port), timeout=20)
                open_ones.enter_context(sock).sendall(small * 50)
            # 64 MiB may wait in all.
            large = request(b"large", b"x" * 1_000_000)
            with ThreadPoolExecutor(25) as pool:
                answers = list(pool.map(lambda _: exchange(survivor, large), range(100)))
            assert {status for status, _ in answers} == {429, None}
            refused = [answer for status, answer in answers if status == 429]
            assert len(refused) >= 20
            assert {(answer["error"], answer["code"]) for answer in refused} == {
                ("etcdserver: too many requests", 8)
            }
            (status, _), seconds = timed(lambda: exchange(survivor, large))
            assert status == 429
            assert seconds < ROOM
            assert survivor.get(b"small", serializable=True) is None
            assert memory_of(survivor) - before < 512 << 20
        start_all([leader, third])
        survivor.wait_until_healthy()
        survivor.put(b"after")
        assert_same_state(members)


def request(key: bytes, value: bytes) -> bytes:
    body = json.dumps({"key": b64(key), "value": b64(value)}).encode()
    return b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def exchange(node: Node, sent: bytes) -> tuple[int | None, dict]:
    """The answer; None where it is waited for, as without a quorum, and the client has gone."""
    with socket.create_connection(("127.0.0.1", node.port), timeout=2) as sock, sock.makefile("rb") as stream:
        sock.sendall(sent)
        try:
            status = int(stream.readline().split()[1])
        except TimeoutError:
            return None, {}
        length = 0
        while line := stream.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, json.loads(stream.read(length))
