"""Judging a history of clients by revision order: is it what one store, used by one at a time, could say?

Every answer carries the store's revision, so the order of the writes is given and needs only to be
verified. For example, a history whose revision 3 is ``put a=2``:

    client 1 [1..4]   put a=1  → ok @2        told: revision 2, at time 4
    client 2 [5..]    put a=2  → unknown      the only request that writes 2, so revision 3 is its effect
    client 1 [6..9]   range a  → ok @2, a=1   good: client 2's write may come later
    client 1 [10..12] range a  → ok @3, a=2   good; had client 2 begun at 13, it would be from the future

What is proved, and with it strict serializability:

  1. Revisions run from 2 to the top without a hole. Each is explained by exactly one write: the one
     acknowledged at it, else the unknown one that has its values, else an unknown one without values
     of its own (a delete) that has exactly these events. Nothing else happened, and nothing twice.
  2. Each revision's events, and each answer, are what the model gives on the state before.
  3. No write is placed at a revision that someone had been told of before it was invoked, and no read
     sees less than anyone had been told before it was invoked (serializable reads may).
  4. The state's refusals are deserved at some state between invocation and answer.
  5. Watches (``watches``); leases (``lease_judge``), whose ends make revisions that are nobody's write; and
     locks and elections (``line_judge``).

Where the evidence leaves a choice we choose for the store. What is not judged: the lag of serializable
reads, whether a compacted revision *had* to be refused, refusals that depend on the request alone,
and refused watches.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from kvstate.commands import (
    Compact,
    CompactResponse,
    DeleteRange,
    DeleteRangeResponse,
    Put,
    PutResponse,
    Range,
    Txn,
    TxnResponse,
)
from kvstate.errors import Compacted, FutureRevision, KeyNotFound, LeaseNotFound, RequestError
from kvstate.types import Event, EventType
from tests.sim.history import History, LeaseLife, OfLeases, OfLines, Operation, Outcome, WatchLog
from tests.sim.lease_judge import LeaseJudge, check_end, was_there_throughout
from tests.sim.line_judge import LineJudge
from tests.sim.model import BadHistory, Events, Model, Timeline, describe, execute, operations, tell
from tests.sim.watches import Changes, check_watch, describe_watch

__all__ = ["BadHistory", "check"]

# An error is compared with so many of the states that it may have met; of more we do not judge it.
_STATES_MAX = 200


def check(history: History) -> None:
    """Raises BadHistory if these clients cannot have talked to a strictly serializable store."""
    check_numbering(history.events)
    _check_reach(history, 1 + len(history.events))
    judge = _Judge(history)
    judge.explain_revisions()
    for op in history.operations:
        if isinstance(op.request, OfLeases | OfLines):
            continue
        if op.outcome is Outcome.OK:
            judge.check_answer(op)
        elif op.outcome is Outcome.ERROR:
            judge.check_error(op)
    if history.elsewhere is None:
        _check_leases(history, judge)
        _check_lines(history, judge)
    changes = Changes(judge.model)
    for log in history.watches:
        check_watch(log, judge.model, changes, judge.compactions)


def _check_leases(history: History, judge: _Judge) -> None:
    leases = LeaseJudge(history.operations, judge.model)
    for op in history.operations:
        if isinstance(op.request, OfLeases):
            if op.outcome is Outcome.OK:
                leases.check_answer(op, judge.states_met(op))
            elif op.outcome is Outcome.ERROR:
                leases.check_error(op)
    leases.explain_lives()


def _check_lines(history: History, judge: _Judge) -> None:
    lines = LineJudge(judge.model)
    for op in history.operations:
        if isinstance(op.request, OfLines):
            if op.outcome is Outcome.OK:
                lines.check_answer(op, judge.states_met(op))
            elif op.outcome is Outcome.ERROR:
                lines.check_error(op, judge.states_met(op))
        elif op.outcome is Outcome.OK:
            lines.check_fenced(op)
    for observation in history.observations:
        lines.check_observation(observation)


def check_numbering(events: Events) -> None:
    for expected, revision in enumerate(sorted(events), start=2):
        if revision != expected:
            raise BadHistory(f"a hole in the revisions: where {expected} should stand is {revision}")
        if not events[revision]:
            raise BadHistory(f"revision {revision} has no events")


def _check_reach(history: History, top: int) -> None:
    """Nobody was told of a revision that the store never had."""
    for op in history.operations:
        lowest = 0 if isinstance(op.request, OfLeases) else 1
        if op.outcome is Outcome.OK and not lowest <= op.revision <= top:
            what = "lost write: " if _claims_change(op) else "read of what never was: "
            raise BadHistory(f"{what}{describe(op)}, but the store ends at revision {top}")
    for log in history.watches:
        for _, response in log.responses:
            if response.revision > top:
                raise BadHistory(
                    f"{describe_watch(log)} was told of revision {response.revision},"
                    f" but the store ends at revision {top}"
                )


class _Judge:
    """The evidence of one history, in forms that can be looked up."""

    def __init__(self, history: History) -> None:
        self.model = Model(history.events, history.leases)
        self._elsewhere = history.elsewhere
        self._ends = _ends(history) if history.elsewhere is None else {}
        self._operations = history.operations
        self._told = heard(history)
        # Compactions that may have happened, by invocation, and those that had, by answer.
        self._compacts = _compacts(history, self.model.top)
        self.compactions = Timeline([(op.invoked, revision, op) for op, revision in self._compacts], -1)
        answered = [(_end(op), r, op) for op, r in self._compacts if op.outcome is Outcome.OK]
        self._compacted = Timeline(answered, -1)
        self._compacted_at: dict[int, Operation] = {}

        self._claims = self._collect_claims()
        self._writer_of = self._collect_values()
        # Unknown writes by what they explain, by id: operations are not hashable.
        self._explained: dict[int, int] = {}
        self._nameless = self._collect_nameless()
        self._fitting: dict[int, list[Operation]] = {}  # nameless writes that fit a revision
        # For revisions 2, 3, …: the latest invocation of a write needed to get there, as far as known.
        self._needed: list[int] = []

    def _collect_claims(self) -> dict[int, Operation]:
        """Answered writes that say they changed something, by the revision they say they made."""
        claims: dict[int, Operation] = {}
        for op in self._operations:
            if not _claims_change(op):
                continue
            if op.revision < 2:
                raise BadHistory(f"lost write: {describe(op)}, but revision 1 is the empty store")
            other = claims.setdefault(op.revision, op)
            if other is not op:
                raise BadHistory(
                    f"two writes were acknowledged at revision {op.revision}:"
                    f" {describe(other)} and {describe(op)}"
                )
        return claims

    def _collect_values(self) -> dict[bytes, Operation]:
        writers: dict[bytes, Operation] = {}
        for op in self._operations:
            for one in operations(op.request):
                if not isinstance(one, Put) or not one.value:
                    continue
                other = writers.setdefault(one.value, op)
                if other.outcome is Outcome.OK:
                    # Its revision is known by its answer. (Campaigns put their value in two steps.)
                    writers[one.value] = op
                else:
                    assert other is op, (
                        f"the workload must write unique values: {one.value!r} is written twice"
                    )
        return writers

    def _collect_nameless(self) -> list[Operation]:
        """Unknown writes that may have happened without a trace of a value of their own."""
        seen: set[int] = set()
        for events in self.model.events.values():
            for kind, kv in events:
                if kind == EventType.PUT and kv.value in self._writer_of:
                    seen.add(id(self._writer_of[kv.value]))
        return [
            op
            for op in self._operations
            if op.outcome is Outcome.UNKNOWN
            and id(op) not in seen
            and any(
                isinstance(one, DeleteRange) or (isinstance(one, Put) and not one.value)
                for one in operations(op.request)
            )
        ]

    # Every revision has one writer.

    def explain_revisions(self) -> None:
        latest = 0
        if self._elsewhere is None:
            self._check_ends()
        for revision in range(2, self.model.top + 1):
            if revision in self._ends:
                self._explain_end(revision)
                self._needed.append(latest)
                continue
            op = self._claims.get(revision)
            if op is None and self._elsewhere is not None and revision in self._elsewhere:
                self._needed.append(latest)
                continue
            op = op or self._recognise(revision)
            if op is None:
                # Who it was is not certain, so nothing follows about when it was needed.
                self._explain_nameless(revision)
            else:
                self._check_time(op, revision)
                self._check_effect(op, revision)
                latest = max(latest, op.invoked)
            self._needed.append(latest)

    def _check_ends(self) -> None:
        for life in self.model.leases.values():
            if life.ended is not None:
                check_end(life, self.model)

    def _explain_end(self, revision: int) -> None:
        op = self._claims.get(revision)
        if op is not None:
            life = self._ends[revision]
            raise BadHistory(
                f"revision {revision} was acknowledged to {describe(op)}, but is the end of {life}"
            )

    def _recognise(self, revision: int) -> Operation | None:
        """The unknown write that has a value of this revision. None if no value here is new: then
        they are deletions, or puts that kept the value there was."""
        fresh = [event for event in self.model.events[revision] if self._is_fresh(event, revision)]
        if not fresh:
            return None
        op = next((op for event in fresh if (op := self._writer_of.get(event.kv.value))), None)
        if op is None:
            raise BadHistory(f"phantom: revision {revision} is {tell(fresh)}, and no request wrote that")
        if op.outcome is not Outcome.UNKNOWN or id(op) in self._explained:
            raise BadHistory(self._excess(op, revision))
        self._explained[id(op)] = revision
        return op

    def _is_fresh(self, event: Event, revision: int) -> bool:
        if event.type != EventType.PUT or not event.kv.value:
            return False
        old = self.model.at(event.kv.key, revision - 1)
        return old is None or old.value != event.kv.value

    def _excess(self, op: Operation, revision: int) -> str:
        """Why a write that would have these events cannot explain this revision."""
        events = tell(self.model.events[revision])
        match op.outcome:
            case Outcome.REFUSED | Outcome.ERROR:
                return f"a refused write took effect: revision {revision} is {events}, by {describe(op)}"
            case Outcome.OK:
                return (
                    f"doubled write, or one acknowledged wrongly: revision {revision} is {events},"
                    f" by {describe(op)}"
                )
        other = self._explained.get(id(op))
        if other is not None:
            return f"doubled write: revisions {other} and {revision} are both by {describe(op)}"
        if self._told.before(op.invoked) < revision:
            # It was no candidate, since it has left its value elsewhere.
            return (
                f"doubled write: revision {revision} is {events}, and a later one is also by {describe(op)}"
            )
        return self._too_early(op, revision)

    def _check_time(self, op: Operation, revision: int) -> None:
        if self._told.before(op.invoked) >= revision:
            raise BadHistory(self._too_early(op, revision))

    def _too_early(self, op: Operation, revision: int) -> str:
        return (
            f"against real time: revision {revision} is by {describe(op)}, but before it was invoked,"
            f" {self._witness(op.invoked)}"
        )

    def _witness(self, time: int) -> str:
        source = self._told.source(time)
        who = describe_watch(source) if isinstance(source, WatchLog) else describe(source)
        return f"revision {self._told.before(time)} had been told to {who}"

    def _check_effect(self, op: Operation, revision: int) -> None:
        try:
            response, events = execute(self.model, op.request, revision - 1)
        except RequestError as error:
            raise BadHistory(
                f"revision {revision} is by {describe(op)}, which the state must refuse there: {error}"
            ) from error
        actual = tuple(self.model.events[revision])
        answered = op.outcome is Outcome.OK
        if events == actual and not (answered and _differ(response, op.response)):
            return
        if answered and events != actual:
            self._check_whose(op, revision)
        if answered and _differ(response, op.response):
            raise BadHistory(
                f"wrong answer: {describe(op)}, on the state of {revision - 1}:"
                f" {difference(response, op.response)}"
            )
        part = " only in part" if set(actual) < set(events) else ""
        raise BadHistory(
            f"wrong events: {describe(op)} took effect{part}: revision {revision} is {tell(actual)},"
            f" but on the state of {revision - 1} it makes {tell(events)}"
        )

    def _check_whose(self, op: Operation, revision: int) -> None:
        """Complain if a revision that was acknowledged to one write is the effect of another."""
        for event in self.model.events[revision]:
            other = self._writer_of.get(event.kv.value) if self._is_fresh(event, revision) else None
            if other is not None and other is not op:
                raise BadHistory(
                    f"lost write: revision {revision} was acknowledged to {describe(op)},"
                    f" but it is {tell(event)} of {describe(other)}"
                )

    # Revisions without a value to know their writer by.

    def _explain_nameless(self, revision: int) -> None:
        """Find an unknown write for this revision, if need be by giving others to earlier revisions.

        Which revisions a write fits (its events there, and nobody told of it before) does not depend
        on what the others did, since every state is known from its events. So this is a matching of
        revisions with writes, grown by augmenting paths: it fails only if there is no assignment.
        """
        self._fitting[revision] = [
            op
            for op in self._nameless
            if self._told.before(op.invoked) < revision and self._would_make(op, revision)
        ]
        if not self._assign(revision, set()):
            raise BadHistory(self._blame(revision))

    def _assign(self, revision: int, tried: set[int]) -> bool:
        for op in self._fitting[revision]:
            if id(op) in tried:
                continue
            tried.add(id(op))
            taken_by = self._explained.get(id(op))
            if taken_by is None or self._assign(taken_by, tried):
                self._explained[id(op)] = revision
                return True
        return False

    def _would_make(self, op: Operation, revision: int) -> bool:
        if isinstance(op.request, Compact | Range | OfLeases | OfLines):
            return False
        try:
            _, events = execute(self.model, op.request, revision - 1)
        except RequestError:
            return False
        return events == tuple(self.model.events[revision])

    def _blame(self, revision: int) -> str:
        """Who would explain a revision that has no writer, if it were allowed; for the story only."""
        suspects = [op for op in self._operations if self._would_make(op, revision)]
        for event in self.model.events[revision]:
            if event.type == EventType.PUT and event.kv.value in self._writer_of:
                suspects.append(self._writer_of[event.kv.value])
        # The plainest offence first.
        order = (Outcome.REFUSED, Outcome.ERROR, Outcome.OK, Outcome.UNKNOWN)
        suspects.sort(key=lambda op: order.index(op.outcome))
        if suspects:
            return self._excess(suspects[0], revision)
        return f"phantom: revision {revision} is {tell(self.model.events[revision])}, and no request did that"

    # Answers that changed nothing.

    def check_answer(self, op: Operation) -> None:
        if self._claims.get(op.revision) is op:
            return  # judged with its revision
        if op.revision < self._told.before(op.invoked) and not _may_be_stale(op.request):
            raise BadHistory(f"stale: before {describe(op)} was invoked, {self._witness(op.invoked)}")
        if isinstance(op.request, Compact):
            self._check_compact(op, op.request.revision)
            return
        try:
            response, events = execute(self.model, op.request, op.revision)
        except RequestError as error:
            raise BadHistory(f"{describe(op)} had to be refused at {op.revision}: {error}") from error
        if _differ(response, op.response):
            raise BadHistory(
                f"wrong answer: {describe(op)}, at revision {op.revision}:"
                f" {difference(response, op.response)}"
            )
        if events:
            raise BadHistory(
                f"lost write: {describe(op)} says that nothing changed, but it makes {tell(events)}"
            )

    def _check_compact(self, op: Operation, revision: int) -> None:
        if not isinstance(op.response, CompactResponse):
            raise BadHistory(f"wrong answer: {describe(op)} is not about a compaction")
        if revision > op.revision:
            raise BadHistory(f"{describe(op)} compacted the future: the store was at {op.revision}")
        other = self._compacted_at.setdefault(revision, op)
        if other is op and self._compacted.before(op.invoked) >= revision:
            other = self._compacted.source(op.invoked)
        if other is not op:
            raise BadHistory(f"{describe(op)} compacted what was already compacted by {describe(other)}")

    # Refusals by the state.

    def check_error(self, op: Operation) -> None:
        asked = list(operations(op.request))
        match op.error:
            case Compacted(compact_revision=said):
                known = said <= 0 or self.compactions.has(said, _end(op))
                deserved = known and self._deserves_compacted(op, asked)
            case LeaseNotFound() if leases := _leases_asked_for(asked):
                # Between two revisions leases come and go: here the times tell more than the states.
                met_all = all(was_there_throughout(self.model.leases, lease, op) for lease in leases)
                deserved = None in asked or not met_all
            case KeyNotFound() | FutureRevision() | LeaseNotFound():
                # An operation with no member set is refused whatever the state.
                deserved = None in asked or self._deserves_error(op)
            case _:
                deserved = True  # it depends on the request alone, and that is for others to test
        if not deserved:
            raise BadHistory(f"undeserved refusal: {describe(op)} met no state that refuses it so")

    def _deserves_compacted(self, op: Operation, asked: list[Any]) -> bool:
        end = _end(op)
        if isinstance(op.request, Compact):
            return any(
                other is not op and other.invoked < end and revision >= op.request.revision
                for other, revision in self._compacts
            )
        compacted = self.compactions.before(end)
        return any(isinstance(one, Range) and one.revision and one.revision < compacted for one in asked)

    def _deserves_error(self, op: Operation) -> bool:
        """Whether any state that the request may have met refuses it like this."""
        states = self.states_met(op)
        if isinstance(op.request, Compact):
            return isinstance(op.error, FutureRevision) and op.request.revision > states[0]
        if len(states) > _STATES_MAX:
            return True
        for base in states:
            try:
                execute(self.model, op.request, base)
            except RequestError as error:
                if type(error) is type(op.error):
                    return True
        return False

    def states_met(self, op: Operation) -> range:
        """The revisions that the store may have had while the request was under way."""
        first = 1 if _may_be_stale(op.request) else self._told.before(op.invoked)
        return range(first, 2 + bisect_left(self._needed, _end(op)))


def _ends(history: History) -> dict[int, LeaseLife]:
    """The revisions that are the end of a lease."""
    lives = (life for life in history.leases.values() if life.ended is not None and life.made_revision)
    return {life.ended.revision: life for life in lives if life.ended is not None}


def _leases_asked_for(asked: list[Any]) -> list[int]:
    return [one.lease for one in asked if isinstance(one, Put) and one.lease]


def heard(history: History, others: Sequence[Any] = ()) -> Timeline:
    """Which revisions clients had heard of, by answers, those to ``others`` too, and by watches."""
    asked: list[Any] = [*history.operations, *others]
    told: list[tuple[int, int, Any]] = [
        (op.returned, op.revision, op) for op in asked if op.outcome is Outcome.OK and op.returned is not None
    ]
    for log in history.watches:
        for time, response in log.responses:
            told.append((time, response.revision, log))
            if response.events:
                told.append((time, response.events[-1].kv.mod_revision, log))
    return Timeline(told, 1)


def _end(op: Operation) -> int:
    assert op.returned is not None, f"answered, but never: {describe(op)}"
    return op.returned


def _compacts(history: History, top: int) -> list[tuple[Operation, int]]:
    """The compactions that may have happened, with their revisions."""
    return [
        (op, op.request.revision)
        for op in history.operations
        if isinstance(op.request, Compact)
        # The future is never compacted, so an unknown request for that was refused.
        and (op.outcome is Outcome.OK or (op.outcome is Outcome.UNKNOWN and op.request.revision <= top))
    ]


def _claims_change(op: Operation) -> bool:
    return op.outcome is Outcome.OK and (isinstance(op.request, Put) or _says_change(op.response))


def _says_change(response: Any) -> bool:
    match response:
        case PutResponse():
            return True
        case DeleteRangeResponse(deleted):
            return bool(deleted > 0)
        case TxnResponse(_, responses):
            return any(_says_change(one) for _, one in responses)
    return False


def _may_be_stale(request: Any) -> bool:
    """Serializable reads, and transactions of nothing else, are answered from wherever a node is."""
    if not isinstance(request, Range | Txn):
        return False
    return all(isinstance(one, Range) and one.serializable for one in operations(request))


def _differ(expected: Any, answered: Any) -> bool:
    # Answers are named tuples, which may be equal though of different kinds.
    return type(expected) is not type(answered) or bool(expected != answered)


def difference(expected: Any, answered: Any) -> str:
    """What is wrong with an answer, in words."""
    if type(expected) is not type(answered):
        return f"this is no {type(expected).__name__}"
    if isinstance(expected, TxnResponse):
        return _txn_difference(expected, answered)
    for name in expected._fields:
        right, wrong = getattr(expected, name), getattr(answered, name)
        if right != wrong:
            return f"{name} is not {tell(wrong)} but {tell(right)}"
    return "nothing"


def _txn_difference(expected: TxnResponse, answered: TxnResponse) -> str:
    if expected.succeeded != answered.succeeded:
        return f"its compares {'hold' if expected.succeeded else 'do not hold'}"
    if len(expected.responses) != len(answered.responses):
        return f"it has {len(expected.responses)} operations, not {len(answered.responses)}"
    for index, (right, wrong) in enumerate(zip(expected.responses, answered.responses, strict=True)):
        if right[0] != wrong[0]:
            return f"the revision of operation {index} is not {wrong[0]} but {right[0]}"
        if _differ(right[1], wrong[1]):
            return f"operation {index}: {difference(right[1], wrong[1])}"
    return "nothing"
