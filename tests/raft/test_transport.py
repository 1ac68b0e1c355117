"""How messages and requests find the peers: whom a node sends to, and what it hears of what it sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

import raft.link
import raft.transport
from raft.core.messages import HeartbeatResponse, InstallSnapshot, Message
from raft.core.types import Membership, Position, SnapshotMeta
from raft.handshake import REFUSED, Identity, Sender
from raft.link import LinkSettings
from raft.peer_server import PeerServer
from raft.transport import CallFailed, NotReached, PeerTransport
from tests.common.ports import free_port, free_ports
from tests.raft.fake_peer import fake_peers, large, small


def install(target: int, index: int = 7) -> InstallSnapshot:
    return InstallSnapshot(1, target, 3, SnapshotMeta(Position(index, 2), Membership(frozenset({1, 2}))))


class Snapshots:
    """Takes InstallSnapshots, and ends each as ``end`` says."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[tuple[InstallSnapshot, str]] = asyncio.Queue()
        self.end: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def send(self, message: InstallSnapshot, url: str, headers: Mapping[str, str]) -> bool:
        assert headers == Identity(0xC1, 1).headers(message.target)
        self.taken.put_nowait((message, url))
        return await asyncio.shield(self.end)


class Node:
    """Member 1's transport, and what it reports."""

    def __init__(self) -> None:
        self.snapshots = Snapshots()
        self.sent: asyncio.Queue[tuple[int, int, bool]] = asyncio.Queue()
        self.refusals: asyncio.Queue[str] = asyncio.Queue()
        self.transport = PeerTransport(
            Identity(0xC1, 1),
            LinkSettings(),
            self.snapshots,
            on_snapshot_sent=lambda *report: self.sent.put_nowait(report),
            on_refused=lambda _, __, text: self.refusals.put_nowait(text),
            on_gone=lambda _: None,
            log_is_empty=lambda: False,
        )


@asynccontextmanager
async def one_node() -> AsyncIterator[Node]:
    """All that happens inside must happen soon."""
    async with asyncio.timeout(5):
        node = Node()
        try:
            yield node
        finally:
            await node.transport.close()


class Answering:
    """A server that answers requests to ``/raft/x`` with what ``answer`` makes."""

    def __init__(self, answer: Callable[[bytes], web.Response]) -> None:
        self.answer = answer
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = await request.read()
        await self.gate.wait()
        return self.answer(body)


@asynccontextmanager
async def answering(answer: Callable[[bytes], web.Response]) -> AsyncIterator[Answering]:
    server = Answering(answer)
    application = web.Application()
    application.router.add_post("/raft/x", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.02)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def echo(body: bytes) -> web.Response:
    return web.Response(body=b"re: " + body)


def failing(_: bytes) -> web.Response:
    return web.Response(status=500)


async def test_messages_go_to_their_targets() -> None:
    """Each peer gets its own, in order; those to nobody we know are dropped."""
    async with fake_peers(2) as [two, three], one_node() as node:
        node.transport.set_peers({2: (two.url,), 3: (three.url,)})
        await two.connected.get()
        await three.connected.get()
        node.transport.send([small(1), small(2, target=3), small(3, target=4), small(4), small(5, target=3)])
        assert await two.frames.get() == [small(1), small(4)]
        assert await three.frames.get() == [small(2, target=3), small(5, target=3)]


async def test_peers_come_and_go() -> None:
    """``set_peers`` connects to who is new, hangs up on who has left, and leaves the others alone; there is
    no link to ourselves, nor to who has no address."""
    async with fake_peers(2) as [two, three], one_node() as node:
        node.transport.set_peers({1: ("http://127.0.0.1:1",), 2: (two.url,), 4: ()})
        assert node.transport.links.keys() == {2}
        await two.connected.get()
        node.transport.set_peers({2: (two.url,), 3: (three.url,)})
        await three.connected.get()
        assert node.transport.connected_since(2) is not None
        node.transport.set_peers({3: (three.url,)})
        await two.ended.get()
        assert node.transport.connected_since(2) is None
        node.transport.send([small(1), small(2, target=3)])
        assert await three.frames.get() == [small(2, target=3)]
        assert (two.attempts, three.attempts, two.frames.empty()) == (1, 1, True)


async def test_a_peer_with_another_address_keeps_its_connection() -> None:
    """What is open stays, and is used; the next connection goes to the new address."""
    async with fake_peers(2) as [before, after], one_node() as node:
        node.transport.set_peers({2: (before.url,)})
        connection = await before.connected.get()
        node.transport.set_peers({2: (after.url,)})
        node.transport.send([small(1)])
        assert await before.frames.get() == [small(1)]
        connection.abort()
        await after.connected.get()
        node.transport.send([small(2)])
        assert await after.frames.get() == [small(2)]
        assert before.attempts == 1


async def test_a_peer_that_is_not_reached_is_tried_at_its_new_address_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A change of its address ends the wait for the next attempt."""
    monkeypatch.setattr(raft.link, "_BACK_OFF_MAX", 60.0)
    async with fake_peers(2) as [before, after], one_node() as node:
        before.refusal = 404
        node.transport.set_peers({2: (before.url,)})
        await node.refusals.get()  # now it waits for a minute
        node.transport.set_peers({2: (after.url,)})
        await after.connected.get()


async def test_a_stranger_is_answered_where_it_says() -> None:
    """Who connects to us and is not known yet is sent messages at the address it names, until the members are
    set without it."""
    async with fake_peers() as [nine], one_node() as node:
        node.transport.heard_of(Sender(9, (nine.url,)))
        await nine.connected.get()
        node.transport.send([small(1, target=9)])
        assert await nine.frames.get() == [small(1, target=9)]
        node.transport.set_peers({})
        await nine.ended.get()


async def test_a_stranger_without_an_address_is_not_answered() -> None:
    """There is nothing to connect to."""
    async with one_node() as node:
        node.transport.heard_of(Sender(9, ()))
        assert node.transport.links == {}


async def test_a_member_that_is_heard_of_is_called_now_where_we_know_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its link does not wait any longer; the address it names counts for nothing beside ours."""
    monkeypatch.setattr(raft.link, "_BACK_OFF_MAX", 60.0)
    async with fake_peers(2) as [two, elsewhere], one_node() as node:
        two.refusal = 404
        node.transport.set_peers({2: (two.url,)})
        await node.refusals.get()  # now it waits for a minute
        two.refusal = None
        node.transport.heard_of(Sender(2, (elsewhere.url,)))
        await two.connected.get()
        assert elsewhere.attempts == 0


async def test_a_closed_transport_opens_no_link() -> None:
    """Neither for members nor for who is heard of, and what is sent is dropped."""
    node = Node()
    await node.transport.close()
    node.transport.heard_of(Sender(9, ("http://127.0.0.1:1",)))
    node.transport.set_peers({2: ("http://127.0.0.1:1",)})
    node.transport.send([small(1)])
    assert node.transport.links == {}


async def test_close_ends_also_the_links_that_are_being_closed() -> None:
    """Who was removed a moment before is not called for ever after."""
    node = Node()
    node.transport.set_peers({2: (f"http://127.0.0.1:{free_port()}",)})
    node.transport.set_peers({})
    await node.transport.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_snapshot_goes_beside_the_messages(arrived: bool) -> None:
    """The sender of snapshots gets it with the peer's address, and its end is reported once, with the index
    that was asked for; messages are sent meanwhile."""
    async with fake_peers() as [two], one_node() as node:
        node.transport.set_peers({2: (two.url,)})
        await two.connected.get()
        node.transport.send([install(2, 7), small(1)])
        assert await node.snapshots.taken.get() == (install(2, 7), two.url)
        assert await two.frames.get() == [small(1)]
        assert node.sent.empty()
        node.snapshots.end.set_result(arrived)
        assert await node.sent.get() == (2, 7, arrived)
        await node.transport.close()
        assert node.sent.empty()


async def test_a_snapshot_that_cannot_be_sent_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """An error of the sender's is logged, and reported once as one that did not arrive."""
    async with one_node() as node:
        node.transport.set_peers({2: (f"http://127.0.0.1:{free_port()}",)})
        node.snapshots.end.set_exception(KeyError("surprise"))
        node.transport.send([install(2, 7)])
        assert await node.sent.get() == (2, 7, False)
        await node.transport.close()
        assert node.sent.empty()
    assert "surprise" in caplog.text


async def test_the_end_of_a_snapshot_that_a_newer_one_has_ended_is_not_reported() -> None:
    """It would be taken for the end of the newer one, which may be up to the same index."""
    async with one_node() as node:
        node.transport.set_peers({2: (f"http://127.0.0.1:{free_port()}",)})
        node.transport.send([install(2, 7)])
        await node.snapshots.taken.get()
        older, node.snapshots.end = node.snapshots.end, asyncio.get_running_loop().create_future()
        node.transport.send([install(2, 7)])
        await node.snapshots.taken.get()
        older.set_result(False)
        node.snapshots.end.set_result(True)
        assert await node.sent.get() == (2, 7, True)
        await node.transport.close()
        assert node.sent.empty()


async def test_a_snapshot_for_nobody_is_reported() -> None:
    """Without a link nothing is sent, and that is said once."""
    async with one_node() as node:
        node.transport.send([install(9, 7)])
        assert await node.sent.get() == (9, 7, False)
        await node.transport.close()
        assert node.sent.empty()
        assert node.snapshots.taken.empty()


async def test_a_snapshot_under_way_ends_with_the_transport() -> None:
    """It is reported once as one that did not arrive."""
    async with one_node() as node:
        node.transport.set_peers({2: (f"http://127.0.0.1:{free_port()}",)})
        node.transport.send([install(2, 7)])
        await node.snapshots.taken.get()
        await node.transport.close()
        assert node.sent.get_nowait() == (2, 7, False)
        assert node.sent.empty()


async def test_a_peer_answers_a_call() -> None:
    """What it says comes back; an address that refuses is passed over."""
    async with answering(echo) as two, one_node() as node:
        node.transport.set_peers({2: (f"http://127.0.0.1:{free_port()}", two.url)})
        assert await node.transport.call(2, "/raft/x", b"hello") == b"re: hello"
        assert two.asked == 1


async def test_a_call_that_is_refused_did_nothing() -> None:
    """The peer's reason is told."""
    refusal = {REFUSED: "go away"}
    async with answering(lambda _: web.Response(status=412, headers=refusal)) as two, one_node() as node:
        node.transport.set_peers({2: (two.url,)})
        with pytest.raises(NotReached, match="member 2 cannot be asked: go away"):
            await node.transport.call(2, "/raft/x", b"")


async def test_a_call_to_nobody_did_nothing() -> None:
    """Whether nobody listens there, or nobody knows where."""
    async with one_node() as node:
        node.transport.set_peers({2: (f"http://127.0.0.1:{free_port()}",)})
        with pytest.raises(NotReached, match="member 2 cannot be asked"):
            await node.transport.call(2, "/raft/x", b"")
        with pytest.raises(NotReached, match="where member 9 is reached is not known"):
            await node.transport.call(9, "/raft/x", b"")


async def test_a_call_without_an_answer_is_not_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer may have acted: its other address is not asked, and nobody says that nothing was done."""
    monkeypatch.setattr(raft.transport, "CALL_TIMEOUT_SECONDS", 0.5)
    async with answering(echo) as two, answering(echo) as other, one_node() as node:
        two.gate.clear()
        node.transport.set_peers({2: (two.url, other.url)})
        with pytest.raises(CallFailed, match="did not answer: timed out") as failed:
            await node.transport.call(2, "/raft/x", b"")
        assert not isinstance(failed.value, NotReached)
        assert (two.asked, other.asked) == (1, 0)


async def test_a_call_that_fails_in_the_peer_is_not_made_twice() -> None:
    """An error of its server may come after it has acted, too."""
    async with answering(failing) as two, answering(echo) as other, one_node() as node:
        node.transport.set_peers({2: (two.url, other.url)})
        with pytest.raises(CallFailed, match="HTTP status 500") as failed:
            await node.transport.call(2, "/raft/x", b"")
        assert not isinstance(failed.value, NotReached)
        assert (two.asked, other.asked) == (1, 0)


async def test_a_call_that_is_cut_off_is_not_made_twice() -> None:
    """A peer that stops before it has answered may have acted."""
    async with answering(echo) as other, one_node() as node:
        asked: asyncio.Queue[None] = asyncio.Queue()

        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readuntil(b"\r\n\r\n")
            if request.startswith(b"POST"):  # and not the link
                asked.put_nowait(None)
            writer.close()

        server = await asyncio.start_server(cut, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            node.transport.set_peers({2: (url, other.url)})
            with pytest.raises(CallFailed, match="did not answer") as failed:
                await node.transport.call(2, "/raft/x", b"")
        assert not isinstance(failed.value, NotReached)
        assert (asked.qsize(), other.asked) == (1, 0)


class Member:
    """One with both halves, transport and server, of members 1 to 3."""

    def __init__(
        self, number: int, ports: Mapping[int, int], receive: Callable[[Member, Message], None]
    ) -> None:
        self.us = Identity(0xC1, number)
        self.ports = ports
        self.transport = PeerTransport(
            self.us,
            LinkSettings(),
            Snapshots(),
            on_snapshot_sent=lambda *_: None,
            on_refused=lambda *_: None,
            on_gone=lambda _: None,
            log_is_empty=lambda: False,
        )
        self.server = PeerServer(
            self.us,
            receive=lambda message: receive(self, message),
            heard_of=self.transport.heard_of,
            removed=lambda: frozenset(),
            has_started=lambda _: False,
            handlers={},
            open_pages={},
            ping_interval=5.0,
        )

    async def open(self) -> None:
        await self.server.open([("127.0.0.1", self.ports[self.us.member_id])])
        self.transport.set_peers({one: (f"http://127.0.0.1:{port}",) for one, port in self.ports.items()})

    async def close(self) -> None:
        await self.transport.close()
        await self.server.close()


class Slow:
    """Member 3 in a thread of its own, whose ``receive`` blocks until ``gate`` is set."""

    def __init__(self, ports: Mapping[int, int]) -> None:
        self.gate = threading.Event()
        self.is_blocked = threading.Event()
        self.arrived: list[Message] = []
        self.stop = threading.Event()
        self._ports = ports
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Slow:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self.stop.set()
        self._thread.join()

    def _receive(self, member: Member, message: Message) -> None:
        self.is_blocked.set()
        assert self.gate.wait(5)
        self.arrived.append(message)
        if message == small(0, target=3):
            self.stop.set()

    async def _run(self) -> None:
        member = Member(3, self._ports, self._receive)
        await member.open()
        await asyncio.to_thread(self.stop.wait)
        await member.close()


async def test_a_slow_peer_costs_the_others_nothing() -> None:
    """While member 3 takes nothing, every message to member 2 is answered, in order and quickly; and when
    it goes on it gets its own, in order."""
    answers: asyncio.Queue[Message] = asyncio.Queue()
    arrived: list[Message] = []

    def answer(member: Member, message: Message) -> None:
        arrived.append(message)
        member.transport.send([HeartbeatResponse(2, 1, 1, len(arrived))])

    ports = dict(zip((1, 2, 3), free_ports(3), strict=True))
    one = Member(1, ports, lambda _, message: answers.put_nowait(message))
    two = Member(2, ports, answer)
    loop = asyncio.get_running_loop()
    with Slow(ports) as slow:
        async with asyncio.timeout(8):
            await one.open()
            await two.open()
            try:
                links = [(one, 2), (one, 3), (two, 1)]
                while None in [by.transport.connected_since(to) for by, to in links]:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                one.transport.send([small(1, target=3)])
                await asyncio.to_thread(slow.is_blocked.wait)
                slowest, size = 0.0, 1 << 17
                for number in range(64):  # 8 MiB for each, more than the sockets to member 3 take
                    begun = loop.time()
                    one.transport.send([large(number, size, target=3), large(number, size)])
                    assert await answers.get() == HeartbeatResponse(2, 1, 1, number + 1)
                    slowest = max(slowest, loop.time() - begun)
                assert slow.arrived == []
                assert arrived == [large(number, size) for number in range(64)]
                assert slowest < 0.5
                one.transport.send([small(0, target=3)])
                slow.gate.set()
                await asyncio.to_thread(slow.stop.wait)
                assert slow.arrived == [
                    small(1, target=3),
                    *[large(number, size, target=3) for number in range(64)],
                    small(0, target=3),
                ]
            finally:
                slow.gate.set()
                await two.close()
                await one.close()
