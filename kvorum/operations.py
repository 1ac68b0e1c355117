"""The plans of single calls and of reading page by page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvorum.messages import (
    Message,
    as_bytes,
    b64,
    delete_result,
    key_range,
    prefix_end,
    put_request,
    put_result,
    range_request,
    range_result,
    revision_of,
    txn_result,
    unb64,
)
from kvorum.plans import Core, Plan
from kvorum.txn import TXN, Compare, Operation, TransactionBuilder, txn_request
from kvorum.types import DeleteResult, Key, KeyValue, LeaseInfo, PutResult, RangeResult, TxnResult

RANGE = "/v3/kv/range"
PUT = "/v3/kv/put"
DELETE = "/v3/kv/deleterange"
COMPACT = "/v3/kv/compaction"
SMALL_PAGE_BYTES = 256 * 1024
LARGEST_PAGE_KEYS = 16_000


def read(core: Core, selected: Message, **options: Any) -> Plan[RangeResult]:
    answer = yield from core.call(RANGE, range_request(selected, **options), safe=True)
    return range_result(answer, revision_of(answer))


def get(core: Core, key: Key, **options: Any) -> Plan[KeyValue | None]:
    found = yield from read(core, key_range(key), **options)
    return found.kvs[0] if found.kvs else None


def put(core: Core, key: Key, value: Key, *, lease: int, prev_kv: bool, idempotent: bool) -> Plan[PutResult]:
    request = put_request(key, value, lease=lease, prev_kv=prev_kv)
    answer = yield from core.call(PUT, request, safe=idempotent)
    return put_result(answer, revision_of(answer))


def delete(core: Core, selected: Message, *, prev_kv: bool, idempotent: bool) -> Plan[DeleteResult]:
    answer = yield from core.call(DELETE, {**selected, "prev_kv": prev_kv}, safe=idempotent)
    return delete_result(answer, revision_of(answer))


def transact(
    core: Core,
    compares: Sequence[Compare],
    then: Sequence[Operation[Any]],
    otherwise: Sequence[Operation[Any]] = (),
    *,
    idempotent: bool = False,
) -> Plan[TxnResult]:
    return _transact(core, txn_request(compares, then, otherwise), idempotent)


def carry_out(core: Core, transaction: TransactionBuilder, idempotent: bool) -> Plan[TxnResult]:
    return _transact(core, transaction.request(), idempotent)


def _transact(core: Core, request: Message, idempotent: bool) -> Plan[TxnResult]:
    branches = [*request["success"], *request["failure"]]
    only_reads = all("request_range" in operation for operation in branches)
    answer = yield from core.call(TXN, request, safe=idempotent or only_reads)
    return txn_result(answer, revision_of(answer))


def compact(core: Core, revision: int, physical: bool) -> Plan[None]:
    yield from core.call(COMPACT, {"revision": str(revision), "physical": physical})


def time_to_live(core: Core, lease_id: int, keys: bool) -> Plan[LeaseInfo]:
    answer = yield from core.call("/v3/lease/timetolive", {"ID": str(lease_id), "keys": keys}, safe=True)
    attached = tuple(map(unb64, answer.get("keys", ())))
    return LeaseInfo(lease_id, int(answer.get("TTL", 0)), int(answer.get("grantedTTL", 0)), attached)


def leases(core: Core) -> Plan[list[int]]:
    answer = yield from core.call("/v3/lease/leases", {}, safe=True)
    return [int(one["ID"]) for one in answer.get("leases", ())]


def members(core: Core) -> Plan[list[Message]]:
    answer = yield from core.call("/v3/cluster/member/list", {}, safe=True)
    found: list[Message] = answer["members"]
    return found


def status(core: Core, endpoint: str | None) -> Plan[Message]:
    """Of this endpoint and no other, or of any."""
    path = "/v3/maintenance/status"
    if endpoint is None:
        return (yield from core.call(path, {}, safe=True))
    return (yield from core.call_at(endpoint, path, {}))


class Pages:
    """All keys with a prefix, bit by bit, as of one revision: the first page's or ``revision``. The first one
    has ``size`` keys. While pages are small in bytes, each has twice as many keys as the one before: a server
    counts all that lies behind a page."""

    def __init__(
        self, core: Core, prefix: Key, size: int, revision: int = 0, keys_only: bool = False
    ) -> None:
        if size < 1:
            raise ValueError(f"a page of {size} keys: expected at least 1")
        self._core = core
        self._size = size
        self._keys_only = keys_only
        self._begin = as_bytes(prefix) or b"\0"
        self._end = prefix_end(as_bytes(prefix))
        self.revision = revision
        self.is_at_end = False

    def next_page(self) -> Plan[tuple[KeyValue, ...]]:
        """Raises Compacted where the revision is gone before all was read."""
        selected = {"key": b64(self._begin), "range_end": b64(self._end)}
        page = yield from read(
            self._core, selected, limit=self._size, revision=self.revision, keys_only=self._keys_only
        )
        self.revision = self.revision or page.revision
        self.is_at_end = not page.more
        if page.kvs:
            self._begin = page.kvs[-1].key + b"\0"
        if sum(len(kv.key) + len(kv.value) for kv in page.kvs) < SMALL_PAGE_BYTES:
            self._size = min(2 * self._size, max(self._size, LARGEST_PAGE_KEYS))
        return page.kvs
