"""Takes compacted revisions out of the state, a little at a time.

Compaction is done, as far as any reader can tell, the moment its command is applied
(``kvstate.compaction``). What it made unreachable is removed in the background in small
steps, between which the event loop serves requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kvstate.machine import StateMachine

# A millisecond or so, and then most of the time is the requests' again. A thousand at once held them up
# for 50 ms on a slow machine.
REVISIONS_PER_STEP = 50
PAUSE_SECONDS = 0.003


class Scrubber:
    """Runs ``StateMachine.compaction_step`` until nothing is left to remove."""

    def __init__(self, machine: StateMachine, on_fatal: Callable[[BaseException], None]) -> None:
        self._machine = machine
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def poke(self) -> None:
        """Begin, if there is something to remove and no step is due already."""
        if self._next is None and self._machine.compaction_pending:
            self._next = self._loop.call_later(PAUSE_SECONDS, self._step)

    async def done(self) -> None:
        """Wait until everything compacted so far is gone."""
        if self._machine.compaction_pending:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
        self._release()

    def _step(self) -> None:
        self._next = None
        try:
            finished = self._machine.compaction_step(REVISIONS_PER_STEP)
        except Exception as error:
            self._on_fatal(error)
            self._release()
            return
        if finished:
            self._release()
        self.poke()

    def _release(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
