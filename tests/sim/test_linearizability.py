"""The judge of histories: real ones pass, and each way of lying is found and named.

A ``Run`` makes a history with the real state machine and hub. The tests of lies make a good one,
check that it is, plant one lie in it and expect the judge to name it.
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import pstats
import random
from itertools import pairwise
from typing import Any

import pytest

from kvstate.backend import Backend, MemoryStore
from kvstate.codec import encode
from kvstate.commands import Compact, Compare, CompareResult, CompareTarget, DeleteRange, Put, Range, Txn
from kvstate.errors import Compacted, DuplicateKey, FutureRevision, KeyNotFound, RequestError
from kvstate.machine import StateMachine, is_read_only
from kvstate.types import Event, EventType
from kvstate.validation import check_txn
from tests.sim.history import History, Operation, Outcome, Request, WatchLog
from tests.sim.linearizability import BadHistory, check
from watch.hub import Hub
from watch.stream import WatchStream
from watch.watcher import WatchCreate, WatchResponse

STEP = 1000  # time between the moments at which operations take effect


class Run:
    """Two replicas. Node 0 applies each command at once, node 1 when it is told to ``catch_up``.

    An operation takes effect at one moment; it is invoked up to ``overlap`` steps before and
    answered up to that much later.
    """

    def __init__(self, seed: int = 0, overlap: float = 0.4, queue_responses_max: int = 1024) -> None:
        self.random = random.Random(seed)
        self.history = History()
        self.machines = [StateMachine(Backend(MemoryStore())) for _ in range(2)]
        self.hubs = [Hub(machine, queue_responses_max=queue_responses_max) for machine in self.machines]
        self.streams: list[tuple[WatchStream, WatchLog]] = []
        self._log: list[bytes] = []
        self.moment = 0
        self._overlap = overlap

    # Operations.

    def do(self, request: Request, node: int = 0) -> Operation:
        """One operation that is answered."""
        op = self._invoke(request, node)
        self._answer(op)
        op.returned = self.moment + self._width()
        return op

    def unknown(self, request: Request, *, happens: bool) -> Operation:
        op = self._invoke(request, 0)
        if happens:
            self.take_effect(op)
        return op

    def take_effect(self, op: Operation) -> None:
        """An unknown operation happens, now."""
        self.moment += STEP
        assert not isinstance(op.request, Range)
        self._apply(op.request)

    def refused(self, request: Request) -> Operation:
        op = self._invoke(request, 0)
        op.outcome, op.returned = Outcome.REFUSED, self.moment + self._width()
        return op

    def catch_up(self, entries: int | None = None) -> None:
        """Node 1 applies some entries, or all that it lacks."""
        machine = self.machines[1]
        start = machine.applied[0]
        for data in self._log[start : None if entries is None else start + entries]:
            result = machine.apply(machine.applied[0] + 1, 1, data)
            if result.events:
                self.hubs[1].publish(result.revision, result.events)

    def _invoke(self, request: Request, node: int) -> Operation:
        self.moment += STEP
        client = len(self.history.operations)
        op = Operation(client, node, request, max(0, self.moment - self._width()))
        self.history.operations.append(op)
        return op

    def _width(self) -> int:
        return self.random.randint(1, int(self._overlap * STEP))

    def _answer(self, op: Operation) -> None:
        machine, request = self.machines[op.node], op.request
        try:
            if isinstance(request, Range):
                op.response = machine.range(request)
            elif isinstance(request, Txn) and is_read_only(request):
                op.response = machine.read_txn(request)
            else:
                op.response = self._apply(request)
        except RequestError as error:
            op.outcome, op.error = Outcome.ERROR, error
            return
        op.outcome, op.revision = Outcome.OK, machine.revision

    def _apply(self, command: Any) -> Any:
        self._log.append(encode(command, user="", wall_clock_ms=0))
        result = self.machines[0].apply(len(self._log), 1, self._log[-1])
        if result.events:
            self.history.events[result.revision] = tuple(result.events)
            self.hubs[0].publish(result.revision, result.events)
        if result.error is not None:
            raise result.error
        return result.response

    # Watches.

    def watch(self, request: WatchCreate, node: int = 0) -> WatchLog:
        self.moment += STEP
        log = WatchLog(node, request, self.moment)
        stream = self.hubs[node].stream()
        stream.create(request)
        self.history.watches.append(log)
        self.streams.append((stream, log))
        return log

    def listen(self) -> None:
        """Every reader reads all there is."""
        self.moment += STEP
        found = asyncio.run(read_now([stream for stream, _ in self.streams]))
        for (_, log), responses in zip(self.streams, found, strict=True):
            log.responses += [(self.moment, response) for response in responses]

    def finish(self) -> History:
        """The history, which is good."""
        self.catch_up()
        self.listen()
        for _, log in self.streams:
            log.connected = True
        check(self.history)
        return self.history


async def read_now(streams: list[WatchStream]) -> list[list[WatchResponse]]:
    """What each stream has to say before it would have to wait."""
    found: list[list[WatchResponse]] = [[] for _ in streams]

    async def read(stream: WatchStream, responses: list[WatchResponse]) -> None:
        while True:
            responses += await stream.next()

    tasks = [asyncio.ensure_future(read(*one)) for one in zip(streams, found, strict=True)]
    # A stream that reads the past lets others have a turn in between; it is never idle for long.
    quiet, heard = 0, 0
    while quiet < 30:
        await asyncio.sleep(0)
        total = sum(map(len, found))
        quiet, heard = (quiet + 1 if total == heard else 0), total
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


def rejected(history: History, match: str) -> None:
    with pytest.raises(BadHistory, match=match):
        check(history)


def rewrite(history: History, revision: int, index: int = 0, **fields: Any) -> None:
    """Change fields of the key-value in one event."""
    events = list(history.events[revision])
    events[index] = events[index]._replace(kv=events[index].kv._replace(**fields))
    history.events[revision] = tuple(events)


def answer(op: Operation, **fields: Any) -> None:
    """Change fields of an answer."""
    assert op.response is not None
    op.response = op.response._replace(**fields)


def if_mod(key: bytes, revision: int, then: tuple = (), otherwise: tuple = ()) -> Txn:
    compare = Compare(CompareResult.EQUAL, CompareTarget.MOD, key, operand=revision)
    return Txn((compare,), then, otherwise)


ALL = Range(b"\0", b"\0")
A1, A2, A3 = (Put(b"a", b"a%d" % n) for n in (1, 2, 3))
B1, B2 = (Put(b"b", b"b%d" % n) for n in (1, 2))


# Good histories.


class Workload:
    """Random requests over a few keys, with unique values."""

    def __init__(self, rng: random.Random, run: Run) -> None:
        self._random = rng
        self._run = run
        self._values = 0

    def request(self) -> Request:
        kinds = (self.put, self.delete, self.txn, self.range, self.compact)
        return self._random.choices(kinds, (30, 12, 25, 30, 3))[0]()

    def key(self) -> bytes:
        return self._random.choice([b"a", b"a\0", b"b", b"c", b"d", b"e"])

    def span(self) -> tuple[bytes, bytes]:
        end = self._random.choice([b"", b"", b"", b"\0", b"c", b"e"])
        return self.key(), end

    def some(self, weight: float = 0.3) -> bool:
        return self._random.random() < weight

    def revision(self) -> int:
        return max(1, self._run.machines[0].revision + self._random.randint(-20, 2))

    def put(self) -> Put:
        if self.some(0.1):
            return Put(self.key(), ignore_value=True, prev_kv=self.some())
        self._values += 1
        return Put(self.key(), b"v%d" % self._values, prev_kv=self.some())

    def delete(self) -> DeleteRange:
        return DeleteRange(*self.span(), prev_kv=self.some())

    def range(self) -> Range:
        return Range(
            *self.span(),
            limit=self._random.choice([0, 0, 1, 2]),
            revision=self.revision() if self.some() else 0,
            serializable=self.some(),
            keys_only=self.some(0.2),
            count_only=self.some(0.1),
        )

    def compact(self) -> Compact:
        return Compact(self.revision())

    def txn(self, depth: int = 0) -> Txn:
        while True:
            compares = tuple(self.compare() for _ in range(self._random.randint(0, 2)))
            txn = Txn(compares, self.branch(depth), self.branch(depth))
            try:
                check_txn(txn, 128)
            except DuplicateKey:
                continue
            return txn

    def branch(self, depth: int) -> tuple:
        kinds = [self.put, self.range, self.delete]
        if depth == 0:
            kinds.append(lambda: self.txn(1))
        return tuple(self._random.choice(kinds)() for _ in range(self._random.randint(0, 3)))

    def compare(self) -> Compare:
        target = self._random.choice(list(CompareTarget)[:4])
        if target == CompareTarget.VALUE:
            operand: int | bytes = b"v%d" % self._random.randint(0, 200)
        else:
            operand = self._random.choice([0, 1, 2, self.revision()])
        return Compare(self._random.choice(list(CompareResult)), target, *self.span(), operand=operand)


def random_run(seed: int, operations: int = 120, overlap: float = 6) -> Run:
    rng = random.Random(seed)
    run = Run(seed, overlap, queue_responses_max=rng.choice([2, 5, 1000]))
    workload = Workload(rng, run)
    pending: list[Operation] = []
    for _ in range(operations):
        request = workload.request()
        what = rng.random()
        if what < 0.05:
            run.refused(request)
        elif what < 0.2 and not isinstance(request, Range):
            pending.append(run.unknown(request, happens=False))
        elif isinstance(request, Range) and request.serializable:
            run.do(request, node=rng.randrange(2))
        else:
            run.do(request)
        if pending and rng.random() < 0.1:
            happens(run, pending.pop(rng.randrange(len(pending))))
        watch_a_little(run, workload, rng)
    return run


def happens(run: Run, op: Operation) -> None:
    with contextlib.suppress(RequestError):  # nobody will know
        run.take_effect(op)


def watch_a_little(run: Run, workload: Workload, rng: random.Random) -> None:
    if rng.random() < 0.3:
        run.catch_up(rng.randrange(8))
    if rng.random() < 0.2:
        run.listen()
    if rng.random() < 0.1:
        for machine in run.machines:
            machine.compaction_step(5)
    if rng.random() < 0.08:
        key, end = workload.span()
        if not end or end == b"\0" or key < end:
            start = workload.revision() if rng.random() < 0.5 else 0
            filters = frozenset(kind for kind in EventType if rng.random() < 0.2)
            request = WatchCreate(key, end, start, filters=filters, prev_kv=rng.random() < 0.5)
            run.watch(request, node=rng.randrange(2))
    for stream, log in run.streams:
        if rng.random() < 0.05:
            stream.request_progress()
        if rng.random() < 0.005 and log.responses:
            stream.cancel(log.responses[0][1].watch_id)


@pytest.mark.parametrize("seed", range(40))
def test_what_a_real_store_says_one_by_one_is_good(seed: int) -> None:
    """Random operations, one after the other, on the real state machine are never rejected."""
    random_run(seed, overlap=0.4).finish()


@pytest.mark.parametrize("seed", range(100, 180))
def test_what_a_real_store_says_to_many_at_once_is_good(seed: int) -> None:
    """Overlapping operations, unknown ones that happen late or never, and watches on a node that
    lags and compacts are never rejected."""
    run = random_run(seed)
    check(run.history)  # while the watches have not read to the end
    run.finish()


def test_nothing_at_all_is_good() -> None:
    """The history of a store that nobody used is accepted."""
    check(History())


def test_unknown_deletes_are_given_to_the_revisions_that_need_them() -> None:
    """If one unknown delete fits two revisions and another only the first, no false alarm is raised."""
    run = Run()
    run.do(B1)
    wide = run.unknown(DeleteRange(b"a", b"\0"), happens=False)
    narrow = run.unknown(DeleteRange(b"b"), happens=False)
    run.take_effect(narrow)  # as the wide one would look, which comes first to mind
    run.do(A1)
    run.do(B2)
    run.take_effect(wide)
    history = run.finish()
    history.operations.remove(narrow)
    rejected(history, "doubled write: revisions 3 and 6 are both by .*delete\\(a\\.\\.\\)")


def test_an_unknown_write_that_never_happened_is_good() -> None:
    """Requests without an answer need not have happened."""
    run = Run()
    run.unknown(A1, happens=False)
    run.unknown(DeleteRange(b"a"), happens=False)
    run.do(A2)
    run.finish()


def test_a_fragmented_revision_is_good() -> None:
    """A watch that asked for fragments may get a revision in several responses, but must get all."""
    run = Run()
    log = run.watch(WatchCreate(b"a", b"c", fragment=True))
    run.do(Txn(success=(A1, B1)))
    history = run.finish()
    time, response = log.responses[1]
    first, second = (response._replace(events=(event,)) for event in response.events)
    log.responses[1:] = [(time, first), (time, second)]
    check(history)
    log.responses[1:] = [(time, first), (time, response._replace(revision=2, events=()))]
    rejected(history, "everything up to revision 2, but not")


def test_good_histories_stay_fast_to_judge() -> None:
    """Judging looks things up: ten times the history, with ten times the watches that deliver more
    each, is far from a hundred times the work. Counted in calls, since clocks on shared machines lie."""
    costs = [calls_to_judge(operations) for operations in (200, 2000)]
    assert costs[1] < 40 * costs[0]


def calls_to_judge(operations: int) -> int:
    history = random_run(7, operations).finish()
    profile = cProfile.Profile()
    profile.runcall(check, history)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


# Lies about writes.


def test_lost_write_at_the_end() -> None:
    """A write acknowledged at a revision that the store does not have was lost."""
    run = Run()
    for put in (A1, B1):
        run.do(put)
    history = run.finish()
    del history.events[3]
    rejected(history, "lost write: .*put\\(b=b1\\).* the store ends at revision 2")


def test_lost_write_overwritten() -> None:
    """A write acknowledged at a revision that is another's effect was lost."""
    run = Run()
    run.do(A1)
    other = run.unknown(B1, happens=True)
    lost = run.do(A2)
    history = run.finish()
    history.events = {2: history.events[2], 3: history.events[3]}
    lost.revision = other.client + 2
    rejected(history, "lost write: revision 3 was acknowledged to .*a2.*, but it is put b=b1")


def test_lost_delete() -> None:
    """A delete that says it deleted something, at a revision that is a put, was lost."""
    run = Run()
    run.do(A1)
    delete = run.do(DeleteRange(b"a"))
    run.unknown(B1, happens=True)
    history = run.finish()
    history.events = {2: history.events[2], 3: history.events[4]}
    rewrite(history, 3, create_revision=3, mod_revision=3)
    assert delete.revision == 3
    rejected(history, "lost write")


def test_write_at_the_empty_store() -> None:
    """No write makes revision 1, which is the empty store."""
    run = Run()
    op = run.do(DeleteRange(b"a"))
    run.finish()
    answer(op, deleted=1)
    rejected(run.history, "lost write: .*delete\\(a\\).*, but revision 1 is the empty store")


def test_two_writes_at_one_revision() -> None:
    """Two writes cannot have made the same revision."""
    run = Run()
    run.do(A1)
    run.do(A2).revision = 2
    rejected(run.history, "two writes were acknowledged at revision 2")


def test_phantom_put() -> None:
    """A value that nobody wrote cannot be in the store."""
    run = Run()
    op = run.unknown(A1, happens=True)
    history = run.finish()
    history.operations.remove(op)
    rejected(history, "phantom: revision 2 .*a=a1.* no request wrote that")


def test_phantom_delete() -> None:
    """A deletion that nobody asked for cannot have happened."""
    run = Run()
    run.do(A1)
    op = run.unknown(DeleteRange(b"a"), happens=True)
    history = run.finish()
    history.operations.remove(op)
    rejected(history, "phantom: revision 3 .*delete a.* no request did that")


def test_doubled_acknowledged_write() -> None:
    """A write that was acknowledged once cannot have happened twice."""
    run = Run()
    run.do(A1)
    copy = run.do(A2)
    run.do(B1)
    run.unknown(Put(b"a", b"a1!"), happens=True)
    history = run.finish()
    rewrite(history, 5, value=b"a2")
    history.operations.pop()
    assert copy.revision == 3
    rejected(history, "doubled write.*revision 5 .*put\\(a=a2\\)")


def test_doubled_unknown_write() -> None:
    """A write without an answer may have happened once, but not twice, not even twice in a row."""
    run = Run()
    op = run.unknown(A1, happens=True)
    run.take_effect(op)
    rejected(run.history, "doubled write: revisions 2 and 3 are both by .*put\\(a=a1\\)")


def test_doubled_delete() -> None:
    """One unknown delete does not explain two deletions."""
    run = Run()
    run.do(A1)
    op = run.unknown(DeleteRange(b"a"), happens=True)
    run.do(A2)
    run.take_effect(op)
    rejected(run.history, "doubled write: revisions 3 and 5 are both by .*delete\\(a\\)")


def test_doubled_transaction() -> None:
    """One unknown transaction does not explain both of its branches."""
    run = Run()
    run.do(A1)
    op = run.unknown(if_mod(b"a", 0, (A2,), (DeleteRange(b"a"),)), happens=True)
    run.take_effect(op)
    rejected(run.history, "doubled write: revision 3 is .*delete a@3.*, and a later one is also by .*txn")


def test_doubled_acknowledged_delete() -> None:
    """An acknowledged delete does not explain another deletion."""
    run = Run()
    run.do(A1)
    op = run.do(DeleteRange(b"a"))
    run.do(A2)
    run.take_effect(op)
    rejected(run.history, "doubled write, .*revision 5 is .*delete a")


@pytest.mark.parametrize("request_", [Put(b"a", b"x"), DeleteRange(b"a")], ids=["put", "delete"])
def test_refused_write_that_took_effect(request_: Request) -> None:
    """What a server promised not to do must not have happened."""
    run = Run()
    run.do(A1)
    op = run.refused(request_)
    run.take_effect(op)
    rejected(run.history, "a refused write took effect: revision 3")


def test_failed_write_that_took_effect() -> None:
    """What the state answered with an error must not have happened."""
    run = Run()
    op = run.do(Txn(success=(A1, Put(b"b", ignore_value=True))))
    assert isinstance(op.error, KeyNotFound)
    run.finish()
    run.unknown(A1, happens=True)
    run.history.operations.pop()
    rejected(run.history, "a refused write took effect: revision 2")


def test_delete_that_says_nothing_changed() -> None:
    """A delete that answers 0 where there was something to delete is wrong."""
    run = Run()
    run.do(A1)
    op = run.do(DeleteRange(b"b"))
    run.finish()
    op.request = DeleteRange(b"a")
    rejected(run.history, "deleted is not 0 but 1")


def test_hole_in_the_revisions() -> None:
    """Revisions have no gaps."""
    run = Run()
    for put in (A1, A2, A3):
        run.do(put)
    history = run.finish()
    del history.events[3]
    rejected(history, "a hole in the revisions: where 3 should stand is 4")


def test_revision_without_events() -> None:
    """What changes nothing makes no revision."""
    run = Run()
    run.do(A1)
    run.history.events[3] = ()
    rejected(run.history, "revision 3 has no events")


def test_wrong_version() -> None:
    """A key's version counts its puts."""
    run = Run()
    run.do(A1)
    run.do(A2)
    history = run.finish()
    rewrite(history, 3, version=3)
    rejected(history, "wrong events: .*a2.* version 3")


def test_wrong_create_revision() -> None:
    """A key that is put again keeps its create revision, unless it was deleted."""
    run = Run()
    run.do(A1)
    run.do(DeleteRange(b"a"))
    run.do(A2)
    history = run.finish()
    rewrite(history, 4, create_revision=2)
    rejected(history, "wrong events: .*create 2")


def test_wrong_order_of_deletions() -> None:
    """The events of a range deletion come in the order of the keys."""
    run = Run()
    run.do(Txn(success=(A1, B1)))
    run.do(DeleteRange(b"a", b"c"))
    history = run.finish()
    history.events[3] = history.events[3][::-1]
    rejected(history, "wrong events: .*delete b@3, delete a@3")


def test_non_atomic_transaction() -> None:
    """A transaction happens as a whole, also if nobody was told."""
    run = Run()
    op = run.unknown(Txn(success=(A1, B1)), happens=False)
    run.unknown(A1, happens=True)
    run.unknown(B1, happens=True)
    run.history.operations = [op]
    rejected(run.history, "took effect only in part: revision 2 is \\[put a=a1")


def test_wrong_prev_kv_of_put() -> None:
    """A put answers with what it replaced."""
    run = Run()
    first = run.do(A1)
    run.do(A2)
    op = run.do(Put(b"a", b"x", prev_kv=True))
    run.finish()
    answer(op, prev_kv=run.history.events[first.revision][0].kv)
    rejected(run.history, "prev_kv is not a=a1.* but a=a2")


def test_wrong_count_of_deleted() -> None:
    """A delete answers with how many keys it deleted."""
    run = Run()
    run.do(A1)
    op = run.do(DeleteRange(b"a", b"\0"))
    run.finish()
    answer(op, deleted=2)
    rejected(run.history, "deleted is not 2 but 1")


def test_wrong_prev_kvs_of_delete() -> None:
    """A delete answers, if asked, with what it deleted."""
    run = Run()
    run.do(A1)
    op = run.do(DeleteRange(b"a", b"\0", prev_kv=True))
    run.finish()
    answer(op, prev_kvs=[])
    rejected(run.history, "prev_kvs is not \\[\\] but \\[a=a1")


# Lies about transactions.


def test_cas_that_succeeded_wrongly() -> None:
    """A compare-and-swap may not succeed if the key has changed."""
    run = Run()
    run.do(A1)
    op = run.do(if_mod(b"a", 2, (A2,)))
    run.finish()
    op.request = if_mod(b"a", 1, (A2,))
    rejected(run.history, "its compares do not hold")


def test_cas_that_failed_wrongly() -> None:
    """A compare-and-swap may not fail if the key has not changed."""
    run = Run()
    run.do(A1)
    op = run.do(if_mod(b"a", 1, (A2,), (Range(b"a"),)))
    run.finish()
    op.request = if_mod(b"a", 2, (A2,), (Range(b"a"),))
    rejected(run.history, "its compares hold")


def test_two_cas_on_one_state() -> None:
    """Of two compare-and-swaps on the same state only one succeeds: else an update is lost."""
    run = Run(overlap=3)
    run.do(A1)
    run.do(if_mod(b"a", 2, (A2,)))
    late = run.do(if_mod(b"a", 3, (A3,)))
    run.finish()
    late.request = if_mod(b"a", 2, (A3,))
    rejected(run.history, "its compares do not hold")


def test_wrong_inner_read() -> None:
    """A read in a transaction sees what the transaction did before it, and nothing else."""
    run = Run()
    op = run.do(Txn(success=(Range(b"a"), A1, Range(b"a"))))
    run.finish()
    responses = op.response.responses
    answer(op, responses=[responses[2], *responses[1:]])
    rejected(run.history, "the revision of operation 0 is not 2 but 1")
    answer(op, responses=[(1, responses[2][1]), *responses[1:]])
    rejected(run.history, "operation 0: kvs is not \\[a=a1.*\\] but \\[\\]")


def test_wrong_read_only_transaction() -> None:
    """A transaction that only reads sees one state."""
    run = Run()
    run.do(A1)
    run.do(B1)
    op = run.do(Txn(success=(Range(b"a"), Range(b"b"))))
    run.finish()
    op.response.responses[1] = (3, op.response.responses[0][1])
    rejected(run.history, "operation 1: kvs is not \\[a=a1.* but \\[b=b1")


# Lies about time.


def test_reordered_writes() -> None:
    """A write that began after another was acknowledged comes later in the order."""
    run = Run()
    run.do(A1)
    run.do(B1)
    history = run.finish()
    one, two = history.operations
    one.invoked, one.returned = two.returned + 10, two.returned + 20
    rejected(history, "against real time: revision 2 .*put\\(a=a1\\).* revision 3 had been told to .*b1")


def test_unknown_write_before_it_was_invoked() -> None:
    """A write without an answer cannot have happened before it was invoked either."""
    run = Run()
    op = run.unknown(A1, happens=True)
    read = run.do(Range(b"a"))
    run.finish()
    op.invoked = read.returned + 1
    rejected(run.history, "against real time: revision 2 is by .*a1.* told to .*range\\(a\\)")


def test_unknown_delete_before_it_was_invoked() -> None:
    """A deletion that someone had seen is not explained by a delete that began later."""
    run = Run()
    run.do(A1)
    op = run.unknown(DeleteRange(b"a"), happens=True)
    read = run.do(Range(b"a"))
    run.finish()
    op.invoked = read.returned + 1
    rejected(run.history, "against real time: revision 3 is by .*delete\\(a\\)")


def test_stale_read() -> None:
    """A read sees all that was acknowledged before it began."""
    run = Run()
    run.do(A1)
    read = run.do(Range(b"a"))
    write = run.do(A2)
    run.finish()
    read.invoked, read.returned = write.returned + 1, write.returned + 2
    rejected(run.history, "stale: before .*range\\(a\\).* revision 3 had been told to .*put\\(a=a2\\)")


def test_stale_read_after_a_watch() -> None:
    """A read sees all that a watch had delivered before it began."""
    run = Run()
    run.watch(WatchCreate(b"a"))
    read = run.do(Range(b"a"))
    run.unknown(A1, happens=True)
    run.finish()
    read.invoked, read.returned = run.moment + 1, run.moment + 2
    rejected(run.history, "stale: before .*range\\(a\\).* revision 2 had been told to «watch")


def test_serializable_read_may_be_stale() -> None:
    """A serializable read may lag behind, so only its content is judged."""
    run = Run()
    run.do(A1)
    read = run.do(Range(b"a", serializable=True), node=1)
    run.finish()
    assert read.revision == 1


def test_serializable_read_of_a_state_that_never_was() -> None:
    """A serializable read sees the store as it was at some revision."""
    run = Run()
    run.do(A1)
    run.do(B1)
    run.catch_up()
    read = run.do(Range(b"a", b"\0", serializable=True), node=1)
    run.finish()
    answer(read, kvs=read.response.kvs[1:], count=1)
    rejected(run.history, "wrong answer: .*kvs is not \\[b=b1[^,]*, mod 3, version 1\\)\\] but \\[a=a1")


def test_read_from_the_future() -> None:
    """A read cannot see what was written after it was answered."""
    run = Run()
    write = run.do(A1)
    read = run.do(Range(b"a"))
    run.finish()
    write.invoked, write.returned = read.returned + 1, read.returned + 2
    rejected(run.history, "against real time: revision 2 .*told to .*range\\(a\\)")


def test_read_of_a_revision_that_never_was() -> None:
    """A read cannot come from beyond the end of the history."""
    run = Run()
    run.do(A1)
    run.do(Range(b"a")).revision = 3
    rejected(run.history, "read of what never was: .*the store ends at revision 2")


# Lies about reads.


def test_wrong_value() -> None:
    """A read gives what was last written."""
    run = Run()
    run.do(A1)
    read = run.do(Range(b"a"))
    run.finish()
    answer(read, kvs=[read.response.kvs[0]._replace(value=b"x")])
    rejected(run.history, "kvs is not \\[a=x.*\\] but \\[a=a1")


def test_wrong_count() -> None:
    """``count`` is of all that is in the range, whatever the limit."""
    run = Run()
    run.do(Txn(success=(A1, B1)))
    read = run.do(Range(b"a", b"\0", limit=1))
    run.finish()
    answer(read, count=1)
    rejected(run.history, "count is not 1 but 2")


def test_wrong_more() -> None:
    """``more`` says that the limit cut something off."""
    run = Run()
    run.do(Txn(success=(A1, B1)))
    read = run.do(Range(b"a", b"\0", limit=2))
    run.finish()
    answer(read, more=True)
    rejected(run.history, "more is not True but False")


def test_historic_read_wrong() -> None:
    """A read at an old revision gives what there was then."""
    run = Run()
    run.do(A1)
    run.do(A2)
    read = run.do(Range(b"a", revision=2))
    run.finish()
    answer(read, kvs=[run.history.events[3][0].kv])
    rejected(run.history, "kvs is not \\[a=a2.*\\] but \\[a=a1")


def test_keys_only_with_values() -> None:
    """A read of keys only has no values."""
    run = Run()
    run.do(A1)
    read = run.do(Range(b"a"))
    run.finish()
    read.request = Range(b"a", keys_only=True)
    rejected(run.history, "kvs is not \\[a=a1")


def test_read_that_had_to_be_refused() -> None:
    """A revision to come cannot be read."""
    run = Run()
    run.do(A1)
    read = run.do(Range(b"a"))
    run.finish()
    read.request = Range(b"a", revision=3)
    rejected(run.history, "had to be refused at 2: .*future revision")


def test_answer_of_another_kind() -> None:
    """An answer belongs to its request."""
    run = Run()
    read = run.do(Range(b"a"))
    read.response = run.do(DeleteRange(b"a")).response
    rejected(run.history, "this is no RangeResponse")


# Lies about refusals.


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (Put(b"a", ignore_value=True), KeyNotFound()),
        (Txn(success=(Put(b"a", ignore_value=True),)), KeyNotFound()),
        (Range(b"a", revision=2), FutureRevision()),
        (Range(b"a", revision=1), Compacted()),
        (Compact(2), FutureRevision()),
        (Compact(2), Compacted(2)),
    ],
)
def test_undeserved_refusal(request_: Request, error: RequestError) -> None:
    """A refusal by the state must be one that some state would give."""
    run = Run()
    run.do(A1)
    op = run.do(ALL)
    run.finish()
    op.request, op.response, op.outcome, op.error = request_, None, Outcome.ERROR, error
    rejected(run.history, f"undeserved refusal: .*error {type(error).__name__}")


def test_compacted_at_a_revision_nobody_asked_for() -> None:
    """A refusal that names a compact revision names one that was asked for."""
    run = Run()
    for request in (A1, A2, Compact(3)):
        run.do(request)
    op = run.do(Range(b"a", revision=2))
    run.finish()
    op.error = Compacted(2)
    rejected(run.history, "undeserved refusal: .*error Compacted")


def test_compacted_twice() -> None:
    """A revision is compacted once."""
    run = Run()
    run.do(A1)
    run.do(Compact(2))
    op = run.do(Compact(2))
    run.finish()
    op.outcome, op.revision, op.response = Outcome.OK, 2, run.history.operations[1].response
    rejected(run.history, "compacted what was already compacted")


# Lies about watches.


def watched(request: WatchCreate, *requests: Request) -> tuple[History, WatchLog]:
    """A good history of one watch and some operations, each of which reaches it by itself."""
    run = Run()
    log = run.watch(request)
    for one in requests:
        run.do(one)
        run.listen()
    return run.finish(), log


def plant(log: WatchLog, index: int, **fields: Any) -> None:
    """Change fields of a response."""
    time, response = log.responses[index]
    log.responses[index] = (time, response._replace(**fields))


def swap(log: WatchLog, one: int, two: int) -> None:
    """What is delivered first and what second, each at the other's time."""
    first, second = log.responses[one], log.responses[two]
    log.responses[one], log.responses[two] = (first[0], second[1]), (second[0], first[1])


WATCH_A = WatchCreate(b"a")


def test_watch_gap() -> None:
    """A watch delivers every event of its range."""
    history, log = watched(WATCH_A, A1, A2, A3)
    del log.responses[2]
    rejected(history, "has a gap: .*a3.* without .*a2")


def test_watch_double() -> None:
    """A watch delivers each event once."""
    history, log = watched(WATCH_A, A1, A2)
    log.responses.insert(2, log.responses[1])
    rejected(history, "was told an event twice: put a=a1")


def test_watch_reordered() -> None:
    """A watch delivers events in order."""
    history, log = watched(WATCH_A, A1, A2)
    for op in history.operations:
        op.returned, op.invoked = None, 0  # only the order is wrong
    swap(log, 1, 2)
    rejected(history, "out of order: put a=a2.* before put a=a1")


def test_watch_split_revision() -> None:
    """A watch delivers a revision in one response."""
    history, log = watched(WatchCreate(b"a", b"c"), Txn(success=(A1, B1)))
    time, response = log.responses[1]
    log.responses[1:] = [(time, response._replace(events=(event,))) for event in response.events]
    rejected(history, "only a part of revision 2 in one response")


def test_watch_outside_its_range() -> None:
    """A watch delivers nothing outside of its range."""
    history, log = watched(WatchCreate(b"a", b"c"), A1, B1)
    log.request = WATCH_A
    rejected(history, "outside its range: put b=b1")


def test_watch_of_a_filtered_kind() -> None:
    """A watch delivers no event of a kind that it filters out."""
    history, log = watched(WATCH_A, A1, DeleteRange(b"a"))
    log.request = WatchCreate(b"a", filters=frozenset({EventType.DELETE}))
    rejected(history, "of a kind that it filters out: delete a@3")


def test_watch_of_what_was_before_its_start() -> None:
    """A watch delivers nothing from before its start (etcd's bugs 15271 and 20221)."""
    history, log = watched(WATCH_A, A1, A2)
    log.request = WatchCreate(b"a", start_revision=3)
    rejected(history, "starts at revision 3, but was told an event from before: put a=a1")


def test_watch_from_now_on_of_what_was_before() -> None:
    """A watch from now on begins after the revision that the answer to its creation tells."""
    history, log = watched(WATCH_A, A1, A2)
    swap(log, 0, 1)
    rejected(history, "something before it was created")
    swap(log, 0, 1)
    plant(log, 0, revision=2)
    history.operations[0].invoked = 0
    rejected(history, "starts at revision 3, but was told an event from before: put a=a1")


def test_watch_of_what_never_happened() -> None:
    """A watch delivers what happened, and nothing else."""
    history, log = watched(WATCH_A, A1)
    event = log.responses[1][1].events[0]
    plant(log, 1, events=(event._replace(kv=event.kv._replace(value=b"x")),))
    rejected(history, "never happened: put a=x")


def test_watch_before_it_happened() -> None:
    """A watch delivers nothing that nobody had asked for yet."""
    history, log = watched(WATCH_A, A1)
    op = history.operations[0]
    op.invoked, op.returned = log.responses[1][0] + 1, log.responses[1][0] + 2
    rejected(history, "against real time: revision 2 .* had been told to «watch")


def test_watch_wrong_prev_kv() -> None:
    """A watch delivers, if asked, what each event replaced."""
    history, log = watched(WatchCreate(b"a", prev_kv=True), A1, A2)
    event = log.responses[2][1].events[0]
    plant(log, 2, events=(event._replace(prev_kv=event.kv),))
    rejected(history, "wrong prev_kv .*: a=a2.*, not a=a1")
    plant(log, 2, events=(event._replace(prev_kv=None),))
    rejected(history, "wrong prev_kv .*: None, not a=a1")


def test_watch_prev_kv_not_asked_for() -> None:
    """A watch that did not ask for it is not told what was before."""
    history, log = watched(WatchCreate(b"a", prev_kv=True), A1, A2)
    log.request = WATCH_A
    rejected(history, "a prev_kv that it did not ask for")


def test_watch_progress_claims_too_much() -> None:
    """Progress says up to where everything was delivered, and never more."""
    history, log = watched(WATCH_A, A1, A2)
    log.responses.insert(2, (log.responses[2][0], WatchResponse(-1, 3)))
    rejected(history, "everything up to revision 3, but not .*a2")


def test_watch_header_claims_too_much() -> None:
    """The header of an event's response claims no later revision than was delivered."""
    history, log = watched(WATCH_A, A1, A2)
    for op in history.operations:
        op.invoked = 0
    plant(log, 1, revision=3)
    rejected(history, "everything up to revision 3, but not .*a2")


def test_watch_header_beyond_the_end() -> None:
    """No header tells of a revision that never was."""
    history, log = watched(WATCH_A, A1)
    plant(log, 1, revision=3)
    rejected(history, "was told of revision 3, but the store ends at revision 2")


def compacted_watch() -> tuple[History, WatchLog]:
    run = Run()
    for put in (A1, A2):
        run.do(put)
    run.do(Compact(3))
    log = run.watch(WatchCreate(b"a", start_revision=2))
    history = run.finish()
    assert log.responses[-1][1].compact_revision == 3
    return history, log


def test_watch_cancelled_by_a_compaction_nobody_asked_for() -> None:
    """A watch is not cancelled for a compaction that never was."""
    history, _ = compacted_watch()
    history.operations[2].request = Compact(2)
    rejected(history, "compacted at 3, but nobody had asked for that")


def test_watch_cancelled_though_it_needs_nothing_compacted() -> None:
    """A watch is not cancelled for a compaction of what it does not need."""
    history, log = compacted_watch()
    log.request = WatchCreate(b"a", start_revision=3)
    rejected(history, "cancelled as compacted at 3, but from revision 3 on nothing")


def test_watch_events_after_cancel() -> None:
    """A watch that was cancelled is told nothing more."""
    history, log = watched(WATCH_A, A1, A2)
    log.responses.insert(2, (log.responses[1][0], WatchResponse(0, 2, canceled=True)))
    rejected(history, "after it was cancelled: \\[put a=a2")


def test_connected_watch_without_the_end() -> None:
    """A watch whose stream is open to the end has everything."""
    history, log = watched(WATCH_A, A1, A2)
    log.responses.pop()
    rejected(history, "missing the end, though it was connected: .*a2")
    log.connected = False
    check(history)


def test_connected_watch_without_an_answer() -> None:
    """A watch whose stream is open to the end was created or refused."""
    history, log = watched(WATCH_A)
    log.responses.clear()
    rejected(history, "was never answered")


# And lies at random.


def lie(rng: random.Random, history: History) -> str:
    """Plant one lie that no good history has, and say which."""
    answered = [op for op in history.operations if op.outcome is Outcome.OK]
    writes = [op for op in answered if isinstance(op.request, Put)]
    watches = [log for log in history.watches if sum(len(r.events) for _, r in log.responses) > 2]
    match rng.randrange(8 if watches else 6):
        case 0:
            rewrite(history, rng.randrange(2, len(history.events) + 2), version=99)
            return "version"
        case 1:
            op = rng.choice(writes)
            op.revision += rng.choice([-1, 1])
            return f"another revision for {op}"
        case 2:
            # One that kept the value could as well have been another, unknown one.
            op = rng.choice([op for op in writes if not op.request.ignore_value])
            op.outcome = Outcome.REFUSED
            return f"refusal of {op}"
        case 3:
            one, two = rng.choice(list(pairwise(range(2, len(history.events) + 2))))
            history.events[one], history.events[two] = history.events[two], history.events[one]
            return f"exchange of revisions {one} and {two}"
        case 4:
            op = rng.choice([op for op in answered if isinstance(op.request, Range) and op.response.kvs])
            answer(op, kvs=op.response.kvs[1:])
            return f"a key missing from {op}"
        case 5:
            op = rng.choice([op for op in answered if isinstance(op.request, DeleteRange)])
            answer(op, deleted=op.response.deleted + 1)
            return f"one more deleted by {op}"
        case kind:
            log = rng.choice(watches)
            places = [i for i, (_, response) in enumerate(log.responses) if response.events]
            place = rng.choice(places[:-1] or places)
            if kind == 6:
                del log.responses[place]
            else:
                log.responses.insert(place, log.responses[place])
            return f"response {place} of {log}"


@pytest.mark.parametrize("seed", range(200, 260))
def test_no_lie_at_random_passes(seed: int) -> None:
    """Whatever is changed in a good history of many clients is found."""
    history = random_run(seed, overlap=2).finish()
    what = lie(random.Random(seed), history)
    try:
        check(history)
    except BadHistory:
        return
    pytest.fail(f"seed {seed}: nobody noticed: {what}")


def test_a_story_names_the_event() -> None:
    """Stories tell of operations with client, node, times, request and answer."""
    run = Run()
    run.do(A1)
    run.history.events[2] = (Event(EventType.PUT, run.history.events[2][0].kv._replace(mod_revision=9)),)
    rejected(run.history, "«client 0 via node 0 \\[\\d+..\\d+\\] put\\(a=a1\\) → ok @2 prev_kv=None»")
