"""One run: a cluster, its clients, and everything that goes wrong, decided by one seed.

A run has two phases. In the *chaos* the plan of faults is carried out while clients work, for a
number of steps; a step is one event: a message that arrives, a timer, a disk's work, a callback.
Then faults stop, and the *calm* must bring a leader, answers to all requests, and the same state
everywhere within a bounded virtual time. At the end the clients' history is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kvstate.commands import Put, Range
from raft.core.describe import describe
from raft.core.messages import Message
from raft.core.types import Membership, Role
from tests.sim.clients import Clients
from tests.sim.clock import LocalClock, Queue
from tests.sim.faults import Fault, Nemesis, plan
from tests.sim.history import History, Operation, Outcome
from tests.sim.linearizability import BadHistory, check
from tests.sim.network import Network
from tests.sim.node import Node
from tests.sim.options import Options, choose
from tests.sim.oracle import Oracle, Violation
from tests.sim.workload import Client

STEPS = 2000
LOOK_EVERY = 25  # steps between two looks whether the calm has done its work
CALM_STEPS_MAX = 400_000


class Simulation:
    """``faults`` replaces the seed's plan (to shrink it); ``tell`` gets each line of the trace."""

    def __init__(
        self,
        seed: int,
        *,
        steps: int = STEPS,
        faults: Sequence[Fault] | None = None,
        tell: Callable[[str], None] | None = None,
        options: Options | None = None,
    ) -> None:
        self.seed = seed
        self.options = options or choose(seed)
        self.steps = steps
        self.faults = list(plan(seed, self.options, steps) if faults is None else faults)
        self._tell = tell
        self.tracing = tell is not None
        self.queue = Queue()
        self.fastest_clock = LocalClock(self.queue)  # goes, at each moment, as fast as any node's, and jumps
        self.history = History()
        self.oracle = Oracle(self)
        self.network = Network(self)
        self.nodes: dict[int, Node] = {}
        self.clients = Clients(self)
        self.calm = False
        self._nemesis = Nemesis(self)

    def run(self) -> None:
        """Raises Violation."""
        try:
            self._chaos()
            self._calm_down()
            self._judge()
        except Exception as error:
            if self.oracle.violation is not None:
                raise self.oracle.violation from error
            if isinstance(error, Violation):
                raise
            raise Violation("no unexpected error", f"{type(error).__name__}: {error}") from error
        finally:
            for node in self.nodes.values():
                node.abandon_tasks()

    # The phases.

    def _chaos(self) -> None:
        founders = Membership(frozenset(range(1, self.options.size + 1)))
        for _ in range(self.options.size):
            self.add_node(founders)
        self.clients.start()
        faults = list(reversed(self.faults))
        while self.queue.steps < self.steps:
            while faults and faults[-1].step <= self.queue.steps:
                self._nemesis.strike(faults.pop())
            self._step()

    def _calm_down(self) -> None:
        """Liveness: once faults stop, everything ends well, and soon."""
        self.calm = self.network.calm = True
        self.trace("faults stop")
        self.clients.stop()
        self._nemesis.calm_down()
        options = self.options
        # A disk that hangs comes back in its own time, and then answers what it was asked long ago.
        waking = max((disk.busy_until for node in self._up for disk in node.disks), default=0.0)
        while self.queue.now < waking:
            self._step()
        patience = 60 * options.election_ticks * options.tick_interval + 6 * options.request_timeout
        deadline = self.queue.now + patience
        # First with nothing new to write, which could cover up what was lost.
        self._settle([], deadline)
        self._settle([Visit(self, member) for member in sorted(self.nodes)], deadline)
        self._stay_settled()
        self._settle([], self.queue.now + patience)  # leases have ended meanwhile
        self.clients.finish(self.members)

    def _settle(self, visits: list[Visit], deadline: float) -> None:
        for step in range(CALM_STEPS_MAX):
            self._step()
            if step % LOOK_EVERY == 0:
                problem = self._unsettled(visits)
                if problem is None:
                    return
                late = self.queue.now > deadline
                self.oracle.expect(not late, f"liveness: {problem[0]}", f"by {deadline:.0f} s: {problem[1]}")
        self.oracle.fail("liveness: rest", f"after {CALM_STEPS_MAX} steps without faults it still moves")

    def _stay_settled(self) -> None:
        """Nobody is disturbed any more, not even by servers that were removed and keep knocking; and
        leases that nobody renews come to their end."""
        leader = self.leader
        assert leader is not None
        term = leader.core.current_term
        until = self.queue.now + 5 * self.options.election_ticks * self.options.tick_interval
        begun = self.queue.now
        while self.queue.now < until or not self.oracle.leases.check_ends(since=begun):
            self._step()
        kept = self.leader is leader and leader.core.current_term == term
        self.oracle.expect(
            kept, "liveness: a leader stays", f"{leader} led term {term}, now {self.leader} leads"
        )

    def _judge(self) -> None:
        for member in sorted(self.members):
            self.oracle.check_hash(self.nodes[member])
        try:
            check(self.history)
        except BadHistory as error:
            raise Violation("history", str(error)) from error

    # The calm.

    def _unsettled(self, visits: list[Visit]) -> tuple[str, str] | None:
        """What is not as it should be yet: (in short, in detail)."""
        if self.clients.busy:
            return "every request ends", str(self.clients.busy)
        leader = self.leader
        if leader is None:
            return "there is a leader", str([(str(n), n.core.role, n.core.current_term) for n in self._up])
        core = leader.core
        if core.change_under_way:
            return "a change of members ends", str(core.membership)
        if leader.member not in core.membership.voters:
            return "the leader is a voter", str(core.membership)
        for visit in visits:
            if visit.member in self.members and not visit.is_done:
                visit.go_on()
                return "every member serves", f"n{visit.member}: {visit.operation}"
        behind = [str(n) for n in self._members if n.machine.applied[0] != core.last_index]
        if behind:
            return "everyone catches up", str(behind)
        watchers = self.clients.behind(self.members)
        if watchers:
            return "every watch catches up", str(watchers)
        return None

    @property
    def members(self) -> frozenset[int]:
        """By the highest leader's word."""
        leader = self.leader
        return leader.core.membership.members if leader is not None else frozenset()

    @property
    def leader(self) -> Node | None:
        """Who leads the highest term, if it is up."""
        leaders = [node for node in self._up if node.core.role is Role.LEADER]
        return max(leaders, key=lambda node: node.core.current_term) if leaders else None

    @property
    def _up(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.up]

    @property
    def _members(self) -> list[Node]:
        return [self.nodes[member] for member in sorted(self.members)]

    # Steps.

    def _step(self) -> None:
        node = self.queue.run_one()
        if node is not None and node.up:
            self.oracle.step(node)
        if self.oracle.violation is not None:
            raise self.oracle.violation

    def add_node(self, founders: Membership) -> Node:
        """A new server with an empty disk. ``founders``: what it is told of the membership."""
        node = Node(self, len(self.nodes) + 1, founders)
        self.nodes[node.member] = node
        node.boot()
        return node

    def clock_changed(self, jump: float = 0.0) -> None:
        """Of some node: how fast it goes, or it jumped."""
        self.fastest_clock.set_rate(max(node.clock.rate for node in self.nodes.values()))
        self.fastest_clock.jump(jump)

    # The trace.

    def trace(self, text: str, *values: Any) -> None:
        if self._tell is not None:
            line = f"{self.queue.steps:6} {self.queue.now:10.4f}  {text % values}"
            self._tell(line)

    def trace_message(self, what: str, message: Message) -> None:
        if self._tell is not None:
            self.trace("%s %s", what, describe(message))


class Visit:
    """A put and a linearizable read at one member, again and again until it has done both."""

    def __init__(self, sim: Simulation, member: int) -> None:
        self.member = member
        self.operation: Operation | None = None
        self._sim = sim
        self._client = Client(sim, 1000 + member)
        self._stage = 0

    @property
    def is_done(self) -> bool:
        if self._stage < 2 and self.operation is not None and self.operation.outcome is Outcome.OK:
            self._stage += 1
            self.operation = None
        return self._stage == 2

    def go_on(self) -> None:
        if self._client.operation is None:
            key = b"visit%d" % self.member
            request = (
                Range(key) if self._stage else Put(key, b"v%d-%d" % (self.member, self._sim.queue.stamp()))
            )
            self.operation = self._client.send(self._sim.nodes[self.member], request)
