"""What answers at a member's peer URL, as far as a link and a transport see it: a real server on a free
port of this machine that takes streams, and reads them or does not, as a test wishes.

Nothing here needs to be waited for by the clock: ``connected`` and ``frames`` are queues. A stream is put
into ``connected`` when its other end gives a sign of life, which it does only once it sends messages.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import hdrs, web

from raft.codec import decode
from raft.core.messages import AppendEntries, Heartbeat, Message
from raft.core.types import Entry, EntryType
from raft.link import STREAM_PATH
from raft.stream import UPGRADE_TO, IncomingStream

UPGRADED = {hdrs.CONNECTION: "Upgrade", hdrs.UPGRADE: UPGRADE_TO}
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
        self.streams: list[IncomingStream] = []
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
        response = web.StreamResponse(status=101, headers=UPGRADED)
        await response.prepare(request)
        assert request.transport is not None
        stream = _FakeStream(self, request.transport, request.protocol)
        self.streams.append(stream)
        if self.is_rude:
            stream.abort()
        try:
            await stream.closed.wait()
        finally:
            stream.abort()
        self.ended.put_nowait(None)
        return response


class _FakeStream(IncomingStream):
    """Reads on after the first sign of life only when the peer does."""

    def __init__(self, peer: FakePeer, transport: asyncio.Transport, before: asyncio.BaseProtocol) -> None:
        self._peer = peer
        self._reading: asyncio.Task[None] | None = None
        super().__init__(
            transport,
            before,
            1 << 30,
            60.0,
            lambda frame: peer.frames.put_nowait(decode(frame)),
            lambda _: None,
        )

    def _take(self, frame: bytes) -> None:
        if not frame:
            if not self._peer.reads.is_set():
                self._transport.pause_reading()
                self._reading = asyncio.get_running_loop().create_task(self._read_on())
            self._peer.connected.put_nowait(self._transport)
        super()._take(frame)

    async def _read_on(self) -> None:
        await self._peer.reads.wait()
        if not self._transport.is_closing():
            self._transport.resume_reading()


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


def small(number: int, *, source: int = 1, target: int = 2) -> Message:
    return Heartbeat(source, target, 1, 0, number)


def large(number: int, size: int = 1 << 14, *, source: int = 1, target: int = 2) -> Message:
    entry = Entry(number + 1, 1, EntryType.NORMAL, bytes(size))
    return AppendEntries(source, target, 1, number, 1, (entry,), 0)
