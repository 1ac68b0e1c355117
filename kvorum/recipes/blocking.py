"""What ``kvorum.Client`` makes: the plans of this package, carried out with threads. ``kvorum.recipes.tasks`` has
the same for ``kvorum.AsyncClient``."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvorum.background import Background, call_back, finish
from kvorum.client import Stopped
from kvorum.errors import KvorumError, LeaseLost
from kvorum.messages import as_bytes
from kvorum.recipes import barrier, counter, election
from kvorum.recipes.election import Observing
from kvorum.recipes.line import Standing
from kvorum.types import Key, KeyValue

if TYPE_CHECKING:
    from kvorum.client import Client

OnLost = Callable[[str], None]


class _Hold:
    """A place in a line that is first: what locks and elections have in common."""

    def __init__(self, client: Client, name: Key, ttl: int, on_lost: OnLost | None) -> None:
        self.name = as_bytes(name)
        self.ttl = ttl
        self._client = client
        self._on_lost = on_lost
        self._standing: Standing | None = None  # once it was first
        self._keeping: Background[str] | None = None

    @property
    def token(self) -> int:
        """The fencing token: of two who ever held it, the later has the greater one. 0 if it was not held."""
        return self._standing.place.token if self._standing and self._standing.place else 0

    @property
    def key(self) -> bytes:
        """That stands for the hold; empty if it was not held."""
        return self._standing.place.key if self._standing and self._standing.place else b""

    @property
    def sure_until(self) -> float:
        """Of ``kvorum.clock``. Until then nobody else holds it, unless somebody has deleted the key."""
        return self._standing.sure_until if self._standing else 0.0

    @property
    def is_held(self) -> bool:
        """False also where that is not certain any more, since the lease could not be renewed."""
        standing = self._standing
        return (
            standing is not None and standing.lost is None and self._client.core.clock() < standing.sure_until
        )

    def check(self) -> None:
        """Raises LeaseLost unless it is held for certain."""
        if not self.is_held:
            why = (
                self._standing.lost or "its lease was not renewed in time"
                if self._standing
                else "it is not held"
            )
            raise LeaseLost(f"{self.name!r}: {why}")

    def _hold(self, value: bytes, timeout: float | None) -> bool:
        if self._standing is not None and self._standing.lost is None:
            raise RuntimeError(f"{self.name!r} is held already: release it first")
        core = self._client.core
        deadline = math.inf if timeout is None else core.clock() + timeout
        standing, is_first = Standing(core, self.name, self.ttl), False
        try:
            finish(self._client, standing.enter(value))
            is_first = finish(self._client, standing.turn(deadline))
        finally:
            if not is_first:
                self._give_up(standing)
        if is_first:
            self._standing = standing
            self._keeping = Background(self._client, standing.keep(), "kvorum-hold", self._lost)
            self._client.add_to_close(self)
        return is_first

    def _give_up(self, standing: Standing) -> None:
        try:
            self._client.run(standing.leave())
        except KvorumError:
            pass  # then it ends with its lease

    def _release(self) -> None:
        standing, keeping = self._standing, self._keeping
        self._standing = self._keeping = None
        if keeping is not None:
            keeping.stop()
        if standing is not None:
            self._client.run(standing.leave())

    def _lost(self, why: str) -> None:
        if self._on_lost is not None:
            call_back(self._on_lost, why)

    def abandon(self) -> None:
        """Keep it no longer: it ends with its lease."""
        if self._keeping is not None:
            self._keeping.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._release()
        except KvorumError:
            if kind is None:
                raise


class Lock(_Hold):
    """See ``Client.lock``."""

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait in line until nobody else holds it; False, and out of the line, if that takes longer than
        ``timeout`` seconds. Raises LeaseLost when the place is lost meanwhile, and what a call does."""
        return self._hold(b"", timeout)

    def release(self) -> None:
        """The next in line has it at once. Raises KvorumError where that could not be said: then he has it within
        ``ttl`` seconds. What is not held, or lost, is no error."""
        self._release()

    def __enter__(self) -> Self:
        self.acquire()
        return self


class Election(_Hold):
    """See ``Client.election``."""

    @property
    def is_leader(self) -> bool:
        return self.is_held

    def campaign(self, value: Key, timeout: float | None = None) -> bool:
        """Wait in line until nobody else leads; False, and out of the line, if that takes longer than ``timeout``
        seconds. Raises LeaseLost when the place is lost meanwhile, and what a call does."""
        return self._hold(as_bytes(value), timeout)

    def proclaim(self, value: Key) -> None:
        """Lead with another value. Raises LeaseLost where we do not lead any more."""
        if self._standing is None:
            raise LeaseLost(f"{self.name!r}: it is not held")
        self._client.run(self._standing.change(as_bytes(value)))

    def resign(self) -> None:
        """The next in line leads at once. Raises KvorumError where that could not be said."""
        self._release()

    def leader(self) -> KeyValue | None:
        """The key of who leads, with its value."""
        return self._client.run(election.leader(self._client.core, self.name))

    def observe(self) -> Observation:
        """Iterates over every leader and each of its values, now and later."""
        return Observation(self._client, Observing(self._client.core, self.name))

    def __enter__(self) -> Self:
        return self


class Observation:
    """See ``Election.observe``. One thread iterates; any may ``close`` it, which ends that."""

    def __init__(self, client: Client, observing: Observing) -> None:
        self._client, self._observing = client, observing
        self._stop = threading.Event()
        client.add_to_close(self)

    def __iter__(self) -> Iterator[KeyValue]:
        """Raises ServerError where the server refuses. Some leaders may be passed over, never the latest."""
        while not self._stop.is_set():
            try:
                found = self._client.run(self._observing.next_leader(), self._stop)
            except Stopped:
                return
            if found is None:
                return
            yield found

    def close(self) -> None:
        self._stop.set()
        if (stream := self._observing.close()) is not None:
            stream.interrupt()

    abandon = close

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
