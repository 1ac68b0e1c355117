"""When a silent connection is probed, and given up: a machine that is gone says nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Keepalive:
    """Seconds: of silence until the first probe, and from then on until the connection is given up, if no
    probe is answered. Kernels count whole ones, and at least one."""

    time: float = 10.0
    timeout: float = 15.0


USUAL = Keepalive()
