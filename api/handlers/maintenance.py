"""etcdserverpb.Maintenance: status, hash, hashkv, moving the leader."""

from __future__ import annotations

from api.schema import requests
from api.schema.responses import Encoder
from api.service import Service


async def status(service: Service, encoder: Encoder, body: bytes) -> bytes:
    requests.decode_empty(body)
    return encoder.status(service.status())


async def hash_(service: Service, encoder: Encoder, body: bytes) -> bytes:
    requests.decode_empty(body)
    return encoder.hash(service.hash(), service.revision, service.raft_term)


async def hash_kv(service: Service, encoder: Encoder, body: bytes) -> bytes:
    value, _, compact_revision = await service.hash_kv(requests.decode_hash_kv(body))
    return encoder.hash_kv(value, compact_revision, service.revision, service.raft_term)


async def move_leader(service: Service, encoder: Encoder, body: bytes) -> bytes:
    await service.move_leader(requests.decode_move_leader(body))
    return encoder.move_leader()


UNARY = {
    "/v3/maintenance/status": status,
    "/v3/maintenance/hash": hash_,
    "/v3/maintenance/hashkv": hash_kv,
    "/v3/maintenance/transfer-leadership": move_leader,
}
