"""Watchers of keys that nobody writes: what they cost those who write others."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from bench.clusters import Side
from bench.watchers import Watcher


@contextlib.contextmanager
def idle_watchers(side: Side, count: int) -> Iterator[None]:
    """Each of a key of its own, on a connection of its own, evenly over the nodes."""
    members = side.members
    with contextlib.ExitStack() as stack:
        watchers = []
        for i in range(count):
            watcher = Watcher(members[i % len(members)], timed=False, key=b"idle/%08d" % i)
            stack.callback(socket.socket.close, watcher.socket)
            watchers.append(watcher)
        for watcher in watchers:
            watcher.wait_until_created()
        yield
