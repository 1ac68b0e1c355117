"""Commands as bytes: what stands in the log, on every disk and every wire.

A command is a msgpack array ``[version, tag, user, wall_clock_ms, *fields]``. User and wall
clock are recorded with the revisions it makes and decide nothing. Golden bytes in the
tests keep this stable; a change needs a new version number.
"""

from __future__ import annotations

from typing import Any

from msgpack import packb, unpackb

from kvstate.commands import (
    Command,
    Compact,
    Compare,
    DeleteRange,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    RequestOp,
    Txn,
)
from kvstate.errors import StateFault

VERSION = 1
_PUT, _DELETE_RANGE, _TXN, _COMPACT, _RANGE = 1, 2, 3, 4, 5
_LEASE_GRANT, _LEASE_REVOKE, _LEASE_CHECKPOINT = 6, 7, 8


def encode(command: Command, *, user: str, wall_clock_ms: int) -> bytes:
    packed: bytes = packb((VERSION, user, wall_clock_ms, _to_fields(command)))
    return packed


def decode(data: bytes) -> tuple[str, int, Command]:
    """Who asked, when by the proposer's wall clock in milliseconds, and for what.

    Raises StateFault for anything this version does not know: a node that cannot understand
    a committed command must not go on without it."""
    unpacked: tuple[int, str, int, tuple[Any, ...]]
    try:
        unpacked = unpackb(data, use_list=False)
        version, user, wall_clock_ms, fields = unpacked
    except (ValueError, TypeError) as error:
        raise StateFault(f"a committed command cannot be decoded: {error}") from error
    if version != VERSION:
        raise StateFault(f"a committed command has format version {version}, this program knows {VERSION}")
    return user, wall_clock_ms, _from_fields(fields)


def _to_fields(op: RequestOp | Command) -> tuple[Any, ...]:
    if isinstance(op, Put):  # the most frequent; its fields are not captured, which takes longer
        return (_PUT, op.key, op.value, op.lease, op.prev_kv, op.ignore_value, op.ignore_lease)
    match op:
        case DeleteRange(key, range_end, prev_kv):
            return (_DELETE_RANGE, key, range_end, prev_kv)
        case Range():
            return (
                _RANGE,
                op.key,
                op.range_end,
                op.limit,
                op.revision,
                op.sort_order,
                op.sort_target,
                op.serializable,
                op.keys_only,
                op.count_only,
                op.min_mod_revision,
                op.max_mod_revision,
                op.min_create_revision,
                op.max_create_revision,
            )
        case Txn(compare, success, failure):
            compares = [(c.result, c.target, c.key, c.range_end, c.operand) for c in compare]
            return (_TXN, compares, [_to_fields(o) for o in success], [_to_fields(o) for o in failure])
        case Compact(revision, physical):
            return (_COMPACT, revision, physical)
        case LeaseGrant(id_, ttl):
            return (_LEASE_GRANT, id_, ttl)
        case LeaseRevoke(id_, expired_in_term):
            return (_LEASE_REVOKE, id_, expired_in_term)
        case LeaseCheckpoint(checkpoints, term):
            return (_LEASE_CHECKPOINT, checkpoints, term)
        case None:
            raise ValueError("an operation with no member set is refused before it is proposed")


def _from_fields(fields: tuple[Any, ...]) -> Any:
    tag = fields[0]
    if tag == _PUT:
        _, key, value, lease, prev_kv, ignore_value, ignore_lease = fields
        return Put(key, value, lease, prev_kv, ignore_value, ignore_lease)
    if tag == _DELETE_RANGE:
        return DeleteRange(*fields[1:])
    if tag == _RANGE:
        return Range(*fields[1:])
    if tag == _TXN:
        _, compares, success, failure = fields
        return Txn(
            tuple([Compare(*compare) for compare in compares]),
            tuple([_from_fields(op) for op in success]),
            tuple([_from_fields(op) for op in failure]),
        )
    if tag == _COMPACT:
        return Compact(*fields[1:])
    if tag == _LEASE_GRANT:
        return LeaseGrant(*fields[1:])
    if tag == _LEASE_REVOKE:
        return LeaseRevoke(*fields[1:])
    if tag == _LEASE_CHECKPOINT:
        return LeaseCheckpoint(*fields[1:])
    raise StateFault(f"a committed command has tag {tag}, which this program does not know")
