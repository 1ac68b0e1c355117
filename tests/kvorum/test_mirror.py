"""What follows a prefix, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from kvorum.errors import KvorumError, PermissionDenied
from kvorum.messages import b64
from kvorum.mirror import Change, Following, Mirror, follow
from kvorum.types import Event, KeyValue
from tests.kvorum.fake_effects import Stage, answer, frame, refusal

PREFIX = b"a/"


def kv(key: bytes, revision: int, value: bytes = b"") -> KeyValue:
    return KeyValue(key, value, revision, revision, 1, 0)


def message(key: bytes, revision: int, value: bytes = b"") -> dict[str, Any]:
    numbers = {"create_revision": str(revision), "mod_revision": str(revision), "version": "1"}
    return {"key": b64(key), "value": b64(value), **numbers}


def found(revision: int, *kvs: dict[str, Any], more: bool = False, count: int = 0) -> Any:
    return answer(header={"revision": str(revision)}, kvs=kvs, more=more, count=str(count or len(kvs)))


def told(revision: int, *events: dict[str, Any]) -> bytes:
    return frame(header={"revision": str(revision)}, events=events)


def put(key: bytes, revision: int) -> dict[str, Any]:
    return {"type": "PUT", "kv": message(key, revision)}


def delete(key: bytes, revision: int) -> dict[str, Any]:
    return {"type": "DELETE", "kv": {"key": b64(key), "mod_revision": str(revision)}}


CREATED = frame(header={"revision": "1"}, created=True)
GONE = frame(header={"revision": "30"}, canceled=True, compact_revision="20")


def shown(change: Change) -> list[tuple[str, bytes, int]]:
    return [(event.type, event.key, event.revision) for event in change.events]


class TestMirror:
    def test_it_applies_what_it_is_told(self) -> None:
        """In order; each event comes back with what was there before."""
        mirror = Mirror()
        mirror.load([kv(b"a/2", 5), kv(b"a/1", 4)], 5)
        assert [one.key for one in mirror.items()] == [b"a/1", b"a/2"]
        change = mirror.apply(6, [Event("PUT", kv(b"a/0", 6)), Event("DELETE", kv(b"a/1", 6))])
        assert change == Change(
            6, (Event("PUT", kv(b"a/0", 6)), Event("DELETE", kv(b"a/1", 6), kv(b"a/1", 4)))
        )
        assert [one.key for one in mirror.items()] == [b"a/0", b"a/2"]
        assert mirror.revision == 6

    def test_it_does_not_go_back(self) -> None:
        """What it knows already changes nothing."""
        mirror = Mirror()
        mirror.load([kv(b"a/1", 4)], 5)
        assert mirror.apply(5, [Event("DELETE", kv(b"a/1", 5))]) is None
        assert b"a/1" in mirror

    def test_loaded_again_it_tells_the_difference(self) -> None:
        """Deletions, then puts in their order; nothing of what is as it was."""
        mirror = Mirror()
        mirror.load([kv(b"a/same", 1), kv(b"a/changed", 2), kv(b"a/gone", 3)], 3)
        change = mirror.load([kv(b"a/same", 1), kv(b"a/new", 8), kv(b"a/changed", 7)], 9)
        assert shown(change) == [("DELETE", b"a/gone", 9), ("PUT", b"a/changed", 7), ("PUT", b"a/new", 8)]
        assert [event.prev_kv for event in change.events] == [kv(b"a/gone", 3), kv(b"a/changed", 2), None]

    def test_it_is_confirmed_as_of_what_it_was_asked(self) -> None:
        """Not when it has heard more meanwhile."""
        mirror = Mirror()
        mirror.load([], 5)
        assert mirror.confirm(5, 8)
        assert mirror.revision == 8
        assert mirror.apply(7, [Event("PUT", kv(b"a/between", 7))]) is None
        mirror.apply(9, [Event("PUT", kv(b"a/1", 9))])
        assert not mirror.confirm(8, 12)
        assert mirror.revision == 9


class TestFollowing:
    def test_it_is_loaded_in_pages_of_one_revision(self) -> None:
        """The first one's."""
        pages = [found(7, message(b"a/1", 3), more=True), found(9, message(b"a/2", 4))]
        stage = Stage(*pages)
        following = Following(stage.core, PREFIX, page=1)
        assert shown(stage.run(following.load())) == [("PUT", b"a/1", 3), ("PUT", b"a/2", 4)]
        assert following.mirror.revision == 7
        assert [b'"revision":"7"' in one.body for one in stage.exchanges()] == [False, True]

    def test_what_is_compacted_while_it_is_read_is_read_again(self) -> None:
        """From the start, so that it is of one revision."""
        compacted = refusal("etcdserver: mvcc: required revision has been compacted", 11, 400)
        again = [found(20, message(b"a/2", 15), more=True), found(21, message(b"a/3", 4))]
        stage = Stage(found(7, message(b"a/1", 3), more=True), compacted, *again)
        following = Following(stage.core, PREFIX, page=1)
        stage.run(following.load())
        assert [one.key for one in following.mirror.items()] == [b"a/2", b"a/3"]
        assert following.mirror.revision == 20

    def test_it_goes_on_where_it_was_loaded(self) -> None:
        """And tells each revision on its own."""
        stage = Stage(found(7), "stream", CREATED, told(9, put(b"a/1", 8), put(b"a/2", 8), delete(b"a/1", 9)))
        following = Following(stage.core, PREFIX)
        stage.run(following.load())
        changes = stage.run(following.next_changes())
        assert [shown(change) for change in changes] == [
            [("PUT", b"a/1", 8), ("PUT", b"a/2", 8)],
            [("DELETE", b"a/1", 9)],
        ]
        assert [one["start_revision"] for one in stage.opened()] == ["8"]

    def test_what_is_compacted_while_it_follows_is_loaded_again(self) -> None:
        """The difference is one change, and it goes on behind it."""
        stage = Stage(
            found(7, message(b"a/1", 3), message(b"a/2", 4)),
            *("stream", GONE, found(30, message(b"a/2", 4), message(b"a/3", 29))),
            *("stream", CREATED, told(31, put(b"a/4", 31))),
        )
        following = Following(stage.core, PREFIX)
        stage.run(following.load())
        [change] = stage.run(following.next_changes())
        assert (change.revision, shown(change)) == (30, [("DELETE", b"a/1", 30), ("PUT", b"a/3", 29)])
        [change] = stage.run(following.next_changes())
        assert shown(change) == [("PUT", b"a/4", 31)]
        assert [one["start_revision"] for one in stage.opened()] == ["8", "31"]

    def test_where_loading_again_fails_it_is_tried_again(self) -> None:
        """The history is gone for good, so the next time begins with the same."""
        stage = Stage(found(7), "stream", GONE, refusal("etcdserver: permission denied", 7, 403))
        following = Following(stage.core, PREFIX)
        stage.run(following.load())
        with pytest.raises(PermissionDenied):
            stage.run(following.next_changes())
        stage.outcomes = ["stream", GONE, found(30, message(b"a/1", 25))]
        [change] = stage.run(following.next_changes())
        assert shown(change) == [("PUT", b"a/1", 25)]

    @pytest.mark.parametrize(
        ("reply", "caught_up"),
        [
            (found(12, count=1), True),
            (found(12, message(b"a/1", 9), count=1), False),  # a newer key
            (found(12, count=2), False),  # another one
            (found(12, count=0), False),  # it is gone
        ],
        ids=["as it was", "changed", "more", "less"],
    )
    def test_it_is_confirmed_by_a_look(self, reply: Any, caught_up: bool) -> None:
        """If no key is newer, and as many are there as here."""
        stage = Stage(found(7, message(b"a/1", 3)), reply)
        following = Following(stage.core, PREFIX)
        stage.run(following.load())
        assert stage.run(following.catch_up()) == (7, 12 if caught_up else 0)
        assert following.mirror.revision == (12 if caught_up else 7)


def test_who_follows_for_ever_is_told_of_trouble() -> None:
    """Each time, with pauses that grow; and when it is over."""

    class Enough(Exception):
        pass

    refused = frame(header={}, canceled=True, cancel_reason="etcdserver: permission denied")
    stage = Stage(
        found(7), *("stream", refused) * 3, *("stream", CREATED, told(8, put(b"a/1", 8))), endpoints="a"
    )
    following = Following(stage.core, PREFIX)
    stage.run(following.load())
    troubles: list[KvorumError | None] = []

    def changed(change: Change) -> None:
        assert shown(change) == [("PUT", b"a/1", 8)]
        raise Enough

    with pytest.raises(Enough):
        stage.run(follow(stage.core, following, changed, troubles.append))
    assert [type(one) for one in troubles] == [PermissionDenied] * 3 + [type(None)]
    pauses = stage.slept()
    assert len(pauses) == 3
    assert 0.1 <= pauses[0] <= 0.2 <= pauses[1] <= 0.4 <= pauses[2] <= 0.8
