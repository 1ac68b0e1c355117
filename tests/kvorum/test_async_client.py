"""What is asyncio's own: cancellation anywhere, and event loops."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from kvorum import AsyncClient, ConnectionFailed, KvorumError
from tests.common.ports import free_port
from tests.common.servers import Server
from tests.kvorum.raw_server import Connection, answering, raw_server

SECONDS = 20


async def cancel_in(coroutine: Any, turns: int) -> bool:
    """Cancel it after so many turns of the loop; False if it has ended by then."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


async def test_the_answer_to_a_call_that_was_cancelled_is_not_that_to_the_next() -> None:
    is_asked, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        connection.request()
        is_asked.set()
        go_on.wait(SECONDS)
        connection.answer(header={"revision": "1"})
        connection.wait_for_end()

    with raw_server(slow, answering(2)) as server:
        async with AsyncClient(server.url) as client:
            task = asyncio.ensure_future(client.put("a", "1"))
            await asyncio.to_thread(is_asked.wait, SECONDS)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go_on.set()
            assert (await client.put("a", "2")).revision == 2


async def test_whenever_a_step_of_a_watch_is_cancelled_nothing_is_lost(
    kvorum_server: Server, key: str
) -> None:
    """Also where it waits for a connection, and where several revisions come at once."""
    async with AsyncClient(kvorum_server.url) as client:
        first = (await client.put(key, "0")).revision
        for number in range(1, 40):
            await client.put(key, str(number))
        watch = client.watch(key, start_revision=first)
        told: list[int] = []

        async def step() -> None:
            told.append(int((await anext(aiter(watch))).value))

        cancelled = 0
        for turns in [*range(40), *range(40)]:
            cancelled += await cancel_in(step(), turns)
        while len(told) < 40:
            await asyncio.wait_for(step(), SECONDS)
        assert cancelled > 5
        assert told == list(range(40))
        watch.close()


async def test_a_watch_goes_on_after_a_step_that_took_too_long(kvorum_server: Server, key: str) -> None:
    async with AsyncClient(kvorum_server.url) as client, client.watch(key) as watch:
        events = aiter(watch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        await client.put(key, "1")
        assert (await asyncio.wait_for(anext(events), SECONDS)).value == b"1"


async def test_who_is_cancelled_in_the_block_of_a_lease_is_cancelled() -> None:
    """Not: told that the lease could not be revoked, and going on."""

    def grants(connection: Connection) -> None:
        request = connection.request()
        assert request is not None
        connection.answer(ID=request["ID"], TTL="60")

    with raw_server(grants, Connection.request) as server:

        async def work(inside: asyncio.Event) -> None:
            async with AsyncClient(server.url, timeout=0.3) as client, client.lease(60):
                inside.set()
                await asyncio.sleep(SECONDS)

        inside = asyncio.Event()
        task = asyncio.ensure_future(work(inside))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_a_client_is_of_one_event_loop_and_says_so(kvorum_server: Server) -> None:
    client = AsyncClient(kvorum_server.url)
    asyncio.run(close_after(client, client.put("a", "1")))
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(close_after(client, client.put("a", "1")))


async def test_a_client_that_was_closed_says_so(kvorum_server: Server) -> None:
    async with AsyncClient(kvorum_server.url) as client:
        await client.put("a", "1")
    with pytest.raises(KvorumError, match="the client is closed"):
        await client.put("a", "1")


async def close_after(client: AsyncClient, coroutine: Any) -> Any:
    try:
        return await coroutine
    finally:
        await client.close()


async def test_a_task_that_was_refused_leaves_nothing_behind() -> None:
    async with AsyncClient(f"127.0.0.1:{free_port()}", timeout=0.2) as client:
        with pytest.raises(ConnectionFailed):
            await client.put("a", "1")
    assert asyncio.all_tasks() == {asyncio.current_task()}
