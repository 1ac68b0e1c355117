"""A store in this process, with the product's own state and watches and nothing between: a write is applied
one turn of the loop after it was asked for, and answered one turn later, so that whoever asked can be
interrupted before, between and behind. What goes wrong is told to it beforehand:

    store = LocalStore()
    store.fail(LeadershipLost(), applied=True)      # the next write is applied, but the answer is lost
    store.fail_reads(TimedOut(), times=3)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from api.service import Reply
from kvstate.backend import Backend, MemoryStore
from kvstate.codec import encode
from kvstate.commands import Command, DeleteRange, LeaseGrant, LeaseRevoke, Put, Range, Txn
from kvstate.machine import StateMachine
from kvstate.types import KeyValue
from watch.hub import Hub
from watch.stream import WatchStream


class LocalStore:
    def __init__(self) -> None:
        self.machine = StateMachine(Backend(MemoryStore()))
        self.hub = Hub(self.machine)
        self._lease_ids: Iterator[int] = iter(range(1000, 2000))
        self._failures: list[tuple[Exception, bool]] = []
        self._read_failures: list[Exception] = []

    def fail(self, error: Exception, *, applied: bool) -> None:
        self._failures.append((error, applied))

    def fail_reads(self, error: Exception, times: int = 1) -> None:
        self._read_failures += [error] * times

    # What ``api.line.Store`` asks for.

    async def range(self, request: Range) -> Reply:
        await asyncio.sleep(0)
        if self._read_failures:
            raise self._read_failures.pop(0)
        return Reply(self.machine.range(request), self.machine.revision)

    async def txn(self, request: Txn) -> Reply:
        return await self.write(request)

    async def delete_range(self, request: DeleteRange) -> Reply:
        return await self.write(request)

    async def lease_grant(self, ttl: int, lease_id: int = 0) -> Reply:
        return await self.write(LeaseGrant(lease_id or next(self._lease_ids), ttl))

    def watch(self) -> WatchStream:
        return self.hub.stream()

    # What tests do.

    async def write(self, command: Command) -> Reply:
        """Whoever is cancelled meanwhile has proposed it all the same, as with a real node."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Reply] = loop.create_future()
        loop.call_soon(self._write, command, answer)
        reply = await answer
        await asyncio.sleep(0)
        return reply

    def _write(self, command: Command, answer: asyncio.Future[Reply]) -> None:
        error, applied = self._failures.pop(0) if self._failures else (None, True)
        reply: Reply | None = None
        if applied:
            try:
                reply = self.apply(command)
            except Exception as refusal:
                error = error or refusal
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            assert reply is not None
            answer.set_result(reply)

    def apply(self, command: Command) -> Reply:
        data = encode(command, user="", wall_clock_ms=0)
        result = self.machine.apply(self.machine.applied[0] + 1, 1, data)
        if result.events:
            self.hub.publish(result.revision, result.events)
        if result.error is not None:
            raise result.error
        assert result.response is not None
        return Reply(result.response, result.revision)

    def grant(self, *leases: int) -> None:
        for lease in leases:
            self.apply(LeaseGrant(lease, 60))

    def revoke(self, lease: int) -> None:
        self.apply(LeaseRevoke(lease))

    def put(self, key: bytes, value: bytes = b"", lease: int = 0) -> None:
        self.apply(Put(key, value, lease=lease))

    def kvs(self) -> list[KeyValue]:
        return list(self.machine.range(Range(b"\0", b"\0")).kvs)

    def keys(self) -> list[bytes]:
        return [kv.key for kv in self.kvs()]
