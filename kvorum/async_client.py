"""The asyncio client: the same plans as the blocking one's, carried out with aiohttp and tasks.

    async with AsyncClient("10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379") as client:
        await client.put("/app/port", "8080")
        async for event in client.watch("/app/", prefix=True): …

For one event loop. What the methods promise is said at ``kvorum.Client``.
"""

from __future__ import annotations

import asyncio
import random
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from kvorum import leases, operations
from kvorum.client import PAGE
from kvorum.clock import now, seconds
from kvorum.closing import AsyncClosing
from kvorum.endpoints import Endpoints
from kvorum.errors import KvorumError
from kvorum.keepalive import USUAL, Keepalive
from kvorum.leases import LeasePlans
from kvorum.messages import Message, key_range
from kvorum.operations import Pages
from kvorum.plans import CloseStream, Core, Effect, Exchange, OpenStream, Plan, ReadFrame, Sleep
from kvorum.tls import Tls
from kvorum.txn import Compare, Operation, TransactionBuilder
from kvorum.types import DeleteResult, Event, Key, KeyValue, LeaseInfo, PutResult, RangeResult, TxnResult
from kvorum.watching import Batch, WatchPlans, watch_request

if TYPE_CHECKING:
    from kvorum.cache import AsyncCache
    from kvorum.config import AsyncConfig
    from kvorum.http_async import AsyncHttp
    from kvorum.mirror import Change
    from kvorum.recipes.asynchronous import (
        AsyncBarrier,
        AsyncCounter,
        AsyncDoubleBarrier,
        AsyncElection,
        AsyncLock,
    )
    from kvorum.records import InvalidConfig
    from kvorum.services.asynchronous import AsyncServices

T = TypeVar("T")


class AsyncClient:
    def __init__(
        self,
        endpoints: str | Iterable[str] = "127.0.0.1:2379",
        *,
        timeout: float = 5.0,
        dial_timeout: float = 2.0,
        tls: Tls | None = None,
        user: str = "",
        password: str = "",
        keepalive: Keepalive = USUAL,
    ) -> None:
        rng = random.SystemRandom()  # a forked process must not choose the same ids
        known = Endpoints(endpoints, rng, "http" if tls is None else "https")
        self.core = Core(known, clock=now, rng=rng, timeout=timeout, user=user, password=password)
        self._dial_timeout, self._tls = seconds("dial_timeout", dial_timeout), tls or Tls()
        self._keepalive = keepalive
        self._made: AsyncHttp | None = None
        self._to_close: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def _http(self) -> AsyncHttp:
        if self._made is None:
            from kvorum.http_async import AsyncHttp  # aiohttp takes long to import

            self._made = AsyncHttp(self._dial_timeout, self._tls, self._keepalive)
        return self._made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        for one in list(self._to_close):
            one.abandon()
        if self._made is not None:
            await self._made.close()

    def adopt(self, one: Any) -> None:
        """Its ``abandon`` is called when the client is closed, unless it is no more by then."""
        self._to_close.add(one)

    # Plans.

    async def run(self, plan: Plan[T], stop: asyncio.Event | None = None) -> T:
        """Carry a plan out. Raises what it raises; where ``stop`` is set, it sleeps no longer."""
        try:
            effect = next(plan)
            while True:
                try:
                    outcome = await self.perform(effect, stop)
                except KvorumError as error:
                    effect = plan.throw(error)
                else:
                    effect = plan.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            plan.close()

    async def perform(self, effect: Effect, stop: asyncio.Event | None = None) -> Any:
        """One step of a plan. Raises KvorumError; where ``stop`` is set, it sleeps no longer."""
        match effect:
            case Exchange():
                return await self._http.exchange(effect)
            case ReadFrame(stream, timeout):
                return await stream.read(timeout)
            case OpenStream():
                return await self._http.open_stream(effect)
            case CloseStream(stream):
                return stream.close()
            case Sleep(seconds):
                if stop is None:
                    return await asyncio.sleep(seconds)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), seconds)
                return None

    async def call(
        self, path: str, message: Message, *, safe: bool = False, timeout: float | None = None
    ) -> Message:
        return await self.run(self.core.call(path, message, safe=safe, timeout=timeout))

    # Keys.

    async def get(self, key: Key, *, revision: int = 0, serializable: bool = False) -> KeyValue | None:
        return await self.run(operations.get(self.core, key, revision=revision, serializable=serializable))

    async def range(
        self,
        key: Key,
        range_end: Key | None = None,
        *,
        prefix: bool = False,
        from_key: bool = False,
        limit: int = 0,
        revision: int = 0,
        sort_by: str = "KEY",
        descending: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        serializable: bool = False,
    ) -> RangeResult:
        selected = key_range(key, range_end, prefix=prefix, from_key=from_key)
        plan = operations.read(
            self.core,
            selected,
            limit=limit,
            revision=revision,
            sort_by=sort_by,
            descending=descending,
            keys_only=keys_only,
            count_only=count_only,
            serializable=serializable,
        )
        return await self.run(plan)

    async def items(self, prefix: Key, *, page: int = PAGE, revision: int = 0) -> AsyncIterator[KeyValue]:
        pages = Pages(self.core, prefix, page, revision)
        while not pages.is_at_end:
            for kv in await self.run(pages.next_page()):
                yield kv

    async def put(
        self, key: Key, value: Key, *, lease: int = 0, prev_kv: bool = False, idempotent: bool = False
    ) -> PutResult:
        plan = operations.put(self.core, key, value, lease=lease, prev_kv=prev_kv, idempotent=idempotent)
        return await self.run(plan)

    async def delete(
        self,
        key: Key,
        range_end: Key | None = None,
        *,
        prefix: bool = False,
        prev_kv: bool = False,
        idempotent: bool = False,
    ) -> DeleteResult:
        selected = key_range(key, range_end, prefix=prefix)
        return await self.run(operations.delete(self.core, selected, prev_kv=prev_kv, idempotent=idempotent))

    def txn(self, *, idempotent: bool = False) -> AsyncTransaction:
        """A transaction, carried out at the end of its ``async with`` block: see ``kvorum.txn``."""
        return AsyncTransaction(self, idempotent)

    async def transact(
        self,
        compares: Sequence[Compare],
        then: Sequence[Operation[Any]],
        otherwise: Sequence[Operation[Any]] = (),
        *,
        idempotent: bool = False,
    ) -> TxnResult:
        plan = operations.transact(self.core, compares, then, otherwise, idempotent=idempotent)
        return await self.run(plan)

    async def compact(self, revision: int, *, physical: bool = False) -> None:
        await self.run(operations.compact(self.core, revision, physical))

    # Watches.

    def watch(
        self,
        key: Key,
        range_end: Key | None = None,
        *,
        prefix: bool = False,
        start_revision: int = 0,
        prev_kv: bool = False,
        puts: bool = True,
        deletes: bool = True,
    ) -> AsyncWatch:
        create = watch_request(key_range(key, range_end, prefix=prefix), prev_kv, puts, deletes)
        watch = AsyncWatch(self, WatchPlans(self.core, create, start_revision))
        self.adopt(watch)
        return watch

    # Leases.

    def lease(
        self,
        ttl: int,
        *,
        id: int = 0,  # noqa: A002
        on_lost: Callable[[str], None] | None = None,
    ) -> AsyncLease:
        """``on_lost`` is called by the event loop."""
        lease = AsyncLease(self, LeasePlans(self.core, ttl, id), on_lost)
        self.adopt(lease)
        return lease

    async def grant(self, ttl: int, id: int = 0) -> int:  # noqa: A002
        return (await self.run(leases.grant(self.core, ttl, id)))[0]

    async def revoke(self, lease_id: int) -> None:
        await self.run(leases.revoke(self.core, lease_id))

    async def keep_alive(self, lease_id: int) -> int:
        return await self.run(leases.keep_alive(self.core, lease_id))

    async def time_to_live(self, lease_id: int, *, keys: bool = False) -> LeaseInfo:
        return await self.run(operations.time_to_live(self.core, lease_id, keys))

    async def leases(self) -> list[int]:
        return await self.run(operations.leases(self.core))

    # What several processes agree on.

    def lock(self, name: Key, ttl: int = 10, *, on_lost: Callable[[str], None] | None = None) -> AsyncLock:
        from kvorum.recipes.asynchronous import AsyncLock

        return AsyncLock(self, name, ttl, on_lost)

    def election(
        self, name: Key, ttl: int = 10, *, on_lost: Callable[[str], None] | None = None
    ) -> AsyncElection:
        from kvorum.recipes.asynchronous import AsyncElection

        return AsyncElection(self, name, ttl, on_lost)

    def barrier(self, name: Key) -> AsyncBarrier:
        from kvorum.recipes.asynchronous import AsyncBarrier

        return AsyncBarrier(self, name)

    def double_barrier(
        self, name: Key, parties: int, ttl: int = 10, *, on_lost: Callable[[str], None] | None = None
    ) -> AsyncDoubleBarrier:
        from kvorum.recipes.asynchronous import AsyncDoubleBarrier

        return AsyncDoubleBarrier(self, name, parties, ttl, on_lost)

    def counter(self, key: Key) -> AsyncCounter:
        from kvorum.recipes.asynchronous import AsyncCounter

        return AsyncCounter(self, key)

    # Who offers what, and where.

    @cached_property
    def services(self) -> AsyncServices:
        """See ``kvorum.services``."""
        from kvorum.services.asynchronous import AsyncServices

        return AsyncServices(self)

    # What follows the store.

    async def cache(
        self, prefix: Key, *, on_change: Callable[[Change], None] | None = None, page: int = PAGE
    ) -> AsyncCache:
        from kvorum.cache import AsyncCache

        return await AsyncCache(self, prefix, on_change, page).open()

    async def bind(
        self,
        prefix: Key,
        kind: type[T],
        *,
        on_change: Callable[[T, T], None] | None = None,
        on_error: Callable[[InvalidConfig], None] | None = None,
    ) -> AsyncConfig[T]:
        from kvorum.config import AsyncConfig

        return await AsyncConfig(self, prefix, kind, on_change, on_error).open()

    # The cluster.

    async def members(self) -> list[Message]:
        return await self.run(operations.members(self.core))

    async def status(self, endpoint: str | None = None) -> Message:
        return await self.run(operations.status(self.core, endpoint))


class AsyncTransaction(TransactionBuilder):
    def __init__(self, client: AsyncClient, idempotent: bool) -> None:
        super().__init__()
        self._client, self._idempotent = client, idempotent

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            client = self._client
            self.complete(await client.run(operations.carry_out(client.core, self, self._idempotent)))


class AsyncWatch(AsyncClosing):
    """Changes in order, without gap or double, over reconnects. One task iterates; any may ``close`` it."""

    def __init__(self, client: AsyncClient, plans: WatchPlans) -> None:
        self._client = client
        self._plans = plans
        self._stop = asyncio.Event()

    async def start(self) -> int:
        return await self._client.run(self._plans.start(), self._stop)

    async def batches(self) -> AsyncIterator[Batch]:
        while await self._receive():
            yield self._plans.untold.next_batch()

    def __aiter__(self) -> Self:
        """A step that is cancelled loses nothing: the next one goes on where it was."""
        return self

    async def __anext__(self) -> Event:
        if not await self._receive():
            raise StopAsyncIteration
        return self._plans.untold.next_event()

    async def _receive(self) -> bool:
        plans = self._plans
        if plans.is_closed or plans.untold:
            return not plans.is_closed
        return await self._client.run(plans.receive(), self._stop)

    @property
    def next_revision(self) -> int:
        return self._plans.told_until

    @property
    def failure(self) -> KvorumError | None:
        return self._plans.failure

    def close(self) -> None:
        self._plans.is_closed = True
        self._stop.set()
        if self._plans.stream is not None:
            self._plans.stream.close()

    abandon = close

    async def __aenter__(self) -> Self:
        await self.start()
        return self


class AsyncLease:
    """See ``Client.lease``."""

    def __init__(self, client: AsyncClient, plans: LeasePlans, on_lost: Callable[[str], None] | None) -> None:
        self._client = client
        self._plans = plans
        self._on_lost = on_lost
        self._keeper: asyncio.Task[None] | None = None

    @property
    def id(self) -> int:
        return self._plans.id

    @property
    def ttl(self) -> int:
        return self._plans.ttl

    @property
    def sure_until(self) -> float:
        return self._plans.sure_until

    @property
    def is_lost(self) -> bool:
        return self._plans.lost is not None

    async def open(self) -> Self:
        await self._client.run(self._plans.open())
        self._keeper = asyncio.create_task(self._keep(), name=f"kvorum-lease-{self.id:x}")
        return self

    async def close(self) -> None:
        self.abandon()
        await self._client.run(self._plans.close())

    def abandon(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()

    async def _keep(self) -> None:
        try:
            why = await self._client.run(self._plans.keep())
        except Exception as error:  # a defect, but whoever relies on the lease must hear of it
            why = str(self._plans.lose(f"the lease is not renewed any more: {error!r}"))
        if self._on_lost is not None:
            self._on_lost(why)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except KvorumError:
            if kind is None:
                raise
