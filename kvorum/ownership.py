"""Whose something is that must be closed, where processes are forked.

A process that was forked has copies of all that its parent holds: leases, locks, registrations. The parent
goes on keeping them up, so they are not the child's to give up, as it would at the end of a block that both
are in.
"""

from __future__ import annotations

import os


class Owner:
    """The process that has made this."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def is_us(self) -> bool:
        return os.getpid() == self._process
