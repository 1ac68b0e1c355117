"""What must hold at every step, seen from above: the oracle knows all nodes, disks and messages.

The five properties of Raft are checked by ``raft.core.invariants``. Here are the promises that
need the disks or more than one node: what is said is durable, what is committed is on a
quorum of disks, what is applied is the same everywhere, nothing goes back over a restart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from kvstate.commands import LeaseCheckpointResponse, LeaseGrantResponse, LeaseRevokeResponse
from kvstate.machine import ApplyResult
from raft.core.errors import InvariantViolated
from raft.core.invariants import Observer
from raft.core.membership import decode
from raft.core.messages import (
    AppendEntriesResponse,
    InstallSnapshot,
    Message,
    RequestVote,
    RequestVoteResponse,
)
from raft.core.types import ORIGIN, Membership, Position, ReadState, Role
from raft.wal.recovery import Log, recover
from raft.wal.wal import Recovered
from tests.sim.history import History
from tests.sim.lease_oracle import LeaseOracle

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.simulation import Simulation

HASH_EVERY = 16
OF_LEASES = (LeaseGrantResponse, LeaseRevokeResponse, LeaseCheckpointResponse)
WAL = Path("/wal")


class Violation(AssertionError):
    """A promise is broken. ``check`` names which, in a few words that stay the same from run to run."""

    def __init__(self, check: str, story: str) -> None:
        super().__init__(f"{check}: {story}")
        self.check = check


class Oracle:
    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self.observer = Observer()
        self.leases = LeaseOracle(sim)
        self.history: History = sim.history
        self.commit_index = 0  # the highest that any leader has committed
        self._results: dict[int, tuple[bytes, ApplyResult]] = {}
        self._hashes: dict[int, tuple[int, bytes]] = {}
        self._durable_applied: dict[int, int] = {}
        self._roles: dict[int, str] = {}
        self._leading: dict[int, int] = {}  # member → the term it led last
        self.violation: Violation | None = None  # the first; some callers swallow what is raised

    def expect(self, condition: bool, check: str, story: str) -> None:
        if not condition:
            self.fail(check, story)

    def fail(self, check: str, story: str) -> NoReturn:
        violation = Violation(check, story)
        self.violation = self.violation or violation
        raise violation

    # After every step.

    def step(self, node: Node) -> None:
        """``node`` has just done something."""
        core = node.core
        try:
            self.observer.check([core])
        except InvariantViolated as error:
            self.fail(_short(str(error)), str(error))
        if core.commit_index > self.commit_index:
            self._check_committed(node)
        if core.role is Role.LEADER:
            self._check_office(node)
        self._check_log_start(node)
        self._check_durable(node)
        if self._sim.tracing:
            self._trace_change(node)

    def _check_office(self, node: Node) -> None:
        """A leader was elected by a quorum, whose votes are on their disks; and a transfer ends."""
        core = node.core
        if self._leading.get(node.member) != core.current_term:
            self._leading[node.member] = core.current_term
            term = core.current_term
            kept = {member: one.disk.shadow.hard_state for member, one in self._sim.nodes.items()}
            story = f"{node} leads term {term}, on disk is {kept}"
            self.expect(kept[node.member][:2] == (term, node.member), "a leader's own vote is durable", story)
            voters = [m for m, (t, vote, _) in kept.items() if t > term or (t, vote) == (term, node.member)]
            self.expect(_is_quorum(core.membership, voters), "a leader has a quorum of votes", story)
        waits = bool(core.transfer_target) and core.transfer_ticks > core.config.election_ticks
        self.expect(not waits, "a transfer of leadership ends", f"{node} waits for n{core.transfer_target}")

    def _check_log_start(self, node: Node) -> None:
        """What the state does not hold durably is still in the log."""
        log, durable = node.core.log, node.machine.durable_applied[0]
        self.expect(
            log.installing is not None or log.first_index <= durable + 1,
            "the log begins within the durable state",
            f"{node}: the log begins at {log.first_index}, durable is {durable}",
        )

    def _check_durable(self, node: Node) -> None:
        """What the core counts as durable is what the disk has."""
        log, disk = node.core.log, node.disk
        index = log.durable_index
        if log.installing is None and index > disk.shadow.base.index and index >= log.first_index:
            story = f"{node} counts {index}@{log.term(index)}, on disk is {disk.term_at(index)}"
            self.expect(disk.term_at(index) == log.term(index), "what counts as durable is on disk", story)

    def segment_removed(self, node: Node) -> None:
        """What is left of the log on disk says the same as before, but for what the state holds."""
        before, after = node.disk.shadow, recover(node.disk, WAL)
        durable = node.machine.durable_applied[0]
        same = (after.hard_state, after.last) == (before.hard_state, before.last)
        self.expect(
            same and after.base.index <= durable,
            "what is left of the log is enough",
            f"{node} had {before.hard_state} up to {before.last}, now {after.hard_state} from {after.base}"
            f" to {after.last}; durable is {durable}",
        )

    def _check_committed(self, node: Node) -> None:
        """Committed means durable on a quorum of disks (Figure 2, thesis 10.2.1)."""
        sim, core = self._sim, node.core
        index = core.commit_index
        term = core.log.term(index)
        holders = [member for member, one in sim.nodes.items() if self._holds(one, index, term)]
        self.expect(
            _is_quorum(core.membership, holders),
            "committed on a quorum of disks",
            f"{node} commits {index}@{term}, which only the disks of {holders} hold; the membership is"
            f" {core.membership}",
        )
        self.commit_index = index

    def _holds(self, node: Node, index: int, term: int) -> bool:
        found = node.disk.term_at(index)
        return found == term if found is not None else index <= node.disk.shadow.base.index

    # What leaves a node.

    def sending(self, node: Node, message: Message) -> None:
        """A promise to a peer must be on disk when it leaves."""
        shadow = node.disk.shadow
        hard_state = shadow.hard_state
        match message:
            case RequestVoteResponse(_, target, term, True):
                kept = hard_state.current_term > term or hard_state[:2] == (term, target)
                self.expect(kept, "a vote leaves only when durable", f"{message}, on disk is {hard_state}")
            case RequestVote(_, _, term):
                kept = hard_state.current_term > term or hard_state[:2] == (term, node.member)
                self.expect(
                    kept, "a candidacy leaves only when durable", f"{message}, on disk is {hard_state}"
                )
            case AppendEntriesResponse(_, _, term, True, index) if index > shadow.base.index:
                log = node.core.log
                if index <= log.last_index and index >= log.first_index and term == node.core.current_term:
                    kept = node.disk.term_at(index) == log.term(index)
                    self.expect(
                        kept, "an acknowledgement leaves only when durable", f"{node} sends {message}"
                    )
            case InstallSnapshot(_, _, _, (position, membership)):
                state = node.machine
                if state.durable_applied == position:
                    known = node.core.memberships.at(position.index)
                    story = f"{node} sends {message}, but the membership is {known}"
                    self.expect(known == membership, "a snapshot carries its membership", story)

    def read_confirmed(self, node: Node, read_state: ReadState, committed: int) -> None:
        """A read sees all that was committed anywhere when it was asked for (thesis §6.4)."""
        story = f"{node} may read at {read_state.index}, but {committed} was committed when it asked"
        self.expect(read_state.index >= committed, "a read sees what was committed before it", story)

    # What is applied.

    def applied(self, node: Node, index: int, term: int, data: bytes, result: ApplyResult) -> None:
        """State Machine Safety, and invariant 4 of DESIGN.md: the same on every node."""
        if index > self.commit_index:
            self._check_committed(node)
        self.expect(
            index <= self.commit_index,
            "applied only what is committed",
            f"{node} applies {index}, committed is {self.commit_index}",
        )
        entry = self.observer.committed.get(index)
        self.expect(
            entry is None or entry.term == term,
            "State Machine Safety",
            f"{node} applies {index}@{term}, committed was {entry}",
        )
        is_first = index not in self._results
        found, first = self._results.setdefault(index, (data, result))
        same = found == data and _same(first, result)
        self.expect(same, "State Machine Safety", f"{node} applies {index}: {result}, another node: {first}")
        if result.events:
            self.history.events.setdefault(result.revision, tuple(result.events))
        if is_first and isinstance(result.response, OF_LEASES):
            self.leases.applied(data, result)
        if index % HASH_EVERY == 0:
            self.check_hash(node)

    def check_hash(self, node: Node) -> None:
        """The state after the same index is the same bytes."""
        machine = node.machine
        index = machine.applied[0]
        now = (machine.hash(), machine.membership)
        first = self._hashes.setdefault(index, now)
        self.expect(now == first, "equal hashes", f"{node} at {index} has {now}, another node {first}")

    def restored(self, node: Node) -> None:
        machine = node.machine
        self._sim.trace("%s has the state of a snapshot at %s", node, machine.applied)
        installing = node.core.log.installing
        if installing is not None and installing == machine.applied:
            found = decode(machine.membership)
            known = node.core.memberships.at(installing.index)
            story = f"{node} takes {known} from a snapshot whose state says {found}"
            self.expect(known == found, "a snapshot brings its membership", story)
        self.check_hash(node)

    # What survives.

    def crashed(self, node: Node, before: Log, had_unsynced: bool) -> None:
        """What was synced is there after a crash."""
        after = node.disk.shadow
        last = before.last
        if had_unsynced:
            # The write that was under way may have replaced what is not committed.
            committed = self.observer.committed
            same = (one for one in before.entries if committed.get(one.index) == one)
            last = max((Position(one.index, one.term) for one in same), default=ORIGIN)
        kept = before.hard_state[:2] <= after.hard_state[:2]
        if last.index > after.base.index:
            kept = kept and node.disk.term_at(last.index) == last.term
        if not had_unsynced:
            kept = kept and (after.last == before.last or after.base.index >= before.last.index)
        self._durable_applied[node.member] = node.machine.durable_applied[0]
        self.expect(
            kept,
            "what was synced survives",
            f"{node} had {before.hard_state} and {before.last}, now {after.hard_state} and {after.last}",
        )

    def recovered(self, node: Node, recovered: Recovered) -> None:
        if recovered.cut is not None:
            self._sim.trace("%s cuts a torn tail: %s", node, recovered.cut.problem)

    def booted(self, node: Node) -> None:
        """Commit and applied index never go back behind what was durable."""
        self.observer.restarted(node.member)
        member, core = node.member, node.core
        applied = core.last_applied
        self.expect(
            applied >= self._durable_applied.get(member, 0),
            "the applied index never goes back",
            f"{node} starts at {applied}, {self._durable_applied.get(member)} was durable",
        )
        self._durable_applied[member] = applied
        if applied % HASH_EVERY == 0 and applied:
            self.check_hash(node)

    def node_failed(self, node: Node, error: BaseException) -> None:
        """A node stops over its disk, and over nothing else."""
        if isinstance(error, Violation):
            raise error
        self.expect(
            node.disk.has_failed,
            "a node stops only over its disk",
            f"{node} stopped: {type(error).__name__}: {error}",
        )

    def _trace_change(self, node: Node) -> None:
        core = node.core
        now = f"{core.role.value} term={core.current_term} leader={core.leader_id} commit={core.commit_index}"
        if self._roles.get(node.member) != now:
            self._roles[node.member] = now
            self._sim.trace("%s is %s last=%s durable=%s", node, now, core.last_index, core.log.durable_index)


def _is_quorum(membership: Membership, members: Iterable[int]) -> bool:
    """By counting, and not by the product's own arithmetic: more than half of each half."""
    chosen = set(members)
    halves = [half for half in (membership.voters, membership.voters_outgoing) if half]
    return bool(halves) and all(2 * len(half & chosen) > len(half) for half in halves)


def _same(first: ApplyResult, second: ApplyResult) -> bool:
    return (
        first.events == second.events
        and first.revision == second.revision
        and type(first.error) is type(second.error)
        and first.response == second.response
    )


def _short(story: str) -> str:
    """The name of a broken invariant."""
    quoted = re.search(r"“(.*?)[:”,]", story)
    return quoted[1] if quoted else story.split(":")[0]
