"""Answers of HTTP/1.1 out of bytes as they come: those with a length, and those in chunks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class Answer(NamedTuple):
    status: int
    body: bytes


class BadAnswer(Exception):
    """What came is no HTTP/1.1."""


class Answers:
    """``by_line``: each line of a chunked answer is one of its own as soon as it is there: for streams."""

    def __init__(self, *, by_line: bool = False) -> None:
        self._by_line = by_line
        self._buffer = b""
        self._status = 0  # of the answer whose body is being read
        self._left: int | None = None  # of its body, or None for one in chunks
        self._body = b""

    def feed(self, data: bytes) -> list[Answer]:
        """Those that are whole now. Raises BadAnswer."""
        self._buffer += data
        found: list[Answer] = []
        while True:
            if not self._status and not self._read_head():
                return found
            is_whole = self._read_chunks() if self._left is None else self._read_plain(self._left)
            if self._by_line and self._left is None and self._status == 200:
                found += self._lines()
            if not is_whole:
                return found
            if not self._by_line or self._body:
                found.append(Answer(self._status, self._body))
            self._status, self._body = 0, b""

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head, self._buffer = self._buffer[: end + 2], self._buffer[end + 4 :]
        if not head.startswith(b"HTTP/1.1 ") or not head[9:12].isdigit():
            raise BadAnswer(f"the answer is no HTTP/1.1: {head[:60]!r}")
        length = _LENGTH.search(head)
        if length is None and not _CHUNKED.search(head):
            raise BadAnswer("the answer has neither a length nor chunks")
        self._status = int(head[9:12])
        self._left = int(length[1]) if length else None
        return True

    def _read_plain(self, length: int) -> bool:
        if len(self._buffer) < length:
            return False
        self._body, self._buffer = self._buffer[:length], self._buffer[length:]
        return True

    def _read_chunks(self) -> bool:
        """Whether the last one was among them."""
        while True:
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return False
            try:
                size = int(self._buffer[:end].partition(b";")[0], 16)
            except ValueError:
                raise BadAnswer(f"a chunk's size is {self._buffer[:end][:20]!r}") from None
            after = end + 2 + size
            if len(self._buffer) < after + 2:
                return False
            self._body += self._buffer[end + 2 : after]
            self._buffer = self._buffer[after + 2 :]
            if not size:
                return True

    def _lines(self) -> Iterator[Answer]:
        *lines, self._body = self._body.split(b"\n")
        return (Answer(self._status, line) for line in lines if line)
