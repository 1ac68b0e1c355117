"""Who goes in with whom, and who waits for whom: without a server."""

from __future__ import annotations

import json

import pytest

from kvorum.messages import b64
from kvorum.plans import Reply
from kvorum.recipes.party import Party, is_awaited, next_round
from kvorum.types import KeyValue
from tests.kvorum.fake_effects import Stage, answer


def parties(text: str) -> list[KeyValue]:
    """``5 7:in7 9:out7``: when each came, and how far it is."""
    return [
        KeyValue(b"", word.replace("in", "in ").replace("out", "out ").encode(), int(came), 0, 1, 0)
        for came, _, word in (one.partition(":") for one in text.split())
    ]


def shown(found: object) -> str:
    return " ".join(str(one.create_revision) for one in found)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("all_of_them", "together"),
    [
        ("5", ""),
        ("5 6", ""),
        ("5 6 7", "5 6 7"),
        ("5 6 7 8", "5 6 7"),  # one too many: it is of the next three
        ("5:in7 6:out7 7:in7 8 9", ""),
        ("5:in7 6:out7 7:in7 8 9 10", "8 9 10"),
    ],
)
def test_three_go_in_together(all_of_them: str, together: str) -> None:
    """In the order of their coming, and not with those who are in."""
    assert shown(next_round(parties(all_of_them), 3)) == together


@pytest.mark.parametrize(
    ("others", "awaited"),
    [
        ("5:out7 6:out7 7:out7", ""),
        ("5:out7 6:in7 7:out7", "6"),
        ("5:out7 8 9:in10", ""),  # the next ones
        ("3:in4 5:out7", ""),  # those before
    ],
)
def test_who_leaves_waits_for_his_round(others: str, awaited: str) -> None:
    """Those who went in with him; of those who are gone nothing is seen."""
    [own] = parties("5:out7")
    assert shown(one for one in parties(others) if is_awaited(one, own)) == awaited


def found(*kvs: tuple[bytes, int, bytes]) -> Reply:
    shown = [
        {
            "key": b64(key),
            "create_revision": str(came),
            "mod_revision": str(came),
            "lease": "9",
            "value": b64(value),
        }
        for key, came, value in kvs
    ]
    return answer(header={"revision": "20"}, kvs=shown)


def test_one_lets_all_in() -> None:
    """If each is still as it was seen; if not, it looks again, and may have been let in by another."""
    stage = Stage(answer(ID="123", TTL="9"), answer(header={"revision": "7"}, succeeded=True))
    party = Party(stage.core, b"b", 9, 2)
    party._lease.id = 0x7B
    stage.run(party.enter(b""))
    stage.outcomes = [found((b"b/1", 5, b""), (b"b/7b", 7, b"")), answer()]
    stage.outcomes += [found((b"b/1", 5, b"out 7"), (b"b/7b", 7, b"in 7"))]
    assert stage.run(party.go_in())
    sent = json.loads(stage.exchanges("/v3/kv/txn")[-1].body)
    assert [(one["key"], one["mod_revision"]) for one in sent["compare"]] == [
        (b64(b"b/1"), "5"),
        (b64(b"b/7b"), "7"),
    ]
    assert [one["request_put"]["value"] for one in sent["success"]] == [b64(b"in 7")] * 2
    assert [one["request_put"]["lease"] for one in sent["success"]] == ["9", "9"]
