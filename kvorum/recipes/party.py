"""A barrier for a number of parties: plans, without I/O. Nobody goes in before so many have come, and
nobody goes out before all who went in with him want to; then the next so many may.

Each party is a key ``<name>/<lease in hexadecimal>``, in the order of their coming, whose value says how
far it is:

    (nothing)   it has come
    in 17       it went in, with those who came until revision 17
    out 17      it wants to leave

Who sees that he is one of the first so many says when the last of them came, and so tells the slow ones, who
may look only when the first want to leave, and those who come later, who are not of that round. A party
that is no more leaves with its lease, and nobody waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from kvorum.errors import LeaseLost
from kvorum.messages import Message, b64, key_value, revision_of
from kvorum.operations import RANGE
from kvorum.plans import Core, Plan
from kvorum.recipes.line import KEY_GONE, Standing
from kvorum.txn import TXN
from kvorum.types import KeyValue


class Seen(NamedTuple):
    """A party: when it came, how far it is, and with whom it went in (0: it has not yet)."""

    came: int
    is_out: bool
    end: int


def seen(kv: KeyValue) -> Seen:
    word, _, end = kv.value.partition(b" ")
    return Seen(kv.create_revision, word == b"out", int(end) if end.isdigit() else 0)


def round_of(came: int, parties: Sequence[Seen], number: int) -> int:
    """When the last of those came with whom the party that came then goes in; 0 if they are not so many yet.
    ``parties`` in the order of their coming."""
    ends = [party.end for party in parties]
    if told := [end for end in ends if end >= came]:
        return min(told)
    waiting = [party.came for party in parties if party.came > max(ends, default=0)]
    first = waiting[:number]
    return first[-1] if len(first) == number and came in first else 0


def is_awaited(party: Seen, end: int) -> bool:
    """By who wants to leave that round."""
    return not party.is_out and (party.end == end or (not party.end and party.came <= end))


class Party(Standing):
    """One of ``number``. After ``enter``: ``go_in``, ``keep``, ``go_out``, ``leave``."""

    def __init__(self, core: Core, name: bytes, ttl: int, number: int) -> None:
        super().__init__(core, name, ttl)
        self._number = number
        self._round = 0

    def go_in(self, deadline: float = math.inf) -> Plan[bool]:
        """Wait until so many have come; False when that is not so at the deadline."""
        while True:
            parties, revision = yield from self._look()
            if found := round_of(self.place.token, parties, self._number):
                self._round = found
                yield from self._tell(b"in %d" % found)
                return True
            if self._core.clock() >= deadline:
                return False
            yield from self._waiting.change(self._all, revision + 1, deadline)

    def go_out(self, deadline: float = math.inf) -> Plan[bool]:
        """Wait until all want to who went in; False when that is not so at the deadline."""
        yield from self._tell(b"out %d" % self._round)
        while True:
            parties, revision = yield from self._look()
            if not any(is_awaited(party, self._round) for party in parties):
                return True
            if self._core.clock() >= deadline:
                return False
            yield from self._waiting.change(self._all, revision + 1, deadline)

    @property
    def _all(self) -> Message:
        return {"key": b64(self._prefix), "range_end": b64(self._end)}

    def _look(self) -> Plan[tuple[list[Seen], int]]:
        """All parties in the order of their coming, as of a revision. Raises LeaseLost where ours is none."""
        request = {**self._all, "sort_target": "CREATE", "sort_order": "ASCEND"}
        answer = yield from self._waiting.ask(RANGE, request)
        kvs = [key_value(kv) for kv in answer.get("kvs", ())]
        if self.place not in [(kv.key, kv.create_revision) for kv in kvs]:
            raise LeaseLost(KEY_GONE)
        return [seen(kv) for kv in kvs], revision_of(answer)

    def _tell(self, word: bytes) -> Plan[None]:
        answer = yield from self._waiting.ask(TXN, self._change_request(word))
        if not answer.get("succeeded"):
            raise LeaseLost(KEY_GONE)
