"""A watch that survives reconnects: plans, without I/O.

It goes on at the revision after the last one that has come completely, so nothing is missed and nothing comes
twice. That rests on two promises of the server: a revision's events come in one answer, and a watch that was
made without a start begins behind the revision in the header of its first answer.

A stream that says nothing new may be of a member that is cut off from the others. After IDLE_SECONDS the
member is asked whether it knows a leader; if not, or if it does not answer, another one is asked to go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
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
_COMPACTED = "etcdserver: mvcc: required revision has been compacted"


class Batch(NamedTuple):
    """All that one revision changed, as far as it is watched."""

    revision: int
    events: tuple[Event, ...]


class Untold:
    """What has come and was not told yet, in order: by one reader, by events or by revisions."""

    def __init__(self) -> None:
        self._begun: deque[Event] = deque()  # what is left of a revision whose events are told one by one
        self._batches: deque[Batch] = deque()

    def __bool__(self) -> bool:
        return bool(self._begun or self._batches)

    def add(self, batches: Iterable[Batch]) -> None:
        self._batches += batches

    def next_event(self) -> Event:
        if not self._begun:
            self._begun += self._batches.popleft().events
        return self._begun.popleft()

    def next_batch(self) -> Batch:
        if not self._begun:
            return self._batches.popleft()
        rest = tuple(self._begun)
        self._begun.clear()
        return Batch(rest[0].revision, rest)

    @property
    def revision(self) -> int | None:
        """The first that was not told completely. For any thread."""
        for queue in (self._begun, self._batches):
            with suppress(IndexError):
                return queue[0].revision
        return None


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
        self.untold = Untold()
        self.next_revision = start_revision  # the next that is to come; 0: not known yet
        self.stream: Any = None  # the shell's
        self.failure: KvorumError | None = None  # what keeps it from being told; None if nothing does
        self.is_closed = False  # set by the shell, which then ends the stream
        self._endpoint = ""
        self._token = ""
        self._token_was_refused = False
        self._failures = 0  # in a row, without anything but new streams in between
        self._is_created = False  # the stream's first answer was read
        self._heard_at = 0.0  # when there was a sign that the member is no stranger to the others

    def start(self) -> Plan[int]:
        """Until the server watches; returns the first revision that will be told. Raises ServerError; waits
        for a member that answers as long as it takes."""
        while not self.next_revision and not self.is_closed:
            yield from self._next_frame()
        if self.is_closed:
            yield from self._drop()
        return self.next_revision

    def receive(self) -> Plan[bool]:
        """Until there is something untold; False when the watch was closed. Raises Compacted when what would
        be next is gone, and ServerError where the server refuses the watch."""
        while not self.untold and not self.is_closed:
            frame = yield from self._next_frame()
            if frame:
                self._take_events(frame)
        if self.is_closed:
            yield from self._drop()
        return not self.is_closed

    def next_batches(self) -> Plan[list[Batch]]:
        """What comes next, in order; none when the watch was closed. Raises as ``receive`` does."""
        batches: list[Batch] = []
        if (yield from self.receive()):
            while self.untold:
                batches.append(self.untold.next_batch())
        return batches

    @property
    def told_until(self) -> int:
        """All before this revision was told. For any thread."""
        next_revision = self.next_revision  # read first: it moves on behind what is untold
        return self.untold.revision or next_revision

    def _take_events(self, frame: Message) -> None:
        events = [event(one) for one in frame.get("events", ())]
        for revision, group in groupby(events, key=lambda one: one.revision):
            if revision >= self.next_revision:
                self.untold.add([Batch(revision, tuple(group))])
                self.next_revision = revision + 1

    def _next_frame(self) -> Plan[Message | None]:
        """The next answer of the server, None if there was nothing new. Where the stream is lost, another is
        opened the next time."""
        try:
            if self.stream is None:
                yield from self._open()
                if self.is_closed:
                    return None
            line = yield ReadFrame(self.stream, IDLE_SECONDS)
            frame = None if line is None else self._checked(decode_frame(line))
            is_new = frame is not None and self._tells_something(frame)
            if frame is None or (not is_new and self._core.clock() >= self._heard_at + IDLE_SECONDS):
                yield from self._make_sure()
        except (InvalidToken, PermissionDenied):
            # etcd 3.5 calls a watch with a token that it does not know any more not permitted.
            yield from self._drop()
            if not self._token or self._token_was_refused:
                raise
            self._token_was_refused = True
            self._core.forget_token(self._token)
            return None
        except KvorumError as error:
            yield from self._drop()
            if self.is_closed:
                return None  # the shell has ended the stream
            if not is_passing(error):
                raise
            self.failure = error
            yield from self._back_off()
            return None
        self.failure = None
        return frame

    def _open(self) -> Plan[None]:
        core = self._core
        self._endpoint = core.endpoints.current
        self._token = yield from core.token(core.clock() + core.timeout)
        create = dict(self._create)
        if self.next_revision:
            create["start_revision"] = str(self.next_revision)
        body = encode({"create_request": create})
        self._is_created = False
        self.stream = yield OpenStream(self._endpoint, WATCH, body, self._token, core.timeout)

    def _checked(self, frame: Message) -> Message:
        if frame.get("canceled"):
            compact_revision = int(frame.get("compact_revision", 0))
            reason = frame.get("cancel_reason", "")
            if compact_revision:
                raise Compacted(reason or _COMPACTED, compact_revision=compact_revision)
            raise server_error(reason or "the watch was cancelled, without a reason")
        return frame

    def _tells_something(self, frame: Message) -> bool:
        """Whether there is something new in it. Moves on where the watch resumes, but for what events do."""
        if frame.get("created"):
            self._is_created, self._token_was_refused = True, False
            self._heard_at = self._core.clock()
            # The header tells of the store, and not of what was sent, unless the watch begins now.
            self.next_revision = self.next_revision or revision_of(frame) + 1
            return True
        if not frame.get("events"):
            # A progress notification: all until then was told.
            until = revision_of(frame) + 1
            if until <= self.next_revision:
                return False
            self.next_revision = until
        self._failures, self._heard_at = 0, self._core.clock()
        return True

    def _make_sure(self) -> Plan[None]:
        """Nothing new was heard for long. Raises ConnectionFailed where that is no wonder."""
        if not self._is_created:
            raise ConnectionFailed(f"{self._endpoint} does not confirm the watch", maybe_done=True)
        yield from self._ping()
        self._failures, self._heard_at = 0, self._core.clock()

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
