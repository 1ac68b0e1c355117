"""The client's clock."""

from __future__ import annotations

import math
import time

from kvorum.errors import KvorumError

# Linux's other monotonic clock stands still while the machine sleeps; leases do not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds that only grow, also while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


def seconds(name: str, given: float) -> float:
    """What was given as a time-out. Raises KvorumError for what can be none."""
    if isinstance(given, (int, float)) and 0 < given < math.inf:
        return given
    raise KvorumError(f"{name} is {given!r}: expected a number of seconds, more than 0")
