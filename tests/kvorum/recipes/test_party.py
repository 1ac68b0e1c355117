"""Who goes in with whom, and who waits for whom: without a server."""

from __future__ import annotations

import pytest

from kvorum.recipes.party import Seen, is_awaited, round_of, seen
from kvorum.types import KeyValue


def parties(text: str) -> list[Seen]:
    """``5 7:in7 9:out7``: when each came, and how far it is."""
    return [
        seen(KeyValue(b"", word.replace("in", "in ").replace("out", "out ").encode(), int(came), 0, 1, 0))
        for came, _, word in (one.partition(":") for one in text.split())
    ]


def test_how_far_a_party_is_stands_in_its_value() -> None:
    assert parties("5 6:in7 7:out7") == [Seen(5, False, 0), Seen(6, False, 7), Seen(7, True, 7)]


@pytest.mark.parametrize(
    ("came", "others", "end"),
    [
        (5, "5", 0),  # alone
        (5, "5 6", 0),
        (5, "5 6 7", 7),  # three are enough
        (7, "5 6 7", 7),
        (8, "5 6 7 8", 0),  # one too many: it is of the next three
        (5, "5 6 7 8", 7),
        (7, "5:in7 7", 7),  # 6 is no more, but 5 has seen it
        (7, "5:out7 7 8 9", 7),
        (9, "5:out7 7 8 9", 0),  # the next three are not complete
        (10, "5:out7 7 8 9 10", 10),
        (7, "5:in7 6:in7 7 8:in10 9:in10 10:in10", 7),  # however late it looks
        (12, "11 12 13", 13),  # all others are gone
    ],
)
def test_three_go_in_together(came: int, others: str, end: int) -> None:
    """In the order of their coming; the first to see it tells the others."""
    assert round_of(came, parties(others), 3) == end


@pytest.mark.parametrize(
    ("others", "awaited"),
    [
        ("5:out7 6:out7 7:out7", ""),
        ("5:out7 6:in7 7:out7", "6"),
        ("5:out7 6:out7 7", "7"),  # it has not looked yet
        ("5:out7 8 9:in10", ""),  # the next ones
        ("3:in4 5:out7", ""),  # those before
    ],
)
def test_who_leaves_waits_for_his_round(others: str, awaited: str) -> None:
    """Those who went in with him, or are about to; of those who are gone nothing is seen."""
    assert " ".join(str(one.came) for one in parties(others) if is_awaited(one, 7)) == awaited
