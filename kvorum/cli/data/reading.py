"""Keys page by page, all at one revision."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, TypeVar

from kvorum.cli.data.changes import Snapshot
from kvorum.errors import Compacted
from kvorum.messages import prefix_end
from kvorum.types import KeyValue

if TYPE_CHECKING:
    from kvorum.client import Client

_FIRST_PAGE = 100
_PAGE_BYTES = 2 << 20
_PAGE_KEYS_MAX = 5_000
# Other keys between those that are asked for that it is worth to read along.
_STRANGERS_PER_KEY, _STRANGERS = 20, 1_000
_TRIES = 5
Report = Callable[[int, int], None]
T = TypeVar("T")


def _nobody(done: int, total: int) -> None:
    pass


def under(
    client: Client, prefix: bytes, *, revision: int = 0, keys_only: bool = False, report: Report = _nobody
) -> Snapshot:
    """All that is under a prefix, at ``revision`` or now. ``report`` is told how many of how many are read.
    Raises Compacted and FutureRevision."""
    start, end = prefix or b"\0", prefix_end(prefix)
    return at_one_revision(lambda: _between(client, start, end, revision, keys_only, report), revision)


def at_one_revision(read: Callable[[], T], revision: int = 0) -> T:
    """What is read in pages. Where all is to be as of now, and the history of the first page is compacted
    before the last is read, it is begun anew. Raises Compacted where that is so again and again."""
    for _ in range(_TRIES - 1):
        try:
            return read()
        except Compacted:
            if revision:
                raise
    return read()


def _between(
    client: Client, start: bytes, end: bytes, revision: int, keys_only: bool, report: Report
) -> Snapshot:
    kvs: dict[bytes, KeyValue] = {}
    limit, total = _FIRST_PAGE, 0
    while True:
        page = client.range(start, end, limit=limit, revision=revision, keys_only=keys_only)
        revision, total = revision or page.revision, total or page.count
        kvs.update((kv.key, kv) for kv in page.kvs)
        report(len(kvs), total)
        if not page.more:
            return Snapshot(revision, kvs)
        start = page.kvs[-1].key + b"\0"
        size = sum(len(kv.key) + len(kv.value) for kv in page.kvs) // len(page.kvs) + 1
        limit = max(1, min(_PAGE_KEYS_MAX, _PAGE_BYTES // size))


def of(client: Client, keys: Collection[bytes], *, revision: int = 0, report: Report = _nobody) -> Snapshot:
    """Those of these keys that there are, at ``revision`` or now."""
    return at_one_revision(lambda: _of(client, keys, revision, report), revision)


def _of(client: Client, keys: Collection[bytes], revision: int, report: Report) -> Snapshot:
    if not keys:
        return Snapshot(revision or client.range(b"\0", limit=1, keys_only=True).revision, {})
    first, end = min(keys), max(keys) + b"\0"
    span = client.range(first, end, revision=revision, count_only=True)
    revision = revision or span.revision
    if span.count <= _STRANGERS + _STRANGERS_PER_KEY * len(keys):
        whole = _between(client, first, end, revision, False, report)
        return Snapshot(revision, {key: kv for key, kv in whole.kvs.items() if key in keys})
    found = {}
    for done, key in enumerate(sorted(keys), 1):
        if kv := client.get(key, revision=revision):
            found[key] = kv
        report(done, len(keys))
    return Snapshot(revision, found)
