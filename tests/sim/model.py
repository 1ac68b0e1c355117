"""The store as plain dictionaries: what a request does, and answers, on the state as of any revision.

A ``Model`` is the past as a history's events tell it: for each key, when it changed and to what.
``execute`` carries out one request on the state as of a revision and says what it would answer and
which events it would make there; the past itself is never changed. Whoever compares those events
with the history's own, revision by revision, proves the past right by induction:

    model = Model({2: (put a=x,)})
    execute(model, Put(b"a", b"y", prev_kv=True), base=2)  →  PutResponse(a=x of 2), (put a=y at 3,)

It shares types with ``kvstate`` but no code. It knows the options that our workloads use: of sorts
only that by create revision. Of leases it knows when there were which, and what hung on them. Nothing is ever
compacted here: who judges must know what may be gone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple

from api.service import TimeToLive
from kvstate.commands import (
    Compact,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    DeleteRangeResponse,
    LeaseGrantResponse,
    LeaseRevokeResponse,
    Put,
    PutResponse,
    Range,
    RangeResponse,
    RequestOp,
    Response,
    SortOrder,
    SortTarget,
    Txn,
    TxnResponse,
)
from kvstate.errors import FutureRevision, KeyNotFound, LeaseNotFound
from kvstate.types import Event, EventType, KeyValue
from tests.sim.history import LeaseLife, Operation, Outcome, Request

Events = dict[int, tuple[Event, ...]]
Leases = dict[int, LeaseLife]

_UNKNOWN_OPTIONS = (*("min_mod_revision", "max_mod_revision", "min_create_revision"),)
_NEVER: tuple[list[int], list[KeyValue | None]] = ([], [])
_COMPARED_FIELD: dict[int, int] = {
    CompareTarget.VERSION: KeyValue._fields.index("version"),
    CompareTarget.CREATE: KeyValue._fields.index("create_revision"),
    CompareTarget.MOD: KeyValue._fields.index("mod_revision"),
    CompareTarget.VALUE: KeyValue._fields.index("value"),
    CompareTarget.LEASE: KeyValue._fields.index("lease"),
}


class Model:
    """``events`` has every revision from 2 to ``top``. Revision 1 is the empty store."""

    def __init__(self, events: Events, leases: Leases | None = None) -> None:
        self.events = events
        self.leases = leases or {}
        self.top = 1 + len(events)
        # For each key the revisions at which it changed, ascending, and what it then was.
        self._pasts: dict[bytes, tuple[list[int], list[KeyValue | None]]] = {}
        for revision in range(2, self.top + 1):
            for kind, kv in events[revision]:
                revisions, values = self._pasts.setdefault(kv.key, ([], []))
                revisions.append(revision)
                values.append(kv if kind == EventType.PUT else None)
        self._names = sorted(self._pasts)

    def at(self, key: bytes, revision: int) -> KeyValue | None:
        """The key as of ``revision``; None if it did not exist."""
        revisions, values = self._pasts.get(key, _NEVER)
        place = bisect_right(revisions, revision)
        return values[place - 1] if place else None

    def names(self, key: bytes, range_end: bytes) -> list[bytes]:
        """The keys that a request addresses, if they ever existed, in order."""
        if not range_end:
            return [key]
        end = None if range_end == b"\0" else bisect_left(self._names, range_end)
        return self._names[bisect_left(self._names, key) : end]

    def living(self, key: bytes, range_end: bytes, revision: int) -> list[KeyValue]:
        found = (self.at(name, revision) for name in self.names(key, range_end))
        return [kv for kv in found if kv is not None]

    def has_lease(self, lease_id: int, revision: int) -> bool:
        """At the end of a revision, just before the next."""
        life = self.leases.get(lease_id)
        if life is None or life.granted.revision > revision:
            return False
        return life.ended is None or life.ended.revision > revision

    def hanging_on(self, lease_id: int, revision: int) -> list[bytes]:
        """The keys attached to a lease, in order."""
        return [kv.key for kv in self.living(b"", b"\0", revision) if kv.lease == lease_id]


def in_range(key: bytes, low: bytes, range_end: bytes) -> bool:
    """Whether ``key`` is addressed by ``low`` and ``range_end``, in etcd's way."""
    return key >= low and (range_end == b"\0" or key < range_end) if range_end else key == low


def operations(request: Any) -> Iterator[RequestOp]:
    """The request itself, or for a transaction everything in both branches, however deeply nested."""
    if isinstance(request, Txn):
        for op in (*request.success, *request.failure):
            yield from operations(op)
    else:
        yield request


def execute(model: Model, request: Request, base: int) -> tuple[Response, tuple[Event, ...]]:
    """Carry out a request on the state as of ``base``. Raises a RequestError where the state refuses."""
    execution = _Execution(model, base)
    response = execution.run(request)
    return response, tuple(execution.events)


class _Branch(NamedTuple):
    """A transaction with its branch decided; ``ops`` holds branches where there are nested ones."""

    succeeded: bool
    ops: tuple[Any, ...]


class _Execution:
    """One request on the state as of ``base``. What it changed itself is in ``changed``."""

    def __init__(self, model: Model, base: int) -> None:
        self.events: list[Event] = []
        self._model = model
        self._base = base
        self._changed: dict[bytes, KeyValue | None] = {}

    def run(self, request: Request) -> Response:
        match request:
            case Put():
                return self._put(request)
            case DeleteRange():
                return self._delete(request)
            case Range():
                return self._range(request)
            case Txn():
                branch = self._decide(request)
                self._check(branch)
                return self._carry_out(branch)
        raise TypeError(f"the model cannot carry out {request!r}")

    def _now(self, key: bytes) -> KeyValue | None:
        return self._changed[key] if key in self._changed else self._model.at(key, self._base)

    def _living(self, key: bytes, range_end: bytes) -> list[KeyValue]:
        if not self._changed:
            return self._model.living(key, range_end, self._base)
        names = set(self._model.names(key, range_end))
        names.update(name for name in self._changed if in_range(name, key, range_end))
        return [kv for name in sorted(names) if (kv := self._now(name)) is not None]

    def _put(self, op: Put) -> PutResponse:
        old, main, value, lease = self._now(op.key), self._base + 1, op.value, op.lease
        self._check_put(op, old)
        if op.ignore_value and old is not None:
            value = old.value
        if op.ignore_lease and old is not None:
            lease = old.lease
        if old is None:
            kv = KeyValue(op.key, main, main, 1, value, lease)
        else:
            kv = KeyValue(op.key, old.create_revision, main, old.version + 1, value, lease)
        self._changed[op.key] = kv
        self.events.append(Event(EventType.PUT, kv))
        return PutResponse(old if op.prev_kv else None)

    def _check_put(self, op: Put, old: KeyValue | None) -> None:
        if old is None and (op.ignore_value or op.ignore_lease):
            raise KeyNotFound
        if op.lease and not self._model.has_lease(op.lease, self._base):
            raise LeaseNotFound

    def _delete(self, op: DeleteRange) -> DeleteRangeResponse:
        doomed = self._living(op.key, op.range_end)
        for kv in doomed:
            self._changed[kv.key] = None
            self.events.append(Event(EventType.DELETE, KeyValue(kv.key, 0, self._base + 1, 0, b"", 0)))
        return DeleteRangeResponse(len(doomed), doomed if op.prev_kv else [])

    def _range(self, op: Range) -> RangeResponse:
        assert not any(getattr(op, name) for name in _UNKNOWN_OPTIONS), "the model cannot filter so"
        assert op.sort_target in {SortTarget.KEY, SortTarget.CREATE}, "the model cannot sort so"
        if op.revision > self._base:
            raise FutureRevision
        if op.revision > 0:
            kvs = self._model.living(op.key, op.range_end, op.revision)
        else:
            kvs = self._living(op.key, op.range_end)
        count = len(kvs)
        if op.count_only:
            return RangeResponse([], False, count)
        if op.max_create_revision:
            kvs = [kv for kv in kvs if kv.create_revision <= op.max_create_revision]
        if op.sort_target == SortTarget.CREATE:
            kvs.sort(key=lambda kv: kv.create_revision, reverse=op.sort_order == SortOrder.DESCEND)
        more = 0 < op.limit < len(kvs)
        if more:
            kvs = kvs[: op.limit]
        if op.keys_only:
            kvs = [kv._replace(value=b"") for kv in kvs]
        return RangeResponse(kvs, more, count)

    # Transactions: all compares, nested ones too, are decided on the state before any change.

    def _decide(self, txn: Txn) -> _Branch:
        succeeded = all(self._holds(compare) for compare in txn.compare)
        ops = txn.success if succeeded else txn.failure
        return _Branch(succeeded, tuple(self._decide(op) if isinstance(op, Txn) else op for op in ops))

    def _check(self, branch: _Branch) -> None:
        """Raise what the state refuses, puts before ranges, before anything is changed."""
        ops = list(_flatten(branch))
        for op in ops:
            if isinstance(op, Put):
                self._check_put(op, self._now(op.key))
        for op in ops:
            if isinstance(op, Range) and op.revision > self._base:
                raise FutureRevision

    def _carry_out(self, branch: _Branch) -> TxnResponse:
        responses: list[tuple[int, Response]] = []
        for op in branch.ops:
            if isinstance(op, _Branch):
                # As in etcd, the header of a nested transaction is empty.
                responses.append((0, self._carry_out(op)))
            else:
                response = self.run(op)
                responses.append((self._base + 1 if self.events else self._base, response))
        return TxnResponse(branch.succeeded, responses)

    def _holds(self, compare: Compare) -> bool:
        """True of every key addressed. A single missing key, or a range without any, compares as
        zeros, but no VALUE compare holds of it."""
        living = self._living(compare.key, compare.range_end)
        field = _COMPARED_FIELD[compare.target]
        if not living:
            return compare.target != CompareTarget.VALUE and _compares(compare, 0)
        return all(_compares(compare, kv[field]) for kv in living)


def _flatten(branch: _Branch) -> Iterator[Any]:
    for op in branch.ops:
        if isinstance(op, _Branch):
            yield from _flatten(op)
        else:
            yield op


def _compares(compare: Compare, actual: Any) -> bool:
    operand = compare.operand
    if type(operand) is not type(actual):
        operand = type(actual)()  # a member of the union that does not fit counts as not set
    match compare.result:
        case CompareResult.EQUAL:
            return bool(actual == operand)
        case CompareResult.NOT_EQUAL:
            return bool(actual != operand)
        case CompareResult.GREATER:
            return bool(actual > operand)
        case CompareResult.LESS:
            return bool(actual < operand)
    raise ValueError(f"the model does not know compare result {compare.result}")


# For stories: requests, events and answers as a person wants to read them.


def tell(thing: Any) -> str:
    """A request, an event, a key-value, an answer, or a list of them, in few words."""
    text = _tell(thing)
    return text if len(text) <= 400 else text[:397] + "..."


def _tell(thing: Any) -> str:
    match thing:
        case Put(key, value):
            flags = [name for name in ("prev_kv", "ignore_value", "ignore_lease") if getattr(thing, name)]
            if thing.lease:
                flags.append(f"lease={thing.lease}")
            return f"put({', '.join([f'{_word(key)}={_word(value)}', *flags])})"
        case DeleteRange(key, end, prev_kv):
            return f"delete({_span(key, end)}{', prev_kv' if prev_kv else ''})"
        case Range(key, end):
            names = ("revision", "limit", "serializable", "keys_only", "count_only")
            options = "".join(f", {name}={value}" for name in names if (value := getattr(thing, name)))
            return f"range({_span(key, end)}{options})"
        case Txn(compare, success, failure):
            return f"txn(if {_tell(compare)} then {_tell(success)} else {_tell(failure)})"
        case Compare(result, target, key, end, operand):
            shown = _word(operand) if isinstance(operand, bytes) else operand
            return f"{_span(key, end)}.{CompareTarget(target).name} {CompareResult(result).name} {shown}"
        case Compact(revision):
            return f"compact({revision})"
        case KeyValue(key, create, mod, version, value, lease):
            hangs = f", lease {lease}" if lease else ""
            return f"{_word(key)}={_word(value)}(create {create}, mod {mod}, version {version}{hangs})"
        case TxnResponse(succeeded, responses):
            return f"succeeded={succeeded} {_tell(responses)}"
        case RangeResponse(kvs, more, count):
            return f"kvs={_tell(kvs)} more={more} count={count}"
        case PutResponse(prev_kv):
            return f"prev_kv={_tell(prev_kv)}"
        case DeleteRangeResponse(deleted, prev_kvs):
            return f"deleted={deleted} prev_kvs={_tell(prev_kvs)}"
        case (EventType() as kind, KeyValue() as kv, *_):
            return f"delete {_word(kv.key)}@{kv.mod_revision}" if kind else f"put {_tell(kv)}"
        case TimeToLive() | LeaseGrantResponse() | LeaseRevokeResponse():
            return repr(thing)
        case (int() as revision, tuple() as response):
            return f"@{revision}: {_tell(response)}"
        case list() | tuple():
            return f"[{', '.join(_tell(one) for one in thing)}]"
    return repr(thing)


def _word(data: bytes) -> str:
    text = data.decode("ascii", "backslashreplace")
    return text if text.isprintable() else repr(data)[2:-1]


def _span(key: bytes, end: bytes) -> str:
    if not end:
        return _word(key)
    return f"{_word(key)}.." if end == b"\0" else f"{_word(key)}..{_word(end)}"


def describe(op: Operation) -> str:
    """Client, node, time, request and answer."""
    match op.outcome:
        case Outcome.OK:
            answer = f"ok @{op.revision} {tell(op.response)}"
        case Outcome.ERROR:
            answer = f"error {type(op.error).__name__}"
        case outcome:
            answer = outcome.value
    end = "" if op.returned is None else op.returned
    return f"«client {op.client} via node {op.node} [{op.invoked}..{end}] {tell(op.request)} → {answer}»"


class BadHistory(AssertionError):
    """A history that the store's promises do not allow: its message tells what was claimed, what the
    evidence shows, and about which operation or watch."""


class Timeline:
    """Answers: what was the greatest number that had been seen before a time, and where?

    ``entries`` are (time, number, source). Before any of them the number is ``nothing``.
    """

    def __init__(self, entries: list[tuple[int, int, Any]], nothing: int) -> None:
        self._times: list[int] = []
        self._greatest: list[int] = [nothing]  # [i] is what is known after _times[i - 1]
        self._sources: list[Any] = [None]
        self._first: dict[int, int] = {}
        for time, number, source in sorted(entries, key=lambda entry: entry[0]):
            self._first.setdefault(number, time)
            if number > self._greatest[-1]:
                self._times.append(time)
                self._greatest.append(number)
                self._sources.append(source)

    def before(self, time: int) -> int:
        return self._greatest[bisect_left(self._times, time)]

    def has(self, number: int, time: int) -> bool:
        """Whether exactly this number had been seen before."""
        first = self._first.get(number)
        return first is not None and first < time

    def reached(self, number: int) -> int | None:
        """When it, or a greater one, had first been seen."""
        place = bisect_left(self._greatest, number, lo=1)
        return self._times[place - 1] if place <= len(self._times) else None

    def source(self, time: int) -> Any:
        """Who saw ``before(time)`` first."""
        return self._sources[bisect_left(self._times, time)]
