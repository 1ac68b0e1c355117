"""etcdserverpb.KV: range, put, delete, txn, compaction."""

from __future__ import annotations

from api.schema import requests
from api.schema.responses import KVS_PER_PIECE, Encoder
from api.service import Service
from kvstate.commands import RangeResponse


async def range_(service: Service, encoder: Encoder, body: bytes) -> bytes:
    reply = await service.range(requests.decode_range(body))
    assert isinstance(reply.response, RangeResponse)
    if len(reply.response.kvs) <= KVS_PER_PIECE:
        return encoder.range(reply, service.raft_term)
    pieces = []
    for piece in encoder.range_in_pieces(reply, service.raft_term):
        pieces.append(piece)
        await service.turns.next()
    return b"".join(pieces)


async def put(service: Service, encoder: Encoder, body: bytes) -> bytes:
    reply = await service.put(requests.decode_put(body))
    return encoder.put(reply, service.raft_term)


async def delete_range(service: Service, encoder: Encoder, body: bytes) -> bytes:
    reply = await service.delete_range(requests.decode_delete_range(body))
    return encoder.delete_range(reply, service.raft_term)


async def txn(service: Service, encoder: Encoder, body: bytes) -> bytes:
    reply = await service.txn(requests.decode_txn(body))
    return encoder.txn(reply, service.raft_term)


async def compaction(service: Service, encoder: Encoder, body: bytes) -> bytes:
    reply = await service.compact(requests.decode_compaction(body))
    return encoder.compaction(reply, service.raft_term)


UNARY = {
    "/v3/kv/range": range_,
    "/v3/kv/put": put,
    "/v3/kv/deleterange": delete_range,
    "/v3/kv/txn": txn,
    "/v3/kv/compaction": compaction,
}
