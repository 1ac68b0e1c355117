"""Fixtures for pytest: a server, or a cluster, for one test.

    def test_something(kvorum_server):
        app = App(etcd=kvorum_server.endpoint)

    @pytest.mark.kvorum_cluster(size=5)
    def test_failover(kvorum_cluster):
        kvorum_cluster.leader().kill()

pytest loads this module in every run wherever Kvorum is installed: it imports nothing that is not there
already, and everything else comes with the first test that asks for a server.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kvorum.testing import Cluster, Server

_MARKERS = {
    "kvorum_server": ("flags",),
    "kvorum_cluster": ("size", "flags"),
}


def pytest_configure(config: pytest.Config) -> None:
    for marker in (
        "kvorum_server(flags=[]): flags of `kvorum serve` for this test's kvorum_server.",
        "kvorum_cluster(size=3, flags=[]): members, and their flags, of this test's kvorum_cluster.",
    ):
        config.addinivalue_line("markers", marker)


@pytest.fixture
def kvorum_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A Kvorum server with data of its own, for this test."""
    from kvorum.testing import server

    with server(**_options(request, "kvorum_server")) as running:
        yield running


@pytest.fixture
def kvorum_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A Kvorum cluster, for this test: of three members, or as its marker kvorum_cluster says."""
    from kvorum.testing import cluster

    with cluster(**_options(request, "kvorum_cluster")) as running:
        yield running


@pytest.fixture
def kvorum_server_factory() -> Iterator[Callable[..., Server]]:
    """Makes servers that live as long as this test: ``kvorum_server_factory(flags=[])``."""
    from kvorum.testing import server

    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(server(**options))


@pytest.fixture
def kvorum_cluster_factory() -> Iterator[Callable[..., Cluster]]:
    """Makes clusters that live as long as this test: ``kvorum_cluster_factory(size=3, flags=[])``."""
    from kvorum.testing import cluster

    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(cluster(**options))


def _options(request: pytest.FixtureRequest, name: str) -> dict[str, Any]:
    """What the closest marker of this name says."""
    marker = request.node.get_closest_marker(name)
    if marker is None:
        return {}
    known = _MARKERS[name]
    if marker.args or set(marker.kwargs) - set(known):
        given = [repr(value) for value in marker.args]
        given += [f"{key}={value!r}" for key, value in marker.kwargs.items()]
        expected = " and ".join(f"{key}=" for key in known)
        pytest.fail(f"the marker is {name}({', '.join(given)}): expected {expected} only", pytrace=False)
    return dict(marker.kwargs)
