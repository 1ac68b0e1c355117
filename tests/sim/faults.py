"""What goes wrong, and when: a plan that the seed makes and that can be shortened.

Each fault has its own chance (seeded by its number), so a plan with some faults left out is
still a plan of the same seed: that is what shrinking needs.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raft.core.errors import MembershipRefused, NotLeader, TransferRefused
from raft.core.membership import Change, ChangeKind
from raft.core.types import Membership
from raft.errors import Stopped

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.options import Options
    from tests.sim.simulation import Simulation

MEMBERS_MAX = 12
KINDS = (
    "crash",
    "crash_all",
    "crash_in_install",
    "partition",
    "one_way",
    "bridge",
    "isolate_leader",
    "usurp",
    "reborn",
    "leave",
    "flapping",
    "pause",
    "clock",
    "disk_fails",
    "disk_slow",
    "member",
    "transfer",
    "rumour",
    "clock_jump",
    "doze",
)


@dataclass(frozen=True, slots=True)
class Fault:
    number: int
    step: int
    kind: str


def plan(seed: int, options: Options, steps: int) -> list[Fault]:
    """Which faults come at which step of the run."""
    rng = random.Random(f"{seed}/plan")
    weights = [getattr(options, kind) for kind in KINDS]
    if not any(weights):
        return []
    when = sorted(rng.randrange(steps) for _ in range(options.fault_count))
    kinds = rng.choices(KINDS, weights, k=options.fault_count)
    return [Fault(number, step, kind) for number, (step, kind) in enumerate(zip(when, kinds, strict=True))]


class Nemesis:
    """Carries the plan out, and takes everything back when it is over."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._cuts: list[set[tuple[int, int]]] = []

    def strike(self, fault: Fault) -> None:
        rng = random.Random(f"{self._sim.seed}/fault/{fault.number}")
        self._sim.trace("fault %d: %s", fault.number, fault.kind)
        getattr(self, f"_{fault.kind}")(rng)

    def calm_down(self) -> None:
        """Faults stop: everything is connected, up and in time."""
        self._cuts.clear()
        self._recut()
        for node in self._nodes():
            node.disk.crash_at = node.disk.fail_at = None
            node.crash_at_send = node.crash_in_install = 0
            node.slowness = 1.0
            if node.clock.rate != 1.0:
                node.set_clock_rate(1.0)
            if node.paused:
                node.pause(False)
            if not node.up:
                node.boot()

    # Crashes.

    def _crash(self, rng: random.Random) -> None:
        node = self._pick(rng)
        match rng.randrange(4):
            case 0:
                node.crash("now")
            case 1:
                node.disk.crash_at = node.disk.operations + rng.randrange(1, 8)
            case 2:
                node.crash_at_send = rng.randrange(1, 6)
            case 3:  # at once and again while it starts
                node.crash("now, and again while it starts")
                node.disk.crash_at = node.disk.operations + rng.randrange(1, 6)
        self._restart_later(rng, node)

    def _crash_in_install(self, rng: random.Random) -> None:
        """Whoever gets a snapshot next crashes over installing it."""
        for node in self._nodes():
            node.crash_in_install = rng.randrange(1, 8)
            self._restart_later(rng, node)

    def _crash_all(self, rng: random.Random) -> None:
        for node in self._nodes():
            if rng.random() < 0.3:
                node.disk.crash_at = node.disk.operations + rng.randrange(1, 4)
            else:
                node.crash("with all others")
            self._restart_later(rng, node)

    def _restart_later(self, rng: random.Random, node: Node) -> None:
        def restart() -> None:
            node.disk.crash_at = None
            node.crash_at_send = 0
            if not node.up:
                node.boot()

        self._after(rng.choice([0.0, 0.05, 1.0, 3.0]) * rng.random(), restart)
        self._after(3.5, restart)

    # Cuts.

    def _partition(self, rng: random.Random) -> None:
        left, right = self._halves(rng)
        self._cut(_between(left, right) | _between(right, left), rng)

    def _one_way(self, rng: random.Random) -> None:
        self._cut(_between(*self._halves(rng)), rng)

    def _bridge(self, rng: random.Random) -> None:
        """Two halves that see each other only through one node, which sees both."""
        left, right = self._halves(rng)
        middle = rng.choice(sorted(left))
        left = left - {middle}
        self._cut(_between(left, right) | _between(right, left), rng)

    def _isolate_leader(self, rng: random.Random) -> None:
        leader = self._leader() or self._pick(rng)
        others = set(self._sim.nodes) - {leader.member}
        if rng.random() < 0.4:
            # What it takes in now will still be on its way to its disk when it hears of another leader.
            leader.slowness = 500
            self._after(rng.uniform(1, 5), lambda: setattr(leader, "slowness", 1.0))
        away, back = _between({leader.member}, others), _between(others, {leader.member})
        self._cut(rng.choice([away, back, away | back, away | back]), rng)

    def _usurp(self, rng: random.Random) -> None:
        """The leader is cut off and its clock stands: it does not notice that another is elected."""
        leader = self._leader() or self._pick(rng)
        others = set(self._sim.nodes) - {leader.member}
        seconds = rng.uniform(1, 6)
        leader.set_clock_rate(0.0)
        self._after(seconds, lambda: leader.set_clock_rate(1.0))
        cut = _between({leader.member}, others) | _between(others, {leader.member})
        stalled = rng.choice([0.0, 0.2])
        if stalled:
            # Answers to what it has just asked reach it only when they mean nothing any more.
            self._sim.network.stall(leader.member, stalled, seconds * rng.uniform(0.3, 1))
        self._after(stalled, lambda: self._cut(cut, rng, seconds * rng.uniform(0.7, 1)))

    def _reborn(self, rng: random.Random) -> None:
        """A server crashes and starts again; answers to its earlier life come late, and what it asks in
        the new one is lost."""
        node = self._pick(rng)
        others = set(self._sim.nodes) - {node.member}
        self._sim.network.stall(node.member, 0.3, rng.uniform(0.5, 2))

        def again() -> None:
            node.crash("to be reborn")
            node.boot()
            self._cut(_between({node.member}, others), rng, rng.uniform(0.5, 2))

        self._after(0.3, again)

    def _leave(self, rng: random.Random) -> None:
        """The leader removes itself, and is cut off or crashes while that is under way."""
        leader = self._leader()
        if leader is None or len(leader.core.membership.voters) < 2:
            return
        change = Change(ChangeKind.REMOVE, leader.member)
        self._ask(leader, lambda: leader.driver.change_members([change]))
        others = set(self._sim.nodes) - {leader.member}
        cut = _between({leader.member}, others) | _between(others, {leader.member})
        options = self._sim.options
        soon = rng.uniform(0, 4) * (2 * options.delay_max + 2 * options.disk_latency)
        if rng.random() < 0.5:
            leader.crash_at_send = rng.randrange(2, 12)
            self._restart_later(rng, leader)
        else:
            self._after(soon, lambda: self._cut(cut, rng))

    def _flapping(self, rng: random.Random) -> None:
        left, right = self._halves(rng)
        pairs = _between(left, right) | _between(right, left)
        for beat in range(rng.randrange(2, 8)):
            self._after(beat * 0.25, lambda: self._cut(pairs, random.Random(0), seconds=0.12))

    def _halves(self, rng: random.Random) -> tuple[set[int], set[int]]:
        members = sorted(self._sim.nodes)
        left = set(rng.sample(members, rng.randrange(1, len(members)))) if len(members) > 1 else set(members)
        return left, set(members) - left

    def _cut(self, pairs: set[tuple[int, int]], rng: random.Random, seconds: float | None = None) -> None:
        self._cuts.append(pairs)
        self._recut()

        def heal() -> None:
            if any(one is pairs for one in self._cuts):
                self._cuts = [one for one in self._cuts if one is not pairs]
                self._recut()

        self._after(seconds or rng.uniform(0.1, 4), heal)

    def _recut(self) -> None:
        self._sim.network.cut = set().union(*self._cuts)

    # Time and disks.

    def _pause(self, rng: random.Random) -> None:
        node = self._pick(rng)
        if node.up and not node.paused:
            node.pause(True)
            self._after(rng.uniform(0.05, 4), lambda: node.pause(False) if node.paused else None)

    def _doze(self, rng: random.Random) -> None:
        """The leader is paused until another is elected, and leases have run out by its own clock that the
        other one keeps."""
        leader = self._leader()
        if leader is not None and leader.up and not leader.paused:
            options = self._sim.options
            leader.pause(True)
            seconds = rng.uniform(1.0, 2.0) * (options.election_ticks * options.tick_interval + 1.0)
            self._after(seconds, lambda: leader.pause(False) if leader.paused else None)

    def _clock(self, rng: random.Random) -> None:
        node = self._pick(rng)
        node.set_clock_rate(rng.choice([0.0, 0.0, 0.25, 0.5, 2.0, 5.0]))
        self._after(rng.uniform(0.2, 4), lambda: node.set_clock_rate(1.0))

    def _clock_jump(self, rng: random.Random) -> None:
        node = self._pick(rng)
        node.jump_clock(rng.choice([0.3, 1.0, 3.0, 60.0]))
        node.wall_clock_at_start += rng.choice([-3600.0, -1.0, 1.0, 3600.0])

    def _disk_fails(self, rng: random.Random) -> None:
        node = self._pick(rng)
        node.disk.fail_at = node.disk.operations + rng.randrange(1, 8)
        self._restart_later(rng, node)

    def _disk_slow(self, rng: random.Random) -> None:
        node = self._pick(rng)
        node.slowness = rng.choice([20, 200, 2000])
        self._after(rng.uniform(0.2, 3), lambda: setattr(node, "slowness", 1.0))

    # Members and leaders.

    def _transfer(self, rng: random.Random) -> None:
        leader = self._pick_leader(rng)
        if leader is not None and leader.core.membership.members:
            target = rng.choice(sorted(leader.core.membership.members))
            self._ask(leader, lambda: leader.driver.transfer_leadership(target))

    def _rumour(self, rng: random.Random) -> None:
        """Some believe that the leader is gone, who may be well."""
        leader = self._leader() or self._pick(rng)
        for node in self._nodes():
            if node is not leader and rng.random() < 0.7:
                self._sim.network.suspect_later(node, leader.member, rng.uniform(0, 0.2))

    def _member(self, rng: random.Random) -> None:
        leader = self._pick_leader(rng)
        if leader is None or not leader.core.membership.voters:
            return
        membership = leader.core.membership
        changes: list[Change] = []
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            change = self._change(rng, membership)
            if all(change.member != other.member for other in changes):
                changes.append(change)
        self._sim.trace("%s is asked to change members: %s", leader, changes)
        self._ask(leader, lambda: leader.driver.change_members(changes, b"at %f" % self._sim.queue.now))
        if rng.random() < 0.3:
            # Before others have heard of it, or those that it removes.
            away = {leader.member} if rng.random() < 0.5 else {change.member for change in changes}
            others = set(self._sim.nodes) - away
            self._cut(_between(away, others) | _between(others, away), rng)

    def _change(self, rng: random.Random, membership: Membership) -> Change:
        voters, learners = sorted(membership.voters), sorted(membership.learners)
        kinds = ["add", "add", "promote", "promote", "demote", "remove", "remove", "return", "nothing"]
        kind = rng.choice(kinds)
        if kind == "nothing":
            return Change(ChangeKind.ADD_VOTER, rng.choice(voters))
        if kind == "promote" and learners:
            return Change(ChangeKind.ADD_VOTER, rng.choice(learners))
        if kind == "demote" and len(voters) > 1:
            return Change(ChangeKind.ADD_LEARNER, rng.choice(voters))
        if kind == "remove" and len(voters) > 1:
            return Change(ChangeKind.REMOVE, rng.choice(voters + learners))
        former = sorted(self._sim.nodes.keys() - membership.members)
        if former and kind == "remove":
            return Change(ChangeKind.REMOVE, rng.choice(former))  # which is to be refused
        if former and (kind == "return" or len(self._sim.nodes) >= MEMBERS_MAX):
            return Change(rng.choice([ChangeKind.ADD_VOTER, ChangeKind.ADD_LEARNER]), rng.choice(former))
        if len(self._sim.nodes) >= MEMBERS_MAX:
            return Change(ChangeKind.ADD_VOTER, rng.choice(voters))
        # A new node, empty: also what takes the place of one whose disk was lost.
        member = self._sim.add_node(Membership()).member
        return Change(rng.choice([ChangeKind.ADD_VOTER, ChangeKind.ADD_LEARNER]), member)

    def _ask(self, node: Node, request: Callable[[], object]) -> None:
        def ask() -> None:
            try:
                asked = request()
                if isinstance(asked, asyncio.Future):
                    asked.add_done_callback(lambda done: done.cancelled() or done.exception())
            except (MembershipRefused, NotLeader, TransferRefused, Stopped) as refusal:
                self._sim.trace("%s refuses: %s", node, refusal)

        if node.up and not node.paused:
            node.inside(ask)

    # Helpers.

    def _nodes(self) -> list[Node]:
        return [self._sim.nodes[member] for member in sorted(self._sim.nodes)]

    def _pick(self, rng: random.Random) -> Node:
        leader = self._leader()
        if leader is not None and rng.random() < 0.4:
            return leader
        return rng.choice(self._nodes())

    def _leader(self) -> Node | None:
        return self._sim.leader

    def _pick_leader(self, rng: random.Random) -> Node | None:
        """Whom to ask for what only a leader does: now and then one that does not lead."""
        return self._leader() if rng.random() < 0.9 else rng.choice(self._nodes())

    def _after(self, seconds: float, action: Callable[[], object]) -> None:
        """Later, unless everything was taken back before."""
        self._sim.queue.later(seconds, None, lambda: None if self._sim.calm else action())


def _between(sources: set[int], targets: set[int]) -> set[tuple[int, int]]:
    return {(source, target) for source in sources for target in targets}
