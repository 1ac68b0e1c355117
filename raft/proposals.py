"""Who waits for which proposal.

Every proposal gets an id that no other proposal of this cluster has, and the id
travels with the data through the log. When an entry is applied, the node that holds
a waiter for its id answers that waiter; to all others the id means nothing. So an
answer belongs to exactly the entry that was proposed, whatever happened to the log
in between.

An id is the low 16 bits of the member's id, then 48 bits that start at the boot time
in milliseconds shifted by 8 and count up: a member that restarts does not meet ids of
its earlier life unless it proposes 256 entries per millisecond from boot to boot.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterable
from typing import Any

_ID = struct.Struct(">Q")
ID_BYTES = _ID.size


def split(data: bytes) -> tuple[int, bytes]:
    """An entry's data as (proposal id, what was proposed)."""
    return _ID.unpack_from(data)[0], data[ID_BYTES:]


class Proposals:
    """Waiters by proposal id, oldest first, each with a deadline.

    One timeout serves all, so deadlines are in order of arrival and expiring the late
    ones costs nothing per request: no timer is set for any of them.
    """

    def __init__(
        self, member_id: int, boot_time_ms: int, timeout: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._prefix = (member_id & 0xFFFF) << 48
        self._counter = (boot_time_ms << 8) & 0xFFFF_FFFF_FFFF
        self._timeout = timeout
        self._loop = loop
        self._waiters: dict[int, asyncio.Future[Any]] = {}
        self._deadlines: deque[tuple[float, int]] = deque()

    def __len__(self) -> int:
        return len(self._waiters)

    def register(self, data: bytes) -> tuple[bytes, asyncio.Future[Any]]:
        """Give ``data`` an id: returns what to put into the log, and the future of its result."""
        self._counter = (self._counter + 1) & 0xFFFF_FFFF_FFFF
        proposal_id = self._prefix | self._counter
        future = self._loop.create_future()
        self._waiters[proposal_id] = future
        self._deadlines.append((self._loop.time() + self._timeout, proposal_id))
        return _ID.pack(proposal_id) + data, future

    def resolve(self, proposal_id: int, result: Any) -> None:
        """Hand over the result of an applied entry, if anybody here waits for it."""
        future = self._waiters.pop(proposal_id, None)
        # A client that went away has cancelled its future; the write stands all the same.
        if future is not None and not future.done():
            future.set_result(result)

    def refuse(self, proposals: list[bytes], error: Exception) -> None:
        """These never reached the log."""
        for data in proposals:
            self._fail(split(data)[0], error)

    def is_waited_for(self, proposals: list[bytes]) -> bool:
        """Whether somebody here waits for one of these."""
        return any(split(data)[0] in self._waiters for data in proposals)

    def fail_all(self, error: Exception, spare: Iterable[bytes] = ()) -> None:
        """Nobody here will learn the outcome any more, but of the proposals in ``spare``."""
        spared = {split(data)[0] for data in spare}
        for proposal_id in [waiting for waiting in self._waiters if waiting not in spared]:
            self._fail(proposal_id, error)

    def expire(self, error: Exception) -> None:
        """Fail whoever has waited longer than the timeout."""
        now = self._loop.time()
        deadlines = self._deadlines
        # The answered ones at the front go too, so the queue stays as short as the timeout allows.
        while deadlines and (deadlines[0][0] <= now or deadlines[0][1] not in self._waiters):
            self._fail(deadlines.popleft()[1], error)

    def _fail(self, proposal_id: int, error: Exception) -> None:
        future = self._waiters.pop(proposal_id, None)
        if future is not None and not future.done():
            future.set_exception(error)
