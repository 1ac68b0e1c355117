"""One call: whom it asks, what it asks again and what not, how long, and with which token."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvorum.errors import ConnectionFailed, InvalidToken, KvorumError, ServerError, Unavailable
from kvorum.plans import SHORTEST_TRY_SECONDS
from tests.kvorum.fake_effects import BROKEN, REFUSED, Stage, Takes, TakesAll, answer, refusal

PUT, RANGE = "/v3/kv/put", "/v3/kv/range"
NO_LEADER = refusal("etcdserver: no leader", 14)
LEADER_CHANGED = refusal("etcdserver: leader changed", 14)
TOO_MANY = refusal("etcdserver: too many requests", 8, 429)
INVALID_TOKEN = refusal("etcdserver: invalid auth token", 16, 401)


@pytest.mark.parametrize("failure", [REFUSED, NO_LEADER, TOO_MANY])
def test_a_write_that_was_not_carried_out_is_asked_for_at_the_next_endpoint(failure: object) -> None:
    stage = Stage(failure, answer(header={"revision": "2"}))
    assert stage.run(stage.core.call(PUT, {})) == {"header": {"revision": "2"}}
    assert stage.asked() == ["a", "b"]


@pytest.mark.parametrize("failure", [BROKEN, LEADER_CHANGED])
def test_a_write_that_may_have_been_carried_out_is_not_asked_for_again(failure: object) -> None:
    stage = Stage(failure)
    with pytest.raises((ConnectionFailed, Unavailable)) as caught:
        stage.run(stage.core.call(PUT, {}))
    assert caught.value.maybe_done
    assert stage.asked() == ["a"]


@pytest.mark.parametrize("failure", [REFUSED, BROKEN, NO_LEADER, LEADER_CHANGED, TOO_MANY])
def test_a_read_is_asked_for_until_somebody_answers(failure: object) -> None:
    stage = Stage(failure, failure, failure, answer(count="1"))
    assert stage.run(stage.core.call(RANGE, {}, safe=True)) == {"count": "1"}
    assert stage.asked() == ["a", "b", "c", "a"]


def test_what_the_server_refuses_for_the_requests_own_sake_is_raised_at_once() -> None:
    stage = Stage(refusal("etcdserver: key is not provided", 3, 400))
    with pytest.raises(ServerError, match="key is not provided") as caught:
        stage.run(stage.core.call(PUT, {}, safe=True))
    assert caught.value.code == 3
    assert not caught.value.maybe_done
    assert stage.asked() == ["a"]


def test_whoever_answered_last_is_asked_first() -> None:
    stage = Stage(REFUSED, answer(), answer())
    stage.run(stage.core.call(PUT, {}))
    stage.run(stage.core.call(PUT, {}))
    assert stage.asked() == ["a", "b", "b"]


def test_that_an_earlier_try_may_have_been_done_is_not_forgotten() -> None:
    """The last one was refused a connection: that tells nothing about the first."""
    stage = Stage(BROKEN, refusal("etcdserver: requested lease not found", 5, 404))
    with pytest.raises(ServerError) as caught:
        stage.run(stage.core.call(PUT, {}, safe=True))
    assert caught.value.maybe_done


def test_only_when_all_have_failed_it_waits_and_longer_each_time() -> None:
    stage = Stage(*[REFUSED] * 9, answer(), timeout=60)
    stage.run(stage.core.call(PUT, {}))
    assert stage.asked() == [*"abcabcabc", "a"]
    first, second, third = stage.slept()
    assert 0.025 <= first <= 0.05
    assert 0.05 <= second <= 0.1
    assert 0.1 <= third <= 0.2


def test_a_call_ends_in_time_with_what_it_met_last() -> None:
    stage = Stage(*[REFUSED] * 1000, timeout=5)
    with pytest.raises(ConnectionFailed, match="refused"):
        stage.run(stage.core.call(PUT, {}))
    assert stage.now <= 1005


def test_what_is_known_not_to_be_done_is_not_made_uncertain_by_a_last_hopeless_try() -> None:
    stage = Stage(Takes(4.98, REFUSED), TakesAll(), timeout=5)
    with pytest.raises(ConnectionFailed, match="refused") as caught:
        stage.run(stage.core.call(PUT, {}))
    assert not caught.value.maybe_done
    assert stage.asked() == ["a"]


def test_a_member_that_hangs_leaves_a_read_time_for_the_others() -> None:
    stage = Stage(TakesAll(), answer(), timeout=6)
    stage.run(stage.core.call(RANGE, {}, safe=True))
    assert [one.timeout for one in stage.exchanges()] == [pytest.approx(2), pytest.approx(2)]
    stage = Stage(TakesAll(), TakesAll(), timeout=1)
    with pytest.raises(ConnectionFailed):
        stage.run(stage.core.call(RANGE, {}, safe=True))
    assert [one.timeout for one in stage.exchanges()] == [SHORTEST_TRY_SECONDS] * 2


def test_a_write_may_take_the_whole_time_for_it_is_not_asked_for_again() -> None:
    stage = Stage(TakesAll(), timeout=6)
    with pytest.raises(ConnectionFailed):
        stage.run(stage.core.call(PUT, {}))
    assert [one.timeout for one in stage.exchanges()] == [pytest.approx(6)]


def test_a_machine_that_is_gone_leaves_a_write_time_for_the_others() -> None:
    """To connect, it has its share; only for the answer it has all of the time."""
    stage = Stage(TakesAll(), timeout=6)
    with pytest.raises(ConnectionFailed):
        stage.run(stage.core.call(PUT, {}))
    assert [one.dial_timeout for one in stage.exchanges()] == [pytest.approx(2)]


def test_what_is_no_answer_of_a_gateway_is_told_as_it_is() -> None:
    from kvorum.plans import Reply

    stage = Stage(Reply(502, b"<html>Bad Gateway</html>"))
    with pytest.raises(ServerError, match=r"502 <html>Bad Gateway") as caught:
        stage.run(stage.core.call(PUT, {}))
    assert caught.value.maybe_done


# Users.


def test_a_user_is_authenticated_once() -> None:
    stage = Stage(answer(token="t1"), answer(), answer(), user="ann", password="secret")
    stage.run(stage.core.call(PUT, {}))
    stage.run(stage.core.call(PUT, {}))
    [login, *calls] = stage.exchanges()
    assert json.loads(login.body) == {"name": "ann", "password": "secret"}
    assert [one.token for one in calls] == ["t1", "t1"]


def test_a_token_that_is_not_known_any_more_is_renewed_and_the_write_repeated() -> None:
    stage = Stage(answer(token="t1"), INVALID_TOKEN, answer(token="t2"), answer(), user="ann", password="x")
    stage.run(stage.core.call(PUT, {}))
    assert [one.token for one in stage.exchanges(PUT)] == ["t1", "t2"]


def test_a_write_that_fails_at_the_login_was_not_carried_out() -> None:
    stage = Stage(*[BROKEN] * 1000, user="ann", password="x")
    with pytest.raises(ConnectionFailed) as caught:
        stage.run(stage.core.call(PUT, {}))
    assert not caught.value.maybe_done
    assert stage.exchanges(PUT) == []


def test_a_token_is_renewed_only_once_for_a_call() -> None:
    stage = Stage(
        *(answer(token="t1"), INVALID_TOKEN, answer(token="t2"), INVALID_TOKEN), user="ann", password="x"
    )
    with pytest.raises(InvalidToken):
        stage.run(stage.core.call(PUT, {}))


def test_a_user_of_a_store_without_users_goes_without_a_token() -> None:
    not_enabled = refusal("etcdserver: authentication is not enabled", 9, 400)
    stage = Stage(not_enabled, answer(), user="ann", password="x")
    stage.run(stage.core.call(PUT, {}))
    assert [one.token for one in stage.exchanges(PUT)] == [""]


def test_a_wrong_password_is_raised() -> None:
    wrong = refusal("etcdserver: authentication failed, invalid user ID or password", 3, 400)
    stage = Stage(wrong, user="ann", password="x")
    with pytest.raises(ServerError, match="invalid user ID or password"):
        stage.run(stage.core.call(PUT, {}))


def test_a_call_at_one_endpoint_renews_its_token_too() -> None:
    stage = Stage(
        *(answer(token="t1"), INVALID_TOKEN, answer(token="t2"), answer(leader="1")), user="ann", password="x"
    )
    assert stage.run(stage.core.call_at("z", "/v3/maintenance/status", {})) == {"leader": "1"}
    assert stage.asked("/v3/maintenance") == ["z", "z"]


@pytest.mark.parametrize("timeout", [0, -1, None, float("inf"), float("nan"), "5"])
def test_what_is_no_time_out_is_refused(timeout: Any) -> None:
    with pytest.raises(KvorumError, match="expected a number of seconds"):
        Stage(timeout=timeout)


def test_what_is_shown_of_a_request_has_no_token_in_it() -> None:
    stage = Stage(answer(token="secret"), answer(), user="ann", password="x")
    stage.run(stage.core.call(PUT, {}))
    [put] = stage.exchanges(PUT)
    assert put.token == "secret"
    assert "secret" not in repr(put)
