"""A barrier for a number of parties: plans, without I/O. Nobody goes in before so many have come, and
nobody goes out before all who went in with him want to; then the next so many may.

Each party is a key ``<name>/<lease in hexadecimal>``, in the order of their coming, whose value says how
far it is:

    (nothing)   it has come
    in 17       it went in, in the round whose last party came at revision 17
    out 17      it wants to leave

Whoever sees first that so many have come lets all of them in, in one transaction: so a slow one is in, even
if the others are out, or no more, before it looks. A party that is no more goes with its lease, and
nobody waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kvorum.errors import LeaseLost
from kvorum.messages import Message, b64, key_value, revision_of
from kvorum.operations import RANGE
from kvorum.plans import Core, Plan
from kvorum.recipes.line import KEY_GONE, Standing
from kvorum.txn import TXN
from kvorum.types import KeyValue


def round_of(party: KeyValue) -> bytes:
    """Empty, if it has not gone in."""
    return party.value.partition(b" ")[2]


def next_round(parties: Sequence[KeyValue], number: int) -> Sequence[KeyValue]:
    """Who may go in together; nobody, if they are not enough. ``parties`` in the order of their coming."""
    waiting = [party for party in parties if not round_of(party)]
    return waiting[:number] if len(waiting) >= number else ()


def is_awaited(party: KeyValue, by: KeyValue) -> bool:
    """When that one wants to leave."""
    return party.value.startswith(b"in ") and round_of(party) == round_of(by)


class Party(Standing):
    """One of ``number``. After ``enter``: ``go_in``, ``keep``, ``go_out``, ``leave``."""

    def __init__(self, core: Core, name: bytes, ttl: int, number: int) -> None:
        super().__init__(core, name, ttl)
        self._number = number

    def go_in(self, deadline: float = math.inf) -> Plan[bool]:
        """Wait until so many have come; False when that is not so at the deadline."""
        while True:
            own, parties, revision = yield from self._look()
            if round_of(own):
                return True
            together = next_round(parties, self._number)
            if own in together:
                yield from self._waiting.ask(TXN, _let_in(together))
            elif self._core.clock() >= deadline:
                return False
            else:
                yield from self._waiting.change(self._all, revision + 1, deadline)

    def go_out(self, deadline: float = math.inf) -> Plan[bool]:
        """Wait until all want to who went in together; False when that is not so at the deadline."""
        own, _, _ = yield from self._look()
        answer = yield from self._waiting.ask(TXN, self._change_request(b"out " + round_of(own)))
        if not answer.get("succeeded"):
            raise LeaseLost(KEY_GONE)
        while True:
            own, parties, revision = yield from self._look()
            if not any(is_awaited(party, own) for party in parties):
                return True
            if self._core.clock() >= deadline:
                return False
            yield from self._waiting.change(self._all, revision + 1, deadline)

    @property
    def _all(self) -> Message:
        return {"key": b64(self._prefix), "range_end": b64(self._end)}

    def _look(self) -> Plan[tuple[KeyValue, list[KeyValue], int]]:
        """Our party, and all in the order of their coming, as of a revision. Raises LeaseLost where ours is
        none any more."""
        request = {**self._all, "sort_target": "CREATE", "sort_order": "ASCEND"}
        answer = yield from self._waiting.ask(RANGE, request)
        parties = [key_value(kv) for kv in answer.get("kvs", ())]
        for party in parties:
            if (party.key, party.create_revision) == self.place:
                return party, parties, revision_of(answer)
        raise LeaseLost(KEY_GONE)


def _let_in(together: Sequence[KeyValue]) -> Message:
    """As long as each of them is as it was seen: otherwise somebody else has let them in, or one is no
    more."""
    word = b64(b"in %d" % together[-1].create_revision)
    return {
        "compare": [
            {"key": b64(party.key), "target": "MOD", "mod_revision": str(party.mod_revision)}
            for party in together
        ],
        "success": [
            {"request_put": {"key": b64(party.key), "value": word, "lease": str(party.lease)}}
            for party in together
        ],
    }
