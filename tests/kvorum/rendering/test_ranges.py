"""Few ranges that cover what was read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvorum.rendering.ranges import Range, cover, of_key, of_prefix

KEYS = st.binary(min_size=1, max_size=4)
RANGES = st.sets(st.one_of(KEYS.map(of_key), KEYS.map(of_prefix)), max_size=12)


@given(RANGES, st.integers(1, 5), KEYS)
def test_a_cover_leaves_no_key_out(ranges: set[Range], count: int, key: bytes) -> None:
    """Every key of every range is in exactly one of not too many."""
    covering = cover(ranges, count)
    assert len(covering) <= count
    if any(key in one for one in ranges):
        assert sum(key in one for one in covering) == 1


def test_what_is_few_enough_is_watched_as_it_was_read() -> None:
    """No key too many, unless ranges overlap."""
    ranges = {of_key(b"a"), of_key(b"c"), of_prefix(b"x/")}
    assert cover(ranges, 3) == ranges
    assert cover({*ranges, of_key(b"x/y")}, 3) == ranges


def test_neighbours_of_one_folder_are_joined_first() -> None:
    """So that what nobody has read, and is watched nevertheless, is little."""
    ranges = {of_key(b"/app/a"), of_key(b"/app/b"), of_key(b"/zoo/a"), of_key(b"a")}
    assert Range(b"/app/a", b"/app/b\0") in cover(ranges, 3)


def test_the_empty_prefix_is_all_keys() -> None:
    """From the first possible to behind the last."""
    assert b"\0" in of_prefix(b"")
    assert b"\xff\xff" in of_prefix(b"")
    assert b"\xff\xff" in of_prefix(b"\xff")
