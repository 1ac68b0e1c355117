"""A watch that survives reconnects: plans, without I/O.

It goes on at the revision after the last one that was told completely, so nothing is missed and nothing comes
twice. That rests on two promises of the server: a revision's events come in one answer, and a watch that was
made without a start begins behind the revision in the header of its first answer.

A stream that says nothing may be of a member that is cut off from the others. After IDLE_SECONDS the member
is asked whether it knows a leader; if not, or if it does not answer, another one is asked to go on.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, NamedTuple

from kvorum.errors import (
    Compacted,
    ConnectionFailed,
    InvalidToken,
    KvorumError,
    PermissionDenied,
    ServerError,
    server_error,
)
from kvorum.messages import Message, decode, decode_frame, encode, event, revision_of
from kvorum.plans import CloseStream, Core, Exchange, OpenStream, Plan, ReadFrame, Sleep, is_passing
from kvorum.types import Event

WATCH = "/v3/watch"
STATUS = "/v3/maintenance/status"
IDLE_SECONDS = 10.0
PING_SECONDS = 2.0
_REVISION_COMPACTED = "etcdserver: mvcc: required revision has been compacted"


class Batch(NamedTuple):
    """All that one revision changed, as far as it is watched."""

    revision: int
    events: tuple[Event, ...]


def watch_request(selected: Message, prev_kv: bool, puts: bool, deletes: bool) -> Message:
    filters = [name for wanted, name in ((puts, "NOPUT"), (deletes, "NODELETE")) if not wanted]
    if len(filters) == 2:
        raise ValueError("a watch without puts and without deletes tells nothing: leave one of them")
    return {**selected, "prev_kv": prev_kv, "filters": filters}


class WatchPlans:
    """One watch. ``create`` is the create_request without its start."""

    def __init__(self, core: Core, create: Message, start_revision: int = 0) -> None:
        self._core = core
        self._create = {**create, "progress_notify": True}
        self.next_revision = start_revision  # 0: not known yet
        self.stream: Any = None  # the shell's
        self.failure: KvorumError | None = None  # what keeps it from being told; None if nothing does
        self.is_closed = False  # set by the shell, which then ends the stream
        self._endpoint = ""
        self._token = ""
        self._failures = 0

    def start(self) -> Plan[int]:
        """Until the server watches; returns the first revision that will be told. Raises ServerError; waits
        for a member that answers as long as it takes."""
        while not self.next_revision and not self.is_closed:
            yield from self._next_frame()
        return self.next_revision

    def next_batches(self) -> Plan[list[Batch]]:
        """What comes next, in order; none when the watch was closed. Raises Compacted when what would be next
        is gone, and ServerError where the server refuses the watch."""
        while not self.is_closed:
            frame = yield from self._next_frame()
            batches = self._batches(frame) if frame else []
            if batches:
                return batches
        yield from self._drop()
        return []

    def _batches(self, frame: Message) -> list[Batch]:
        events = [event(one) for one in frame.get("events", ())]
        grouped = groupby(events, key=lambda one: one.revision)
        batches = [
            Batch(revision, tuple(group)) for revision, group in grouped if revision >= self.next_revision
        ]
        if batches:
            self.next_revision = batches[-1].revision + 1
        elif not frame.get("created"):
            # A progress notification: all until then was told.
            self.next_revision = max(self.next_revision, revision_of(frame) + 1)
        return batches

    def _next_frame(self) -> Plan[Message | None]:
        """The next answer of the server, None if there was nothing new. Where the stream is lost, another is
        opened the next time."""
        try:
            if self.stream is None:
                yield from self._open()
                if self.is_closed:
                    return None
            line = yield ReadFrame(self.stream, IDLE_SECONDS)
            if line is None:
                yield from self._ping()
                return None
            frame = self._checked(decode_frame(line))
        except (InvalidToken, PermissionDenied):
            # etcd 3.5 calls a watch with a token that it does not know any more not permitted.
            self._failures += 1
            yield from self._drop()
            if not self._token or self._failures > 1:
                raise
            self._core.forget_token(self._token)
            return None
        except KvorumError as error:
            yield from self._drop()
            if not is_passing(error) and not self.is_closed:
                raise
            self.failure = error
            yield from self._back_off()
            return None
        self._failures, self.failure = 0, None
        return frame

    def _open(self) -> Plan[None]:
        core = self._core
        self._endpoint = core.endpoints.current
        self._token = yield from core.token(core.clock() + core.timeout)
        create = dict(self._create)
        if self.next_revision:
            create["start_revision"] = str(self.next_revision)
        body = encode({"create_request": create})
        self.stream = yield OpenStream(self._endpoint, WATCH, body, self._token, core.timeout)

    def _checked(self, frame: Message) -> Message:
        if frame.get("canceled"):
            compact_revision = int(frame.get("compact_revision", 0))
            reason = frame.get("cancel_reason") or _REVISION_COMPACTED
            error = server_error(reason, 11 if compact_revision else 2)
            if compact_revision:
                error = Compacted(reason, compact_revision=compact_revision)
            raise error
        if frame.get("created") and not self.next_revision:
            self.next_revision = revision_of(frame) + 1
        return frame

    def _ping(self) -> Plan[None]:
        """Raises ConnectionFailed unless the member answers and knows a leader."""
        reply = yield Exchange(self._endpoint, STATUS, b"{}", self._token, PING_SECONDS)
        try:
            status = decode(reply.status, reply.body)
        except ServerError as error:
            if is_passing(error):
                raise
            return  # it lives, and does not tell us more
        if not int(status.get("leader", 0)):
            raise ConnectionFailed(f"{self._endpoint} knows no leader", maybe_done=False)

    def _drop(self) -> Plan[None]:
        stream, self.stream = self.stream, None
        if stream is not None:
            yield CloseStream(stream)

    def _back_off(self) -> Plan[None]:
        self._failures += 1
        self._core.endpoints.failed(self._endpoint)
        pause = self._core.endpoints.pause(self._failures)
        if pause and not self.is_closed:
            yield Sleep(pause)
