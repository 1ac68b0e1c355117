"""What both shells' balancers and watches have in common: a directory filled from a cache of keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvorum.mirror import Change as KeyChange
from kvorum.services.asking import pick
from kvorum.services.choice import matching, nearest, picker_of
from kvorum.services.directory import Change, Directory
from kvorum.services.records import Instance, check_name, each_tag
from kvorum.types import Event, KeyValue


class Taken:
    """A directory, and what changes it: of that, those are told who meet the conditions."""

    def __init__(self, tags: Iterable[str] = (), metadata: Mapping[str, str] | None = None) -> None:
        self.directory = Directory()
        self._tags, self._metadata = each_tag(tags), dict(metadata or {})

    def take_all(self, kvs: Iterable[KeyValue]) -> list[Change]:
        return self._take(Event("PUT", kv) for kv in kvs)

    def take(self, change: KeyChange) -> list[Change]:
        return self._take(change.events)

    def _take(self, events: Iterable[Event]) -> list[Change]:
        changes = [change for event in events if (change := self.directory.apply(event)) is not None]
        return [told for change in changes if (told := change.among(self._is_meant)) is not None]

    def _is_meant(self, one: Instance) -> bool:
        return bool(matching([one], self._tags, self._metadata))


class Choosing(Taken):
    """Takes one of the instances of a service that meet the conditions, from memory."""

    def __init__(
        self, name: str, policy: str, tags: Iterable[str], metadata: Mapping[str, str] | None, zone: str
    ) -> None:
        super().__init__(tags, metadata)
        self.name = check_name(name)
        self._picker = picker_of(policy)
        self._zone = zone
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
