"""etcdserverpb.KV: range, put, delete, txn, compaction."""

from __future__ import annotations

from api.http import Answer
from api.schema import requests
from api.schema.responses import KVS_PER_PIECE, EncodedKvs, Encoder
from api.service import Service
from kvstate.commands import RangeResponse
from kvstate.ranges import is_plain


async def range_(service: Service, encoder: Encoder, body: bytes) -> Answer:
    request = requests.decode_range(body)
    if not request.range_end:
        return encoder.reply(await service.range(request), service.raft_term)
    if is_plain(request):
        encoded = EncodedKvs()
        reply = await service.range(request, encoded)
        return encoder.range_of(encoded, reply, service.raft_term)
    reply = await service.range(request)
    assert isinstance(reply.response, RangeResponse)
    encoded = EncodedKvs()
    kvs = reply.response.kvs
    for begin in range(0, len(kvs), KVS_PER_PIECE):
        if begin:
            await service.turns.next()
        encoded.add(kvs[begin : begin + KVS_PER_PIECE])
    return encoder.range_of(encoded, reply, service.raft_term)


async def put(service: Service, encoder: Encoder, body: bytes) -> bytes:
    reply = await service.put(requests.decode_put(body))
    return encoder.reply(reply, service.raft_term)


async def delete_range(service: Service, encoder: Encoder, body: bytes) -> bytes:
    reply = await service.delete_range(requests.decode_delete_range(body))
    return encoder.reply(reply, service.raft_term)


async def txn(service: Service, encoder: Encoder, body: bytes) -> bytes:
    reply = await service.txn(requests.decode_txn(body))
    return encoder.reply(reply, service.raft_term)


async def compaction(service: Service, encoder: Encoder, body: bytes) -> bytes:
    reply = await service.compact(requests.decode_compaction(body))
    return encoder.reply(reply, service.raft_term)


UNARY = {
    "/v3/kv/range": range_,
    "/v3/kv/put": put,
    "/v3/kv/deleterange": delete_range,
    "/v3/kv/txn": txn,
    "/v3/kv/compaction": compaction,
}
