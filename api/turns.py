"""Sharing the event loop: who has much to do does it in short steps, and waits in between.

    while there is more:
        do some of it               # a millisecond or so
        await turns.next()

Between two steps of one the loop does everything else that is due, and of those who wait like
this only one takes a step at a time: however many there are, nobody else waits for long.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_due = False

    def next(self) -> asyncio.Future[None]:
        """Done when it is the caller's turn again: a plain future, in the order of the calls."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._give, loop)
        return future

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():  # as it is when its owner was cancelled
                future.set_result(None)
                break
        self._is_due = bool(self._waiting)
        if self._is_due:
            loop.call_soon(self._give, loop)
