"""Prefixes that are read page by page while others write, and forget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvorum import Client, Compacted
from kvorum.cli.data import listing, reading
from tests.common.servers import Server

KEYS = 250  # more than a page


@pytest.fixture
def client(kvorum_server: Server, key: str) -> Iterator[Client]:
    """The keys are there; before the second page is asked for, they are changed, and history is forgotten."""
    with Client(kvorum_server.url) as client:
        for start in range(0, KEYS, 50):
            with client.txn() as txn:
                for number in range(start, start + 50):
                    txn.put(f"{key}{number:03}", "old")
        yield client
        client.delete(key, prefix=True)


def forgetting(client: Client, key: str, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """From the second read on, so many times."""
    ask, asked, left = client.range, [0], [times]

    def range_(*arguments: Any, **options: Any) -> Any:
        asked[0] += 1
        if asked[0] > 1 and left[0]:
            left[0] -= 1
            client.compact(client.put(f"{key}{KEYS - 1}", "new").revision)
        return ask(*arguments, **options)

    monkeypatch.setattr(client, "range", range_)


READS: dict[str, Callable[[Client, bytes], list[bytes]]] = {
    "under": lambda client, prefix: list(reading.under(client, prefix).kvs),
    "of": lambda client, prefix: list(
        reading.of(client, [b"%b%03d" % (prefix, number) for number in range(KEYS)]).kvs
    ),
    "level": lambda client, prefix: [entry.path for entry in listing.level(client, prefix)],
}


@pytest.mark.parametrize("how", READS)
def test_what_is_forgotten_meanwhile_is_read_anew(
    how: str, client: Client, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has asked for the revision that is gone."""
    forgetting(client, key, monkeypatch, 1)
    assert READS[how](client, key.encode()) == [f"{key}{number:03}".encode() for number in range(KEYS)]


def test_what_is_always_forgotten_cannot_be_read(
    client: Client, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetting(client, key, monkeypatch, 1000)
    with pytest.raises(Compacted):
        reading.under(client, key.encode())


def test_a_revision_that_was_asked_for_is_not_replaced(
    client: Client, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = client.put(f"{key}000", "newer").revision
    forgetting(client, key, monkeypatch, 1)
    with pytest.raises(Compacted):
        reading.under(client, key.encode(), revision=revision)
