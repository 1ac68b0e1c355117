"""The blocking shell's connections: sockets with h11 on them, kept for the next request.

A connection that the server has closed meanwhile is noticed before it is used again: otherwise a write on it
would fail, and nobody would know whether it was carried out.
"""

from __future__ import annotations

import collections
import select
import socket
import threading
import time
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import h11

from kvorum.errors import ConnectionFailed
from kvorum.messages import Lines, decode
from kvorum.plans import Exchange, OpenStream, Reply
from kvorum.tls import Tls

if TYPE_CHECKING:
    import ssl

READ_BYTES: Final = 64 * 1024
IDLE_CONNECTIONS_MAX: Final = 16
IDLE_SECONDS_MAX: Final = 30.0
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


class SyncHttp:
    """For several threads at once. Times in seconds."""

    def __init__(self, dial_timeout: float, tls: Tls) -> None:
        self._dial_timeout = dial_timeout
        self._tls = tls
        self._lock = threading.Lock()
        self._idle: dict[str, collections.deque[tuple[float, _Connection]]] = {}
        self._is_closed = False

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return self._tls.context()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for _, connection in connections:
                connection.close()

    def exchange(self, request: Exchange) -> Reply:
        """Raises ConnectionFailed."""
        deadline = time.monotonic() + request.timeout
        connection = self._take(request.endpoint) or self._connect(request.endpoint, request.timeout)
        try:
            connection.send(request.path, request.body, request.token, deadline)
            status = connection.read_head(deadline)
            body = b"".join(iter(lambda: connection.read_data(deadline), b""))
        except BaseException as error:
            connection.close()
            raise _unanswered(request, error) from error
        if connection.can_be_used_again():
            self._give_back(request.endpoint, connection)
        return Reply(status, body)

    def open_stream(self, request: OpenStream) -> SyncStream:
        """Raises ConnectionFailed, or ServerError where the answer is one refusal."""
        deadline = time.monotonic() + request.timeout
        connection = self._connect(request.endpoint, request.timeout)
        try:
            connection.send(request.path, request.body, request.token, deadline)
            status = connection.read_head(deadline)
            if status != 200:
                decode(status, b"".join(iter(lambda: connection.read_data(deadline), b"")))
        except BaseException as error:
            connection.close()
            raise _unanswered(request, error) from error
        return SyncStream(connection, request)

    def _take(self, endpoint: str) -> _Connection | None:
        while True:
            with self._lock:
                connections = self._idle.get(endpoint)
                if not connections:
                    return None
                since, connection = connections.pop()
            if time.monotonic() - since < IDLE_SECONDS_MAX and not connection.has_ended():
                return connection
            connection.close()

    def _give_back(self, endpoint: str, connection: _Connection) -> None:
        surplus: _Connection | None = None
        with self._lock:
            if self._is_closed:
                surplus = connection
            else:
                connections = self._idle.setdefault(endpoint, collections.deque())
                connections.append((time.monotonic(), connection))
                if len(connections) > IDLE_CONNECTIONS_MAX:
                    surplus = connections.popleft()[1]
        if surplus is not None:
            surplus.close()

    def _connect(self, endpoint: str, timeout: float) -> _Connection:
        parts = urlsplit(endpoint)
        assert parts.hostname is not None
        address = (parts.hostname, parts.port)
        try:
            sock = socket.create_connection(address, min(timeout, self._dial_timeout))
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, setting in _KEEPALIVE:
                    if hasattr(socket, name):
                        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), setting)
                if parts.scheme == "https":
                    sock = self._context.wrap_socket(sock, server_hostname=parts.hostname)
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            raise ConnectionFailed(
                f"cannot connect to {endpoint.removeprefix('http://')}: {error}", maybe_done=False
            ) from error
        return _Connection(sock, parts.netloc)


class SyncStream:
    """Lines of an answer that goes on. ``interrupt`` may come from another thread."""

    def __init__(self, connection: _Connection, request: OpenStream) -> None:
        self._connection = connection
        self._request = request
        self._lines = Lines()
        self._ready: collections.deque[bytes] = collections.deque()

    def read(self, timeout: float) -> bytes | None:
        """The next line; None if none came in time. Raises ConnectionFailed when the stream has ended."""
        deadline = time.monotonic() + timeout
        while not self._ready:
            try:
                data = self._connection.read_data(deadline)
            except TimeoutError:
                return None
            except Exception as error:
                raise _unanswered(self._request, error) from error
            if not data:
                raise _unanswered(self._request, EOFError("the server ended the stream"))
            self._ready.extend(self._lines.feed(data))
        return self._ready.popleft()

    def interrupt(self) -> None:
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()


class _Connection:
    """One socket and the state of HTTP on it. Deadlines are of the monotonic clock."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self._socket = sock
        self._host = host
        self._http = h11.Connection(h11.CLIENT)

    def send(self, path: str, body: bytes, token: str, deadline: float) -> None:
        headers = [
            ("Host", self._host),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
        ]
        if token:
            headers.append(("Authorization", token))
        http = self._http
        data = http.send(h11.Request(method="POST", target=path, headers=headers))
        assert data is not None
        data += http.send(h11.Data(body)) or b""
        data += http.send(h11.EndOfMessage()) or b""
        self._wait_until(deadline)
        self._socket.sendall(data)

    def read_head(self, deadline: float) -> int:
        """The status of the answer."""
        while True:
            event = self._next_event(deadline)
            if isinstance(event, h11.Response):
                return event.status_code

    def read_data(self, deadline: float) -> bytes:
        """More of the answer; b"" at its end. Raises TimeoutError, OSError, h11.RemoteProtocolError."""
        while True:
            event = self._next_event(deadline)
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                return b""

    def _next_event(self, deadline: float) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._wait_until(deadline)
            self._http.receive_data(self._socket.recv(READ_BYTES))

    def _wait_until(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def can_be_used_again(self) -> bool:
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return True
        self.close()
        return False

    def has_ended(self) -> bool:
        """Whether the other side has closed it, or said something that nobody has asked for."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def interrupt(self) -> None:
        with suppress(OSError):  # it may have ended already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


def _unanswered(request: Exchange | OpenStream, error: BaseException) -> BaseException:
    """What the caller is told; what is no failure of the network stays as it is."""
    if not isinstance(error, (OSError, EOFError, h11.RemoteProtocolError)):
        return error
    if isinstance(error, TimeoutError):
        reason = f"no answer within {request.timeout:.3g} s"
    else:
        reason = str(error) or "the server hung up"
    text = f"{request.endpoint}{request.path}: {reason}"
    if isinstance(request, Exchange):
        text += "; it is unknown whether it was done"
    return ConnectionFailed(text, maybe_done=True)
