"""What goes over a connection between members once its HTTP request was answered with 101.

Frames, each behind its length in four bytes, big-endian. From the member that opened the connection
they are messages (``codec``); the other one sends nothing but its goodbye, which says why. An empty
frame is a sign of life: the opener gives one at once and then every so often, and it is answered in
kind. Who hears nothing for too long hangs up.

WebSockets would do the same, but with a coroutine for each frame on both ends, and masks and pieces:
a tenth of what a put costs a follower.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from raft.codec import Malformed

UPGRADE_TO: Final = "kvorum-raft"
LENGTH_BYTES: Final = 4

_GOODBYE_BYTES_MAX = 4096
_GOODBYE_SECONDS = 0.5  # how long the other end may take to hang up


class Stream(asyncio.Protocol):
    """One end of it, which takes ``transport`` over from ``before``. ``closed`` is set when the connection
    is lost; ``why`` then says what is known about that. ``silence_max``: seconds without a sign."""

    def __init__(
        self,
        transport: asyncio.Transport,
        before: asyncio.BaseProtocol,
        frame_bytes_max: int,
        silence_max: float,
    ) -> None:
        self.closed = asyncio.Event()
        self.why = "closed"
        self._transport = transport
        self._before = before
        self._frame_bytes_max = frame_bytes_max
        self._silence_max = silence_max
        self._pieces: list[bytes] = []  # what has come of a frame that is not complete
        self._missing = 0  # at least so many bytes
        self._is_silent = False
        self._is_over = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(silence_max, self._listen)
        transport.set_protocol(self)
        if transport.is_closing():
            # aiohttp's protocol may have been told of the end already, and nobody tells us.
            self._timer.cancel()
            self.closed.set()

    def data_received(self, data: bytes) -> None:
        self._is_silent = False
        if self._pieces:
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._pieces)
            self._pieces = []
        try:
            begin = self._take_frames(data)
        except Malformed as error:
            self._is_over = True
            self._malformed(error)
            return
        if begin < len(data):
            self._pieces.append(data[begin:])

    def connection_lost(self, error: Exception | None) -> None:
        self._is_over = True
        self._timer.cancel()
        if error is not None:
            self.why = str(error) or repr(error)
        self._before.connection_lost(error)
        self.closed.set()

    def abort(self, why: str = "closed") -> None:
        """Hang up at once, whatever has not left yet."""
        self.why = why
        self._is_over = True
        self._transport.abort()

    def _write(self, frame: bytes) -> None:
        # uvloop raises where a connection is lost, before it tells us.
        if not self._transport.is_closing():
            self._transport.writelines((len(frame).to_bytes(LENGTH_BYTES, "big"), frame))

    def _take_frames(self, data: bytes) -> int:
        """Take the complete ones; returns where the rest begins. Raises Malformed."""
        begin, length = 0, len(data)
        while not self._is_over:
            frame = begin + LENGTH_BYTES
            if frame > length:
                self._missing = frame - length
                break
            size = int.from_bytes(data[begin:frame], "big")
            if size > self._frame_bytes_max:
                raise Malformed(f"a frame has {size} bytes: expected at most {self._frame_bytes_max}")
            if frame + size > length:
                self._missing = frame + size - length
                break
            begin = frame + size
            self._take(data[frame:begin])
        return begin

    def _listen(self) -> None:
        if self._is_silent:
            self.abort(f"there was no sign of life for {self._silence_max:g} s")
            return
        self._is_silent = True
        self._timer = self._loop.call_later(self._silence_max, self._listen)
        self._listening_on()

    def _take(self, frame: bytes) -> None:
        """Raises Malformed."""
        raise NotImplementedError

    def _malformed(self, error: Malformed) -> None:
        raise NotImplementedError

    def _listening_on(self) -> None:
        """Another while begins in which something must be heard."""


class OutgoingStream(Stream):
    """The end that opened the connection and sends. ``on_room`` is called when there is room again."""

    def __init__(
        self,
        transport: asyncio.Transport,
        before: asyncio.BaseProtocol,
        ping_interval: float,
        on_room: Callable[[], None],
    ) -> None:
        self.has_room = True
        self._on_room = on_room
        super().__init__(transport, before, _GOODBYE_BYTES_MAX, ping_interval)
        self._listening_on()

    def send(self, frame: bytes) -> None:
        """It is kept until the other end has taken it: look at ``has_room`` before. Lost with the
        connection."""
        self._write(frame)

    def close(self) -> None:
        """Hang up; what was sent still leaves, but nobody waits for who does not read."""
        if self.has_room:
            self._transport.close()
        else:
            self.abort()

    def pause_writing(self) -> None:
        self.has_room = False

    def resume_writing(self) -> None:
        self.has_room = True
        self._on_room()

    def _take(self, frame: bytes) -> None:
        if frame:
            self.why = frame.decode(errors="replace")
            self._is_over = True
            self._transport.abort()  # the answer to a goodbye

    def _malformed(self, error: Malformed) -> None:
        self.abort(str(error))

    def _listening_on(self) -> None:
        self._write(b"")


class IncomingStream(Stream):
    """The end that is sent messages: ``take(frame)`` gets them, and may raise Malformed, which
    ``on_malformed`` hears, and the other end as well."""

    def __init__(
        self,
        transport: asyncio.Transport,
        before: asyncio.BaseProtocol,
        frame_bytes_max: int,
        silence_max: float,
        take: Callable[[bytes], None],
        on_malformed: Callable[[Malformed], None],
    ) -> None:
        self._on_frame = take
        self._on_malformed = on_malformed
        super().__init__(transport, before, frame_bytes_max, silence_max)

    async def end(self, why: str) -> None:
        """Say goodbye, and hang up when it was answered, or soon."""
        self._say_goodbye(why)
        await self.closed.wait()

    def _take(self, frame: bytes) -> None:
        if frame:
            self._on_frame(frame)
        else:
            self._write(b"")

    def _malformed(self, error: Malformed) -> None:
        self._on_malformed(error)
        self._say_goodbye(str(error))

    def _say_goodbye(self, why: str) -> None:
        self._is_over = True
        self._write(why.encode()[:_GOODBYE_BYTES_MAX])
        self._loop.call_later(_GOODBYE_SECONDS, self._transport.abort)
