"""From what watches were told to what happened, and the last questions of a run. Pure.

The simulator sees each entry being applied. Here the watches of everything, of which every node has one
at all times, are the witnesses: ``Events`` puts together what each says of each revision, and two that
say different things are a violation, whoever is right. Since every watch is then judged against the whole
(``tests.sim.watches``), a witness that leaves something out does not get away with it either.

    n1: 2: put a=1   3: put b=1                   n2: 2: put a=1   3: put b=2
                                                  → BadHistory: the watches disagree about revision 3
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kvstate.types import Event
from tests.sim.history import History, WatchLog
from tests.sim.linearizability import check, check_numbering
from tests.sim.model import BadHistory, tell
from tests.sim.watches import describe_watch
from tests.soak.calls import Coordination
from tests.soak.coordination_judge import judge_coordination
from watch.watcher import WatchCreate, WatchResponse

EVERYTHING = (b"\0", b"\0")


def sees_all(request: WatchCreate) -> bool:
    return (request.key, request.range_end) == EVERYTHING and not request.filters


class Events:
    """What happened at each revision, according to every watch of everything."""

    def __init__(self) -> None:
        self.by_revision: dict[int, tuple[Event, ...]] = {}
        self.complete_to = 1  # every revision up to here is known
        self._witness: dict[int, WatchLog] = {}

    def add(self, log: WatchLog, response: WatchResponse) -> None:
        """Raises BadHistory if another watch was told something else."""
        if not response.events:
            return
        revisions: dict[int, list[Event]] = {}
        for kind, kv, _ in response.events:
            revisions.setdefault(kv.mod_revision, []).append(Event(kind, kv))
        for revision, events in revisions.items():
            self._add(log, revision, tuple(events))
        while self.complete_to + 1 in self.by_revision:
            self.complete_to += 1

    def _add(self, log: WatchLog, revision: int, events: tuple[Event, ...]) -> None:
        known = self.by_revision.setdefault(revision, events)
        if known is events:
            self._witness[revision] = log
        elif known != events:
            other = self._witness[revision]
            raise BadHistory(
                f"watches disagree about revision {revision}: {describe_watch(other)} was told {tell(known)},"
                f" {describe_watch(log)} was told {tell(events)}"
            )


@dataclass(slots=True)
class Final:
    """What one node says after the faults have healed and the clients have gone."""

    node: int
    revision: int
    hashes: dict[str, int] = field(default_factory=dict)  # by the kind of hash


@dataclass(slots=True)
class Evidence:
    """All that the verdict on a run rests on. ``seen``: what was wrong before it was over."""

    history: History
    finals: list[Final]
    seen: list[str]
    coordination: Coordination = field(default_factory=Coordination)


def judge(evidence: Evidence) -> None:
    """Everything. Raises BadHistory."""
    _check_finals(evidence.finals, 1 + len(evidence.history.events))
    check_numbering(evidence.history.events)
    check(judge_coordination(evidence.history, evidence.coordination))


def _check_finals(finals: list[Final], top: int) -> None:
    for final in finals:
        if final.revision != top:
            raise BadHistory(
                f"node {final.node} ends at revision {final.revision}, but the watches were told of"
                f" {top} revisions"
            )
    for kind in sorted({kind for final in finals for kind in final.hashes}):
        said = {final.node: final.hashes.get(kind) for final in finals}
        if len(set(said.values())) > 1:
            raise BadHistory(f"the nodes' hashes differ, {kind} at revision {top}: {said}")
