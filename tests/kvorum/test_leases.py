"""Leases: until when they are certain, when they are lost, and what a lost answer means."""

from __future__ import annotations

from typing import Any

import pytest

from kvorum.errors import KvorumError, LeaseExists, LeaseLost
from kvorum.leases import LeasePlans, grant, keep_alive, revoke
from tests.kvorum.fake_effects import BROKEN, REFUSED, Reply, Stage, Takes, TakesAll, answer, refusal

EXISTS = refusal("etcdserver: lease already exists", 9, 400)
NOT_FOUND = refusal("etcdserver: requested lease not found", 5, 404)
KEEPALIVE = "/v3/lease/keepalive"


def renewed(ttl: int) -> Reply:
    return answer(result={"TTL": str(ttl)})


def granted(*outcomes: Any, ttl: int = 9) -> tuple[Stage, LeasePlans]:
    stage = Stage(answer(TTL=str(ttl)), *outcomes)
    lease = LeasePlans(stage.core, ttl)
    stage.run(lease.open())
    return stage, lease


def test_a_grant_whose_answer_was_lost_is_asked_for_again_with_the_same_id() -> None:
    stage = Stage(BROKEN, EXISTS)
    lease_id, ttl = stage.run(grant(stage.core, 9))
    assert ttl == 9
    assert {one.body for one in stage.exchanges()} == {b'{"ID":"%d","TTL":"9"}' % lease_id}


def test_an_id_of_the_callers_is_not_taken_for_ours() -> None:
    stage = Stage(BROKEN)
    with pytest.raises(KvorumError) as caught:
        stage.run(grant(stage.core, 9, 77))
    assert caught.value.maybe_done
    stage = Stage(EXISTS)
    with pytest.raises(LeaseExists):
        stage.run(grant(stage.core, 9))


def test_a_revocation_whose_answer_was_lost_was_one() -> None:
    stage = Stage(BROKEN, NOT_FOUND)
    stage.run(revoke(stage.core, 77))


def test_it_is_certain_from_when_it_was_asked_for_and_not_from_when_that_was_answered() -> None:
    stage = Stage(Takes(3, answer(TTL="9")), Takes(2, renewed(9)), renewed(0))
    lease = LeasePlans(stage.core, 9)
    begun = stage.now
    stage.run(lease.open())
    assert lease.sure_until == begun + 9
    assert stage.run(lease.renew(5))
    assert lease.sure_until == begun + 3 + 9
    assert lease.due_at == begun + 3 + 3


def test_the_ttl_that_is_granted_counts() -> None:
    stage = Stage(answer(TTL="60"))
    lease = LeasePlans(stage.core, 1)
    stage.run(lease.open())
    assert (lease.ttl, lease.sure_until) == (60, stage.now + 60)


def test_it_is_lost_at_once_when_the_server_says_so() -> None:
    stage, lease = granted(renewed(9), renewed(0))
    assert stage.run(lease.keep()) == "the lease has ended"
    assert lease.lost == "the lease has ended"


@pytest.mark.parametrize(
    "failure",
    [
        REFUSED,
        BROKEN,
        TakesAll(),
        refusal("etcdserver: leader changed", 14),
        refusal("internal error: see the server's log", 13, 500),
        Reply(500, b"Oops"),
        Reply(503, b"<html>"),
        Reply(200, b"{}"),
        Reply(200, b"<html>"),
    ],
)
def test_it_is_lost_when_nobody_could_tell_for_as_long_as_it_is_certain_and_no_sooner(failure: Any) -> None:
    stage, lease = granted(*[failure] * 1000)
    certain_until = lease.sure_until
    assert "could not be renewed" in stage.run(lease.keep()) or "not renewed in time" in str(lease.lost)
    assert certain_until - 0.1 <= stage.now <= certain_until + 0.1


def test_it_is_renewed_by_whoever_answers_in_time() -> None:
    stage, lease = granted(TakesAll(), TakesAll(), renewed(9), renewed(0))
    stage.run(lease.keep())
    assert stage.asked(KEEPALIVE)[:3] == ["a", "b", "c"]


def test_who_slept_too_long_does_not_know_any_more() -> None:
    stage, lease = granted(renewed(9))
    stage.now += 10
    with pytest.raises(LeaseLost, match="not renewed in time"):
        stage.run(lease.renew(1))


def test_what_is_no_answer_does_not_end_a_lease() -> None:
    stage = Stage(Reply(200, b"{}"))
    with pytest.raises(KvorumError, match="no answer to a keepalive"):
        stage.run(keep_alive(stage.core, 77))


def test_a_lease_is_opened_once() -> None:
    """A second time it would not be kept alive, for its keeper has ended."""
    stage, lease = granted()
    with pytest.raises(RuntimeError, match="make another"):
        stage.run(lease.open())
