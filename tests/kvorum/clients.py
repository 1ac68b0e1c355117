"""What the library's own suite runs against: both shells, ours and real etcd."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from kvorum import Client
from tests.kvorum.shells import BlockingLoop, make_async_client

MakeClient = Callable[..., AbstractContextManager[Any]]


@contextlib.contextmanager
def blocking_client(*args: Any, **kwargs: Any) -> Iterator[Any]:
    with Client(*args, **kwargs) as client:
        yield client


@contextlib.contextmanager
def asyncio_client(*args: Any, **kwargs: Any) -> Iterator[Any]:
    loop = BlockingLoop()
    try:
        with make_async_client(loop, *args, **kwargs) as client:
            yield client
    finally:
        loop.stop()


SHELLS: dict[str, MakeClient] = {"blocking": blocking_client, "asyncio": asyncio_client}
