"""Cuts a stream of bytes into the JSON values it consists of."""

from __future__ import annotations

import re
from collections.abc import Iterator

from api.errors import BadRequest

_INTERESTING = re.compile(rb'["{}\[\]]')
_IN_STRING = re.compile(rb'["\\]')
_SPACE = b" \t\r\n"


class JsonSplitter:
    """Feed it chunks cut anywhere; it yields whole objects and arrays.

    It only finds where values end; whether they are right is for the decoder to say. What is not
    an object or array at all is yielded as far as it has come, for the decoder to refuse.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._position = 0  # up to here the buffer was looked at
        self._depth = 0
        self._in_string = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Raises BadRequest when one value exceeds the limit."""
        self._buffer += chunk
        while (value := self._take()) is not None:
            yield value
        if len(self._buffer) > self._max_bytes:
            raise BadRequest(f"a request in the stream exceeds {self._max_bytes} bytes")

    def rest(self) -> bytes:
        """What is left at the end of the stream: an unfinished value, or nothing."""
        return bytes(self._buffer).strip(_SPACE)

    def _take(self) -> bytes | None:
        if self._depth == 0 and not self._in_string:
            self._drop_space()
            if self._buffer and bytes(self._buffer[:1]) not in (b"{", b"["):
                value = bytes(self._buffer)
                self._reset(len(self._buffer))
                return value
        while match := (_IN_STRING if self._in_string else _INTERESTING).search(self._buffer, self._position):
            byte = match[0]
            self._position = match.end()
            if byte == b"\\":
                if self._position == len(self._buffer):
                    self._position -= 1  # what is escaped has not come yet
                    return None
                self._position += 1
            elif byte == b'"':
                self._in_string = not self._in_string
            elif byte in (b"{", b"["):
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 0:
                    value = bytes(self._buffer[: self._position])
                    self._reset(self._position)
                    return value
        self._position = len(self._buffer)
        return None

    def _drop_space(self) -> None:
        stripped = self._buffer.lstrip(_SPACE)
        self._reset(len(self._buffer) - len(stripped))

    def _reset(self, count: int) -> None:
        del self._buffer[:count]
        self._position = 0
