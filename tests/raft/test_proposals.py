"""Who waits for which proposal: ids."""

from __future__ import annotations

import asyncio

from raft.proposals import Proposals, split


async def test_ids_go_on_behind_the_last_number() -> None:
    """Wherever chance lets them begin, each is new, and leads to whoever has registered it."""
    proposals = Proposals((1 << 64) - 1, 1.0, asyncio.get_running_loop())
    registered = [proposals.register(data) for data in (b"a", b"b")]
    assert [split(data) for data, _ in registered] == [((1 << 64) - 1, b"a"), (0, b"b")]
    proposals.resolve(0, "of b")
    assert await registered[1][1] == "of b"
    assert not registered[0][1].done()
