"""A cluster for tests: a leader at once, and another one soon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import kvorum.testing
from kvorum.testing import Cluster
from tests.kvorum.testing.helpers import get, lives, put


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with kvorum.testing.cluster() as running:
        yield running


def test_what_one_member_is_told_the_others_know(cluster: Cluster) -> None:
    assert [member.name for member in cluster.members] == ["n1", "n2", "n3"]
    assert cluster.endpoints == [member.endpoint for member in cluster.members]
    put(cluster.urls[0], "a", "1")
    assert [get(url, "a") for url in cluster.urls] == ["1", "1", "1"]


def test_it_goes_on_without_its_leader(cluster: Cluster) -> None:
    lost = cluster.leader()
    lost.kill()
    leader = cluster.leader()
    assert leader is not lost
    put(leader.url, "a", "1")
    lost.restart()
    assert get(lost.url, "a") == "1"
    assert len(cluster.followers()) == 2


def test_its_client_finds_who_lives(cluster: Cluster) -> None:
    client = cluster.client(timeout=20)
    client.put("a", "1")
    cluster.leader().kill()
    assert client.put("a", "2", idempotent=True).revision > 2


def test_a_minority_is_not_healthy(cluster: Cluster) -> None:
    """Without a majority a member can be started, but does not become healthy; with one it does."""
    one, *others = cluster.members
    for member in cluster.members:
        member.kill()
    one.start(wait=False)
    assert not one.is_healthy()
    for member in others:
        member.start(wait=False)
    cluster.wait_until_healthy()
    assert all(member.is_healthy() for member in cluster.members)


def test_a_cluster_may_have_another_size() -> None:
    with kvorum.testing.cluster(size=5) as five:
        assert len(five.members) == 5
        for member in five.followers()[:2]:
            member.kill()
        put(five.leader().url, "a", "1")


def test_nothing_is_left_of_it() -> None:
    with kvorum.testing.cluster() as cluster:
        pids = [member.pid for member in cluster.members]
        directory = cluster.members[0].data_dir.parent
    assert not any(pid is None or lives(pid) for pid in pids)
    assert not directory.exists()


def test_flags_go_to_every_member() -> None:
    with kvorum.testing.cluster(flags=["--max-request-bytes=100"]) as cluster:
        for url in cluster.urls:
            with pytest.raises(OSError, match="HTTP Error 4"):
                put(url, "a", "1" * 1000)


@pytest.mark.parametrize("size", [0, 8, "3"])
def test_a_size_that_no_cluster_has_is_refused(size: object) -> None:
    with (
        pytest.raises(ValueError, match=f"size is {size!r}: expected a number of members from 1 to 7"),
        kvorum.testing.cluster(size=size),  # type: ignore[arg-type]
    ):
        pass
