"""Who made the revisions that no operation of the history made: leases, locks and elections. Pure.

A key enters a line by one lock or campaign, once or never; it leaves by one unlock or resignation, by the
end of a lock or campaign that came to nothing, or with its lease. A lease ends once, by a client's revocation
or because it had run out, and takes all its keys in one revision. So every such revision wants a cause of its
own, which is a matching, as for deletes in ``tests.sim.linearizability``:

    7: delete lock/a/4d     client 3's unlock, which nobody answered, or the end of lease 77
    9: delete lock/a/4d     the other one of these

What this finds out goes into the history: which leases there may have been when, for puts that name one, and
which revisions are explained.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from api.concurrency import LeaderKey
from kvstate.commands import DeleteRange
from kvstate.errors import LeaseNotFound, RequestError
from kvstate.types import KeyValue
from tests.sim.history import Campaign, History, LeaseLife, Lock, Moment, Operation, Outcome, Resign, Unlock
from tests.sim.linearizability import heard
from tests.sim.model import BadHistory, Model, Timeline, execute, operations, tell
from tests.soak.call_wire import LEASE_NOT_FOUND
from tests.soak.calls import Call, Coordination, key_of
from tests.soak.ceiling import Ceiling
from tests.soak.lease_judge import Leases
from tests.soak.line_judge import check_call, check_guards
from tests.soak.past import Exit, Past

_Cause = tuple[str, int]  # ("end", a lease) or ("enter" or "leave", the number of a call)


def judge_coordination(history: History, coordination: Coordination) -> History:
    """The history as it is to be judged further. Raises BadHistory."""
    past = Past(history.events)
    told = heard(history, coordination.calls)
    leases = Leases(history, coordination, past, told)
    ends = _Causes(history, coordination, past, told, leases).find()
    leases.check()
    for look in coordination.looks:
        leases.check_look(look)
    top = 1 + len(history.events)
    ceiling = Ceiling(history, top)
    for call in coordination.calls:
        if coordination.candidates_look_again or not isinstance(call.request, Campaign):
            check_call(call, past, told, ceiling, top)
    check_guards(history.events, past)
    explained = (
        frozenset(ends) | {kv.mod_revision for kv in past.entries} | {one.revision for one in past.exits}
    )
    return replace(
        history,
        # Whether a lease was there is judged above.
        operations=[op for op in history.operations if not isinstance(op.error, LeaseNotFound)],
        leases=_lives(leases, told, ends),
        elsewhere=explained,
    )


def _lives(leases: Leases, told: Timeline, ends: dict[int, int]) -> dict[int, LeaseLife]:
    """As long as each may have been there."""
    ended = {lease: revision for revision, lease in ends.items()}
    lives = {}
    for lease, call in leases.granted.items():
        life = LeaseLife(lease, 0, Moment(call.invoked, told.before(call.invoked)))
        if lease in ended:
            time = told.reached(ended[lease])
            assert time is not None
            life.ended = Moment(time, ended[lease])
        lives[lease] = life
    return lives


class _Causes:
    def __init__(
        self, history: History, coordination: Coordination, past: Past, told: Timeline, leases: Leases
    ) -> None:
        self._history = history
        self._past = past
        self._told = told
        self._leases = leases
        self._calls = coordination.calls
        self._about: dict[bytes, list[int]] = defaultdict(list)  # key of a line → numbers of calls
        for number, call in enumerate(coordination.calls):
            if isinstance(call.request, Lock | Unlock | Campaign | Resign):
                self._about[key_of(call.request)].append(number)
        self._fitting: dict[int, list[_Cause]] = {}
        self._taken: dict[_Cause, int] = {}

    def find(self) -> dict[int, int]:
        """The revisions that may be ends of leases, and are explained by that. Raises BadHistory."""
        exits = {one.revision: one for one in self._past.exits}
        entries = {kv.mod_revision: kv for kv in self._past.entries}
        for revision in sorted({*exits, *entries, *self._past.ends}):
            if revision in entries:
                causes = [("enter", number) for number in self._who_entered(entries[revision])]
                self._assign(revision, causes, "nobody asked for that")
            else:
                self._explain_end(revision, exits.get(revision))
        return {revision: lease for (kind, lease), revision in self._taken.items() if kind == "end"}

    def _explain_end(self, revision: int, exit_: Exit | None) -> None:
        lease = self._past.ends.get(revision)
        causes: list[_Cause] = []
        if exit_ is None and any(self._did(op, revision) for op in self._answered[revision]):
            return  # a client deleted what hung on the lease
        if lease is not None and self._leases.may_have_ended_at(lease, revision):
            causes.append(("end", lease))
        alone = len(self._history.events[revision]) == 1
        if exit_ is not None and alone:
            causes += [("leave", number) for number in self._who_left(exit_)]
        if exit_ is None and not causes and any(self._did(op, revision) for op in self._unanswered):
            return  # a client may have done it, which is for others to judge
        story = "nobody asked for that" if lease is None else self._leases.why_not(lease, revision)
        self._assign(revision, causes, story)

    def _who_entered(self, kv: KeyValue) -> Iterator[int]:
        for number in self._about[kv.key]:
            call = self._calls[number]
            if not isinstance(call.request, Lock | Campaign) or call.error == LEASE_NOT_FOUND:
                continue
            until = call.told.rev if isinstance(call.told, LeaderKey) else call.revision
            value = call.request.value if isinstance(call.request, Campaign) else b""
            if value == kv.value and self._may_be(call, kv.mod_revision, until):
                yield number

    def _who_left(self, exit_: Exit) -> Iterator[int]:
        for number in self._about[exit_.place.key]:
            call = self._calls[number]
            if isinstance(call.request, Lock | Campaign):
                fits = call.outcome is not Outcome.OK and call.error != LEASE_NOT_FOUND
            else:
                fits = not isinstance(call.request, Resign) or call.request.leader.rev == exit_.place.token
            if fits and self._may_be(call, exit_.revision, call.revision):
                yield number

    def _may_be(self, call: Call, revision: int, until: int) -> bool:
        if call.outcome is Outcome.REFUSED or self._told.before(call.invoked) >= revision:
            return False
        return call.outcome is not Outcome.OK or revision <= until

    @cached_property
    def _answered(self) -> dict[int, list[Operation]]:
        found = defaultdict(list)
        for op in self._history.operations:
            if op.outcome is Outcome.OK and _deletes(op):
                found[op.revision].append(op)
        return found

    @cached_property
    def _unanswered(self) -> list[Operation]:
        return [op for op in self._history.operations if op.outcome is Outcome.UNKNOWN and _deletes(op)]

    @cached_property
    def _model(self) -> Model:
        return Model(self._history.events)

    def _did(self, op: Operation, revision: int) -> bool:
        try:
            _, events = execute(self._model, op.request, revision - 1)
        except RequestError:
            return False
        return events == self._history.events[revision]

    # The matching: see ``tests.sim.linearizability``.

    def _assign(self, revision: int, causes: list[_Cause], story: str) -> None:
        self._fitting[revision] = causes
        if not self._grow(revision, set()):
            events = tell(self._history.events[revision])
            raise BadHistory(f"without a cause: revision {revision} is {events}: {story}")

    def _grow(self, revision: int, tried: set[_Cause]) -> bool:
        for cause in self._fitting[revision]:
            if cause in tried:
                continue
            tried.add(cause)
            if cause not in self._taken or self._grow(self._taken[cause], tried):
                self._taken[cause] = revision
                return True
        return False


def _deletes(op: Operation) -> bool:
    return any(isinstance(one, DeleteRange) for one in operations(op.request))
