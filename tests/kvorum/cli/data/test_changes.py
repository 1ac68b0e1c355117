"""Changes are carried out only on what they rest on: each way in which somebody else can be faster."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from kvorum.cli.data import reading
from kvorum.cli.data.changes import MAX_OPERATIONS, Changes, Snapshot, towards
from kvorum.cli.data.committing import Conflict, commit
from kvorum.client import Client
from kvorum.types import KeyValue
from tests.common.servers import Server

_NUMBERS = count()


@pytest.fixture
def client(kvorum_server: Server) -> Iterator[Client]:
    with Client(f"127.0.0.1:{kvorum_server.port}") as client:
        yield client


@pytest.fixture
def prefix(client: Client) -> bytes:
    """With keys a, b, c."""
    prefix = b"/changes%d/" % next(_NUMBERS)
    for name in (b"a", b"b", b"c"):
        client.put(prefix + name, "old")
    return prefix


def stored(client: Client, prefix: bytes) -> dict[bytes, bytes]:
    return {kv.key.removeprefix(prefix): kv.value for kv in client.items(prefix)}


def test_keys_are_added_changed_and_removed_in_one_revision(client: Client, prefix: bytes) -> None:
    """What is as it should be is not written again."""
    before = reading.under(client, prefix)
    wanted = {prefix + b"a": b"new", prefix + b"b": b"old", prefix + b"d": b"new"}
    revision = commit(client, towards(before, wanted, prune=prefix))
    assert stored(client, prefix) == {b"a": b"new", b"b": b"old", b"d": b"new"}
    kvs = reading.under(client, prefix).kvs
    assert [kv.mod_revision == revision for kv in kvs.values()] == [True, False, True]


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize(
    ("faster", "named"),
    [
        (lambda client, prefix: client.put(prefix + b"a", "theirs"), "a"),
        (lambda client, prefix: client.put(prefix + b"a", "old"), "a"),  # again as it was
        (lambda client, prefix: client.delete(prefix + b"a"), "a"),
        (lambda client, prefix: client.put(prefix + b"b", "theirs"), "b"),  # which was to stay
        (lambda client, prefix: client.delete(prefix + b"b"), "b"),
        (lambda client, prefix: client.put(prefix + b"d", "theirs"), "d"),  # which was to be new
    ],
)
def test_who_is_too_late_writes_nothing(
    faster, named: str, prune: bool, client: Client, prefix: bytes
) -> None:
    """Whatever somebody did to a key that the file names: it is named, and theirs stays."""
    before = reading.under(client, prefix)
    wanted = {prefix + b"a": b"new", prefix + b"b": b"old", prefix + b"d": b"new"}
    faster(client, prefix)
    theirs = stored(client, prefix)
    with pytest.raises(Conflict) as refused:
        commit(client, towards(before, wanted, prune=prefix if prune else None))
    name = f"{prefix.decode()}{named}"
    assert refused.value.message == (
        f"{name} changed since it was read (revision {before.revision}): nothing was written"
    )
    assert stored(client, prefix) == theirs


def test_files_that_race_never_mix(client: Client, prefix: bytes) -> None:
    """Four at once write the same keys, again and again: each revision has the keys of one of them, of those
    who read the same state one is first, and the others are told."""
    rounds, keys = 25, [prefix + b"k%d" % n for n in range(20)]
    start = threading.Barrier(4)

    def race(name: bytes) -> list[int]:
        won = []
        for number in range(rounds):
            start.wait()
            wanted = dict.fromkeys(keys, b"%s%d" % (name, number))
            before = reading.of(client, wanted)
            start.wait()
            with contextlib.suppress(Conflict):
                won.append(commit(client, towards(before, wanted)))
        return won

    with ThreadPoolExecutor(4) as pool:
        revisions = [revision for won in pool.map(race, (b"a", b"b", b"c", b"d")) for revision in won]
    assert len(revisions) == rounds
    for revision in revisions:
        found = reading.of(client, keys, revision=revision).kvs.values()
        assert {kv.mod_revision for kv in found} == {revision}
        assert len({kv.value for kv in found}) == 1


def test_prune_sees_what_is_new(client: Client, prefix: bytes) -> None:
    """A key that appears under the prefix meanwhile is neither deleted unseen nor left over unsaid."""
    before = reading.under(client, prefix)
    client.put(prefix + b"new", "theirs")
    with pytest.raises(Conflict, match="/new changed since"):
        commit(client, towards(before, {prefix + b"a": b"new"}, prune=prefix))
    assert stored(client, prefix)[b"new"] == b"theirs"


def test_without_prune_strangers_do_not_matter(client: Client, prefix: bytes) -> None:
    """What others do to keys that the file does not name is their own affair."""
    before = reading.under(client, prefix)
    client.put(prefix + b"c", "theirs")
    client.put(prefix + b"e", "theirs")
    commit(client, towards(before, {prefix + b"a": b"new"}))
    assert stored(client, prefix) == {b"a": b"new", b"b": b"old", b"c": b"theirs", b"e": b"theirs"}


def test_a_large_prune_fits_where_its_changes_do(client: Client, prefix: bytes) -> None:
    """As many new keys as a transaction may have operations, beside the compare of the range."""
    before = reading.under(client, prefix)
    wanted = dict.fromkeys(before.kvs, b"old") | {prefix + b"k%d" % n: b"" for n in range(MAX_OPERATIONS)}
    commit(client, towards(before, wanted, prune=prefix))
    assert len(stored(client, prefix)) == MAX_OPERATIONS + 3


def test_what_stays_is_compared_while_there_is_room() -> None:
    """A file of many keys of which few change is not refused for the compares of the others."""
    kvs = {b"k%03d" % n: KeyValue(b"k%03d" % n, b"", 1, 1, 1, 0) for n in range(MAX_OPERATIONS + 1)}
    wanted = {key: b"new" if key == b"k000" else b"" for key in kvs}
    assert len(towards(Snapshot(1, kvs), wanted).compares()) == 1
    del wanted[b"k128"]
    assert len(towards(Snapshot(1, kvs), wanted).compares()) == MAX_OPERATIONS


def test_nothing_to_do_is_false() -> None:
    """Changes that change nothing are not sent."""
    assert not Changes(Snapshot(1, {}), {})
    assert Changes(Snapshot(1, {}), {b"a": b""})
