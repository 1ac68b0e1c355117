"""What may be concluded from a refusal, and errors as values."""

from __future__ import annotations

import copy
import pickle

import pytest

from kvorum.errors import (
    Compacted,
    ConnectionFailed,
    KvorumError,
    Unavailable,
    is_unknown_path,
    server_error,
)
from kvorum.plans import is_passing

UNAVAILABLE, EXHAUSTED, UNKNOWN = 14, 8, 2


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("etcdserver: request timed out", UNAVAILABLE),
        ("etcdserver: leader changed", UNAVAILABLE),
        ("etcdserver: server stopped", UNAVAILABLE),
        ("context deadline exceeded", 4),
        ("internal error: see the server's log", 13),
        # etcd gives this code to whatever it has forgotten to give one.
        ("etcdserver: request cancelled", UNKNOWN),
        # etcd carries the write out that crosses the quota, and then says so.
        ("etcdserver: mvcc: database space exceeded", EXHAUSTED),
    ],
)
def test_what_may_have_been_carried_out_is_told_so(message: str, code: int) -> None:
    assert server_error(message, code).maybe_done


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("etcdserver: no leader", UNAVAILABLE),
        ("etcdserver: too many requests", EXHAUSTED),
        ("raft proposal dropped", UNKNOWN),
        ("etcdserver: key is not provided", 3),
        ("etcdserver: requested lease not found", 5),
        ("grpc: received message larger than max (3000028 vs. 2097152)", EXHAUSTED),
    ],
)
def test_what_was_refused_before_anything_was_done_is_not(message: str, code: int) -> None:
    assert not server_error(message, code).maybe_done


def test_what_is_too_large_now_will_be_so_the_next_time() -> None:
    assert not is_passing(server_error("grpc: received message larger than max (3 vs. 2)", EXHAUSTED))
    assert not is_passing(server_error("etcdserver: mvcc: database space exceeded", EXHAUSTED))
    assert is_passing(server_error("etcdserver: too many requests", EXHAUSTED))


def test_a_refusal_that_was_passed_on_as_text_is_understood() -> None:
    """A watch is cancelled with a reason, and a lock refused with a text, that has another error in it."""
    error = server_error("rpc error: code = Unavailable desc = etcdserver: leader changed")
    assert isinstance(error, Unavailable)
    assert (error.message, error.code, error.maybe_done) == ("etcdserver: leader changed", UNAVAILABLE, True)


def test_a_path_that_a_server_does_not_know_is_told_from_what_it_does_not_find() -> None:
    """Older gateways say it in a text of their own, newer ones as a refusal."""
    assert is_unknown_path(server_error("the server answered 404 Not Found"))
    assert is_unknown_path(server_error("Not Found", 5))
    assert not is_unknown_path(server_error("etcdserver: member not found", 5))
    assert not is_unknown_path(server_error("the server answered 400 Not Found"))


@pytest.mark.parametrize(
    "error",
    [
        server_error("etcdserver: authentication failed, invalid user ID or password", 3),
        ConnectionFailed("nobody there", maybe_done=False),
        ConnectionFailed("no answer", maybe_done=True),
        server_error("etcdserver: leader changed", UNAVAILABLE),
        Compacted("gone", compact_revision=7),
    ],
)
def test_errors_travel_between_processes(error: KvorumError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert (str(other), vars(other)) == (str(error), vars(error))
        assert other.maybe_done is error.maybe_done
