"""v3lockpb.Lock: lock and unlock."""

from __future__ import annotations

from api.http import Context
from api.schema import requests


async def lock(context: Context, body: bytes) -> bytes:
    request = requests.decode_lock(body)
    key, revision = await context.concurrency.lock(request.name, request.lease)
    return context.encoder.lock(key, revision, context.service.raft_term)


async def unlock(context: Context, body: bytes) -> bytes:
    revision = await context.concurrency.unlock(requests.decode_unlock(body))
    return context.encoder.header(revision, context.service.raft_term)


PATIENT = {"/v3/lock/lock": lock, "/v3/lock/unlock": unlock}
