"""The short way for short requests.

aiohttp spends some 50 µs on a request, several times what a put costs below it. Almost all
requests are alike: one POST to a unary path, small, complete in one packet. This protocol
answers those itself. At the first thing that is anything else it hands the connection over to
aiohttp, with all bytes not yet answered, and is done with it: nothing unusual is parsed here,
and both ways end in the same handlers.

    data ──► plain_head()? ──yes──► handler ──► one write
                  └─no──► transport.set_protocol(aiohttp's), which gets the bytes

One request of a connection is answered at a time, in order. A handler that waits for plain futures only
(``Routes.taskless``) runs without a task of its own (``_Run``), which spares it two turns of the loop.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast

from api.errors import kind_of
from api.http import GRPC_JSON, JSON, Answer, Context, Routes, Unary, log_unforeseen
from api.schema.responses import unary_error

HEAD_BYTES_MAX = 4096
BODY_BYTES_MAX = 64 << 10
BUFFER_BYTES_MAX = 256 << 10
_HEADS_CACHED = 4096
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNPRINTABLE = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")
# What changes how a request is read or answered is left to aiohttp.
_UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"content-encoding", b"trailer", b"te"})

PlainHead = tuple[bytes, int]
"""The path and the length of the body."""


def plain_head(head: bytes) -> PlainHead | None:
    """What a request's head says (without the empty line behind it), if it is as plain as can be;
    None leaves it to somebody who knows all of HTTP."""
    first, *lines = head.split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) != 3 or parts[0] != b"POST" or parts[2] != b"HTTP/1.1":
        return None
    length, hosts = None, 0
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or _UNPRINTABLE.search(value):
            return None
        name, value = name.lower(), value.strip(b" \t")
        if name in _UNUSUAL or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            if length is not None or not value.isdigit() or len(value) > 9:
                return None
            length = int(value)
    if length is None or length > BODY_BYTES_MAX or hosts != 1:
        return None
    return parts[1], length


class FastLane:
    """Makes the protocol for each connection, and keeps what they share."""

    def __init__(
        self,
        context: Context,
        routes: Routes,
        fallback: Callable[[], asyncio.Protocol],
        idle_seconds: float,
    ) -> None:
        self.context = context
        self.fallback = fallback
        self.idle_seconds = idle_seconds
        self.loop = asyncio.get_running_loop()
        self.connections: set[FastConnection] = set()
        calls = {**routes.unary, **routes.single}
        self._calls = {path.encode(): call for path, call in calls.items()}
        self.single = frozenset(routes.single.values())
        self.taskless = frozenset(routes.unary[path] for path in routes.taskless)
        self.answering = 0
        self._all_answered: asyncio.Future[None] | None = None
        # Clients send the same few heads again and again.
        self._known: dict[bytes, tuple[Unary, int] | None] = {}
        self._success = response_head(200, GRPC_JSON)
        self._dated: tuple[int, bytes] = (0, b"")

    def __call__(self) -> FastConnection:
        return FastConnection(self)

    def recognise(self, head: bytes) -> tuple[Unary, int] | None:
        """The handler and the body's length for a head, or None if it is not for the fast lane."""
        try:
            return self._known[head]
        except KeyError:
            pass
        plain = plain_head(head)
        known = None
        if plain is not None and plain[0] in self._calls:
            known = (self._calls[plain[0]], plain[1])
        if len(self._known) >= _HEADS_CACHED:
            self._known.clear()
        self._known[head] = known
        return known

    async def answer(self, call: Unary, body: bytes) -> Answer:
        """The whole HTTP response."""
        context = self.context
        answer: Answer
        try:
            answer = await call(context.service, context.encoder, body)
            head = self._success
        except Exception as error:
            log_unforeseen(error)
            answer = unary_error(error)
            head = response_head(kind_of(error).status, JSON)
        if isinstance(answer, list):
            length = sum(map(len, answer))
            return [b"%sDate: %s\r\nContent-Length: %d\r\n\r\n" % (head, self._date(), length), *answer]
        return b"%sDate: %s\r\nContent-Length: %d\r\n\r\n%s" % (head, self._date(), len(answer), answer)

    def answered(self) -> None:
        """One request less is under way."""
        self.answering -= 1
        if not self.answering and self._all_answered is not None and not self._all_answered.done():
            self._all_answered.set_result(None)

    def _date(self) -> bytes:
        now = int(time.time())
        if self._dated[0] != now:
            self._dated = (now, formatdate(now, usegmt=True).encode())
        return self._dated[1]

    async def close(self, timeout: float) -> None:
        """Let the requests under way finish, then close every connection."""
        if self.answering:
            self._all_answered = self.loop.create_future()
            await asyncio.wait([self._all_answered], timeout=timeout)
        for connection in list(self.connections):
            connection.hang_up()


class FastConnection(asyncio.Protocol):
    """One connection, until it is handed over or lost."""

    def __init__(self, lane: FastLane) -> None:
        self._lane = lane
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._position = 0  # up to here the buffer was taken
        self._answering: object = None  # what works on the request that is not answered yet
        self._taking = False
        self._writable = True
        self._paused = False  # no more is read for now
        self._idle_since = 0.0
        self._idle_check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._lane.connections.add(self)
        self._idle_since = self._lane.loop.time()
        self._idle_check = self._lane.loop.call_later(self._lane.idle_seconds, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave_lane()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer = self._rest() + data if self._has_more() else data
        self._position = 0
        if self._answering is None and self._writable:
            self._take_requests()
        elif len(self._buffer) > BUFFER_BYTES_MAX and self._transport is not None:
            # Whoever asks without reading the answers, or faster than they come, waits.
            self._transport.pause_reading()
            self._paused = True

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._answering is None and self._has_more():
            self._take_requests()

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _take_requests(self) -> None:
        """One after the other, as long as they can be answered at once."""
        if self._taking:
            return
        self._taking = True
        try:
            while (
                self._answering is None
                and self._writable
                and self._transport is not None
                and self._has_more()
            ):
                self._take_request()
        finally:
            self._taking = False

    def _take_request(self) -> None:
        """Answer the request at the front of the buffer, or hand the connection over."""
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\r\n\r\n", start, start + HEAD_BYTES_MAX)
        known = self._lane.recognise(buffer[start:end]) if end > 0 else None
        if known is None:
            self._hand_over()
            return
        call, length = known
        body_start, body_end = end + 4, end + 4 + length
        if len(buffer) < body_end or (
            call in self._lane.single and buffer.count(b"}", body_start, body_end) != 1
        ):
            self._hand_over()
            return
        self._position = body_end
        lane = self._lane
        lane.answering += 1
        answer = lane.answer(call, buffer[body_start:body_end])
        if call in lane.taskless:
            self._answering = run = _Run(answer, self._answered, lane.loop)
            run.step()
        else:
            self._answering = task = lane.loop.create_task(answer)
            task.add_done_callback(lambda done: self._answered(None if done.cancelled() else done.result()))

    def _answered(self, answer: Answer | None) -> None:
        """The request was answered; None: it was cancelled."""
        self._answering = None
        self._lane.answered()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if answer is None:
            transport.abort()
            return
        if isinstance(answer, list):
            transport.writelines(answer)
        else:
            transport.write(answer)
        self._idle_since = self._lane.loop.time()
        if not self._has_more():
            self._buffer, self._position = b"", 0
        elif self._writable:
            self._take_requests()
        if self._paused and len(self._buffer) - self._position <= BUFFER_BYTES_MAX:
            self._resume_reading()

    def _resume_reading(self) -> None:
        if self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _has_more(self) -> bool:
        return self._position < len(self._buffer)

    def _rest(self) -> bytes:
        return self._buffer[self._position :]

    def _hand_over(self) -> None:
        """From here on the connection is aiohttp's."""
        transport, buffer = self._transport, self._rest()
        assert transport is not None
        if self._paused:
            self._resume_reading()
        self._leave_lane()
        self._transport, self._buffer, self._position = None, b"", 0
        hand_over(transport, self._lane.fallback(), buffer)

    def _leave_lane(self) -> None:
        self._lane.connections.discard(self)
        if self._idle_check is not None:
            self._idle_check.cancel()
            self._idle_check = None

    def _close_if_idle(self) -> None:
        lane = self._lane
        due = self._idle_since + lane.idle_seconds
        if self._answering is None and lane.loop.time() >= due:
            self.hang_up()
        else:
            later = max(due, lane.loop.time() + 1)
            self._idle_check = lane.loop.call_at(later, self._close_if_idle)


class _Run:
    """Carries out a coroutine that awaits nothing but futures of the loop."""

    __slots__ = ("_coroutine", "_done", "_loop")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Answer],
        done: Callable[[Answer | None], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._coroutine = coroutine
        self._done = done
        self._loop = loop

    def step(self, _: object = None) -> None:
        """Go on until it waits for the next future, or is done."""
        try:
            waiting_for = self._coroutine.send(None)
        except StopIteration as finished:
            self._done(finished.value)
        except asyncio.CancelledError:
            self._done(None)
        else:
            # What a task would do with a future that its coroutine yields.
            waiting_for._asyncio_future_blocking = False
            waiting_for.add_done_callback(self.step)


def hand_over(transport: asyncio.Transport, successor: asyncio.Protocol, data: bytes) -> None:
    """From here on the connection is the successor's, which gets the bytes that nobody has answered."""
    transport.set_protocol(successor)
    successor.connection_made(transport)
    successor.data_received(data)


def response_head(status: int, headers: object) -> bytes:
    """Status line and fixed headers."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in dict(headers).items()]  # type: ignore[call-overload]
    return ("\r\n".join(lines) + "\r\n").encode("ascii")
