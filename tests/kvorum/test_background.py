"""Plans in the background: nobody looks at them, so what goes wrong there must find its way."""

from __future__ import annotations

import asyncio
import queue
from types import SimpleNamespace
from typing import Any

from kvorum.background import AsyncBackground, Background
from kvorum.errors import KvorumError
from kvorum.plans import Plan, Sleep

SECONDS = 20


def watchful() -> Plan[str]:
    """Tells what it has met."""
    try:
        yield Sleep(0)
    except KvorumError as error:
        return str(error)
    return "nothing"


def test_a_defect_is_told_to_the_plan() -> None:
    def perform(*_: Any) -> None:
        raise ZeroDivisionError("x")

    told: queue.Queue[str] = queue.Queue()
    client: Any = SimpleNamespace(perform=perform)
    Background(client, watchful(), "test", told.put)
    assert told.get(timeout=SECONDS) == "a defect: ZeroDivisionError('x')"


async def test_a_defect_is_told_to_the_plan_of_a_task() -> None:
    async def perform(*_: Any) -> None:
        raise ZeroDivisionError("x")

    told: asyncio.Queue[str] = asyncio.Queue()
    client: Any = SimpleNamespace(perform=perform)
    background = AsyncBackground(client, watchful(), "test", told.put_nowait)
    assert await asyncio.wait_for(told.get(), SECONDS) == "a defect: ZeroDivisionError('x')"
    background.stop()


async def test_what_is_stopped_is_told_nothing() -> None:
    told: list[str] = []
    client: Any = SimpleNamespace(perform=lambda effect: asyncio.sleep(SECONDS))
    background = AsyncBackground(client, watchful(), "test", told.append)
    await asyncio.sleep(0)
    background.stop()
    await asyncio.wait([background._task], timeout=SECONDS)
    assert background._task.cancelled()
    assert told == []
