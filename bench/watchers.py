"""A thousand watchers of one prefix: events delivered per second, and how late they come.

The watchers are streams of POST /v3/watch, spread evenly over the nodes; WRITERS connections put at
the leader. No more than WINDOW puts are under way, from the sending of a put to the arrival of its
last event: so the servers are always busy, are never asked for more than they deliver, and the
backlog, which the latencies would otherwise measure, is bounded alike for both. A latency is that
of one event at one watcher, from the sending of the put.

To cost less than the servers, this is one loop over epoll that does not parse: it counts the
occurrences of the name ``mod_revision``, of which an event has one. Only every hundredth watcher
looks into the values, where the writer put the time. In the end each watcher must have exactly as
many events as there were puts; what the loop itself used of a core is reported with the figures.
"""

from __future__ import annotations

import base64
import re
import select
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bench.clusters import Side
from bench.connection import RECEIVE_BYTES, Connection, http_request
from bench.filling import put_body
from bench.memory import Memory
from tests.common.servers import Server

WRITERS = 8
WINDOW = 16
MARK = b'"mod_revision"'
PREFIX = b"watched/"
PREFIX_END = b"watched0"
TIMED_VALUE = re.compile(rb'"value":"([A-Za-z0-9+/=]+)"')
SAMPLE = 100
START_SECONDS = 60.0
DRAIN_SECONDS = 60.0


class Watched(NamedTuple):
    per_second: float
    p50_ms: float
    p99_ms: float
    memory: Memory  # of all nodes, while the watchers are there
    client_cpu: float  # cores that the load generator itself used


class Events:
    """The number of events in a stream that comes in pieces cut anywhere."""

    def __init__(self) -> None:
        self.seen = 0
        self.tail = b""  # the beginning of a mark, perhaps, that goes on in what comes next

    def count(self, data: bytes) -> int:
        """How many marks are complete with ``data``."""
        if self.tail:
            data = self.tail + data
        found = data.count(MARK)
        self.seen += found
        # A mark has no line feed, and an answer ends in one.
        self.tail = b"" if data.endswith(b"\n") else data[1 - len(MARK) :]
        return found


class Watcher:
    """A stream, of which only the number of events is known; of one key, or of the prefix."""

    def __init__(self, server: Server, timed: bool, key: bytes | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port))
        self.url = server.url
        self.timed = timed
        self.events = Events()
        if key is not None:
            watched = b'"key":"%s"' % base64.b64encode(key)
        else:
            watched = b'"key":"%s","range_end":"%s"' % (
                base64.b64encode(PREFIX),
                base64.b64encode(PREFIX_END),
            )
        body = b'{"create_request":{%s}}' % watched
        self.socket.sendall(http_request(server.port, "/v3/watch", body))

    def wait_until_created(self) -> None:
        self.socket.settimeout(START_SECONDS)
        answer = b""
        while b'"created":true' not in answer or not answer.endswith(b"\n"):
            data = self.socket.recv(RECEIVE_BYTES)
            answer += data
            if not data or not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"{self.url} refused a watch: {answer!r}")
        self.socket.setblocking(False)


class Writer:
    """A connection for puts, one at a time."""

    def __init__(self, server: Server) -> None:
        self.connection = Connection(server.port)
        self.idle = True

    def put(self, number: int) -> None:
        """A value that begins with the time."""
        value = (b"%020d" % time.monotonic_ns()).ljust(128, b"v")
        key = PREFIX + b"key%02d" % (number % 100)
        self.connection.send("/v3/kv/put", put_body(key, base64.b64encode(value)))
        self.idle = False

    def receive(self) -> None:
        try:
            self.idle = self.connection.receive() is not None
        except ConnectionError as error:
            raise SystemExit(f"a put failed: {error}") from None


Enough = Callable[[float, int], bool]  # whether to end, after so many seconds and puts


def watch(side: Side, watchers: int, enough: Enough) -> Watched:
    members = side.members
    streams = [Watcher(members[i % len(members)], timed=i % SAMPLE == 0) for i in range(watchers)]
    for stream in streams:
        stream.wait_until_created()
    writers = [Writer(side.leader) for _ in range(WRITERS)]
    try:
        return _load(streams, writers, enough, side.memory)
    finally:
        for end in [writer.connection.socket for writer in writers] + [stream.socket for stream in streams]:
            end.close()


def _load(
    streams: Sequence[Watcher], writers: Sequence[Writer], enough: Enough, memory: Callable[[], Memory]
) -> Watched:
    epoll = select.epoll()
    watcher_of = {stream.socket.fileno(): stream for stream in streams}
    writer_of = {writer.connection.fileno(): writer for writer in writers}
    for fd in (*watcher_of, *writer_of):
        epoll.register(fd, select.EPOLLIN)
    sent = delivered = 0
    latencies: list[float] = []
    cpu, start = time.process_time(), time.monotonic()
    ended: float | None = None  # when the last put was sent
    while True:
        now = time.monotonic()
        if ended is None and enough(now - start, sent):
            ended = now
        if ended is None:
            for writer in writers:
                if writer.idle and delivered >= (sent - WINDOW + 1) * len(streams):
                    writer.put(sent)
                    sent += 1
        elif delivered >= sent * len(streams) and all(writer.idle for writer in writers):
            break
        elif now > ended + DRAIN_SECONDS:
            break  # the counts below will say it
        for fd, _ in epoll.poll(0.1):
            if fd in writer_of:
                writer_of[fd].receive()
                continue
            stream = watcher_of[fd]
            data = stream.socket.recv(RECEIVE_BYTES)
            if not data:
                raise SystemExit(f"{stream.url} ended a watch")
            delivered += stream.events.count(data)
            if stream.timed:
                arrived = time.monotonic()
                latencies += [arrived - put for put in times(data)]
    last = time.monotonic()
    epoll.close()
    used = (time.process_time() - cpu) / (last - start)
    wrong = [stream for stream in streams if stream.events.seen != sent]
    if wrong:
        raise SystemExit(
            f"{len(wrong)} of {len(streams)} watchers did not get {sent} events:"
            f" {wrong[0].url} sent one of them {wrong[0].events.seen}"
        )
    cuts = statistics.quantiles([1000 * latency for latency in latencies], n=100)
    return Watched(delivered / (last - start), cuts[49], cuts[98], memory(), used)


def times(data: bytes) -> list[float]:
    """When the values in ``data`` were put; those cut at its ends are left out."""
    return [int(base64.b64decode(value)[:20]) / 1e9 for value in TIMED_VALUE.findall(data)]
