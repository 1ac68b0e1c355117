"""A place that is held while something goes on: what ``lock`` and ``elect`` have in common.

    with Holding(settings, b"jobs", b"", ttl=10) as holding:
        place = holding.acquire()
        while True:
            match holding.next_event(): …

Everything that can happen comes through one queue to one thread: signals, which are not delivered in any
other way from here on, the loss of the lease, and what helpers report (``events``). Whatever ends the block
gives the place up.
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
from dataclasses import dataclass
from types import TracebackType

from kvorum.background import Background
from kvorum.cli.settings import Settings
from kvorum.clock import now
from kvorum.errors import KvorumError, LeaseLost
from kvorum.plans import Plan
from kvorum.recipes.line import Place, Standing

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DOUBT = 0.25
"""When no more than this part of the TTL is certain, the place is in doubt."""
MARGIN = 0.05
"""When no more than this part of it is certain, the place counts as lost: to end a command takes a moment."""


@dataclass(frozen=True)
class Signalled:
    number: int


@dataclass(frozen=True)
class Entered:
    """The place is first in the line."""

    place: Place
    revision: int


@dataclass(frozen=True)
class InDoubt:
    """The lease was not renewed for a while: soon the place will have to be given up."""


@dataclass(frozen=True)
class Lost:
    why: str


@dataclass(frozen=True)
class Failed:
    error: KvorumError


@dataclass(frozen=True)
class Ended:
    """The command did."""

    code: int


Event = Signalled | Entered | InDoubt | Lost | Failed | Ended


class Interrupted(Exception):
    """A signal came before the place was ours."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Holding:
    def __init__(self, settings: Settings, name: bytes, value: bytes, ttl: int) -> None:
        self.client = settings.client()
        self._value = value
        self._standing = Standing(self.client.core, name, ttl)
        self._background: Background[None] | None = None
        self._doubted_at = 0.0  # the certainty of that time was told to be running out
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def __enter__(self) -> Holding:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=self._take_signals, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._background is not None:
            self._background.stop()
        try:
            self.client.run(self._standing.leave())
        except KvorumError as failure:
            rest = max(0.0, self._standing.sure_until - now())
            print(f"not released: {failure}; the lease ends within {rest:.0f} s", file=sys.stderr)
        self.client.close()

    def acquire(self) -> Entered:
        """Wait until the place is first. Raises Interrupted and KvorumError."""
        self._background = Background(self.client, self._stand_in_line(), "kvorum-hold")
        while True:
            match self.next_event():
                case Entered() as entered:
                    return entered
                case Signalled(number):
                    raise Interrupted(number)
                case Lost(why):
                    raise KvorumError(f"session expired: {why}")
                case Failed(error):
                    raise error
                case InDoubt() | Ended():
                    pass

    def next_event(self) -> Event:
        """Wait for it. InDoubt comes once for each time that the lease was not renewed in time."""
        while True:
            certain, ttl = self._standing.sure_until, self._standing.ttl
            if not certain:
                return self.events.get()  # there is no lease yet
            left = certain - now()
            if left <= MARGIN * ttl:
                return Lost("its lease was not renewed in time")
            is_told = self._doubted_at == certain
            if left <= DOUBT * ttl and not is_told:
                self._doubted_at = certain
                return InDoubt()
            try:
                return self.events.get(timeout=left - (MARGIN if is_told else DOUBT) * ttl)
            except queue.Empty:
                pass  # the lease was renewed meanwhile, or it is in doubt

    def _take_signals(self) -> None:
        while True:
            self.events.put(Signalled(signal.sigwait(SIGNALS)))

    def _stand_in_line(self) -> Plan[None]:
        standing = self._standing
        try:
            yield from standing.enter(self._value)
            yield from standing.turn()
            self.events.put(Entered(standing.place, standing.revision))
            self.events.put(Lost((yield from standing.keep())))
        except LeaseLost as error:
            self.events.put(Lost(str(error)))
        except KvorumError as error:
            self.events.put(Failed(error))
