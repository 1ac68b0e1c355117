"""What is known of all services, or of one, in memory: filled from a range, kept up by a watch. Pure.

    directory = Directory()
    directory.load(kvs)
    directory.apply(event)
    directory.instances("web")

A record that cannot be read is as if it were not there: one bad writer must not blind all readers.
"""

from __future__ import annotations

from collections.abc import Iterable

from kvorum.services.records import BadRecord, Instance, decode, split_key
from kvorum.types import Event, KeyValue


class Directory:
    """``version`` grows whenever anything changes."""

    def __init__(self) -> None:
        self._services: dict[str, dict[str, Instance]] = {}
        self._sorted: dict[str, list[Instance]] = {}  # of those asked for since the last change
        self.version = 0

    def load(self, kvs: Iterable[KeyValue]) -> None:
        """These and no others."""
        self._services = {}
        self._changed()
        for kv in kvs:
            self._put(kv)

    def apply(self, event: Event) -> None:
        self._changed()
        if event.is_put:
            self._put(event.kv)
        else:
            self._remove(event.key)

    def names(self) -> list[str]:
        return sorted(self._services)

    def instances(self, name: str = "") -> list[Instance]:
        """Those of one service, or of all, by name and id."""
        if not name:
            return [one for each in self.names() for one in self.instances(each)]
        if name not in self._services:
            return []
        if name not in self._sorted:
            self._sorted[name] = [one for _, one in sorted(self._services[name].items())]
        return list(self._sorted[name])

    def _changed(self) -> None:
        self.version += 1
        self._sorted.clear()

    def _put(self, kv: KeyValue) -> None:
        try:
            one = decode(kv.key, kv.value, kv.lease)
        except BadRecord:
            self._remove(kv.key)
        else:
            self._services.setdefault(one.name, {})[one.id] = one

    def _remove(self, key: bytes) -> None:
        try:
            name, id_ = split_key(key)
        except BadRecord:
            return
        instances = self._services.get(name, {})
        instances.pop(id_, None)
        if not instances:
            self._services.pop(name, None)
