"""The asyncio client behind the blocking one's interface, so that one suite drives both.

Coroutines run in a loop on a thread of their own; async iterators and context managers become plain ones.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

from kvorum import AsyncClient

SECONDS = 30


class BlockingLoop:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(SECONDS)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In the loop's thread; awaited if it returns a coroutine."""

        async def calling() -> Any:
            returned = function(*args, **kwargs)
            return await returned if inspect.isawaitable(returned) else returned

        return self.run(calling())

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(SECONDS)
        self.loop.close()


class Blocking:
    """Something of the asyncio client's: its methods block, what they return is wrapped as well."""

    def __init__(self, loop: BlockingLoop, wrapped: Any) -> None:
        self._loop, self._wrapped = loop, wrapped

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        if not callable(attribute):
            return self._wrap(attribute)

        def method(*args: Any, **kwargs: Any) -> Any:
            return self._wrap(self._loop.call(attribute, *args, **kwargs))

        return method

    def __enter__(self) -> Any:
        entered = self._loop.call(self._wrapped.__aenter__)
        return self if entered is self._wrapped else self._wrap(entered)

    def __exit__(self, *error: Any) -> Any:
        return self._loop.call(self._wrapped.__aexit__, *error)

    def __iter__(self) -> Iterator[Any]:
        iterator = self._wrapped.__aiter__()
        while True:
            try:
                yield self._loop.call(iterator.__anext__)
            except StopAsyncIteration:
                return

    def _wrap(self, value: Any) -> Any:
        module = type(value).__module__
        is_async = "async" in module or type(value).__name__.startswith("Async")
        if is_async or hasattr(value, "__aiter__") or hasattr(value, "__aenter__"):
            return Blocking(self._loop, value)
        return value


def make_async_client(loop: BlockingLoop, *args: Any, **kwargs: Any) -> Any:
    return Blocking(loop, loop.call(AsyncClient, *args, **kwargs))
