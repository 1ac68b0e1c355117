"""Which instances are meant, and which of them is taken."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvorum.services.choice import (
    PICKERS_MAX,
    NoInstance,
    Pickers,
    RandomPicker,
    RoundRobinPicker,
    eligible,
    matching,
    nearest,
    picker_of,
)
from kvorum.services.records import Instance


def one(
    id_: str, *, weight: int = 1, zone: str = "", tags: tuple[str, ...] = (), **metadata: str
) -> Instance:
    return Instance("web", id_, f"{id_}:80", metadata, tags, weight, zone)


def ids(instances: list[Instance]) -> str:
    return "".join(each.id for each in instances)


def test_all_tags_and_all_metadata_must_be_there() -> None:
    both, first, neither = (
        one("a", tags=("x", "y"), v="1", w="2"),
        one("b", tags=("x",), v="1"),
        one("c", v="2"),
    )
    among = [both, first, neither]
    assert ids(matching(among)) == "abc"
    assert ids(matching(among, ["x"])) == "ab"
    assert ids(matching(among, ["x", "y"])) == "a"
    assert ids(matching(among, metadata={"v": "1"})) == "ab"
    assert ids(matching(among, ["x"], {"v": "1", "w": "2"})) == "a"
    assert ids(matching(among, ["z"])) == ""
    assert ids(matching([one("a", tags=("xy",)), both], "xy")) == "a"  # a text is one tag


def test_the_nearest_share_the_most_of_the_zones_path() -> None:
    """From the left, whole labels; who says nothing of its zone is far from all."""
    among = [
        one("a"),
        one("b", zone="us/1a"),
        one("c", zone="eu/1b"),
        one("d", zone="eu/1a"),
        one("e", zone="eu/1"),
    ]
    assert ids(nearest(among, "eu/1a")) == "dceab"
    assert ids(nearest(among, "asia")) == "abcde"
    assert ids(nearest(among, "")) == "abcde"


def test_eligible_are_the_nearest_with_a_weight() -> None:
    """And those without one only where nobody has any, near or far."""
    far, near, drained = one("a", zone="us"), one("b", zone="eu"), one("c", zone="eu", weight=0)
    assert ids(eligible([far, near, drained], "eu")) == "b"
    assert ids(eligible([far, near, drained])) == "ab"
    assert ids(eligible([far, drained], "eu")) == "a"
    assert ids(eligible([drained], "us")) == "c"
    assert eligible([], "eu") == []


def test_round_robin_takes_turns_evenly_mixed() -> None:
    """The one with twice the weight is not taken twice in a row."""
    picker = RoundRobinPicker({})
    among = [one("a", weight=2), one("b"), one("c")]
    assert "".join(picker.pick(among).id for _ in range(8)) == "abcaabca"


@given(
    weights=st.lists(st.integers(0, 9), min_size=1, max_size=7), rounds=st.integers(1, 3), rng=st.randoms()
)
def test_round_robin_is_exact_over_each_whole_round(
    weights: list[int], rounds: int, rng: random.Random
) -> None:
    """As many choices as the weights' sum: each is taken as often as its weight."""
    among = [one(f"i{n}", weight=weight) for n, weight in enumerate(weights)]
    expected = weights if any(weights) else [1] * len(weights)
    picker = RoundRobinPicker(rng=rng)
    for _ in range(rounds):
        taken = Counter(picker.pick(among).id for _ in range(sum(expected)))
        assert [taken[f"i{n}"] for n in range(len(weights))] == expected


def test_who_comes_later_is_not_taken_to_make_up_for_the_past() -> None:
    picker, first = RoundRobinPicker(), [one("a"), one("b")]
    for _ in range(11):
        picker.pick(first)
    taken = Counter(picker.pick([*first, one("c")]).id for _ in range(6))
    assert taken == {"a": 2, "b": 2, "c": 2}


@given(rng=st.randoms())
def test_turns_are_even_whoever_begins(rng: random.Random) -> None:
    """Also where one round is over and the next begins."""
    picker = RoundRobinPicker(rng=rng)
    taken = "".join(picker.pick([one("a"), one("b"), one("c")]).id for _ in range(9))
    assert taken == taken[:3] * 3


def test_the_first_turn_is_anybodys() -> None:
    """By weight: clients that start together do not all begin with the same one."""
    among = [one("a", weight=3), one("b")]
    rng = random.Random(7)
    first = Counter(RoundRobinPicker(rng=rng).pick(among).id for _ in range(4000))
    assert 2.6 < first["a"] / first["b"] < 3.4


def test_random_is_in_proportion() -> None:
    picker = RandomPicker(random.Random(7))
    taken = Counter(picker.pick([one("a", weight=3), one("b"), one("c", weight=0)]).id for _ in range(4000))
    assert taken["c"] == 0
    assert 2.6 < taken["a"] / taken["b"] < 3.4


def test_each_question_has_its_own_turns() -> None:
    """Who asks for two tags in turn gets every instance of both."""
    pickers, taken = Pickers(), Counter[str]()
    for _ in range(3):
        for tag, ids_ in (("x", "abc"), ("y", "def")):
            picker = pickers.of("web", "round-robin", [tag], {"v": "1"}, "eu")
            taken[picker.pick([one(id_) for id_ in ids_]).id] += 1
    assert taken == Counter("abcdef")


def test_questions_that_are_never_asked_again_are_not_kept_for_ever() -> None:
    pickers = Pickers()
    first = pickers.of("web", "random", (), {}, "")
    assert pickers.of("web", "random", (), {}, "") is first
    for number in range(PICKERS_MAX):
        pickers.of("web", "random", (), {"for": str(number)}, "")
    assert pickers.of("web", "random", (), {}, "") is not first


@pytest.mark.parametrize("policy", ["round-robin", "random"])
def test_each_policy(policy: str) -> None:
    """Takes the nearest; one without weight if there is no other; and says so where there is nobody."""
    picker = picker_of(policy)
    assert {picker.pick([one("a", zone="us"), one("b", zone="eu")], "eu").id for _ in range(9)} == {"b"}
    assert picker.pick([one("a", weight=0)]).id == "a"
    with pytest.raises(NoInstance):
        picker.pick([])


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(ValueError, match="the policy 'best' is unknown: expected round-robin or random"):
        picker_of("best")
