"""One request over HTTP, sent exactly once, and what is known of it afterwards."""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

import aiohttp

JSON = {"Content-Type": "application/json"}


class Sent(NamedTuple):
    """What came back: ``status`` is 0 if nothing did, and then ``why`` says so."""

    status: int = 0
    body: bytes = b""
    why: str = ""
    never_left: bool = False  # no connection was made, so the server cannot have seen it


async def send(session: aiohttp.ClientSession, url: str, body: bytes, seconds: float) -> Sent:
    timeout = aiohttp.ClientTimeout(total=seconds)
    try:
        async with session.post(url, data=body, headers=JSON, timeout=timeout) as response:
            return Sent(response.status, await response.read())
    except aiohttp.ClientConnectorError as error:
        return Sent(why="no connection", never_left=error.os_error.errno == errno.ECONNREFUSED)
    except TimeoutError:
        return Sent(why="no answer in time")
    except (aiohttp.ClientError, OSError) as error:
        return Sent(why=type(error).__name__)


def open_session() -> aiohttp.ClientSession:
    """A watch's stream may be silent for long, and has a connection for itself."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30, socket_factory=_socket)
    return aiohttp.ClientSession(connector=connector)


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """One that notices when the other side is gone, though its last packet was lost."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 4), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 6)):
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made
