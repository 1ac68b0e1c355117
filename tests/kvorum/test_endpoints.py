"""Endpoints: how they may be written, and in which order they are asked."""

from __future__ import annotations

import random

import pytest

from kvorum.endpoints import LONGEST_PAUSE_SECONDS, Endpoints, parsed
from kvorum.errors import KvorumError


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("10.0.0.1", "http://10.0.0.1:2379"),
        ("db.example:99", "http://db.example:99"),
        ("http://a:1", "http://a:1"),
        ("https://a", "https://a:2379"),
        ("http://a:1/", "http://a:1"),
        ("[::1]:5", "http://[::1]:5"),
        ("bücher.example:5", "http://xn--bcher-kva.example:5"),
    ],
)
def test_endpoints_can_be_written_shortly(given: str, meant: str) -> None:
    assert parsed(given) == meant


@pytest.mark.parametrize(
    "given",
    [
        "",
        "ftp://a:1",
        "http://",
        "a:port",
        "a:99999",
        ":1",
        "a:0",
        "::1",
        "unix:///s",
        "a b:1",
        "a\0b:1",
        "ü..x:1",
    ],
)
def test_what_is_no_endpoint_is_refused_with_what_was_expected(given: str) -> None:
    with pytest.raises(KvorumError, match="expected HOST:PORT"):
        parsed(given)


@pytest.mark.parametrize("given", ["http://a:1/etcd", "a:1/etcd", "http://a:1?x=1", "http://a:1#x"])
def test_what_would_be_left_out_of_an_endpoint_is_refused(given: str) -> None:
    with pytest.raises(KvorumError, match="expected HOST:PORT"):
        parsed(given)


def test_a_password_in_an_endpoint_is_not_told_to_everybody() -> None:
    with pytest.raises(KvorumError, match="user=") as caught:
        parsed("http://ann:secret@a:1")
    assert "secret" not in str(caught.value)


def test_with_tls_it_is_the_scheme_that_need_not_be_written() -> None:
    """A password must not go unencrypted because eight letters are missing."""
    assert parsed("a:1", "https") == "https://a:1"
    assert parsed("http://a:1", "https") == "http://a:1"
    assert list(Endpoints("a,http://b", random.Random(1), "https")) == ["https://a:2379", "http://b:2379"]


def test_at_least_one_is_needed() -> None:
    with pytest.raises(KvorumError, match="at least one"):
        Endpoints(" , ", random.Random(1))


def test_clients_begin_with_different_ones() -> None:
    begun = {Endpoints("a,b,c", random.Random(seed)).current for seed in range(50)}
    assert len(begun) == 3


def test_one_that_fails_twice_at_the_same_time_is_left_once() -> None:
    """Two requests that both met its end must not skip the next one."""
    endpoints = Endpoints("a,b,c", random.Random(1))
    first = endpoints.current
    endpoints.failed(first)
    second = endpoints.current
    endpoints.failed(first)
    assert endpoints.current == second != first


def test_pauses_grow_and_are_bounded() -> None:
    endpoints = Endpoints("a,b", random.Random(1))
    assert [endpoints.pause(failures) for failures in (0, 1, 3, 5)] == [0, 0, 0, 0]
    assert 0 < endpoints.pause(2) <= 0.05
    assert LONGEST_PAUSE_SECONDS / 2 <= endpoints.pause(1_000_000) <= LONGEST_PAUSE_SECONDS
