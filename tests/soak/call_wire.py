"""Calls of leases, locks and elections as etcd's JSON, and their answers. Pure; see ``wire``.

An error counts as decided by the state only if its text can mean nothing else; locks and elections tell all
of theirs with status 500.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import orjson

from api.concurrency import LeaderKey
from kvstate.commands import LeaseGrant, LeaseGrantResponse, LeaseRevoke
from tests.sim.history import Campaign, KeepAlive, ListLeases, Lock, Outcome, Resign, Unlock
from tests.soak.calls import Ask, Call, Told
from tests.soak.wire import BadAnswer, error_text

LEASE_NOT_FOUND = "etcdserver: requested lease not found"
LEASE_EXISTS = "etcdserver: lease already exists"
SESSION_EXPIRED = "mutex: session is expired"
NOT_ELECTED = "election: not leader"
_DECIDED = (LEASE_NOT_FOUND, LEASE_EXISTS, SESSION_EXPIRED, NOT_ELECTED)


def encode(request: Ask) -> tuple[str, bytes]:
    """Path and body."""
    path, message = _message(request)
    return path, orjson.dumps(message)


def _message(request: Ask) -> tuple[str, dict[str, Any]]:
    match request:
        case LeaseGrant(lease, ttl):
            return "/v3/lease/grant", {"TTL": str(ttl), **({"ID": str(lease)} if lease else {})}
        case LeaseRevoke(lease):
            return "/v3/lease/revoke", {"ID": str(lease)}
        case KeepAlive(lease):
            return "/v3/lease/keepalive", {"ID": str(lease)}
        case ListLeases():
            return "/v3/lease/leases", {}
        case Lock(name, lease):
            return "/v3/lock/lock", {"name": _b64(name), "lease": str(lease)}
        case Unlock(key):
            return "/v3/lock/unlock", {"key": _b64(key)}
        case Campaign(name, lease, value):
            message = {"name": _b64(name), "lease": str(lease), "value": _b64(value)}
            return "/v3/election/campaign", message
        case Resign((name, key, rev, lease)):
            leader = {"name": _b64(name), "key": _b64(key), "rev": str(rev), "lease": str(lease)}
            return "/v3/election/resign", {"leader": leader}
    raise TypeError(f"nobody sends {request!r}")


def _b64(data: bytes) -> str:
    return b64encode(data).decode()


def note_answer(call: Call, status: int, body: bytes) -> str:
    """Enter an answer; the text of an error. Raises BadAnswer."""
    if status != 200:
        text = error_text(body)
        if status in (400, 404, 500) and text in _DECIDED:
            call.outcome, call.error = Outcome.ERROR, text
        return text
    try:
        message = orjson.loads(body)
        if isinstance(call.request, KeepAlive):
            if "error" in message:  # a stream that broke off
                return error_text(body)
            message = message["result"]
        call.revision = int(message["header"]["revision"])
        call.told = _told(call.request, message)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise BadAnswer(f"{call.request} was answered by {body[:300]!r}") from error
    call.outcome = Outcome.OK
    return ""


def _told(request: Ask, message: dict[str, Any]) -> Told:
    match request:
        case LeaseGrant():
            return LeaseGrantResponse(int(message["ID"]), int(message["TTL"]))
        case KeepAlive():
            return int(message.get("TTL", 0))  # which is missing if there is no such lease
        case ListLeases():
            return [int(one["ID"]) for one in message.get("leases", [])]
        case Lock():
            return b64decode(message["key"])
        case Campaign():
            leader = message["leader"]
            name, key = b64decode(leader["name"]), b64decode(leader["key"])
            return LeaderKey(name, key, int(leader["rev"]), int(leader["lease"]))
    return None
