"""Locks and elections: every answer, and who gets it when, is etcd's.

Requests that are answered at once are a list, as in the corpus. Those that wait are asked of both servers,
and a step is over when both have got so far: the keys of the line say who stands in it.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.common.servers import Server, running, start_etcd, start_kvorum
from tests.differential.compare import Answer, Request, ask, assert_same, normalised, post
from tests.differential.corpus import b64, compactions, delete, get, grant, hash_kvs, put, revoke

LOCK, UNLOCK = "/v3/lock/lock", "/v3/lock/unlock"
ELECTION = "/v3/election/"
SECONDS = 20.0


def lock(name: bytes, lease: object) -> Request:
    return post(LOCK, {"name": b64(name), "lease": lease})


def unlock(key: bytes) -> Request:
    return post(UNLOCK, {"key": b64(key)})


def campaign(name: bytes, lease: object, value: bytes) -> Request:
    return post(ELECTION + "campaign", {"name": b64(name), "lease": lease, "value": b64(value)})


def leader_key(name: bytes, lease: int, revision: int) -> dict[str, object]:
    key = name + b"/%x" % lease
    return {"name": b64(name), "key": b64(key), "rev": str(revision), "lease": str(lease)}


def proclaim(leader: object, value: bytes) -> Request:
    return post(ELECTION + "proclaim", {"leader": leader, "value": b64(value)})


def resign(leader: object) -> Request:
    return post(ELECTION + "resign", {"leader": leader})


def leader(name: bytes) -> Request:
    return post(ELECTION + "leader", {"name": b64(name)})


def all_of(name: bytes) -> Request:
    return get(name + b"/", name + b"0")


BODIES = (
    b"{",
    b"[]",
    b'"x"',
    b"1",
    b"nul",
    b'{"name":1}',
    b'{"name":"%%"}',
    b'{"lease":"x"}',
    b'{"lease":1.5}',
)

# The longest names first: what is asked for here must never have to wait.
AT_ONCE = {
    "locks": [
        unlock(b"never/locked"),
        grant(77),
        grant(-9),
        lock(b"n", 77),
        lock(b"n", "77"),
        lock(b"n/", 77),
        lock(b"n/4d", 77),
        lock(b"", 77),
        lock(b"", 77),
        lock(b"\xff\x00", 77),
        lock(b"k" * 600, 77),
        lock(b"negative", -9),
        all_of(b"n"),
        get(b"\0", b"\0"),
        lock(b"n", 5),
        lock(b"m", -1),
        lock(b"m", "9223372036854775807"),
        *(Request(LOCK, body) for body in BODIES),
        Request(LOCK, b'{"name":"bg==","lease":77,"unknown":{}}'),
        Request(LOCK, b'{"name":null,"lease":77}'),
        *(Request(UNLOCK, body) for body in (*BODIES, b"", b"{}", b'{"key":""}', b'{"key":1}')),
        unlock(b"n/4d"),
        unlock(b"n/4d"),
        put(b"n/free", b"not a lock's"),
        get(b"\0", b"\0"),
        unlock(b"n/free"),
        post("/v3beta/lock/unlock", {"key": b64(b"m/4d")}),
        post("/v3beta/lock/lock", {"name": b64(b"beta"), "lease": 77}),
        post("/v3/lock/trylock", {"name": b64(b"m")}),
        post("/v3/lock/", {}),
        *(Request(path, b"{}", method) for path in (LOCK, UNLOCK) for method in ("GET", "PUT", "OPTIONS")),
        revoke(77),
        revoke(-9),
        get(b"\0", b"\0"),
        lock(b"n", 77),
        *hash_kvs(0),
    ],
    "elections": [
        leader(b"e"),
        leader(b""),
        grant(77),
        grant(78),
        campaign(b"e", 77, b"v1"),
        campaign(b"e", 77, b"v1"),
        campaign(b"e", 77, b"v2"),
        campaign(b"e", 5, b"v"),
        campaign(b"", 77, b""),
        campaign(b"f", "78", b"x" * 300),
        leader(b"e"),
        leader(b""),
        leader(b"f"),
        leader(b"f/"),
        all_of(b"e"),
        *(post(ELECTION + what, body) for what in ("proclaim", "resign") for body in ({}, {"leader": None})),
        *(post(ELECTION + what, {"leader": {}}) for what in ("proclaim", "resign")),
        proclaim(leader_key(b"e", 77, 1), b"w"),
        proclaim(leader_key(b"e", 77, 2), b"w"),
        proclaim({**leader_key(b"e", 77, 2), "name": ""}, b"any name"),
        proclaim({**leader_key(b"e", 77, 2), "lease": 78}, b"another lease"),
        leader(b"e"),
        proclaim({**leader_key(b"e", 77, 2), "lease": 5}, b"no such lease"),
        proclaim(leader_key(b"e", 77, 2), b""),
        all_of(b"e"),
        resign(leader_key(b"e", 77, 1)),
        resign({**leader_key(b"e", 77, 2), "lease": 5}),
        resign(leader_key(b"e", 77, 2)),
        leader(b"e"),
        proclaim(leader_key(b"e", 77, 2), b"w"),
        *(
            Request(ELECTION + what, body)
            for what in ("campaign", "proclaim", "leader", "resign", "observe")
            for body in BODIES
            if what != "observe" or b"lease" not in body  # which it does not read, and then it streams
        ),
        *(Request(ELECTION + what, b'{"leader":[]}') for what in ("proclaim", "resign")),
        *(Request(ELECTION + what, b'{"leader":{"rev":"x"}}') for what in ("proclaim", "resign")),
        Request(ELECTION + "proclaim", b'{"leader":{},"value":1}'),
        post("/v3beta/election/leader", {"name": b64(b"f")}),
        *(
            Request(ELECTION + what, b"{}", method)
            for what in ("campaign", "proclaim", "leader", "resign", "observe")
            for method in ("GET", "PUT", "OPTIONS")
        ),
        revoke(78),
        leader(b"f"),
        get(b"\0", b"\0"),
        *hash_kvs(0),
    ],
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_answers_like_etcd(name: str, tmp_path: Path) -> None:
    """Status, content type and body of every answer are etcd's."""
    with running(start_etcd(tmp_path)) as etcd, running(start_kvorum(tmp_path)) as kvorum:
        for request in AT_ONCE[name]:
            assert_same(etcd, kvorum, request)


# ---- with a lease that the server makes ----------------------------------------------------------

_MADE_LEASE = re.compile(rb"/[0-9a-f]{12,16}$")


def without_made_leases(body: bytes) -> Any:
    """The answer with LEASE where a server has chosen one."""

    def replaced(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: replaced(one, key) for key, one in value.items()}
        if isinstance(value, list):
            return [replaced(one) for one in value]
        if name == "key":
            return _MADE_LEASE.sub(b"/LEASE", base64.b64decode(value)).decode()
        if name in ("lease", "ID") and len(value) > 12:
            return "LEASE"
        return value

    return replaced(json.loads(body))


def test_who_gives_no_lease_gets_one(tmp_path: Path) -> None:
    """It is of 60 seconds, and its id is in the key; proclaiming without one makes another."""
    # Servers of its own: the ids are each server's, and so the histories differ.
    with running(start_etcd(tmp_path)) as etcd, running(start_kvorum(tmp_path)) as kvorum:
        theirs, ours = made_without_a_lease(etcd), made_without_a_lease(kvorum)
    assert ours == theirs


def made_without_a_lease(server: Server) -> list[dict]:
    """What a server answers to those who give no lease."""
    bodies = [ask(server, lock(b"no lease", 0)).body]
    bodies.append(ask(server, Request(LOCK, b'{"name":"eA=="}')).body)
    bodies.append(ask(server, Request(ELECTION + "campaign", b'{"name":"eQ==","value":"eA=="}')).body)
    mine = json.loads(bodies[-1])["leader"]
    bodies.append(ask(server, proclaim({**mine, "lease": 0}, b"p")).body)
    bodies.append(ask(server, leader(b"y")).body)
    now_of = json.loads(bodies[-1])["kv"]["lease"]
    assert now_of != mine["lease"]
    left = json.loads(ask(server, post("/v3/lease/timetolive", {"ID": now_of})).body)
    assert (left["grantedTTL"], int(left["TTL"]) > 50) == ("60", True)
    bodies.append(ask(server, resign({**mine, "lease": 0})).body)
    return [relative(without_made_leases(body)) for body in bodies]


def relative(answer: dict) -> dict:
    """Without what differs between servers that have not lived through the same."""
    answer["header"] = sorted(answer["header"])
    for part in ("leader", "kv"):
        for name in ("rev", "create_revision", "mod_revision"):
            answer.get(part, {}).pop(name, None)
    return answer


# ---- those who wait ------------------------------------------------------------------------------


class Waiting:
    """A request whose answer may take a while."""

    def __init__(self, server: Server, request: Request) -> None:
        self.request = request
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
        self._connection.request(request.method, request.path, request.body)

    def is_answered(self) -> bool:
        return bool(select.select([self._connection.sock], [], [], 0)[0])

    def answer(self) -> Answer:
        response = self._connection.getresponse()
        found = Answer(response.status, response.getheader("Content-Type"), response.read())
        self._connection.close()
        return normalised(found, self.request.path)

    def hang_up(self) -> None:
        self._connection.close()


class Observation(threading.Thread):
    """What a stream of /v3/election/observe says, frame by frame."""

    def __init__(self, server: Server, name: bytes) -> None:
        super().__init__(daemon=True)
        self.frames: list[Any] = []
        self.head: tuple[int, str | None] | None = None
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
        self._connection.request("POST", ELECTION + "observe", json.dumps({"name": b64(name)}))
        self._socket = self._connection.sock
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):  # that is how we end it
            response = self._connection.getresponse()
            self.head = (response.status, response.getheader("Content-Type"))
            while (line := response.readline()).endswith(b"\n"):
                result = json.loads(line)["result"]
                result["header"] = result["header"]["revision"]
                self.frames.append(result)
            response.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.join()
        self._connection.close()

    def taken(self, count: int) -> list[Any]:
        deadline = time.monotonic() + SECONDS
        while len(self.frames) < count:
            assert time.monotonic() < deadline, self.frames
            time.sleep(0.01)
        return self.frames[:count]


class Both:
    """Both servers, which live through the same."""

    def __init__(self, etcd: Server, kvorum: Server) -> None:
        self._servers = (etcd, kvorum)
        self._waiting: list[tuple[Waiting, Waiting]] = []
        self._observations: list[Observation] = []

    def same(self, *requests: Request) -> None:
        for request in requests:
            assert_same(*self._servers, request)

    def begin(self, request: Request, name: bytes, stand: int) -> tuple[Waiting, Waiting]:
        """Ask, and wait until so many stand in the line."""
        theirs, ours = (Waiting(server, request) for server in self._servers)
        self._waiting.append((theirs, ours))
        self.until(name, stand)
        return theirs, ours

    def observe(self, name: bytes) -> tuple[Observation, Observation]:
        theirs, ours = (Observation(server, name) for server in self._servers)
        self._observations += [theirs, ours]
        return theirs, ours

    def until(self, name: bytes, stand: int) -> None:
        for server in self._servers:
            deadline = time.monotonic() + SECONDS
            while int(json.loads(ask(server, all_of(name)).body).get("count", 0)) != stand:
                assert time.monotonic() < deadline, f"not {stand} in the line of {name!r}"
                time.sleep(0.01)

    def until_etcd_watches(self, watchers: int) -> None:
        """Those who wait in etcd begin to watch a moment after they stand in the line, and from the past:
        until they have caught up with it, a compaction ends them."""
        deadline = time.monotonic() + SECONDS
        told = (b"watcher_total %d\n" % watchers, b"slow_watcher_total 0\n")
        while True:
            said = ask(self._servers[0], Request("/metrics", b"", "GET")).body
            if all(b"\netcd_debugging_mvcc_" + one in said for one in told):
                return
            assert time.monotonic() < deadline, f"there are not {watchers} watchers"
            time.sleep(0.01)

    def both_wait(self, *pairs: tuple[Waiting, Waiting]) -> None:
        time.sleep(0.2)  # nothing shows that something does not happen
        for theirs, ours in pairs:
            assert (theirs.is_answered(), ours.is_answered()) == (False, False)

    def answered(self, pair: tuple[Waiting, Waiting]) -> None:
        theirs, ours = pair[0].answer(), pair[1].answer()
        assert ours == theirs, pair[0].request

    def close(self) -> None:
        for pair in self._waiting:
            for one in pair:
                one.hang_up()
        for observation in self._observations:
            observation.close()


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    with running(start_etcd(tmp_path)) as etcd, running(start_kvorum(tmp_path)) as kvorum:
        pair = Both(etcd, kvorum)
        pair.same(grant(1), grant(2), grant(3), grant(4))
        with contextlib.closing(pair):
            yield pair


def test_a_lock_goes_through_the_line(both: Both) -> None:
    """In order of arrival; answers carry the revision of the moment."""
    both.same(lock(b"l", 3))
    second = both.begin(lock(b"l", 1), b"l", 2)
    third = both.begin(lock(b"l", 4), b"l", 3)
    fourth = both.begin(lock(b"l", 2), b"l", 4)
    both.same(all_of(b"l"), put(b"else"))
    both.both_wait(second, third, fourth)
    both.same(unlock(b"l/3"))
    both.answered(second)
    both.both_wait(third, fourth)
    both.same(lock(b"l", 1), revoke(1))
    both.answered(third)
    both.both_wait(fourth)
    both.same(unlock(b"l/4"))
    both.answered(fourth)
    both.same(unlock(b"l/2"), all_of(b"l"), *hash_kvs(0))


def test_who_hangs_up_leaves_the_line(both: Both) -> None:
    """From the middle and from the end; the others keep their order."""
    both.same(lock(b"l", 1))
    second = both.begin(lock(b"l", 2), b"l", 2)
    third = both.begin(lock(b"l", 3), b"l", 3)
    fourth = both.begin(lock(b"l", 4), b"l", 4)
    for one in second:
        one.hang_up()
    both.until(b"l", 3)
    for one in fourth:
        one.hang_up()
    both.until(b"l", 2)
    both.same(all_of(b"l"))
    both.both_wait(third)
    both.same(unlock(b"l/1"))
    both.answered(third)
    both.same(all_of(b"l"))


def test_who_lost_his_lease_has_no_lock(both: Both) -> None:
    """The next in the line gets past him. (etcd tells him only when it would be his turn.)"""
    both.same(lock(b"l", 1))
    second = both.begin(lock(b"l", 2), b"l", 2)
    third = both.begin(lock(b"l", 3), b"l", 3)
    both.same(revoke(2))
    both.both_wait(third)
    both.same(unlock(b"l/1"))
    both.answered(second)
    both.answered(third)


def test_who_was_put_out_of_the_line_has_no_lock(both: Both) -> None:
    """Anybody may unlock any key."""
    both.same(lock(b"l", 1))
    second = both.begin(lock(b"l", 2), b"l", 2)
    both.same(unlock(b"l/2"), unlock(b"l/1"))
    both.answered(second)


def test_other_keys_of_the_name_stand_in_the_line(both: Both) -> None:
    """Whatever has the prefix counts."""
    both.same(put(b"l/somebody", b"x"))
    second = both.begin(lock(b"l", 2), b"l", 2)
    both.same(put(b"l/somebody", b"y"))
    both.both_wait(second)
    both.same(delete(b"l/somebody"))
    both.answered(second)


def test_a_compaction_does_not_disturb_the_line(both: Both) -> None:
    """Of what those who wait have not seen, nothing is missing."""
    both.same(lock(b"l", 1))
    second = both.begin(lock(b"l", 2), b"l", 2)
    both.until_etcd_watches(1)
    both.same(*(put(b"else", b"%d" % n) for n in range(5)), *compactions(8))
    both.both_wait(second)
    both.same(unlock(b"l/1"))
    both.answered(second)


def test_an_election_goes_through_the_line(both: Both) -> None:
    """A campaign's answer is of the revision at which it entered. Who waits may proclaim and resign too."""
    both.same(campaign(b"e", 2, b"two"))
    second = both.begin(campaign(b"e", 1, b"one"), b"e", 2)
    third = both.begin(campaign(b"e", 3, b"three"), b"e", 3)
    both.same(leader(b"e"), proclaim(leader_key(b"e", 1, 3), b"uno"), all_of(b"e"))
    both.both_wait(second, third)
    both.same(resign(leader_key(b"e", 2, 2)))
    both.answered(second)
    both.both_wait(third)
    both.same(leader(b"e"), revoke(1))
    both.answered(third)
    both.same(leader(b"e"), all_of(b"e"), *hash_kvs(0))


def test_a_candidate_who_hangs_up_leaves_the_line(both: Both) -> None:
    """With another value for a place that he has, too."""
    both.same(campaign(b"e", 1, b"one"))
    second = both.begin(campaign(b"e", 2, b"two"), b"e", 2)
    for one in second:
        one.hang_up()
    both.until(b"e", 1)
    again = both.begin(campaign(b"e", 3, b"three"), b"e", 2)
    both.same(all_of(b"e"))
    for one in again:
        one.hang_up()
    both.until(b"e", 1)
    both.same(resign(leader_key(b"e", 1, 2)), leader(b"e"), all_of(b"e"))


def test_observers_see_what_etcds_see(both: Both) -> None:
    """Every leader and each of its values, with the same revisions; nothing of those who wait."""
    theirs, ours = both.observe(b"e")

    def seen(count: int) -> None:
        assert ours.taken(count) == theirs.taken(count)

    both.both_wait()
    assert (theirs.head, ours.head) == (None, None)
    both.same(put(b"else"), campaign(b"e", 2, b"two"))
    seen(1)
    assert ours.head == theirs.head
    second = both.begin(campaign(b"e", 1, b"one"), b"e", 2)
    both.same(proclaim(leader_key(b"e", 1, 4), b"not leading"), put(b"else"))
    both.same(proclaim(leader_key(b"e", 2, 3), b"dos"))
    seen(2)
    both.same(resign(leader_key(b"e", 2, 3)))
    both.answered(second)
    seen(3)
    both.same(proclaim(leader_key(b"e", 1, 4), b"uno"))
    seen(4)
    both.same(revoke(1))
    both.same(put(b"else"))
    both.same(campaign(b"e", 3, b"three"))
    seen(5)
    their_late, our_late = both.observe(b"e")
    assert our_late.taken(1) == their_late.taken(1)
    both.both_wait()
    assert len(ours.frames) == len(theirs.frames) == 5
