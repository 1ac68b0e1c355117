"""What ``kvorum.AsyncClient`` makes: the plans of this package, carried out with tasks. What the methods
promise is said in ``kvorum.recipes.blocking``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvorum.background import AsyncBackground, call_back, finish_async
from kvorum.closing import AsyncClosing
from kvorum.errors import KvorumError
from kvorum.messages import as_bytes
from kvorum.recipes import barrier, counter, election
from kvorum.recipes.election import Observing
from kvorum.recipes.hold import Hold
from kvorum.recipes.party import Party
from kvorum.types import Key, KeyValue

if TYPE_CHECKING:
    from kvorum.async_client import AsyncClient


class _AsyncHeld(Hold):
    """A hold that a task keeps."""

    def __init__(
        self, client: AsyncClient, name: Key, ttl: int, on_lost: Callable[[str], None] | None
    ) -> None:
        super().__init__(client.core, name, ttl)
        self._client = client
        self._on_lost = on_lost
        self._keeping: AsyncBackground[str] | None = None

    async def _hold(self, value: bytes, timeout: float | None) -> bool:
        standing, is_first, deadline = self._begin(), False, self._core.deadline(timeout)
        with suppress(KvorumError):  # what was lost before
            await self._release()
        try:
            await finish_async(self._client, standing.enter(value))
            is_first = await finish_async(self._client, standing.turn(deadline))
        finally:
            if not is_first:
                with suppress(KvorumError):  # if that cannot be said, the place ends with its lease
                    await self._client.run(standing.leave())
        if is_first:
            self._standing = standing
            self._keeping = AsyncBackground(self._client, standing.keep(), "kvorum-hold", self._lost)
            self._client.adopt(self)
        return is_first

    async def _release(self) -> None:
        standing, self._standing = self._standing, None
        self.abandon()
        if standing is not None:
            await self._client.run(standing.leave())

    def _lost(self, why: str) -> None:
        if self._on_lost is not None:
            call_back(self._on_lost, why)

    def abandon(self) -> None:
        if self._keeping is not None:
            self._keeping.stop()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._release()
        except KvorumError:
            if kind is None:
                raise


class AsyncLock(_AsyncHeld):
    """See ``Client.lock``. ``on_lost`` is called by the event loop."""

    async def acquire(self, timeout: float | None = None) -> bool:
        return await self._hold(b"", timeout)

    async def release(self) -> None:
        await self._release()

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self


class AsyncElection(_AsyncHeld):
    """See ``Client.election``. ``on_lost`` is called by the event loop."""

    @property
    def is_leader(self) -> bool:
        return self.is_held

    async def campaign(self, value: Key, timeout: float | None = None) -> bool:
        return await self._hold(as_bytes(value), timeout)

    async def proclaim(self, value: Key) -> None:
        await self._client.run(self._stand().change(as_bytes(value)))

    async def resign(self) -> None:
        await self._release()

    async def leader(self) -> KeyValue | None:
        return await self._client.run(election.leader(self._core, self.name))

    def observe(self) -> AsyncObservation:
        return AsyncObservation(self._client, Observing(self._core, self.name))

    async def __aenter__(self) -> Self:
        return self


class AsyncObservation(AsyncClosing):
    """See ``Election.observe``. One task iterates; any may ``close`` it, which ends that."""

    def __init__(self, client: AsyncClient, observing: Observing) -> None:
        self._client, self._observing = client, observing
        client.adopt(self)

    async def __aiter__(self) -> AsyncIterator[KeyValue]:
        try:
            while found := await self._client.run(self._observing.next_leader()):
                yield found
        finally:
            self.close()

    def close(self) -> None:
        stream = self._observing.end()
        if stream is not None:
            stream.close()

    abandon = close


class AsyncBarrier:
    """See ``Client.barrier``."""

    def __init__(self, client: AsyncClient, name: Key) -> None:
        self.name = as_bytes(name)
        self._client = client

    async def hold(self) -> bool:
        return await self._client.run(barrier.hold(self._client.core, self.name))

    async def release(self) -> None:
        await self._client.run(barrier.release(self._client.core, self.name))

    async def wait(self, timeout: float | None = None) -> bool:
        core = self._client.core
        return await finish_async(self._client, barrier.wait(core, self.name, core.deadline(timeout)))


class AsyncDoubleBarrier:
    """See ``Client.double_barrier``."""

    def __init__(
        self, client: AsyncClient, name: Key, parties: int, ttl: int, on_lost: Callable[[str], None] | None
    ) -> None:
        if parties < 1:
            raise ValueError(f"a barrier for {parties} parties: expected at least 1")
        self.name = as_bytes(name)
        self.parties = parties
        self.ttl = ttl
        self._client, self._on_lost = client, on_lost
        self._party: Party | None = None
        self._keeping: AsyncBackground[str] | None = None

    async def enter(self, timeout: float | None = None) -> bool:
        if self._party is not None:
            raise RuntimeError(f"{self.name!r} was entered already: leave it first")
        core = self._client.core
        party, is_in, deadline = Party(core, self.name, self.ttl, self.parties), False, core.deadline(timeout)
        try:
            await finish_async(self._client, party.enter(b""))
            is_in = await finish_async(self._client, party.go_in(deadline))
        finally:
            if not is_in:
                with suppress(KvorumError):  # if that cannot be said, the party ends with its lease
                    await self._client.run(party.leave())
        if is_in:
            self._party = party
            self._keeping = AsyncBackground(self._client, party.keep(), "kvorum-hold", self._lost)
            self._client.adopt(self)
        return is_in

    async def leave(self, timeout: float | None = None) -> bool:
        party, self._party = self._party, None
        if party is None:
            raise RuntimeError(f"{self.name!r} was not entered")
        self.abandon()
        try:
            return await finish_async(self._client, party.go_out(self._client.core.deadline(timeout)))
        finally:
            with suppress(KvorumError):
                await self._client.run(party.leave())

    def _lost(self, why: str) -> None:
        if self._on_lost is not None:
            call_back(self._on_lost, why)

    def abandon(self) -> None:
        if self._keeping is not None:
            self._keeping.stop()

    async def __aenter__(self) -> Self:
        await self.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.leave()
        else:
            with suppress(KvorumError):
                await self.leave(0)


class AsyncCounter:
    """See ``Client.counter``."""

    def __init__(self, client: AsyncClient, key: Key) -> None:
        self.key = as_bytes(key)
        self._client = client

    async def get(self) -> int:
        return await self._client.run(counter.read(self._client.core, self.key))

    async def set(self, value: int) -> None:
        await self._client.run(counter.write(self._client.core, self.key, value))

    async def add(self, change: int = 1) -> int:
        return await self._client.run(counter.add(self._client.core, self.key, change))
