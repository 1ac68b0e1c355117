"""Plans that go on in the background, in a daemon thread or in a task, and can be told to end at any moment.

    following = Background(client, plan, "kvorum-cache")
    following.stop()

Whatever ends a plan here, the streams that it has open are closed. A defect that a step of it meets is
logged, and a KvorumError for the plan: it knows whom to tell, while nobody notices that a thread has ended.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kvorum.client import Stopped
from kvorum.errors import KvorumError
from kvorum.plans import CloseStream, Effect, OpenStream, Plan

if TYPE_CHECKING:
    from kvorum.async_client import AsyncClient
    from kvorum.client import Client

T = TypeVar("T")
log = logging.getLogger(__name__)


class _Streams:
    """Those that a plan has open."""

    def __init__(self) -> None:
        self._open: set[Any] = set()

    def note(self, effect: Effect, outcome: Any) -> None:
        match effect:
            case OpenStream():
                self._open.add(outcome)
            case CloseStream(stream):
                self._open.discard(stream)

    def interrupt(self) -> None:
        for stream in list(self._open):
            stream.interrupt()

    def close(self) -> None:
        for stream in list(self._open):
            stream.close()


class Background(Generic[T]):
    """Carries a plan out in a daemon thread. ``on_end`` is given its result there, unless it was stopped."""

    def __init__(
        self, client: Client, plan: Plan[T], name: str, on_end: Callable[[T], None] | None = None
    ) -> None:
        self._client, self._plan, self._on_end = client, plan, on_end
        self._stop = threading.Event()
        self._streams = _Streams()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def stop(self) -> None:
        """Returns at once. ``on_end`` is not called any more."""
        self._stop.set()
        self._streams.interrupt()

    def _run(self) -> None:
        try:
            result = finish(self._client, self._plan, self._stop, self._streams)
        except Stopped:
            return
        except KvorumError:
            log.exception("%s ended", threading.current_thread().name)
            return
        if self._on_end is not None and not self._stop.is_set():
            call_back(self._on_end, result)


def finish(
    client: Client, plan: Plan[T], stop: threading.Event | None = None, streams: _Streams | None = None
) -> T:
    """As ``client.run``, for a plan that keeps no stream for a next one. Raises Stopped where ``stop`` is
    set."""
    streams = streams or _Streams()
    try:
        effect = next(plan)
        while stop is None or not stop.is_set():
            try:
                outcome = client.perform(effect, stop)
            except KvorumError as error:
                if stop is not None and stop.is_set():
                    break
                effect = plan.throw(error)
            except Exception as error:
                if stop is None or isinstance(error, Stopped):
                    raise
                effect = plan.throw(_defect(error))
            else:
                streams.note(effect, outcome)
                effect = plan.send(outcome)
        raise Stopped
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        plan.close()
        streams.close()


async def finish_async(client: AsyncClient, plan: Plan[T], is_stopped: Callable[[], bool] | None = None) -> T:
    """As ``client.run``, for a plan that keeps no stream for a next one. Raises Stopped where it is."""
    streams = _Streams()
    try:
        effect = next(plan)
        while is_stopped is None or not is_stopped():
            try:
                outcome = await client.perform(effect)
            except KvorumError as error:
                effect = plan.throw(error)
            except Exception as error:
                if is_stopped is None:
                    raise
                effect = plan.throw(_defect(error))
            else:
                streams.note(effect, outcome)
                effect = plan.send(outcome)
        raise Stopped
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        plan.close()
        streams.close()


class AsyncBackground(Generic[T]):
    """Carries a plan out in a task. ``on_end`` is given its result there, unless it was stopped."""

    def __init__(
        self, client: AsyncClient, plan: Plan[T], name: str, on_end: Callable[[T], None] | None = None
    ) -> None:
        self._client, self._plan, self._on_end = client, plan, on_end
        self._is_stopped = False
        self._task = asyncio.create_task(self._run(), name=name)

    def stop(self) -> None:
        """Returns at once. ``on_end`` is not called any more."""
        self._is_stopped = True
        if self._task is not asyncio.current_task():
            self._task.cancel()

    async def _run(self) -> None:
        try:
            result = await finish_async(self._client, self._plan, lambda: self._is_stopped)
        except Stopped:
            return
        except KvorumError:
            log.exception("%s ended", self._task.get_name())
            return
        if self._on_end is not None and not self._is_stopped:
            call_back(self._on_end, result)


def _defect(error: Exception) -> KvorumError:
    log.exception("a defect in the background")
    return KvorumError(f"a defect: {error!r}")


def call_back(callback: Callable[..., None], *arguments: Any) -> None:
    """What an application's function raises is logged: it must not end what it is told of."""
    try:
        callback(*arguments)
    except Exception:
        log.exception("%r raised", callback)
