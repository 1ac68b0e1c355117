"""What both shells' balancers and watches have in common: a directory filled from a cache of keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvorum.mirror import Change as KeyChange
from kvorum.services.asking import pick
from kvorum.services.choice import matching, nearest, picker_of
from kvorum.services.directory import Change, Directory
from kvorum.services.records import Instance, check_name
from kvorum.types import Event, KeyValue


class Taken:
    """A directory, and what changes it."""

    def __init__(self) -> None:
        self.directory = Directory()

    def take_all(self, kvs: Iterable[KeyValue]) -> list[Change]:
        return self._take(Event("PUT", kv) for kv in kvs)

    def take(self, change: KeyChange) -> list[Change]:
        return self._take(change.events)

    def _take(self, events: Iterable[Event]) -> list[Change]:
        return [change for event in events if (change := self.directory.apply(event)) is not None]


class Choosing(Taken):
    """Takes one of the instances of a service that meet the conditions, from memory."""

    def __init__(
        self, name: str, policy: str, tags: Iterable[str], metadata: Mapping[str, str] | None, zone: str
    ) -> None:
        super().__init__()
        self.name = check_name(name)
        self._picker = picker_of(policy)
        self._tags, self._metadata, self._zone = tuple(tags), dict(metadata or {}), zone
        self._found: tuple[int, list[Instance]] = (-1, [])  # as of which version of the directory

    @property
    def instances(self) -> list[Instance]:
        """Those among whom there is a choice, the nearest first."""
        version = self.directory.version
        if self._found[0] != version:
            found = matching(self.directory.instances(self.name), self._tags, self._metadata)
            self._found = version, nearest(found, self._zone)
        return list(self._found[1])

    def pick(self) -> Instance:
        """The one whose turn it is. Raises NoInstance."""
        return pick(self._picker, self.name, self.instances, self._zone)
