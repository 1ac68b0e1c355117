"""A connection for one request at a time, for load generators that are to cost less than servers do."""

from __future__ import annotations

import re
import socket

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
RECEIVE_BYTES = 16_384  # from 128 KiB on, malloc maps and unmaps memory for each


class Connection:
    def __init__(self, port: int) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, path: str, body: bytes) -> None:
        self.socket.sendall(http_request(self.port, path, body))

    def receive(self) -> bytes | None:
        """The answer's body once all of it is here, for now None. ConnectionError if it is not 200,
        or never comes."""
        data = self.socket.recv(RECEIVE_BYTES)
        self._answer += data
        if not data or not self._answer.startswith(b"HTTP/1.1 200"[: len(self._answer)]):
            raise ConnectionError(f"port {self.port} answered {self._answer!r}")
        head, _, body = self._answer.partition(b"\r\n\r\n")
        length = CONTENT_LENGTH.search(head + b"\r\n")
        if length is None or len(body) < int(length[1]):
            return None
        self._answer = b""
        return body

    def close(self) -> None:
        self.socket.close()


def http_request(port: int, path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
