"""A barrier: plans, without I/O. It is a key; who finds it waits until it is deleted."""

from __future__ import annotations

import math

from kvorum.messages import Message, b64, revision_of, unb64
from kvorum.operations import DELETE, RANGE
from kvorum.plans import Core, Plan
from kvorum.recipes.waiting import Waiting
from kvorum.txn import TXN

_IDS = 1 << 63


def hold(core: Core, key: bytes) -> Plan[bool]:
    """Whoever waits does so from now on; False if somebody holds it already."""
    own = b"%x" % core.rng.randrange(_IDS)  # to be known again where an earlier try was carried out
    request: Message = {
        "compare": [{"key": b64(key), "target": "CREATE", "create_revision": "0"}],
        "success": [{"request_put": {"key": b64(key), "value": b64(own)}}],
        "failure": [{"request_range": {"key": b64(key)}}],
    }
    answer = yield from core.call(TXN, request, safe=True)
    if answer.get("succeeded"):
        return True
    kvs = answer["responses"][0]["response_range"].get("kvs", ())
    return any(unb64(kv.get("value")) == own for kv in kvs)


def release(core: Core, key: bytes) -> Plan[None]:
    """Whoever waits goes on."""
    yield from core.call(DELETE, {"key": b64(key)}, safe=True)


def wait(core: Core, key: bytes, deadline: float = math.inf) -> Plan[bool]:
    """Until nobody holds it; False when that is not so at the deadline. Raises what a call does where nobody
    can be asked at first; later, that is waited for too."""
    waiting, request = Waiting(core), {"key": b64(key), "keys_only": True}
    answer = yield from core.call(RANGE, request, safe=True)
    while answer.get("kvs"):
        if core.clock() >= deadline:
            return False
        yield from waiting.change({"key": b64(key), "filters": ["NOPUT"]}, revision_of(answer) + 1, deadline)
        answer = (
            yield from waiting.ask(RANGE, request, max(deadline, core.clock() + waiting.step))
        ) or answer
    return True
