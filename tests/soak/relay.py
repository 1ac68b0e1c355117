"""A TCP relay that delays: these kernels have no netem.

It stands in front of one member: the others know only the relay's address. Each direction of each
connection has its own delay, drawn anew for each chunk, so that what goes over different connections
overtakes; within one TCP stream nothing does, as in a real network.

    relay = Relay(listen=("10.77.2.1", 2380), to=("10.77.0.1", 2380), source=source_of, seed=7)
    await relay.start()
    relay.delay = (0.02, 0.3)      seconds, least and most; (0, 0) passes everything on at once
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

_CHUNK = 1 << 16
_QUEUED_MAX = 64  # chunks of one direction; whoever sends more is held up, as by a narrow link


class Relay:
    def __init__(
        self,
        listen: tuple[str, int],
        to: tuple[str, int],
        source: Callable[[str], tuple[str, int] | None],
        seed: int,
    ) -> None:
        self.delay = (0.0, 0.0)
        self.connections = 0
        self._listen = listen
        self._to = to
        self._source = source  # from the address of who connects to the one we connect from
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, *self._listen)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            await _hang_up(writer)
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = self._source(writer.get_extra_info("peername")[0])
        far_reader, far_writer = await asyncio.open_connection(*self._to, local_addr=source)
        pumps = [
            asyncio.ensure_future(self._pump(reader, far_writer)),
            asyncio.ensure_future(self._pump(far_reader, writer)),
        ]
        try:
            # Either may be half closed for long; an error of one ends both.
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            await _hang_up(far_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED_MAX)
        sender = asyncio.ensure_future(self._send(queue, writer))
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(_CHUNK):
                await queue.put((loop.time() + self._random.uniform(*self.delay), data))
            await queue.put((0.0, b""))
            await sender
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            if not data:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """At once and without a word, as when a process has died."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
