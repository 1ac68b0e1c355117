"""Leases, locks and elections, from JSON to a verdict: lies of a server are rejected, each for its reason.

``Told`` begins each story: one watch of everything, and a machine's clock that only ``later`` moves.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from api.concurrency import LeaderKey
from kvstate.commands import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    LeaseGrant,
    LeaseGrantResponse,
    LeaseRevoke,
    Put,
    Txn,
)
from tests.sim.history import Campaign, KeepAlive, ListLeases, Lock, Outcome, Resign, Unlock
from tests.sim.model import BadHistory
from tests.soak.call_wire import LEASE_EXISTS, LEASE_NOT_FOUND, SESSION_EXPIRED, encode, note_answer
from tests.soak.calls import Ask, Call, Look, line_key
from tests.soak.lease_judge import FAIL_OVER_SECONDS, LINGER_SECONDS, TTL_MAX
from tests.soak.line_judge import guarded_value
from tests.soak.past import Place
from tests.soak.story import Json, Story, b64, delete, kv, put
from tests.soak.wire import BadAnswer

TTL = 2
OURS, THEIRS = 77, 78
LOCK, HELD, WAITING = b"lock/a", line_key(b"lock/a", OURS), line_key(b"lock/a", THEIRS)
GUARDED = "guard/lock/a"


def leased(key: str, value: str, revision: int, lease: int) -> Json:
    return {"kv": {**kv(key, value, revision, revision, 1), "lease": str(lease)}}


class Told(Story):
    def __init__(self) -> None:
        super().__init__()
        self.revision = 1
        self.watch(1)

    def later(self, seconds: float) -> None:
        self.now += seconds

    def happens(self, *events: Json) -> int:
        """The next revision, of which the watch is told at once."""
        self.revision += 1
        self.hear(1, self.revision, *events)
        return self.revision

    def deleted(self, *keys: bytes) -> int:
        return self.happens(*(delete(key.decode(), self.revision + 1) for key in keys))

    def grant(self, lease: int = OURS) -> Call:
        return self.call(LeaseGrant(lease, TTL), self.revision, ID=str(lease), TTL=str(TTL))

    def keep_alive(self, lease: int = OURS, ttl: int = TTL) -> Call:
        return self.call(KeepAlive(lease), self.revision, ID=str(lease), **({"TTL": str(ttl)} if ttl else {}))

    def revoke(self, lease: int = OURS) -> Call:
        return self.call(LeaseRevoke(lease), self.revision)

    def unanswered(self, request: Ask) -> Call:
        call = self.begin_call(request)
        self.end_call(call, 0, {})
        return call

    def put(self, key: str, value: str, lease: int = OURS) -> int:
        operation = self.begin(Put(key.encode(), value.encode(), lease=lease))
        revision = self.happens(leased(key, value, self.revision + 1, lease))
        self.end(operation, 200, {"header": {"revision": str(revision)}})
        return revision

    def stands(self, lease: int, name: bytes = LOCK, value: str = "") -> int:
        return self.happens(leased(line_key(name, lease).decode(), value, self.revision + 1, lease))

    def lock(self, lease: int, *, enters: bool = True) -> Place:
        """Who locks is told that he holds it."""
        call = self.begin_call(Lock(LOCK, lease))
        key = line_key(LOCK, lease)
        token = self.stands(lease) if enters else 0
        self.end_call(call, 200, {"header": {"revision": str(self.revision)}, "key": b64(key.decode())})
        return Place(key, token)

    def write(self, place: Place, mark: str, *, done: bool) -> None:
        """By a holder, or who believes to be one; of the guarded key this is the first write."""
        value = guarded_value(place, mark.encode())
        compare = Compare(CompareResult.EQUAL, CompareTarget.CREATE, place.key, b"", place.token)
        operation = self.begin(Txn((compare,), (Put(GUARDED.encode(), value),), ()))
        if done:
            new = self.revision + 1
            self.happens(put(GUARDED, value.decode(), new, new, 1))
        header: Json = {"header": {"revision": str(self.revision)}}
        answers: Json = {"responses": [{"response_put": header}]} if done else {}
        self.end(operation, 200, {**header, "succeeded": done, **answers})

    def rejected(self, why: str) -> None:
        with pytest.raises(BadHistory, match=why):
            self.judge()


@pytest.fixture
def story() -> Told:
    return Told()


def test_a_good_history_passes(story: Told) -> None:
    """Leases that run out, are kept alive and revoked; a lock that goes on to the next, and an election."""
    story.grant()
    story.put("l/1", "a")
    story.put("l/2", "b")
    story.later(1.5)
    story.keep_alive()
    story.later(2.0)
    story.deleted(b"l/1", b"l/2")
    story.keep_alive(ttl=0)
    story.grant(THEIRS)
    story.put("l/1", "c", lease=THEIRS)
    revocation = story.begin_call(LeaseRevoke(THEIRS))
    story.deleted(b"l/1")
    story.end_call(revocation, 200, {"header": {"revision": str(story.revision)}})
    for lease in (80, 81):
        story.grant(lease)
    first = story.lock(80)
    waiting = story.begin_call(Lock(LOCK, 81))
    token = story.stands(81)
    story.later(TTL)
    story.deleted(first.key)
    story.keep_alive(81)
    key = line_key(LOCK, 81)
    story.end_call(waiting, 200, {"header": {"revision": str(story.revision)}, "key": b64(key.decode())})
    story.write(first, "late", done=False)
    story.write(Place(key, token), "in time", done=True)
    unlock = story.begin_call(Unlock(key))
    story.deleted(key)
    story.end_call(unlock, 200, {"header": {"revision": str(story.revision)}})
    boss = line_key(b"elect/a", 81)
    campaign = story.begin_call(Campaign(b"elect/a", 81, b"me"))
    token = story.stands(81, b"elect/a", "me")
    leader = {"name": b64("elect/a"), "key": b64(boss.decode()), "rev": str(token), "lease": "81"}
    story.end_call(campaign, 200, {"header": {"revision": str(story.revision)}, "leader": leader})
    resignation = story.begin_call(Resign(LeaderKey(b"elect/a", boss, token, 81)))
    story.deleted(boss)
    story.end_call(resignation, 200, {"header": {"revision": str(story.revision)}})
    story.judge({1: (story.revision, 7)})


# How long leases live.


@pytest.mark.parametrize(("seconds", "kept"), [(TTL - 0.01, False), (TTL + 1.0, True)])
def test_a_lease_that_ends_too_early_is_rejected(story: Told, seconds: float, kept: bool) -> None:
    """Less than its TTL after the grant, or after a keepalive that was answered, was sent."""
    story.grant()
    story.put("l/1", "a")
    if kept:
        story.later(1.5)
        story.keep_alive()
    story.later(seconds - 1.5 if kept else seconds)
    story.deleted(b"l/1")
    story.rejected("without a cause: .* had to live")


def test_a_keepalive_counts_from_when_it_was_sent(story: Told) -> None:
    """However long its answer took; and one without an answer counts for nothing."""
    story.grant()
    story.put("l/1", "a")
    keepalive = story.begin_call(KeepAlive(OURS))
    story.later(1.0)
    answer = {"header": {"revision": str(story.revision)}, "ID": str(OURS), "TTL": str(TTL)}
    story.end_call(keepalive, 200, {"result": answer})
    story.unanswered(KeepAlive(OURS))
    story.later(TTL - 1.0)
    story.deleted(b"l/1")
    story.judge()


def test_a_lease_without_keys_that_ends_too_early_is_rejected(story: Told) -> None:
    """Of which the history knows nothing: but somebody was told that it is gone."""
    story.grant()
    story.later(TTL - 0.5)
    story.keep_alive(ttl=0)
    story.rejected("too early")


def test_a_revocation_without_an_answer_may_have_ended_it(story: Told) -> None:
    """Unless it was never sent, or came later."""
    story.grant()
    story.put("l/1", "a")
    revocation = story.unanswered(LeaseRevoke(OURS))
    story.deleted(b"l/1")
    story.judge()
    revocation.outcome = Outcome.REFUSED
    story.rejected("had to live")


def test_a_revocation_after_the_end_explains_nothing(story: Told) -> None:
    story.grant()
    story.put("l/1", "a")
    story.deleted(b"l/1")
    story.unanswered(LeaseRevoke(OURS))
    story.rejected("had to live")


def test_a_delete_without_an_answer_may_have_done_it(story: Told) -> None:
    """What hung on the lease was deleted by a client, and the lease lives on."""
    story.grant()
    story.put("l/1", "a")
    operation = story.begin(DeleteRange(b"l/1"))
    operation.returned = story.load.stamp()
    story.deleted(b"l/1")
    story.keep_alive()
    story.put("l/1", "b")
    story.judge()


def test_a_revocation_in_part_is_rejected(story: Told) -> None:
    """One key of two outlives its lease."""
    story.grant()
    story.put("l/1", "a")
    story.put("l/2", "b")
    revocation = story.begin_call(LeaseRevoke(OURS))
    story.deleted(b"l/1")
    story.end_call(revocation, 200, {"header": {"revision": str(story.revision)}})
    story.rejected("only in part")


def test_an_end_in_two_revisions_is_rejected(story: Told) -> None:
    """A lease that has run out takes all its keys at once."""
    story.grant()
    story.put("l/1", "a")
    story.put("l/2", "b")
    story.later(TTL)
    story.deleted(b"l/1")
    story.deleted(b"l/2")
    story.rejected("phantom")


def test_a_key_that_outlives_its_lease_is_rejected(story: Told) -> None:
    """It has run out, and the list of all leases is empty."""
    story.grant()
    story.put("l/1", "a")
    story.later(TTL)
    story.judge()
    story.load.coordination.looks.append(Look(story.call(ListLeases(), story.revision), story.now))
    story.rejected("outlived")


def test_a_lease_that_comes_back_is_rejected(story: Told) -> None:
    """After it was told to be gone, it was renewed."""
    story.grant()
    story.revoke()
    story.keep_alive()
    story.rejected("came back")


def test_a_put_on_a_lease_that_is_gone_is_rejected(story: Told) -> None:
    story.grant()
    story.revoke()
    story.put("l/1", "a")
    story.rejected("came back")


def test_a_refusal_for_a_lease_that_lives_is_rejected(story: Told) -> None:
    story.grant()
    operation = story.begin(Put(b"l/1", b"a", lease=OURS))
    story.end(operation, 404, {"message": LEASE_NOT_FOUND})
    assert operation.outcome is Outcome.ERROR
    story.rejected("too early")


def test_a_wrong_ttl_is_rejected(story: Told) -> None:
    story.grant()
    story.keep_alive(ttl=TTL + 1)
    story.rejected("wrong answer")


def test_a_new_id_cannot_exist(story: Told) -> None:
    call = story.begin_call(LeaseGrant(OURS, TTL))
    story.end_call(call, 400, {"message": LEASE_EXISTS})
    story.rejected("with an id of its own")


def test_a_lease_that_lives_too_long_is_rejected(story: Told) -> None:
    """In calm, after its TTL and what a new leader may add."""
    story.grant()
    granted = story.now

    def look(calm_since: float) -> None:
        listing = story.call(ListLeases(), 1, leases=[{"ID": str(OURS)}])
        story.load.coordination.looks.append(Look(listing, calm_since))

    story.later(TTL + FAIL_OVER_SECONDS)
    look(granted)
    story.later(0.5)
    look(granted + 1.0)  # there was an election
    story.judge()
    look(granted)
    story.rejected("too late")


def test_a_lease_of_which_nobody_was_told_may_have_been_granted_late(story: Told) -> None:
    """By a member that went on with a request that nobody waited for any more."""
    asked = story.now
    story.unanswered(LeaseGrant(0, TTL))
    story.later(LINGER_SECONDS + TTL_MAX + FAIL_OVER_SECONDS)
    for wait in (0.0, 0.5):
        story.later(wait)
        listing = story.call(ListLeases(), 1, leases=[{"ID": "4711"}])
        story.load.coordination.looks.append(Look(listing, asked))
        if not wait:
            story.judge()
    story.rejected("too late")


# Lines.


def test_who_is_told_too_early_that_he_holds_it_is_rejected(story: Told) -> None:
    """The second of two in line."""
    for lease in (OURS, THEIRS):
        story.grant(lease)
    story.lock(OURS)
    story.lock(THEIRS)
    story.rejected("not the holder")


def test_who_is_told_too_early_that_he_leads_is_rejected(story: Told) -> None:
    for lease in (OURS, THEIRS):
        story.grant(lease)
    for lease in (OURS, THEIRS):
        campaign = story.begin_call(Campaign(b"elect/a", lease, b"me"))
        token = story.stands(lease, b"elect/a", "me")
        key = line_key(b"elect/a", lease).decode()
        leader = {"name": b64("elect/a"), "key": b64(key), "rev": str(token), "lease": str(lease)}
        story.end_call(campaign, 200, {"header": {"revision": str(story.revision)}, "leader": leader})
    story.rejected("not the leader")


def test_a_lock_of_somebody_else_is_rejected(story: Told) -> None:
    story.grant()
    call = story.begin_call(Lock(LOCK, OURS))
    story.stands(OURS)
    story.end_call(call, 200, {"header": {"revision": str(story.revision)}, "key": b64("lock/a/1")})
    story.rejected("wrong answer")


def test_who_is_put_in_line_by_nobody_is_rejected(story: Told) -> None:
    story.grant()
    story.stands(OURS)
    story.rejected("nobody asked for that")


def test_a_holder_who_is_thrown_out_is_rejected(story: Told) -> None:
    """His lease lives, and nobody unlocked."""
    story.grant()
    story.lock(OURS)
    story.deleted(HELD)
    story.rejected("without a cause: .* had to live")


def test_a_lock_that_was_not_given_up_is_rejected(story: Told) -> None:
    story.grant()
    story.lock(OURS)
    story.call(Unlock(HELD), story.revision)
    story.rejected("not given up")


def test_who_hangs_up_may_have_stood_in_line_once(story: Told) -> None:
    """And been taken out of it; but a second time would be one too many."""
    story.grant()
    story.unanswered(Lock(LOCK, OURS))
    story.stands(OURS)
    story.deleted(HELD)
    story.judge()
    story.stands(OURS)
    story.rejected("without a cause")


def test_two_causes_are_given_to_two_revisions(story: Told) -> None:
    """An unlock without an answer would explain either deletion; the other was the end of the lease."""
    story.grant()
    story.lock(OURS)
    story.later(TTL)
    story.unanswered(Unlock(HELD))
    story.deleted(HELD)
    story.unanswered(Lock(LOCK, OURS)).outcome = Outcome.ERROR
    story.load.coordination.calls[-1].error = SESSION_EXPIRED
    story.stands(OURS)
    story.deleted(HELD)
    story.judge()


def test_a_write_by_who_is_not_the_holder_is_rejected(story: Told) -> None:
    """He was, but his lease has run out, and his fencing token with it."""
    story.grant()
    place = story.lock(OURS)
    story.later(TTL)
    story.deleted(HELD)
    story.write(place, "late", done=True)
    story.rejected("two holders")


def test_a_refusal_of_the_holder_is_rejected(story: Told) -> None:
    story.grant()
    story.write(story.lock(OURS), "in time", done=False)
    story.rejected("compares")


def test_a_stale_answer_is_rejected(story: Told) -> None:
    """An unlock that is answered with a revision that was past when it was asked for."""
    story.grant()
    story.put("l/1", "a")
    story.call(Unlock(HELD), 1)
    story.rejected("stale")


# JSON.


@pytest.mark.parametrize(
    ("request_", "path", "message"),
    [
        (LeaseGrant(0, 3), "/v3/lease/grant", {"TTL": "3"}),
        (LeaseGrant(7, 3), "/v3/lease/grant", {"TTL": "3", "ID": "7"}),
        (LeaseRevoke(7), "/v3/lease/revoke", {"ID": "7"}),
        (KeepAlive(7), "/v3/lease/keepalive", {"ID": "7"}),
        (ListLeases(), "/v3/lease/leases", {}),
        (Lock(LOCK, 7), "/v3/lock/lock", {"name": b64("lock/a"), "lease": "7"}),
        (Unlock(HELD), "/v3/lock/unlock", {"key": b64("lock/a/4d")}),
        (
            Campaign(b"elect/a", 7, b"me"),
            "/v3/election/campaign",
            {"name": b64("elect/a"), "lease": "7", "value": b64("me")},
        ),
        (
            Resign(LeaderKey(b"e", b"e/7", 5, 7)),
            "/v3/election/resign",
            {"leader": {"name": b64("e"), "key": b64("e/7"), "rev": "5", "lease": "7"}},
        ),
    ],
)
def test_requests_are_sent_as_they_are_noted(request_: Ask, path: str, message: Any) -> None:
    sent = encode(request_)
    assert (sent[0], orjson.loads(sent[1])) == (path, message)


def test_answers_are_decoded() -> None:
    """What JSON omits is zero; and what is no answer is a violation."""
    call = Call(0, 1, LeaseGrant(0, 3), 1)
    note_answer(call, 200, b'{"header":{"revision":"5"},"ID":"9","TTL":"3"}')
    assert (call.outcome, call.revision, call.told) == (Outcome.OK, 5, LeaseGrantResponse(9, 3))
    call = Call(0, 1, KeepAlive(9), 1)
    note_answer(call, 200, b'{"result":{"header":{"revision":"5"},"ID":"9"}}\n')
    assert call.told == 0
    call = Call(0, 1, ListLeases(), 1)
    note_answer(call, 200, b'{"header":{"revision":"5"},"leases":[{"ID":"9"}]}')
    assert call.told == [9]
    with pytest.raises(BadAnswer):
        note_answer(Call(0, 1, LeaseGrant(0, 3), 1), 200, b'{"header":{"revision":"5"}}')


def test_only_what_the_state_decided_is_an_error() -> None:
    """Everything else may have happened or not."""
    call = Call(0, 1, Lock(LOCK, 7), 1)
    assert note_answer(call, 500, orjson.dumps({"message": LEASE_NOT_FOUND})) == LEASE_NOT_FOUND
    assert (call.outcome, call.error) == (Outcome.ERROR, LEASE_NOT_FOUND)
    call = Call(0, 1, Lock(LOCK, 7), 1)
    note_answer(call, 500, orjson.dumps({"message": "etcdserver: leader changed"}))
    assert call.outcome is Outcome.UNKNOWN
    call = Call(0, 1, KeepAlive(7), 1)
    note_answer(call, 200, b'{"error":{"message":"etcdserver: no leader"}}')
    assert call.outcome is Outcome.UNKNOWN
