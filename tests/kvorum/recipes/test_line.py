"""A place in a line, without a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kvorum.errors import LeaseLost
from kvorum.messages import b64
from kvorum.plans import CloseStream, Effect, Reply
from kvorum.recipes.line import Place, Standing
from tests.kvorum.fake_effects import BROKEN, ReadTimesOut, Stage, TakesAll, answer, frame, refusal

TTL = 9
LEASE = "7b"
KEY = b"jobs/7b"
CREATED = frame(header={"revision": "20"}, created=True)
DELETED = frame(header={"revision": "21"}, events=[{"type": "DELETE", "kv": {"key": b64(b"jobs/1")}}])
RENEWED = answer(result={"ID": "123", "TTL": str(TTL)})
LEASE_ENDED = answer(result={"ID": "123"})


def granted() -> Reply:
    return answer(ID="123", TTL=str(TTL))


def entered(revision: int = 12) -> Reply:
    return answer(header={"revision": str(revision)}, succeeded=True)


def line(*keys: tuple[bytes, int], revision: int = 20) -> Reply:
    """What is read of it: our own key, and the one before."""
    kvs = [{"key": b64(key), "create_revision": str(created)} for key, created in keys]
    return answer(header={"revision": str(revision)}, kvs=kvs)


FIRST = line((KEY, 12))
SECOND = line((KEY, 12), (b"jobs/1", 5))


def standing(stage: Stage, *outcomes: Any) -> Standing:
    """It has entered; ``outcomes`` are what comes then."""
    one = Standing(stage.core, b"jobs", TTL)
    one._lease.id = 0x7B
    stage.outcomes = [granted(), entered()]
    assert stage.run(one.enter(b"me")) == Place(KEY, 12)
    stage.outcomes = list(outcomes)
    stage.effects.clear()
    return one


def later(stage: Stage, seconds: float, outcome: Any) -> Callable[[Effect], Any]:
    def pass_time(_: Effect) -> Any:
        stage.now += seconds
        return outcome

    return pass_time


def test_it_enters_with_a_key_of_its_lease() -> None:
    """Whose create revision is the token. To have been entered by an earlier try is as good."""
    stage = Stage(granted(), BROKEN)
    own = {"response_range": {"kvs": [{"key": b64(KEY), "create_revision": "11"}]}}
    stage.outcomes.append(answer(header={"revision": "30"}, responses=[own]))
    one = Standing(stage.core, b"jobs", TTL)
    one._lease.id = 0x7B
    assert stage.run(one.enter(b"me")) == Place(KEY, 11)
    [grant, first, second] = [json.loads(exchange.body) for exchange in stage.exchanges()]
    assert grant == {"ID": "123", "TTL": "9"}
    assert first == second
    assert first["success"] == [{"request_put": {"key": b64(KEY), "value": b64(b"me"), "lease": "123"}}]


def test_who_is_first_does_not_wait() -> None:
    """Nothing is watched."""
    stage = Stage()
    one = standing(stage, FIRST)
    assert stage.run(one.turn())
    assert one.revision == 20
    assert stage.opened() == []


def test_it_waits_for_the_end_of_the_one_before() -> None:
    """Watched from behind the revision at which it was seen, and then looks again: there may be another."""
    stage = Stage()
    one = standing(
        stage,
        *(SECOND, "stream", CREATED, DELETED),
        *(line((KEY, 12), (b"jobs/0", 4), revision=21), "stream", CREATED, DELETED),
        FIRST,
    )
    assert stage.run(one.turn())
    watched = [(create["key"], create["start_revision"], create["filters"]) for create in stage.opened()]
    assert watched == [(b64(b"jobs/1"), "21", ["NOPUT"]), (b64(b"jobs/0"), "22", ["NOPUT"])]
    assert sum(isinstance(effect, CloseStream) for effect in stage.effects) == 2


def test_the_lease_is_renewed_by_the_way() -> None:
    """A third of its time after the last renewal, on the stream that is read already."""
    stage = Stage()
    one = standing(stage, SECOND, "stream", CREATED, ReadTimesOut(), RENEWED, DELETED, FIRST)
    begun = stage.now
    assert stage.run(one.turn())
    assert stage.now == begun + TTL / 3
    assert one.sure_until == stage.now + TTL
    assert len(stage.opened()) == 1


def test_a_renewal_counts_from_its_sending() -> None:
    """However late the answer comes."""
    stage = Stage()
    one = standing(stage)
    begun = stage.now
    stage.outcomes = [SECOND, "stream", ReadTimesOut(), later(stage, 2, RENEWED), DELETED, FIRST]
    assert stage.run(one.turn())
    assert one.sure_until == begun + TTL / 3 + TTL


def test_a_silent_watch_is_asked_for_anew_behind_a_read() -> None:
    """For it may be that of a member that is cut off: such a one answers no read."""
    stage = Stage()
    one = standing(stage, SECOND, "stream", CREATED, ReadTimesOut(), RENEWED, ReadTimesOut(), SECOND)
    begun = stage.now
    stage.outcomes += ["stream", DELETED, FIRST]
    assert stage.run(one.turn())
    assert stage.now == begun + 5.0
    assert len(stage.opened()) == 2


def test_the_loss_of_a_member_does_not_lose_the_place() -> None:
    """The next one is asked about it, for all."""
    stage = Stage()
    one = standing(stage, SECOND, "stream", BROKEN, SECOND, "stream", DELETED, FIRST)
    assert stage.run(one.turn())
    assert stage.asked("/v3/kv/range") == ["a", "b", "b"]


def test_at_its_deadline_it_was_not_its_turn() -> None:
    """Not before, and not long after."""
    stage = Stage()
    one = standing(stage, SECOND, "stream", CREATED, ReadTimesOut(), SECOND)
    begun = stage.now
    assert not stage.run(one.turn(begun + 2))
    assert stage.now == begun + 2
    stage.outcomes = [SECOND]
    assert not stage.run(one.turn(begun))
    stage.outcomes = [FIRST]
    assert stage.run(one.turn(begun))


def test_a_lease_that_has_ended_loses_the_place() -> None:
    """The server says so."""
    stage = Stage()
    one = standing(stage, SECOND, "stream", CREATED, ReadTimesOut(), LEASE_ENDED)
    with pytest.raises(LeaseLost, match=r"^the lease has ended$"):
        stage.run(one.turn())


def test_a_lease_that_nobody_renews_loses_the_place() -> None:
    """Not before it is uncertain, and no longer than a moment after."""
    stage = Stage()
    one = standing(stage, SECOND, "stream", CREATED, ReadTimesOut(), *[TakesAll()] * 1000)
    until = one.sure_until
    with pytest.raises(LeaseLost, match=r"^the lease (could not be|was not) renewed"):
        stage.run(one.turn())
    assert until - 0.5 <= stage.now <= until + 0.01


def test_a_key_that_is_gone_loses_the_place() -> None:
    """Also when another one has its name."""
    for found in (line(), line((KEY, 19)), line((b"jobs/1", 5))):
        stage = Stage()
        one = standing(stage, found)
        with pytest.raises(LeaseLost, match=r"^its key is gone$"):
            stage.run(one.turn())


def test_what_is_held_is_kept_until_it_is_lost() -> None:
    """Its own key is watched, and the lease renewed."""
    stage = Stage()
    one = standing(stage, FIRST, "stream", CREATED, ReadTimesOut(), RENEWED, DELETED, line())
    assert stage.run(one.keep()) == one.lost == "its key is gone"
    assert [create["key"] for create in stage.opened()] == [b64(KEY)]
    assert [one.path for one in stage.exchanges()] == ["/v3/kv/range", "/v3/lease/keepalive", "/v3/kv/range"]


def test_only_who_has_the_place_changes_its_value() -> None:
    """A later key of that name is somebody else's."""
    stage = Stage()
    one = standing(stage, answer(header={"revision": "40"}, succeeded=True), answer(header={}))
    assert stage.run(one.change(b"more")) == 40
    [compare] = json.loads(stage.exchanges()[0].body)["compare"]
    assert (compare["target"], compare["create_revision"]) == ("CREATE", "12")
    with pytest.raises(LeaseLost, match=r"^its key is gone$"):
        stage.run(one.change(b"more"))


def test_a_watch_that_is_refused_is_not_asked_for_without_a_pause() -> None:
    """The read decides whether it is worth it."""
    stage = Stage(endpoints="a")
    refused = frame(header={}, canceled=True, cancel_reason="too many")
    one = standing(stage, *(SECOND, "stream", refused) * 3, FIRST)
    assert stage.run(one.turn())
    pauses = stage.slept()
    assert len(pauses) == 3
    assert 0 < pauses[0] < pauses[2]


def test_without_a_leader_it_is_asked_again_as_long_as_the_lease_lives() -> None:
    """However long that is; but not for ever."""
    stage = Stage()
    one = standing(stage, *[refusal("etcdserver: no leader", 14)] * 4, FIRST)
    assert stage.run(one.turn())
    stage.outcomes = [refusal("etcdserver: no leader", 14)] * 1000
    with pytest.raises(LeaseLost):
        stage.run(one.turn())
    assert one.sure_until - 2 <= stage.now <= one.sure_until + 0.01
