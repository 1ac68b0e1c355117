"""etcdserverpb.Watch: requests come in as a stream of JSON values, responses leave as one JSON
object, one line and one HTTP chunk each. This is the way of streams that are not plain, whose
bodies are chunked above all; ``watch_lane`` has the others.

Two things go on at once: reading the body, whose end means nothing (a watch lives until its
client hangs up), and writing what the stream has to say. A client that does not read fills
its socket, then the writer waits, then the stream's bounded queue: nobody else notices.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from aiohttp import web

from api.body import json_values
from api.errors import BadRequest
from api.http import GRPC_JSON, Context
from api.schema import requests
from watch.stream import WatchStream
from watch.watcher import WatchCreate

log = logging.getLogger(__name__)


async def watch(context: Context, request: web.BaseRequest) -> web.StreamResponse:
    """Serve one stream until its client hangs up. Raises BadRequest if the very first request
    is wrong: then nothing has been sent yet, and the error can still be an HTTP status."""
    stream = context.service.watch()
    reader = asyncio.ensure_future(_read_requests(request, stream, context.max_request_bytes))
    try:
        return await _write_responses(context, request, stream, reader)
    finally:
        reader.cancel()
        stream.close()


async def _read_requests(request: web.BaseRequest, stream: WatchStream, max_bytes: int) -> None:
    """Carry out requests as they come. A broken one ends the reading, as in etcd."""
    async for body in json_values(request, max_bytes):
        await _until_room(stream)
        carry_out(requests.decode_watch_request(body), stream)


async def _until_room(stream: WatchStream) -> None:
    """Who does not read answers gets no more questions answered."""
    while stream.is_full:
        await stream.drained()


def carry_out(asked: requests.WatchRequest | None, stream: WatchStream) -> None:
    """None: it asks for nothing."""
    if isinstance(asked, WatchCreate):
        stream.create(asked)
    elif isinstance(asked, requests.CancelWatch):
        stream.cancel(asked.watch_id)
    elif asked is not None:
        stream.request_progress()


async def _write_responses(
    context: Context, request: web.BaseRequest, stream: WatchStream, reader: asyncio.Future[None]
) -> web.StreamResponse:
    response = web.StreamResponse(headers=GRPC_JSON)
    response.enable_chunked_encoding()
    pending = asyncio.ensure_future(stream.next())
    try:
        waiting: set[asyncio.Future[Any]] = {reader, pending}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not pending.done() and reader.done() and isinstance(error := reader.exception(), BadRequest):
            raise error
        # From here on a request that is wrong is not answered, only no more are read: etcd's way.
        reader.add_done_callback(_report)
        first = await pending
    finally:
        pending.cancel()
    responses = first
    with suppress(ConnectionResetError):  # the client has hung up
        await response.prepare(request)
        while responses:
            for one in responses:
                for frame in context.encoder.watch(one, context.service.raft_term, context.max_request_bytes):
                    await response.write(frame)
            responses = await stream.next()
    return response


def _report(reader: asyncio.Future[None]) -> None:
    if not reader.cancelled() and (error := reader.exception()) is not None:
        log.debug("a watch stream reads no more requests: %s", error)


STREAMS = {"/v3/watch": watch}
