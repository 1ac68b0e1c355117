"""The client library: the same for both shells, against ours and real etcd."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kvorum import (
    Compacted,
    ConnectionFailed,
    Delete,
    FutureRevision,
    Get,
    LeaseExists,
    LeaseNotFound,
    Put,
    ServerError,
    exists,
    missing,
    value,
)
from tests.common.ports import free_port
from tests.common.servers import Server
from tests.kvorum.clients import MakeClient
from tests.kvorum.raw_server import Connection, raw_server

SECONDS = 20


@contextmanager
def following(watch: Any) -> Iterator[queue.Queue[Any]]:
    """What a watch tells, from now on; what it raises comes last."""
    told: queue.Queue[Any] = queue.Queue()

    def follow() -> None:
        try:
            for event in watch:
                told.put(event)
            told.put(None)
        except Exception as error:
            told.put(error)

    watch.start()
    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield told
    finally:
        watch.close()
        thread.join(SECONDS)
        assert not thread.is_alive(), "a watch that was closed still iterates"


def test_what_is_put_can_be_read(client: Any, key: str) -> None:
    assert client.get(key) is None
    first = client.put(key, "1")
    second = client.put(key, b"\xff", prev_kv=True)
    assert second.revision > first.revision
    assert second.prev_kv.value == b"1"
    found = client.get(key)
    assert (found.key, found.value, found.version) == (key.encode(), b"\xff", 2)
    assert (found.create_revision, found.mod_revision) == (first.revision, second.revision)
    assert client.get(key, revision=first.revision).value == b"1"
    stale = client.get(key, serializable=True)  # of one member among several, perhaps
    assert stale is None or stale.value in (b"1", b"\xff")


def test_ranges(client: Any, key: str) -> None:
    for i in range(5):
        client.put(f"{key}{i}", str(9 - i))
    found = client.range(key, prefix=True, limit=2)
    assert [kv.value for kv in found] == [b"9", b"8"]
    assert (found.count, found.more, len(found)) == (5, True, 2)
    by_value = client.range(key, prefix=True, sort_by="VALUE")
    assert [kv.value for kv in by_value] == [b"5", b"6", b"7", b"8", b"9"]
    backwards = client.range(f"{key}1", f"{key}4", descending=True, keys_only=True)
    assert [(kv.key.decode(), kv.value) for kv in backwards] == [(f"{key}{i}", b"") for i in (3, 2, 1)]
    assert client.range(key, prefix=True, count_only=True).count == 5


def test_a_prefix_is_read_in_pages_at_one_revision(client: Any, key: str) -> None:
    for i in range(10):
        client.put(f"{key}{i}", "old")
    found = []
    for kv in client.items(key, page=3):
        if not found:
            client.put(f"{key}9", "new")
            client.put(f"{key}a", "new")
        found.append(kv)
    assert [kv.key.decode() for kv in found] == [f"{key}{i}" for i in range(10)]
    assert {kv.value for kv in found} == {b"old"}
    assert list(client.items(key + "nothing")) == []


def test_deleting(client: Any, key: str) -> None:
    for i in range(3):
        client.put(f"{key}{i}", str(i))
    assert client.delete(f"{key}0", prev_kv=True).prev_kvs[0].value == b"0"
    assert client.delete(key, prefix=True).deleted == 2
    assert client.delete(key, prefix=True).deleted == 0


def test_a_transaction_reads_like_what_it_does(client: Any, key: str) -> None:
    for expected in (True, False):
        with client.txn() as t:
            t.when(missing(key))
            t.put(key, "first")
            old = t.otherwise.get(key)
        assert t.succeeded is expected
        assert old.is_done is not expected
    assert old.result.kvs[0].value == b"first"


def test_a_transaction_whose_block_raises_is_not_carried_out(client: Any, key: str) -> None:
    def give_up() -> None:
        with client.txn() as t:
            t.put(key, "1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        give_up()
    assert client.get(key) is None


def test_a_transaction_of_values(client: Any, key: str) -> None:
    client.put(key, "1")
    client.put(key + "b", "2")
    compares = [exists(key), value(key) == "1"]
    result = client.transact(compares, [Put(key, "3"), Get(key), Delete(key + "b", prev_kv=True)])
    assert result.succeeded
    _, read, deleted = result.responses
    assert (read.kvs[0].value, deleted.prev_kvs[0].value) == (b"3", b"2")
    assert not client.transact(compares, [Put(key, "4")]).succeeded


def test_refusals_are_told_in_the_servers_words(client: Any, key: str) -> None:
    with pytest.raises(ServerError, match="key is not provided") as caught:
        client.put("", "x")
    assert caught.value.code == 3
    assert not caught.value.maybe_done
    with pytest.raises(LeaseNotFound):
        client.put(key, "x", lease=12345)
    with pytest.raises(FutureRevision):
        client.get(key, revision=1 << 40)


def test_a_lease_that_was_never_there_cannot_be_revoked(client: Any) -> None:
    with pytest.raises(LeaseNotFound):
        client.revoke(12345)


# Watches.


def test_a_watch_tells_changes_in_order(client: Any, key: str) -> None:
    with following(client.watch(key, prefix=True, prev_kv=True)) as told:
        client.put(key + "a", "1")
        client.put(key + "a", "2")
        client.delete(key, prefix=True)
        first, second, third = (told.get(timeout=SECONDS) for _ in range(3))
    assert (first.type, first.value, first.prev_kv) == ("PUT", b"1", None)
    assert (second.value, second.prev_kv.value) == (b"2", b"1")
    assert (third.type, third.key.decode(), third.is_put) == ("DELETE", key + "a", False)
    assert first.revision < second.revision < third.revision
    assert told.get(timeout=SECONDS) is None, "it ended by itself, after it was closed"


def test_a_watch_from_the_past_tells_a_revision_at_once(client: Any, key: str) -> None:
    start = client.put(key + "a", "1").revision
    client.transact([], [Put(key + "b", "1"), Put(key + "c", "1")])
    with client.watch(key, prefix=True, start_revision=start) as watch:
        batches = iter(watch.batches())
        told = [next(batches), next(batches)]
    assert [(one.revision, len(one.events)) for one in told] == [(start, 1), (start + 1, 2)]


def test_filters(client: Any, key: str) -> None:
    with following(client.watch(key, prefix=True, puts=False)) as told:
        client.put(key + "a", "1")
        client.delete(key + "a")
        assert told.get(timeout=SECONDS).type == "DELETE"
    with pytest.raises(ValueError, match="tells nothing"):
        client.watch(key, puts=False, deletes=False)


def test_who_stops_to_iterate_and_begins_again_misses_nothing(client: Any, key: str) -> None:
    """Many revisions come at once from the past; they are told one by one."""
    start = client.put(key, "0").revision
    for number in range(1, 6):
        client.put(key, str(number))
    client.transact([], [Put(key, "6"), Put(key + "b", "7")])
    with client.watch(key, prefix=True, start_revision=start) as watch:
        for number in range(3):
            event = next(iter(watch))
            assert event.value == b"%d" % number
            assert watch.next_revision == event.revision + 1, "what is told, not what was received"
        told = [next(iter(watch.batches())) for _ in range(3)]
        assert [event.value for batch in told for event in batch.events] == [b"3", b"4", b"5"]
        assert next(iter(watch)).value == b"6"
        assert watch.next_revision == told[-1].revision + 1, "the revision is not told completely"
        [rest] = next(iter(watch.batches())).events
        assert rest.value == b"7"


def test_a_watch_that_was_closed_tells_nothing_more(client: Any, key: str) -> None:
    start = client.put(key, "0").revision
    client.put(key, "1")
    with client.watch(key, start_revision=start) as watch:
        next(iter(watch))
    assert list(watch) == []


def test_a_watch_may_be_closed_while_it_looks_for_somebody(make_client: MakeClient) -> None:
    with make_client(f"127.0.0.1:{free_port()}") as client:
        watch = client.watch("a")
        started: queue.Queue[Any] = queue.Queue()

        def start() -> None:
            try:
                started.put(watch.start())
            except BaseException as error:
                started.put(error)

        threading.Thread(target=start, daemon=True).start()
        wait_until(lambda: watch._plans.failure is not None if hasattr(watch, "_plans") else True)
        watch.close()
        assert started.get(timeout=SECONDS) == 0


def test_a_value_far_larger_than_a_packet_is_told(client: Any, key: str) -> None:
    with following(client.watch(key)) as told:
        client.put(key, b"\x00\xff" * 500_000)
        assert told.get(timeout=SECONDS).value == b"\x00\xff" * 500_000


def test_what_was_compacted_is_told_as_such(client: Any, key: str) -> None:
    old = client.put(key, "1").revision
    now = client.put(key, "2").revision
    client.compact(now)
    with pytest.raises(Compacted):
        client.get(key, revision=old)
    with pytest.raises(Compacted) as caught:
        list(client.watch(key, start_revision=old))
    assert caught.value.compact_revision >= now


# Leases.


def test_a_lease_lives_as_long_as_its_block(client: Any, key: str) -> None:
    with client.lease(5) as lease:
        client.put(key, "1", lease=lease.id)
        assert client.time_to_live(lease.id, keys=True).keys == (key.encode(),)
        assert client.get(key).lease == lease.id
        assert lease.id in client.leases()
    assert client.get(key) is None
    assert client.time_to_live(lease.id).ttl == -1


def test_a_lease_is_kept_alive(client: Any) -> None:
    """Past its TTL: it is certain to live for longer than it was granted for."""
    with client.lease(2) as lease:
        granted_until = lease.sure_until
        wait_until(lambda: lease.sure_until > granted_until + 2)
        assert client.keep_alive(lease.id) == lease.ttl
        assert not lease.is_lost


def test_the_loss_of_a_lease_is_told(client: Any) -> None:
    lost: queue.Queue[str] = queue.Queue()
    lease = client.lease(2, on_lost=lost.put)
    with lease:
        client.revoke(lease.id)
        assert lost.get(timeout=SECONDS) == "the lease has ended"
        assert lease.is_lost
    assert lost.empty(), "told once"


def test_a_keeper_that_meets_a_defect_does_not_go_silently(client: Any) -> None:
    lost: queue.Queue[str] = queue.Queue()

    def broken() -> None:
        raise ZeroDivisionError("a defect")

    lease = client.lease(2, on_lost=lost.put)
    lease._plans.keep = broken
    with lease:
        assert "ZeroDivisionError('a defect')" in lost.get(timeout=SECONDS)
        assert lease.is_lost


def test_what_a_block_raises_is_told_and_not_that_its_lease_could_not_be_revoked(
    make_client: MakeClient,
) -> None:
    def grants(connection: Connection) -> None:
        request = connection.request()
        assert request is not None
        connection.answer(ID=request["ID"], TTL="60")

    def fail(client: Any) -> None:
        with client.lease(60):
            raise ZeroDivisionError

    with (
        raw_server(grants, Connection.request) as server,
        make_client(server.url, timeout=0.3) as client,
        pytest.raises(ZeroDivisionError),
    ):
        fail(client)


def test_leases_by_hand(client: Any) -> None:
    chosen = client.grant(60, id=client.grant(60) + 1)
    with pytest.raises(LeaseExists):
        client.grant(60, id=chosen)
    client.revoke(chosen)
    assert client.keep_alive(chosen) == 0


# Members.


def test_members_and_status(client: Any, store: Server) -> None:
    [member] = client.members()
    assert client.status()["leader"] == client.status(store.url)["leader"] == member["ID"]


def test_a_dead_endpoint_costs_nothing_but_a_try(store: Server, make_client: MakeClient, key: str) -> None:
    dead = f"127.0.0.1:{free_port()}"
    for _ in range(5):  # clients begin at random
        with make_client([dead, store.url]) as client:
            client.put(key, "1")
            with following(client.watch(key)) as told:
                client.put(key, "2")
                assert told.get(timeout=SECONDS).value == b"2"


def test_nobody_there_is_told_in_one_sentence(make_client: MakeClient) -> None:
    with make_client(f"127.0.0.1:{free_port()}", timeout=0.3) as client:
        with pytest.raises(ConnectionFailed, match="cannot connect to 127") as caught:
            client.put("a", "1")
        assert not caught.value.maybe_done


def wait_until(condition: Any) -> None:
    deadline = threading.Event()
    for _ in range(SECONDS * 50):
        if condition():
            return
        deadline.wait(0.02)
    raise AssertionError("it did not come about")
