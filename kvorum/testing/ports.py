"""Ports that stay one server's own while it is down."""

from __future__ import annotations

import socket


class ReservedPort:
    """A free port of 127.0.0.1, chosen by the kernel, that nobody else is given until ``close``.

    A socket is bound to it but does not listen. On Linux a server can bind to it too, since both set
    SO_REUSEADDR, and the kernel gives the port neither to another who asks for any port nor to an
    outgoing connection. So nobody takes it between two runs of the server, and a client that calls
    while the server is down is refused.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(("127.0.0.1", 0))
        except BaseException:
            self._socket.close()
            raise
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()
