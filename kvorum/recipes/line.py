"""Waiting in line for a lock or an election: plans, without I/O.

    standing = Standing(core, b"jobs", ttl=10)
    yield from standing.enter(b"")
    yield from standing.turn()          # until no key of the line is older
    why = yield from standing.keep()    # until the place is lost
    yield from standing.leave()

The line are the keys ``<name>/<lease in hexadecimal>``, oldest first; each waits for the end of the one
before its own. A place is a key with our lease and nothing that a member knows, so it outlives the member
that was asked: whichever answers next is asked about it. Waiting and keeping renew the lease by the way:
one plan does both, and neither can be forgotten.

``Place.token`` is the key's create revision, the fencing token: of two who were ever first the later has the
greater one, so whoever is written to can refuse a holder that has had a successor.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from kvorum.errors import KvorumError, LeaseLost
from kvorum.leases import LeasePlans
from kvorum.messages import Message, b64, revision_of
from kvorum.operations import RANGE
from kvorum.plans import Core, Plan
from kvorum.recipes.waiting import Waiting
from kvorum.txn import TXN

KEY_GONE = "its key is gone"


class Place(NamedTuple):
    key: bytes
    token: int


class Standing:
    """Who stands in the line of ``name``, on a lease of its own. Raises, wherever it waits: LeaseLost when
    the place is gone, or nobody knows any more; ServerError when the server refuses what is asked."""

    def __init__(self, core: Core, name: bytes, ttl: int) -> None:
        self._core = core
        self._prefix, self._end = name + b"/", name + b"0"
        self._lease = LeasePlans(core, ttl)
        self._waiting = Waiting(core, self._lease)
        self._place: Place | None = None
        self.revision = 0
        """The store's, as of which the place was first."""
        self.lost: str | None = None
        """Why it is, once that is known."""

    @property
    def sure_until(self) -> float:
        """By the client's clock: until then nobody else can be first, unless somebody deletes the key."""
        return self._lease.sure_until

    @property
    def ttl(self) -> int:
        return self._lease.ttl

    @property
    def lease(self) -> int:
        return self._lease.id

    @property
    def place(self) -> Place:
        assert self._place is not None, "it was not entered"
        return self._place

    def enter(self, value: bytes) -> Plan[Place]:
        """A place at the end of the line. Raises what a call does, where no lease can be had."""
        yield from self._lease.open()
        key = b"%b%b" % (self._prefix, f"{self._lease.id:x}".encode())
        answer = yield from self._waiting.ask(TXN, _enter_request(key, value, self._lease.id))
        if answer.get("succeeded"):
            token = revision_of(answer)
        else:  # an earlier try of ours was carried out
            [kv] = answer["responses"][0]["response_range"]["kvs"]
            token = int(kv["create_revision"])
        self._place = Place(key, token)
        return self._place

    def turn(self, deadline: float = math.inf) -> Plan[bool]:
        """Wait until the place is first; False when that is not so at ``deadline``."""
        clock = self._core.clock
        while True:
            found = yield from self._before(max(deadline, clock() + self._waiting.step))
            before, revision = found or ("", 0)
            if before is None:
                self.revision = revision
                return True
            if clock() >= deadline:
                return False
            yield from self._waiting.change(_deletion(before), revision + 1, deadline)

    def keep(self) -> Plan[str]:
        """Until the place is lost; returns why. That the key is deleted is known sooner by it than by a
        keepalive."""
        try:
            while True:
                found = yield from self._before(math.inf)
                assert found is not None
                yield from self._waiting.change(_deletion(b64(self.place.key)), found[1] + 1)
        except KvorumError as error:
            self.lost = str(error)
            return self.lost

    def change(self, value: bytes) -> Plan[int]:
        """Put another value to the place; returns the store's revision. Raises LeaseLost where it is gone."""
        answer = yield from self._core.call(TXN, self._change_request(value), safe=True)
        if not answer.get("succeeded"):
            raise LeaseLost(KEY_GONE)
        return revision_of(answer)

    def _change_request(self, value: bytes) -> Message:
        key = b64(self.place.key)
        put = {"key": key, "value": b64(value), "lease": str(self._lease.id)}
        return {
            "compare": [{"key": key, "target": "CREATE", "create_revision": str(self.place.token)}],
            "success": [{"request_put": put}],
        }

    def leave(self) -> Plan[None]:
        """Give the place up, which is free at once. Raises KvorumError where that could not be: then it
        ends with the lease."""
        if self._lease.id:
            yield from self._lease.close()

    def _before(self, deadline: float) -> Plan[tuple[str | None, int] | None]:
        """The key just before the place, if there is one, as of a revision; None at the deadline."""
        request: Message = {
            "key": b64(self._prefix),
            "range_end": b64(self._end),
            "max_create_revision": str(self.place.token),
            "sort_target": "CREATE",
            "sort_order": "DESCEND",
            "limit": "2",
            "keys_only": True,
        }
        answer = yield from self._waiting.ask(RANGE, request, deadline)
        if not answer:
            return None
        own, *before = answer.get("kvs") or [{}]
        if (own.get("key"), own.get("create_revision")) != (b64(self.place.key), str(self.place.token)):
            raise LeaseLost(KEY_GONE)
        return (before[0]["key"] if before else None), revision_of(answer)


def _deletion(key: str) -> Message:
    return {"key": key, "filters": ["NOPUT"]}


def _enter_request(key: bytes, value: bytes, lease: int) -> Message:
    """To ask twice does no harm: the second time it finds the key that the first has put."""
    return {
        "compare": [{"key": b64(key), "target": "CREATE", "create_revision": "0"}],
        "success": [{"request_put": {"key": b64(key), "value": b64(value), "lease": str(lease)}}],
        "failure": [{"request_range": {"key": b64(key)}}],
    }
