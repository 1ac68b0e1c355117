"""v3electionpb.Election: campaign, proclaim, leader, observe, resign."""

from __future__ import annotations

from contextlib import aclosing, suppress

from aiohttp import web

from api.body import read_body
from api.http import GRPC_JSON, Context
from api.schema import requests
from api.service import GRPC_OVERHEAD_BYTES


async def campaign(context: Context, body: bytes) -> bytes:
    request = requests.decode_campaign(body)
    leader, revision = await context.concurrency.campaign(request.name, request.lease, request.value)
    return context.encoder.campaign(leader, revision, context.service.raft_term)


async def proclaim(context: Context, body: bytes) -> bytes:
    request = requests.decode_proclaim(body)
    revision = await context.concurrency.proclaim(request.leader, request.value)
    return context.encoder.header(revision, context.service.raft_term)


async def resign(context: Context, body: bytes) -> bytes:
    revision = await context.concurrency.resign(requests.decode_resign(body).leader)
    return context.encoder.header(revision, context.service.raft_term)


async def leader(context: Context, body: bytes) -> bytes:
    kv, revision = await context.concurrency.leader(requests.decode_leader(body))
    return context.encoder.leader(kv, revision, context.service.raft_term)


async def observe(context: Context, request: web.BaseRequest) -> web.StreamResponse:
    """One frame for each leader and each of its values, until the client hangs up or the node stops. Nothing
    is sent, not even a status, before there is a leader."""
    limit = context.max_request_bytes + GRPC_OVERHEAD_BYTES
    body = await read_body(
        request, max_bytes=limit, stall_seconds=context.body_stall_seconds, named_limit=limit
    )
    response = web.StreamResponse(headers=GRPC_JSON)
    response.enable_chunked_encoding()
    with suppress(ConnectionResetError):  # the client has hung up
        async with aclosing(context.concurrency.observe(requests.decode_leader(body))) as leaders:
            async for kv, revision in leaders:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(context.encoder.observed(kv, revision, context.service.raft_term))
        if not response.prepared:
            await response.prepare(request)
    return response


PATIENT = {
    "/v3/election/campaign": campaign,
    "/v3/election/proclaim": proclaim,
    "/v3/election/leader": leader,
    "/v3/election/resign": resign,
}
STREAMS = {"/v3/election/observe": observe}
