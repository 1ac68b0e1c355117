"""Caches: both shells, on ours and on etcd."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from kvorum import Client
from tests.common.servers import Server, running, start_kvorum
from tests.kvorum.clients import MakeClient

SECONDS = 20.0


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def other(store: Server) -> Any:
    with Client(store.url) as client:
        yield client


def test_it_is_loaded_in_pages_and_answers_from_memory(client: Any, key: str) -> None:
    """All of its prefix and nothing else, in order."""
    for number in range(7):
        client.put(f"{key}{number}", str(number))
    last = client.put(f"{key[:-1]}0", "no").revision  # just behind the prefix
    with client.cache(key, page=2) as cache:
        assert cache.revision >= last
        assert [(kv.key, kv.value) for kv in cache.items()] == [
            (f"{key}{number}".encode(), b"%d" % number) for number in range(7)
        ]
        assert cache.get(f"{key}3") == client.get(f"{key}3")
        assert cache.get(f"{key}x") is None
        with pytest.raises(ValueError, match="is not in the cache: expected a key that begins with"):
            cache.get("elsewhere")


def test_it_has_what_was_waited_for(client: Any, key: str) -> None:
    """Puts, deletions and transactions; also a revision in which others changed something."""
    with client.cache(key) as cache:
        revision = client.put(f"{key}a", "1").revision
        assert cache.wait_for(revision, SECONDS)
        assert cache.get(f"{key}a").value == b"1"
        with client.txn() as t:
            t.put(f"{key}a", "2")
            t.put(f"{key}b", "2")
        assert cache.wait_for(t.revision, SECONDS)
        assert [kv.value for kv in cache.items()] == [b"2", b"2"]
        assert cache.wait_for(client.delete(f"{key}a").revision, SECONDS)
        assert cache.get(f"{key}a") is None
        elsewhere = client.put(f"other/{key}", "").revision
        assert cache.wait_for(elsewhere, SECONDS)
        assert cache.revision >= elsewhere
        assert [kv.key for kv in cache.items()] == [f"{key}b".encode()]
        assert not cache.wait_for(elsewhere + 1000, 0.3)


def test_it_tells_of_changes(client: Any, key: str) -> None:
    """Those of one revision together, each with what was there before; not what it was loaded with."""
    client.put(f"{key}a", "1")
    told: list[Any] = []
    with client.cache(key, on_change=told.append) as cache:
        with client.txn() as t:
            t.put(f"{key}a", "2")
            t.put(f"{key}b", "2")
        deleted = client.delete(f"{key}a").revision
        assert cache.wait_for(deleted, SECONDS)
    assert [change.revision for change in told] == [t.revision, deleted]
    shown = [[(one.type, one.value, one.prev_kv and one.prev_kv.value) for one in c.events] for c in told]
    assert shown == [[("PUT", b"2", b"1"), ("PUT", b"2", None)], [("DELETE", b"", b"2")]]


def test_what_it_is_told_to_call_may_fail(client: Any, key: str, caplog: pytest.LogCaptureFixture) -> None:
    """That is logged, and it follows on."""

    def fail(_: object) -> None:
        raise ZeroDivisionError

    with client.cache(key, on_change=fail) as cache:
        assert cache.wait_for(client.put(f"{key}a", "1").revision, SECONDS)
        assert cache.wait_for(client.put(f"{key}a", "2").revision, SECONDS)
    assert "ZeroDivisionError" in caplog.text


def test_it_never_goes_back_and_is_right_in_the_end(client: Any, other: Client, key: str) -> None:
    """While much changes, it is compacted, and connections are lost."""
    rng = random.Random(1)
    stop = threading.Event()
    seen: list[int] = []
    with client.cache(key) as cache:

        def look() -> None:
            while not stop.is_set():
                seen.append(cache.revision)
                assert all(kv.mod_revision <= cache.revision for kv in cache.items())

        looking = threading.Thread(target=look)
        looking.start()
        for number in range(300):
            name = f"{key}{rng.randrange(20)}"
            if rng.random() < 0.7:
                last = other.put(name, str(number)).revision
            else:
                last = other.delete(name).revision
            if number % 100 == 50:
                other.compact(last)
        assert cache.wait_for(last, SECONDS)
        stop.set()
        looking.join()
        assert cache.items() == list(other.items(key))
    assert seen == sorted(seen)


def test_closed_it_follows_no_longer(client: Any, key: str) -> None:
    """What is in it can still be read."""
    client.put(f"{key}a", "1")
    told: list[Any] = []
    cache = client.cache(key, on_change=told.append)
    cache.close()
    client.put(f"{key}a", "2")
    with client.cache(key) as later:
        assert later.wait_for(client.put(f"{key}b", "2").revision, SECONDS)
    assert cache.get(f"{key}a").value == b"1"
    assert told == []


def test_a_blocking_one_is_a_container(store: Server, key: str) -> None:
    """Of keys."""
    with Client(store.url) as client:
        client.put(f"{key}a", "")
        with client.cache(key) as cache:
            assert len(cache) == 1
            assert f"{key}a" in cache
            assert f"{key}b" not in cache


def test_it_says_what_keeps_it_from_following(tmp_path: Any, make_client: MakeClient) -> None:
    """And goes on by itself when that is over, with what it has missed."""
    with running(start_kvorum(tmp_path)) as server, make_client(server.url, timeout=1) as client:
        client.put("/app/a", "1")
        with client.cache("/app/") as cache:
            server.stop()
            wait_until(lambda: cache.error)
            assert cache.get("/app/a").value == b"1"
            with running(start_kvorum(tmp_path, port=server.port)):
                revision = client.put("/app/a", "2", idempotent=True).revision
                assert cache.wait_for(revision, SECONDS)
                assert cache.get("/app/a").value == b"2"
                assert cache.error is None
