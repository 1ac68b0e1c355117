"""Reading a request's body: bounded in size and in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import StreamReader, web

from api.errors import BodyStalled, MessageTooLarge
from api.schema.splitter import JsonSplitter


async def read_body(
    request: web.BaseRequest, *, max_bytes: int, stall_seconds: float, named_limit: int
) -> bytes:
    """The whole body. Raises MessageTooLarge as soon as it exceeds ``max_bytes`` (the message
    names ``named_limit``), BodyStalled when nothing comes for ``stall_seconds``."""
    content = request.content
    declared = request.content_length
    if declared is not None and declared > max_bytes:
        raise MessageTooLarge(declared, named_limit)
    if content.is_eof():
        # The usual case: head and body came in one packet, so there is nothing to wait for.
        body = content.read_nowait()
        if len(body) > max_bytes:
            raise MessageTooLarge(len(body), named_limit)
        return body
    invite_body(request)
    chunks: list[bytes] = []
    size = 0
    while chunk := await _next_chunk(content, stall_seconds):
        size += len(chunk)
        if size > max_bytes:
            raise MessageTooLarge(size, named_limit)
        chunks.append(chunk)
    return b"".join(chunks)


async def json_values(request: web.BaseRequest, max_bytes: int) -> AsyncIterator[bytes]:
    """The JSON values of a body that comes bit by bit; an unfinished one at its end too."""
    invite_body(request)
    splitter = JsonSplitter(max_bytes)
    while chunk := await request.content.readany():
        for value in splitter.feed(chunk):
            yield value
    if rest := splitter.rest():
        yield rest


def invite_body(request: web.BaseRequest) -> None:
    """Tell a client that asked first (curl does above 1 MB) to go on."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _next_chunk(content: StreamReader, stall_seconds: float) -> bytes:
    """What has arrived, b"" at the end."""
    try:
        async with asyncio.timeout(stall_seconds):
            return await content.readany()
    except TimeoutError:
        raise BodyStalled from None
