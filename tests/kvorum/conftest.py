"""Real servers and both kinds of clients for the library's suite."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.common.servers import Server, running, start_etcd
from tests.kvorum.clients import SHELLS, MakeClient


@pytest.fixture(scope="session")
def etcd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Real etcd, shared by the session: use keys of your own."""
    with running(start_etcd(tmp_path_factory.mktemp("etcd"))) as server:
        yield server


@pytest.fixture(params=["kvorum", "etcd"])
def store(request: pytest.FixtureRequest) -> Server:
    """Ours, and real etcd."""
    server: Server = request.getfixturevalue(f"{request.param}_server")
    return server


@pytest.fixture(params=list(SHELLS))
def make_client(request: pytest.FixtureRequest) -> MakeClient:
    return SHELLS[request.param]


@pytest.fixture
def client(store: Server, make_client: MakeClient) -> Iterator[Any]:
    with make_client(store.url) as client:
        yield client


@pytest.fixture
def key() -> str:
    """A prefix that no other test uses."""
    return f"{uuid.uuid4().hex}/"
