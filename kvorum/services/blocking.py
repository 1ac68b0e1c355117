"""``client.services`` of ``kvorum.Client``: the plans of this package, carried out with threads."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from kvorum.background import Background, call_back
from kvorum.cache import Cache
from kvorum.closing import Closing
from kvorum.errors import KvorumError
from kvorum.mirror import Change as KeyChange
from kvorum.ownership import Owner
from kvorum.services import asking
from kvorum.services.choice import Pickers
from kvorum.services.directory import Change
from kvorum.services.records import Instance, check_name, each_tag, instance, prefix_of
from kvorum.services.registering import TTL_SECONDS, RegistrationPlans
from kvorum.services.watched import Choosing, Taken

if TYPE_CHECKING:
    from kvorum.client import Client

Instances = list[Instance]


class Services:
    """For several threads at once. Names, addresses and all else that is wrong raise ValueError, and what
    goes wrong between us and the store KvorumError."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pickers = Pickers()

    def register(
        self,
        name: str,
        addr: str,
        *,
        metadata: Mapping[str, str] | None = None,
        tags: Iterable[str] = (),
        weight: int = 1,
        zone: str = "",
        ttl: int = TTL_SECONDS,
        id: str = "",  # noqa: A002
        on_problem: Callable[[str | None], None] | None = None,
    ) -> Registration:
        """On the list from now on until it is closed: as a context manager, at the end of its block. Who is
        killed leaves the list within ``ttl`` seconds. Its ``id`` is its address, where none is given; whoever
        registers the same again takes the place over."""
        one = instance(name, addr, metadata=metadata, tags=tags, weight=weight, zone=zone, id=id)
        return Registration(self._client, one, ttl, on_problem).open()

    def list(self) -> dict[str, Instances]:
        """All services that anybody offers, by name, and who does."""
        return self._client.run(asking.listed(self._client.core))

    def resolve(
        self,
        name: str,
        *,
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        zone: str = "",
    ) -> Instances:
        """Those with all these tags and all of this metadata, the nearest to ``zone`` first. There may be
        none."""
        return self._client.run(asking.resolve(self._client.core, name, tags, metadata, zone))

    def resolve_one(
        self,
        name: str,
        *,
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        zone: str = "",
        policy: str = "round-robin",
    ) -> Instance:
        """One of the nearest, in turn or at random, by weight. Raises NoInstance. Who asks often uses a
        balancer."""
        tags = each_tag(tags)
        picker = self._pickers.of(name, policy, tags, metadata, zone)
        return self._client.run(asking.resolve_one(self._client.core, name, picker, tags, metadata, zone))

    def deregister(self, name: str, id: str) -> bool:  # noqa: A002
        """Take somebody off the list; whether he was on it. Whoever keeps that entry up does not put it
        back."""
        return self._client.run(asking.deregister(self._client.core, name, id))

    def watch(
        self,
        name: str = "",
        *,
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> ServiceWatch:
        """All changes of one service, or of all. First all that is there comes, as added. With conditions,
        those who meet them: who begins to is added, who ceases to is removed."""
        return ServiceWatch(self._client, name, Taken(tags, metadata))

    def balancer(
        self,
        name: str,
        *,
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        zone: str = "",
        policy: str = "round-robin",
    ) -> Balancer:
        """Takes one of the instances again and again, from memory, and follows their changes."""
        return Balancer(self._client, Choosing(name, policy, tags, metadata, zone)).open()


class Registration:
    """See ``Services.register``."""

    def __init__(
        self, client: Client, one: Instance, ttl: int, on_problem: Callable[[str | None], None] | None
    ) -> None:
        told = None if on_problem is None else lambda problem: call_back(on_problem, problem)
        self._client = client
        self._plans = RegistrationPlans(client.core, one, ttl, told)
        self._background: Background[NoReturn] | None = None
        self._owner = Owner()

    @property
    def instance(self) -> Instance:
        return self._plans.instance

    @property
    def ttl(self) -> int:
        """Seconds, as granted."""
        return self._plans.ttl

    @property
    def problem(self) -> str | None:
        """What keeps us from knowing that it is on the list; None if nothing does."""
        return self._plans.problem

    def open(self) -> Self:
        self._client.run(self._plans.open())
        self._background = Background(self._client, self._plans.keep(), "kvorum-registration")
        self._client.adopt(self)
        atexit.register(self.abandon)
        return self

    def close(self) -> None:
        """Off the list, at once. Raises KvorumError where that could not be said: then it leaves the list
        within ``ttl`` seconds."""
        background, self._background = self._background, None
        if background is not None and self._owner.is_us():
            atexit.unregister(self.abandon)
            background.stop()
            self._client.run(self._plans.close())

    def abandon(self) -> None:
        """As ``close``, without a word where that is not possible."""
        with suppress(KvorumError):
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(*([KvorumError] if kind is not None else [])):
            self.close()


class Balancer(Closing):
    """See ``Services.balancer``. Any thread may ask it. While no member of the store can be reached it goes
    on with what it knows, and ``error`` says why."""

    def __init__(self, client: Client, choosing: Choosing) -> None:
        self._choosing = choosing
        self._cache = Cache(client, prefix_of(choosing.name), self._changed, asking.PAGE)
        self._picking = threading.Lock()

    def open(self) -> Self:
        self._cache.load()
        self._choosing.take_all(self._cache.items())
        self._cache.follow()
        return self

    def _changed(self, change: KeyChange) -> None:
        self._choosing.take(change)

    @property
    def error(self) -> KvorumError | None:
        return self._cache.error

    @property
    def instances(self) -> list[Instance]:
        """Those among whom there is a choice, the nearest first."""
        return self._choosing.instances

    def pick(self) -> Instance:
        """The one whose turn it is. Raises NoInstance."""
        with self._picking:
            return self._choosing.pick()

    def close(self) -> None:
        self._cache.close()


class ServiceWatch(Closing):
    """See ``Services.watch``. One thread iterates; any may ``close`` it, which ends that. Where history was
    compacted while no member could be reached, steps may be missing, but never what came of them."""

    def __init__(self, client: Client, name: str, taken: Taken) -> None:
        self._taken = taken
        self._cache = Cache(client, prefix_of(check_name(name) if name else ""), self._changed, asking.PAGE)
        self._changes: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        self._is_open = False

    def open(self) -> Self:
        """From here on no change is missed. Raises KvorumError."""
        if not self._is_open:
            self._cache.load()
            self._is_open = True
            for change in self._taken.take_all(self._cache.items()):
                self._changes.put(change)
            self._cache.follow()
        return self

    def _changed(self, key_change: KeyChange) -> None:
        for change in self._taken.take(key_change):
            self._changes.put(change)

    def __iter__(self) -> Iterator[Change]:
        self.open()
        while (change := self._changes.get()) is not None:
            yield change

    def close(self) -> None:
        self._cache.close()
        self._changes.put(None)

    def __enter__(self) -> Self:
        return self.open()
