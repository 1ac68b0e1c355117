"""Many small requests to one peer, together in few calls.

While some calls are under way, what comes waits, and goes with the next one: so the busier it is, the less
a request costs, and alone it goes at once.

    batches.add(7) ─┐
    batches.add(9) ─┴─► send([7, 9]) ──► [60, 60] ──► two futures
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

CALLS_MAX = 2
BATCH_MAX = 1000


class Batches:
    """``send`` answers a list of requests with a list of as many answers, or raises what all of them get."""

    def __init__(
        self, send: Callable[[Sequence[int]], Awaitable[Sequence[int]]], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._send = send
        self._loop = loop
        self._waiting: list[tuple[int, asyncio.Future[int]]] = []
        self._asked: set[asyncio.Future[int]] = set()
        self._calls: set[asyncio.Task[None]] = set()

    def add(self, request: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = self._loop.create_future()
        self._waiting.append((request, future))
        if len(self._calls) < CALLS_MAX:
            call = self._loop.create_task(self._run())
            self._calls.add(call)
            call.add_done_callback(lambda done: self._calls.discard(done))
        return future

    def abandon(self, error: Exception) -> None:
        """Nobody there will answer, or need: all who wait get this error."""
        calls, self._calls = self._calls, set()
        for call in calls:
            call.cancel()
        waiting, self._waiting = self._waiting, []
        for future in [*self._asked, *(future for _, future in waiting)]:
            if not future.done():
                future.set_exception(error)

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            futures = [future for _, future in batch]
            self._asked.update(futures)
            try:
                answers = await self._send([request for request, _ in batch])
                for future, answer in zip(futures, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
            except Exception as error:
                for future in futures:
                    if not future.done():
                        future.set_exception(error)
            finally:
                self._asked.difference_update(futures)
