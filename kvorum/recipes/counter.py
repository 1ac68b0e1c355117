"""A number that many change: plans, without I/O.

The value is the number in decimal, so that people can read and set it. ``add`` replaces the one it has read,
as long as nobody else has meanwhile; where somebody was faster it waits a little, at random and longer from
time to time, and reads again. Where it is unknown whether a change was made, that is raised and nothing is
tried again, so nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvorum.errors import KvorumError
from kvorum.messages import Message, as_bytes, b64, unb64
from kvorum.operations import RANGE
from kvorum.plans import Core, Plan, Sleep
from kvorum.txn import TXN
from kvorum.types import Key

FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.25


def read(core: Core, key: Key) -> Plan[int]:
    """0 if there is no such key. Raises KvorumError where its value is no number."""
    answer = yield from core.call(RANGE, {"key": b64(as_bytes(key))}, safe=True)
    return _found(key, answer)[0]


def add(core: Core, key: Key, change: int) -> Plan[int]:
    """What it is then. Raises KvorumError: with ``maybe_done``, where it may have been added; and where
    others were faster for as long as a call may take, in which case it was not."""
    deadline, encoded, losses = core.clock() + core.timeout, b64(as_bytes(key)), 0
    answer = yield from core.call(RANGE, {"key": encoded}, safe=True)
    while True:
        value, revision = _found(key, answer)
        request: Message = {
            "compare": [{"key": encoded, "target": "MOD", "mod_revision": str(revision)}],
            "success": [{"request_put": {"key": encoded, "value": _encoded(value + change)}}],
            "failure": [{"request_range": {"key": encoded}}],
        }
        answer = yield from core.call(TXN, request, timeout=max(deadline - core.clock(), 0.001))
        if answer.get("succeeded"):
            return value + change
        answer = answer["responses"][0]["response_range"]
        losses += 1
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(losses - 1, 10))
        pause = longest * core.rng.uniform(0.5, 1.0)
        if core.clock() + pause >= deadline:
            raise KvorumError(
                f"{change} was not added to {as_bytes(key)!r}: others changed it first {losses} times in "
                f"{core.timeout:.3g} s"
            )
        yield Sleep(pause)


def write(core: Core, key: Key, value: int) -> Plan[None]:
    """Whatever it was."""
    message = {"key": b64(as_bytes(key)), "value": _encoded(value)}
    yield from core.call("/v3/kv/put", message)


def _encoded(value: int) -> str:
    return b64(b"%d" % value)


def _found(key: Key, answer: Mapping[str, Any]) -> tuple[int, int]:
    """The number, and the revision that it was put at."""
    kvs = answer.get("kvs")
    if not kvs:
        return 0, 0
    value = unb64(kvs[0].get("value"))
    try:
        if b"_" in value:  # which Python would take for nothing
            raise ValueError
        return int(value), int(kvs[0]["mod_revision"])
    except ValueError:
        what = f"the counter {as_bytes(key)!r} is {value[:40]!r}"
        raise KvorumError(f"{what}: expected a whole number") from None
