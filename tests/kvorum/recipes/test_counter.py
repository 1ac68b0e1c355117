"""Counting, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvorum.errors import ConnectionFailed, KvorumError
from kvorum.messages import b64
from kvorum.recipes import counter
from tests.kvorum.fake_effects import BROKEN, REFUSED, Stage, answer, refusal


def kvs(value: bytes, revision: int) -> dict[str, Any]:
    return {"kvs": [{"key": b64(b"n"), "value": b64(value), "mod_revision": str(revision)}]}


def changed_first(value: bytes, revision: int) -> Any:
    return answer(responses=[{"response_range": kvs(value, revision)}])


DONE = answer(succeeded=True)


def test_it_replaces_what_it_has_read() -> None:
    """And nothing else."""
    stage = Stage(answer(**kvs(b"5", 9)), DONE)
    assert stage.run(counter.add(stage.core, "n", 2)) == 7
    sent = json.loads(stage.exchanges("/v3/kv/txn")[0].body)
    assert sent["compare"] == [{"key": b64(b"n"), "target": "MOD", "mod_revision": "9"}]
    assert sent["success"] == [{"request_put": {"key": b64(b"n"), "value": b64(b"7")}}]


@pytest.mark.parametrize(("value", "number"), [(b"5", 5), (b"-5", -5), (b" 5\n", 5)])
def test_it_is_what_people_write(value: bytes, number: int) -> None:
    stage = Stage(answer(**kvs(value, 9)))
    assert stage.run(counter.read(stage.core, "n")) == number


@pytest.mark.parametrize("value", [b"", b"x", b"5.0", b"1_000", b"5 6", b"9" * 5000])
def test_what_is_no_number_is_not_taken_for_one(value: bytes) -> None:
    stage = Stage(answer(**kvs(value, 9)))
    with pytest.raises(KvorumError, match=r"the counter b'n' is b'.*': expected a whole number"):
        stage.run(counter.read(stage.core, "n"))


def test_who_is_too_late_begins_with_what_is_there_then() -> None:
    """After a while that grows; nothing is read beside."""
    losses = [changed_first(b"%d" % number, number) for number in range(10, 16)]
    stage = Stage(answer(), *losses, DONE)
    assert stage.run(counter.add(stage.core, "n", 1)) == 16
    pauses = stage.slept()
    assert len(pauses) == 6
    assert pauses[0] < 0.006
    assert 0.08 <= pauses[-1] <= 0.16
    assert len(stage.exchanges("/v3/kv/range")) == 1


def test_who_is_too_late_again_and_again_gives_up() -> None:
    """Within the time of a call; nothing was added."""
    stage = Stage(answer(), *[changed_first(b"1", 1)] * 1000)
    begun = stage.now
    with pytest.raises(
        KvorumError, match=r"^1 was not added to b'n': others changed it first \d+ times"
    ) as caught:
        stage.run(counter.add(stage.core, "n", 1))
    assert not caught.value.maybe_done
    assert 4.5 < stage.now - begun <= 5
    assert len(stage.effects) < 100


def test_what_may_have_been_added_is_not_added_again() -> None:
    """The error says so."""
    stage = Stage(answer(**kvs(b"5", 9)), BROKEN)
    with pytest.raises(ConnectionFailed) as caught:
        stage.run(counter.add(stage.core, "n", 2))
    assert caught.value.maybe_done
    assert len(stage.exchanges("/v3/kv/txn")) == 1


def test_what_was_not_added_for_certain_is_tried_elsewhere() -> None:
    """It was not even sent, or refused."""
    stage = Stage(answer(**kvs(b"5", 9)), REFUSED, refusal("etcdserver: no leader", 14), DONE)
    assert stage.run(counter.add(stage.core, "n", 2)) == 7
    assert stage.asked("/v3/kv/txn") == ["a", "b", "c"]
