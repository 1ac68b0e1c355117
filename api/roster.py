"""What is known of the members beside their votes: names and URLs.

It is the context of the membership that consensus replicates (``raft.core.types.Membership``), so
it changes with it, is in snapshots, and tells everybody where a new member is reached as soon as
that member counts. On disk and wire: msgpack ``[version, [[id, name, peer URLs, client URLs], …],
[removed ids]]``.

A removed member's id stays known for good: it may come back, with old data and old messages,
and must be turned away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import msgpack

from raft.core.types import Membership

FORMAT_VERSION = 1


class Details(NamedTuple):
    """``name`` is empty, and so are ``client_urls``, until the member has started."""

    name: str = ""
    peer_urls: tuple[str, ...] = ()
    client_urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """A member as clients see it."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool = False

    @property
    def is_started(self) -> bool:
        return bool(self.name)


@dataclass(frozen=True, slots=True)
class Roster:
    """Details by member id, and the ids of those that were removed."""

    details: Mapping[int, Details] = field(default_factory=dict)
    removed: frozenset[int] = frozenset()

    def with_member(self, member: int, details: Details) -> Roster:
        return replace(self, details={**self.details, member: details})

    def without(self, member: int) -> Roster:
        details = {one: known for one, known in self.details.items() if one != member}
        return Roster(details, self.removed | {member})

    def addresses(self, members: Iterable[int]) -> dict[int, tuple[str, ...]]:
        """Where these members are reached by their peers."""
        return {one: self.details[one].peer_urls for one in members if one in self.details}

    def pack(self) -> bytes:
        rows = [[member, *details] for member, details in sorted(self.details.items())]
        packed: bytes = msgpack.packb([FORMAT_VERSION, rows, sorted(self.removed)])
        return packed


@lru_cache(maxsize=8)
def roster_of(context: bytes) -> Roster:
    """The roster in a membership's context; an early single member has none. Raises ValueError."""
    if not context:
        return Roster()
    version, rows, removed = msgpack.unpackb(context, use_list=False)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"the list of members has format version {version}, this program knows {FORMAT_VERSION}"
        )
    return Roster({member: Details(*details) for member, *details in rows}, frozenset(removed))


def removed_from(membership: Membership) -> frozenset[int]:
    """Who is a member no more. Who is being removed is one until the change is final: if the leader is lost
    before that, the others may need its vote."""
    return roster_of(membership.context).removed - membership.members


def members_of(membership: Membership) -> tuple[Member, ...]:
    """By id, as etcd lists them. Of a joint membership, those of its new half."""
    details = roster_of(membership.context).details
    return tuple(
        Member(one, *details.get(one, Details()), is_learner=one in membership.learners)
        for one in sorted(membership.voters | membership.learners)
    )
