"""Who this node is and with whom it starts: from its data, its flags, or the cluster it joins.

    data directory has a log         → its identity stands; flags about the founding mean nothing any more
    --initial-cluster-state new      → the flags found a cluster: ids follow from the peer URLs and the token
    --initial-cluster-state existing → the cluster is asked, and must have this member on its list

Whoever was started before and comes back with an empty disk has forgotten its votes and what it
acknowledged, so it is turned away: it must be removed and added anew, under a new id.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from api.config import ServerConfig
from api.identity import cluster_id, member_id
from api.roster import Details, Member, Roster, members_of
from raft.core.types import Membership

MEMBERS_PATH = "/members"
ASK_SECONDS = 10.0
_ASK_ONE_SECONDS = 2.0
_IDENTITY = struct.Struct(">QQ")


class StartRefused(Exception):
    """A safe start is not possible; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Origin:
    """``membership`` is what counts while log and state know none; ``addresses`` lead to the others."""

    cluster_id: int
    member_id: int
    membership: Membership
    addresses: Mapping[int, tuple[str, ...]]

    @property
    def identity(self) -> bytes:
        """As the log keeps it."""
        return _IDENTITY.pack(self.cluster_id, self.member_id)


def founding(config: ServerConfig) -> tuple[int, Roster]:
    """(cluster id, roster) of the cluster that the flags describe."""
    token = config.initial_cluster_token
    details = {member_id(one.peer_urls, token): Details(one.name, one.peer_urls) for one in config.founders}
    return cluster_id(details), Roster(details)


def from_data(config: ServerConfig, identity: bytes) -> Origin:
    """Go on as whoever the log says we are. Raises StartRefused where that is somebody else."""
    cluster, member = _IDENTITY.unpack(identity)
    flags_cluster, roster = founding(config)
    if cluster != flags_cluster or member not in roster.details:
        # It was added later, or the flags are not those of the founding: the state knows.
        return Origin(cluster, member, Membership(), {})
    check_name(config, member, roster)
    return _founder(cluster, member, roster)


def check_name(config: ServerConfig, member: int, roster: Roster) -> None:
    """Raises StartRefused if the data is one member's and --name is another's."""
    own = roster.details.get(member, Details()).name
    others = [one for one, details in roster.details.items() if details.name == config.name and one != member]
    if others and own != config.name:
        raise StartRefused(
            f"{config.data_dir} holds the data of member {own or 'without a name'} ({member:x}), but --name"
            f" is {config.name!r}, which is member {others[0]:x}: give this one its own --data-dir."
        )


async def from_flags(config: ServerConfig) -> Origin:
    """Begin with an empty disk. Raises StartRefused."""
    if config.initial_cluster_state == "existing":
        return await _joining(config)
    cluster, roster = founding(config)
    own = member_id(config.initial_advertise_peer_urls, config.initial_cluster_token)
    await _check_not_started_before(config, cluster, own, roster)
    return _founder(cluster, own, roster)


def _founder(cluster: int, member: int, roster: Roster) -> Origin:
    """One of those that the roster names, all of them voters."""
    membership = Membership(frozenset(roster.details), context=roster.pack())
    return Origin(cluster, member, membership, roster.addresses(roster.details))


async def _check_not_started_before(config: ServerConfig, cluster: int, own: int, roster: Roster) -> None:
    others = [url for one, details in roster.details.items() if one != own for url in details.peer_urls]
    for answer in await _ask_all(others):
        if answer["cluster_id"] != cluster:
            continue  # the handshake will tell who of us is wrong
        known = next((one for one in answer["members"] if one.id == own), None)
        if known is None or known.client_urls:
            what = "has been started before" if known else "is no member any more"
            raise StartRefused(
                f"{config.data_dir} is empty, but the cluster says that {config.name} ({own:x}) {what}:"
                " to replace it, remove it with `kvorum member remove`, add it anew with `kvorum member add`,"
                " and start it with --initial-cluster-state existing."
            )


async def _joining(config: ServerConfig) -> Origin:
    own_urls = set(config.initial_advertise_peer_urls)
    others = [url for one in config.founders for url in one.peer_urls if url not in own_urls]
    if not others:
        raise StartRefused(
            "--initial-cluster names nobody but this member: with --initial-cluster-state existing it must"
            " name the members of the cluster to join."
        )
    deadline = asyncio.get_running_loop().time() + ASK_SECONDS
    while not (answers := await _ask_all(others)):
        if asyncio.get_running_loop().time() > deadline:
            raise StartRefused(
                f"none of the cluster's members answers at {', '.join(others)}: to join a cluster, one of"
                " them must be reached (see --initial-cluster)."
            )
        await asyncio.sleep(0.2)
    if len({answer["cluster_id"] for answer in answers}) > 1:
        raise StartRefused(
            f"the members at {', '.join(others)} are not of one cluster: check --initial-cluster."
        )
    # Some may lag behind, or be about to join like this one.
    newest = max(answers, key=lambda answer: answer["applied"])
    members: Sequence[Member] = newest["members"]
    own = next((one for one in members if set(one.peer_urls) & own_urls), None)
    if own is None:
        known = ", ".join(url for one in members for url in one.peer_urls)
        raise StartRefused(
            f"the cluster at {others[0]} has no member with the peer URL {' or '.join(sorted(own_urls))} (it"
            f" has {known}): add it first with `kvorum member add {config.name} --peer-urls …`, or check"
            " --initial-cluster and --initial-advertise-peer-urls."
        )
    if own.is_started:
        raise StartRefused(
            f"{config.data_dir} is empty, but the cluster says that member {own.name} ({own.id:x}) has been"
            " started before: remove it with `kvorum member remove`, add it anew, and start it again."
        )
    addresses = {one.id: one.peer_urls for one in members}
    return Origin(newest["cluster_id"], own.id, Membership(), addresses)


async def _ask_all(urls: Sequence[str]) -> list[dict[str, Any]]:
    """The lists of members that those who answer know."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ASK_ONE_SECONDS)) as session:
        answers = await asyncio.gather(*(_ask(session, url) for url in urls))
    return [answer for answer in answers if answer is not None]


async def _ask(session: aiohttp.ClientSession, url: str) -> dict[str, Any] | None:
    with suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError):
        async with session.get(url.rstrip("/") + MEMBERS_PATH) as response:
            if response.status != 200:
                return None
            answer = await response.json()
            members = [
                Member(
                    int(one["id"], 16),
                    one["name"],
                    tuple(one["peerURLs"]),
                    tuple(one["clientURLs"]),
                    one["isLearner"],
                )
                for one in answer["members"]
            ]
            return {
                "cluster_id": int(answer["cluster_id"], 16),
                "applied": int(answer["applied"]),
                "members": members,
            }
    return None


def members_page(cluster: int, membership: Membership, applied: int) -> dict[str, Any]:
    """What ``_ask`` reads at the other end; ``applied``: the index of the last entry that it is as of."""
    members = [
        {
            "id": f"{one.id:x}",
            "name": one.name,
            "peerURLs": one.peer_urls,
            "clientURLs": one.client_urls,
            "isLearner": one.is_learner,
        }
        for one in members_of(membership)
    ]
    return {"cluster_id": f"{cluster:x}", "applied": applied, "members": members}
