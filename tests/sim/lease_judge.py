"""Judging what clients were told of leases, by the lives that the leases had in the store.

    lease 7, 2 s    granted at time 10, ended at time 90, a client's revocation, revision 5: delete a

    client 1 [4..12]   grant 7, 2 s    → ok, 2 s      good: that is its beginning
    client 1 [20..25]  keep alive 7    → 2 s          good
    client 2 [30..35]  keep alive 7    → 0            wrong: it was there from 30 to 35
    client 2 [80..95]  keep alive 7    → 0            good: it ended in between
    client 3 [85..99]  revoke 7        → ok @5        good, and it explains the end

What is proved: every lease was granted at one client's request, and ended at one's, or because it had run
out (when it may, ``lease_oracle`` knows, which sees the clocks). What an end deletes is exactly what hung on
the lease, in one revision. Whoever asks of a lease hears what was so at some moment between question and
answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from api.service import TimeToLive
from kvstate.commands import LeaseGrant, LeaseGrantResponse, LeaseRevoke
from kvstate.errors import LeaseExists, LeaseNotFound
from kvstate.types import Event, EventType, KeyValue
from tests.sim.history import KeepAlive, LeaseLife, ListLeases, LookAtLease, Operation, Outcome
from tests.sim.model import BadHistory, Leases, Model, describe, tell

_NEVER = 1 << 62
GRACE_SECONDS = 1
"""What a new leader may add to a lease: an election timeout, of which clients hear the whole seconds."""


def was_there_throughout(leases: Leases, lease_id: int, op: Operation) -> bool:
    """Whether the lease was there at every moment from question to answer."""
    life = leases.get(lease_id)
    assert op.returned is not None
    return life is not None and life.granted.time < op.invoked and op.returned < _end(life)


def check_end(life: LeaseLife, model: Model) -> None:
    """Raises BadHistory unless all that hung on the lease was deleted with it, and nothing else."""
    assert life.ended is not None
    revision = life.ended.revision
    if not life.made_revision:
        left = model.hanging_on(life.id, revision)
        if left:
            raise BadHistory(f"{life} ended, but {tell(left)} hung on it and was not deleted")
        return
    hung = model.hanging_on(life.id, revision - 1)
    expected = tuple(Event(EventType.DELETE, KeyValue(key, 0, revision, 0, b"", 0)) for key in hung)
    if expected != model.events[revision]:
        raise BadHistory(f"the end of {life} was {tell(model.events[revision])}, not {tell(expected)}")


class LeaseJudge:
    def __init__(self, operations: Iterable[Operation], model: Model) -> None:
        self._model = model
        self._leases = model.leases
        self._unknown = [op for op in operations if op.outcome is Outcome.UNKNOWN]
        self._granted: set[int] = set()  # those that an answered request explains
        self._revoked: set[int] = set()

    def check_answer(self, op: Operation, states: range) -> None:
        """``states``: the revisions that there may have been meanwhile."""
        match op.request:
            case LeaseGrant():
                self._check_grant(op, op.request)
            case LeaseRevoke(lease_id):
                self._check_revoke(op, lease_id)
            case KeepAlive(lease_id):
                told = (op.response,) if op.response else None
                self._check_there(op, lease_id, told)
            case LookAtLease(lease_id, keys):
                look = op.response
                assert look is None or isinstance(look, TimeToLive)
                self._check_there(op, lease_id, None if look is None else (look.granted_ttl,))
                if look is not None:
                    self._check_look(op, look, lease_id, states if keys else None)
            case ListLeases():
                self._check_list(op)

    def check_error(self, op: Operation) -> None:
        match op.error, op.request:
            case LeaseNotFound(), LeaseRevoke(lease_id):
                if was_there_throughout(self._leases, lease_id, op):
                    self._bad(op, f"it was there all the time: {self._leases[lease_id]}")
            case LeaseExists(), LeaseGrant():
                self._bad(op, "nobody else has asked for this id: the request was taken twice")

    def explain_lives(self) -> None:
        """After all answers: what none of them explains was asked for by somebody who got no answer."""
        for life in self._leases.values():
            if life.id not in self._granted:
                self._find_grant(life)
            if life.ended is not None and not life.has_run_out and life.id not in self._revoked:
                self._find_revocation(life, life.ended.time)

    def _check_grant(self, op: Operation, request: LeaseGrant) -> None:
        assert isinstance(op.response, LeaseGrantResponse)
        lease_id, ttl = op.response
        life = self._leases.get(lease_id)
        if life is None:
            self._bad(op, "there never was such a lease")
        if request.id not in {0, lease_id} or ttl < request.ttl or ttl != life.ttl:
            self._bad(op, f"what was granted is {life}")
        if not op.invoked < life.granted.time < _returned(op) or op.revision != life.granted.revision:
            self._bad(op, f"it was granted at another moment: {life}")
        if lease_id in self._granted:
            self._bad(op, "it was granted to somebody else, too")
        self._granted.add(lease_id)

    def _check_revoke(self, op: Operation, lease_id: int) -> None:
        life = self._leases.get(lease_id)
        if life is None or life.ended is None or life.has_run_out or lease_id in self._revoked:
            self._bad(op, f"that did not end it: {life}")
        if not op.invoked < life.ended.time < _returned(op) or op.revision != life.ended.revision:
            self._bad(op, f"it ended at another moment: {life}")
        self._revoked.add(lease_id)

    def _check_there(self, op: Operation, lease_id: int, told: tuple[object] | None) -> None:
        """``told``: the TTL that was granted, None if there is no such lease."""
        life = self._leases.get(lease_id)
        if told is None:
            if was_there_throughout(self._leases, lease_id, op):
                self._bad(op, f"it was there all the time: {life}")
        elif life is None or life.granted.time > _returned(op) or _end(life) < op.invoked:
            self._bad(op, f"it was not there: {life}")
        elif told != (life.ttl,):
            self._bad(op, f"it was granted for {life.ttl} s")

    def _check_look(self, op: Operation, look: TimeToLive, lease_id: int, states: range | None) -> None:
        if not 0 <= look.ttl <= look.granted_ttl + GRACE_SECONDS:
            self._bad(op, "it cannot have so much left")
        hanging = [[]] if states is None else (self._model.hanging_on(lease_id, one) for one in states)
        if look.keys not in hanging:
            self._bad(op, f"at none of the revisions {states} these keys hung on it")

    def _check_list(self, op: Operation) -> None:
        changes = [life.granted.time for life in self._leases.values()]
        changes += [_end(life) for life in self._leases.values()]
        moments = [op.invoked, *(time for time in changes if op.invoked < time < _returned(op))]
        if all(op.response != self._living(moment) for moment in moments):
            self._bad(op, f"there were {self._living(op.invoked)}, and other ones later, but never these")

    def _living(self, time: int) -> list[int]:
        return sorted(life.id for life in self._leases.values() if life.granted.time <= time < _end(life))

    def _find_grant(self, life: LeaseLife) -> None:
        fitting = [
            op
            for op in self._unknown
            if isinstance(op.request, LeaseGrant)
            and op.request.id in {0, life.id}
            and op.request.ttl <= life.ttl
            and op.invoked < life.granted.time
        ]
        if not fitting:
            raise BadHistory(f"nobody has asked for {life}, or it was granted before")
        # Who asked for less than the minimum TTL explains only leases of that.
        self._unknown.remove(max(fitting, key=_how_well_it_fits))

    def _find_revocation(self, life: LeaseLife, time: int) -> None:
        for op in self._unknown:
            if op.request == LeaseRevoke(life.id) and op.invoked < time:
                return
        raise BadHistory(f"nobody has revoked {life}, or had by then")

    def _bad(self, op: Operation, what: str) -> NoReturn:
        raise BadHistory(f"wrong answer: {describe(op)}: {what}")


def _how_well_it_fits(op: Operation) -> tuple[bool, int]:
    assert isinstance(op.request, LeaseGrant)
    return op.request.id != 0, op.request.ttl


def _end(life: LeaseLife) -> int:
    return _NEVER if life.ended is None else life.ended.time


def _returned(op: Operation) -> int:
    return _NEVER if op.returned is None else op.returned
