"""The short way for watches, as ``fast_lane`` is for short requests.

A watch is one POST and then bytes in one direction only, for hours, to a thousand clients alike.
So after a plain head (``fast_lane.plain_head``) a connection needs nothing of HTTP any more but the
length of the body and the framing of chunks: this protocol counts the one and prefixes the other, and
the stream writes itself (``watch.feed``), without a task or a copy for each client.

    data ──► a plain head of /v3/watch? ──yes──► JSON values of the body ──► stream ──► chunks
                  └─no, or refused──► transport.set_protocol(aiohttp's), which gets the bytes

Whatever is unusual, such as a chunked body or a first request that is wrong, is aiohttp's, with all bytes
that came: nothing was answered by then. What follows the body is dropped, for the answer has no end
other than the connection's. A client that does not read costs the transport's buffer and its stream's
bounded queue; what it may ask meanwhile is bounded by the length of a plain body.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import cast

from api.errors import BadRequest, NotSupportedForLearner
from api.fast_lane import HEAD_BYTES_MAX, hand_over, plain_head, response_head
from api.handlers.watch import carry_out
from api.http import GRPC_JSON, Context, Routes
from api.schema import requests
from api.schema.splitter import JsonSplitter
from watch.stream import WatchStream
from watch.watcher import WatchResponse

log = logging.getLogger(__name__)

_LAST_CHUNK = b"0\r\n\r\n"


class WatchLane:
    """Makes the protocol for each connection that the fast lane hands over, and keeps what they share."""

    def __init__(self, context: Context, routes: Routes, fallback: Callable[[], asyncio.Protocol]) -> None:
        self.context = context
        self.fallback = fallback
        self._paths = frozenset(path.encode() for path in routes.watches)
        self._head = response_head(200, GRPC_JSON) + b"Transfer-Encoding: chunked\r\nDate: "

    def __call__(self) -> WatchConnection:
        return WatchConnection(self)

    def body_length(self, head: bytes) -> int | None:
        """None if it is not for this lane."""
        plain = plain_head(head)
        return plain[1] if plain is not None and plain[0] in self._paths else None

    def response_head(self) -> bytes:
        return self._head + formatdate(time.time(), usegmt=True).encode("ascii") + b"\r\n\r\n"

    def encode(self, response: WatchResponse) -> bytes:
        """A response as it goes out: each frame is a chunk of its own, for clients that parse chunks."""
        context = self.context
        frames = context.encoder.watch(response, context.service.raft_term, context.max_request_bytes)
        return b"".join([b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames])


class WatchConnection(asyncio.Protocol):
    """One connection, until it is handed over or lost."""

    __slots__ = ("_head_sent", "_lane", "_left", "_splitter", "_stream", "_transport", "_unanswered")

    def __init__(self, lane: WatchLane) -> None:
        self._lane = lane
        self._transport: asyncio.Transport | None = None
        self._stream: WatchStream | None = None
        self._splitter: JsonSplitter | None = None  # as long as requests are read
        self._left = 0  # bytes of the body that have not come
        self._unanswered = b""  # what came, until something is answered
        self._head_sent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._leave_stream()

    def data_received(self, data: bytes) -> None:
        if self._stream is None:
            self._open(data)
        elif self._splitter is not None:
            if self._has_answered():
                self._unanswered = b""
            else:
                self._unanswered += data
            self._read(data)

    def pause_writing(self) -> None:
        if self._stream is not None:
            self._stream.hold()

    def resume_writing(self) -> None:
        if self._stream is not None:
            self._stream.resume()

    # What the stream asks for.

    def send(self, data: bytes) -> None:
        # uvloop raises where a connection is lost, before it tells us; and others wait for what comes after.
        if self._transport is None or self._transport.is_closing():
            return
        if not self._head_sent:
            self._head_sent = True
            data = self._lane.response_head() + data
        self._transport.write(data)

    def ended(self) -> None:
        self.send(_LAST_CHUNK)
        if self._transport is not None:
            self._transport.close()

    # Within.

    def _open(self, data: bytes) -> None:
        """The first bytes of a request."""
        lane = self._lane
        end = data.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
        length = lane.body_length(data[:end]) if end > 0 else None
        if length is None:
            self._hand_over(data)
            return
        try:
            stream = lane.context.service.watch()
        except NotSupportedForLearner:
            self._hand_over(data)
            return
        self._let_the_kernel_look_for_it()
        self._stream, self._left, self._unanswered = stream, length, data
        self._splitter = JsonSplitter(lane.context.max_request_bytes)
        stream.push_to(self, lane.encode)
        self._read(data[end + 4 :])

    def _read(self, data: bytes) -> None:
        """Carry out requests as they come. A broken one ends the reading, as in etcd."""
        stream, splitter = self._stream, self._splitter
        assert stream is not None
        assert splitter is not None
        body = data[: self._left]
        self._left -= len(body)
        try:
            for value in splitter.feed(body):
                carry_out(requests.decode_watch_request(value), stream)
            if not self._left:
                self._splitter = None
                if rest := splitter.rest():
                    carry_out(requests.decode_watch_request(rest), stream)
        except BadRequest as error:
            self._splitter = None
            if not self._has_answered():
                self._hand_over(self._unanswered)
                return
            log.debug("a watch stream reads no more requests: %s", error)
        if self._splitter is None:
            self._unanswered = b""

    def _has_answered(self) -> bool:
        return self._head_sent or (self._stream is not None and self._stream.has_unread)

    def _hand_over(self, data: bytes) -> None:
        """From here on the connection is aiohttp's."""
        transport, self._transport = self._transport, None
        assert transport is not None
        self._leave_stream()
        hand_over(transport, self._lane.fallback(), data)

    def _leave_stream(self) -> None:
        stream, self._stream = self._stream, None
        self._splitter, self._unanswered = None, b""
        if stream is not None:
            stream.close()

    def _let_the_kernel_look_for_it(self) -> None:
        """A client that vanishes without a word is else noticed only when it is told something."""
        connection = None if self._transport is None else self._transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
