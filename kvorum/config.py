"""Configuration as a typed value that follows the store: for both shells.

config = client.bind("/app", Settings)
config.value.port               # of a Settings: all of one revision
config.error                    # why the keys are no Settings at the moment; then the value is the last
good one
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from kvorum.background import call_back
from kvorum.binding import Binding, Changed, Refused
from kvorum.cache import AsyncCache, Cache
from kvorum.closing import AsyncClosing, Closing
from kvorum.mirror import PAGE, Change
from kvorum.records import InvalidConfig
from kvorum.types import Key, KeyValue

if TYPE_CHECKING:
    from kvorum.async_client import AsyncClient
    from kvorum.client import Client

T = TypeVar("T")


class _Bound(Generic[T]):
    """What is the same in both shells."""

    def __init__(
        self,
        prefix: Key,
        kind: type[T],
        on_change: Callable[[T, T], None] | None,
        on_error: Callable[[InvalidConfig], None] | None,
    ) -> None:
        self._binding = Binding(prefix, kind)
        self._on_change, self._on_error = on_change, on_error

    @property
    def value(self) -> T:
        """The last good one."""
        return self._binding.value

    @property
    def error(self) -> InvalidConfig | None:
        """Why the keys are no good now; None if they are."""
        return self._binding.error

    def _begin(self, kvs: list[KeyValue]) -> None:
        if isinstance(refused := self._binding.update(kvs), Refused):
            raise refused.error

    def _update(self, kvs: list[KeyValue]) -> None:
        match self._binding.update(kvs):
            case Changed(old, new) if self._on_change is not None:
                call_back(self._on_change, old, new)
            case Refused(error) if self._on_error is not None:
                call_back(self._on_error, error)


class Config(_Bound[T], Closing):
    """See ``Client.bind``."""

    def __init__(
        self,
        client: Client,
        prefix: Key,
        kind: type[T],
        on_change: Callable[[T, T], None] | None,
        on_error: Callable[[InvalidConfig], None] | None,
    ) -> None:
        super().__init__(prefix, kind, on_change, on_error)
        self._cache = Cache(client, self._binding.prefix, self._changed, PAGE)

    def open(self) -> Self:
        """Raises InvalidConfig, or what a call does."""
        self._cache.load()
        self._begin(self._cache.items())
        self._cache.follow()
        return self

    def _changed(self, change: Change) -> None:
        self._update(self._cache.items())

    def wait_for(self, revision: int, timeout: float | None = None) -> bool:
        """Until the value is of that revision of the store, or a later one; False if that takes longer than
        ``timeout`` seconds."""
        return self._cache.wait_for(revision, timeout)

    def close(self) -> None:
        """Follow no longer. The value stays as it is."""
        self._cache.close()


class AsyncConfig(_Bound[T], AsyncClosing):
    """See ``Client.bind``."""

    def __init__(
        self,
        client: AsyncClient,
        prefix: Key,
        kind: type[T],
        on_change: Callable[[T, T], None] | None,
        on_error: Callable[[InvalidConfig], None] | None,
    ) -> None:
        super().__init__(prefix, kind, on_change, on_error)
        self._cache = AsyncCache(client, self._binding.prefix, self._changed, PAGE)

    async def open(self) -> Self:
        await self._cache.load()
        self._begin(self._cache.items())
        self._cache.follow()
        return self

    def _changed(self, change: Change) -> None:
        self._update(self._cache.items())

    async def wait_for(self, revision: int, timeout: float | None = None) -> bool:
        return await self._cache.wait_for(revision, timeout)

    def close(self) -> None:
        self._cache.close()
