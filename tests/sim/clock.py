"""Virtual time: one queue of events for the whole run, and a clock and an event loop per node on top of it.

Nothing here waits. ``Queue.run_one`` takes the next event and makes its time the present. The
order of events is total and depends on nothing but what was put in, so a run can be repeated.
"""

from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.sim.node import Node


class Handle:
    """Something that will be called; what asyncio calls a (timer) handle."""

    __slots__ = ("args", "cancelled", "function", "is_timer", "life", "node")

    def __init__(
        self, node: Node | None, function: Callable[..., Any], args: tuple[Any, ...], is_timer: bool
    ) -> None:
        self.node = node
        self.life = node.life if node is not None else 0
        self.function = function
        self.args = args
        self.is_timer = is_timer  # waits for the node's own clock
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Queue:
    """``now`` is in virtual seconds; ``order`` numbers everything that happens. A *step* is something
    that happens in time: a message arrives, a timer fires, a disk has done its work, a client asks. The
    callbacks that follow from it at the same moment are part of it, but a crash can come between them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order = 0
        self.steps = 0
        self._soon: deque[Handle] = deque()
        self._later: list[tuple[float, int, Handle]] = []
        self._sequence = 0

    def stamp(self) -> int:
        """A place in the order of all that happens, after everything before."""
        self.order += 1
        return self.order

    def soon(self, node: Node | None, function: Callable[..., Any], *args: Any) -> Handle:
        handle = Handle(node, function, args, False)
        self._soon.append(handle)
        return handle

    def later(
        self,
        delay: float,
        node: Node | None,
        function: Callable[..., Any],
        *args: Any,
        is_timer: bool = False,
    ) -> Handle:
        handle = Handle(node, function, args, is_timer)
        self._sequence += 1
        heapq.heappush(self._later, (self.now + delay, self._sequence, handle))
        return handle

    def again(self, handle: Handle) -> None:
        """An event whose node could not take it: it is due now."""
        self._soon.append(handle)

    def run_one(self) -> Node | None:
        """Do the next thing; returns the node it happened on, if it was on one that is up."""
        if self._soon:
            handle = self._soon.popleft()
        else:
            self.now, _, handle = heapq.heappop(self._later)
            self.steps += 1
        node = handle.node
        if handle.cancelled:
            return None
        if node is None:
            handle.function(*handle.args)
            return None
        if handle.life != node.life or not node.takes(handle):
            return None
        node.run(handle)
        return node


class LocalClock:
    """A monotonic clock that may go wrong: it runs at some ``rate`` (0: it stands) and jumps ahead. What
    it showed at any moment of the past can be looked up."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.rate = 1.0
        self._virtual, self._local = queue.now, queue.now  # when the rate changed last
        self._past = [(queue.now, queue.now, 1.0)]  # (virtual time, local time, rate) from then on

    def now(self) -> float:
        return self._local + (self._queue.now - self._virtual) * self.rate

    def at(self, virtual: float) -> float:
        """What it showed then, before any jump at that moment."""
        place = bisect_left(self._past, virtual, key=lambda piece: piece[0])
        since, local, rate = self._past[max(0, place - 1)]
        return local + (virtual - since) * rate

    def set_rate(self, rate: float) -> None:
        self._go_on(self.now(), rate)

    def jump(self, seconds: float) -> None:
        self._go_on(self.now() + seconds, self.rate)

    def _go_on(self, local: float, rate: float) -> None:
        self._virtual, self._local, self.rate = self._queue.now, local, rate
        self._past.append((self._virtual, local, rate))


class SimLoop(asyncio.AbstractEventLoop):
    """What the product's code takes for its event loop: futures, tasks, callbacks and timers, by the
    clock of its node."""

    def __init__(self, queue: Queue, node: Node) -> None:
        self._queue = queue
        self._node = node

    def time(self) -> float:
        return self._node.clock.now()

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        return self._queue.soon(self._node, callback, *args)

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        rate = self._node.clock.rate or 1.0
        return self._queue.later(max(delay, 0.0) / rate, self._node, callback, *args, is_timer=True)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_later(when - self.time(), callback, *args)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name or "sim")
        self._node.started(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Whoever dies with its node has nothing to say."""
