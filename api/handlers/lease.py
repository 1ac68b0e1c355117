"""etcdserverpb.Lease: grant, revoke, keepalive, time to live, and which there are.

A keepalive is a stream in etcd: several JSON requests may come in one body, each is answered as it comes,
in order, and the end of the body is the end of the answer. Nearly all clients send one request and
hang up, so that has a way of its own (``SINGLE``), which costs what any short request costs.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from aiohttp import web
from multidict import CIMultiDict

from api.body import json_values
from api.errors import BadRequest
from api.http import GRPC_JSON, JSON, Context, log_unforeseen
from api.schema import requests
from api.schema.responses import Encoder, stream_error
from api.service import Service

log = logging.getLogger(__name__)


async def grant(service: Service, encoder: Encoder, body: bytes) -> bytes:
    request = requests.decode_lease_grant(body)
    return encoder.reply(await service.lease_grant(request.ttl, request.id), service.raft_term)


async def revoke(service: Service, encoder: Encoder, body: bytes) -> bytes:
    return encoder.reply(await service.lease_revoke(requests.decode_lease_id(body)), service.raft_term)


async def time_to_live(service: Service, encoder: Encoder, body: bytes) -> bytes:
    request = requests.decode_lease_time_to_live(body)
    left = await service.lease_time_to_live(request.id, keys=request.keys)
    return encoder.lease_time_to_live(request.id, left, service.revision, service.raft_term)


async def leases(service: Service, encoder: Encoder, body: bytes) -> bytes:
    requests.decode_empty(body)
    return encoder.leases(await service.lease_list(), service.revision, service.raft_term)


async def keep_alive_once(service: Service, encoder: Encoder, body: bytes) -> bytes:
    lease_id = requests.decode_lease_id(body)
    ttl = await service.lease_keep_alive(lease_id)
    return encoder.lease_alive(lease_id, ttl, service.revision, service.raft_term)


async def keep_alive(context: Context, request: web.BaseRequest) -> web.StreamResponse:
    """Answer requests as they come. Raises what is wrong with the very first: then nothing was sent yet,
    and the error can still be an HTTP status."""
    response: web.StreamResponse | None = None
    try:
        async for body in json_values(request, context.max_request_bytes):
            frame = await keep_alive_once(context.service, context.encoder, body)
            if response is None:
                response = await _begin(request, GRPC_JSON)
            await response.write(frame)
        # An empty answer is etcd's to an empty body.
        return response or await _begin(request, JSON)
    except ConnectionResetError:
        log.debug("the client of a keepalive stream has hung up")
    except Exception as error:
        if response is None:
            raise
        await _end(response, error)
    return response or web.StreamResponse()  # which nobody gets


async def _end(response: web.StreamResponse, error: Exception) -> None:
    """A request that is wrong is not answered, only no more are read: etcd's way."""
    if isinstance(error, BadRequest):
        log.debug("a keepalive stream reads no more requests: %s", error)
        return
    log_unforeseen(error)
    with suppress(ConnectionResetError):
        await response.write(stream_error(error))


async def _begin(request: web.BaseRequest, headers: CIMultiDict[str]) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


UNARY = {
    "/v3/lease/grant": grant,
    "/v3/lease/revoke": revoke,
    "/v3/kv/lease/revoke": revoke,
    "/v3/lease/timetolive": time_to_live,
    "/v3/kv/lease/timetolive": time_to_live,
    "/v3/lease/leases": leases,
    "/v3/kv/lease/leases": leases,
}
STREAMS = {"/v3/lease/keepalive": keep_alive}
SINGLE = {"/v3/lease/keepalive": keep_alive_once}
