"""A short crash test in every run; scripts/crashtest does the long one."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from tests.e2e.crash import CrashTest
from tests.e2e.history import History


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """SIGKILL at random moments, tails torn and garbled, another seed each day."""
    test = CrashTest(tmp_path, seed=datetime.date.today().toordinal())
    test.run(10, cut_log=False)
    test.run(3, cut_log=True)
    test.check_everything()
    assert test.history.acknowledged
    assert test.refused == 1


def event(key: str, value: str, revision: int) -> dict:
    return {"kv": {"key": key, "value": value, "mod_revision": str(revision)}}


A, B, X, Y = "YQ==", "Yg==", "eA==", "eQ=="


@pytest.mark.parametrize(
    ("events", "current"),
    [
        ([event(A, X, 2)], 2),  # revision 3 is lost
        ([event(A, X, 2), event(A, Y, 4)], 4),  # a hole
        ([event(A, Y, 2), event(A, Y, 3)], 3),  # another value at an acknowledged revision
        ([event(A, X, 2), event(B, Y, 3)], 3),  # another key
        ([event(A, X, 2), event(A, Y, 3), event(B, X, 4)], 4),  # a write nobody made
        ([event(A, X, 2), event(A, Y, 3), event(B, "eg==", 4), event(B, "eg==", 5)], 5),  # done twice
        ([event(A, X, 2), event(A, X, 2), event(A, Y, 3)], 3),  # told twice
        ([event(A, Y, 3), event(A, X, 2)], 3),  # out of order
    ],
)
def test_the_judge_rejects_bad_histories(events: list[dict], current: int) -> None:
    """A checker that finds nothing proves nothing: lost, doubled, wrong and unasked writes are found."""
    history = History()
    for value, revision in ((b"x", 2), (b"y", 3)):
        history.attempt(b"a", value)
        history.acknowledge(b"a", value, revision)
    history.attempt(b"b", b"z")  # never answered
    with pytest.raises(AssertionError):
        history.check_events(events, current)


def test_the_judge_accepts_good_histories() -> None:
    """A request without an answer may have happened, or not."""
    for happened in (False, True):
        history = History()
        history.attempt(b"a", b"x")
        history.acknowledge(b"a", b"x", 2)
        history.attempt(b"b", b"z")
        events = [event(A, X, 2)] + [event(B, "eg==", 3)] * happened
        history.check_events(events, 2 + happened)
