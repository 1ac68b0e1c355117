"""What make-mirror does: the copy, what follows, and the loss of either side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

import kvorum.testing
from kvorum import Client, Compacted, ConnectionFailed, Delete, KvorumError, Put
from kvorum.cli.mirroring import Mirroring, reports
from tests.common.ports import free_port
from tests.common.servers import Server

SECONDS = 20.0


@pytest.fixture(scope="module")
def destination() -> Iterator[kvorum.testing.Server]:
    with kvorum.testing.server() as server:
        yield server


@contextmanager
def mirroring(
    source: str,
    destination: str,
    prefix: str,
    there: str,
    *,
    rev: int = 0,
    max_txn_ops: int = 128,
    timeout: float = 5.0,
) -> Iterator[Mirroring]:
    """In a thread, until the block ends."""
    with Client(source, timeout=timeout) as one, Client(destination, timeout=timeout) as other:
        copying = Mirroring(one, other, prefix.encode(), there.encode(), max_txn_ops)
        thread = threading.Thread(target=copying.run, args=(rev,))
        thread.start()
        try:
            yield copying
        finally:
            one.close()
            thread.join(SECONDS)
            assert not thread.is_alive()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def content(client: Client, prefix: str) -> dict[str, bytes]:
    return {kv.key.decode().removeprefix(prefix): kv.value for kv in client.items(prefix)}


def test_keys_are_copied_then_followed(store: Server, destination: kvorum.testing.Server, key: str) -> None:
    """From etcd and from Kvorum. What else is there stays; each revision is one there."""
    with Client(store.url) as here, destination.client() as there:
        there.put(f"there/{key}old", "stays")
        for number in range(300):
            here.put(f"{key}{number:03}", str(number))
        here.put("elsewhere", "unseen")
        with mirroring(store.url, destination.url, key, f"there/{key}") as copying:
            wait_until(lambda: copying.count == 300)
            before = there.range("x").revision
            here.transact([], [Put(f"{key}000", "new"), Delete(f"{key}001"), Put(f"{key}x", b"\xff")])
            here.delete(f"{key}1", prefix=True)
            for number in range(10):
                here.put(f"{key}last", str(number))
            wait_until(lambda: content(there, f"there/{key}").get("last") == b"9")
            assert there.range("x").revision == before + 12
            wait_until(lambda: copying.count == 300 + 3 + 100 + 10)
        assert content(there, f"there/{key}") == {**content(here, key), "old": b"stays"}


def test_a_revision_that_is_too_large_is_cut(
    kvorum_server: Server, destination: kvorum.testing.Server, key: str
) -> None:
    """In transactions of so many keys; what is too large in bytes, too."""
    with Client(kvorum_server.url) as here, destination.client() as there:
        with mirroring(kvorum_server.url, destination.url, key, key, max_txn_ops=7):
            here.transact([], [Put(f"{key}{number}", "x") for number in range(100)])
            here.put(f"{key}end", "")
            wait_until(lambda: "end" in content(there, key))
            revisions = [kv.mod_revision for kv in there.items(key)]
            assert max(revisions.count(revision) for revision in revisions) == 7
        large = b"x" * 1_000_000
        for number in range(3):
            here.put(f"{key}large{number}", large)
        with mirroring(kvorum_server.url, destination.url, key, key):
            wait_until(lambda: content(there, key) == content(here, key))


def test_from_a_revision_on_nothing_is_copied(
    kvorum_server: Server, destination: kvorum.testing.Server, key: str
) -> None:
    """Only what changed from it on is mirrored."""
    with Client(kvorum_server.url) as here, destination.client() as there:
        here.put(f"{key}before", "")
        first = here.put(f"{key}at", "").revision
        here.put(f"{key}behind", "")
        with mirroring(kvorum_server.url, destination.url, key, key, rev=first):
            wait_until(lambda: content(there, key) == {"at": b"", "behind": b""})


def test_both_sides_may_be_lost(capfd: pytest.CaptureFixture[str], key: str) -> None:
    """And come back: nothing is missing, and it is told for whom it waits."""
    with ExitStack() as open_:
        one, other = (open_.enter_context(kvorum.testing.server()) for _ in range(2))
        here, there = (open_.enter_context(server.client()) for server in (one, other))
        for number in range(10):
            here.put(f"{key}{number}", "first")
        with mirroring(one.url, other.url, key, key, timeout=0.5) as copying:
            wait_until(lambda: copying.count == 10)
            other.kill()
            here.put(f"{key}0", "while the destination is down")
            here.delete(f"{key}1")
            wait_until(lambda: "waiting for the destination" in capfd.readouterr().err)
            other.start()
            one.kill()
            with reports(copying, 0.02):
                wait_until(lambda: "waiting for the source" in capfd.readouterr().err)
            one.start()
            here.put(f"{key}2", "behind it", idempotent=True)
            wait_until(lambda: content(there, key).get("2") == b"behind it")
        assert content(there, key) == content(here, key)
        assert content(there, key)["0"] == b"while the destination is down"


def test_an_outage_may_take_an_hour(
    kvorum_server: Server, key: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whose pauses take no time here. They grow, but not for ever, and the trouble is told once."""
    pauses: list[float] = []
    monkeypatch.setattr("kvorum.cli.mirroring.time", SimpleNamespace(sleep=pauses.append))

    class Away(Client):
        def transact(self, *arguments: Any, **options: Any) -> Any:
            if len(pauses) < 4000:
                raise ConnectionFailed("nobody is there")
            return super().transact(*arguments, **options)

    with Client(kvorum_server.url) as source, Away(kvorum_server.url) as destination:
        source.put(f"{key}from/a", "1")
        copying = Mirroring(source, destination, f"{key}from/".encode(), f"{key}to/".encode(), 128)
        thread = threading.Thread(target=copying.run)
        thread.start()
        wait_until(lambda: content(source, f"{key}to/") or not thread.is_alive())
        assert content(source, f"{key}to/") == {"a": b"1"}
        source.close()
        thread.join(SECONDS)
    assert max(pauses) <= 1.0
    assert capfd.readouterr().err == "waiting for the destination: nobody is there\n"


def test_history_that_is_gone_ends_it(
    kvorum_server: Server, destination: kvorum.testing.Server, key: str
) -> None:
    """In the server's words, as etcdctl ends."""
    with Client(kvorum_server.url) as here, destination.client() as there:
        first = here.put(f"{key}a", "1").revision
        here.compact(here.put(f"{key}a", "2").revision)
        with pytest.raises(Compacted, match="required revision has been compacted"):
            Mirroring(here, there, key.encode(), key.encode(), 128).run(first)


def test_what_is_refused_ends_it(kvorum_server: Server, destination: kvorum.testing.Server, key: str) -> None:
    """A key that is the prefix itself has no name without it."""
    with Client(kvorum_server.url) as here, destination.client() as there:
        here.put(key, "1")
        with pytest.raises(KvorumError, match="key is not provided"):
            Mirroring(here, there, key.encode(), b"", 128).run()


@pytest.mark.parametrize("is_source", [True, False])
def test_an_address_where_nobody_is_ends_it(is_source: bool, kvorum_server: Server) -> None:
    """At once: it would wait for ever for somebody who was never there."""
    silent = f"http://127.0.0.1:{free_port()}"
    with Client(kvorum_server.url) as one, Client(silent, timeout=0.2) as other:
        source, destination = (other, one) if is_source else (one, other)
        with pytest.raises(ConnectionFailed):
            Mirroring(source, destination, b"x", b"x", 128).run()


def test_the_count_is_printed_again_and_again(
    kvorum_server: Server, destination: kvorum.testing.Server, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """As a line, in the given distance, while the block runs."""
    with Client(kvorum_server.url) as here, destination.client() as there:
        copying = Mirroring(here, there, b"", b"", 128)
        copying.count = 42
        seen = b""
        with reports(copying, 0.01):
            while seen.count(b"42\n") < 2:
                seen += capfdbinary.readouterr().out
        assert set(seen.split()) == {b"42"}
