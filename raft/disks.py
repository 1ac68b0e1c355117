"""The blocking work of the log and of the state, on a thread each, and what is to follow it on the loop."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures import Future as ThreadFuture


class Job(enum.Enum):
    SAVE = "save"  # the log is written
    CUT = "cut"  # the log is cut at its beginning
    FLUSH = "flush"  # the state is written, or replaced


class Disks:
    """One of each job at a time. An error of the work, or of what follows it, is handed to ``fail``; after a
    failure (``has_failed``) nothing follows any more."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        executors: tuple[Executor, Executor] | None,
        *,
        fail: Callable[[BaseException], None],
        has_failed: Callable[[], bool],
    ) -> None:
        """``executors``: for the log and for the state, each doing one job at a time; threads if None."""
        self._loop = loop
        self._fail = fail
        self._has_failed = has_failed
        self._log, self._state = executors or (ThreadPoolExecutor(1, "wal"), ThreadPoolExecutor(1, "state"))
        self._busy: set[Job] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def is_busy(self, job: Job) -> bool:
        return job in self._busy

    def run(self, job: Job, work: Callable[[], None], then: Callable[[], None]) -> None:
        """Do ``work`` on the job's thread and ``then`` on the loop."""
        self._busy.add(job)
        self._idle.clear()

        def report(done: ThreadFuture[None]) -> None:
            self._loop.call_soon_threadsafe(self._ended, job, then, done)

        executor = self._state if job is Job.FLUSH else self._log
        executor.submit(work).add_done_callback(report)

    async def until_idle(self) -> None:
        while self._busy:
            await self._idle.wait()

    async def close(self, last: Callable[[], None] | None) -> None:
        """When nothing is under way: do the ``last`` of the state's work, and end the threads."""
        if last is not None:
            await self._loop.run_in_executor(self._state, last)
        self._log.shutdown()
        self._state.shutdown()

    def _ended(self, job: Job, then: Callable[[], None], done: ThreadFuture[None]) -> None:
        self._busy.discard(job)
        if not self._busy:
            self._idle.set()
        try:
            done.result()
            if not self._has_failed():
                then()
        except Exception as error:
            self._fail(error)
