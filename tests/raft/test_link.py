"""The way to one peer: it is never given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from raft.handshake import Identity
from raft.link import STREAM_PATH, Link, LinkSettings


class Peer:
    """Takes connections, and hangs up on them at once if it ``is_rude``."""

    def __init__(self) -> None:
        self.connections = 0
        self.is_rude = False
        self.url = ""

    async def stream(self, request: web.Request) -> web.StreamResponse:
        self.connections += 1
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        if not self.is_rude:
            await stream.receive()
        return stream


@asynccontextmanager
async def linked(peer: Peer, session: aiohttp.ClientSession) -> AsyncIterator[Link]:
    application = web.Application()
    application.router.add_get(STREAM_PATH, peer.stream)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    urls = (f"http://127.0.0.1:{runner.addresses[0][1]}",)
    us = Identity(1, 1)
    link = Link(2, urls, session, LinkSettings(), us.headers, lambda *_: None, lambda _: None)
    try:
        yield link
    finally:
        await link.close()
        await runner.cleanup()


async def test_a_peer_that_hangs_up_at_once_is_not_called_without_a_pause() -> None:
    """Or two who claim to be the same member would keep a third from its work."""
    peer = Peer()
    peer.is_rude = True
    async with aiohttp.ClientSession() as session, linked(peer, session):
        await asyncio.sleep(0.5)
        assert 2 <= peer.connections <= 15


async def test_no_error_ends_a_link(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that nobody has thought of is told, and the peer called again."""
    peer = Peer()
    async with aiohttp.ClientSession() as session:
        connect = session.ws_connect

        def broken(*_: Any, **__: Any) -> Any:
            monkeypatch.setattr(session, "ws_connect", connect)
            raise KeyError("surprise")

        monkeypatch.setattr(session, "ws_connect", broken)
        async with linked(peer, session) as link, asyncio.timeout(5):
            while link.connected_since is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert "surprise" in caplog.text
