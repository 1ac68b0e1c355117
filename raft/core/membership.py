"""Who takes part, as the log says: membership changes by joint consensus (paper §6).

A membership entry holds the whole membership that is in force from there on, and, as in
the paper, a server uses the latest one in its log, committed or not. So a change that a
conflict takes out of the log is undone with it (``Memberships.truncate``).

A change of voters goes through a joint membership, always, even for a single voter:
one way, and the one whose safety is proved. When the joint entry is committed, the leader
appends the final one by itself (``continue_change``). A change of learners only takes
effect at once. One change at a time, and only by a leader that has committed in its own term.

    {1,2,3}  ─ propose ─►  {1,2,4}+{1,2,3}  ─ committed ─►  {1,2,4}  ─ committed ─►  3 may go

A leader that the final membership leaves out leads until that is committed, without
counting itself, then hands over (§6).
"""

from __future__ import annotations

import enum
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from raft.core.errors import InvariantViolated, MembershipRefused, NotLeader
from raft.core.messages import TimeoutNow
from raft.core.progress import ProgressState
from raft.core.types import Entry, EntryType, Membership, Role

if TYPE_CHECKING:
    from raft.core.consensus import Consensus

FORMAT_VERSION = 1
_HEAD = struct.Struct(">BHHH")  # version, number of voters, learners, outgoing voters
_MEMBER = struct.Struct(">Q")


class ChangeKind(enum.Enum):
    ADD_VOTER = "add voter"  # of a learner: promote it
    ADD_LEARNER = "add learner"  # of a voter: demote it
    REMOVE = "remove"


class Change(NamedTuple):
    kind: ChangeKind
    member: int


def encode(membership: Membership) -> bytes:
    """A membership entry's data."""
    groups = (membership.voters, membership.learners, membership.voters_outgoing)
    ids = [_MEMBER.pack(member) for group in groups for member in sorted(group)]
    return b"".join((_HEAD.pack(FORMAT_VERSION, *map(len, groups)), *ids, membership.context))


def decode(data: bytes) -> Membership:
    """Raises InvariantViolated: who cannot tell who votes must not go on."""
    if data and data[0] != FORMAT_VERSION:
        raise InvariantViolated(
            f"a membership entry of format version {data[0]} cannot be read;"
            f" this program knows version {FORMAT_VERSION}"
        )
    if len(data) < _HEAD.size:
        raise InvariantViolated(f"a membership entry has {len(data)} bytes, {_HEAD.size} were expected")
    _, *counts = _HEAD.unpack_from(data)
    end = _HEAD.size + sum(counts) * _MEMBER.size
    if len(data) < end:
        raise InvariantViolated(f"a membership entry has {len(data)} bytes, {end} were expected")
    ids = [member for (member,) in _MEMBER.iter_unpack(data[_HEAD.size : end])]
    voters, learners = counts[0], counts[0] + counts[1]
    return Membership(
        frozenset(ids[:voters]), frozenset(ids[voters:learners]), frozenset(ids[learners:]), data[end:]
    )


class Memberships:
    """Every membership that the log has held since ``index``, where it was ``membership``."""

    def __init__(self, index: int, membership: Membership) -> None:
        self._indexes = [index]
        self._memberships = [membership]

    @property
    def latest(self) -> Membership:
        return self._memberships[-1]

    @property
    def latest_index(self) -> int:
        """Index of the entry that brought the latest membership."""
        return self._indexes[-1]

    @property
    def known_from(self) -> int:
        """The first index whose membership is known; no entry need have brought it."""
        return self._indexes[0]

    def at(self, index: int) -> Membership:
        """The membership in force at ``index``, which must not lie before the first one known."""
        place = bisect_right(self._indexes, index) - 1
        if place < 0:
            raise InvariantViolated(
                f"the membership at {index} is not known, only from {self._indexes[0]} on"
            )
        return self._memberships[place]

    def append(self, entries: Iterable[Entry]) -> bool:
        """These entries were added at the end of the log. Returns whether the membership changed."""
        changed = False
        for entry in entries:
            if entry.type is EntryType.MEMBERSHIP:
                self._indexes.append(entry.index)
                self._memberships.append(decode(entry.data))
                changed = True
        return changed

    def truncate(self, index: int) -> bool:
        """The log's entries from ``index`` on are gone. Returns whether the membership changed."""
        before = len(self._indexes)
        while len(self._indexes) > 1 and self._indexes[-1] >= index:
            self._indexes.pop()
            self._memberships.pop()
        return len(self._indexes) != before

    def restore(self, index: int, membership: Membership) -> None:
        """A snapshot stands for all of the log."""
        self._indexes, self._memberships = [index], [membership]


def first_entry(c: Consensus) -> Entry:
    """What a new leader begins its term with: nothing; but the first entry of all is the founding
    membership, so that the log tells it also to those that join later."""
    index, term = c.log.last_index + 1, c.current_term
    if index > 1:
        return Entry(index, term, EntryType.NORMAL, b"")
    return Entry(index, term, EntryType.MEMBERSHIP, encode(c.membership))


def propose(c: Consensus, changes: Sequence[Change], context: bytes | None) -> int:
    """Begin a change; returns the index of its first entry. Raises NotLeader or MembershipRefused."""
    if c.role is not Role.LEADER:
        raise NotLeader(c.leader_id)
    target = _target(c, changes, c.membership.context if context is None else context)
    if c.transfer_target:
        raise MembershipRefused("leadership is being transferred: expected no change of members meanwhile")
    if c.change_under_way:
        raise MembershipRefused("another change of members is under way: expected one at a time")
    if not c.committed_in_own_term():
        # Ongaro 2015: until then this leader may not know which membership is the latest committed.
        raise MembershipRefused("the leader is new and has not committed anything yet: try again")
    if target == c.membership:
        raise MembershipRefused("the change would change nothing")
    if target.voters != c.membership.voters:
        target = replace(target, voters_outgoing=c.membership.voters)
    return _append(c, target)


def _target(c: Consensus, changes: Sequence[Change], context: bytes) -> Membership:
    """The membership after all changes."""
    voters, learners = set(c.membership.voters), set(c.membership.learners)
    for kind, member in changes:
        if kind is ChangeKind.REMOVE and member not in voters | learners:
            raise MembershipRefused(f"member {member} cannot be removed: it is not a member")
        if kind is ChangeKind.ADD_VOTER and member in learners:
            _check_caught_up(c, member)
        voters.discard(member)
        learners.discard(member)
        if kind is ChangeKind.ADD_VOTER:
            voters.add(member)
        elif kind is ChangeKind.ADD_LEARNER:
            learners.add(member)
    if not voters:
        raise MembershipRefused("no voter would remain")
    return Membership(frozenset(voters), frozenset(learners), context=context)


def _check_caught_up(c: Consensus, learner: int) -> None:
    """A learner that lags would, as a voter, hold up every commit until it has caught up (thesis 4.2.1)."""
    progress = c.progress[learner]
    lag = c.log.last_index - progress.match_index
    if progress.state is not ProgressState.REPLICATE:
        raise MembershipRefused(f"learner {learner} has not answered yet: expected it to follow the log")
    if lag > c.config.promotion_lag_max:
        raise MembershipRefused(
            f"learner {learner} lacks {lag} entries: expected at most {c.config.promotion_lag_max}"
        )


def _append(c: Consensus, membership: Membership) -> int:
    index = c.log.last_index + 1
    c.append([Entry(index, c.current_term, EntryType.MEMBERSHIP, encode(membership))])
    return index


def continue_change(c: Consensus) -> None:
    """The leader has committed more: leave a joint membership, or the cluster, if that is what was
    committed."""
    if c.memberships.latest_index > c.commit_index or not c.committed_in_own_term():
        return
    if c.membership.is_joint:
        _append(c, c.membership.left())
    elif c.id not in c.membership.voters:
        _hand_over(c)
    else:
        c.drop_departed(told=True)


def _hand_over(c: Consensus) -> None:
    """The final membership is committed without this leader: step down (§6), and name the voter
    that is furthest, so that nobody waits for an election timeout (thesis 3.10)."""
    c.broadcast_heartbeat()  # tells the commit, also to those that leave
    voters = sorted(c.membership.voters, key=lambda voter: (-c.progress[voter].match_index, voter))
    if c.progress[voters[0]].match_index == c.log.last_index:
        c.send(TimeoutNow(c.id, voters[0], c.current_term))
    c.become_follower(c.current_term, 0)
