"""The way to one peer: a connection (``stream``) that is opened again and again, and a bounded queue
before it.

Messages may be lost (that is Raft's business), so what comes while there is no connection, or
while more than ``QUEUE_BYTES_MAX`` wait for a slow one, is dropped. A peer that is slow, stopped
or gone therefore costs the others nothing, and a bounded amount of memory here.

Whatever has gathered in the queue leaves as one frame (``codec``), up to a size: in ``flush``, or when
the connection has room again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import hdrs

from raft.codec import encode
from raft.core.messages import AppendEntries, Message, Propose
from raft.handshake import REASON, REFUSED, Reason
from raft.stream import UPGRADE_TO, OutgoingStream

log = logging.getLogger(__name__)

STREAM_PATH: Final = "/raft/stream"
QUEUE_BYTES_MAX: Final = 64 << 20
FRAME_BYTES: Final = 1 << 20
"""A frame is begun with no more than this, so that a long queue leaves in pieces."""

_MESSAGE_BYTES = 100  # what a message costs beside its data, roughly
_BACK_OFF_MIN, _BACK_OFF_MAX = 0.05, 1.0
_PATIENCE = 0.3
_BRIEF = 0.5  # a connection that lasts no longer does not count as one
_REMIND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Times in seconds."""

    connect_timeout: float = 2.0
    ping_interval: float = 5.0
    # Sent bytes that are not acknowledged for so long end the connection.
    unacknowledged_max: float = 2.0


class Link:
    """See the module's docstring. ``on_refused(member, reason, text)`` hears why a peer turned us away,
    ``on_gone(member)`` that a connection ended and nobody takes another one there."""

    def __init__(
        self,
        member: int,
        urls: tuple[str, ...],
        session: aiohttp.ClientSession,
        settings: LinkSettings,
        headers: Callable[[int], Mapping[str, str]],
        on_refused: Callable[[int, Reason | None, str], None],
        on_gone: Callable[[int], None],
    ) -> None:
        self.member = member
        self.urls = urls
        self.url = urls[0]  # the one that is, or was last, tried
        self.connected_since: float | None = None  # by the loop's clock
        self._headers = headers
        self._session = session
        self._settings = settings
        self._on_refused = on_refused
        self._on_gone = on_gone
        self._queue: deque[tuple[Message, int]] = deque()
        self._queued_bytes = 0
        self._stream: OutgoingStream | None = None  # open
        self._try_now = asyncio.Event()
        self._complained: tuple[str, float] = ("", 0.0)
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())

    def offer(self, message: Message) -> None:
        """Send it, if there is a connection that can take it."""
        if self.connected_since is None:
            return
        size = _size(message)
        if self._queued_bytes + size > QUEUE_BYTES_MAX:
            return
        self._queue.append((message, size))
        self._queued_bytes += size

    def flush(self) -> None:
        """Let what was offered leave, as far as the connection has room."""
        stream = self._stream
        if stream is not None:
            while self._queue and stream.has_room:
                stream.send(self._next_frame())

    def try_now(self) -> None:
        """The peer was heard of: there is no reason to wait with the next attempt."""
        if self.connected_since is None:
            self._try_now.set()

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        back_off, attempt, was_connected = _BACK_OFF_MIN, 0, False
        while True:
            url = self.url = self.urls[attempt % len(self.urls)]
            self._try_now.clear()
            begun = self._loop.time()
            try:
                await self._connect(url)
                if self._loop.time() - begun > _BRIEF:
                    back_off, was_connected = _BACK_OFF_MIN, True
                    self._complained = ("", 0.0)
                    continue  # it was there a moment ago: at once, and see
            except _NotLetIn as error:
                if error.status >= 500:  # a member that stops, or a proxy before one that does not run
                    self._complain(
                        f"member {self.member:x} cannot be reached at {url}: HTTP status {error.status}"
                    )
                else:
                    self._refused(url, error)
                    back_off = _BACK_OFF_MAX
            except (aiohttp.ClientError, OSError, ValueError) as error:
                if was_connected and _is_refusal(error):
                    self._on_gone(self.member)
                if back_off > _PATIENCE:  # members that start together find each other at the second try
                    self._complain(f"member {self.member:x} cannot be reached at {url}: {_cause(error)}")
            except Exception:
                # A defect; but without its link a member would be lost to us until we start again.
                log.exception("the connection to member %x at %s broke", self.member, url)
            attempt, was_connected = attempt + 1, False
            with suppress(TimeoutError):
                async with asyncio.timeout(back_off * random.uniform(0.7, 1.3)):
                    await self._try_now.wait()
            back_off = min(2 * back_off, _BACK_OFF_MAX)

    async def _connect(self, url: str) -> None:
        """Keep one connection as long as it lasts."""
        async with asyncio.timeout(self._settings.connect_timeout):
            response = await self._session.get(
                url.rstrip("/") + STREAM_PATH,
                headers={**self._headers(self.member), hdrs.CONNECTION: "Upgrade", hdrs.UPGRADE: UPGRADE_TO},
                allow_redirects=False,
            )
        async with response:
            if response.status != 101:
                raise _NotLetIn(response.status, response.headers)
            stream = self._take_over(response)
            log.info("connected to member %x at %s", self.member, url)
            self.connected_since, self._stream = self._loop.time(), stream
            try:
                await stream.closed.wait()
                self._complain(f"the connection to member {self.member:x} ended: {stream.why}")
            finally:
                self.connected_since = self._stream = None
                self._queue.clear()
                self._queued_bytes = 0
                stream.close()

    def _take_over(self, response: aiohttp.ClientResponse) -> OutgoingStream:
        """Raises OSError."""
        connection = response.connection
        if connection is not None and connection.protocol is not None:
            transport = connection.transport
            if transport is not None and not transport.is_closing():
                _give_up_after(transport.get_extra_info("socket"), self._settings.unacknowledged_max)
                ping_interval = self._settings.ping_interval
                return OutgoingStream(transport, connection.protocol, ping_interval, self.flush)
        raise ConnectionResetError("the connection ended at once")

    def _next_frame(self) -> bytes:
        messages, size = [], 0
        while self._queue and size < FRAME_BYTES:
            message, message_bytes = self._queue.popleft()
            messages.append(message)
            size += message_bytes
        self._queued_bytes -= size
        return encode(messages)

    def _refused(self, url: str, error: _NotLetIn) -> None:
        text = error.headers.get(REFUSED)
        reason = next((one for one in Reason if one.value == error.headers.get(REASON)), None)
        if text is None:
            text = f"what answers at {url} is no member of a Kvorum cluster (HTTP status {error.status})"
        self._complain(f"member {self.member:x} at {url} refused this member: {text}")
        self._on_refused(self.member, reason, text)

    def _complain(self, text: str) -> None:
        """Once a minute is often enough for the same trouble."""
        before, at = self._complained
        now = self._loop.time()
        if text != before or now - at > _REMIND_SECONDS:
            self._complained = (text, now)
            log.warning("%s", text)


class _NotLetIn(Exception):
    """What was called answers something else than that messages may be sent."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status
        self.headers = headers


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(
        error.os_error, ConnectionRefusedError
    )


def _cause(error: Exception) -> str:
    """Without aiohttp's own words around it."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error)
    return str(error) or "no answer in time"


def _size(message: Message) -> int:
    if isinstance(message, AppendEntries):
        entries = message.entries
        return _MESSAGE_BYTES + sum([len(entry.data) for entry in entries]) + 24 * len(entries)
    if isinstance(message, Propose):
        return _MESSAGE_BYTES + sum([len(one) for one in message.data]) + 8 * len(message.data)
    return _MESSAGE_BYTES


def _give_up_after(connection: socket.socket | None, seconds: float) -> None:
    """TCP would go on for a quarter of an hour where nobody answers, and wait ever longer between tries:
    long after the network has healed. A new connection is there at once."""
    if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
