"""Watch streams say what etcd's say: control frames and events, in the same order."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable

import pytest

from tests.common.servers import Server
from tests.differential import corpus
from tests.differential.compare import Request, ask
from tests.differential.corpus import b64


def create(key: bytes, **more: object) -> dict:
    return {"create_request": {"key": b64(key), **more}}


class Stream:
    """A watch stream that reads frames; cluster ids and terms are taken out."""

    def __init__(self, server: Server, *requests: dict) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        body = "\n".join(json.dumps(request) for request in requests)
        self._connection.request("POST", "/v3/watch", body)
        self._response: http.client.HTTPResponse | None = None

    def frame(self) -> dict:
        if self._response is None:
            self._response = self._connection.getresponse()
            assert self._response.status == 200
        line = json.loads(self._response.readline())["result"]
        for name in ("cluster_id", "member_id", "raft_term"):
            del line["header"][name]
        return line

    def frames(self, count: int) -> list[dict]:
        return [self.frame() for _ in range(count)]

    def is_silent(self) -> bool:
        """Whether nothing comes for a moment."""
        sock = self._connection.sock or self._response.fp.raw._sock
        sock.settimeout(0.3)
        try:
            self.frame()
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self._connection.close()


CLEAR = corpus.delete(b"\0", b"\0")
WRITES = [
    corpus.put(b"a", b"1"),
    corpus.put(b"b", b"1"),
    corpus.put(b"a", b"2"),
    corpus.delete(b"a"),
    corpus.txn([], [corpus.op_put(b"a", b"3"), corpus.op_put(b"ab", b"1"), corpus.op_delete(b"b")]),
    corpus.put(b"a", b"4"),
]
"""Six revisions, of which scenarios speak as 2 to 7, as in an empty store."""

Scenario = Callable[[Server, int], list]
"""Played on a server, told how far its revisions are ahead of an empty store's."""


def shifted(requests: tuple[dict, ...], ahead: int) -> list[dict]:
    """The requests with start_revision in this server's revisions."""
    result = []
    for request in requests:
        create = request.get("create_request", {})
        if "start_revision" in create:
            request = {"create_request": {**create, "start_revision": create["start_revision"] + ahead}}
        result.append(request)
    return result


def write(server: Server) -> None:
    for request in WRITES:
        assert ask(server, request).status == 200


def past(*requests: dict, frames: int) -> Scenario:
    """The writes come first, then the watches."""

    def play(server: Server, ahead: int) -> list:
        write(server)
        stream = Stream(server, *shifted(requests, ahead))
        seen: list = stream.frames(frames)
        seen.append(stream.is_silent())
        stream.close()
        return seen

    return play


def live(*requests: dict, created: int, frames: int) -> Scenario:
    """The watches come first, then the writes."""

    def play(server: Server, ahead: int) -> list:
        stream = Stream(server, *shifted(requests, ahead))
        seen: list = stream.frames(created)
        write(server)
        seen += stream.frames(frames)
        seen.append(stream.is_silent())
        stream.close()
        return seen

    return play


def compacted(server: Server, ahead: int) -> list:
    write(server)
    assert ask(server, corpus.compactions(5 + ahead)[0]).status == 200
    seen = []
    for start in (1, 4, 6):
        stream = Stream(server, create(b"a", start_revision=start + ahead))
        seen.append(stream.frames(2))
        stream.close()
    return seen


LEASED = [
    corpus.put(b"a", b"1", lease=5),
    corpus.put(b"c", b"1", lease=5),
    corpus.put(b"b", b"1", lease=5),
    corpus.put(b"d", b"1", lease=6),
    corpus.put(b"a", b"2", lease=6),
]


def leased(ttl: int, *last: Request) -> Scenario:
    """Keys come with leases, of which the first ends."""

    def play(server: Server, ahead: int) -> list:
        for lease in (5, 6):
            ask(server, corpus.revoke(lease))
        stream = Stream(server, create(b"\0", prev_kv=True, **ALL))
        seen: list = stream.frames(1)
        for request in (corpus.grant(5, ttl), corpus.grant(6), *LEASED, *last):
            assert ask(server, request).status == 200
        # Five puts, and the two keys that the lease still has, in one frame.
        seen += stream.frames(6)
        seen.append(json.loads(ask(server, corpus.keep_alive(5)).body)["result"].get("TTL"))
        seen.append(stream.is_silent())
        stream.close()
        return seen

    return play


ALL = {"range_end": b64(b"\0")}
SCENARIOS: dict[str, Scenario] = {
    "one key from the past": past(create(b"a", start_revision=2), frames=2),
    "a range from the past": past(create(b"a", range_end=b64(b"b"), start_revision=3), frames=2),
    "everything from the past": past(create(b"\0", start_revision=1, **ALL), frames=2),
    "previous values from the past": past(create(b"\0", start_revision=1, prev_kv=True, **ALL), frames=2),
    "no puts": past(create(b"\0", start_revision=1, filters=["NOPUT"], **ALL), frames=2),
    "no deletes": past(create(b"\0", start_revision=1, filters=["NODELETE"], **ALL), frames=2),
    "neither puts nor deletes": past(create(b"\0", start_revision=1, filters=[0, 1], **ALL), frames=1),
    "a key nobody wrote": past(create(b"zz", start_revision=1), frames=1),
    "from now on": past(create(b"a"), frames=1),
    "two watches of one stream": past(
        create(b"a", start_revision=2), create(b"b", start_revision=2), frames=4
    ),
    "an id of the client's": past(create(b"a", watch_id=42, start_revision=7), frames=2),
    "the same id twice": past(create(b"a", watch_id=42), create(b"b", watch_id=42), frames=2),
    "ids after a chosen one": past(
        create(b"a", watch_id=1), create(b"b"), create(b"c"), create(b"d"), frames=4
    ),
    "cancel": past(
        create(b"a"), {"cancel_request": {"watch_id": 0}}, {"cancel_request": {"watch_id": 7}}, frames=2
    ),
    "an empty range": past(create(b"b", range_end=b64(b"a")), frames=1),
    "no key": past({"create_request": {}}, frames=1),
    "no key, open end": past({"create_request": {"range_end": "AA==", "start_revision": 2}}, frames=2),
    "nothing asked": past({}, {"unknown": 1}, create(b"a"), frames=1),
    "progress": past(create(b"a"), {"progress_request": {}}, frames=2),
    "one key live": live(create(b"a"), created=1, frames=5),
    "everything live": live(create(b"\0", **ALL), created=1, frames=6),
    "previous values live": live(create(b"\0", prev_kv=True, **ALL), created=1, frames=6),
    "deletes only, live": live(create(b"\0", filters=["NOPUT"], **ALL), created=1, frames=2),
    "from a revision to come": live(create(b"\0", start_revision=6, **ALL), created=1, frames=2),
    "from the next revision": live(create(b"a", start_revision=2), created=1, frames=5),
    "compacted": compacted,
    "a lease is revoked": leased(500, corpus.revoke(5)),
    "a lease runs out": leased(2),
}


def merged(seen: list) -> list:
    """Frames of one watcher's events that follow each other may be one frame or many; and the
    header tells the store's revision when they were sent, which is a matter of time."""
    result: list = []
    for item in seen:
        if isinstance(item, dict) and "events" in item:
            item = {**item, "header": None}
            if result and isinstance(result[-1], dict) and "events" in result[-1]:
                before = result[-1]
                if before.get("watch_id") == item.get("watch_id"):
                    result[-1] = {**before, "events": before["events"] + item["events"]}
                    continue
        result.append([merged(item)] if isinstance(item, list) else item)
    return result


@pytest.mark.parametrize("name", SCENARIOS)
def test_streams_like_etcd(name: str, etcd: Server, kvorum: Server) -> None:
    """The same watches and writes bring the same frames."""
    seen = {}
    for server in (etcd, kvorum):
        header = json.loads(ask(server, CLEAR).body)["header"]
        seen[server] = SCENARIOS[name](server, int(header["revision"]) - 1)
    assert merged(seen[kvorum]) == merged(seen[etcd])


def test_a_deletion_at_the_compact_revision_is_seen(kvorum_server: Server) -> None:
    """A watch from the compact revision on sees a deletion made there: etcd 3.5.1 loses it (18089)."""
    for request in (corpus.put(b"deleted"), corpus.delete(b"deleted")):
        revision = int(json.loads(ask(kvorum_server, request).body)["header"]["revision"])
    assert ask(kvorum_server, corpus.compactions(revision, physical=True)[0]).status == 200
    stream = Stream(kvorum_server, create(b"deleted", start_revision=revision))
    created, frame = stream.frames(2)
    stream.close()
    assert created["created"]
    assert [event["type"] for event in frame["events"]] == ["DELETE"]


def test_a_negative_start_is_refused(kvorum_server: Server) -> None:
    """Where etcd 3.5 falls silent, a newer one says why (API.md 4.5)."""
    stream = Stream(kvorum_server, create(b"a", start_revision=-1))
    frame = stream.frame()
    stream.close()
    assert frame["watch_id"] == "-1"
    assert frame["created"] is True
    assert frame["canceled"] is True
    assert frame["cancel_reason"] == "etcdserver: mvcc: required revision has been compacted"
