"""Responses → JSON bytes (API.md 1.5): proto names and order, int64 as strings, defaults left out.

What never changes in a header is prepared once. An event is encoded once however many streams
carry it: its bytes are cached with the batch it comes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus

import orjson

from api.concurrency import LeaderKey
from api.errors import kind_of, message_of
from api.roster import Member
from api.schema.base64_go import encode
from api.service import Reply, Status, TimeToLive
from kvstate.commands import (
    CompactResponse,
    DeleteRangeResponse,
    LeaseGrantResponse,
    LeaseRevokeResponse,
    PutResponse,
    RangeResponse,
    Response,
    TxnResponse,
)
from kvstate.records import KV_HEAD_BYTES, unpack_kv, unpack_kv_head
from kvstate.types import EventType, KeyValue
from watch.watcher import Batch, WatchEvent, WatchResponse

KVS_PER_PIECE = 1000
"""More key-values than this are not encoded in one go: it would take a millisecond or more."""
SERVER_VERSION = "3.5.1"
"""The etcd version whose behaviour this is; clients parse it as dotted integers."""
CLUSTER_VERSION = "3.5.0"
VERSION_BODY = b'{"etcdserver":"%s","etcdcluster":"%s"}' % (
    SERVER_VERSION.encode(),
    CLUSTER_VERSION.encode(),
)

_ENCODED_BYTES_MAX = 128 << 10
_DELETE = EventType.DELETE  # to look up a member of an enum takes a third of an event's time


class Encoder:
    """Encodes one server's responses."""

    def __init__(self, cluster_id: int, member_id: int) -> None:
        self._head = b'{"header":{"cluster_id":"%d","member_id":"%d"' % (cluster_id, member_id)
        # By identity, which holds as long as the batch is here too.
        self._encoded: dict[int, tuple[Batch, list[bytes]]] = {}
        self._encoded_bytes = 0
        self._last_start = (0, 0, self._head + _header_tail(0, 0))  # for that revision, in that term

    def reply(self, reply: Reply, raft_term: int) -> bytes:
        """To any request for keys, and to what changes leases."""
        response, revision = reply
        start = self._start(revision, raft_term)
        if isinstance(response, RangeResponse):
            return _range_body(start, response)
        return start + _body(response)

    def range_of(self, encoded: EncodedKvs, reply: Reply, raft_term: int) -> list[bytes]:
        """What ``reply`` says, in pieces; its key-values are ``encoded`` already."""
        assert isinstance(reply.response, RangeResponse)
        _, more, count = reply.response
        start, tail = self._start(reply.revision, raft_term), _range_tail(more, count)
        kvs = encoded.pieces
        if len(kvs) < 2:
            return [b"".join((start, b',"kvs":[%s]' % kvs[0] if kvs else b"", tail))]
        return [start + b',"kvs":[', *kvs, b"]" + tail]

    def status(self, status: Status) -> bytes:
        pieces = [
            self._start(status.revision, status.raft_term),
            b',"version":"%s"' % SERVER_VERSION.encode(),
            _int("dbSize", status.db_size),
            _int("leader", status.leader),
            _int("raftIndex", status.raft_index),
            _int("raftTerm", status.raft_term),
            _int("raftAppliedIndex", status.raft_applied_index),
            _int("dbSizeInUse", status.db_size_in_use),
            b',"isLearner":true}' if status.is_learner else b"}",
        ]
        return b"".join(pieces)

    def hash(self, value: int, revision: int, raft_term: int) -> bytes:
        return self._start(revision, raft_term) + (b',"hash":%d}' % value if value else b"}")

    def hash_kv(self, value: int, compact_revision: int, revision: int, raft_term: int) -> bytes:
        hash_piece = b',"hash":%d' % value if value else b""
        compact = _int("compact_revision", compact_revision)
        return b"".join((self._start(revision, raft_term), hash_piece, compact, b"}"))

    def members(self, members: Iterable[Member], raft_term: int) -> bytes:
        return b"".join((self._start(0, raft_term), _members(members), b"}"))

    def member_add(self, member: Member, members: Iterable[Member], raft_term: int) -> bytes:
        added = b',"member":' + _member(member)
        return b"".join((self._start(0, raft_term), added, _members(members), b"}"))

    def move_leader(self) -> bytes:
        return b"{}"  # etcd never fills its header

    def header(self, revision: int, raft_term: int) -> bytes:
        """Where there is nothing more to say."""
        return self._start(revision, raft_term) + b"}"

    def lock(self, key: bytes, revision: int, raft_term: int) -> bytes:
        return b"".join((self._start(revision, raft_term), _bytes("key", key), b"}"))

    def campaign(self, leader: LeaderKey, revision: int, raft_term: int) -> bytes:
        fields = (
            *(_bytes("name", leader.name), _bytes("key", leader.key)),
            *(_int("rev", leader.rev), _int("lease", leader.lease)),
        )
        return b'%b,"leader":{%b}}' % (self._start(revision, raft_term), b"".join(fields).removeprefix(b","))

    def leader(self, kv: KeyValue, revision: int, raft_term: int) -> bytes:
        return b'%b,"kv":%b}' % (self._start(revision, raft_term), _kv(kv))

    def observed(self, kv: KeyValue, revision: int, raft_term: int) -> bytes:
        """One frame of the stream."""
        return b'{"result":%b}\n' % self.leader(kv, revision, raft_term)

    def lease_alive(self, lease_id: int, ttl: int, revision: int, raft_term: int) -> bytes:
        """One message of a stream."""
        start = self._start(revision, raft_term)
        return b'{"result":%b%b%b}}\n' % (start, _int("ID", lease_id), _int("TTL", ttl))

    def lease_time_to_live(
        self, lease_id: int, left: TimeToLive | None, revision: int, raft_term: int
    ) -> bytes:
        ttl, granted_ttl, keys = left or (-1, 0, [])
        pieces = [
            self._start(revision, raft_term),
            _int("ID", lease_id),
            _int("TTL", ttl),
            _int("grantedTTL", granted_ttl),
        ]
        if keys:
            pieces.append(b',"keys":[%b]' % b",".join([b'"%b"' % encode(key) for key in keys]))
        pieces.append(b"}")
        return b"".join(pieces)

    def leases(self, lease_ids: Sequence[int], revision: int, raft_term: int) -> bytes:
        start = self._start(revision, raft_term)
        if not lease_ids:
            return start + b"}"
        return start + b',"leases":[%b]}' % b",".join([b'{"ID":"%d"}' % one for one in lease_ids])

    def watch(self, response: WatchResponse, raft_term: int, max_bytes: int) -> list[bytes]:
        """The frames of one watch response: one, unless its watcher allows fragments and its
        events exceed ``max_bytes`` together."""
        events = self._events(response.events)
        if not response.may_fragment or sum(map(len, events)) <= max_bytes:
            return [self._watch_frame(response, raft_term, events, True)]
        groups = _fragments(events, max_bytes)
        return [self._watch_frame(response, raft_term, group, group is groups[-1]) for group in groups]

    def _watch_frame(
        self, response: WatchResponse, raft_term: int, events: list[bytes], is_last: bool
    ) -> bytes:
        watch_id, revision, created, canceled, compact_revision, cancel_reason, _, _ = response
        # A watch cancelled by compaction is told so under an empty revision, as etcd does.
        start = self._start(0 if compact_revision else revision, raft_term)
        id_ = _int("watch_id", watch_id)
        if events and is_last and not (created or canceled or compact_revision or cancel_reason):
            return b'{"result":%b%b,"events":[%b]}}\n' % (start, id_, b",".join(events))
        pieces = [b'{"result":', start, id_]
        if created:
            pieces.append(b',"created":true')
        if canceled:
            pieces.append(b',"canceled":true')
        pieces.append(_int("compact_revision", compact_revision))
        if cancel_reason:
            pieces.append(b',"cancel_reason":' + _string(cancel_reason))
        if not is_last:
            pieces.append(b',"fragment":true')
        if events:
            pieces += [b',"events":[', b",".join(events), b"]"]
        pieces.append(b"}}\n")
        return b"".join(pieces)

    def _events(self, batch: Batch) -> list[bytes]:
        if not batch:
            return []
        # Streams that were told the same batches follow each other: a few are remembered.
        known = self._encoded.get(id(batch))
        if known is not None:
            return known[1]
        encoded = [_event(event) for event in batch]
        size = sum(map(len, encoded))
        if self._encoded_bytes + size > _ENCODED_BYTES_MAX:
            self._encoded.clear()
            self._encoded_bytes = 0
        self._encoded[id(batch)] = (batch, encoded)
        self._encoded_bytes += size
        return encoded

    def _start(self, revision: int, raft_term: int) -> bytes:
        # Reads between two writes have the same: the last one is remembered.
        last_revision, last_term, start = self._last_start
        if revision != last_revision or raft_term != last_term:
            start = self._head + _header_tail(revision, raft_term)
            self._last_start = (revision, raft_term, start)
        return start


class EncodedKvs:
    """The key-values of a range that may be large, encoded some at a time: a ``kvstate.ranges.Sink``."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def add(self, kvs: Sequence[KeyValue]) -> None:
        if kvs:
            self._append([_kv(kv) for kv in kvs])

    def take(self, places: Sequence[bytes], records: Mapping[bytes, bytes]) -> None:
        """As ``_kv`` does it, without a KeyValue in between: that would be a fifth of a range's time."""
        encoded: list[bytes] = []
        unpack, base64, append = unpack_kv_head, encode, encoded.append
        for place in places:
            data = records[place]
            create, version, lease, key_bytes, user_bytes = unpack(data)
            key_end = KV_HEAD_BYTES + key_bytes
            value = data[key_end + user_bytes :]
            mod = int.from_bytes(place[:8], "big")
            if value and not lease:
                first = b"%d" % create
                append(
                    b'{"key":"%b","create_revision":"%b","mod_revision":"%b","version":"%d","value":"%b"}'
                    % (
                        base64(data[KV_HEAD_BYTES:key_end]),
                        first,
                        first if mod == create else b"%d" % mod,
                        version,
                        base64(value),
                    )
                )
            else:
                append(_kv(unpack_kv(mod, data)))
        if encoded:
            self._append(encoded)

    def _append(self, encoded: list[bytes]) -> None:
        if self.pieces:
            encoded[0] = b"," + encoded[0]
        self.pieces.append(b",".join(encoded))

    def clear(self) -> None:
        self.pieces.clear()


def health_body(reason: str) -> bytes:
    return b'{"health":"%s","reason":%s}' % (b"false" if reason else b"true", _string(reason))


def unary_error(error: Exception) -> bytes:
    """The error body that clients of every gateway version understand."""
    message = _string(message_of(error))
    return b'{"error":%s,"code":%d,"message":%s}' % (message, kind_of(error).code, message)


def stream_error(error: Exception) -> bytes:
    """What ends a stream that has begun: clients of every gateway version understand it."""
    kind = kind_of(error)
    code, phrase = b"%d" % kind.code, _string(HTTPStatus(kind.status).phrase)
    message = _string(message_of(error))
    return b'{"error":{"grpc_code":%b,"http_code":%d,"message":%b,"http_status":%b,"code":%b}}\n' % (
        code,
        kind.status,
        message,
        phrase,
        code,
    )


def _header_tail(revision: int, raft_term: int) -> bytes:
    if revision:
        return b',"revision":"%d","raft_term":"%d"}' % (revision, raft_term)
    return b',"raft_term":"%d"}' % raft_term


def _body(response: Response) -> bytes:
    """Everything behind the header, with the closing brace."""
    # By isinstance and in order of their frequency: patterns that capture take twice as long.
    if isinstance(response, PutResponse):
        prev_kv = response[0]
        return b"}" if prev_kv is None else b',"prev_kv":%b}' % _kv(prev_kv)
    if isinstance(response, RangeResponse):
        return _range_body(b"", response)
    if isinstance(response, TxnResponse):
        succeeded, responses = response
        pieces = [b',"succeeded":true'] if succeeded else []
        if responses:
            encoded = b",".join([_nested(revision, nested) for revision, nested in responses])
            pieces += [b',"responses":[', encoded, b"]"]
        return b"".join(pieces) + b"}"
    if isinstance(response, DeleteRangeResponse):
        deleted, prev_kvs = response
        return b"".join((_int("deleted", deleted), _kvs("prev_kvs", prev_kvs), b"}"))
    if isinstance(response, LeaseGrantResponse):
        lease_id, ttl = response
        return b"".join((_int("ID", lease_id), _int("TTL", ttl), b"}"))
    if isinstance(response, CompactResponse | LeaseRevokeResponse):
        return b"}"
    raise AssertionError(f"a {type(response).__name__} has no encoding")


def _range_body(start: bytes, response: RangeResponse) -> bytes:
    """Behind ``start``; given with it, so that what is most of an answer is copied once less."""
    kvs, more, count = response
    if len(kvs) == 1 and not more and count:
        return b'%b,"kvs":[%b],"count":"%d"}' % (start, _kv(kvs[0]), count)
    return b"".join((start, _kvs("kvs", kvs), _range_tail(more, count)))


def _range_tail(more: bool, count: int) -> bytes:
    return b"".join((b',"more":true' if more else b"", _int("count", count), b"}"))


_MEMBER_NAMES: dict[type, bytes] = {
    RangeResponse: b"response_range",
    PutResponse: b"response_put",
    DeleteRangeResponse: b"response_delete_range",
    TxnResponse: b"response_txn",
}


def _nested(revision: int, response: Response) -> bytes:
    header = b'"revision":"%d"' % revision if revision else b""
    return b'{"%b":{"header":{%b}%b}' % (_MEMBER_NAMES[type(response)], header, _body(response))


def _kvs(name: str, kvs: Sequence[KeyValue]) -> bytes:
    if not kvs:
        return b""
    return b',"%s":[%s]' % (name.encode(), b",".join([_kv(kv) for kv in kvs]))


def _kv(kv: KeyValue) -> bytes:
    key, create, mod, version, value, lease = kv
    if create and version and value and not lease:  # as almost all are
        return b'{"key":"%b","create_revision":"%d","mod_revision":"%d","version":"%d","value":"%b"}' % (
            encode(key),
            create,
            mod,
            version,
            encode(value),
        )
    pieces = [b'{"key":"', encode(key), b'"']
    if create:
        pieces.append(b',"create_revision":"%d"' % create)
    pieces.append(b',"mod_revision":"%d"' % mod)
    if version:
        pieces.append(b',"version":"%d"' % version)
    if value:
        pieces += [b',"value":"', encode(value), b'"']
    if lease:
        pieces.append(b',"lease":"%d"' % lease)
    pieces.append(b"}")
    return b"".join(pieces)


def _event(event: WatchEvent) -> bytes:
    type_, kv, prev_kv = event
    kind = b'"type":"DELETE",' if type_ == _DELETE else b""
    if prev_kv is None:
        return b'{%b"kv":%b}' % (kind, _kv(kv))
    return b'{%b"kv":%b,"prev_kv":%b}' % (kind, _kv(kv), _kv(prev_kv))


def _fragments(events: Sequence[bytes], max_bytes: int) -> list[list[bytes]]:
    """Groups of at most ``max_bytes``, but at least one event each."""
    groups: list[list[bytes]] = [[]]
    size = 0
    for event in events:
        if groups[-1] and size + len(event) > max_bytes:
            groups.append([])
            size = 0
        groups[-1].append(event)
        size += len(event)
    return groups


def _members(members: Iterable[Member]) -> bytes:
    encoded = [_member(member) for member in members]
    return b',"members":[%s]' % b",".join(encoded) if encoded else b""


def _member(member: Member) -> bytes:
    pieces = [b'{"ID":"%d"' % member.id]
    if member.name:
        pieces.append(b',"name":' + _string(member.name))
    for name, urls in ((b"peerURLs", member.peer_urls), (b"clientURLs", member.client_urls)):
        if urls:
            pieces.append(b',"%s":[%s]' % (name, b",".join(_string(url) for url in urls)))
    if member.is_learner:
        pieces.append(b',"isLearner":true')
    pieces.append(b"}")
    return b"".join(pieces)


def _int(name: str, value: int) -> bytes:
    return b',"%s":"%d"' % (name.encode(), value) if value else b""


def _bytes(name: str, value: bytes) -> bytes:
    return b',"%s":"%s"' % (name.encode(), encode(value)) if value else b""


def _string(text: str) -> bytes:
    """A string as Go's encoder writes it: safe to embed in HTML."""
    encoded = orjson.dumps(text.encode("utf-8", "replace").decode())
    for character, escape in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")):
        encoded = encoded.replace(character, escape)
    return encoded.replace("\u2028".encode(), b"\\u2028").replace("\u2029".encode(), b"\\u2029")
