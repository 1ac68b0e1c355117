"""A client that is gone before the first word of its answer: nothing has failed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from unittest import mock

import pytest
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.test_utils import make_mocked_request

from api.handlers import lease
from api.schema.responses import Encoder


class HungUp(AbstractStreamWriter):
    """Where its answer goes."""

    async def write(self, chunk: object) -> None:
        raise ConnectionResetError("Cannot write to closing transport")

    async def write_eof(self, chunk: bytes = b"") -> None:
        await self.write(chunk)

    async def drain(self) -> None:
        await self.write(b"")

    def enable_compression(self, *_: object, **__: object) -> None: ...
    def enable_chunking(self) -> None: ...

    async def write_headers(self, *_: object) -> None:
        await self.write(b"")


class Node:
    raft_term, revision = 4, 3

    async def lease_keep_alive(self, lease_id: int) -> int:
        return 60


def asked(path: str, body: bytes) -> web.BaseRequest:
    content = StreamReader(mock.Mock(_reading_paused=False), 2**16, loop=asyncio.get_running_loop())
    content.feed_data(body)
    content.feed_eof()
    return make_mocked_request("POST", path, payload=content, writer=HungUp())


def context() -> SimpleNamespace:
    return SimpleNamespace(
        service=Node(),
        encoder=Encoder(1, 7),
        max_request_bytes=1000,
    )


@pytest.mark.parametrize("body", [b"", b'{"ID":5}'])
async def test_a_keepalive(body: bytes) -> None:
    """Whether it had sent its request, or nothing yet."""
    await lease.keep_alive(context(), asked("/v3/lease/keepalive", body))  # type: ignore[arg-type]
