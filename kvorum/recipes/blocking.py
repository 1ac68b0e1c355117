"""What ``kvorum.Client`` makes: the plans of this package, carried out with threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvorum.background import Background, call_back, finish
from kvorum.client import Stopped
from kvorum.closing import Closing
from kvorum.errors import KvorumError
from kvorum.messages import as_bytes
from kvorum.ownership import Owner
from kvorum.recipes import barrier, counter, election
from kvorum.recipes.election import Observing
from kvorum.recipes.hold import Hold
from kvorum.recipes.party import Party
from kvorum.types import Key, KeyValue

if TYPE_CHECKING:
    from kvorum.client import Client


class _Held(Hold):
    """A hold that a daemon thread keeps."""

    def __init__(self, client: Client, name: Key, ttl: int, on_lost: Callable[[str], None] | None) -> None:
        super().__init__(client.core, name, ttl)
        self._client = client
        self._on_lost = on_lost
        self._keeping: Background[str] | None = None
        self._owner = Owner()

    def _hold(self, value: bytes, timeout: float | None) -> bool:
        standing, is_first, deadline = self._begin(), False, self._core.deadline(timeout)
        with suppress(KvorumError):  # what was lost before
            self._release()
        try:
            finish(self._client, standing.enter(value))
            is_first = finish(self._client, standing.turn(deadline))
        finally:
            if not is_first:
                with suppress(KvorumError):  # if that cannot be said, the place ends with its lease
                    self._client.run(standing.leave())
        if is_first:
            self._standing, self._owner = standing, Owner()
            self._keeping = Background(self._client, standing.keep(), "kvorum-hold", self._lost)
            self._client.adopt(self)
        return is_first

    def _release(self) -> None:
        standing, self._standing = self._standing, None
        self.abandon()
        if standing is not None and self._owner.is_us():
            self._client.run(standing.leave())

    def _lost(self, why: str) -> None:
        if self._on_lost is not None:
            call_back(self._on_lost, why)

    def abandon(self) -> None:
        """Keep it no longer, without a word: it ends with its lease."""
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


class Lock(_Held):
    """See ``Client.lock``. Who wants to hold it several times has several of these."""

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait in line until nobody else holds it; False, and out of the line, if that takes longer than
        ``timeout`` seconds. Raises LeaseLost when the place is lost meanwhile, and what a call does."""
        return self._hold(b"", timeout)

    def release(self) -> None:
        """The next in line has it at once. Raises KvorumError where that could not be said: then he has it
        within ``ttl`` seconds. To release what is not held, or was lost, is no error."""
        self._release()

    def __enter__(self) -> Self:
        self.acquire()
        return self


class Election(_Held):
    """See ``Client.election``."""

    @property
    def is_leader(self) -> bool:
        """As ``is_held``."""
        return self.is_held

    def campaign(self, value: Key, timeout: float | None = None) -> bool:
        """Wait in line until nobody else leads; False, and out of the line, if that takes longer than
        ``timeout`` seconds. Raises LeaseLost when the place is lost meanwhile, and what a call does."""
        return self._hold(as_bytes(value), timeout)

    def proclaim(self, value: Key) -> None:
        """Lead with another value. Raises LeaseLost where we do not lead any more."""
        self._client.run(self._stand().change(as_bytes(value)))

    def resign(self) -> None:
        """The next in line leads at once. Raises KvorumError where that could not be said: then he leads
        within ``ttl`` seconds."""
        self._release()

    def leader(self) -> KeyValue | None:
        """The key of who leads, with its value."""
        return self._client.run(election.leader(self._core, self.name))

    def observe(self) -> Observation:
        """Iterates over every leader and each of its values, now and later."""
        return Observation(self._client, Observing(self._core, self.name))

    def __enter__(self) -> Self:
        return self


class Observation(Closing):
    """See ``Election.observe``. One thread iterates; any may ``close`` it, which ends that."""

    def __init__(self, client: Client, observing: Observing) -> None:
        self._client, self._observing = client, observing
        self._stop = threading.Event()
        self._in_use = threading.Lock()
        client.adopt(self)

    def __iter__(self) -> Iterator[KeyValue]:
        """Raises ServerError where the server refuses. Some leaders may be passed over, never the latest."""
        try:
            while found := self._next():
                yield found
        finally:
            self.close()

    def _next(self) -> KeyValue | None:
        try:
            with self._in_use:
                return self._client.run(self._observing.next_leader(), self._stop)
        except Stopped:
            return None

    def close(self) -> None:
        self._stop.set()
        stream = self._observing.end()
        if stream is None:
            return
        stream.interrupt()
        # Whoever is iterating just now closes the stream himself.
        if self._in_use.acquire(blocking=False):
            try:
                stream.close()
            finally:
                self._in_use.release()

    abandon = close


class Barrier:
    """See ``Client.barrier``."""

    def __init__(self, client: Client, name: Key) -> None:
        self.name = as_bytes(name)
        self._client = client

    def hold(self) -> bool:
        """Who comes from now on waits; False if it is held already."""
        return self._client.run(barrier.hold(self._client.core, self.name))

    def release(self) -> None:
        """Who waits goes on, whoever held it."""
        self._client.run(barrier.release(self._client.core, self.name))

    def wait(self, timeout: float | None = None) -> bool:
        """Until nobody holds it; False if that takes longer than ``timeout`` seconds."""
        core = self._client.core
        return finish(self._client, barrier.wait(core, self.name, core.deadline(timeout)))


class DoubleBarrier:
    """See ``Client.double_barrier``."""

    def __init__(
        self, client: Client, name: Key, parties: int, ttl: int, on_lost: Callable[[str], None] | None
    ) -> None:
        if parties < 1:
            raise ValueError(f"a barrier for {parties} parties: expected at least 1")
        self.name = as_bytes(name)
        self.parties = parties
        self.ttl = ttl
        self._client, self._on_lost = client, on_lost
        self._party: Party | None = None
        self._keeping: Background[str] | None = None
        self._owner = Owner()

    def enter(self, timeout: float | None = None) -> bool:
        """Wait until all have come; False, and as if one had not come, if that takes longer than
        ``timeout`` seconds. Raises LeaseLost where one was taken for dead meanwhile, and what a call
        does."""
        if self._party is not None:
            raise RuntimeError(f"{self.name!r} was entered already: leave it first")
        core = self._client.core
        party, is_in, deadline = Party(core, self.name, self.ttl, self.parties), False, core.deadline(timeout)
        try:
            finish(self._client, party.enter(b""))
            is_in = finish(self._client, party.go_in(deadline))
        finally:
            if not is_in:
                with suppress(KvorumError):  # if that cannot be said, the party ends with its lease
                    self._client.run(party.leave())
        if is_in:
            self._party, self._owner = party, Owner()
            self._keeping = Background(self._client, party.keep(), "kvorum-hold", self._lost)
            self._client.adopt(self)
        return is_in

    def leave(self, timeout: float | None = None) -> bool:
        """Wait until all want to who have entered together; False if that takes longer than ``timeout``
        seconds, and then one is out all the same. Raises LeaseLost where one was taken for dead
        meanwhile."""
        party, self._party = self._party, None
        if party is None or not self._owner.is_us():
            raise RuntimeError(f"{self.name!r} was not entered")
        self.abandon()
        try:
            return finish(self._client, party.go_out(self._client.core.deadline(timeout)))
        finally:
            with suppress(KvorumError):
                self._client.run(party.leave())

    def _lost(self, why: str) -> None:
        if self._on_lost is not None:
            call_back(self._on_lost, why)

    def abandon(self) -> None:
        if self._keeping is not None:
            self._keeping.stop()

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._owner.is_us():
            return
        if kind is None:
            self.leave()
        else:
            with suppress(KvorumError):
                self.leave(0)


class Counter:
    """See ``Client.counter``."""

    def __init__(self, client: Client, key: Key) -> None:
        self.key = as_bytes(key)
        self._client = client

    def get(self) -> int:
        """Raises KvorumError where the value is no number."""
        return self._client.run(counter.read(self._client.core, self.key))

    def set(self, value: int) -> None:
        """Whatever it was. Raises what a put does."""
        self._client.run(counter.write(self._client.core, self.key, value))

    def add(self, change: int = 1) -> int:
        """What it is then. Nothing is added twice: where it is unknown whether it was added, the error's
        ``maybe_done`` is true. Raises KvorumError too where others were faster, again and again, for as
        long as a call may take; then nothing was added."""
        return self._client.run(counter.add(self._client.core, self.key, change))
