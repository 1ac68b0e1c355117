"""Request bodies → typed requests (API.md 1.2).

The usual body is parsed by orjson and read by the tables below. Whatever that does not
take is read again with ``go_json``, which either understands it or says what etcd would say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from orjson import loads

from api.concurrency import LeaderKey
from api.errors import BadRequest
from api.schema import go_json
from api.schema.base64_go import decode
from api.schema.fields import (
    Field,
    Message,
    enum_reader,
    items,
    read_bool,
    read_bytes,
    read_int64,
    read_string,
    read_uint64,
    repeated,
)
from kvstate.commands import (
    Compact,
    Compare,
    CompareTarget,
    DeleteRange,
    LeaseGrant,
    Put,
    Range,
    RequestOp,
    SortOrder,
    SortTarget,
    Txn,
)
from kvstate.types import EventType
from watch.watcher import WatchCreate

T = TypeVar("T")
TXN_DEPTH_MAX = 100
"""Transactions nested deeper than this are refused: no limit of etcd's allows as many."""

_RANGE = Message(
    Field("key", read_bytes),
    Field("range_end", read_bytes),
    Field("limit", read_int64),
    Field("revision", read_int64),
    Field("sort_order", enum_reader("etcdserverpb.RangeRequest.SortOrder", [o.name for o in SortOrder])),
    Field("sort_target", enum_reader("etcdserverpb.RangeRequest.SortTarget", [t.name for t in SortTarget])),
    Field("serializable", read_bool),
    Field("keys_only", read_bool),
    Field("count_only", read_bool),
    Field("min_mod_revision", read_int64),
    Field("max_mod_revision", read_int64),
    Field("min_create_revision", read_int64),
    Field("max_create_revision", read_int64),
)
_PUT = Message(
    Field("key", read_bytes),
    Field("value", read_bytes),
    Field("lease", read_int64),
    Field("prev_kv", read_bool),
    Field("ignore_value", read_bool),
    Field("ignore_lease", read_bool),
)
_DELETE_RANGE = Message(Field("key", read_bytes), Field("range_end", read_bytes), Field("prev_kv", read_bool))
_COMPARE = Message(
    Field(
        "result", enum_reader("etcdserverpb.Compare.CompareResult", ["EQUAL", "GREATER", "LESS", "NOT_EQUAL"])
    ),
    Field("target", enum_reader("etcdserverpb.Compare.CompareTarget", [t.name for t in CompareTarget])),
    Field("key", read_bytes),
    Field("version", read_int64),
    Field("create_revision", read_int64),
    Field("mod_revision", read_int64),
    Field("value", read_bytes),
    Field("lease", read_int64),
    Field("range_end", read_bytes),
)
_OPERANDS = ("version", "create_revision", "mod_revision", "value", "lease")
_OPERAND_OF: dict[int, str] = {
    CompareTarget.VERSION: "version",
    CompareTarget.CREATE: "create_revision",
    CompareTarget.MOD: "mod_revision",
    CompareTarget.VALUE: "value",
    CompareTarget.LEASE: "lease",
}
_COMPACTION = Message(Field("revision", read_int64), Field("physical", read_bool))
_WATCH_CREATE = Message(
    Field("key", read_bytes),
    Field("range_end", read_bytes),
    Field("start_revision", read_int64),
    Field("progress_notify", read_bool),
    Field(
        "filters",
        repeated(enum_reader("etcdserverpb.WatchCreateRequest.FilterType", ["NOPUT", "NODELETE"])),
    ),
    Field("prev_kv", read_bool),
    Field("watch_id", read_int64),
    Field("fragment", read_bool),
)
_WATCH_CANCEL = Message(Field("watch_id", read_int64))
_EMPTY = Message()
_HASH_KV = Message(Field("revision", read_int64))
_MEMBER_LIST = Message(Field("linearizable", read_bool))
_MEMBER_ADD = Message(Field("peerURLs", repeated(read_string)), Field("isLearner", read_bool))
_MEMBER = Message(Field("ID", read_uint64))  # remove and promote
_MEMBER_UPDATE = Message(Field("ID", read_uint64), Field("peerURLs", repeated(read_string)))
_MOVE_LEADER = Message(Field("targetID", read_uint64))
_LOCK = Message(Field("name", read_bytes), Field("lease", read_int64))
_UNLOCK = Message(Field("key", read_bytes))
_LEADER_KEY = Message(
    Field("name", read_bytes), Field("key", read_bytes), Field("rev", read_int64), Field("lease", read_int64)
)
_CAMPAIGN = Message(Field("name", read_bytes), Field("lease", read_int64), Field("value", read_bytes))
_LEADER = Message(Field("name", read_bytes))
_LEASE_GRANT = Message(Field("TTL", read_int64), Field("ID", read_int64))
_LEASE = Message(Field("ID", read_int64))  # revoke and keepalive
_TIME_TO_LIVE = Message(Field("ID", read_int64), Field("keys", read_bool))


@dataclass(frozen=True, slots=True)
class MemberAdd:
    peer_urls: tuple[str, ...]
    is_learner: bool


@dataclass(frozen=True, slots=True)
class MemberUpdate:
    id: int
    peer_urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lock:
    name: bytes = b""
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Campaign:
    name: bytes = b""
    lease: int = 0
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class AsLeader:
    """Proclaim and resign: ``leader`` is None where none is named."""

    leader: LeaderKey | None = None
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class LeaseTimeToLive:
    id: int
    keys: bool


@dataclass(frozen=True, slots=True)
class CancelWatch:
    watch_id: int


@dataclass(frozen=True, slots=True)
class RequestProgress:
    pass


WatchRequest = WatchCreate | CancelWatch | RequestProgress


def decode_put(body: bytes) -> Put:
    return _decode(body, _put)


def decode_range(body: bytes) -> Range:
    return _decode(body, _range)


def decode_delete_range(body: bytes) -> DeleteRange:
    return _decode(body, _delete_range)


def decode_txn(body: bytes) -> Txn:
    return _decode(body, _txn)


def decode_compaction(body: bytes) -> Compact:
    return _decode(body, lambda value: Compact(**_COMPACTION.read(value)))


def decode_hash_kv(body: bytes) -> int:
    """The revision asked for."""
    return _decode(body, lambda value: int(_HASH_KV.read(value).get("revision", 0)))


def decode_member_list(body: bytes) -> bool:
    """Whether the answer must be linearizable."""
    return _decode(body, lambda value: bool(_MEMBER_LIST.read(value).get("linearizable", False)))


def decode_member_add(body: bytes) -> MemberAdd:
    return _decode(body, _member_add)


def decode_member_id(body: bytes) -> int:
    """The member to be removed or promoted; 0 if none is named, and nobody has that id."""
    return _decode(body, lambda value: int(_MEMBER.read(value).get("ID", 0)))


def decode_member_update(body: bytes) -> MemberUpdate:
    return _decode(body, _member_update)


def decode_move_leader(body: bytes) -> int:
    """The member to become leader."""
    return _decode(body, lambda value: int(_MOVE_LEADER.read(value).get("targetID", 0)))


def decode_lock(body: bytes) -> Lock:
    return _decode(body, lambda value: Lock(**_LOCK.read(value)))


def decode_unlock(body: bytes) -> bytes:
    """The key to be given up."""
    return _decode(body, lambda value: bytes(_UNLOCK.read(value).get("key", b"")))


def decode_campaign(body: bytes) -> Campaign:
    return _decode(body, lambda value: Campaign(**_CAMPAIGN.read(value)))


def decode_proclaim(body: bytes) -> AsLeader:
    return _decode(body, lambda value: AsLeader(**_PROCLAIM.read(value)))


def decode_resign(body: bytes) -> AsLeader:
    return _decode(body, lambda value: AsLeader(**_RESIGN.read(value)))


def decode_leader(body: bytes) -> bytes:
    """The election's name, to ask for its leader or observe it."""
    return _decode(body, lambda value: bytes(_LEADER.read(value).get("name", b"")))


def decode_lease_grant(body: bytes) -> LeaseGrant:
    """As it was asked for: the id may be 0, the TTL anything."""
    return _decode(body, _lease_grant)


def decode_lease_id(body: bytes) -> int:
    """The lease to be revoked or kept alive; 0 if none is named, and no lease has that id."""
    return _decode(body, lambda value: int(_LEASE.read(value).get("ID", 0)))


def decode_lease_time_to_live(body: bytes) -> LeaseTimeToLive:
    return _decode(body, _lease_time_to_live)


def decode_empty(body: bytes) -> None:
    """A request without fields; only its form can be wrong."""
    _decode(body, _EMPTY.read)


def decode_watch_request(body: bytes) -> WatchRequest | None:
    """One message of a watch stream; None for one with no member set, which etcd ignores."""
    return _decode(body, _watch_request)


def _decode(body: bytes, read: Callable[[Any], T]) -> T:
    try:
        return read(loads(body))
    except (ValueError, BadRequest):
        return read(go_json.parse(body))


# The plainest shapes are read without the tables, alone or in a transaction: most requests are like that.


def _range(value: Any) -> Range:
    if type(value) is dict and len(value) == 1:
        key = value.get("key")
        if type(key) is str:
            return Range(decode(key))
    return Range(**_RANGE.read(value))


def _put(value: Any) -> Put:
    if type(value) is dict and len(value) == 2:
        key, data = value.get("key"), value.get("value")
        if type(key) is str and type(data) is str:
            return Put(decode(key), decode(data))
    return Put(**_PUT.read(value))


def _delete_range(value: Any) -> DeleteRange:
    return DeleteRange(**_DELETE_RANGE.read(value))


def _member_add(value: Any) -> MemberAdd:
    fields = _MEMBER_ADD.read(value)
    return MemberAdd(tuple(fields.get("peerURLs", ())), fields.get("isLearner", False))


def _leader_key(value: Any) -> LeaderKey:
    return LeaderKey(**_LEADER_KEY.read(value))


_PROCLAIM = Message(Field("leader", _leader_key), Field("value", read_bytes))
_RESIGN = Message(Field("leader", _leader_key))


def _member_update(value: Any) -> MemberUpdate:
    fields = _MEMBER_UPDATE.read(value)
    return MemberUpdate(fields.get("ID", 0), tuple(fields.get("peerURLs", ())))


def _lease_grant(value: Any) -> LeaseGrant:
    fields = _LEASE_GRANT.read(value)
    return LeaseGrant(fields.get("ID", 0), fields.get("TTL", 0))


def _lease_time_to_live(value: Any) -> LeaseTimeToLive:
    fields = _TIME_TO_LIVE.read(value)
    return LeaseTimeToLive(fields.get("ID", 0), fields.get("keys", False))


def _compare(value: Any) -> Compare:
    fields = _COMPARE.read(value)
    target = fields.get("target", CompareTarget.VERSION)
    given = [name for name in _OPERANDS if name in fields]
    # Of several members of a oneof the last one counts, and only if it belongs to the target.
    fits = bool(given) and given[-1] == _OPERAND_OF.get(target)
    return Compare(
        result=fields.get("result", 0),
        target=target,
        key=fields.get("key", b""),
        range_end=fields.get("range_end", b""),
        operand=fields[given[-1]] if fits else None,
    )


def _txn_messages(depth: int) -> tuple[Message, Message]:
    """A transaction that lies so deep in others, and one of its operations."""
    txn = Message(
        Field("compare", repeated(_compare)),
        Field("success", lambda value: _ops(value, depth)),
        Field("failure", lambda value: _ops(value, depth)),
    )
    request_op = Message(
        Field("request_range", _range),
        Field("request_put", _put),
        Field("request_delete_range", _delete_range),
        Field("request_txn", lambda nested: _txn(nested, depth + 1)),
    )
    return txn, request_op


def _txn(value: Any, depth: int = 0) -> Txn:
    if depth > TXN_DEPTH_MAX:
        raise BadRequest(f"transactions are nested more than {TXN_DEPTH_MAX} deep")
    fields = _TXNS[depth][0].read(value)
    return Txn(
        tuple(fields.get("compare", ())), tuple(fields.get("success", ())), tuple(fields.get("failure", ()))
    )


def _ops(value: Any, depth: int) -> list[RequestOp]:
    return [_op(item, depth) for item in items(value)]


def _op(value: Any, depth: int) -> RequestOp:
    if type(value) is dict and len(value) == 1:
        put = value.get("request_put") or value.get("requestPut")
        if put is not None:
            return _put(put)
    members: list[RequestOp] = list(_TXNS[depth][1].read(value).values())
    return members[-1] if members else None  # the last one counts


_TXNS = [_txn_messages(depth) for depth in range(TXN_DEPTH_MAX + 1)]


def _watch_create(value: Any) -> WatchCreate:
    fields = _WATCH_CREATE.read(value)
    # NOPUT and NODELETE have the numbers of the events that they keep out; others are ignored.
    filters = frozenset(EventType(number) for number in fields.pop("filters", ()) if number in (0, 1))
    return WatchCreate(key=fields.pop("key", b""), filters=filters, **fields)


_WATCH = Message(
    Field("create_request", _watch_create),
    Field("cancel_request", lambda value: CancelWatch(_WATCH_CANCEL.read(value).get("watch_id", 0))),
    Field("progress_request", lambda value: RequestProgress() if not _EMPTY.read(value) else None),
)


def _watch_request(value: Any) -> WatchRequest | None:
    members = list(_WATCH.read(value).values())
    return members[-1] if members else None
