"""What must be true of a member's settings, and in which words it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from api.config import ConfigError, InitialMember, ServerConfig, initial_cluster_from

A, B, C = "http://a:2380", "http://b:2380", "http://c:2380"
THREE = f"n1={A},n2={B},n3={C}"


def member(cluster: str = THREE, **settings: Any) -> ServerConfig:
    """n1 of a cluster, with http://a:2380 as its URL."""
    given: dict[str, Any] = {"name": "n1", "listen_peer_urls": (A,), "initial_advertise_peer_urls": (A,)}
    return ServerConfig(initial_cluster=initial_cluster_from(cluster), **{**given, **settings})


def test_the_defaults_are_a_node_that_is_alone() -> None:
    """Without any setting a member founds a cluster of itself and listens for no peers."""
    config = ServerConfig()
    assert config.listen_peer_urls == ()
    assert config.founders == (InitialMember("default", ("http://localhost:2380",)),)


def test_the_founders_are_the_initial_cluster() -> None:
    """--initial-cluster is taken in its order; a name with several URLs is one member."""
    config = member(f"n1={A}, n2={B},n3={C},n2=http://b:9,")
    assert config.founders == config.initial_cluster
    assert config.founders == (
        InitialMember("n1", (A,)),
        InitialMember("n2", (B, "http://b:9")),
        InitialMember("n3", (C,)),
    )


@pytest.mark.parametrize("piece", ["n1", "n1=", f"={A}", A])
def test_a_malformed_piece_is_named(piece: str) -> None:
    """A piece of --initial-cluster that is not NAME=URL is shown."""
    with pytest.raises(ConfigError) as refused:
        initial_cluster_from(f"n2={B},{piece}")
    assert str(refused.value) == (
        f"--initial-cluster has {piece!r}: expected NAME=URL for each member, with commas, such as"
        " n1=http://localhost:2380."
    )


def test_an_empty_cluster_is_refused() -> None:
    """An --initial-cluster that came out empty is not taken for none."""
    with pytest.raises(ConfigError, match=r"^--initial-cluster is empty: expected NAME=URL"):
        initial_cluster_from(" , ")


def test_own_urls_are_compared_as_sets() -> None:
    """The order of one member's URLs does not matter."""
    both = (B, A)
    assert member(f"n1={A},n1={B}", initial_advertise_peer_urls=both).founders[0].peer_urls == (A, B)


def eight(count: int = 8) -> str:
    return f"n1={A}," + ",".join(f"n{number}=http://h:{number}" for number in range(2, count + 1))


def test_seven_voters_and_the_learners_of_a_cluster_that_is_joined() -> None:
    """Seven found a cluster; --initial-cluster of one that is joined may have learners besides."""
    assert len(member(eight(7)).founders) == 7
    assert len(member(eight(8), initial_cluster_state="existing").founders) == 8


@pytest.mark.parametrize(
    ("cluster", "settings", "said"),
    [
        (
            THREE,
            {"name": "n4"},
            "--name is 'n4', but --initial-cluster has only n1, n2 and n3: expected one of those.",
        ),
        (
            "n1=http://localhost:1,n2=http://b:1",
            {"initial_advertise_peer_urls": ("http://127.0.0.1:1",)},
            "--initial-advertise-peer-urls and --initial-cluster differ about n1, with http://127.0.0.1:1"
            " only in --initial-advertise-peer-urls and http://localhost:1 only in --initial-cluster:"
            " expected the same URLs in both, letter for letter.",
        ),
        (
            THREE,
            {"initial_advertise_peer_urls": (A, "http://d:1")},
            "--initial-advertise-peer-urls and --initial-cluster differ about n1, with http://d:1 only in"
            " --initial-advertise-peer-urls: expected the same URLs in both, letter for letter.",
        ),
        (
            f"n1={A},n1={B}",
            {},
            f"--initial-cluster has n1 for 2 URLs, {A} and {B}, of which --initial-advertise-peer-urls has"
            f" not {B}: expected two names for two members, or all the URLs of one member in both.",
        ),
        (
            f"n1={A},n2={A}",
            {},
            f"--initial-cluster has '{A}' for n1 and for n2: expected another URL for each member.",
        ),
        (f"n1={A},n1={A}", {}, f"--initial-cluster has n1={A} twice: expected each URL once."),
        (eight(), {}, "--initial-cluster has 8 members: expected at most 7 voters."),
        (
            eight(9),
            {"initial_cluster_state": "existing"},
            "--initial-cluster has 9 members: expected at most 7 voters and --max-learners (1) learners.",
        ),
        (
            f"n1={A},n2=https://b:1",
            {},
            "--initial-cluster has 'https://b:1': TLS is not there yet, only http:// works.",
        ),
        (f"n1={A},n2=b:1", {}, "--initial-cluster has 'b:1': expected http://HOST:PORT."),
        (
            f"n1={A},n2=http://b:1/",
            {},
            "--initial-cluster has 'http://b:1/': expected http://HOST:PORT, without a path.",
        ),
        (
            f"n1={A},n2=http://0.0.0.0:1",
            {},
            "--initial-cluster has 'http://0.0.0.0:1', which nobody can connect to: expected the URL at"
            " which the other members reach n2.",
        ),
        (
            THREE,
            {"listen_peer_urls": ()},
            "--listen-peer-urls is empty: give at least one URL such as http://localhost:2380.",
        ),
        (
            THREE,
            {"initial_cluster_state": "old"},
            "--initial-cluster-state is 'old': expected new or existing.",
        ),
    ],
)
def test_what_is_wrong_with_a_cluster(cluster: str, settings: dict[str, Any], said: str) -> None:
    """A cluster that cannot be is refused in one sentence that begins with the flag."""
    with pytest.raises(ConfigError) as refused:
        member(cluster, **settings)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "a,b"}, "--name is 'a,b': expected a name without commas and equals signs."),
        ({"name": ""}, "--name is '': expected a name without commas and equals signs."),
        (
            {"initial_cluster_state": "existing"},
            "--initial-cluster-state is existing, but --initial-cluster is not given: expected the members"
            " of the cluster that this one joins.",
        ),
        ({"listen_client_urls": ()}, "--listen-client-urls is empty: give at least one URL"),
        ({"listen_client_urls": ("http://[::1",)}, "--listen-client-urls has 'http://[::1': expected"),
        ({"listen_client_urls": ("http://u@h:1",)}, "--listen-client-urls has 'http://u@h:1': expected"),
        ({"listen_client_urls": ("http://a b:1",)}, "--listen-client-urls has 'http://a b:1': expected"),
        ({"listen_client_urls": ("http://h:x",)}, "--listen-client-urls has 'http://h:x': expected"),
        (
            {"listen_client_urls": ("http://h:1", "http://h:1/")},
            "--listen-client-urls has 'http://h:1/' twice: expected each URL once.",
        ),
        (
            {"listen_peer_urls": ("http://h",)},
            "--listen-peer-urls has 'http://h': expected http://HOST:PORT.",
        ),
        ({"listen_peer_urls": ("http://h:0",)}, "--listen-peer-urls has 'http://h:0': expected"),
        (
            {"listen_peer_urls": ("https://h:1",)},
            "--listen-peer-urls has 'https://h:1': TLS is not there yet",
        ),
        ({"listen_peer_urls": (A, A)}, f"--listen-peer-urls has '{A}' twice"),
        ({"initial_advertise_peer_urls": (A, A)}, f"--initial-advertise-peer-urls has '{A}' twice"),
        (
            {"initial_advertise_peer_urls": (A + "/x",)},
            f"--initial-advertise-peer-urls has '{A}/x': expected http://HOST:PORT.",
        ),
        (
            {"initial_advertise_peer_urls": ("http://[::]:1",)},
            "--initial-advertise-peer-urls has 'http://[::]:1', which nobody can connect to: expected the"
            " URLs at which the other members reach this member (where it is not given, it is what"
            " --listen-peer-urls says).",
        ),
        (
            {"advertise_client_urls": ("http://0.0.0.0:1",)},
            "--advertise-client-urls has 'http://0.0.0.0:1', which nobody can connect to: expected the URLs"
            " at which clients reach this member (where it is not given, it is what --listen-client-urls"
            " says).",
        ),
        (
            {"max_request_bytes": (32 << 20) + 1},
            "--max-request-bytes is 33554433: expected at most 33554432, or",
        ),
        ({"snapshot_catchup_entries": 0}, "--snapshot-catchup-entries is 0: expected 1 or more."),
        ({"max_learners": -1}, "--max-learners is -1: expected 0 or more."),
        ({"heartbeat_interval": 0}, "--heartbeat-interval is 0: expected 1 or more."),
        (
            {"heartbeat_interval": 201},
            "--election-timeout is 1000 ms: expected between 5 times --heartbeat-interval (1005 ms) and"
            " 50000 ms.",
        ),
        ({"election_timeout": 50_001}, "--election-timeout is 50001 ms: expected between"),
    ],
)
def test_what_is_wrong_with_a_member(settings: dict[str, Any], said: str) -> None:
    """A setting that cannot be is refused in one sentence that begins with the flag."""
    with pytest.raises(ConfigError) as refused:
        ServerConfig(**settings)
    assert str(refused.value).startswith(said)
