"""A client nobody here wrote, unchanged from PyPI, does its whole job against a node."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from etcd3gw.client import Etcd3Client

from tests.common.servers import Server


@pytest.fixture
def client(kvorum_server: Server) -> Etcd3Client:
    return Etcd3Client(host="127.0.0.1", port=kvorum_server.port, api_path="/v3/")


@pytest.fixture
def key() -> str:
    return f"etcd3gw/{uuid.uuid4()}"


def in_background(events: Iterator[dict], count: int) -> tuple[list[dict], threading.Thread]:
    """Collect ``count`` events from a watch."""
    collected: list[dict] = []

    def collect() -> None:
        for event in events:
            collected.append(event)
            if len(collected) == count:
                return

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    return collected, thread


def test_put_then_get(client: Etcd3Client, key: str) -> None:
    """What was put can be got, with its metadata."""
    assert client.get(key) == []
    assert client.put(key, "one")
    assert client.get(key) == [b"one"]
    [(value, metadata)] = client.get(key, metadata=True)
    assert value == b"one"
    assert metadata["key"] == key.encode()
    assert metadata["version"] == "1"
    assert metadata["create_revision"] == metadata["mod_revision"]


def test_get_prefix_and_delete(client: Etcd3Client, key: str) -> None:
    """A prefix brings its keys and no others; deleted keys are gone."""
    for name in ("a", "b", "c"):
        client.put(f"{key}/{name}", name)
    client.put(f"{key}0", "outside")
    assert [value for value, _ in client.get_prefix(f"{key}/", sort_order="ascend")] == [b"a", b"b", b"c"]
    assert client.delete(f"{key}/b")
    assert not client.delete(f"{key}/b")
    assert [value for value, _ in client.get_prefix(f"{key}/")] == [b"a", b"c"]
    assert client.delete_prefix(f"{key}/")
    assert client.get_prefix(f"{key}/") == []
    assert client.get(f"{key}0") == [b"outside"]


def test_create_and_replace(client: Etcd3Client, key: str) -> None:
    """create works once; replace only where the old value is the one expected."""
    assert client.create(key, "one")
    assert not client.create(key, "two")
    assert client.get(key) == [b"one"]
    assert not client.replace(key, "wrong", "two")
    assert client.replace(key, "one", "two")
    assert client.get(key) == [b"two"]


def test_transaction(client: Etcd3Client, key: str) -> None:
    """A transaction takes the branch its compare decides, and answers for each operation."""
    from etcd3gw.utils import _encode

    txn = {
        "compare": [{"key": _encode(key), "result": "EQUAL", "target": "CREATE", "create_revision": 0}],
        "success": [{"request_put": {"key": _encode(key), "value": _encode("made")}}],
        "failure": [{"request_range": {"key": _encode(key)}}],
    }
    first = client.transaction(txn)
    assert first["succeeded"] is True
    assert "response_put" in first["responses"][0]
    second = client.transaction(txn)
    assert "succeeded" not in second
    [kv] = second["responses"][0]["response_range"]["kvs"]
    assert kv["value"] == _encode("made").decode() if isinstance(_encode("made"), bytes) else _encode("made")


def test_watch(client: Etcd3Client, key: str) -> None:
    """A watch brings every change of its key, in order, and ends when it is cancelled."""
    events, cancel = client.watch(key)
    collected, thread = in_background(events, 3)
    client.put(key, "one")
    client.put(key, "two")
    client.delete(key)
    thread.join(timeout=10)
    cancel()
    kinds = [(event.get("type", "PUT"), event["kv"].get("value")) for event in collected]
    assert kinds == [("PUT", b"one"), ("PUT", b"two"), ("DELETE", None)]


def test_watch_prefix(client: Etcd3Client, key: str) -> None:
    """A watch of a prefix brings the changes of its keys and of no others."""
    events, cancel = client.watch_prefix(f"{key}/")
    collected, thread = in_background(events, 2)
    client.put(f"{key}/a", "a")
    client.put(f"{key}0", "outside")
    client.put(f"{key}/b", "b")
    thread.join(timeout=10)
    cancel()
    assert [event["kv"]["key"].decode() for event in collected] == [f"{key}/a", f"{key}/b"]


def test_watch_once(client: Etcd3Client, key: str) -> None:
    """watch_once returns the first change after it was called."""
    found: list[dict] = []
    thread = threading.Thread(target=lambda: found.append(client.watch_once(key, timeout=10)))
    thread.start()
    repeat_until(lambda: not thread.is_alive(), lambda: client.put(key, "seen"))
    thread.join()
    assert found[0]["kv"]["value"] == b"seen"


def repeat_until(done: Callable[[], bool], act: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not done() and time.monotonic() < deadline:
        act()
        time.sleep(0.01)


def test_status_and_members(client: Etcd3Client) -> None:
    """status and members are understood."""
    assert client.status()["version"].count(".") == 2
    [member] = client.members()
    assert member["name"] == "default"


def test_lease(client: Etcd3Client, key: str) -> None:
    """A lease has keys, is refreshed, and takes its keys with it when it is revoked."""
    lease = client.lease(ttl=60)
    assert 50 < lease.ttl() <= 60
    assert lease.keys() == []
    client.put(f"{key}/a", "1", lease=lease)
    client.put(f"{key}/b", "1", lease=lease)
    assert sorted(lease.keys()) == [f"{key}/a".encode(), f"{key}/b".encode()]
    assert lease.refresh() == 60
    events, cancel = client.watch_prefix(f"{key}/")
    collected, thread = in_background(events, 2)
    assert lease.revoke()
    thread.join(timeout=10)
    cancel()
    assert [event["type"] for event in collected] == ["DELETE", "DELETE"]
    assert len({event["kv"]["mod_revision"] for event in collected}) == 1
    assert client.get_prefix(f"{key}/") == []
    assert lease.ttl() == -1
    assert lease.refresh() == -1


def test_a_lease_ends_by_itself(client: Etcd3Client, key: str) -> None:
    """Not renewed, it takes its keys with it, but not before its time."""
    begun = time.monotonic()
    lease = client.lease(ttl=2)
    client.put(key, "1", lease=lease)
    events, cancel = client.watch(key)
    collected, thread = in_background(events, 1)
    thread.join(timeout=15)
    cancel()
    assert [event["type"] for event in collected] == ["DELETE"]
    assert time.monotonic() - begun >= 2
    assert lease.ttl() == -1


def test_lock(client: Etcd3Client, key: str) -> None:
    """One has it; another one only after it was released, or its lease ended."""
    one, other = client.lock(key, ttl=60), client.lock(key, ttl=60)
    assert one.acquire()
    assert not other.acquire()
    assert one.is_acquired()
    assert not other.is_acquired()
    assert not other.release()
    assert one.refresh() == 60
    assert one.release()
    assert other.acquire()
    assert other.lease.revoke()
    assert not other.is_acquired()
    with client.lock(key, ttl=60) as third:
        assert third.is_acquired()
    assert not third.is_acquired()
