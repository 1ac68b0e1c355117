"""Whose turn it is, from one call of the command to the next."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from kvorum.cli.services import turns
from kvorum.services.records import Instance

AMONG = [Instance("web", id_, f"{id_}:80", weight=weight) for id_, weight in (("a", 2), ("b", 1), ("c", 1))]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_turns_go_on_from_call_to_call() -> None:
    """By weight in each round, whoever was the first."""
    taken = "".join(turns.pick("web", (), {}, "", AMONG).id for _ in range(8))
    assert Counter(taken[:4]) == Counter(taken[4:]) == Counter("aabc")


def test_turns_are_even_where_one_round_is_over_and_the_next_begins() -> None:
    equal = [Instance("web", id_, f"{id_}:80") for id_ in "abc"]
    for number in range(9):
        taken = "".join(turns.pick(f"web{number}", (), {}, "", equal).id for _ in range(6))
        assert taken == taken[:3] * 2


def test_the_first_turn_is_anybodys(home: Path) -> None:
    """Or all machines that are set up at the same time would begin with the same one."""
    first = set()
    for number in range(60):
        first.add(turns.pick(f"web{number}", (), {}, "", AMONG).id)
    assert first == {"a", "b", "c"}


def test_other_conditions_have_their_own_turns(home: Path) -> None:
    """Who asks for two tags in turn gets every instance of both."""
    others = [Instance("web", id_, f"{id_}:80") for id_ in "de"]
    taken = Counter[str]()
    for _ in range(4):
        taken[turns.pick("web", ["x"], {"v": "1"}, "eu", AMONG).id] += 1
        taken[turns.pick("web", ["y"], {"v": "1"}, "eu", others).id] += 1
    assert taken == Counter("aabcddee")
