"""Clients that look on who leads an election."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import TYPE_CHECKING

from tests.sim.contenders import ELECTION
from tests.sim.history import Observation
from tests.sim.outcomes import outcome_of

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.simulation import Simulation


class Observing:
    """One observation after the other, each at some node, until it hangs up or the node is gone."""

    def __init__(self, sim: Simulation, number: int) -> None:
        self._sim = sim
        self._number = number
        self._random = random.Random(f"{sim.seed}/observing/{number}")
        self._node: Node | None = None
        self._task: asyncio.Task[None] | None = None

    def think(self) -> None:
        self._node = self._task = None
        self._sim.queue.later(self._random.uniform(0.05, 0.5), None, self._open)

    def _open(self) -> None:
        node = self._random.choice([self._sim.nodes[member] for member in sorted(self._sim.nodes)])
        if self._sim.clients.stopped:
            return
        if not node.up:
            self.think()
            return
        self._node = node
        observation = Observation(node.member, ELECTION, self._sim.queue.stamp())
        self._sim.history.observations.append(observation)
        self._sim.queue.soon(node, self._begin, node, observation)

    def _begin(self, node: Node, observation: Observation) -> None:
        self._task = node.start_task(self._observe(node, observation))
        self._task.add_done_callback(self._ended)
        self._sim.queue.later(self._random.uniform(0.3, 3), node, self._task.cancel)

    async def _observe(self, node: Node, observation: Observation) -> None:
        async with aclosing(node.concurrency.observe(observation.name)) as leaders:
            async for kv, revision in leaders:
                self._sim.trace("o%d is told: %s leads @%d", self._number, kv, revision)
                observation.told.append((kv, revision))

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and outcome_of(error) is None:
            self._sim.oracle.fail(
                "an answer of a known kind", f"an observation of {self._node} got {error!r}"
            )
        if self._task is task:
            self.think()

    def lost(self, node: Node) -> None:
        if self._node is node:
            self.think()
