"""The judge of locks and elections: one holds at any revision, and each way of lying is found and named."""

from __future__ import annotations

from typing import Any

import pytest

from api.concurrency import LeaderKey
from api.errors import NoLeaderElected, NotElected, SessionExpired
from kvstate.commands import Compare, CompareResult, CompareTarget, Put, PutResponse, Txn, TxnResponse
from kvstate.types import Event, EventType, KeyValue
from tests.sim.history import (
    GUARDED,
    Campaign,
    FindLeader,
    LeaseLife,
    Lock,
    Moment,
    Observation,
    Operation,
    Outcome,
    Proclaim,
)
from tests.sim.line_judge import LineJudge
from tests.sim.model import BadHistory, Model

FIRST = KeyValue(b"a/7", 2, 2, 1, b"x", 7)
SECOND = KeyValue(b"a/8", 3, 3, 1, b"y", 8)
CHANGED = SECOND._replace(mod_revision=5, version=2, value=b"z")
ALL = range(1, 7)


def judge() -> LineJudge:
    """7 enters the line at 2, 8 at 3; 7 leaves at 4; 8 changes its value at 5; at 6 the line is empty."""
    return LineJudge(
        Model(
            {
                2: (Event(EventType.PUT, FIRST),),
                3: (Event(EventType.PUT, SECOND),),
                4: (Event(EventType.DELETE, KeyValue(b"a/7", 0, 4, 0, b"", 0)),),
                5: (Event(EventType.PUT, CHANGED),),
                6: (Event(EventType.DELETE, KeyValue(b"a/8", 0, 6, 0, b"", 0)),),
            },
            {7: LeaseLife(7, 1, Moment(1, 1)), 8: LeaseLife(8, 1, Moment(1, 1))},
        )
    )


def ok(request: Any, response: Any, revision: int) -> Operation:
    return Operation(1, 1, request, 1, 99, Outcome.OK, revision, response)


def refused(request: Any, error: Exception) -> Operation:
    return Operation(1, 1, request, 1, 99, Outcome.ERROR, error=error)


def fenced(key: bytes, token: int, revision: int) -> Operation:
    compare = Compare(CompareResult.EQUAL, CompareTarget.CREATE, key, b"", token)
    request = Txn((compare,), (Put(GUARDED + b"a", b"v"),), ())
    return ok(request, TxnResponse(True, [(revision, PutResponse(None))]), revision)


def leader(kv: KeyValue) -> LeaderKey:
    return LeaderKey(b"a", kv.key, kv.create_revision, kv.lease)


def test_what_one_line_could_say_is_accepted() -> None:
    line = judge()
    line.check_answer(ok(Lock(b"a", 7), b"a/7", 3), ALL)
    line.check_answer(ok(Lock(b"a", 8), b"a/8", 4), ALL)
    line.check_answer(ok(Campaign(b"a", 8, b"y"), leader(SECOND), 3), ALL)
    line.check_answer(ok(Proclaim(leader(SECOND), b"z"), None, 5), ALL)
    line.check_answer(ok(FindLeader(b"a"), FIRST, 3), ALL)
    line.check_error(refused(Lock(b"a", 8), SessionExpired()), ALL)
    line.check_error(refused(FindLeader(b"a"), NoLeaderElected()), ALL)
    line.check_fenced(fenced(b"a/7", 2, 4))
    line.check_fenced(fenced(b"a/8", 3, 5))
    line.check_observation(Observation(1, b"a", 1, [(FIRST, 3), (SECOND, 4), (CHANGED, 5)]))


@pytest.mark.parametrize(
    ("lie", "named"),
    [
        (ok(Lock(b"a", 8), b"a/8", 3), "the lock was held by"),
        (ok(Lock(b"a", 8), b"a/8", 6), "nobody stood in line"),
        (ok(FindLeader(b"a"), SECOND, 3), "was the leader"),
        (ok(Campaign(b"a", 9, b"y"), LeaderKey(b"a", b"a/9", 3, 9), 3), "it never led"),
        (ok(Proclaim(leader(FIRST), b"z"), None, 5), "at that revision there was"),
        (ok(Proclaim(leader(SECOND), b"y"), None, 3), "was not that of the holder"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value.request).__name__,
)
def test_a_second_holder_is_found(lie: Operation, named: str) -> None:
    with pytest.raises(BadHistory, match=named):
        judge().check_answer(lie, ALL)


def test_a_lock_of_another_time_is_found() -> None:
    """Who asks after revision 4 was known may not hear of what was so at 3."""
    with pytest.raises(BadHistory, match="of another time"):
        judge().check_answer(ok(Lock(b"a", 7), b"a/7", 3), range(4, 7))


@pytest.mark.parametrize(("key", "token", "revision"), [(b"a/7", 2, 5), (b"a/8", 3, 4), (b"a/7", 3, 4)])
def test_who_acts_without_holding_is_found(key: bytes, token: int, revision: int) -> None:
    """Too late, too early, or with a token that was never given."""
    with pytest.raises(BadHistory, match="was not that of the holder"):
        judge().check_fenced(fenced(key, token, revision))


@pytest.mark.parametrize(
    "lie",
    [
        refused(Lock(b"a", 7), SessionExpired()),
        refused(Proclaim(leader(FIRST), b"z"), NotElected()),
        refused(FindLeader(b"a"), NoLeaderElected()),
    ],
    ids=lambda op: type(op.request).__name__,
)
def test_an_undeserved_refusal_is_found(lie: Operation) -> None:
    """At 2 and 3 the first one stood in the line all the time."""
    with pytest.raises(BadHistory, match="wrong answer"):
        judge().check_error(lie, range(2, 4))


@pytest.mark.parametrize(
    "told",
    [
        [(FIRST._replace(value=b"?"), 3)],
        [(SECOND, 3)],
        [(CHANGED, 5), (FIRST, 3)],
    ],
    ids=["never was", "did not lead", "comes back"],
)
def test_an_observer_who_was_lied_to_is_found(told: list[tuple[KeyValue, int]]) -> None:
    with pytest.raises(BadHistory, match="observer"):
        judge().check_observation(Observation(1, b"a", 1, told))
