"""What leaves now, and what may wait a moment.

A heartbeat that only tells what is committed waits for entries that tell the same: where one write
follows the other, most of them are never sent. It does not wait where somebody else does: while
reads are to be confirmed, and for members whose clients have proposed something of late, since they
have their answer when it is applied there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from raft.core.messages import AppendEntries, Heartbeat, Message

PATIENCE_SECONDS = 0.001
_CLIENTS_SECONDS = 1.0  # so long after a proposal a member is taken to have clients that wait


class Outbox:
    """Before a transport, whose ``send`` it is given."""

    def __init__(self, send: Callable[[Sequence[Message]], None], loop: asyncio.AbstractEventLoop) -> None:
        self._send = send
        self._loop = loop
        self._patient: dict[int, Heartbeat] = {}  # the newest for each member
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._proposed_at: dict[int, float] = {}  # when each member last passed proposals on to us

    def send(self, messages: Sequence[Message], *, reads_wait: bool) -> None:
        patient, at_once = self._patient, []
        for message in messages:
            if type(message) is Heartbeat and not reads_wait and not self._has_clients(message.target):
                patient[message.target] = message
                continue
            if type(message) is AppendEntries:
                waiting = patient.get(message.target)
                if waiting is not None and waiting.commit_index <= message.leader_commit:
                    del patient[message.target]
            at_once.append(message)
        if at_once:
            self._send(at_once)
        if patient and self._timer is None and not self._is_closed:
            self._timer = self._loop.call_later(PATIENCE_SECONDS, self._send_patient)

    def proposed(self, member: int) -> None:
        """``member`` has passed on what its clients want."""
        self._proposed_at[member] = self._loop.time()

    def close(self) -> None:
        """Nothing more leaves by itself."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _has_clients(self, member: int) -> bool:
        return self._proposed_at.get(member, float("-inf")) > self._loop.time() - _CLIENTS_SECONDS

    def _send_patient(self) -> None:
        self._timer = None
        patient, self._patient = self._patient, {}
        if patient:
            self._send(list(patient.values()))
