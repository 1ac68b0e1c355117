"""A server that does to its connections what a test says, byte by byte.

    with raw_server(lambda c: c.answer(revision=5), hang_up) as server: …

The first connection is served by the first function, and so on; those after the last by the last. When it
returns, the connection is closed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.common.nodes import wait_until

SECONDS = 20


class Connection:
    """The server's side of one."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._received = b""

    def request(self) -> dict[str, Any] | None:
        """The body of the next whole request; None when the client has hung up."""
        while True:
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if found:
                [length] = [
                    int(line[15:])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                ]
                if len(rest) >= length:
                    self._received = rest[length:]
                    body: dict[str, Any] = json.loads(rest[:length] or b"{}")
                    return body
            data = self._socket.recv(65536)
            if not data:
                return None
            self._received += data

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self, status: int = 200, body: bytes | None = None, **fields: Any) -> None:
        """To a request that was read."""
        body = json.dumps(fields).encode() if body is None else body
        self.send(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))

    def begin_stream(self, *lines: bytes) -> None:
        self.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.stream(*lines)

    def stream(self, *lines: bytes) -> None:
        for line in lines:
            self.send(b"%x\r\n%b\r\n" % (len(line), line))

    def hang_up_as_go_does(self) -> None:
        """Who was answered before all was read is left some time to read that."""
        self._socket.shutdown(socket.SHUT_WR)
        time.sleep(0.3)

    def receive(self, size: int) -> None:
        """Some bytes, and no more than that."""
        self._socket.recv(size)

    def wait_for_end(self) -> None:
        """Until the client hangs up."""
        while self._socket.recv(65536):
            pass


Handler = Callable[[Connection], Any]


class RawServer:
    def __init__(self, handlers: tuple[Handler, ...]) -> None:
        self._handlers = handlers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.connections = 0
        self.ended = threading.Semaphore(0)
        """Released for each connection that the server has closed."""
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            handler = self._handlers[min(self.connections, len(self._handlers) - 1)]
            self.connections += 1
            self._open.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, handler))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, handler: Handler) -> None:
        with sock, contextlib.suppress(OSError):
            handler(Connection(sock))
        self.ended.release()

    def close(self) -> None:
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in [self._accepting, *self._threads]:
            thread.join(SECONDS)
            assert not thread.is_alive()


@contextlib.contextmanager
def raw_server(*handlers: Handler) -> Iterator[RawServer]:
    server = RawServer(handlers)
    try:
        yield server
    finally:
        server.close()


def answering(*revisions: int) -> Handler:
    """Answers one request after the other, with these revisions, and then hangs up."""

    def handle(connection: Connection) -> None:
        for revision in revisions:
            if connection.request() is None:
                return
            connection.answer(header={"revision": str(revision)})

    return handle


@contextlib.contextmanager
def nobody_accepts() -> Iterator[str]:
    """The endpoint of a machine that does not answer: connections to it are neither made nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(4):  # more than have room
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        # On a busy machine the kernel takes its time, and others that come before are let in.
        wait_until(lambda: is_full(listener))
        yield f"http://127.0.0.1:{address[1]}"


def is_full(listener: socket.socket) -> bool:
    """Whether more wait to be accepted than are to: further ones are then ignored (Linux)."""
    waiting, wanted = struct.unpack_from(
        "24xII", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    )
    return bool(waiting > wanted)
