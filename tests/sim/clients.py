"""All clients of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.contenders import Contender
from tests.sim.history import Operation
from tests.sim.observing import Observing
from tests.sim.tenants import Tenant
from tests.sim.workload import Client, Watching

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.simulation import Simulation


class Clients:
    """All of them; ``stop`` lets each finish what it is at."""

    def __init__(self, sim: Simulation) -> None:
        self._clients: list[Client] = [Client(sim, number) for number in range(sim.options.clients)]
        self._clients += [Tenant(sim, 100 + number) for number in range(sim.options.tenants)]
        self._clients += [Contender(sim, 200 + number) for number in range(sim.options.contenders)]
        self._watchers = [Watching(sim, number) for number in range(sim.options.watchers)]
        self._observing = [Observing(sim, number) for number in range(bool(sim.options.contenders))]
        self.stopped = False

    def start(self) -> None:
        for client in self._clients:
            client.think()
        for watcher in self._watchers:
            watcher.think()
        for one in self._observing:
            one.think()

    def stop(self) -> None:
        self.stopped = True

    @property
    def busy(self) -> list[Operation]:
        """What is not answered yet."""
        return [client.operation for client in self._clients if client.operation is not None]

    def crashed(self, node: Node) -> None:
        """Whoever talked to this node has lost the connection."""
        for client in self._clients:
            client.lost(node)
        for watcher in self._watchers:
            watcher.lost(node)
        for one in self._observing:
            one.lost(node)

    def behind(self, members: frozenset[int]) -> list[int]:
        """Watches on members that have not been told everything there is yet."""
        return [one.number for one in self._watchers if one.is_open_on(members) and not one.is_drained]

    def finish(self, members: frozenset[int]) -> None:
        for watcher in self._watchers:
            watcher.finish(members)
