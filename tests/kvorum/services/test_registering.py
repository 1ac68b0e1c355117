"""An instance on the list, for as long as it is to be there: the plans."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kvorum.errors import ConnectionFailed, KvorumError
from kvorum.plans import Plan
from kvorum.services.records import encode, instance
from kvorum.services.registering import RegistrationPlans
from tests.kvorum.fake_effects import BROKEN, REFUSED, Outcome, Stage, TakesAll, answer, refusal

ONE = instance("web", "10.0.0.1:80")
NO_LEASE = refusal("etcdserver: requested lease not found", 5, 404)
LEASE_EXISTS = refusal("etcdserver: lease already exists", 9, 400)
DENIED = refusal("etcdserver: permission denied", 7, 403)
GRANT, PUT, KEEPALIVE, REVOKE = "/v3/lease/grant", "/v3/kv/put", "/v3/lease/keepalive", "/v3/lease/revoke"
ALIVE, GONE = answer(result={"TTL": "9"}), answer(result={})


def staged(*outcomes: Outcome, **options: Any) -> tuple[Stage, RegistrationPlans, list[str | None]]:
    stage, told = Stage(*outcomes, **options), list[str | None]()
    return stage, RegistrationPlans(stage.core, ONE, 9, told.append), told


def keep(stage: Stage, plan: Plan[Any]) -> None:
    """Until nothing more is foreseen."""
    with pytest.raises(AssertionError, match="nothing was foreseen"):
        stage.run(plan)


def paths(stage: Stage) -> list[str]:
    return [one.path for one in stage.exchanges()]


def leases(stage: Stage) -> set[str]:
    """All that were named."""
    found = set()
    for one in stage.exchanges():
        body = json.loads(one.body)
        found.add(body.get("ID") or body.get("lease"))
    return found


def test_its_entry_hangs_on_a_lease() -> None:
    """Of the server's TTL, which may be more than was asked for."""
    stage, plans, _ = staged(answer(TTL="12"), answer())
    stage.run(plans.open())
    assert paths(stage) == [GRANT, PUT]
    put = json.loads(stage.exchanges(PUT)[0].body)
    assert len(leases(stage)) == 1
    assert "lease" in put
    assert plans.ttl == 12
    assert base64.b64decode(put["value"]) == encode(ONE)


def test_it_is_asked_again_where_that_does_no_harm() -> None:
    """All of it: the lease is the same, and its entry too."""
    stage, plans, _ = staged(BROKEN, LEASE_EXISTS, BROKEN, answer())
    stage.run(plans.open())
    assert paths(stage) == [GRANT, GRANT, PUT, PUT]
    assert len(leases(stage)) == 1


def test_of_what_fails_nothing_remains() -> None:
    """And the error is that of what failed, even if it cannot be undone."""
    stage, plans, _ = staged(answer(TTL="9"), DENIED, answer())
    with pytest.raises(KvorumError, match="permission denied"):
        stage.run(plans.open())
    assert paths(stage) == [GRANT, PUT, REVOKE]
    assert len(leases(stage)) == 1
    stage, plans, _ = staged(answer(TTL="9"), DENIED, DENIED)
    with pytest.raises(KvorumError, match="permission denied"):
        stage.run(plans.open())


def test_it_is_renewed_three_times_in_its_time() -> None:
    stage, plans, told = staged(ALIVE, ALIVE, ALIVE)
    keep(stage, plans.keep())
    assert stage.slept() == [3.0, 3.0, 3.0, 3.0]
    assert told == []


def test_a_lease_that_has_ended_is_made_anew_with_its_entry() -> None:
    """With the same id, so that what withdraws it need not know."""
    stage, plans, told = staged(answer(TTL="9"), answer(), GONE, answer(TTL="9"), answer(), ALIVE)
    stage.run(plans.open())
    keep(stage, plans.keep())
    assert paths(stage)[:6] == [GRANT, PUT, KEEPALIVE, GRANT, PUT, KEEPALIVE]
    assert len(leases(stage)) == 1
    assert told == []


def test_it_is_asked_until_somebody_answers() -> None:
    """However long that takes; who wants to know is told once when it begins and once when it is over."""
    failures = [REFUSED] * 40
    stage, plans, told = staged(
        ALIVE, *failures, GONE, answer(TTL="9"), answer(), endpoints="a", timeout=0.01
    )
    keep(stage, plans.keep())
    assert told == ["refused", None]
    assert plans.problem is None
    assert paths(stage)[-4:-1] == [KEEPALIVE, GRANT, PUT]
    assert max(stage.slept()[2:-1]) <= 1.0


@pytest.mark.parametrize("endpoints", ["a,b,c", "a"])
def test_a_member_that_hangs_does_not_cost_the_lease(endpoints: str) -> None:
    """However long a call may take: it is asked again, or another, before the time is over."""
    asked_at = list[float]()

    def answered(_: object) -> object:
        asked_at.append(stage.now)
        return ALIVE

    stage, plans, _ = staged(TakesAll(), answered, timeout=60.0, endpoints=endpoints)
    begun = stage.now
    keep(stage, plans.keep())
    assert asked_at[0] - begun < 9


def test_a_member_that_hangs_does_not_keep_it_off_the_list() -> None:
    """Another one is asked to put it back."""
    stage, plans, _ = staged(GONE, TakesAll(), answer(TTL="9"), TakesAll(), answer(), timeout=60.0)
    begun = stage.now
    keep(stage, plans.keep())
    assert paths(stage) == [KEEPALIVE, GRANT, GRANT, PUT, PUT, KEEPALIVE]
    assert stage.now - begun < 9


def test_what_is_refused_is_tried_again_too() -> None:
    """Permissions can be given back."""
    stage, plans, told = staged(GONE, DENIED, GONE, answer(TTL="9"), answer())
    keep(stage, plans.keep())
    assert [one and one.rpartition(": ")[2] for one in told] == ["permission denied", None]


def test_an_entry_that_could_not_be_put_back_is_put_back_later() -> None:
    """That its lease lives again says nothing of it."""
    stage, plans, told = staged(GONE, answer(TTL="9"), DENIED, ALIVE, LEASE_EXISTS, answer(), ALIVE)
    keep(stage, plans.keep())
    assert paths(stage)[:6] == [KEEPALIVE, GRANT, PUT, KEEPALIVE, GRANT, PUT]
    assert [one and one.rpartition(": ")[2] for one in told] == ["permission denied", None]
    assert paths(stage)[6:] == [KEEPALIVE, KEEPALIVE]


def test_an_answer_that_says_nothing_does_not_end_it() -> None:
    """Somebody between us and the store may give any."""
    stage, plans, _ = staged(answer(), GONE, answer(), answer(), ALIVE)
    keep(stage, plans.keep())
    assert paths(stage) == [KEEPALIVE, KEEPALIVE, GRANT, PUT, KEEPALIVE, KEEPALIVE]
    assert plans.ttl == 9


def test_to_withdraw_is_to_revoke() -> None:
    """Once is enough, and one that is gone already is no error."""
    stage, plans, _ = staged(answer(), NO_LEASE)
    stage.run(plans.close())
    stage.run(plans.close())
    assert paths(stage) == [REVOKE, REVOKE]
    stage, plans, _ = staged(*[REFUSED] * 9, endpoints="a", timeout=0.01)
    with pytest.raises(ConnectionFailed):
        stage.run(plans.close())


def test_a_time_to_live_must_be_one() -> None:
    with pytest.raises(ValueError, match="a time to live of 0 s: expected at least 1"):
        RegistrationPlans(Stage().core, ONE, 0)
