"""The client's clock."""

from __future__ import annotations

import time

# Linux's other monotonic clock stands still while the machine sleeps; leases do not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds that only grow, also while the machine sleeps."""
    return time.clock_gettime(_CLOCK)
