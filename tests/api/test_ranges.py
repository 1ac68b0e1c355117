"""Large ranges share the event loop with everybody else, and their bytes are those of small ones."""

from __future__ import annotations

import asyncio
import random
import types
from collections.abc import Callable

import pytest

from api.handlers.kv import range_
from api.schema.responses import Encoder
from api.scrubber import Scrubber
from api.service import Limits, Service
from api.turns import Turns
from kvstate.backend import Backend, MemoryStore
from kvstate.codec import encode
from kvstate.commands import DeleteRange, Put, Range
from kvstate.machine import StateMachine
from raft.core.config import Config
from raft.core.consensus import Consensus
from raft.core.storage import MemoryStorage
from raft.core.types import Membership
from raft.errors import Stopped
from watch.hub import Hub

KEYS = 4000
EVERYTHING = b'{"key":"AA==","range_end":"AA=="%b}'


class FakeDriver:
    """Reads need not wait."""

    def __init__(self) -> None:
        self.core = Consensus(Config(id=1, rng=random.Random(0)), MemoryStorage(Membership()))
        self.core.current_term = 7

    def propose(self, data: bytes) -> asyncio.Future[None]:
        raise AssertionError("nothing is written")

    def read_barrier(self) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


class Rig:
    def __init__(self) -> None:
        self.machine = StateMachine(Backend(MemoryStore()))
        members, leases = types.SimpleNamespace(is_learner=False), types.SimpleNamespace()
        hub, scrubber = Hub(self.machine), Scrubber(self.machine, self.fail)
        limits = Limits(128, 1 << 20)
        self.service = Service(self.machine, FakeDriver(), hub, scrubber, members, leases, limits)
        self.encoder = Encoder(1, 2)
        for index in range(KEYS):
            # All shapes: without a value, overwritten, created again.
            self.put(b"%05d" % index, b"" if index % 3 == 0 else b"value")
            if index % 5 == 0:
                self.apply(DeleteRange(b"%05d" % index))
                self.put(b"%05d" % index, b"again")
            if index % 7 == 0:
                self.put(b"%05d" % index, b"newer")

    def fail(self, error: BaseException) -> None:
        raise AssertionError(error)

    def put(self, key: bytes, value: bytes) -> None:
        self.apply(Put(key, value))

    def apply(self, command) -> None:
        data = encode(command, user="somebody", wall_clock_ms=5)
        assert self.machine.apply(self.machine.applied[0] + 1, 1, data).error is None

    async def json(self, body: bytes) -> bytes:
        answer = await range_(self.service, self.encoder, body)
        return b"".join(answer) if isinstance(answer, list) else answer

    def at_once(self, request: Range) -> bytes:
        from api.service import Reply

        return self.encoder.reply(Reply(self.machine.range(request), self.machine.revision), 7)


def every_turn(function: Callable[[], None]) -> asyncio.Handle:
    """Call ``function`` in every turn of the loop from now on, until the test is over."""
    loop = asyncio.get_running_loop()

    def call() -> None:
        function()
        loop.call_soon(call)

    return loop.call_soon(call)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        (b"", {}),
        (b',"limit":"1500"', {"limit": 1500}),
        (b',"limit":"3"', {"limit": 3}),
        (b',"limit":"4000"', {"limit": 4000}),
        (b',"keys_only":true', {"keys_only": True}),
        (b',"count_only":true,"limit":"3"', {"count_only": True, "limit": 3}),
        (b',"sort_order":"DESCEND","sort_target":"VALUE"', {"sort_order": 2, "sort_target": 4}),
        (b',"min_mod_revision":"3000"', {"min_mod_revision": 3000}),
        (b',"min_mod_revision":"3000000"', {"min_mod_revision": 3000000}),
        (b',"revision":"2000"', {"revision": 2000}),
    ],
)
async def test_an_answer_in_pieces_is_the_same(fields: bytes, options: dict) -> None:
    """However it is read and encoded, it has the same bytes."""
    rig = Rig()
    assert await rig.json(EVERYTHING % fields) == rig.at_once(Range(b"\0", b"\0", **options))


async def test_nothing_found_has_no_kvs() -> None:
    rig = Rig()
    assert await rig.json(b'{"key":"eA==","range_end":"eQ=="}') == rig.at_once(Range(b"x", b"y"))


@pytest.mark.parametrize("fields", [b"", b',"keys_only":true', b',"sort_target":"VALUE"'])
async def test_the_loop_has_its_turns_during_a_large_range(fields: bytes) -> None:
    """Writes come in between, and the answer and its header are of the moment before them all."""
    rig = Rig()
    expected = rig.at_once(
        Range(b"\0", b"\0", keys_only=b"only" in fields, sort_target=4 * (b"sort" in fields))
    )
    written = 0

    def write() -> None:
        nonlocal written
        if written < 200:
            written += 1
            rig.put(b"%05d" % (written * 19), b"too late")

    every_turn(write)
    assert await rig.json(EVERYTHING % fields) == expected
    assert written >= KEYS // 500


async def test_a_small_range_waits_for_nobody() -> None:
    """A range of few keys is over before anything else has its turn."""
    rig = Rig()
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1

    every_turn(count)
    await rig.json(b'{"key":"MDA=","range_end":"MDAyMDA="}')
    assert turns == 0


async def test_a_range_ends_when_the_node_stops() -> None:
    """The state was closed meanwhile: whoever still waits hears of it."""
    rig = Rig()
    asyncio.get_running_loop().call_soon(rig.machine.close)
    with pytest.raises(Stopped):
        await rig.json(EVERYTHING % b"")


async def test_a_cancelled_range_lets_go() -> None:
    """Whoever hangs up keeps the scrubber from nothing."""
    rig = Rig()
    task = asyncio.ensure_future(rig.json(EVERYTHING % b""))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.machine._ranges == []


async def test_turns_are_given_in_order_and_one_at_a_time() -> None:
    """Of those with much to do, one takes a step in a turn of the loop; who was cancelled is passed over."""
    turns = Turns()
    waiting = [turns.next() for _ in range(4)]
    waiting[1].cancel()
    done = []
    while len(done) < 4:
        await asyncio.sleep(0)
        done.append(sum(future.done() for future in waiting))
    assert done == [2, 3, 4, 4]
    assert await asyncio.wait_for(turns.next(), 1) is None
