"""A barrier, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvorum.errors import ConnectionFailed
from kvorum.messages import b64
from kvorum.plans import Exchange
from kvorum.recipes import barrier
from tests.kvorum.fake_effects import BROKEN, REFUSED, ReadTimesOut, Stage, answer, frame

THERE = answer(header={"revision": "9"}, kvs=[{"key": b64(b"b")}])
OPEN = answer(header={"revision": "10"})


def found_own(exchange: Exchange) -> Any:
    value = json.loads(exchange.body)["success"][0]["request_put"]["value"]
    return answer(responses=[{"response_range": {"kvs": [{"key": b64(b"b"), "value": value}]}}])


def test_what_an_earlier_try_has_put_is_ours() -> None:
    """And nothing else is."""
    stage = Stage(BROKEN, found_own)
    assert stage.run(barrier.hold(stage.core, b"b"))
    others = {"kvs": [{"key": b64(b"b"), "value": b64(b"other")}]}
    stage = Stage(answer(responses=[{"response_range": others}]))
    assert not stage.run(barrier.hold(stage.core, b"b"))


def test_it_is_waited_for_behind_what_was_seen() -> None:
    """And looked at again: it may be held anew."""
    deleted = frame(header={}, events=[{"type": "DELETE", "kv": {"key": b64(b"b")}}])
    stage = Stage(THERE, "stream", deleted, THERE, "stream", BROKEN, OPEN)
    assert stage.run(barrier.wait(stage.core, b"b"))
    assert [create["start_revision"] for create in stage.opened()] == ["10", "10"]


def test_it_is_waited_for_no_longer_than_until_the_deadline() -> None:
    """By the clock."""
    stage = Stage(THERE, "stream", ReadTimesOut(), THERE)
    begun = stage.now
    assert not stage.run(barrier.wait(stage.core, b"b", begun + 3))
    assert stage.now == begun + 3


def test_who_cannot_ask_at_all_is_told() -> None:
    """But who waits already goes on waiting, over a loss of all members, until his deadline."""
    stage = Stage(*[REFUSED] * 1000)
    with pytest.raises(ConnectionFailed):
        stage.run(barrier.wait(stage.core, b"b"))
    stage = Stage(THERE, "stream", *[BROKEN] * 1000)
    begun = stage.now
    assert not stage.run(barrier.wait(stage.core, b"b", begun + 30))
    assert begun + 30 <= stage.now <= begun + 36
