"""What a process holds, and one that is forked from it has a copy of."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from kvorum import Client
from tests.common.servers import Server
from tests.kvorum.test_http_sync import in_a_fork

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def client(kvorum_server: Server) -> Iterator[Client]:
    with Client(kvorum_server.url) as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"n-{uuid.uuid4().hex}"


def test_a_lease_is_not_the_childs_to_revoke(client: Client, name: str) -> None:
    with client.lease(10) as lease:
        client.put(name, "1", lease=lease.id)
        assert in_a_fork(lambda: lease.__exit__(None, None, None) or 0) == 0
        assert client.get(name) is not None
    assert client.get(name) is None


def test_a_lease_of_the_childs_own_is(client: Client) -> None:
    """Also where the parent has made it, and the child opens it."""
    lease = client.lease(10)

    def open_and_close() -> bool:
        lease.open().close()
        return lease.id in client.leases()

    assert in_a_fork(open_and_close) == 0


def test_a_lock_is_not_the_childs_to_release(client: Client, name: str) -> None:
    """Its parent is in the midst of what the lock is for."""
    with client.lock(name) as lock:
        assert in_a_fork(lambda: lock.__exit__(None, None, None) or 0) == 0
        assert client.get(lock.key) is not None
        assert in_a_fork(lambda: lock.release() or 0) == 0
        assert client.get(lock.key) is not None
    assert client.range(name, prefix=True).count == 0


def test_a_child_takes_part_in_an_election_for_itself(client: Client, name: str) -> None:
    """Its parent's place is not its own, and it waits for that to be free."""
    with client.election(name) as election:
        election.campaign("parent")
        assert in_a_fork(lambda: client.election(name).campaign("child", timeout=0)) == 0
        assert in_a_fork(lambda: election.resign() or 0) == 0
        leader = client.election(name).leader()
        assert leader is not None
        assert leader.value == b"parent"


def test_a_party_is_not_the_childs_to_take_home(client: Client, name: str) -> None:
    with client.double_barrier(name, parties=1) as barrier:
        assert in_a_fork(lambda: barrier.__exit__(None, None, None) or 0) == 0
        assert client.range(name, prefix=True).kvs[0].value.startswith(b"in ")
    assert client.range(name, prefix=True).count == 0


def test_a_registration_is_not_the_childs_to_withdraw(client: Client, name: str) -> None:
    with client.services.register(name, "10.0.0.1:80") as registration:
        assert in_a_fork(lambda: registration.close() or 0) == 0
        assert len(client.services.resolve(name)) == 1
    assert client.services.resolve(name) == []
