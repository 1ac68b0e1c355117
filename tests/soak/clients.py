"""Clients of real servers: they write, compare and set, transact, read and watch, and note what they
were told. One request at a time each, every request sent exactly once, every value written once.

All of them live in one event loop, so that a counter orders what they see: a request's invocation is
counted before its first byte is sent, an answer after its last one was read.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from kvstate.commands import (
    Compact,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    Put,
    Range,
    RangeResponse,
    Txn,
)
from kvstate.types import EventType
from tests.sim.history import History, Operation, Outcome, Request, WatchLog
from tests.soak.calls import Coordination
from tests.soak.cluster import Member, until
from tests.soak.evidence import EVERYTHING, Events, sees_all
from tests.soak.sending import JSON, open_session, send
from tests.soak.wire import decode_watch, encode, encode_watch, note_answer
from watch.watcher import WatchCreate

WRITES = (Put, DeleteRange, Txn)


@dataclass(slots=True)
class Progress:
    """How the run goes, for the faults to wait for and for the summary."""

    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)  # what unknown outcomes said
    last_write: float = field(default_factory=time.monotonic)
    longest_without: float = 0.0
    # When the request was sent whose answer was the last one that needed a quorum, by node.
    sound: dict[int, float] = field(default_factory=dict)

    def wrote(self) -> None:
        now = time.monotonic()
        self.longest_without = max(self.longest_without, now - self.last_write)
        self.last_write = now


class Workload:
    """Everything that the clients share."""

    def __init__(
        self,
        members: list[Member],
        seed: int,
        rate: float,
        fail: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.members = members
        self.seed = seed
        self.history = History()
        self.events = Events()
        self.history.events = self.events.by_revision
        self.progress = Progress()
        self.fail = fail
        self.revision = 1  # the highest that anybody was told of
        self.stopped = False
        self._clock = clock
        self.coordination = Coordination()
        self.others: list[Callable[[], Coroutine[Any, Any, None]]] = []  # who run beside the clients
        count = 3 * len(members)
        self.think_time = count / rate
        self._clients = [Client(self, number) for number in range(count)]
        self._watchers: list[Watcher] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._watching: list[asyncio.Task[None]] = []
        self.session: aiohttp.ClientSession

    def stamp(self) -> int:
        moments = self.coordination.moments
        moments.append(self._clock())
        return len(moments) - 1

    def saw(self, revision: int) -> None:
        self.revision = max(self.revision, revision)

    def start(self) -> None:
        self.session = open_session()
        for member in self.members:
            for is_random in (False, False, True):
                number = len(self._watchers)
                watcher = Watcher(self, number, member, is_random=is_random, prev_kv=number % 3 == 1)
                self._watchers.append(watcher)
        clients = [client.run for client in self._clients] + self.others
        self._tasks = [asyncio.ensure_future(run()) for run in clients]
        self._watching = [asyncio.ensure_future(watcher.run()) for watcher in self._watchers]
        for task in (*self._tasks, *self._watching):
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(f"{type(error).__name__}: {error}")

    async def stop_clients(self) -> None:
        """No more requests; those under way are waited for."""
        self.stopped = True
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def open_logs(self) -> list[WatchLog]:
        return [watcher.log for watcher in self._watchers if watcher.log is not None]

    async def stop_watching(self) -> None:
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)

    async def close(self) -> None:
        await self.stop_watching()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if hasattr(self, "session"):
            await self.session.close()

    async def watch_all(self, member: Member, top: int, seconds: float) -> bool:
        """Read the whole history, as this node tells it from as far back as it can, up to ``top``;
        whether it got there. What it was told is in the history, to be judged."""
        watcher = Watcher(self, -member.number, member, is_random=False, prev_kv=False)
        deadline = time.monotonic() + seconds
        start = 1
        while time.monotonic() < deadline:
            reading = asyncio.ensure_future(watcher.read(WatchCreate(*EVERYTHING, start_revision=start)))
            try:
                await until(lambda: reading.done() or watcher.told >= top, deadline - time.monotonic())  # noqa: B023
                if not reading.done():
                    assert watcher.log is not None or watcher.told == 0
                    if watcher.log is not None:
                        watcher.log.connected = True
                    return watcher.told >= top
                reading.result()
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            start = max(start, watcher.compacted + 1)
            await asyncio.sleep(0.1)
        return False

    async def perform(self, client: int, member: Member, request: Request, seconds: float) -> Operation:
        """Send one request once, and note what comes of it."""
        path, body = encode(request)
        operation = Operation(client, member.number, request, self.stamp())
        self.history.operations.append(operation)
        began = time.monotonic()
        sent = await send(self.session, member.url + path, body, seconds)
        why = sent.why
        if sent.status:
            why = note_answer(operation, sent.status, sent.body)
            # Learners and the like answer reads of their own state alone.
            if operation.outcome is Outcome.OK and not getattr(request, "serializable", False):
                known = self.progress.sound.get(member.number, 0.0)
                self.progress.sound[member.number] = max(known, began)
        elif sent.never_left:
            operation.outcome = Outcome.REFUSED
        operation.returned = self.stamp()
        self.count(request, operation.outcome, operation.revision, why)
        if operation.outcome is Outcome.OK and isinstance(request, WRITES):
            self.progress.wrote()
        return operation

    def count(self, request: object, outcome: Outcome, revision: int, why: str) -> None:
        self.progress.outcomes[f"{type(request).__name__.lower()} {outcome.value}"] += 1
        if outcome is Outcome.OK:
            self.saw(revision)
        elif outcome is Outcome.UNKNOWN:
            self.progress.refusals[why] += 1


class Client:
    """Two thirds of them stay with one node each, so that there are always some who do not hang on a
    node that is stuck; the others go everywhere."""

    KEYS = 24

    def __init__(self, load: Workload, number: int) -> None:
        self.number = number
        self._load = load
        self._random = random.Random(f"{load.seed}/client/{number}")
        count = len(load.members)
        self._home = load.members[number % count] if number < 2 * count else None
        self._seconds = 2.0 if number % 2 else 9.0  # shorter, and longer, than a server itself waits
        self._written = 0
        self._seen: dict[bytes, tuple[int, bytes]] = {}  # key → (mod revision, value) as told last

    async def run(self) -> None:
        while not self._load.stopped:
            member = self._home or self._random.choice(self._load.members)
            operation = await self._load.perform(self.number, member, self._request(), self._seconds)
            self._learn(operation)
            pause = self._random.expovariate(1 / self._load.think_time)
            if operation.outcome in (Outcome.REFUSED, Outcome.UNKNOWN):
                pause += 0.1
            await asyncio.sleep(min(pause, 2.0))

    def _learn(self, operation: Operation) -> None:
        if operation.outcome is not Outcome.OK:
            return
        request, response = operation.request, operation.response
        if isinstance(request, Put):
            self._seen[request.key] = (operation.revision, request.value)
        elif isinstance(request, Range) and not request.revision and isinstance(response, RangeResponse):
            for kv in response.kvs:
                if kv.value:
                    self._seen[kv.key] = (kv.mod_revision, kv.value)

    def _request(self) -> Request:
        kinds = ("put", "cas", "txn", "read", "stale read", "old read", "delete", "compact", "rare")
        (kind,) = self._random.choices(kinds, (300, 150, 80, 250, 80, 40, 60, 4, 8))
        match kind:
            case "put":
                return Put(self._key(), self._value(), prev_kv=self._random.random() < 0.3)
            case "cas":
                return self._compare_and_set()
            case "txn":
                then = (self._put_of(0), Range(self._key()), self._put_of(1))
                compare = Compare(CompareResult.GREATER, CompareTarget.VERSION, self._key(), b"", 0)
                return Txn((compare,), then, (self._put_of(0), DeleteRange(self._key_of(1))))
            case "read":
                return self._range(serializable=False)
            case "stale read":
                return self._range(serializable=True)
            case "old read":
                revision = max(1, self._load.revision - self._random.randrange(200))
                return Range(*EVERYTHING, revision=revision, serializable=self._random.random() < 0.5)
            case "delete":
                end = self._random.choice([b"", b"", b"", b"k3"])
                key = b"k1" if end else self._key()
                return DeleteRange(key, end, prev_kv=self._random.random() < 0.5)
            case "compact":
                # Only what a watch of everything has already told us: the evidence must be whole.
                known = self._load.events.complete_to
                return Compact(max(1, known - self._random.randrange(300)))
        return Put(self._key(), b"", ignore_value=True, prev_kv=True)

    def _range(self, *, serializable: bool) -> Range:
        if self._random.random() < 0.5:
            return Range(self._key(), serializable=serializable)
        return Range(
            *EVERYTHING,
            limit=self._random.choice([0, 0, 2]),
            serializable=serializable,
            keys_only=self._random.random() < 0.2,
            count_only=self._random.random() < 0.2,
        )

    def _compare_and_set(self) -> Txn:
        key = self._key()
        revision, value = self._seen.get(key, (0, b""))
        if value and self._random.random() < 0.3:
            compare = Compare(CompareResult.EQUAL, CompareTarget.VALUE, key, b"", value)
        else:
            compare = Compare(CompareResult.EQUAL, CompareTarget.MOD, key, b"", revision)
        return Txn((compare,), (Put(key, self._value()),), (Range(key),))

    def _put_of(self, parity: int) -> Put:
        """Puts of one transaction must be of different keys."""
        return Put(self._key_of(parity), self._value())

    def _key_of(self, parity: int) -> bytes:
        return b"k%02d" % self._random.randrange(parity, self.KEYS, 2)

    def _key(self) -> bytes:
        return b"k%02d" % self._random.randrange(self.KEYS)

    def _value(self) -> bytes:
        self._written += 1
        return b"c%d-%d" % (self.number, self._written) + b"." * self._random.choice([0, 0, 40, 300])


class Watcher:
    """One watch after the other on one node. One kind sees everything, from now and then always from
    where its last stream ended; the other is of a range of its choice, from now or from the past, and
    hangs up now and then."""

    def __init__(
        self, load: Workload, number: int, member: Member, *, is_random: bool, prev_kv: bool
    ) -> None:
        self.log: WatchLog | None = None  # while its stream is open
        self.told = 0  # the revision of the last event
        self.compacted = 0  # as of the last cancellation
        self._load = load
        self._member = member
        self._is_random = is_random
        self._prev_kv = prev_kv
        self._resume_at = 0
        self._random = random.Random(f"{load.seed}/watcher/{number}")

    async def run(self) -> None:
        while True:
            request = self._choose() if self._is_random else self._resume()
            reading = asyncio.ensure_future(self.read(request))
            try:
                # The random kind hangs up after a while, and then begins another.
                await asyncio.wait(
                    [reading], timeout=self._random.uniform(1, 20) if self._is_random else None
                )
                if self._load.stopped and not reading.done():
                    await reading  # to the end of the run
            finally:
                if not reading.done():
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
            if not reading.cancelled():
                reading.result()  # raises what was wrong with an answer
            await asyncio.sleep(0.1)

    def _resume(self) -> WatchCreate:
        return WatchCreate(*EVERYTHING, self._resume_at, prev_kv=self._prev_kv)

    def _choose(self) -> WatchCreate:
        rng, now = self._random, self._load.revision
        key, end = rng.choice([(b"k01", b""), EVERYTHING, (b"k05", b"k12"), (b"k12", b"\0")])
        start = rng.choice([0, max(1, now - rng.randrange(500)), self._resume_at, now + rng.randrange(20)])
        filters = rng.choice([frozenset[EventType](), frozenset[EventType](), frozenset({EventType.DELETE})])
        return WatchCreate(key, end, start, True, filters, prev_kv=rng.random() < 0.4)

    async def read(self, request: WatchCreate) -> None:
        """One stream, until it ends."""
        load = self._load
        log = WatchLog(self._member.number, request, load.stamp())
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        rest = b""
        try:
            async with load.session.post(
                self._member.url + "/v3/watch", data=encode_watch(request), headers=JSON, timeout=timeout
            ) as stream:
                if stream.status != 200:
                    return
                load.history.watches.append(log)
                self.log = log
                async for chunk in stream.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if not self._heard(log, line):
                            return
        except (aiohttp.ClientError, OSError, TimeoutError):
            return  # what was being sent when it broke off is not an answer
        finally:
            self.log = None

    def _heard(self, log: WatchLog, line: bytes) -> bool:
        """Whether the stream goes on."""
        if not line:
            return True
        response = decode_watch(line)
        if response is None:
            return False
        load = self._load
        log.responses.append((load.stamp(), response))
        load.saw(response.revision)
        if response.created and not response.canceled and not log.request.start_revision:
            self._resume_at = response.revision + 1
        if response.events:
            self.told = response.events[-1].kv.mod_revision
            self._resume_at = self.told + 1
        if response.canceled and response.compact_revision:
            self.compacted = response.compact_revision
            self._resume_at = max(self._resume_at, self.compacted + 1)
        if sees_all(log.request):
            load.events.add(log, response)
        return not response.canceled
