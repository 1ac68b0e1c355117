"""The sockets of the DNS server: UDP and TCP on one address. No client can keep others from being answered.

async with Nameserver(ask, "127.0.0.1", 5353) as server:
    server.port                 # the one that was found, where 0 was asked for
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from types import TracebackType
from typing import cast

from kvorum.nameserver.wire import Ask, respond

TCP_IDLE_SECONDS = 10.0
TCP_CONNECTIONS_MAX = 200
_PORT_TRIES = 20

log = logging.getLogger(__name__)


class Nameserver:
    """Raises OSError where the address cannot be had. Port 0 is any that is free for both."""

    def __init__(self, ask: Ask, host: str, port: int) -> None:
        self._ask = ask
        self._host, self.port = host, port
        self._tcp: asyncio.Server
        self._udp: asyncio.DatagramTransport
        self._connections: dict[asyncio.Task[None], None] = {}  # who has said nothing for longest first

    async def __aenter__(self) -> Nameserver:
        wanted, tries = self.port, _PORT_TRIES if not self.port else 1
        loop = asyncio.get_running_loop()
        # A name may have several addresses: UDP and TCP are to be on the same one.
        [(*_, address), *_] = await loop.getaddrinfo(self._host, wanted, type=socket.SOCK_STREAM)
        host = str(address[0])
        while True:
            tries -= 1
            self._tcp = await asyncio.start_server(self._serve, host, wanted)
            port = self._tcp.sockets[0].getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self._ask), local_addr=(host, port)
                )
            except OSError as error:
                await self._close_tcp()
                if error.errno != errno.EADDRINUSE or not tries:
                    raise
            else:
                self.port = port
                return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._udp.close()
        await self._close_tcp()

    async def _close_tcp(self) -> None:
        self._tcp.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        await self._tcp.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Questions of one connection, in order, until it says nothing for a while; or for longer than all
        others, where there are too many."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._has_spoken(task)
        if len(self._connections) > TCP_CONNECTIONS_MAX:
            most_silent = next(iter(self._connections))
            del self._connections[most_silent]
            most_silent.cancel()
        try:
            await self._converse(task, reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError):
            pass  # it has gone, or the server goes
        finally:
            self._connections.pop(task, None)
            writer.close()

    def _has_spoken(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task, None)
        self._connections[task] = None

    async def _converse(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            async with asyncio.timeout(TCP_IDLE_SECONDS):
                length = int.from_bytes(await reader.readexactly(2), "big")
                data = await reader.readexactly(length)
            self._has_spoken(task)
            answer = respond(data, self._ask, is_udp=False)
            if answer is None:
                return
            writer.write(len(answer).to_bytes(2, "big") + answer)
            async with asyncio.timeout(TCP_IDLE_SECONDS):
                await writer.drain()
            # What has been read already, and written without delay, gives nobody else a turn.
            await asyncio.sleep(0)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._transport: asyncio.DatagramTransport
        self._is_stuck = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._is_stuck:
            return  # whoever it was will ask again
        if (answer := respond(data, self._ask, is_udp=True)) is not None:
            self._transport.sendto(answer, addr)

    def pause_writing(self) -> None:
        self._is_stuck = True

    def resume_writing(self) -> None:
        self._is_stuck = False

    def error_received(self, exc: Exception) -> None:
        log.debug("a client of an answer is not there: %s", exc)
