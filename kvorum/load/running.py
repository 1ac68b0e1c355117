"""So many connections, for so long, at such a rate."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kvorum.errors import ConnectionFailed, KvorumError
from kvorum.load.answers import BadAnswer
from kvorum.load.connection import Connection, Target, connect
from kvorum.load.measuring import Measured
from kvorum.load.requests import Request
from kvorum.messages import decode

PAUSE_SECONDS = 0.1
"""After a connection was lost."""
Progress = Callable[[float], None]
"""Told, now and then, which part is done: from 0 to 1."""


@dataclass(frozen=True)
class Extent:
    """Until ``total`` requests are made, or ``seconds`` are over, whichever comes first. With a ``rate``,
    so many are due in a second. Those that nobody is free to send wait, and that is part of what they took;
    or where it is not ``from_due``, they are left out."""

    total: int | None = None
    seconds: float | None = None
    rate: float | None = None
    from_due: bool = True


class Load:
    """One run. ``requests`` are taken as they come, by whichever connection is free."""

    def __init__(
        self,
        targets: Sequence[Target],
        clients: int,
        requests: Iterator[Request],
        extent: Extent,
        dial_timeout: float,
    ) -> None:
        self._targets = targets
        self._clients = clients
        self._requests = requests
        self._extent = extent
        self._dial_timeout = dial_timeout
        self._left = extent.total if extent.total is not None else math.inf
        self._begun = 0.0
        self._sent = 0
        self.measured = Measured()

    async def run(self, progress: Progress = lambda part: None) -> Measured:
        """Raises ConnectionFailed where a member cannot be reached at first; later that is counted."""
        opened = await open_all([self._connect(number) for number in range(self._clients)])
        self._begun, cpu = time.perf_counter(), time.process_time()
        watcher = asyncio.create_task(self._tell(progress))
        try:
            await asyncio.gather(*(self._work(number, one) for number, one in enumerate(opened)))
        finally:
            watcher.cancel()
            self.measured.seconds = time.perf_counter() - self._begun
            self.measured.client_cpu = time.process_time() - cpu
        return self.measured

    def _connect(self, number: int) -> Coroutine[Any, Any, Connection]:
        return connect(self._targets[number % len(self._targets)], self._dial_timeout)

    async def _work(self, number: int, connection: Connection) -> None:
        target = self._targets[number % len(self._targets)]
        try:
            while (due := await self._turn()) is not None:
                path, body = next(self._requests)
                begun = due if self._extent.from_due else time.perf_counter()
                try:
                    if not connection.is_open:
                        connection = await self._connect(number)
                    answer = await connection.ask(target.request(path, body))
                    if answer.status != 200:
                        decode(answer.status, answer.body)
                except (OSError, EOFError, BadAnswer, KvorumError) as error:
                    self.measured.errors[str(error)] += 1
                    if not connection.is_open or isinstance(error, ConnectionFailed):
                        await asyncio.sleep(PAUSE_SECONDS)
                else:
                    self.measured.took.append(time.perf_counter() - begun)
        finally:
            connection.close()

    async def _turn(self) -> float | None:
        """When the next request is due, now or not long ago; None when there is no more."""
        now, extent = time.perf_counter(), self._extent
        if self._left <= 0 or self._is_over(now):
            return None
        self._left -= 1
        if extent.rate is None:
            return now
        due = self._begun + self._sent / extent.rate
        self._sent += 1
        if due > now:
            if self._is_over(due):
                return None
            await asyncio.sleep(due - now)
        elif not extent.from_due and now - due > 1 / extent.rate:
            # Nobody was free: what was not sent in time is not sent at all.
            self._sent = int((now - self._begun) * extent.rate)
        return due

    def _is_over(self, now: float) -> bool:
        return self._extent.seconds is not None and now - self._begun >= self._extent.seconds

    async def _tell(self, progress: Progress) -> None:
        extent = self._extent
        while True:
            parts = [0.0]
            if extent.seconds:
                parts.append((time.perf_counter() - self._begun) / extent.seconds)
            if extent.total:
                parts.append(1 - self._left / extent.total)
            progress(min(max(parts), 1.0))
            await asyncio.sleep(0.1)


async def open_all(connections: Sequence[Coroutine[Any, Any, Connection]]) -> list[Connection]:
    """Opened; or where one cannot be, all closed again. Raises ConnectionFailed."""
    found = await asyncio.gather(*connections, return_exceptions=True)
    opened = [one for one in found if isinstance(one, Connection)]
    for one in found:
        if isinstance(one, BaseException):
            for connection in opened:
                connection.close()
            raise one
    return opened
