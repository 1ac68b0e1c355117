"""A way to a server on which connections are refused, cut off at any byte, and stall."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator

BYTES_MAX = 4000  # that a connection lives to see
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class BadNetwork:
    """``heal``: from then on all goes well."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self._port = port
        self._rng = rng
        self._is_bad = True
        self._healed = threading.Event()  # stalled connections wait for it
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def heal(self) -> None:
        self._is_bad = False
        self._healed.set()

    def close(self) -> None:
        self.heal()
        for sock in self._sockets:
            _end(sock)
        for thread in self._threads:
            thread.join()
        for sock in self._sockets:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            fate = self._rng.choice(("reset", "cut on its way", "cut on its way back", "stall", "late cut"))
            if self._is_bad and fate == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._port))
            self._sockets += (client, server)
            limit = self._rng.randrange(BYTES_MAX) * (5 if fate == "late cut" else 1)
            there = limit if fate == "cut on its way" else None
            back = None if fate == "cut on its way" else limit
            for one, other, end in ((client, server, there), (server, client, back)):
                thread = threading.Thread(target=self._pass_on, args=(one, other, end, fate == "stall"))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, to: socket.socket, limit: int | None, stalls: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if self._is_bad and limit is not None and passed + len(data) > limit:
                    to.sendall(data[: limit - passed])
                    if stalls:
                        self._healed.wait(1)
                    break
                to.sendall(data)
                passed += len(data)
        _end(source)
        _end(to)


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def bad_networks(port: int, count: int, seed: int) -> Iterator[list[BadNetwork]]:
    rng = random.Random(seed)
    networks = [BadNetwork(port, rng) for _ in range(count)]
    try:
        yield networks
    finally:
        for network in networks:
            network.close()
