"""Waiting for what a key tells, on a lease or without one: plans, without I/O.

What is asked is asked again, of whoever can answer, and a watch is only a reason to look again: nothing
that a member knows is relied on. A lease is renewed by the way, by the very plan that waits: so neither is
forgotten for the other.
"""

from __future__ import annotations

import math
from typing import Any

from kvorum.endpoints import FIRST_PAUSE_SECONDS
from kvorum.errors import InvalidToken, KvorumError, LeaseLost, LeaseNotFound, Unavailable
from kvorum.leases import LeasePlans
from kvorum.messages import Message, decode_frame, encode
from kvorum.plans import CloseStream, Core, OpenStream, Plan, ReadFrame, Sleep, is_passing
from kvorum.watching import WATCH

IDLE_SECONDS = 5.0
"""A watch that says nothing for so long is asked for anew, behind a read: nobody can tell a silent one from
that of a member that is cut off, but such a member does not answer the read."""
SHORTEST_STEP_SECONDS = 0.5
SHORTEST_LEFT_SECONDS = 0.001


class Waiting:
    """Raises, wherever it waits: LeaseLost when the lease is gone, or nobody knows any more; ServerError when
    the server refuses what is asked. Deadlines are of the client's clock."""

    def __init__(self, core: Core, lease: LeasePlans | None = None) -> None:
        self._core = core
        self._lease = lease
        self._failures = 0  # of watches, in a row

    def ask(self, path: str, message: Message, deadline: float = math.inf) -> Plan[Message]:
        """The answer to what does no harm if it is asked again, from whoever can give it, as long as the
        lease lives; {} at the deadline."""
        while True:
            yield from self._renew()
            left = min(self.step, deadline - self._core.clock())
            if left <= 0:
                return {}
            try:
                return (yield from self._core.call(path, message, safe=True, timeout=left))
            except LeaseNotFound as error:
                raise LeaseLost(str(error)) from error
            except KvorumError as error:
                if not is_passing(error):
                    raise
                yield Sleep(min(FIRST_PAUSE_SECONDS, self.step))

    def change(self, watched: Message, start: int, deadline: float = math.inf) -> Plan[None]:
        """Wait until something of that may have happened at ``start`` or later, or for the deadline."""
        core = self._core
        endpoint, token, stream, failure = core.endpoints.current, "", None, None
        try:
            yield from self._renew()
            token = yield from core.token(core.clock() + self.step)
            body = encode({"create_request": {**watched, "start_revision": str(start)}})
            stream = yield OpenStream(endpoint, WATCH, body, token, self.step)
            yield from self._heard(stream, deadline)
        except KvorumError as error:
            failure = error
        if stream is not None:
            yield CloseStream(stream)
        if failure is None:
            self._failures = 0
        elif is_passing(failure) or (isinstance(failure, InvalidToken) and not self._failures):
            if isinstance(failure, InvalidToken):
                core.forget_token(token)
            self._failures += 1
            core.endpoints.failed(endpoint)
            yield Sleep(min(core.endpoints.pause(self._failures), self.step))
        else:
            raise failure

    def _heard(self, stream: Any, deadline: float) -> Plan[None]:
        """Until the stream says that something happened, or nothing for long."""
        clock = self._core.clock
        idle_at = clock() + IDLE_SECONDS
        while True:
            wake = min(idle_at, self._lease.due_at if self._lease else math.inf, deadline)
            line = yield ReadFrame(stream, max(wake - clock(), 0.0))
            if line is not None:
                frame = decode_frame(line)
                if frame.get("canceled") and not int(frame.get("compact_revision", 0)):
                    # If that will not change, whoever asks next is told why by the answer.
                    raise Unavailable(frame.get("cancel_reason", "the watch was cancelled"))
                if frame.get("events") or frame.get("canceled"):
                    return
                idle_at = clock() + IDLE_SECONDS
            elif clock() >= min(idle_at, deadline) or not (yield from self._renew()):
                return

    @property
    def step(self) -> float:
        """Seconds that one thing may take, so that what follows it is not too late: a renewal, or to tell
        that the lease is lost."""
        if self._lease is None:
            return self._core.timeout
        left = max(self._lease.sure_until - self._core.clock(), SHORTEST_LEFT_SECONDS)
        return min(self._core.timeout, max(self._lease.ttl / 3, SHORTEST_STEP_SECONDS), left)

    def _renew(self) -> Plan[bool]:
        """Renew the lease, if it is time to; False if nobody could be asked."""
        if self._lease is None or self._core.clock() < self._lease.due_at:
            return True
        return (yield from self._lease.renew(self.step))
