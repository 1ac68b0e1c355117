"""One connection for load: one request at a time, or one stream; as little work as asyncio allows."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from kvorum.errors import ConnectionFailed
from kvorum.load.answers import Answer, Answers, BadAnswer
from kvorum.tls import Tls


class Target:
    """A member, and what every request to it begins with."""

    def __init__(self, endpoint: str, tls: Tls, token: str = "") -> None:
        parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        self.host, self.port = parts.hostname or "", parts.port or 2379
        self.context = tls.context() if parts.scheme == "https" else None
        self.server_name = (tls.server_name or None) if self.context else None
        self._head = f"Host: {parts.netloc}\r\nContent-Type: application/json\r\n"
        if token:
            self._head += f"Authorization: {token}\r\n"

    def request(self, path: str, body: bytes) -> bytes:
        head = f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


class Connection(asyncio.Protocol):
    """Made by ``connect``."""

    def __init__(self, on_line: Callable[[Answer], None] | None) -> None:
        self._answers = Answers(by_line=on_line is not None)
        self._on_line = on_line
        self._waiting: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self._ended: Exception | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        try:
            answers = self._answers.feed(data)
        except BadAnswer as error:
            self.connection_lost(error)
            self.close()
            return
        for answer in answers:
            if self._on_line is not None:
                self._on_line(answer)
            elif self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = error or EOFError("the server hung up")
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(self._ended)

    # What others call.

    @property
    def is_open(self) -> bool:
        return self._ended is None

    def send(self, request: bytes) -> None:
        assert self._transport is not None
        self._transport.write(request)

    async def ask(self, request: bytes) -> Answer:
        """Raises OSError, EOFError, BadAnswer."""
        if self._ended is not None:
            raise self._ended
        self._waiting = asyncio.get_running_loop().create_future()
        self.send(request)
        return await self._waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def connect(
    target: Target, dial_timeout: float, on_line: Callable[[Answer], None] | None = None
) -> Connection:
    """``on_line`` is called with each line of a stream. Raises ConnectionFailed."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(dial_timeout):
            _, connection = await loop.create_connection(
                lambda: Connection(on_line),
                target.host,
                target.port,
                ssl=target.context,
                server_hostname=target.server_name,
            )
    except OSError as error:
        reason = str(error) or f"no connection within {dial_timeout:g} s"
        text = f"cannot connect to {target.host}:{target.port}: {reason}"
        raise ConnectionFailed(text, maybe_done=False) from error
    return connection
