"""Keys of one cluster copied to another, then their changes, as long as it is wanted.

The copy is of one revision, and the watch begins at the next: nothing is missed in between. Each revision
that is followed is one transaction there, if it is not larger than a transaction may be. What cannot be done
for now, because no member answers, is tried until it can: to put or delete the same twice does no harm.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from typing import Any, TypeVar

from kvorum.cli import output
from kvorum.client import Client, Watch
from kvorum.errors import KvorumError, PermissionDenied
from kvorum.operations import Pages
from kvorum.plans import is_passing
from kvorum.txn import Delete, Operation, Put

REPORT_SECONDS = 30.0
PAGE_KEYS = 1000
TXN_BYTES = 1024 * 1024
"""Of keys and values in base64, in one transaction: servers take 1.5 MiB, and a little more where one value
alone is so large."""
T = TypeVar("T")


class Mirroring:
    """Keys that begin with ``prefix`` begin with ``there`` in the other cluster."""

    def __init__(
        self, source: Client, destination: Client, prefix: bytes, there: bytes, max_txn_ops: int
    ) -> None:
        self.count = 0  # keys put or deleted so far
        self._watch: Watch | None = None
        self._source, self._destination = source, destination
        self._prefix, self._there = prefix, there
        self._max_txn_ops = max_txn_ops

    def run(self, revision: int = 0) -> None:
        """Copy and follow; or with a ``revision`` above 1 only follow, from it on. Raises KvorumError: where
        one of the two cannot be reached at first, or refuses; Compacted where changes are gone before they
        were seen."""
        _reach(self._source, self._prefix)
        _reach(self._destination, self._there)
        if revision <= 1:
            revision = self._copy() + 1
        with self._source.watch(self._prefix, prefix=True, start_revision=revision) as watch:
            self._watch = watch
            for _, events in watch.batches():
                self._write(
                    Put(self._named(event.key), event.value)
                    if event.is_put
                    else Delete(self._named(event.key))
                    for event in events
                )

    @property
    def trouble(self) -> KvorumError | None:
        """What keeps it from hearing of the source; None if nothing does."""
        return self._watch.failure if self._watch else None

    def _copy(self) -> int:
        """Returns the revision that is copied."""
        pages = Pages(self._source.core, self._prefix, PAGE_KEYS)
        while not pages.is_at_end:
            page = _until_done(lambda: self._source.run(pages.next_page()), "the source")
            self._write(Put(self._named(kv.key), kv.value) for kv in page)
        return pages.revision

    def _named(self, key: bytes) -> bytes:
        return self._there + key[len(self._prefix) :]

    def _write(self, operations: Iterable[Operation[Any]]) -> None:
        destination = self._destination
        for some in self._parted(operations):
            _until_done(partial(destination.transact, [], some, idempotent=True), "the destination")
            self.count += len(some)

    def _parted(self, operations: Iterable[Operation[Any]]) -> Iterator[list[Operation[Any]]]:
        """As many at a time as one transaction takes."""
        some: list[Operation[Any]] = []
        size = 0
        for operation in operations:
            more = len(operation.request["key"]) + len(operation.request.get("value", ""))
            if some and (len(some) == self._max_txn_ops or size + more > TXN_BYTES):
                yield some
                some, size = [], 0
            some.append(operation)
            size += more
        if some:
            yield some


def _reach(client: Client, prefix: bytes) -> None:
    """Raises KvorumError where nobody answers: at first that is rather a wrong address than an outage."""
    with suppress(PermissionDenied):  # who may only write there need not read
        client.range(prefix, prefix=True, limit=1, keys_only=True)


def _tell(who: str, error: KvorumError) -> None:
    print(f"waiting for {who}: {error}", file=sys.stderr, flush=True)


def _until_done(attempt: Callable[[], T], who: str) -> T:
    """Raises KvorumError where it would not go better another time. Trouble is told once."""
    for tries in count():
        try:
            return attempt()
        except KvorumError as error:
            if not is_passing(error):
                raise
            if not tries:
                _tell(who, error)
            time.sleep(min(0.1 * 2 ** min(tries, 4), 1.0))
    raise AssertionError


@contextmanager
def reports(copying: Mirroring, seconds: float = REPORT_SECONDS) -> Iterator[None]:
    """While the block runs, the count is printed again and again, as etcdctl does; and for whom it waits."""
    end = threading.Event()

    def report() -> None:
        while not end.wait(seconds):
            output.write(f"{copying.count}\n")
            if copying.trouble:
                _tell("the source", copying.trouble)

    threading.Thread(target=report, name="kvorum-mirror-count", daemon=True).start()
    try:
        yield
    finally:
        end.set()
