"""The network between nodes: it loses, doubles, delays and reorders, and is cut in any way.

A snapshot goes as a stream beside the messages: it takes the sender's durable state as it is
when it leaves, and its sender learns how it ended, unless that news is lost too, which it
then takes for a failure.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from kvstate.backend import Backend, MemoryStore
from kvstate.machine import StateMachine
from raft.core.membership import decode
from raft.core.messages import InstallSnapshot, Message
from raft.core.types import Position, SnapshotMeta

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.simulation import Simulation

IN_FLIGHT_MAX = 20_000
REMEMBERED = 100


class Network:
    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._options = sim.options
        self._random = random.Random(f"{sim.seed}/network")
        self._noticing = random.Random(f"{sim.seed}/noticing")
        self.cut: set[tuple[int, int]] = set()  # (from, to)
        self.calm = False
        self.in_flight = 0
        # member → (messages to it that leave before this time, arrive at this one)
        self._stalls: dict[int, tuple[float, float]] = {}
        self._last_arrival: dict[tuple[int, int], float] = {}
        self._old: deque[Message] = deque(maxlen=REMEMBERED)  # what may come once more

    def stall(self, member: int, seconds: float, release: float) -> None:
        """What is sent to ``member`` within so many seconds arrives after ``release`` seconds."""
        now = self._sim.queue.now
        self._stalls[member] = (now + seconds, now + release)

    def post(self, source: Node, message: Message) -> None:
        sim, options, rng = self._sim, self._options, self._random
        store, asked = None, 0
        if isinstance(message, InstallSnapshot):
            asked = message.snapshot.position.index
            message, store = _with_content(source, message)
        copies = 1
        if not self.calm:
            if rng.random() < options.loss:
                copies = 0
            elif store is None and rng.random() < options.doubling:
                copies = 2
        if not copies or (message.source, message.target) in self.cut:
            sim.trace_message("lost", message)
            if store is not None:
                self._report_later(source, message.target, asked, arrived=False)
            return
        sim.trace_message("sends", message)
        for _ in range(copies):
            delay, buffered = rng.uniform(options.delay_min, options.delay_max), False
            if self.calm:
                # Fast against the election timeout, or nobody could lead for long (§5.6); and in order.
                link = (message.source, message.target)
                arrival = sim.queue.now + min(delay, options.tick_interval / 5)
                self._last_arrival[link] = max(arrival, self._last_arrival.get(link, 0.0))
                delay = self._last_arrival[link] - sim.queue.now
            elif sim.queue.now < self._stalls.get(message.target, (0.0, 0.0))[0]:
                delay, buffered = self._stalls[message.target][1] - sim.queue.now + delay, True
            elif rng.random() < options.straying:
                # It lies in a buffer at the receiver, so it comes whatever is cut meanwhile.
                delay, buffered = delay + rng.uniform(0, options.straying_max), True
            self.in_flight += 1
            sim.queue.later(delay, None, self._arrive, source, source.life, message, store, asked, buffered)
        if store is None and not self.calm and options.replay:
            self._old.append(message)
            if rng.random() < options.replay:
                self.in_flight += 1
                old = rng.choice(self._old)
                delay = rng.uniform(0, options.straying_max)
                sim.queue.later(delay, None, self._arrive, source, source.life, old, None, 0, True)
        sim.oracle.expect(self.in_flight < IN_FLIGHT_MAX, "a message storm", f"{self.in_flight} in flight")

    def connections_end(self, crashed: Node) -> None:
        """A process is gone, and so are its connections: others may notice at once."""
        for member in sorted(self._sim.nodes.keys() - {crashed.member}):
            if self._noticing.random() < self._options.notices:
                self.suspect_later(self._sim.nodes[member], crashed.member, self._noticing.uniform(0, 0.05))

    def suspect_later(self, node: Node, member: int, delay: float) -> None:
        life = node.life

        def suspect() -> None:
            if node.life == life:
                node.driver.suspect(member)

        if node.up:
            self._sim.queue.later(delay, node, suspect)

    def _arrive(
        self,
        source: Node,
        life: int,
        message: Message,
        store: MemoryStore | None,
        asked: int,
        buffered: bool,
    ) -> None:
        self.in_flight -= 1
        sim = self._sim
        target = sim.nodes.get(message.target)
        connected = buffered or (message.source, message.target) not in self.cut
        arrived = target is not None and target.up and connected
        if arrived:
            assert target is not None
            sim.queue.soon(target, self._deliver, target, message, store)
        else:
            sim.trace_message("lost", message)
        if store is not None and source.life == life:
            news_lost = not self.calm and self._random.random() < self._options.loss
            self._report_later(source, message.target, asked, arrived=arrived and not news_lost)

    def _deliver(self, target: Node, message: Message, store: MemoryStore | None) -> None:
        self._sim.trace_message("gets", message)
        target.deliver(message, store)

    def _report_later(self, source: Node, follower: int, asked: int, *, arrived: bool) -> None:
        def report() -> None:
            source.driver.report_snapshot(follower, asked, arrived=arrived)

        self._sim.queue.later(self._random.uniform(0, 0.2), source, report)


def _with_content(source: Node, message: InstallSnapshot) -> tuple[InstallSnapshot, MemoryStore]:
    """What a stream would carry: the durable state of now, and what it says it stands for."""
    store = source.store.copy()
    state = StateMachine(Backend(store))
    meta = SnapshotMeta(Position(*state.applied), decode(state.membership))
    return replace(message, snapshot=meta), store
