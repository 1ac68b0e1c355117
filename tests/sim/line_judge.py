"""Judging locks and elections: at any revision the one is he whose key is the oldest of the name.

    a-lock/4d, created at 5    client 1 is told at 5 that he holds the lock        good
    a-lock/63, created at 7    client 2 is told at 7 that he does                  wrong: 4d is older
    4d is deleted at 9         client 2 is told at 9 that he does                  good
    client 1 writes what is guarded, if his key is of 5, and that is done at 10    wrong: it is client 2's now

So at most one holds at any revision, and the create revisions of those who hold, one after the other, grow:
they are the fencing tokens, and who comes with an old one must find that it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from api.concurrency import LeaderKey
from api.errors import NoLeaderElected, NotElected, SessionExpired
from kvstate.commands import Put, Txn, TxnResponse
from kvstate.types import EventType, KeyValue
from tests.sim.history import GUARDED, Campaign, FindLeader, Lock, Observation, Operation, Proclaim
from tests.sim.model import BadHistory, Model, describe, tell


class LineJudge:
    def __init__(self, model: Model) -> None:
        self._model = model

    def first(self, name: bytes, revision: int) -> KeyValue | None:
        """Who holds, or leads, as of a revision."""
        line = self._model.living(name + b"/", name + b"0", revision)
        return min(line, key=lambda kv: kv.create_revision, default=None)

    def check_answer(self, op: Operation, states: range) -> None:
        """``states``: the revisions that there may have been meanwhile."""
        match op.request:
            case Lock(name, lease):
                first = self._first_told(op, name, states)
                if (first.key, first.lease) != (op.response, lease):
                    self._bad(op, f"the lock was held by {tell(first)}")
            case FindLeader(name):
                first = self._first_told(op, name, states)
                if first != op.response:
                    self._bad(op, f"{tell(first)} was the leader")
            case Campaign(name):
                self._check_elected(op, name, states)
            case Proclaim(leader, value):
                kv = self._model.at(leader.key, op.revision)
                if kv is None or (kv.create_revision, kv.value) != (leader.rev, value):
                    self._bad(op, f"at that revision there was {tell(kv)}")
                self._check_is_first(op, leader.name, leader.key, leader.rev, op.revision)

    def check_error(self, op: Operation, states: range) -> None:
        match op.request, op.error:
            case (Lock(name, lease), SessionExpired()) | (Campaign(name, lease), NotElected()):
                if not self._was_deleted(_key(name, lease), states):
                    self._bad(op, "its place in the line was never lost")
            case Proclaim(leader), NotElected():
                kvs = (self._model.at(leader.key, revision) for revision in states)
                if all(kv is not None and kv.create_revision == leader.rev for kv in kvs):
                    self._bad(op, "it led all the time")
            case FindLeader(name), NoLeaderElected():
                if all(self.first(name, revision) is not None for revision in states):
                    self._bad(op, "somebody led all the time")

    def check_observation(self, seen: Observation) -> None:
        """Each was the leader between his latest change and when he was told; none comes back."""
        token = 0
        for kv, revision in seen.told:
            states = range(kv.mod_revision, min(revision, self._model.top) + 1)
            if self._model.at(kv.key, kv.mod_revision) != kv:
                raise BadHistory(
                    f"an election's observer at node {seen.node} was told what never was: {tell(kv)}"
                )
            led = any(first is not None and first.key == kv.key for first in self._firsts(seen.name, states))
            if not led:
                raise BadHistory(f"an observer was told of {tell(kv)} at {revision}, who did not lead")
            if kv.create_revision < token:
                raise BadHistory(f"an observer was told of {tell(kv)}, after one with the token {token}")
            token = kv.create_revision

    def _firsts(self, name: bytes, states: range) -> Iterator[KeyValue | None]:
        return (self.first(name, revision) for revision in states)

    def check_fenced(self, op: Operation) -> None:
        """What a holder did was done only if he held."""
        match op.request, op.response:
            case Txn((compare, *_), (Put(key=key), *_)), TxnResponse(True) if key.startswith(GUARDED):
                name, token = key.removeprefix(GUARDED), compare.operand
                self._check_is_first(op, name, compare.key, token, op.revision - 1)

    def _first_told(self, op: Operation, name: bytes, states: range) -> KeyValue:
        first = self.first(name, op.revision)
        if first is None:
            self._bad(op, "nobody stood in line at that revision")
        if op.revision not in states:
            self._bad(op, f"that is of another time: it was asked at {states[0]} or later")
        return first

    def _check_elected(self, op: Operation, name: bytes, states: range) -> None:
        leader = op.response
        assert isinstance(leader, LeaderKey)
        for revision in range(op.revision, states.stop):
            first = self.first(name, revision)
            if first is not None and (first.key, first.create_revision) == (leader.key, leader.rev):
                return
        self._bad(op, f"it never led up to revision {states[-1]}")

    def _check_is_first(self, op: Operation, name: bytes, key: bytes, token: object, revision: int) -> None:
        first = self.first(name, revision)
        if first is None or (first.key, first.create_revision) != (key, token):
            self._bad(op, f"token {token} was not that of the holder: {tell(first)}")

    def _was_deleted(self, key: bytes, states: range) -> bool:
        return any(
            event.kv.key == key and event.type == EventType.DELETE
            for revision in states
            for event in self._model.events.get(revision, ())
        )

    def _bad(self, op: Operation, what: str) -> NoReturn:
        raise BadHistory(f"wrong answer: {describe(op)}: {what}")


def _key(name: bytes, lease: int) -> bytes:
    return b"%b/%x" % (name, lease)
