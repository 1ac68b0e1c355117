"""The judge of leases: a good history passes, and each way of lying is found and named."""

from __future__ import annotations

from typing import Any

import pytest

from api.service import TimeToLive
from kvstate.commands import (
    LeaseGrant,
    LeaseGrantResponse,
    LeaseRevoke,
    LeaseRevokeResponse,
    Put,
    PutResponse,
)
from kvstate.errors import LeaseExists, LeaseNotFound
from kvstate.types import Event, EventType, KeyValue
from tests.sim.history import (
    History,
    KeepAlive,
    LeaseLife,
    ListLeases,
    LookAtLease,
    Moment,
    Operation,
    Outcome,
)
from tests.sim.linearizability import BadHistory, check


def ok(request: Any, invoked: int, returned: int, response: Any, revision: int = 0) -> Operation:
    return Operation(1, 1, request, invoked, returned, Outcome.OK, revision, response)


def refused(request: Any, invoked: int, returned: int, error: Exception) -> Operation:
    return Operation(1, 1, request, invoked, returned, Outcome.ERROR, error=error)


def deleted(key: bytes, revision: int) -> Event:
    return Event(EventType.DELETE, KeyValue(key, 0, revision, 0, b"", 0))


def good() -> History:
    """Lease 7 of 2 s is granted at 10, gets the keys a and b, and is revoked at 90; 8 has run out at 60."""
    history = History()
    history.leases = {
        7: LeaseLife(7, 2, Moment(10, 1), Moment(90, 4), made_revision=True),
        8: LeaseLife(8, 1, Moment(20, 1), Moment(60, 3), has_run_out=True),
    }
    history.events = {
        2: (Event(EventType.PUT, KeyValue(b"a", 2, 2, 1, b"1", 7)),),
        3: (Event(EventType.PUT, KeyValue(b"b", 3, 3, 1, b"2", 7)),),
        4: (deleted(b"a", 4), deleted(b"b", 4)),
    }
    history.operations = [
        ok(LeaseGrant(7, 1), 5, 15, LeaseGrantResponse(7, 2), 1),
        Operation(2, 1, LeaseGrant(0, 1), 6),
        ok(Put(b"a", b"1", 7), 22, 26, PutResponse(None), 2),
        ok(Put(b"b", b"2", 7), 32, 36, PutResponse(None), 3),
        ok(KeepAlive(7), 38, 42, 2),
        ok(LookAtLease(7, keys=True), 44, 48, TimeToLive(1, 2, [b"a", b"b"])),
        ok(ListLeases(), 50, 55, [7, 8]),
        ok(KeepAlive(8), 56, 70, 0),
        refused(Put(b"c", b"3", 8), 57, 80, LeaseNotFound()),
        ok(LeaseRevoke(7), 85, 95, LeaseRevokeResponse(7), 4),
        refused(LeaseRevoke(7), 96, 99, LeaseNotFound()),
    ]
    return history


def test_what_one_store_could_say_is_accepted() -> None:
    check(good())


@pytest.mark.parametrize(
    ("lie", "named"),
    [
        (ok(KeepAlive(7), 50, 55, 0), "it was there all the time"),
        (ok(KeepAlive(7), 100, 105, 2), "it was not there"),
        (ok(KeepAlive(8), 1, 5, 1), "it was not there"),
        (ok(KeepAlive(7), 50, 55, 3), "it was granted for 2 s"),
        (ok(LookAtLease(7), 50, 55, None), "it was there all the time"),
        (ok(LookAtLease(7), 50, 55, TimeToLive(9, 2, [])), "cannot have so much left"),
        (ok(LookAtLease(7, True), 50, 55, TimeToLive(1, 2, [b"b"])), "these keys hung on it"),
        (ok(ListLeases(), 50, 55, [7]), "but never these"),
        (ok(LeaseRevoke(8), 55, 65, LeaseRevokeResponse(8), 3), "that did not end it"),
        (ok(LeaseRevoke(7), 85, 95, LeaseRevokeResponse(7), 4), "that did not end it"),
        (ok(LeaseGrant(9, 1), 50, 55, LeaseGrantResponse(9, 1), 3), "there never was such a lease"),
        (refused(LeaseGrant(7, 1), 50, 55, LeaseExists()), "was taken twice"),
        (refused(LeaseRevoke(7), 50, 55, LeaseNotFound()), "it was there all the time"),
        (refused(Put(b"c", b"4", 7), 50, 55, LeaseNotFound()), "undeserved refusal"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value.request).__name__,
)
def test_a_wrong_answer_is_found(lie: Operation, named: str) -> None:
    """Whoever hears what was so at no moment between question and answer has been lied to."""
    history = good()
    history.operations.append(lie)
    with pytest.raises(BadHistory, match=named):
        check(history)


def test_a_key_that_stays_behind_is_found() -> None:
    history = good()
    history.events[4] = (deleted(b"a", 4),)
    with pytest.raises(BadHistory, match="the end of"):
        check(history)


def test_a_key_that_was_detached_and_goes_all_the_same_is_found() -> None:
    history = good()
    history.events[3] = (Event(EventType.PUT, KeyValue(b"b", 3, 3, 1, b"2", 0)),)
    history.operations[3].request = Put(b"b", b"2")
    with pytest.raises(BadHistory, match="the end of"):
        check(history)


def test_a_put_with_a_lease_that_is_gone_is_found() -> None:
    history = good()
    history.events[5] = (Event(EventType.PUT, KeyValue(b"c", 5, 5, 1, b"4", 8)),)
    history.operations.append(ok(Put(b"c", b"4", 8), 100, 105, PutResponse(None), 5))
    with pytest.raises(BadHistory, match="which the state must refuse"):
        check(history)


def test_a_lease_that_nobody_asked_for_is_found() -> None:
    history = good()
    del history.operations[1]
    with pytest.raises(BadHistory, match="nobody has asked for"):
        check(history)


def test_an_end_that_nobody_asked_for_is_found() -> None:
    history = good()
    history.leases[8].has_run_out = False
    with pytest.raises(BadHistory, match="nobody has revoked"):
        check(history)
