"""The blocking client: plans carried out with sockets and threads.

    with Client("10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379") as client:
        client.put("/app/port", "8080")
        for event in client.watch("/app/", prefix=True): …

For several threads at once. What runs in the background (leases) does so in daemon threads.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from kvorum import leases, operations
from kvorum.clock import now
from kvorum.closing import Closing
from kvorum.endpoints import Endpoints
from kvorum.errors import KvorumError
from kvorum.http_sync import SyncHttp
from kvorum.keepalive import USUAL, Keepalive
from kvorum.leases import LeasePlans
from kvorum.messages import Message, key_range
from kvorum.operations import Pages
from kvorum.ownership import Owner
from kvorum.plans import CloseStream, Core, Effect, Exchange, OpenStream, Plan, ReadFrame, Sleep
from kvorum.tls import Tls
from kvorum.txn import Compare, Operation, TransactionBuilder
from kvorum.types import DeleteResult, Event, Key, KeyValue, LeaseInfo, PutResult, RangeResult, TxnResult
from kvorum.watching import Batch, WatchPlans, watch_request

if TYPE_CHECKING:
    from kvorum.cache import Cache
    from kvorum.config import Config
    from kvorum.mirror import Change
    from kvorum.recipes.blocking import Barrier, Counter, DoubleBarrier, Election, Lock
    from kvorum.records import InvalidConfig
    from kvorum.services.blocking import Services

T = TypeVar("T")
PAGE: Final = 1000


class Stopped(Exception):
    """A plan in the background was told to end."""


class Client(Closing):
    """Times in seconds; ``timeout`` is for a whole call, with all that is tried again in it. With ``tls``
    endpoints are https where they do not say what they are."""

    def __init__(
        self,
        endpoints: str | Iterable[str] = "127.0.0.1:2379",
        *,
        timeout: float = 5.0,
        dial_timeout: float = 2.0,
        tls: Tls | None = None,
        user: str = "",
        password: str = "",
        keepalive: Keepalive = USUAL,
    ) -> None:
        rng = random.SystemRandom()  # a forked process must not choose the same ids
        known = Endpoints(endpoints, rng, "http" if tls is None else "https")
        self.core = Core(known, clock=now, rng=rng, timeout=timeout, user=user, password=password)
        self._http = SyncHttp(dial_timeout, tls or Tls(), keepalive)
        self._to_close: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()  # of what is to be closed

    def close(self) -> None:
        """Ends watches; leases that are still held are no longer kept alive."""
        with self._lock:
            to_close = list(self._to_close)
        for one in to_close:
            one.abandon()
        self._http.close()

    def adopt(self, one: Any) -> None:
        """Its ``abandon`` is called when the client is closed, unless it is no more by then."""
        with self._lock:
            self._to_close.add(one)

    # Plans.

    def run(self, plan: Plan[T], stop: threading.Event | None = None) -> T:
        """Carry a plan out. Raises what it raises; Stopped where it would sleep and ``stop`` is set."""
        try:
            effect = next(plan)
            while True:
                try:
                    outcome = self.perform(effect, stop)
                except KvorumError as error:
                    effect = plan.throw(error)
                else:
                    effect = plan.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    def perform(self, effect: Effect, stop: threading.Event | None = None) -> Any:
        """One step of a plan. Raises KvorumError, and Stopped where it would sleep and ``stop`` is set."""
        match effect:
            case Exchange():
                return self._http.exchange(effect)
            case ReadFrame(stream, timeout):
                return stream.read(timeout)
            case OpenStream():
                return self._http.open_stream(effect)
            case CloseStream(stream):
                return stream.close()
            case Sleep(seconds):
                if stop is None:
                    return time.sleep(seconds)
                if stop.wait(seconds):
                    raise Stopped
                return None

    def call(
        self, path: str, message: Message, *, safe: bool = False, timeout: float | None = None
    ) -> Message:
        """Any call of the JSON gateway. ``safe``: to be carried out twice does no harm. Raises ServerError or
        ConnectionFailed, as all others do."""
        return self.run(self.core.call(path, message, safe=safe, timeout=timeout))

    # Keys.

    def get(self, key: Key, *, revision: int = 0, serializable: bool = False) -> KeyValue | None:
        """None if it is not there. ``serializable``: as far as the member that is asked knows."""
        return self.run(operations.get(self.core, key, revision=revision, serializable=serializable))

    def range(
        self,
        key: Key,
        range_end: Key | None = None,
        *,
        prefix: bool = False,
        from_key: bool = False,
        limit: int = 0,
        revision: int = 0,
        sort_by: str = "KEY",
        descending: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        serializable: bool = False,
    ) -> RangeResult:
        selected = key_range(key, range_end, prefix=prefix, from_key=from_key)
        plan = operations.read(
            self.core,
            selected,
            limit=limit,
            revision=revision,
            sort_by=sort_by,
            descending=descending,
            keys_only=keys_only,
            count_only=count_only,
            serializable=serializable,
        )
        return self.run(plan)

    def items(self, prefix: Key, *, page: int = PAGE, revision: int = 0) -> Iterator[KeyValue]:
        """All keys with the prefix, read bit by bit, all as of one revision."""
        pages = Pages(self.core, prefix, page, revision)
        while not pages.is_at_end:
            yield from self.run(pages.next_page())

    def put(
        self, key: Key, value: Key, *, lease: int = 0, prev_kv: bool = False, idempotent: bool = False
    ) -> PutResult:
        """``idempotent``: to put it twice does no harm, so it is tried again where it may have been done."""
        plan = operations.put(self.core, key, value, lease=lease, prev_kv=prev_kv, idempotent=idempotent)
        return self.run(plan)

    def delete(
        self,
        key: Key,
        range_end: Key | None = None,
        *,
        prefix: bool = False,
        prev_kv: bool = False,
        idempotent: bool = False,
    ) -> DeleteResult:
        selected = key_range(key, range_end, prefix=prefix)
        return self.run(operations.delete(self.core, selected, prev_kv=prev_kv, idempotent=idempotent))

    def txn(self, *, idempotent: bool = False) -> Transaction:
        """A transaction, carried out at the end of its ``with`` block: see ``kvorum.txn``."""
        return Transaction(self, idempotent)

    def transact(
        self,
        compares: Sequence[Compare],
        then: Sequence[Operation[Any]],
        otherwise: Sequence[Operation[Any]] = (),
        *,
        idempotent: bool = False,
    ) -> TxnResult:
        return self.run(operations.transact(self.core, compares, then, otherwise, idempotent=idempotent))

    def compact(self, revision: int, *, physical: bool = False) -> None:
        """Forget all history before the revision."""
        self.run(operations.compact(self.core, revision, physical))

    # Watches.

    def watch(
        self,
        key: Key,
        range_end: Key | None = None,
        *,
        prefix: bool = False,
        start_revision: int = 0,
        prev_kv: bool = False,
        puts: bool = True,
        deletes: bool = True,
    ) -> Watch:
        """All changes from ``start_revision`` on; without one, from when the watch is started: that is by
        ``start``, ``with``, or the first step of its iteration."""
        create = watch_request(key_range(key, range_end, prefix=prefix), prev_kv, puts, deletes)
        watch = Watch(self, WatchPlans(self.core, create, start_revision))
        self.adopt(watch)
        return watch

    # Leases.

    def lease(self, ttl: int, *, id: int = 0, on_lost: Callable[[str], None] | None = None) -> Lease:  # noqa: A002
        """A lease, kept alive in its ``with`` block and revoked at the end. ``on_lost(why)`` is called
        once, in another thread, when it has ended or nobody knows any more."""
        lease = Lease(self, LeasePlans(self.core, ttl, id), on_lost)
        self.adopt(lease)
        return lease

    def grant(self, ttl: int, id: int = 0) -> int:  # noqa: A002
        """A lease that nobody keeps alive; returns its id."""
        return self.run(leases.grant(self.core, ttl, id))[0]

    def revoke(self, lease_id: int) -> None:
        self.run(leases.revoke(self.core, lease_id))

    def keep_alive(self, lease_id: int) -> int:
        """Renew it once: the TTL that it has from now on, 0 if there is no such lease."""
        return self.run(leases.keep_alive(self.core, lease_id))

    def time_to_live(self, lease_id: int, *, keys: bool = False) -> LeaseInfo:
        """``ttl`` is -1 where there is no such lease."""
        return self.run(operations.time_to_live(self.core, lease_id, keys))

    def leases(self) -> list[int]:
        return self.run(operations.leases(self.core))

    # What several processes agree on.

    def lock(self, name: Key, ttl: int = 10, *, on_lost: Callable[[str], None] | None = None) -> Lock:
        """A lock that one holds at a time, in order of arrival: ``with client.lock("jobs") as lock:``.
        Should its holder be no more, it is free after ``ttl`` seconds. ``on_lost(why)`` is called, in
        another thread, when it is held no longer though it was not released; ``lock.token`` fences off who
        does not hear that."""
        from kvorum.recipes.blocking import Lock

        return Lock(self, name, ttl, on_lost)

    def election(self, name: Key, ttl: int = 10, *, on_lost: Callable[[str], None] | None = None) -> Election:
        """One leads at a time, with a value that all can see: ``election.campaign("host1")`` waits for
        that. The rest is as for a lock."""
        from kvorum.recipes.blocking import Election

        return Election(self, name, ttl, on_lost)

    def barrier(self, name: Key) -> Barrier:
        """Who comes to it waits as long as somebody holds it."""
        from kvorum.recipes.blocking import Barrier

        return Barrier(self, name)

    def double_barrier(
        self, name: Key, parties: int, ttl: int = 10, *, on_lost: Callable[[str], None] | None = None
    ) -> DoubleBarrier:
        """Nobody enters before so many have come, nor leaves before all of them want to; 128 at most. A
        party that is no more is waited for ``ttl`` seconds. ``on_lost`` as for a lock."""
        from kvorum.recipes.blocking import DoubleBarrier

        return DoubleBarrier(self, name, parties, ttl, on_lost)

    def counter(self, key: Key) -> Counter:
        """A number that many change. Its key's value is the number in decimal; 0 if there is no key."""
        from kvorum.recipes.blocking import Counter

        return Counter(self, key)

    # Who offers what, and where.

    @cached_property
    def services(self) -> Services:
        """See ``kvorum.services``."""
        from kvorum.services.blocking import Services

        return Services(self)

    # What follows the store.

    def cache(
        self, prefix: Key, *, on_change: Callable[[Change], None] | None = None, page: int = PAGE
    ) -> Cache:
        """All keys with the prefix, in memory, kept up to date by a watch. Returns when they are loaded,
        ``page`` at a time; ``on_change`` is called in another thread, for each change from then on."""
        from kvorum.cache import Cache

        return Cache(self, prefix, on_change, page).open()

    def bind(
        self,
        prefix: Key,
        kind: type[T],
        *,
        on_change: Callable[[T, T], None] | None = None,
        on_error: Callable[[InvalidConfig], None] | None = None,
    ) -> Config[T]:
        """The keys below ``prefix`` as a dataclass or pydantic model, kept up to date: ``config.value``.
        Raises InvalidConfig where they are none at first, and TypeError where no keys could be. Later,
        ``on_change(old, new)`` is called for each change, and ``on_error`` for one that is refused, in
        another thread."""
        from kvorum.config import Config

        return Config(self, prefix, kind, on_change, on_error).open()

    # The cluster.

    def members(self) -> list[Message]:
        return self.run(operations.members(self.core))

    def status(self, endpoint: str | None = None) -> Message:
        return self.run(operations.status(self.core, endpoint))


class Transaction(TransactionBuilder):
    def __init__(self, client: Client, idempotent: bool) -> None:
        super().__init__()
        self._client, self._idempotent = client, idempotent

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            client = self._client
            self.complete(client.run(operations.carry_out(client.core, self, self._idempotent)))


class Watch(Closing):
    """Changes in order, without gap or double, over reconnects. One thread iterates; any may ``close`` it."""

    def __init__(self, client: Client, plans: WatchPlans) -> None:
        self._client = client
        self._plans = plans
        self._stop = threading.Event()
        self._in_use = threading.Lock()

    def start(self) -> int:
        """Until the server watches, however long that takes; returns the first revision that will be told,
        or 0 where the watch was closed meanwhile. Raises ServerError where the server refuses the watch."""
        try:
            with self._in_use:
                return self._client.run(self._plans.start(), self._stop)
        except Stopped:
            return 0

    def batches(self) -> Iterator[Batch]:
        """The changes of one revision together. Raises Compacted when those that would be next are gone, and
        ServerError where the server refuses the watch; ends when the watch is closed."""
        while self._receive():
            yield self._plans.untold.next_batch()

    def __iter__(self) -> Self:
        """Raises and ends as ``batches`` does. Who stops to iterate may go on later, without a gap."""
        return self

    def __next__(self) -> Event:
        if not self._receive():
            raise StopIteration
        return self._plans.untold.next_event()

    def _receive(self) -> bool:
        """Until there is something to tell; False when the watch is closed."""
        plans = self._plans
        if plans.is_closed or plans.untold:
            return not plans.is_closed
        try:
            with self._in_use:
                return self._client.run(plans.receive(), self._stop)
        except Stopped:
            return False

    @property
    def next_revision(self) -> int:
        """All before this was told. 0 before the start."""
        return self._plans.told_until

    @property
    def failure(self) -> KvorumError | None:
        """What keeps it from being told; None if nothing does. For any thread."""
        return self._plans.failure

    def close(self) -> None:
        self._plans.is_closed = True
        self._stop.set()
        stream = self._plans.stream
        if stream is not None:
            stream.interrupt()
        # Whoever is iterating just now closes the stream himself.
        if self._in_use.acquire(blocking=False):
            try:
                if stream is not None:
                    stream.close()
            finally:
                self._in_use.release()

    abandon = close

    def __enter__(self) -> Self:
        self.start()
        return self


class Lease:
    """See ``Client.lease``. Until ``sure_until`` (of ``kvorum.clock``) nobody else has what hangs on it."""

    def __init__(self, client: Client, plans: LeasePlans, on_lost: Callable[[str], None] | None) -> None:
        self._client = client
        self._plans = plans
        self._on_lost = on_lost
        self._stop = threading.Event()
        self._owner = Owner()

    @property
    def id(self) -> int:
        return self._plans.id

    @property
    def ttl(self) -> int:
        return self._plans.ttl

    @property
    def sure_until(self) -> float:
        return self._plans.sure_until

    @property
    def is_lost(self) -> bool:
        return self._plans.lost is not None

    def open(self) -> Self:
        """Have it granted, and keep it alive from now on. Once: for another lease make another of these."""
        self._owner = Owner()
        self._client.run(self._plans.open())
        threading.Thread(target=self._keep, name=f"kvorum-lease-{self.id:x}", daemon=True).start()
        return self

    def close(self) -> None:
        """Revoke it. Raises KvorumError where that could not be: then it ends when its time has come."""
        self._stop.set()
        if self._owner.is_us():
            self._client.run(self._plans.close())

    def abandon(self) -> None:
        """Keep it alive no longer."""
        self._stop.set()

    def _keep(self) -> None:
        try:
            why = self._client.run(self._plans.keep(), self._stop)
        except Stopped:
            return
        except Exception as error:  # a defect, but whoever relies on the lease must hear of it
            why = str(self._plans.lose(f"the lease is not renewed any more: {error!r}"))
        if self._on_lost is not None and not self._stop.is_set():
            self._on_lost(why)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except KvorumError:  # then it ends by itself; what the block has raised is told rather than that
            if kind is None:
                raise
