"""Who talks to whom: every request between members says so in its headers, and strangers are refused.

A request names the cluster, its sender, whom it means to reach, and the protocol it speaks.
``accept`` compares that with who we are. What is refused is explained to both sides: here in the
log, there in the header ``X-Kvorum-Refused``, which is there before any body is read.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from raft.codec import PROTOCOL_VERSION
from raft.core.types import NO_MEMBER

CLUSTER: Final = "X-Kvorum-Cluster-ID"
SENDER: Final = "X-Kvorum-From"
RECEIVER: Final = "X-Kvorum-To"
SENDER_URLS: Final = "X-Kvorum-Peer-URLs"
PROTOCOL: Final = "X-Kvorum-Protocol"
LOG: Final = "X-Kvorum-Log"
REFUSED: Final = "X-Kvorum-Refused"
REASON: Final = "X-Kvorum-Reason"


class Reason(enum.Enum):
    """Why a member is not let in."""

    NOT_A_MEMBER = "not-a-member"  # the request is not of Kvorum's at all
    PROTOCOL = "protocol"
    CLUSTER = "cluster"
    OTHER_MEMBER = "other-member"  # the address is that of somebody else
    SAME_MEMBER = "same-member"  # sender and receiver claim to be the same
    REMOVED = "removed"
    FORGETFUL = "forgetful"  # it has started before, and has lost its log


@dataclass(frozen=True, slots=True)
class Identity:
    """What a member says of itself. ``peer_urls``: where it is reached."""

    cluster_id: int
    member_id: int
    peer_urls: tuple[str, ...] = ()

    def headers(self, receiver: int, *, log_is_empty: bool = False) -> dict[str, str]:
        """For a request to ``receiver``."""
        return {
            CLUSTER: f"{self.cluster_id:x}",
            SENDER: f"{self.member_id:x}",
            RECEIVER: f"{receiver:x}",
            SENDER_URLS: ",".join(self.peer_urls),
            PROTOCOL: str(PROTOCOL_VERSION),
            LOG: "empty" if log_is_empty else "",
        }


@dataclass(frozen=True, slots=True)
class Sender:
    """Who made a request that was let in."""

    member_id: int
    peer_urls: tuple[str, ...]


class Refused(Exception):
    """A request from a stranger; ``str()`` says what was wrong and what was expected."""

    def __init__(self, reason: Reason, sender: int, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.sender = sender

    def headers(self) -> dict[str, str]:
        """What tells the sender."""
        return {REFUSED: str(self), REASON: self.reason.value}


def accept(
    headers: Mapping[str, str], us: Identity, removed: frozenset[int], has_started: Callable[[int], bool]
) -> Sender:
    """Who sends this. ``has_started``: whether a member is known to have been part of the cluster. Raises
    Refused."""
    sender, receiver = _id(headers, SENDER), _id(headers, RECEIVER)
    cluster = _id(headers, CLUSTER)
    # It is quoted below, to the sender and in the log: a stranger's may be of any bytes and length.
    protocol = headers.get(PROTOCOL, "none").encode("ascii", "backslashreplace").decode()[:40]
    if not sender:
        raise Refused(Reason.NOT_A_MEMBER, sender, "the request does not say which member sent it")
    if protocol != str(PROTOCOL_VERSION):
        raise Refused(
            Reason.PROTOCOL,
            sender,
            f"protocol version mismatch: member {sender:x} speaks {protocol},"
            f" member {us.member_id:x} speaks {PROTOCOL_VERSION}",
        )
    if cluster != us.cluster_id:
        raise Refused(
            Reason.CLUSTER,
            sender,
            f"cluster ID mismatch: member {sender:x} is of cluster {cluster:x}, member {us.member_id:x}"
            f" of cluster {us.cluster_id:x} (different --initial-cluster or --initial-cluster-token, or"
            " the data of another cluster)",
        )
    if sender in removed:
        raise Refused(
            Reason.REMOVED, sender, f"member {sender:x} has been permanently removed from the cluster"
        )
    if sender == us.member_id:
        raise Refused(
            Reason.SAME_MEMBER,
            sender,
            f"both ends of the connection are member {sender:x}: expected two members",
        )
    if receiver != us.member_id:
        raise Refused(
            Reason.OTHER_MEMBER,
            sender,
            f"this is member {us.member_id:x}, not member {receiver:x}: a peer URL leads to the wrong place",
        )
    if headers.get(LOG) == "empty" and has_started(sender):
        raise Refused(
            Reason.FORGETFUL,
            sender,
            f"member {sender:x} has been part of the cluster before, and comes back with an empty log: it has"
            " forgotten what it promised, so remove it, and add it anew",
        )
    urls: Sequence[str] = headers.get(SENDER_URLS, "").split(",")
    return Sender(sender, tuple(url for url in urls if url))


def _id(headers: Mapping[str, str], name: str) -> int:
    try:
        return int(headers.get(name, ""), 16)
    except ValueError:
        return NO_MEMBER
