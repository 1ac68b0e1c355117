"""How a service is, judged by its checks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvorum.cli.services.health import Health


@pytest.mark.parametrize(
    ("failures", "successes", "checks", "states"),
    [
        (1, 1, "+-+", "101"),
        (2, 1, "+-+--", "11110"),
        (3, 2, "+-++--+---+", "00011111100"),
    ],
)
def test_so_many_in_a_row_change_it(failures: int, successes: int, checks: str, states: str) -> None:
    """One that says otherwise begins the count anew."""
    health = Health(failures, successes)
    told = "".join("01"[(health.checked(check == "+"), health.is_well)[1]] for check in checks)
    assert told == states


@given(failures=st.integers(1, 4), successes=st.integers(1, 4), checks=st.lists(st.booleans(), max_size=30))
def test_it_is_what_the_last_checks_say(failures: int, successes: int, checks: list[bool]) -> None:
    """A run of the other kind that is long enough, and only that, changes it; and that is told."""
    health, is_well, run = Health(failures, successes), False, 0
    for passed in checks:
        run = run + 1 if passed != is_well else 0
        changes = run >= (successes if passed else failures) and passed != is_well
        assert health.checked(passed) == changes
        if changes:
            is_well, run = passed, 0
        assert health.is_well == is_well
