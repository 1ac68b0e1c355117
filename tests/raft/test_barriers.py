"""Read barriers: which answer counts for which read, when questions are put again and rounds become one."""

from __future__ import annotations

import asyncio

import pytest

from raft.barriers import ReadBarriers
from raft.core.types import ReadState


class Core:
    """Notes the questions."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.last_applied = 100

    def read_index(self, ctx: int) -> None:
        self.asked.append(ctx)


def barriers(core: Core) -> ReadBarriers:
    return ReadBarriers(
        core,
        asyncio.get_running_loop(),
        timeout=60,
        retry_after=0,
        merge_within=60,
        waiting_max=10,
    )


@pytest.mark.parametrize("is_applied", [True, False])
async def test_an_answer_counts_only_for_reads_that_were_there_when_it_was_asked_for(
    is_applied: bool,
) -> None:
    """Of two rounds that became one while they were held, the elder's questions are older than the
    younger's reads: a write may have been acknowledged in between. It makes no difference whether the late
    answer finds its index applied, or waits for it."""
    core = Core()
    reads = barriers(core)
    elder, _ = reads.add()
    reads.ask()
    reads.expire()  # asked again
    assert core.asked == [1, 2]
    younger, _ = reads.add()
    reads.ask()
    if is_applied:
        reads.refuse(2)
        reads.refuse(3)
        reads.confirm(ReadState(1, 100))
    else:
        reads.confirm(ReadState(1, 101))
        reads.hold_all()
        reads.release(101)
    assert not younger.done()
    reads.ask_held()
    reads.confirm(ReadState(core.asked[-1], 100))
    assert younger.done()
    assert elder.done()


async def test_rounds_that_are_held_are_asked_as_one() -> None:
    """However often they are refused."""
    core = Core()
    reads = barriers(core)
    waiters = []
    for _ in range(3):
        waiters.append(reads.add()[0])
        reads.ask()
    for ctx in core.asked:
        reads.refuse(ctx)
    reads.ask_held()
    assert core.asked == [1, 2, 3, 4]
    reads.confirm(ReadState(4, 100))
    assert all(waiter.done() for waiter in waiters)
