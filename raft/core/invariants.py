"""What Raft guarantees (thesis figure 3.2), checked on cores as they stand and as they change.

Called by tests and the simulator after every step. ``Observer`` remembers what was seen, so
it also finds what only shows over time.
"""

from __future__ import annotations

from collections.abc import Iterable

from raft.core.consensus import Consensus
from raft.core.errors import InvariantViolated
from raft.core.types import Entry, Role


def check_state(core: Consensus) -> None:
    """What must hold of one server at any time."""
    log = core.log
    _expect(
        log.last_applied <= log.handing_index <= log.commit_index, core, "applied ≤ handed out ≤ committed"
    )
    _expect(log.commit_index <= log.last_index, core, "the commit index is within the log")
    _expect(log.handing_index <= log.durable_index, core, "what is applied is durable")
    _expect(log.durable_index <= log.handed_index <= log.last_index, core, "durable ≤ handed over ≤ last")
    for peer, progress in core.progress.items():
        _expect(progress.match_index < progress.next_index, core, f"match < next for member {peer}")
        _expect(progress.match_index <= log.last_index, core, f"match of member {peer} is within the log")
    if core.role is Role.LEADER:
        _expect(core.leader_id == core.id, core, "a leader knows that it leads")
        _expect(
            core.progress[core.id].match_index <= log.durable_index, core, "own match counts what is durable"
        )


def _expect(condition: bool, core: Consensus, rule: str) -> None:
    if not condition:
        log = core.log
        raise InvariantViolated(
            f"member {core.id} ({core.role.value}, term {core.current_term}) breaks “{rule}”:"
            f" last={log.last_index} handed={log.handed_index} durable={log.durable_index}"
            f" commit={log.commit_index} handing={log.handing_index} applied={log.last_applied}"
        )


class Observer:
    """Watches a whole cluster. Call ``check`` after each step with the servers that are up."""

    def __init__(self) -> None:
        self._leaders: dict[int, int] = {}  # term → who led it
        self._committed: dict[int, Entry] = {}
        self._commit_index: dict[int, int] = {}
        self._applied: dict[int, Entry] = {}

    def restarted(self, member: int) -> None:
        """A server forgot everything that was not durable, its commit index included."""
        self._commit_index.pop(member, None)

    def check(self, cores: Iterable[Consensus]) -> None:
        cores = sorted(cores, key=lambda core: core.id)
        for core in cores:
            check_state(core)
            self._check_commit(core)
        for core in cores:
            if core.role is Role.LEADER:
                self._check_leader(core)

    def applied(self, member: int, entry: Entry) -> None:
        """State Machine Safety: nobody applies a different entry at the same index."""
        before = self._applied.setdefault(entry.index, entry)
        if before != entry:
            raise InvariantViolated(
                f"State Machine Safety: member {member} applies {entry}, before it was {before}"
            )

    def _check_commit(self, core: Consensus) -> None:
        before = self._commit_index.get(core.id, core.log.commit_index)
        if core.log.commit_index < before:
            raise InvariantViolated(
                f"member {core.id}: the commit index went from {before} to {core.log.commit_index}"
            )
        low = max(before, core.log.first_index - 1) + 1
        for entry in core.log.entries(low, core.log.commit_index + 1):
            committed = self._committed.setdefault(entry.index, entry)
            if committed != entry:
                raise InvariantViolated(
                    f"Log Matching: member {core.id} has committed {entry}, another {committed}"
                )
        self._commit_index[core.id] = core.log.commit_index

    def _check_leader(self, core: Consensus) -> None:
        leader = self._leaders.setdefault(core.current_term, core.id)
        if leader != core.id:
            raise InvariantViolated(
                f"Election Safety: members {leader} and {core.id} both lead term {core.current_term}"
            )
        for index, entry in self._committed.items():
            must_have = index >= core.log.first_index and entry.term < core.current_term
            if must_have and not core.log.has(index, entry.term):
                raise InvariantViolated(
                    f"Leader Completeness: member {core.id} leads term {core.current_term}"
                    f" without the committed entry {index}@{entry.term}"
                )
