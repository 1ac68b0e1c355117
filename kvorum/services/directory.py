"""What is known of all services, or of one, in memory: filled from a range, kept up by a watch. Pure.

    directory = Directory()
    directory.apply(event)                  # Change("added", instance), or None where nobody need know
    directory.instances("web")

A record that cannot be read is as if it were not there: one bad writer must not blind all readers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from kvorum.services.records import BadRecord, Instance, decode, split_key
from kvorum.types import Event


@dataclass(frozen=True, slots=True)
class Change:
    """``kind`` is added, changed or removed. Of one that was removed, ``instance`` is what it was; of one
    that was changed, ``before``."""

    kind: str
    instance: Instance
    before: Instance | None = None

    def among(self, is_meant: Callable[[Instance], bool]) -> Change | None:
        """What it is to those who see only some instances: who begins to be one of them is added."""
        if self.before is None or is_meant(self.before) == is_meant(self.instance):
            return self if is_meant(self.instance) else None
        if is_meant(self.instance):
            return Change("added", self.instance)
        return Change("removed", self.before)


class Directory:
    """One thread may change it while others read. ``version`` grows whenever anything changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._services: dict[str, dict[str, Instance]] = {}
        self._sorted: dict[str, list[Instance]] = {}  # of those asked for since the last change
        self.version = 0

    def apply(self, event: Event) -> Change | None:
        try:
            name, id_ = split_key(event.key)
        except BadRecord:
            return None
        try:
            new = decode(event.key, event.value, event.kv.lease) if event.is_put else None
        except BadRecord:
            new = None
        with self._lock:
            old = self._services.get(name, {}).get(id_)
            if new == old:
                return None
            self._replace(name, id_, new)
        if new is None:
            assert old is not None
            return Change("removed", old)
        return Change("added", new) if old is None else Change("changed", new, old)

    def names(self) -> list[str]:
        with self._lock:
            return sorted(self._services)

    def instances(self, name: str = "") -> list[Instance]:
        """Those of one service, or of all, by name and id."""
        with self._lock:
            names = [name] if name else sorted(self._services)
            return [one for each in names for one in self._instances(each)]

    def _instances(self, name: str) -> list[Instance]:
        if name not in self._services:
            return []
        if name not in self._sorted:
            self._sorted[name] = [one for _, one in sorted(self._services[name].items())]
        return self._sorted[name]

    def _replace(self, name: str, id_: str, new: Instance | None) -> None:
        self.version += 1
        self._sorted.pop(name, None)
        instances = self._services.setdefault(name, {})
        if new is None:
            del instances[id_]
        else:
            instances[id_] = new
        if not instances:
            del self._services[name]
