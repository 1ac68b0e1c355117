"""How members are at one moment, and from two such moments, how fast they go. For ``top``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kvorum.client import Client
from kvorum.errors import AuthenticationFailed, KvorumError, PermissionDenied
from kvorum.messages import b64

_HEALTH_KEY = {"key": b64(b"health")}


@dataclass(frozen=True)
class Sample:
    """``latency``: seconds of a linearizable read; ``at``: when, of the monotonic clock. A member that does
    not answer has an ``error``, and zeros."""

    name: str
    endpoint: str
    at: float
    error: str = ""
    member_id: int = 0
    leader_id: int = 0
    is_learner: bool = False
    version: str = ""
    term: int = 0
    index: int = 0
    applied: int = 0
    revision: int = 0
    db_bytes: int = 0
    db_used_bytes: int = 0
    latency: float = 0.0

    @property
    def role(self) -> str:
        if not self.member_id:
            return "?"
        if self.is_learner:
            return "learner"
        return "leader" if self.leader_id == self.member_id else "follower"


def places(client: Client, endpoints: Sequence[str]) -> dict[str, str]:
    """Where to ask which member: an endpoint, and its name. Where nobody can say, those that were given.
    Raises AuthenticationFailed."""
    try:
        members = client.members()
    except AuthenticationFailed:
        raise
    except KvorumError:
        return dict.fromkeys(endpoints, "")
    found = {}
    for member in members:
        urls = member.get("clientURLs") or []
        if urls:
            found[urls[0]] = member.get("name", "")
    return found or dict.fromkeys(endpoints, "")


def take(client: Client, where: Mapping[str, str]) -> list[Sample]:
    """Of all of them at the same time. Raises AuthenticationFailed."""
    with ThreadPoolExecutor(max(len(where), 1)) as pool:
        return list(pool.map(lambda place: _take(client, *place), where.items()))


def _take(client: Client, endpoint: str, name: str) -> Sample:
    core, begun = client.core, time.monotonic()
    try:
        status = client.run(core.call_at(endpoint, "/v3/maintenance/status", {}))
        asked = time.monotonic()
        with suppress(PermissionDenied):  # the member is asked before the user is looked at
            client.run(core.call_at(endpoint, "/v3/kv/range", _HEALTH_KEY))
    except AuthenticationFailed:
        raise
    except KvorumError as error:
        return Sample(name, endpoint, begun, error=str(error))
    return _sample(name, endpoint, asked, time.monotonic() - asked, status)


def _sample(name: str, endpoint: str, at: float, latency: float, status: Mapping[str, Any]) -> Sample:
    header = status.get("header", {})
    return Sample(
        name=name,
        endpoint=endpoint,
        at=at,
        member_id=int(header.get("member_id", 0)),
        leader_id=int(status.get("leader", 0)),
        is_learner=bool(status.get("isLearner")),
        version=status.get("version", ""),
        term=int(status.get("raftTerm", 0)),
        index=int(status.get("raftIndex", 0)),
        applied=int(status.get("raftAppliedIndex", 0)),
        revision=int(header.get("revision", 0)),
        db_bytes=int(status.get("dbSize", 0)),
        db_used_bytes=int(status.get("dbSizeInUse", 0)),
        latency=latency,
    )


def rate(before: Sample | None, now: Sample) -> float | None:
    """Entries of the log a second; None where that cannot be told."""
    if before is None or before.error or now.error or now.at <= before.at or now.index < before.index:
        return None
    return (now.index - before.index) / (now.at - before.at)
