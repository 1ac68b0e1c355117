"""Who waits for which proposal.

Every proposal gets an id that no other proposal of this cluster has, and the id
travels with the data through the log. When an entry is applied, the node that holds
a waiter for its id answers that waiter; to all others the id means nothing. So an
answer belongs to exactly the entry that was proposed, whatever happened to the log
in between.

Ids are 64 bits: each life of each member counts up from a random number. Another one's ids would have to
begin so near that they meet, at a chance of one in 2**30 for lives of some thousand million proposals
each. (The member's id and its clock do not serve: ids of 64 bits do not fit, and clocks go back.)
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterable
from typing import Any

_ID = struct.Struct(">Q")
ID_BYTES = _ID.size
_ID_MASK = (1 << 8 * ID_BYTES) - 1


def split(data: bytes) -> tuple[int, bytes]:
    """An entry's data as (proposal id, what was proposed)."""
    return _id_of(data), data[ID_BYTES:]


def _id_of(data: bytes) -> int:
    proposal_id: int = _ID.unpack_from(data)[0]
    return proposal_id


class Proposals:
    """Waiters by proposal id, oldest first, each with a deadline.

    One timeout serves all, so deadlines are in order of arrival and expiring the late
    ones costs nothing per request: no timer is set for any of them.
    """

    def __init__(self, first_id: int, timeout: float, loop: asyncio.AbstractEventLoop) -> None:
        """``first_id``: random, but where no other life of any member has one near it anyway."""
        self._next_id = first_id & _ID_MASK
        self._timeout = timeout
        self._loop = loop
        self._waiters: dict[int, asyncio.Future[Any]] = {}
        self._deadlines: deque[tuple[float, int]] = deque()

    def __len__(self) -> int:
        return len(self._waiters)

    def register(self, data: bytes) -> tuple[bytes, asyncio.Future[Any]]:
        """Give ``data`` an id: returns what to put into the log, and the future of its result."""
        proposal_id, self._next_id = self._next_id, (self._next_id + 1) & _ID_MASK
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
            self._fail(_id_of(data), error)

    def is_waited_for(self, proposals: list[bytes]) -> bool:
        """Whether somebody here waits for one of these."""
        return any(_id_of(data) in self._waiters for data in proposals)

    def fail_all(self, error: Exception, spare: Iterable[bytes] = ()) -> None:
        """Nobody here will learn the outcome any more, but of the proposals in ``spare``."""
        spared = {_id_of(data) for data in spare}
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
