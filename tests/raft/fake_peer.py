"""What answers at a member's peer URL, as far as a link and a transport see it: a real server on a free
port of this machine that takes streams, and reads them or does not, as a test wishes.

Nothing here needs to be waited for by the clock: ``connected`` and ``frames`` are queues. A stream is put
into ``connected`` when its other end has answered a ping, which it does only once it sends messages.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

import aiohttp
from aiohttp import web

from raft.codec import decode
from raft.core.messages import AppendEntries, Heartbeat, Message
from raft.core.types import Entry, EntryType
from raft.link import STREAM_PATH

SOCKET_BYTES = 1 << 14  # about what the kernel holds for each end of a connection


class FakePeer:
    """``is_rude``: hangs up on each connection at once. ``refusal``: the status it answers with instead.
    ``reads``: cleared before a connection comes, that is not read from until it is set."""

    def __init__(self) -> None:
        self.attempts = 0
        self.is_rude = False
        self.refusal: int | None = None
        self.reads = asyncio.Event()
        self.reads.set()
        self.connected: asyncio.Queue[asyncio.Transport] = asyncio.Queue()
        self.ended: asyncio.Queue[None] = asyncio.Queue()
        self.frames: asyncio.Queue[list[Message]] = asyncio.Queue()
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Also again, on the same port."""
        application = web.Application()
        application.router.add_get(STREAM_PATH, self._stream)
        self._runner = web.AppRunner(application, shutdown_timeout=0.02)
        await self._runner.setup()
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        listening.bind(("127.0.0.1", self.port))
        await web.SockSite(self._runner, listening).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """As when its process ends: the port refuses from now on."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def messages(self, count: int) -> list[Message]:
        """The next of them, which end a frame."""
        messages: list[Message] = []
        while len(messages) < count:
            messages += await self.frames.get()
        assert len(messages) == count
        return messages

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self.attempts += 1
        if self.refusal is not None:
            return web.Response(status=self.refusal)
        stream = web.WebSocketResponse(autoping=False, timeout=0.02)
        await stream.prepare(request)
        if self.is_rude:
            return stream
        await stream.ping()
        with suppress(ConnectionError):
            async for frame in stream:
                if frame.type is aiohttp.WSMsgType.BINARY:
                    self.frames.put_nowait(decode(frame.data))
                elif frame.type is aiohttp.WSMsgType.PONG:
                    assert request.transport is not None
                    self.connected.put_nowait(request.transport)
                    await self.reads.wait()
        self.ended.put_nowait(None)
        return stream


@asynccontextmanager
async def fake_peers(count: int = 1) -> AsyncIterator[list[FakePeer]]:
    peers = [FakePeer() for _ in range(count)]
    try:
        for peer in peers:
            await peer.open()
        yield peers
    finally:
        for peer in peers:
            await peer.close()


def session_with_little_room() -> aiohttp.ClientSession:
    """Its sockets take only a few KiB of what nobody reads."""

    def make(address: tuple[object, ...]) -> socket.socket:
        one = socket.socket(address[0], address[1], address[2])  # type: ignore[arg-type]
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        return one

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, socket_factory=make))


def free_port() -> int:
    """One that refuses, until somebody listens there."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def small(number: int, *, source: int = 1, target: int = 2) -> Message:
    return Heartbeat(source, target, 1, 0, number)


def large(number: int, size: int = 1 << 14, *, source: int = 1, target: int = 2) -> Message:
    entry = Entry(number + 1, 1, EntryType.NORMAL, bytes(size))
    return AppendEntries(source, target, 1, number, 1, (entry,), 0)
