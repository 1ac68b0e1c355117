"""Who leads: plans, without I/O. To campaign is to stand in line (``kvorum.recipes.line``) with a value."""

from __future__ import annotations

from typing import Any

from kvorum.messages import Message, b64, key_value
from kvorum.mirror import Following
from kvorum.operations import RANGE
from kvorum.plans import Core, Plan
from kvorum.types import KeyValue


def leader(core: Core, name: bytes) -> Plan[KeyValue | None]:
    """The key of who leads, with its value; None if nobody does."""
    request: Message = {
        "key": b64(name + b"/"),
        "range_end": b64(name + b"0"),
        "sort_target": "CREATE",
        "sort_order": "ASCEND",
        "limit": "1",
    }
    answer = yield from core.call(RANGE, request, safe=True)
    kvs = answer.get("kvs")
    return key_value(kvs[0]) if kvs else None


class Observing:
    """Every leader and each of its values, now and later. Some may be passed over, never the latest."""

    def __init__(self, core: Core, name: bytes) -> None:
        self._following = Following(core, name + b"/")
        self._seen = 0

    def next_leader(self) -> Plan[KeyValue | None]:
        """Wait for it; None once this has ended. Raises what a call does before the first, then ServerError
        where the server refuses."""
        mirror = self._following.mirror
        if not mirror.revision:
            yield from self._following.load()
        while True:
            first = min(mirror.items(), key=lambda kv: kv.create_revision, default=None)
            if first is not None and first.mod_revision != self._seen:
                self._seen = first.mod_revision
                return first
            if not (yield from self._following.next_changes()):
                return None

    def end(self) -> Any:
        """As ``Following.end``."""
        return self._following.end()
