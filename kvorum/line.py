"""Waiting in line for a lock or an election, from outside: the same keys that the server's own services use.

Done here rather than by ``/v3/lock/lock``, a place in the line outlives the member that was asked for it: it
is a key with our lease, and whichever member answers next is asked about it.

    line = Line(ask, b"jobs", lease=77)
    place = line.enter(b"")
    line.turn(place)            # until no key is older

``Place.token`` is the key's create revision: the fencing token. Of two who were ever first, the later has the
greater one, so whoever is written to can refuse a holder that has had a successor.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, NoReturn

from kvorum.errors import ConnectionFailed, KvorumError
from kvorum.messages import b64
from kvorum.persistence import Persistence

IDLE_SECONDS = 5.0
"""A watch that says nothing for so long is asked for anew, at another member: nobody can tell a silent one
from one that is cut off."""


class PlaceLost(KvorumError):
    """The key is gone: its lease has ended, or somebody deleted it."""


class Place(NamedTuple):
    key: bytes
    token: int


class Line:
    def __init__(self, ask: Persistence, name: bytes, lease: int) -> None:
        """``ask`` is the line's own from here on."""
        self._ask = ask
        self._prefix, self._end = name + b"/", name + b"0"
        self._lease = lease

    def close(self) -> None:
        self._ask.close()

    def enter(self, value: bytes) -> Place:
        """A place at the end of the line, or the one that this lease has already: so to ask twice does no
        harm. Raises ServerError, where there is no such lease."""
        key = b"%b%b" % (self._prefix, f"{self._lease:x}".encode())
        answer = self._call(
            "/v3/kv/txn",
            {
                "compare": [{"key": b64(key), "target": "CREATE", "create_revision": "0"}],
                "success": [
                    {"request_put": {"key": b64(key), "value": b64(value), "lease": str(self._lease)}}
                ],
                "failure": [{"request_range": {"key": b64(key)}}],
            },
        )
        if answer.get("succeeded"):
            return Place(key, int(answer["header"]["revision"]))
        [kv] = answer["responses"][0]["response_range"]["kvs"]
        return Place(key, int(kv["create_revision"]))

    def turn(self, place: Place) -> int:
        """Wait until the place is first; returns the store's revision as of which it is. Raises PlaceLost."""
        while True:
            before, revision = self._before(place)
            if before is None:
                return revision
            self._deletion(before, revision + 1)

    def keep(self, place: Place) -> NoReturn:
        """Wait until the place is lost, and raise PlaceLost."""
        while True:
            _, revision = self._before(place)
            self._deletion(b64(place.key), revision + 1)

    def _before(self, place: Place) -> tuple[str | None, int]:
        """The key just before the place, if there is one, as of a revision. Raises PlaceLost."""
        answer = self._call(
            "/v3/kv/range",
            {
                "key": b64(self._prefix),
                "range_end": b64(self._end),
                "max_create_revision": str(place.token),
                "sort_target": "CREATE",
                "sort_order": "DESCEND",
                "limit": "2",
                "keys_only": True,
            },
        )
        own, *before = answer.get("kvs") or [{}]
        if (own.get("key"), own.get("create_revision")) != (b64(place.key), str(place.token)):
            raise PlaceLost("its key is gone")
        return (before[0]["key"] if before else None), int(answer["header"]["revision"])

    def _deletion(self, key: str, start: int) -> None:
        """Wait until the key may have been deleted."""
        watch = {"key": key, "start_revision": str(start), "filters": ["NOPUT"]}
        try:
            for response in self._ask.stream("/v3/watch", {"create_request": watch}, idle=IDLE_SECONDS):
                if response.get("events") or response.get("canceled"):
                    return
        except ConnectionFailed:
            return

    def _call(self, path: str, message: dict[str, Any]) -> dict[str, Any]:
        return self._ask.call(path, message, until=math.inf)
