"""All keys with a prefix, in memory, kept up to date: for both shells.

    cache = client.cache("/app/")
    cache.get("/app/port")          # a KeyValue, or None; asks nobody
    cache.items()                   # in the order of the keys, all as of cache.revision
    revision = client.put("/app/port", "8080").revision
    cache.wait_for(revision)        # until the cache has it

It shows what the store was a moment ago, as a member that lags behind would, and never goes back. While no
member can be reached it stays as it was, and ``error`` says why.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from kvorum.background import AsyncBackground, Background, call_back, finish, finish_async
from kvorum.closing import AsyncClosing, Closing
from kvorum.errors import KvorumError
from kvorum.messages import as_bytes
from kvorum.mirror import Change, Following, follow
from kvorum.plans import Core, is_passing
from kvorum.types import Key, KeyValue

if TYPE_CHECKING:
    from kvorum.async_client import AsyncClient
    from kvorum.client import Client

PATIENCE_SECONDS = 0.1
"""How long a revision is waited for until somebody is asked. Those of other keys do not come by
themselves."""


class _Content:
    """What is the same in both shells."""

    def __init__(self, core: Core, prefix: Key, page: int) -> None:
        self._core = core
        self._following = Following(core, as_bytes(prefix), page)
        self._mirror = self._following.mirror
        self._told = 0  # all until this revision is here, and was told
        self._error: KvorumError | None = None

    @property
    def prefix(self) -> bytes:
        return self._following.prefix

    @property
    def error(self) -> KvorumError | None:
        """What keeps it from following at the moment; None if nothing does."""
        return self._error or self._following.failure

    @property
    def revision(self) -> int:
        """The store's, whose content this is."""
        return self._mirror.revision

    def get(self, key: Key) -> KeyValue | None:
        """Raises ValueError for a key that has not the prefix: nothing is known of it."""
        wanted = as_bytes(key)
        if not wanted.startswith(self.prefix):
            raise ValueError(
                f"{wanted!r} is not in the cache: expected a key that begins with {self.prefix!r}"
            )
        return self._mirror.get(wanted)

    def items(self) -> list[KeyValue]:
        """All of them, in the order of the keys, as of one revision."""
        return self._mirror.items()

    def __contains__(self, key: Key) -> bool:
        return as_bytes(key) in self._mirror

    def __len__(self) -> int:
        return len(self._mirror)

    def _caught_up(self, confirmed: tuple[int, int]) -> None:
        """As of the first revision the content was what it is as of the second."""
        since, revision = confirmed
        if self._told >= since:
            self._told = max(self._told, revision)

    def _is_in_trouble(self, error: KvorumError | None) -> None:
        self._error = error


class Cache(_Content, Closing):
    """See ``Client.cache``. Any thread may ask it."""

    def __init__(
        self, client: Client, prefix: Key, on_change: Callable[[Change], None] | None, page: int
    ) -> None:
        super().__init__(client.core, prefix, page)
        self._client = client
        self._on_change = on_change
        self._is_newer = threading.Condition()
        self._background: Background[None] | None = None

    def open(self) -> Self:
        """Load it, and follow the store from then on. Raises what a call does."""
        self.load()
        self.follow()
        return self

    def load(self) -> None:
        self._told = finish(self._client, self._following.load()).revision

    def follow(self) -> None:
        plan = follow(self._core, self._following, self._changed, self._is_in_trouble)
        self._background = Background(self._client, plan, "kvorum-cache")
        self._client.adopt(self)

    def wait_for(self, revision: int, timeout: float | None = None) -> bool:
        """Until it is of that revision of the store, or a later one, and ``on_change`` was told all until
        then; False if that takes longer than ``timeout`` seconds. Raises ServerError where the server
        refuses."""
        deadline = self._core.deadline(timeout)
        while self._told < revision:
            left = deadline - self._core.clock()
            if left <= 0:
                return False
            with self._is_newer:
                if self._is_newer.wait_for(lambda: self._told >= revision, min(left, PATIENCE_SECONDS)):
                    break
            self._catch_up()
        return True

    def _catch_up(self) -> None:
        try:
            confirmed = finish(self._client, self._following.catch_up())
        except KvorumError as error:
            if not is_passing(error):
                raise
        else:
            with self._is_newer:
                self._caught_up(confirmed)

    def _changed(self, change: Change) -> None:
        if self._on_change is not None:
            call_back(self._on_change, change)
        with self._is_newer:
            self._told = max(self._told, change.revision)
            self._is_newer.notify_all()

    def close(self) -> None:
        """Follow no longer. What is in it can still be read."""
        if self._background is not None:
            self._background.stop()

    abandon = close


class AsyncCache(_Content, AsyncClosing):
    """See ``Client.cache``."""

    def __init__(
        self, client: AsyncClient, prefix: Key, on_change: Callable[[Change], None] | None, page: int
    ) -> None:
        super().__init__(client.core, prefix, page)
        self._client = client
        self._on_change = on_change
        self._newer = asyncio.Event()  # replaced each time that it is
        self._background: AsyncBackground[None] | None = None

    async def open(self) -> Self:
        await self.load()
        self.follow()
        return self

    async def load(self) -> None:
        self._told = (await finish_async(self._client, self._following.load())).revision

    def follow(self) -> None:
        plan = follow(self._core, self._following, self._changed, self._is_in_trouble)
        self._background = AsyncBackground(self._client, plan, "kvorum-cache")
        self._client.adopt(self)

    async def wait_for(self, revision: int, timeout: float | None = None) -> bool:
        deadline = self._core.deadline(timeout)
        while self._told < revision:
            left = deadline - self._core.clock()
            if left <= 0:
                return False
            try:
                async with asyncio.timeout(min(left, PATIENCE_SECONDS)):
                    await self._newer.wait()
            except TimeoutError:
                await self._catch_up()
        return True

    async def _catch_up(self) -> None:
        try:
            self._caught_up(await finish_async(self._client, self._following.catch_up()))
        except KvorumError as error:
            if not is_passing(error):
                raise

    def _changed(self, change: Change) -> None:
        if self._on_change is not None:
            call_back(self._on_change, change)
        self._told = max(self._told, change.revision)
        self._newer.set()
        self._newer = asyncio.Event()

    def close(self) -> None:
        if self._background is not None:
            self._background.stop()

    abandon = close
