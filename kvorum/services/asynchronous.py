"""``client.services`` of ``kvorum.AsyncClient``: see ``kvorum.services.blocking`` for what its methods
promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from kvorum.background import AsyncBackground, call_back
from kvorum.cache import AsyncCache
from kvorum.closing import AsyncClosing
from kvorum.errors import KvorumError
from kvorum.mirror import Change as KeyChange
from kvorum.services import asking
from kvorum.services.choice import Pickers
from kvorum.services.directory import Change
from kvorum.services.records import Instance, check_name, each_tag, instance, prefix_of
from kvorum.services.registering import TTL_SECONDS, RegistrationPlans
from kvorum.services.watched import Choosing, Taken

if TYPE_CHECKING:
    from kvorum.async_client import AsyncClient

Instances = list[Instance]


class AsyncServices:
    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._pickers = Pickers()

    def register(
        self,
        name: str,
        addr: str,
        *,
        metadata: Mapping[str, str] | None = None,
        tags: Iterable[str] = (),
        weight: int = 1,
        zone: str = "",
        ttl: int = TTL_SECONDS,
        id: str = "",  # noqa: A002
        on_problem: Callable[[str | None], None] | None = None,
    ) -> AsyncRegistration:
        """``async with client.services.register(…)``, or await it, and close it at the end."""
        one = instance(name, addr, metadata=metadata, tags=tags, weight=weight, zone=zone, id=id)
        return AsyncRegistration(self._client, one, ttl, on_problem)

    async def list(self) -> dict[str, Instances]:
        return await self._client.run(asking.listed(self._client.core))

    async def resolve(
        self,
        name: str,
        *,
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        zone: str = "",
    ) -> Instances:
        return await self._client.run(asking.resolve(self._client.core, name, tags, metadata, zone))

    async def resolve_one(
        self,
        name: str,
        *,
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        zone: str = "",
        policy: str = "round-robin",
    ) -> Instance:
        tags = each_tag(tags)
        picker = self._pickers.of(name, policy, tags, metadata, zone)
        plan = asking.resolve_one(self._client.core, name, picker, tags, metadata, zone)
        return await self._client.run(plan)

    async def deregister(self, name: str, id: str) -> bool:  # noqa: A002
        return await self._client.run(asking.deregister(self._client.core, name, id))

    def watch(
        self,
        name: str = "",
        *,
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncServiceWatch:
        return AsyncServiceWatch(self._client, name, Taken(tags, metadata))

    def balancer(
        self,
        name: str,
        *,
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        zone: str = "",
        policy: str = "round-robin",
    ) -> AsyncBalancer:
        """``async with``, or await it."""
        return AsyncBalancer(self._client, Choosing(name, policy, tags, metadata, zone))


class AsyncRegistration:
    def __init__(
        self, client: AsyncClient, one: Instance, ttl: int, on_problem: Callable[[str | None], None] | None
    ) -> None:
        told = None if on_problem is None else lambda problem: call_back(on_problem, problem)
        self._client = client
        self._plans = RegistrationPlans(client.core, one, ttl, told)
        self._background: AsyncBackground[NoReturn] | None = None

    @property
    def instance(self) -> Instance:
        return self._plans.instance

    @property
    def ttl(self) -> int:
        return self._plans.ttl

    @property
    def problem(self) -> str | None:
        return self._plans.problem

    async def open(self) -> Self:
        try:
            await self._client.run(self._plans.open())
        except asyncio.CancelledError:
            # Nobody knows how far it came; who is cancelled can still say that it is not to be.
            with suppress(KvorumError):
                await self._client.run(self._plans.close())
            raise
        self._background = AsyncBackground(self._client, self._plans.keep(), "kvorum-registration")
        self._client.adopt(self)
        return self

    async def close(self) -> None:
        background, self._background = self._background, None
        if background is not None:
            background.stop()
            await self._client.run(self._plans.close())

    def abandon(self) -> None:
        """Keep it up no longer: it leaves the list within ``ttl`` seconds."""
        if self._background is not None:
            self._background.stop()

    def __await__(self) -> Generator[Any, Any, Self]:
        return self.open().__await__()

    async def __aenter__(self) -> Self:
        return self if self._background is not None else await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(*([KvorumError] if kind is not None else [])):
            await self.close()


class AsyncBalancer(AsyncClosing):
    def __init__(self, client: AsyncClient, choosing: Choosing) -> None:
        self._choosing = choosing
        self._cache = AsyncCache(client, prefix_of(choosing.name), self._changed, asking.PAGE)
        self._is_open = False

    async def open(self) -> Self:
        if not self._is_open:
            await self._cache.load()
            self._is_open = True
            self._choosing.take_all(self._cache.items())
            self._cache.follow()
        return self

    def _changed(self, change: KeyChange) -> None:
        self._choosing.take(change)

    @property
    def error(self) -> KvorumError | None:
        return self._cache.error

    @property
    def instances(self) -> list[Instance]:
        return self._choosing.instances

    def pick(self) -> Instance:
        return self._choosing.pick()

    def close(self) -> None:
        self._cache.close()

    def __await__(self) -> Generator[Any, Any, Self]:
        return self.open().__await__()

    async def __aenter__(self) -> Self:
        return await self.open()


class AsyncServiceWatch(AsyncClosing):
    def __init__(self, client: AsyncClient, name: str, taken: Taken) -> None:
        self._taken = taken
        prefix = prefix_of(check_name(name) if name else "")
        self._cache = AsyncCache(client, prefix, self._changed, asking.PAGE)
        self._changes: asyncio.Queue[Change | None] = asyncio.Queue()
        self._is_open = False

    async def open(self) -> Self:
        if not self._is_open:
            await self._cache.load()
            self._is_open = True
            for change in self._taken.take_all(self._cache.items()):
                self._changes.put_nowait(change)
            self._cache.follow()
        return self

    def _changed(self, key_change: KeyChange) -> None:
        for change in self._taken.take(key_change):
            self._changes.put_nowait(change)

    async def __aiter__(self) -> AsyncIterator[Change]:
        await self.open()
        while (change := await self._changes.get()) is not None:
            yield change

    def close(self) -> None:
        self._cache.close()
        self._changes.put_nowait(None)

    async def __aenter__(self) -> Self:
        return await self.open()
