"""What listens on a member's peer URLs: streams of messages, and whatever else members ask each other.

Every request is checked first (``handshake``); strangers hear why they are refused, and so
does the log, once a minute for each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import hdrs, web

from raft.codec import Malformed, decode
from raft.core.messages import Message
from raft.handshake import Identity, Refused, Sender, accept
from raft.link import QUEUE_BYTES_MAX, STREAM_PATH
from raft.stream import UPGRADE_TO, IncomingStream

log = logging.getLogger(__name__)

FRAME_BYTES_MAX: Final = QUEUE_BYTES_MAX + (4 << 20)
_REMIND_SECONDS = 60.0

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
        self._streams: dict[int, IncomingStream] = {}
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
        await asyncio.gather(*(stream.end("the member stops") for stream in self._streams.values()))
        await self._runner.cleanup()

    async def drop(self, member: int) -> None:
        """The member is one no more: end what it has open here."""
        if member in self._streams:
            await self._streams.pop(member).end("removed from the cluster")

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
        if request.headers.get(hdrs.UPGRADE) != UPGRADE_TO:
            return web.Response(status=426, headers={hdrs.UPGRADE: UPGRADE_TO})
        response = web.StreamResponse(status=101)
        response.headers[hdrs.CONNECTION] = "Upgrade"
        response.headers[hdrs.UPGRADE] = UPGRADE_TO
        try:
            await response.prepare(request)
        except ConnectionResetError:
            return response  # it has gone while we were busy, or asleep
        if request.transport is None:
            return response
        member = sender.member_id
        stream = IncomingStream(
            request.transport,
            request.protocol,
            FRAME_BYTES_MAX,
            2 * self._ping_interval,
            lambda frame: self._take(frame, member),
            lambda error: log.warning(
                "member %x sent what is no message, and is hung up on: %s", member, error
            ),
        )
        before = self._streams.get(member)
        self._streams[member] = stream
        if before is not None:
            # Its end has not been noticed here yet; two at once would only shuffle messages.
            before.abort()
        self._heard_of(sender)
        try:
            await stream.closed.wait()
        finally:
            if self._streams.get(member) is stream:
                del self._streams[member]
            stream.abort()
        return response

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
