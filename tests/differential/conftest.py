"""Two servers that live through the same requests, so that their revisions stay the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.common.servers import Server, running, start_etcd, start_kvorum


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Real etcd, whose requests all go to ``kvorum`` too."""
    with running(start_etcd(tmp_path_factory.mktemp("etcd"))) as server:
        yield server


@pytest.fixture(scope="session")
def kvorum(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A node of ours, whose requests all go to ``etcd`` too."""
    with running(start_kvorum(tmp_path_factory.mktemp("kvorum"))) as server:
        yield server
