"""What Raft guarantees (thesis figure 3.2), checked on cores as they stand and as they change.

Called by tests and the simulator after every step. ``check_state`` looks at one server;
``Observer`` remembers what was seen of all of them, so it also finds what only shows over
time or between servers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from raft.core.consensus import Consensus
from raft.core.errors import InvariantViolated
from raft.core.types import Entry, EntryType, HardState, Membership, Position, Role


def check_state(core: Consensus) -> None:
    """What must hold of one server at any time."""
    log = core.log
    if not (
        log.last_applied <= log.handing_index <= log.commit_index <= log.last_index
        and log.handing_index <= log.durable_index <= log.handed_index <= log.last_index
    ):
        raise _broken(
            core, "applied ≤ handed out ≤ committed ≤ last, and handed out ≤ durable ≤ written ≤ last"
        )
    if core.role is not Role.LEADER:
        return
    if core.leader_id != core.id:
        raise _broken(core, "a leader knows that it leads")
    for peer, progress in core.progress.items():
        if not progress.match_index < progress.next_index:
            raise _broken(core, f"match < next for member {peer}")
        if not progress.match_index <= log.last_index:
            raise _broken(core, f"match of member {peer} is within the log")
        if progress.inflight > progress.inflight_max:
            raise _broken(
                core, f"at most {progress.inflight_max} AppendEntries are under way to member {peer}"
            )
    if core.progress[core.id].match_index > log.durable_index:
        raise _broken(core, "own match counts what is durable")


def _broken(core: Consensus, rule: str) -> InvariantViolated:
    log = core.log
    return InvariantViolated(
        f"member {core.id} ({core.role.value}, term {core.current_term}) breaks “{rule}”:"
        f" last={log.last_index} handed={log.handed_index} durable={log.durable_index}"
        f" commit={log.commit_index} handing={log.handing_index} applied={log.last_applied}"
    )


class _Seen(NamedTuple):
    """What a server was like when it was looked at last."""

    hard_state: HardState
    role: Role
    last: Position
    membership_index: int


class Observer:
    """Watches a whole cluster. Call ``check`` after each step with the servers that changed."""

    def __init__(self) -> None:
        self.committed: dict[int, Entry] = {}
        self.leaders: dict[int, int] = {}  # term → who led it
        self._entries: dict[Position, tuple[Entry, int]] = {}  # with the term of the entry before
        self._seen: dict[int, _Seen] = {}
        self._applied: dict[int, Entry] = {}

    def restarted(self, member: int) -> None:
        """A server forgot everything that was not durable, its commit index included."""
        self._seen.pop(member, None)

    def check(self, cores: Iterable[Consensus]) -> None:
        for core in sorted(cores, key=lambda core: core.id):
            check_state(core)
            before = self._seen.get(core.id)
            log = core.log
            hard_state = HardState(core.current_term, core.voted_for, log.commit_index)
            last = Position(log.last_index, log.last_term)
            now = _Seen(hard_state, core.role, last, core.memberships.latest_index)
            if now == before:
                continue
            self._check_change(core, before, hard_state)
            if before is None or last != before.last:
                self._check_log(core, before)
            if core.role is Role.LEADER:
                self._check_leader(core, before)
            self._seen[core.id] = now

    def applied(self, member: int, entry: Entry) -> None:
        """State Machine Safety: nobody applies a different entry at the same index."""
        before = self._applied.setdefault(entry.index, entry)
        if before != entry:
            raise InvariantViolated(
                f"State Machine Safety: member {member} applies {entry}, before it was {before}"
            )

    def _check_change(self, core: Consensus, before: _Seen | None, now: HardState) -> None:
        """Terms and commit indexes only grow, and a vote once given stands for its term."""
        old = before.hard_state if before is not None else HardState(0, 0, core.log.first_index - 1)
        if before is not None:
            if now.current_term < old.current_term:
                raise _broken(core, f"the term never goes back, it was {old.current_term}")
            if now.current_term == old.current_term and old.voted_for not in (0, now.voted_for):
                raise _broken(core, f"one vote a term: it was given to member {old.voted_for} before")
            if now.commit_index < old.commit_index:
                raise _broken(core, f"the commit index never goes back, it was {old.commit_index}")
        low = max(old.commit_index, core.log.first_index - 1) + 1
        for entry in core.log.entries(low, now.commit_index + 1):
            committed = self.committed.setdefault(entry.index, entry)
            if committed != entry:
                raise InvariantViolated(
                    f"State Machine Safety: member {core.id} has committed {entry}, another {committed}"
                )

    def _check_log(self, core: Consensus, before: _Seen | None) -> None:
        """Log Matching: logs that agree on a position agree on the entry there and on the one before.
        And the membership is the one that the log says (§6)."""
        log = core.log
        low = log.first_index
        if before is not None and before.last.index >= low and log.has(*before.last):
            low = before.last.index + 1
        for entry in log.entries(low, log.last_index + 1):
            known = (entry, log.term(entry.index - 1))
            first = self._entries.setdefault(Position(entry.index, entry.term), known)
            if first != known:
                raise InvariantViolated(
                    f"Log Matching: member {core.id} has {known[0]} after term {known[1]},"
                    f" another {first[0]} after term {first[1]}"
                )
        index = core.memberships.latest_index
        if index > log.last_index:
            raise _broken(core, f"the membership is the log's: it is of entry {index}")
        brought = index > core.memberships.known_from and index >= log.first_index
        if brought and log.entries(index, index + 1)[0].type is not EntryType.MEMBERSHIP:
            raise _broken(core, f"the membership is the log's: entry {index} is none")

    def _check_leader(self, core: Consensus, before: _Seen | None) -> None:
        leader = self.leaders.setdefault(core.current_term, core.id)
        if leader != core.id:
            raise InvariantViolated(
                f"Election Safety: members {leader} and {core.id} both lead term {core.current_term}"
            )
        if before is None or before.role is not Role.LEADER:
            self._check_complete(core)
            return
        if core.log.last_index < before.last.index or not core.log.has(*before.last):
            raise _broken(core, f"Leader Append-Only: its log ended at {before.last}")
        commit_index = core.log.commit_index
        if commit_index > before.hard_state.commit_index and not core.committed_in_own_term():
            raise _broken(core, "§5.4.2: a leader counts copies of entries of its own term only")
        if core.memberships.latest_index != before.membership_index:
            _check_membership_step(core, before.membership_index)

    def _check_complete(self, core: Consensus) -> None:
        """Leader Completeness: a new leader's log holds every entry committed in earlier terms."""
        for index, entry in self.committed.items():
            if index < core.log.first_index or entry.term >= core.current_term:
                continue
            if not core.log.has(index, entry.term):
                raise InvariantViolated(
                    f"Leader Completeness: member {core.id} leads term {core.current_term}"
                    f" without the committed entry {index}@{entry.term}"
                )


def _check_membership_step(core: Consensus, index: int) -> None:
    """§6: a leader changes one thing at a time, when the last change is committed; and voters only
    through a joint membership of the old and the new ones."""
    old, new = core.memberships.at(index), core.membership
    if index > core.log.commit_index:
        raise _broken(core, f"one change of members at a time: {index} is not committed")
    if old.is_joint:
        allowed = new == old.left()
    else:
        allowed = new.voters == old.voters or new.voters_outgoing == old.voters
    if not allowed:
        raise _broken(core, f"voters change through a joint membership: {_told(old)} became {_told(new)}")


def _told(membership: Membership) -> str:
    halves = [sorted(membership.voters), sorted(membership.voters_outgoing), sorted(membership.learners)]
    return "{} & {} learners {}".format(*halves)
