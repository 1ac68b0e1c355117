"""Judging what watches were told: exactly the history of their range, from their start, in order.

    watch a.. from 3 of   2: put a   3: put b   4: delete a, put c   must hear   3: put b   4: delete a, put c

in any number of responses, but each revision in one; and a header that says 3 may not come before
``3: put b``. What is not delivered is only allowed to be what comes after the last response of a
watch whose stream was lost. An answer to the creation, and a cancellation, carry the store's revision
in their header and claim nothing by it.
"""

from __future__ import annotations

from bisect import bisect_left

from kvstate.types import Event
from tests.sim.history import WatchLog
from tests.sim.model import BadHistory, Model, Timeline, in_range, tell
from watch.watcher import INVALID_WATCH_ID, WatchCreate, WatchEvent, WatchResponse

Change = tuple[int, Event]


class Changes:
    """All events of a history in a row, and those of each key, each with its revision."""

    def __init__(self, model: Model) -> None:
        self._all: list[Change] = []
        self._of_key: dict[bytes, list[Change]] = {}
        for revision in range(2, model.top + 1):
            for event in model.events[revision]:
                change = (revision, event)
                self._all.append(change)
                self._of_key.setdefault(event.kv.key, []).append(change)

    def wanted(self, request: WatchCreate, start: int) -> list[Change]:
        """What a watch is to be told, from ``start`` on."""
        key, end, filters = request.key or b"\0", request.range_end, request.filters
        among = self._all if end else self._of_key.get(key, [])
        first = bisect_left(among, start, key=lambda change: change[0])
        return [
            change
            for change in among[first:]
            if in_range(change[1].kv.key, key, end) and change[1].type not in filters
        ]


def check_watch(log: WatchLog, model: Model, changes: Changes, compactions: Timeline) -> None:
    """Raises BadHistory. ``compactions`` knows which revisions had been asked to be compacted."""
    _Judge(log, model, changes, compactions).judge()


class _Judge:
    def __init__(self, log: WatchLog, model: Model, changes: Changes, compactions: Timeline) -> None:
        self._log = log
        self._request = log.request
        self._model = model
        self._changes = changes
        self._compactions = compactions
        self._watch_id: int | None = None  # until it is created
        self._over = False
        self._start = 0
        self._expected: list[Change] = []
        self._place = 0  # so many of the expected events were delivered
        self._told = 0  # the revision of the last event delivered
        self._has_to = 0  # it was told that it has everything up to this revision
        # A header whose events may still be coming, in other fragments of the same response.
        self._open_claim = 0

    def judge(self) -> None:
        for time, response in self._log.responses:
            if self._over or self._watch_id is None:
                if response.watch_id == INVALID_WATCH_ID and not response.created and not response.events:
                    continue  # about the stream's other watches
                if self._over:
                    self._bad(f"was told something after it was cancelled: {_brief(response)}")
                self._begin(response)
            else:
                self._follow(time, response)
        if not self._log.connected or self._over:
            return
        if self._watch_id is None:
            self._bad("was never answered, though its stream was open to the end")
        if self._place < len(self._expected):
            self._bad(f"is missing the end, though it was connected: {tell(self._expected[self._place :])}")

    def _begin(self, response: WatchResponse) -> None:
        if not response.created:
            self._bad(f"was told something before it was created: {_brief(response)}")
        if response.events:
            self._bad(f"was told events in the answer to its creation: {_brief(response)}")
        self._over = response.canceled  # refused
        self._watch_id = response.watch_id
        self._start = self._request.start_revision or response.revision + 1
        self._expected = self._changes.wanted(self._request, self._start)

    def _follow(self, time: int, response: WatchResponse) -> None:
        if response.created:
            self._bad("was created twice")
        of_stream = response.watch_id == INVALID_WATCH_ID and not response.events
        if response.watch_id != self._watch_id and not of_stream:
            self._bad(f"was told what belongs to watch {response.watch_id}: {_brief(response)}")
        if self._open_claim and not (response.events and response.revision == self._open_claim):
            self._check_claim(self._open_claim)
            self._open_claim = 0
        for event in response.events:
            self._take(time, event)
        if response.events:
            self._check_batch(response)
        if response.canceled:
            self._over = True
            self._check_cancel(time, response)
        elif self._request.fragment and response.events:
            self._open_claim = response.revision
        else:
            self._check_claim(response.revision)

    def _take(self, time: int, event: WatchEvent) -> None:
        if self._place == len(self._expected):
            self._explain_unexpected(event)
        revision, expected = self._expected[self._place]
        if event.kv != expected.kv or event.type != expected.type:
            self._explain_unexpected(event)
        self._place += 1
        self._told = revision
        if not self._request.prev_kv:
            if event.prev_kv is not None:
                self._bad(f"was told a prev_kv that it did not ask for, with {tell(event)}")
            return
        previous = self._model.at(event.kv.key, revision - 1)
        # What was before is not told any more once a compaction has reached this revision.
        forgotten = event.prev_kv is None and self._compactions.before(time) >= revision
        if event.prev_kv != previous and not forgotten:
            self._bad(
                f"was told a wrong prev_kv with {tell(event)}: {tell(event.prev_kv)}, not {tell(previous)}"
            )

    def _check_batch(self, response: WatchResponse) -> None:
        if response.revision < self._told:
            self._bad(f"was told events of revision {self._told} under a header of {response.revision}")
        if self._request.fragment or self._place == len(self._expected):
            return
        revision, event = self._expected[self._place]
        if revision == self._told:
            self._bad(
                f"was told only a part of revision {revision} in one response: {tell(event)} is missing"
            )

    def _check_claim(self, revision: int) -> None:
        if self._place < len(self._expected) and self._expected[self._place][0] <= revision:
            missing = self._expected[self._place]
            self._bad(f"was told that it has everything up to revision {revision}, but not {tell(missing)}")
        self._has_to = max(self._has_to, revision)

    def _check_cancel(self, time: int, response: WatchResponse) -> None:
        compacted = response.compact_revision
        if not compacted:
            return
        if not self._compactions.has(compacted, time):
            self._bad(f"was cancelled as compacted at {compacted}, but nobody had asked for that compaction")
        needed = max(self._start, self._told, self._has_to + 1)
        if compacted <= needed:
            self._bad(
                f"was cancelled as compacted at {compacted}, but from revision {needed} on nothing that"
                " it needs was compacted"
            )

    def _explain_unexpected(self, event: WatchEvent) -> None:
        """Say what is wrong with an event that is not the next one expected."""
        kind, kv, _ = event
        revision = kv.mod_revision
        change = (revision, Event(kind, kv))
        key = self._request.key or b"\0"
        if change[1] not in self._model.events.get(revision, ()):
            self._bad(f"was told an event that never happened: {tell(event)}")
        if not in_range(kv.key, key, self._request.range_end):
            self._bad(f"was told an event outside its range: {tell(event)}")
        if kind in self._request.filters:
            self._bad(f"was told an event of a kind that it filters out: {tell(event)}")
        if revision < self._start:
            self._bad(f"starts at revision {self._start}, but was told an event from before: {tell(event)}")
        if change in self._expected[: self._place]:
            self._bad(f"was told an event twice: {tell(event)}")
        missing = self._expected[self._place]
        later = any(
            (one.type, one.kv) == missing[1] for _, response in self._log.responses for one in response.events
        )
        if later:
            self._bad(f"was told events out of order: {tell(event)} before {tell(missing[1])}")
        self._bad(f"has a gap: it was told {tell(event)} without {tell(missing[1])} of revision {missing[0]}")

    def _bad(self, what: str) -> None:
        raise BadHistory(f"{describe_watch(self._log)} {what}")


def describe_watch(log: WatchLog) -> str:
    request = log.request
    end = f", {tell(request.range_end)}" if request.range_end else ""
    options = "".join(f" {name}" for name in ("prev_kv", "fragment") if getattr(request, name))
    filters = f" without {sorted(kind.name for kind in request.filters)}" if request.filters else ""
    start = request.start_revision or "now"
    what = f"{request.key!r}{end} from {start}{options}{filters}"
    return f"«watch via node {log.node} [{log.invoked}..] of {what}»"


def _brief(response: WatchResponse) -> str:
    if response.events:
        return tell(list(response.events))
    state = "created" if response.created else "canceled" if response.canceled else "progress"
    return f"{state} at revision {response.revision}"
