"""The blocking shell's connections: sockets with h11 on them, kept for the next request.

A connection that the server has closed meanwhile is noticed before it is used again: otherwise a write on it
would fail, and nobody would know whether it was carried out.
"""

from __future__ import annotations

import collections
import logging
import os
import select
import socket
import threading
import time
import weakref
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import h11

from kvorum.clock import seconds
from kvorum.connections import probe_when_idle, too_late, unanswered, unreachable
from kvorum.errors import ConnectionFailed
from kvorum.keepalive import USUAL, Keepalive
from kvorum.messages import Lines, decode
from kvorum.plans import Exchange, OpenStream, Reply
from kvorum.tls import Tls

if TYPE_CHECKING:
    import ssl

READ_BYTES: Final = 64 * 1024
IDLE_CONNECTIONS_MAX: Final = 16
IDLE_SECONDS_MAX: Final = 30.0
SHORTEST_WAIT_SECONDS: Final = 0.001  # 0 would be not to wait
LONGEST_WAIT_SECONDS: Final = 1e6  # sockets know no longer ones
log = logging.getLogger(__name__)


class SyncHttp:
    """For several threads at once. Times in seconds."""

    def __init__(self, dial_timeout: float, tls: Tls, keepalive: Keepalive = USUAL) -> None:
        self._dial_timeout = seconds("dial_timeout", dial_timeout)
        self._tls = tls
        self._keepalive = keepalive
        self._lock = threading.Lock()
        self._idle: dict[str, collections.deque[tuple[float, _Connection]]] = {}
        self._is_closed = False
        _ALL.add(self)

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

    def begin_anew(self) -> None:
        """In a process that was forked: the connections are the other's, who reads the answers on them."""
        self._lock = threading.Lock()  # perhaps held by a thread that is not here
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for _, connection in connections:
                connection.close()

    def exchange(self, request: Exchange) -> Reply:
        """Raises ConnectionFailed."""
        deadline = time.monotonic() + request.timeout
        dial_timeout = min(request.timeout, request.dial_timeout)
        connection = self._take(request.endpoint) or self._connect(request.endpoint, dial_timeout)
        try:
            connection.send(request.path, request.body, request.token, deadline)
            status = connection.read_head(deadline)
            body = b"".join(iter(lambda: connection.read_data(deadline), b""))
        except _FAILURES as error:
            connection.close()
            raise _unanswered(request, error) from error
        except BaseException:
            connection.close()
            raise
        if connection.can_be_used_again():
            self._give_back(request.endpoint, connection)
        log.debug("%s%s: %d", request.endpoint, request.path, status)
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
        except _FAILURES as error:
            connection.close()
            raise _unanswered(request, error) from error
        except BaseException:
            connection.close()
            raise
        log.debug("%s%s: %d, a stream", request.endpoint, request.path, status)
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
            sock = _connected(address, min(timeout, self._dial_timeout))
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                probe_when_idle(sock, self._keepalive)
                if parts.scheme == "https":
                    sock = self._context.wrap_socket(
                        sock, server_hostname=self._tls.server_name or parts.hostname
                    )
            except BaseException:
                sock.close()
                raise
        except (OSError, UnicodeError) as error:  # UnicodeError: of a name that can be none
            raise unreachable(endpoint, error) from error
        return _Connection(sock, parts.netloc)


def _connected(address: tuple[str, int | None], timeout: float) -> socket.socket:
    """To the first of the name's addresses that accepts it. Each has its share of the time, so that a machine
    that is gone leaves some for the others; what is left at last is the socket's for what comes next."""
    found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    deadline = time.monotonic() + timeout
    for untried, (family, kind, protocol, _, where) in zip(range(len(found), 0, -1), found, strict=True):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(deadline - time.monotonic(), SHORTEST_WAIT_SECONDS) / untried)
            sock.connect(where)
            sock.settimeout(max(deadline - time.monotonic(), SHORTEST_WAIT_SECONDS))
        except BaseException as error:
            sock.close()
            if untried == 1 or not isinstance(error, OSError):
                raise
        else:
            return sock
    raise OSError("the name has no address")


class SyncStream:
    """Lines of an answer that goes on. ``interrupt`` may come from another thread."""

    def __init__(self, connection: _Connection, request: OpenStream) -> None:
        self._connection = connection
        self._request = request
        self._lines = Lines()
        self._ready: collections.deque[bytes] = collections.deque()
        self._is_at_end = False

    def read(self, timeout: float) -> bytes | None:
        """The next line; None if none came in time. Raises ConnectionFailed when the stream has ended."""
        deadline = time.monotonic() + timeout
        while not self._ready:
            if self._is_at_end:
                raise _unanswered(self._request, EOFError("the server ended the stream"))
            try:
                data = self._connection.read_data(deadline)
            except _FAILURES as error:
                if isinstance(error, TimeoutError) and error.errno is None:
                    return None
                raise _unanswered(self._request, error) from error
            except BaseException:
                # What was read just now may be lost, so what follows makes no sense.
                self._connection.close()
                raise
            self._is_at_end = not data
            if data:
                self._ready.extend(self._lines.feed(data))
            elif rest := self._lines.rest():
                self._ready.append(rest)
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
        self._process = os.getpid()
        self._takes_no_more = False  # the other side, as far as it has told
        self._says_no_more = False

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
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self._takes_no_more = True  # it may have said why

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
        if self._process != os.getpid():
            raise EOFError("the connection is of the process that this one was forked from")
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if self._says_no_more:
                    raise EOFError("the server hung up") from error
                raise
            if event is not h11.NEED_DATA:
                return event
            self._wait_until(deadline)
            data = self._socket.recv(READ_BYTES)
            self._says_no_more = not data
            self._http.receive_data(data)

    def _wait_until(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(min(left, LONGEST_WAIT_SECONDS))

    def can_be_used_again(self) -> bool:
        http = self._http
        is_done = http.our_state is http.their_state is h11.DONE
        # What came behind the answer would be taken for the next one.
        if is_done and not http.trailing_data[0] and not self._takes_no_more:
            http.start_next_cycle()
            return True
        self.close()
        return False

    def has_ended(self) -> bool:
        """Whether the other side has closed it, or said something that nobody has asked for."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def interrupt(self) -> None:
        if self._process == os.getpid():  # else it would end for the other process too
            with suppress(OSError):  # it may have ended already
                # Not that of TLS, which is not for several threads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


_FAILURES = (OSError, EOFError, h11.RemoteProtocolError)


def _unanswered(request: Exchange | OpenStream, error: Exception) -> ConnectionFailed:
    """What the caller is told."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return unanswered(request, too_late(request))
    if isinstance(error, h11.RemoteProtocolError):
        return unanswered(request, f"what came is no answer: {error}")
    return unanswered(request, str(error))


_ALL: weakref.WeakSet[SyncHttp] = weakref.WeakSet()


def _begin_anew() -> None:
    for one in _ALL:
        one.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)
