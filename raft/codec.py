"""Messages between members as bytes.

A *frame* carries the messages of one batch: a byte with the protocol version, then a msgpack
array with one array ``[tag, *fields]`` per message, the fields in the order of the dataclass.
Three kinds of field have a form of their own: the entries of an AppendEntries are one binary
value (packed once, however many followers get them), and in it ``type, term, data`` of each,
for their indexes follow from prev_log_index; a SnapshotMeta is ``[index, term, membership]``;
what a Propose carries is an array of binaries.

What comes from outside is not trusted: ``decode`` checks the type of every field and raises
``Malformed`` for anything that is not a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from itertools import count
from typing import Any, Final, cast

import msgpack

from raft.core import membership
from raft.core.errors import InvariantViolated
from raft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    Propose,
    ProposeRefused,
    ReadIndexResponse,
    RequestPreVote,
    RequestPreVoteResponse,
    RequestReadIndex,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from raft.core.types import Entry, EntryType, Position, SnapshotMeta

PROTOCOL_VERSION: Final = 2
"""Both ends of a connection must speak the same; it is also the first byte of every frame."""

_VERSION_BYTE = bytes([PROTOCOL_VERSION])
_TYPES: Final = (
    RequestPreVote,
    RequestPreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    AppendEntries,
    AppendEntriesResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    TimeoutNow,
    Propose,
    ProposeRefused,
    RequestReadIndex,
    ReadIndexResponse,
)
"""A message's tag is its place here: never reorder, only append."""

_TAGS: Final = {kind: tag for tag, kind in enumerate(_TYPES)}
_NAMES: Final = {kind: [field.name for field in fields(kind)] for kind in _TYPES}
_ENTRY_TYPES: Final = {int(one): one for one in EntryType}


class Malformed(Exception):
    """These bytes are not a frame of this protocol."""


def encode(messages: Iterable[Message]) -> bytes:
    """One frame. Entries that several messages share are packed once."""
    packed_entries: dict[tuple[int, int, int], bytes] = {}
    rows = []
    for message in messages:
        if type(message) is AppendEntries:
            rows.append(_append_entries(message, packed_entries))
        else:
            rows.append((_TAGS[type(message)], *_plain_fields(message)))
    return _VERSION_BYTE + cast(bytes, msgpack.packb(rows))


def decode(frame: bytes) -> list[Message]:
    """Raises Malformed."""
    if frame[:1] != _VERSION_BYTE:
        version = frame[0] if frame else "none"
        raise Malformed(f"a frame has protocol version {version}, this program speaks {PROTOCOL_VERSION}")
    try:
        rows = msgpack.unpackb(memoryview(frame)[1:], use_list=False)
        if type(rows) is not tuple:
            raise Malformed(f"a frame holds a {type(rows).__name__}: expected an array of messages")
        return [_message(*row) for row in rows]
    except Malformed:
        raise
    except (ValueError, TypeError, InvariantViolated) as error:
        raise Malformed(f"a frame cannot be read: {error}") from error


def _append_entries(m: AppendEntries, packed: dict[tuple[int, int, int], bytes]) -> tuple[Any, ...]:
    entries = m.entries
    # The very same first and last entry: the same part of one log. They live as long as the messages.
    key = (id(entries[0]), id(entries[-1]), len(entries)) if entries else (0, 0, 0)
    data = packed.get(key)
    if data is None:
        flat: list[Any] = []
        for entry in entries:
            flat += (entry.type, entry.term, entry.data)
        data = packed[key] = msgpack.packb(flat)
    return (
        _TAGS[AppendEntries],
        m.source,
        m.target,
        m.term,
        m.prev_log_index,
        m.prev_log_term,
        data,
        m.leader_commit,
    )


def _plain_fields(message: Message) -> list[Any]:
    values = [getattr(message, name) for name in _NAMES[type(message)]]
    if isinstance(message, InstallSnapshot):
        (index, term), members = message.snapshot
        values[-1] = (index, term, membership.encode(members))
    return values


def _message(tag: Any, *values: Any) -> Message:
    if type(tag) is not int or not 0 <= tag < len(_TYPES):
        raise Malformed(f"a message has tag {tag!r}, which this program does not know")
    readers = _READERS[tag]
    if len(values) != len(readers):
        raise Malformed(f"a {_TYPES[tag].__name__} has {len(values)} fields, {len(readers)} were expected")
    if tag == _TAGS[AppendEntries]:
        values = (*values[:5], _entries(values[3], values[5]), values[6])
    kind: Callable[..., Message] = _TYPES[tag]
    return kind(*[read(value) for read, value in zip(readers, values, strict=True)])


def _entries(prev_log_index: Any, data: Any) -> tuple[Entry, ...]:
    flat = msgpack.unpackb(_bytes(data), use_list=False)
    parts = iter(flat)
    entries = []
    for index, kind, term, payload in zip(count(_int(prev_log_index) + 1), parts, parts, parts, strict=False):
        if type(term) is not int or type(payload) is not bytes:
            raise Malformed(f"entry {index} of an AppendEntries is no entry")
        entries.append(Entry(index, term, _entry_type(kind), payload))
    if len(flat) != 3 * len(entries):
        raise Malformed(f"the entries of an AppendEntries have {len(flat)} parts: expected three each")
    return tuple(entries)


def _entry_type(kind: Any) -> EntryType:
    try:
        return _ENTRY_TYPES[kind]
    except KeyError:
        raise Malformed(f"an entry has type {kind!r}, which this program does not know") from None


def _int(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise Malformed(f"a message has {value!r} where a number was expected")
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise Malformed(f"a message has {value!r} where true or false was expected")
    return value


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise Malformed(f"a message has {value!r} where bytes were expected")
    return value


def _int_or_none(value: Any) -> int | None:
    return None if value is None else _int(value)


def _batch(value: Any) -> tuple[bytes, ...]:
    return tuple([_bytes(one) for one in value])


def _snapshot(value: Any) -> SnapshotMeta:
    index, term, members = value
    return SnapshotMeta(Position(_int(index), _int(term)), membership.decode(_bytes(members)))


def _as_it_is(value: Any) -> Any:
    return value


_READERS: Final[tuple[tuple[Callable[[Any], Any], ...], ...]] = (
    (_int, _int, _int, _int, _int),  # RequestPreVote
    (_int, _int, _int, _bool),  # RequestPreVoteResponse
    (_int, _int, _int, _int, _int, _bool),  # RequestVote
    (_int, _int, _int, _bool),  # RequestVoteResponse
    (_int, _int, _int, _int, _int, _as_it_is, _int),  # AppendEntries; its entries were read before
    (_int, _int, _int, _bool, _int, _int, _int),  # AppendEntriesResponse
    (_int, _int, _int, _int, _int),  # Heartbeat
    (_int, _int, _int, _int),  # HeartbeatResponse
    (_int, _int, _int, _snapshot),  # InstallSnapshot
    (_int, _int, _int),  # TimeoutNow
    (_int, _int, _int, _int, _int, _batch),  # Propose
    (_int, _int, _int, _int, _int),  # ProposeRefused
    (_int, _int, _int, _int, _int),  # RequestReadIndex
    (_int, _int, _int, _int, _int, _int_or_none),  # ReadIndexResponse
)
"""How each field of the message with this tag is read."""
