"""Reads that are all as of one revision: that of the first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from kvorum.errors import ServerError
from kvorum.rendering.ranges import Range, of_key, of_prefix
from kvorum.txn import Get, Operation
from kvorum.types import KeyValue, RangeResult, TxnResult

PAGE = 1000
KEYS_AT_ONCE = 64
"""Read by one request. More would make one answer too large, where values are."""


class Reader(Protocol):
    """As much of a client as is needed here."""

    def range(
        self, key: bytes, range_end: bytes | None = None, *, limit: int = 0, revision: int = 0
    ) -> RangeResult: ...

    def transact(
        self, compares: Sequence[Any], then: Sequence[Operation[Any]], *, idempotent: bool = False
    ) -> TxnResult: ...


class Snapshot:
    """What was read once is not asked for again. Reads raise KvorumError: Compacted where others have had so
    much of the history forgotten meanwhile that it has to be begun anew."""

    def __init__(self, client: Reader) -> None:
        self._client = client
        self._known: dict[Range, tuple[KeyValue, ...]] = {}
        self.revision = 0

    def key(self, key: bytes) -> KeyValue | None:
        found = self._read(of_key(key))
        return found[0] if found else None

    def below(self, prefix: bytes) -> tuple[KeyValue, ...]:
        """In the order of their keys."""
        return self._read(of_prefix(prefix))

    def expect(self, ranges: Iterable[Range]) -> None:
        """These are likely to be read: the single keys among them are asked for by the dozen. Raises as reads
        do, but where the server refuses it is left to the reads: it may have been one of many."""
        keys = sorted(one for one in ranges if one == of_key(one.start) and one not in self._known)
        with suppress(ServerError):
            for at in range(0, len(keys), KEYS_AT_ONCE):
                some = keys[at : at + KEYS_AT_ONCE]
                gets = [Get(one.start, revision=self.revision) for one in some]
                answer = self._client.transact([], gets, idempotent=True)
                self.revision = self.revision or answer.revision
                for one, result in zip(some, answer.responses, strict=True):
                    assert isinstance(result, RangeResult)
                    self._known[one] = result.kvs

    def _read(self, wanted: Range) -> tuple[KeyValue, ...]:
        if wanted not in self._known:
            self._known[wanted] = self._ask(wanted)
        return self._known[wanted]

    def _ask(self, wanted: Range) -> tuple[KeyValue, ...]:
        start = wanted.start
        found: list[KeyValue] = []
        while True:
            answer = self._client.range(start, wanted.end, limit=PAGE, revision=self.revision)
            self.revision = self.revision or answer.revision
            found += answer.kvs
            if not answer.more:
                return tuple(found)
            start = found[-1].key + b"\0"


class Reads:
    """What one template reads of a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.ranges: set[Range] = set()

    def key(self, key: bytes) -> KeyValue | None:
        self.ranges.add(of_key(key))
        return self._snapshot.key(key)

    def below(self, prefix: bytes) -> tuple[KeyValue, ...]:
        self.ranges.add(of_prefix(prefix))
        return self._snapshot.below(prefix)
