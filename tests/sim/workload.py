"""Clients: they write, compare and set, transact, read and watch, and note what they were told."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from kvstate.commands import (
    Compact,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    RangeResponse,
    Txn,
)
from kvstate.types import EventType
from tests.sim.history import (
    Answer,
    Campaign,
    FindLeader,
    KeepAlive,
    ListLeases,
    Lock,
    LookAtLease,
    Operation,
    Outcome,
    Proclaim,
    Request,
    Resign,
    Unlock,
    WatchLog,
)
from tests.sim.outcomes import outcome_of
from watch.stream import WatchStream
from watch.watcher import WatchCreate, WatchResponse

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.simulation import Simulation


class Client:
    """One request at a time, each to a node of its choice; never the same request twice."""

    def __init__(self, sim: Simulation, number: int) -> None:
        self._sim = sim
        self.number = number
        self._random = random.Random(f"{sim.seed}/client/{number}")
        self.operation: Operation | None = None
        self._written = 0
        self._seen: dict[bytes, tuple[int, bytes]] = {}  # key → (mod revision, value) as told last
        self._revision = 1
        self._on: Node | None = None
        self._asked_at = 0.0
        self._task: asyncio.Task[tuple[Answer | None, int]] | None = None
        self._think_time = sim.options.think_time

    def think(self, factor: int = 1) -> None:
        delay = factor * self._random.expovariate(1 / self._think_time)
        self._sim.queue.later(min(delay, 2.0), None, self._act)

    def _act(self) -> None:
        sim = self._sim
        if sim.clients.stopped:
            return
        node = self._random.choice([sim.nodes[member] for member in sorted(sim.nodes)])
        if not node.up:
            self.think()
            return
        self.send(node, self._request())

    def send(self, node: Node, request: Request) -> Operation:
        sim = self._sim
        operation = Operation(self.number, node.member, request, sim.queue.stamp())
        self.operation, self._on, self._asked_at, self._task = operation, node, sim.queue.now, None
        sim.history.operations.append(operation)
        sim.trace("c%d asks %s: %s", self.number, node, request)
        # As over a socket: the node meets it when it gets its turn.
        sim.queue.soon(node, self._begin, node, operation)
        sim.queue.later(3 * sim.options.request_timeout, None, self._give_up, operation)
        return operation

    def _begin(self, node: Node, operation: Operation) -> None:
        if self.operation is operation:
            self._task = task = node.start_task(perform(node, operation.request))
            task.add_done_callback(lambda done: self._answered(operation, done))

    def _answered(self, operation: Operation, task: asyncio.Task[tuple[Answer | None, int]]) -> None:
        if self.operation is not operation or task.cancelled():
            return  # it has given up
        error = task.exception()
        if error is None:
            reply = task.result()
            operation.outcome = Outcome.OK
            operation.response, operation.revision = reply
            self._learn(operation)
        else:
            outcome = outcome_of(error)
            if outcome is None:
                self._sim.oracle.fail("an answer of a known kind", f"{operation} got {error!r}")
            operation.outcome = outcome
            if outcome is Outcome.ERROR:
                operation.error = error
                self._refused(operation)
        self._sim.trace(
            "c%d is told: %s %s", self.number, operation.outcome.value, error or operation.revision
        )
        self._end(operation)

    def _give_up(self, operation: Operation) -> None:
        if self.operation is operation:
            self._sim.trace("c%d gives up", self.number)
            self._end(operation)

    def lost(self, node: Node) -> None:
        if self.operation is not None and self._on is node:
            self._end(self.operation)

    def _end(self, operation: Operation) -> None:
        operation.returned = self._sim.queue.stamp()
        self.operation = None
        # Who is refused waits longer before the next try, as clients do.
        self.think(10 if operation.outcome is Outcome.REFUSED else 1)

    def _learn(self, operation: Operation) -> None:
        self._revision = max(self._revision, operation.revision)
        request = operation.request
        self._sim.oracle.leases.answered(operation, self._asked_at)
        if isinstance(request, Put):
            self._seen[request.key] = (operation.revision, request.value)
        elif isinstance(request, Range) and request.revision == 0 and operation.response is not None:
            assert isinstance(operation.response, RangeResponse)
            for kv in operation.response.kvs:
                self._seen[kv.key] = (kv.mod_revision, kv.value)

    def _refused(self, operation: Operation) -> None:
        """By the state. For those who go on differently then."""

    # What to ask.

    def _request(self) -> Request:
        kinds = ("put", "cas", "txn", "read", "stale read", "old read", "delete", "compact", "rare")
        (kind,) = self._random.choices(kinds, (30, 15, 8, 20, 8, 4, 8, 2, 5))
        match kind:
            case "put":
                return self._put()
            case "cas":
                return self._compare_and_set()
            case "txn":
                branch = (self._put_other(0), Range(self._key()), self._put_other(1))
                compare = Compare(CompareResult.GREATER, CompareTarget.VERSION, self._key(), b"", 0)
                return Txn((compare,), branch, (self._put_other(0), DeleteRange(self._key_of(1))))
            case "read":
                return self._range(serializable=False)
            case "stale read":
                return self._range(serializable=True)
            case "old read":
                revision = max(1, self._revision - self._random.randrange(6))
                return Range(b"\0", b"\0", revision=revision, serializable=self._random.random() < 0.5)
            case "delete":
                end = self._random.choice([b"", b"", b"\0"])
                return DeleteRange(self._key(), end, prev_kv=self._random.random() < 0.5)
            case "compact":
                return Compact(max(1, self._revision - self._random.randrange(10)))
        return Put(self._key(), b"", ignore_value=True, prev_kv=True)

    def _range(self, *, serializable: bool) -> Range:
        if self._random.random() < 0.5:
            return Range(self._key(), serializable=serializable)
        return Range(
            b"\0",
            b"\0",
            limit=self._random.choice([0, 0, 2]),
            serializable=serializable,
            keys_only=self._random.random() < 0.2,
            count_only=self._random.random() < 0.2,
        )

    def _compare_and_set(self) -> Txn:
        key = self._key()
        revision, value = self._seen.get(key, (0, b""))
        if value and self._random.random() < 0.5:
            compare = Compare(CompareResult.EQUAL, CompareTarget.VALUE, key, b"", value)
        else:
            compare = Compare(CompareResult.EQUAL, CompareTarget.MOD, key, b"", revision)
        return Txn((compare,), (Put(key, self._value()),), (Range(key),))

    def _put(self) -> Put:
        return Put(self._key(), self._value(), prev_kv=self._random.random() < 0.3)

    def _put_other(self, parity: int) -> Put:
        """Puts of one transaction must be of different keys."""
        return Put(self._key_of(parity), self._value())

    def _key_of(self, parity: int) -> bytes:
        choices = range(parity, max(2, self._sim.options.keys), 2)
        return b"k%d" % self._random.choice(choices)

    def _key(self) -> bytes:
        return b"k%d" % self._random.randrange(self._sim.options.keys)

    def _value(self) -> bytes:
        self._written += 1
        return b"c%d-%d" % (self.number, self._written) + b"." * self._random.choice([0, 0, 40, 300])


async def perform(node: Node, request: Request) -> tuple[Answer | None, int]:
    """The answer, and the revision it is of."""
    service, lines = node.service, node.concurrency
    match request:
        case Put():
            return await service.put(request)
        case DeleteRange():
            return await service.delete_range(request)
        case Txn():
            return await service.txn(request)
        case Compact():
            return await service.compact(request)
        case Range():
            return await service.range(request)
        case LeaseGrant(lease_id, ttl):
            return await service.lease_grant(ttl, lease_id)
        case LeaseRevoke(lease_id):
            return await service.lease_revoke(lease_id)
        case KeepAlive(lease_id):
            return await service.lease_keep_alive(lease_id), 0
        case LookAtLease(lease_id, keys):
            return await service.lease_time_to_live(lease_id, keys=keys), 0
        case ListLeases():
            return await service.lease_list(), 0
        case Lock(name, lease):
            return await lines.lock(name, lease)
        case Unlock(key):
            return None, await lines.unlock(key)
        case Campaign(name, lease, value):
            return await lines.campaign(name, lease, value)
        case Proclaim(leader, value):
            return None, await lines.proclaim(leader, value)
        case Resign(leader):
            return None, await lines.resign(leader)
        case FindLeader(name):
            return await lines.leader(name)


class Watching:
    """One watch after the other: from now, from the past, from where the last one ended, or from
    the future; sometimes slow to read."""

    def __init__(self, sim: Simulation, number: int) -> None:
        self._sim = sim
        self.number = number
        self._random = random.Random(f"{sim.seed}/watcher/{number}")
        self._node: Node | None = None
        self._stream: WatchStream | None = None
        self._log: WatchLog | None = None
        self._slow = 0.0
        self._resume_at = 0

    def think(self) -> None:
        self._sim.queue.later(self._random.uniform(0.01, 0.3), None, self._open)

    def _open(self) -> None:
        sim = self._sim
        node = self._random.choice([sim.nodes[member] for member in sorted(sim.nodes)])
        if sim.clients.stopped or self._stream is not None:
            return
        if not node.up or node.paused:
            self.think()
            return
        node.inside(self._watch, node)

    def _watch(self, node: Node) -> None:
        rng, sim = self._random, self._sim
        key, end = rng.choice([(b"k0", b""), (b"\0", b"\0"), (b"k0", b"k2"), (b"k1", b"\0")])
        now = node.hub.revision
        start = rng.choice([0, self._resume_at, max(1, now - rng.randrange(8)), now + rng.randrange(6)])
        filters = rng.choice([frozenset(), frozenset(), frozenset({EventType.DELETE})])
        request = WatchCreate(key, end, start, True, filters, prev_kv=rng.random() < 0.4)
        self._slow = rng.choice([0.0, 0.0, 0.02, 0.3])
        self._node, self._stream = node, node.hub.stream()
        self._log = WatchLog(node.member, request, sim.queue.stamp())
        sim.history.watches.append(self._log)
        sim.trace("w%d watches on %s: %s", self.number, node, request)
        self._stream.create(request)
        node.start_task(self._read(node, self._stream, self._log))
        if rng.random() < 0.3:
            sim.queue.later(rng.uniform(0.2, 3), node, self._close, self._stream)

    async def _read(self, node: Node, stream: WatchStream, log: WatchLog) -> None:
        while responses := await stream.next():
            for response in responses:
                self._note(log, response)
                if response.canceled:
                    stream.close()
                    return
            if self._slow and not self._sim.calm:
                nap = node.loop.create_future()
                self._sim.queue.later(self._slow, node, nap.set_result, None)
                await nap

    def _note(self, log: WatchLog, response: WatchResponse) -> None:
        self._sim.trace("w%d is told: %s", self.number, response)
        log.responses.append((self._sim.queue.stamp(), response))
        if not response.created:
            self._resume_at = response.revision + 1
        if response.canceled:
            self._gone()

    def _close(self, stream: WatchStream) -> None:
        """The client hangs up."""
        if self._stream is stream:
            stream.close()
            self._gone()

    def lost(self, node: Node) -> None:
        if self._node is node:
            self._gone()

    def _gone(self) -> None:
        self._node = self._stream = self._log = None
        self.think()

    def is_open_on(self, members: frozenset[int]) -> bool:
        return self._node is not None and self._node.member in members

    @property
    def is_drained(self) -> bool:
        stream = self._stream
        return stream is None or not (stream.is_lagging or stream.has_unread)

    def finish(self, members: frozenset[int]) -> None:
        if self._log is not None and self.is_open_on(members):
            self._log.connected = True
