"""What the connections of both shells share: their signs of life, and what is said when they fail."""

from __future__ import annotations

import socket

from kvorum.errors import ConnectionFailed
from kvorum.keepalive import Keepalive
from kvorum.plans import Exchange, OpenStream

PROBES = 3
_SECONDS_MAX = 32_767  # more the kernel does not take


def probe_when_idle(sock: socket.socket, keepalive: Keepalive) -> None:
    """So that a machine that is gone is noticed, though nobody sends anything."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, setting in (
        ("TCP_KEEPIDLE", _whole(keepalive.time)),
        ("TCP_KEEPINTVL", _whole(keepalive.timeout / PROBES)),
        ("TCP_KEEPCNT", PROBES),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), setting)


def _whole(seconds: float) -> int:
    return min(max(round(seconds), 1), _SECONDS_MAX)


def unreachable(endpoint: str, error: Exception) -> ConnectionFailed:
    return ConnectionFailed(
        f"cannot connect to {endpoint.removeprefix('http://')}: {error}", maybe_done=False
    )


def too_late(request: Exchange | OpenStream) -> str:
    return f"no answer within {request.timeout:.3g} s"


def unanswered(request: Exchange | OpenStream, reason: str) -> ConnectionFailed:
    text = f"{request.endpoint}{request.path}: {reason or 'the server hung up'}"
    if isinstance(request, Exchange):
        text += "; it is unknown whether it was done"
    return ConnectionFailed(text, maybe_done=True)
