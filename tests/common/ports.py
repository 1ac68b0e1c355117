"""Ports for the tests' servers. Nobody else on this machine is given one, also while its server is down.

A port that is only seen to be free is somebody else's a moment later: another test's server takes it before
ours is up; or a client that calls it while the server is down gets it for its own end, and talks to itself.
"""

from __future__ import annotations

from collections import deque

from kvorum.testing.ports import ReservedPort

HELD_MAX = 1000
_held: deque[ReservedPort] = deque()


def free_port() -> int:
    """Held until this process ends, or has asked for HELD_MAX others."""
    port = ReservedPort()
    _held.append(port)
    if len(_held) > HELD_MAX:
        _held.popleft().close()
    return port.number


def free_ports(count: int) -> list[int]:
    """All different."""
    return [free_port() for _ in range(count)]
