"""Load at a fixed rate, whatever the servers do: a request is due at its time, and its latency counts
from then.

So a server that stalls for a second is not spared the requests of that second: they wait for a
connection, and their latencies say so (no coordinated omission). Connections are used in turn, and
lie evenly over the nodes. It is light: some per cent of a core for a thousand requests a second.
"""

from __future__ import annotations

import base64
import random
import re
import select
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.connection import Connection
from bench.filling import VALUE_BYTES, key, put_body

REVISION = re.compile(rb'"revision":"(\d+)"')
PAUSE_SECONDS = 1.0  # before a connection that failed is made again


@dataclass(frozen=True)
class Request:
    kind: str  # "put" or "get"
    due: float


@dataclass
class Measured:
    """Of the requests that were answered: seconds from when they were due."""

    latencies: dict[str, list[float]] = field(default_factory=lambda: {"put": [], "get": []})
    failed: int = 0


class Schedule:
    """Which requests are due by a moment: ``rate`` a second, of them ``put_share`` puts, at random."""

    def __init__(self, rate: float, put_share: float, start: float, rng: random.Random) -> None:
        self._rate, self._put_share, self._start, self._rng = rate, put_share, start, rng
        self._given = 0

    @property
    def next_due(self) -> float:
        return self._start + self._given / self._rate

    def take(self, now: float) -> list[Request]:
        taken = []
        while self.next_due <= now:
            kind = "put" if self._rng.random() < self._put_share else "get"
            taken.append(Request(kind, self.next_due))
            self._given += 1
        return taken


class Paced:
    """The load: its connections, and what is under way."""

    def __init__(self, ports: Sequence[int], connections: int, schedule: Schedule, keys: int) -> None:
        self._idle = deque(Connection(ports[i % len(ports)]) for i in range(connections))
        self._busy: dict[Connection, Request | None] = {}  # None: nothing that is measured
        self._broken: deque[tuple[float, int]] = deque()  # when to try again, and the port
        self._waiting: deque[Request] = deque()
        self._schedule = schedule
        value = base64.b64encode(b"v" * VALUE_BYTES)
        self._bodies = {
            "put": [put_body(key(number), value) for number in range(keys)],
            "get": [get_body(number) for number in range(keys)],
        }
        self._measured = Measured()
        self.revision = 0  # of the last put that was answered

    def run(self, until: float) -> Measured:
        """What was answered from the last run until this moment."""
        self._measured = Measured()
        while (now := time.monotonic()) < until:
            self._repair(now)
            self._waiting += self._schedule.take(now)
            while self._waiting and self._idle:
                self._send(self._idle.popleft(), self._waiting.popleft())
            # Not epoll, whose timeouts are whole milliseconds.
            wait = max(0.0, min(self._schedule.next_due, until) - time.monotonic())
            for connection in select.select(list(self._busy), [], [], wait)[0]:
                self._receive(connection)
        return self._measured

    def compact(self, revision: int) -> None:
        """In between, not measured."""
        if self._idle:
            connection = self._idle.popleft()
            connection.send("/v3/kv/compaction", b'{"revision":"%d"}' % revision)
            self._busy[connection] = None

    def close(self) -> None:
        for connection in (*self._idle, *self._busy):
            connection.close()

    def _send(self, connection: Connection, request: Request) -> None:
        path = "/v3/kv/put" if request.kind == "put" else "/v3/kv/range"
        self._busy[connection] = request
        try:
            connection.send(path, random.choice(self._bodies[request.kind]))
        except OSError:
            self._fail(connection)

    def _receive(self, connection: Connection) -> None:
        try:
            answer = connection.receive()
        except OSError:
            self._fail(connection)
            return
        if answer is None:
            return
        request = self._busy.pop(connection)
        self._idle.append(connection)
        if request is None:
            return
        self._measured.latencies[request.kind].append(time.monotonic() - request.due)
        if request.kind == "put" and (revision := REVISION.search(answer)):
            self.revision = max(self.revision, int(revision[1]))

    def _fail(self, connection: Connection) -> None:
        self._measured.failed += 1
        del self._busy[connection]
        connection.close()
        self._broken.append((time.monotonic() + PAUSE_SECONDS, connection.port))

    def _repair(self, now: float) -> None:
        while self._broken and self._broken[0][0] <= now:
            _, port = self._broken.popleft()
            try:
                self._idle.append(Connection(port))
            except OSError:
                self._broken.append((now + PAUSE_SECONDS, port))


def get_body(number: int) -> bytes:
    return b'{"key":"%s"}' % base64.b64encode(key(number))
