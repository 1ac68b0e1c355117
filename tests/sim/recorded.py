"""What a node's own locks and elections ask of its store: recorded, so that it is judged like anybody's."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, NoReturn

from api.service import Reply
from kvstate.commands import DeleteRange, LeaseGrant, Range, Txn
from tests.sim.history import Operation, Outcome, Request
from tests.sim.outcomes import outcome_of
from watch.stream import WatchStream

if TYPE_CHECKING:
    from tests.sim.node import Node

FIRST_CLIENT = 10_000


class RecordedStore:
    """``api.line.Store``: the node's service."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def range(self, request: Range) -> Reply:
        return await self._noted(request, self._node.service.range(request))

    async def delete_range(self, request: DeleteRange) -> Reply:
        return await self._noted(request, self._node.service.delete_range(request))

    async def txn(self, request: Txn) -> Reply:
        return await self._noted(request, self._node.service.txn(request))

    async def lease_grant(self, ttl: int, lease_id: int = 0) -> Reply:
        return await self._noted(LeaseGrant(lease_id, ttl), self._node.service.lease_grant(ttl, lease_id))

    def watch(self) -> WatchStream:
        return self._node.service.watch()

    async def _noted(self, request: Request, asking: Awaitable[Reply]) -> Reply:
        sim, member = self._node.sim, self._node.member
        operation = Operation(FIRST_CLIENT + member, member, request, sim.queue.stamp())
        sim.history.operations.append(operation)
        sim.trace("n%d asks for a client: %s", member, request)
        try:
            reply = await asking
        except Exception as error:
            self._failed(operation, error)
        operation.returned, operation.outcome = sim.queue.stamp(), Outcome.OK
        operation.response, operation.revision = reply
        return reply

    def _failed(self, operation: Operation, error: Exception) -> NoReturn:
        sim, outcome = self._node.sim, outcome_of(error)
        if outcome is None:
            sim.oracle.fail("an answer of a known kind", f"{operation} got {error!r}")
        operation.returned, operation.outcome = sim.queue.stamp(), outcome
        operation.error = error if outcome is Outcome.ERROR else None
        raise error
