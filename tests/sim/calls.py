"""Calls between nodes: what one that does not lead asks of the leader, outside the messages of Raft.

As over HTTP: a question and its answer, each of which may take its time or be lost, and whoever asked hears
of no answer after a while. Nothing is asked or answered twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from api.leases import CALL_PATH
from raft.transport import CallFailed, NotReached

if TYPE_CHECKING:
    from tests.sim.node import Node

Answer = asyncio.Future[bytes]


class Calls:
    """The calls that one node makes in one life."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._sim = node.sim
        self._random = random.Random(f"{node.sim.seed}/calls/{node.member}/{node.life}")

    async def call(self, member: int, path: str, body: bytes) -> bytes:
        assert path == CALL_PATH, f"a call of {path} is not simulated"
        node, target = self._node, self._sim.nodes.get(member)
        if target is None or not target.up:
            raise NotReached(f"n{member} is down")
        answer: Answer = node.loop.create_future()
        patience = self._sim.options.request_timeout / 2
        self._sim.queue.later(patience, node, _fail, answer, CallFailed("no answer came"), is_timer=True)
        self._carry(node, target, partial(self._ask, target, body, answer))
        return await answer

    def _carry(self, source: Node, target: Node, deliver: Callable[[], None]) -> None:
        """It arrives, or is lost, by the same rules as messages are."""
        sim, options, rng = self._sim, self._sim.options, self._random
        link = (source.member, target.member)
        delay, life = rng.uniform(options.delay_min, options.delay_max), target.life
        if sim.calm:
            delay = min(delay, options.tick_interval / 5)
        elif link in sim.network.cut or rng.random() < options.loss:
            return
        elif rng.random() < options.straying:
            delay += rng.uniform(0, options.straying_max)

        def arrive() -> None:
            if target.up and target.life == life and link not in sim.network.cut:
                sim.queue.soon(target, deliver)

        sim.queue.later(delay, None, arrive)

    def _ask(self, target: Node, body: bytes, answer: Answer) -> None:
        answering = target.start_task(target.leases.answer(body))
        answering.add_done_callback(partial(self._answered, target, answer))

    def _answered(self, target: Node, answer: Answer, answering: asyncio.Task[bytes]) -> None:
        result: Callable[..., Any] = partial(_tell, answer, answering.result())
        self._carry(target, self._node, result)


def _tell(answer: Answer, result: bytes) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: Answer, error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
