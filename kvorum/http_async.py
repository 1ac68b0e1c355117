"""The asyncio shell's connections: one aiohttp session, made on first use."""

from __future__ import annotations

import asyncio
import collections
import io
import logging
import math
import socket
from typing import Any, Final

import aiohttp

from kvorum.connections import probe_when_idle, too_late, unanswered, unreachable
from kvorum.errors import ConnectionFailed, KvorumError
from kvorum.keepalive import USUAL, Keepalive
from kvorum.messages import Lines, decode
from kvorum.plans import Exchange, OpenStream, Reply
from kvorum.tls import Tls

LARGE_BYTES: Final = 64 * 1024
log = logging.getLogger(__name__)


class AsyncHttp:
    """Times in seconds. For the event loop in which it is used first; others get a RuntimeError."""

    def __init__(self, dial_timeout: float, tls: Tls, keepalive: Keepalive = USUAL) -> None:
        self._dial_timeout = dial_timeout
        self._tls = tls
        self._keepalive = keepalive
        self._made: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._loop is not loop and self._loop is not None:
            raise RuntimeError("this AsyncClient belongs to another event loop: make one in each")
        if self._made is not None and self._made.closed:
            raise KvorumError("the client is closed")
        if self._made is None:
            self._loop = loop
            # The usual context is aiohttp's own: to make one takes longer than a request.
            context = True if self._tls == Tls() else self._tls.context()
            connector = aiohttp.TCPConnector(limit=0, ssl=context, socket_factory=self._keptalive_socket)
            self._made = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._made

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()

    async def exchange(self, request: Exchange) -> Reply:
        """Raises ConnectionFailed."""
        timeout = self._timeout(request, total=request.timeout, dial_timeout=request.dial_timeout)
        try:
            async with self._session.post(
                request.endpoint + request.path,
                data=_body(request),
                headers=_headers(request),
                timeout=timeout,
                allow_redirects=False,
                server_hostname=self._tls.server_name or None,
            ) as response:
                reply = Reply(response.status, await response.read())
        except _FAILURES as error:
            raise _unanswered(request, error) from error
        log.debug("%s%s: %d", request.endpoint, request.path, reply.status)
        return reply

    async def open_stream(self, request: OpenStream) -> AsyncStream:
        """Raises ConnectionFailed, or ServerError where the answer is one refusal."""
        timeout = self._timeout(request, total=None)
        try:
            async with asyncio.timeout(request.timeout):
                response = await self._session.post(
                    request.endpoint + request.path,
                    data=_body(request),
                    headers=_headers(request),
                    timeout=timeout,
                    allow_redirects=False,
                    server_hostname=self._tls.server_name or None,
                )
                if response.status != 200:
                    decode(response.status, await response.read())
        except _FAILURES as error:
            raise _unanswered(request, error) from error
        log.debug("%s%s: %d, a stream", request.endpoint, request.path, response.status)
        return AsyncStream(response, request)

    def _keptalive_socket(self, address: Any) -> socket.socket:
        """As aiohttp makes it, but with a sign of life now and then."""
        family, kind, protocol, _, _ = address
        sock = socket.socket(family, kind, protocol)
        probe_when_idle(sock, self._keepalive)
        return sock

    def _timeout(
        self, request: Exchange | OpenStream, total: float | None, dial_timeout: float = math.inf
    ) -> aiohttp.ClientTimeout:
        # Less than all the time there is: so that it is known in the end that nothing was sent.
        dial = min(self._dial_timeout, dial_timeout, request.timeout * 0.9)
        return aiohttp.ClientTimeout(total=total, connect=dial, ceil_threshold=math.inf)


class AsyncStream:
    """Lines of an answer that goes on."""

    def __init__(self, response: aiohttp.ClientResponse, request: OpenStream) -> None:
        self._response = response
        self._request = request
        self._lines = Lines()
        self._ready: collections.deque[bytes] = collections.deque()

    async def read(self, timeout: float) -> bytes | None:
        """The next line; None if none came in time. Raises ConnectionFailed when the stream has ended."""
        try:
            async with asyncio.timeout(timeout):
                while not self._ready:
                    data = await self._response.content.readany()
                    if data:
                        self._ready.extend(self._lines.feed(data))
                    elif rest := self._lines.rest():
                        self._ready.append(rest)
                    else:
                        raise EOFError("the server ended the stream")
        except TimeoutError:
            return None
        except (aiohttp.ClientError, OSError, EOFError) as error:
            raise _unanswered(self._request, error) from error
        return self._ready.popleft()

    def close(self) -> None:
        self._response.close()


def _body(request: Exchange | OpenStream) -> bytes | io.BytesIO:
    """aiohttp sends what is large bit by bit only if it is given as a file."""
    return io.BytesIO(request.body) if len(request.body) > LARGE_BYTES else request.body


def _headers(request: Exchange | OpenStream) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    if request.token:
        headers["Authorization"] = request.token
    return headers


_FAILURES = (aiohttp.ClientError, OSError, UnicodeError)
_NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, UnicodeError)  # of a bad name


def _unanswered(request: Exchange | OpenStream, error: Exception) -> ConnectionFailed:
    if isinstance(error, _NOT_CONNECTED):
        return unreachable(request.endpoint, error)
    return unanswered(request, too_late(request) if isinstance(error, TimeoutError) else str(error))
