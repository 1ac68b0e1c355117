"""What listens on a member's peer URLs: streams of messages, and whatever else members ask each other.

Every request is checked first (``handshake``); strangers hear why they are refused, and so
does the log, once a minute for each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import aiohttp
from aiohttp import web

from raft.codec import Malformed, decode
from raft.core.messages import Message
from raft.handshake import Identity, Refused, Sender, accept
from raft.link import QUEUE_BYTES_MAX, STREAM_PATH

log = logging.getLogger(__name__)

FRAME_BYTES_MAX: Final = QUEUE_BYTES_MAX + (4 << 20)
_REMIND_SECONDS = 60.0
_CLOSE_SECONDS = 0.5  # how long a goodbye is waited for

REQUEST_SENDER: Final = web.RequestKey("sender", Sender)
"""Who made a request that a handler gets."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PeerServer:
    """``receive`` gets every message; ``handlers`` answers members' other requests by path, ``open_pages``
    also strangers' (method GET). A handler finds who asks at ``request[REQUEST_SENDER]``."""

    def __init__(
        self,
        us: Identity,
        *,
        receive: Callable[[Message], None],
        heard_of: Callable[[Sender], None],
        removed: Callable[[], frozenset[int]],
        has_started: Callable[[int], bool],
        handlers: Mapping[str, Handler],
        open_pages: Mapping[str, Handler],
        ping_interval: float,
    ) -> None:
        self.us = us
        self._receive = receive
        self._heard_of = heard_of
        self._removed = removed
        self._has_started = has_started
        self._ping_interval = ping_interval
        self._streams: dict[int, tuple[web.WebSocketResponse, web.Request]] = {}
        self._warned: dict[tuple[int, str], float] = {}
        self._is_closed = False
        application = web.Application(client_max_size=QUEUE_BYTES_MAX)
        application.router.add_get(STREAM_PATH, self._checked(self._stream))
        for path, handler in handlers.items():
            application.router.add_route("*", path, self._checked(handler))
        for path, handler in open_pages.items():
            application.router.add_get(path, handler)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def open(self, addresses: list[tuple[str, int]]) -> None:
        """Listen on these hosts and ports. Raises OSError."""
        await self._runner.setup()
        try:
            for host, port in addresses:
                await web.TCPSite(self._runner, host, port, backlog=128).start()
        except OSError:
            await self.close()
            raise

    async def close(self) -> None:
        # Nobody new first: a peer whose stream ends comes back at once.
        self._is_closed = True
        for site in list(self._runner.sites):
            await site.stop()
        streams = [stream for stream, _ in self._streams.values()]
        await asyncio.gather(
            *(_close(stream, aiohttp.WSCloseCode.GOING_AWAY, "the member stops") for stream in streams)
        )
        await self._runner.cleanup()

    async def drop(self, member: int) -> None:
        """The member is one no more: end what it has open here."""
        if member in self._streams:
            stream, _ = self._streams.pop(member)
            await _close(stream, aiohttp.WSCloseCode.POLICY_VIOLATION, "removed from the cluster")

    def _checked(self, handler: Handler) -> Handler:
        async def check(request: web.Request) -> web.StreamResponse:
            try:
                sender = accept(request.headers, self.us, self._removed(), self._has_started)
            except Refused as refused:
                self._warn(refused, request.remote)
                return web.Response(status=412, text=f"{refused}\n", headers=refused.headers())
            request[REQUEST_SENDER] = sender
            return await handler(request)

        return check

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        sender = request[REQUEST_SENDER]
        if self._is_closed:
            return web.Response(status=503)
        stream = web.WebSocketResponse(
            timeout=_CLOSE_SECONDS,
            compress=False,
            heartbeat=self._ping_interval,
            max_msg_size=FRAME_BYTES_MAX,
        )
        await stream.prepare(request)
        _, before = self._streams.get(sender.member_id, (None, None))
        self._streams[sender.member_id] = (stream, request)
        if before is not None and before.transport is not None:
            # Its end has not been noticed here yet; two at once would only shuffle messages.
            before.transport.abort()
        self._heard_of(sender)
        try:
            async for frame in stream:
                if frame.type is aiohttp.WSMsgType.TEXT:
                    raise Malformed("a frame is text: expected binary")
                if frame.type is aiohttp.WSMsgType.ERROR:
                    # Only what the peer has done; that a connection is lost is nothing to tell here.
                    if isinstance(frame.data, aiohttp.WebSocketError):
                        raise Malformed(str(frame.data))
                    break
                self._take(frame.data, sender.member_id)
        except Malformed as error:
            log.warning("member %x sent what is no message, and is hung up on: %s", sender.member_id, error)
            await _close(stream, aiohttp.WSCloseCode.PROTOCOL_ERROR, str(error))
        finally:
            if self._streams.get(sender.member_id) == (stream, request):
                del self._streams[sender.member_id]
        return stream

    def _take(self, frame: bytes, sender: int) -> None:
        for message in decode(frame):
            if message.source != sender or message.target != self.us.member_id:
                raise Malformed(
                    f"a message from member {message.source:x} to member {message.target:x} came from"
                    f" member {sender:x} to member {self.us.member_id:x}"
                )
            self._receive(message)

    def _warn(self, refused: Refused, remote: str | None) -> None:
        now = asyncio.get_running_loop().time()
        key = (refused.sender, refused.reason.value)
        if now - self._warned.get(key, -_REMIND_SECONDS) >= _REMIND_SECONDS:
            self._warned[key] = now
            log.warning("a request from %s was refused: %s", remote, refused)


async def _close(stream: web.WebSocketResponse, code: int, why: str) -> None:
    """Say goodbye, and why."""
    await stream.close(code=code, message=why.encode()[:120], drain=False)
