"""Many watches, and how long changes take to reach them."""

from __future__ import annotations

import asyncio
import base64
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence

from kvorum.load.answers import Answer
from kvorum.load.connection import Connection, Target, connect
from kvorum.load.requests import Request, Shape, put
from kvorum.load.running import open_all
from kvorum.messages import encode, key_range

_VALUE = re.compile(rb'"value":"([^"]*)"')
_TIME_BYTES = 24


class Watchers:
    """Many watches of one prefix, and how long after it was sent a change reaches each. The values that are
    put begin with the time of the sending (``timed``)."""

    def __init__(self, targets: Sequence[Target], count: int, prefix: bytes, dial_timeout: float) -> None:
        self._targets, self._count, self._prefix = targets, count, prefix
        self._dial_timeout = dial_timeout
        self._connections: list[Connection] = []
        self._created = 0
        self._news = asyncio.Event()
        self.took: list[float] = []

    async def open(self, seconds: float) -> None:
        """Until all watch. Raises ConnectionFailed, TimeoutError."""
        spread = [self._targets[number % len(self._targets)] for number in range(self._count)]
        self._connections = await open_all(
            [connect(one, self._dial_timeout, self._on_line) for one in spread]
        )
        create = {"create_request": key_range(self._prefix, prefix=True)}
        for target, connection in zip(spread, self._connections, strict=True):
            connection.send(target.request("/v3/watch", encode(create)))
        await self._until(lambda: self._created == self._count, seconds)

    async def until_told(self, changes: int, seconds: float) -> bool:
        """Whether each watch has told so many."""
        try:
            await self._until(lambda: len(self.took) >= changes * self._count, seconds)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def _on_line(self, answer: Answer) -> None:
        now = time.perf_counter()
        for value in _VALUE.findall(answer.body):
            self.took.append(now - float(base64.b64decode(value)[:_TIME_BYTES]))
        if b'"created":true' in answer.body:
            self._created += 1
        self._news.set()


def timed(shape: Shape, rng: random.Random) -> Iterator[Request]:
    """Puts whose values say when they were made."""
    padding = b"x" * max(shape.value_bytes - _TIME_BYTES, 0)
    while True:
        stamp = f"{time.perf_counter():<{_TIME_BYTES}.9f}".encode()
        yield put(shape.key(rng.randrange(shape.keys)), stamp + padding)
