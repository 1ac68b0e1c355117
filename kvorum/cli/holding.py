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

from kvorum.cli.settings import Settings
from kvorum.clock import now
from kvorum.errors import KvorumError
from kvorum.line import Line, Place, PlaceLost
from kvorum.session import Session

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DOUBT = 0.25
"""When no more than this part of the TTL is certain, the place is in doubt."""
MARGIN = 0.05
"""When no more than this part of it is certain, the place counts as lost: to end a command takes a moment."""
TRIES_PER_TTL = 6
TRY_SECONDS = 2.0


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
        self._settings = settings
        self._name, self._value = name, value
        try_seconds = min(TRY_SECONDS, max(ttl, 2) / TRIES_PER_TTL)
        self._session = Session(lambda: settings.persistence(try_seconds), ttl)
        self._line_ask = settings.persistence(TRY_SECONDS)
        self._doubted_at = 0.0  # the certainty of that time was told to be running out
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def __enter__(self) -> Holding:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=self._take_signals, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._session.close(until=now() + self._settings.command_timeout)
        except KvorumError as failure:
            rest = max(0.0, self._session.sure_until - now())
            print(f"not released: {failure}; the lease ends within {rest:.0f} s", file=sys.stderr)

    def acquire(self) -> Entered:
        """Wait until the place is first. Raises Interrupted and KvorumError."""
        self._session.open(until=now() + self._settings.command_timeout)
        self._session.keep(lambda why: self.events.put(Lost(why)))
        threading.Thread(target=self._wait_in_line, daemon=True).start()
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
            certain, ttl = self._session.sure_until, self._session.ttl
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

    def _wait_in_line(self) -> None:
        """And then see to it that the place is not taken away: that is known sooner than by a keepalive."""
        line = Line(self._line_ask, self._name, self._session.lease)
        try:
            place = line.enter(self._value)
            self.events.put(Entered(place, line.turn(place)))
            line.keep(place)
        except PlaceLost as error:
            self.events.put(Lost(str(error)))
        except KvorumError as error:
            self.events.put(Failed(error))
        finally:
            line.close()
