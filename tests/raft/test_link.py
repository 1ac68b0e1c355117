"""The way to one peer: it is never given up, and what cannot be sent is dropped."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvloop

import raft.link
from raft.core.messages import Message
from raft.handshake import Identity, Reason
from raft.link import Link, LinkSettings
from tests.common.ports import free_port
from tests.raft.fake_peer import fake_peers, large, session_with_little_room, small


class Linked:
    """A link of member 1 to member 2, and what it calls back."""

    def __init__(self, session: aiohttp.ClientSession, *urls: str, ping_interval: float) -> None:
        self.attempts: asyncio.Queue[None] = asyncio.Queue()
        self.refusals: asyncio.Queue[tuple[Reason | None, str]] = asyncio.Queue()
        self.gone: list[int] = []
        self.is_gone = asyncio.Event()
        self.link = Link(
            2,
            urls,
            session,
            LinkSettings(ping_interval=ping_interval),
            self._headers,
            lambda _, reason, text: self.refusals.put_nowait((reason, text)),
            self._on_gone,
        )

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.link.offer(message)
        self.link.flush()

    def _headers(self, receiver: int) -> Mapping[str, str]:
        self.attempts.put_nowait(None)
        return Identity(1, 1).headers(receiver)

    def _on_gone(self, member: int) -> None:
        self.gone.append(member)
        self.is_gone.set()


@asynccontextmanager
async def linked(*urls: str, ping_interval: float = 5.0) -> AsyncIterator[Linked]:
    """All that happens inside must happen soon."""
    async with session_with_little_room() as session, asyncio.timeout(5):
        one = Linked(session, *urls, ping_interval=ping_interval)
        try:
            yield one
        finally:
            await one.link.close()


async def mute(accepted: asyncio.Queue[None], reader: Any, writer: asyncio.StreamWriter) -> None:
    """Takes a connection, and answers nothing."""
    accepted.put_nowait(None)
    await reader.read()
    writer.close()


async def test_messages_arrive_in_order_as_one_frame() -> None:
    """What was offered since the last flush leaves as one frame, in its order."""
    async with fake_peers() as [peer], linked(peer.url) as one:
        await peer.connected.get()
        one.send(small(1), large(2), small(3))
        assert await peer.frames.get() == [small(1), large(2), small(3)]
        one.send(small(4))
        one.send(small(5))
        assert [await peer.frames.get(), await peer.frames.get()] == [[small(4)], [small(5)]]


async def test_a_long_queue_leaves_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame is begun with no more than FRAME_BYTES, and the order holds over frames."""
    monkeypatch.setattr(raft.link, "FRAME_BYTES", 1000)
    async with fake_peers() as [peer], linked(peer.url) as one:
        await peer.connected.get()
        sent = [large(number, size=300) for number in range(8)]
        one.send(*sent)
        frames = [await peer.frames.get() for _ in range(3)]
        assert [len(frame) for frame in frames] == [3, 3, 2]
        assert [message for frame in frames for message in frame] == sent


async def test_what_is_offered_without_a_connection_is_dropped() -> None:
    """It does not arrive later either, neither with a flush nor without."""
    async with fake_peers() as [peer], linked(peer.url) as one:
        one.send(small(1))
        one.link.offer(small(2))
        await peer.connected.get()
        one.send(small(3))
        assert await peer.frames.get() == [small(3)]


async def test_a_peer_that_does_not_read_costs_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for it is bounded, flush never blocks, the rest is dropped; and when it reads again it
    gets what was not dropped, in order, and whatever is sent from then on."""
    monkeypatch.setattr(raft.link, "QUEUE_BYTES_MAX", 1 << 18)
    async with fake_peers() as [peer], linked(peer.url) as one:
        peer.reads.clear()
        await peer.connected.get()
        for number in range(200):
            one.send(large(number))  # 3 MiB in all; had one of them waited, the loop would hang here
        await asyncio.sleep(0)
        for number in range(200, 400):
            one.send(large(number))  # the same while the link's task waits for room
        peer.reads.set()
        arrived: list[Message] = []
        while small(1) not in arrived:
            arrived += await peer.frames.get()
            one.send(small(1))
        before = [message for message in arrived if message != small(1)]
        assert before == [large(number) for number in range(len(before))]
        # The queue's 256 KiB, a frame of as much that is stuck, and a few sockets' buffers.
        assert 1 << 18 <= len(before) << 14 <= 1 << 20
        one.send(large(1000))
        while large(1000) not in arrived:
            arrived += await peer.frames.get()


async def test_a_message_that_alone_exceeds_the_bound_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those after it are not."""
    monkeypatch.setattr(raft.link, "QUEUE_BYTES_MAX", 1000)
    async with fake_peers() as [peer], linked(peer.url) as one:
        await peer.connected.get()
        one.send(large(1), small(2))
        assert await peer.frames.get() == [small(2)]


async def test_a_connection_that_breaks_with_a_frame_stuck_in_it_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What waited for room is lost, and leaves the room of it to what goes over the new one."""
    monkeypatch.setattr(raft.link, "QUEUE_BYTES_MAX", 1 << 18)
    async with fake_peers() as [peer], linked(peer.url) as one:
        peer.reads.clear()
        transport = await peer.connected.get()
        for number in range(100):
            one.send(large(number))
        await asyncio.sleep(0)
        peer.reads = asyncio.Event()
        peer.reads.set()
        transport.abort()
        await peer.connected.get()
        one.send(large(1000))
        assert await peer.frames.get() == [large(1000)]


async def test_a_peer_of_whom_nothing_is_heard_is_hung_up_on(caplog: pytest.LogCaptureFixture) -> None:
    """One that takes connections, then neither reads nor answers: the log says so, and it is tried anew."""
    async with fake_peers() as [peer], linked(peer.url, ping_interval=0.05) as one:
        peer.reads.clear()
        for _ in range(2):
            await one.attempts.get()
    assert "there was no sign of life for 0.05 s" in caplog.text


async def test_a_peer_that_lives_is_kept() -> None:
    """It answers signs of life, however little there is to send."""
    async with fake_peers() as [peer], linked(peer.url, ping_interval=0.02) as one:
        for _ in range(6):
            await peer.connected.get()  # one for each sign of life
        assert one.link.connected_since is not None
        assert peer.attempts == 1


def test_a_connection_that_is_lost_while_it_is_written_to_is_no_failure() -> None:
    """On the servers' own loop a lost connection refuses what is written to it, before anybody was told of
    its end: what is sent then is dropped, and the link connects anew."""

    async def lose_connections() -> None:
        async with fake_peers() as [peer], linked(peer.url) as one:
            for _ in range(20):
                transport = await peer.connected.get()
                linger = struct.pack("ii", 1, 0)  # hang up with a reset
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                transport.abort()
                while one.link.connected_since is not None:
                    one.send(small(1))
                    one.send(large(2))
                    await asyncio.sleep(0)
                one.link.try_now()

    uvloop.run(lose_connections())


async def test_why_a_peer_hung_up_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """The log has its goodbye."""
    async with fake_peers() as [peer], linked(peer.url):
        await peer.connected.get()
        await peer.streams[-1].end("it is late")
    assert "the connection to member 2 ended: it is late" in caplog.text


async def test_a_peer_that_has_gone_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """``on_gone`` is called when a connection has ended and nobody takes another one; not at each try after
    that."""
    monkeypatch.setattr(raft.link, "_BRIEF", 0.0)
    async with fake_peers() as [peer], linked(peer.url) as one:
        await peer.connected.get()
        assert one.link.connected_since is not None
        await peer.close()
        await one.is_gone.wait()
        assert one.link.connected_since is None
        while not one.attempts.empty():
            one.attempts.get_nowait()
        for _ in range(2):
            one.link.try_now()
            await one.attempts.get()
        assert one.gone == [2]


async def test_a_peer_that_never_was_there_has_not_gone() -> None:
    """``on_gone`` is not called where nobody ever listened."""
    async with linked(f"http://127.0.0.1:{free_port()}") as one:
        for _ in range(3):
            await one.attempts.get()
        assert one.gone == []


async def test_a_peer_that_hung_up_but_is_there_has_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a connection ends and the next one is taken, it is there at once, and no ``on_gone``."""
    monkeypatch.setattr(raft.link, "_BRIEF", 0.0)
    monkeypatch.setattr(raft.link, "_BACK_OFF_MIN", 60.0)
    async with fake_peers() as [peer], linked(peer.url) as one:
        (await peer.connected.get()).abort()
        await peer.connected.get()
        assert one.gone == []


async def test_a_peer_that_is_back_is_connected_to() -> None:
    """By itself, and messages arrive as before."""
    async with fake_peers() as [peer], linked(peer.url) as one:
        await peer.connected.get()
        await peer.close()
        await peer.open()
        await peer.connected.get()
        one.send(small(1))
        assert await peer.frames.get() == [small(1)]


async def test_one_that_is_heard_of_is_called_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """``try_now`` ends the wait between two attempts."""
    monkeypatch.setattr(raft.link, "_BACK_OFF_MAX", 60.0)
    async with fake_peers() as [peer], linked(peer.url) as one:
        peer.refusal = 404
        await one.refusals.get()  # now it waits for a minute
        peer.refusal = None
        one.link.try_now()
        await peer.connected.get()


async def test_all_addresses_are_tried() -> None:
    """One after the other; ``url`` is the one that answers."""
    async with fake_peers() as [peer], linked(f"http://127.0.0.1:{free_port()}", peer.url) as one:
        await peer.connected.get()
        assert one.link.url == peer.url


async def test_what_is_no_member_is_told_of() -> None:
    """A server that is not Kvorum's takes no messages: ``on_refused`` hears its status, and no reason."""
    async with fake_peers() as [peer]:
        peer.refusal = 404
        async with linked(peer.url) as one:
            reason, text = await one.refusals.get()
            assert (reason, "no member of a Kvorum cluster (HTTP status 404)" in text) == (None, True)


async def test_a_server_that_cannot_answer_now_has_not_refused(caplog: pytest.LogCaptureFixture) -> None:
    """A member that is stopping, or a proxy before one that does not run, says 5xx: that is no reason to
    give up founding a cluster, and it is called again as one that is not there."""
    async with fake_peers() as [peer]:
        peer.refusal = 503
        async with linked(peer.url) as one:
            for _ in range(2):
                await one.attempts.get()
            peer.refusal = None
            one.link.try_now()
            await peer.connected.get()
            assert one.refusals.empty()
    assert f"member 2 cannot be reached at {peer.url}: HTTP status 503" in caplog.text


async def test_close_while_connecting() -> None:
    """It ends at once, whether or not the peer answers."""
    accepted: asyncio.Queue[None] = asyncio.Queue()
    server = await asyncio.start_server(lambda r, w: mute(accepted, r, w), "127.0.0.1", 0)
    async with server, linked(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as one:
        await accepted.get()
        async with asyncio.timeout(0.5):
            await one.link.close()
        assert one.link.connected_since is None


async def test_close_while_connected() -> None:
    """The peer hears of it, and nothing is sent from then on."""
    async with fake_peers() as [peer], linked(peer.url) as one:
        await peer.connected.get()
        async with asyncio.timeout(0.5):
            await one.link.close()
        assert one.link.connected_since is None
        one.send(small(1))
        await peer.ended.get()
        assert peer.frames.empty()
        assert peer.attempts == 1


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "while the task waits for room"])
async def test_close_while_a_frame_is_stuck(waits: bool) -> None:
    """It does not wait for a peer that does not read."""
    async with fake_peers() as [peer], linked(peer.url) as one:
        peer.reads.clear()
        await peer.connected.get()
        for number in range(100):
            one.send(large(number))
        if waits:
            await asyncio.sleep(0)
        async with asyncio.timeout(0.5):
            await one.link.close()
        assert one.link.connected_since is None


async def test_a_peer_that_hangs_up_at_once_is_called_ever_more_rarely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Or two who claim to be the same member would keep a third from its work, and fill its log."""
    async with fake_peers() as [peer]:
        peer.is_rude = True
        async with linked(peer.url):
            await asyncio.sleep(0.5)
            assert 2 <= peer.attempts <= 6
    assert caplog.text.count("the connection to member 2 ended") == 1


async def test_no_error_ends_a_link(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that nobody has thought of is told, and the peer called again."""
    get = aiohttp.ClientSession.get

    def broken(*_: Any, **__: Any) -> Any:
        monkeypatch.setattr(aiohttp.ClientSession, "get", get)
        raise KeyError("surprise")

    monkeypatch.setattr(aiohttp.ClientSession, "get", broken)
    async with fake_peers() as [peer], linked(peer.url):
        await peer.connected.get()
    assert "surprise" in caplog.text
