"""What listens for the other members: whose messages it takes, and when it hangs up."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from aiohttp import hdrs, web

import raft.peer_server
from raft.codec import encode
from raft.core.messages import Message
from raft.handshake import CLUSTER, PROTOCOL, REASON, REFUSED, Identity, Sender
from raft.link import STREAM_PATH
from raft.peer_server import REQUEST_SENDER, PeerServer
from raft.stream import LENGTH_BYTES
from tests.common.ports import free_port
from tests.raft.fake_peer import UPGRADED, small

TWO = Identity(0xC1, 2, ("http://two:2380",))
THREE = Identity(0xC1, 3)
REMOVED = Identity(0xC1, 8)


class Opened:
    """A member's end of its stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(framed(frame) for frame in frames))

    async def receive(self) -> bytes:
        """The next frame. Raises IncompleteReadError at the end."""
        size = int.from_bytes(await self.reader.readexactly(LENGTH_BYTES), "big")
        return await self.reader.readexactly(size)

    async def end(self) -> str:
        """How it ends: the goodbye, which is answered, or what else is left."""
        try:
            return (await self.receive()).decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            return ""
        finally:
            self.close()

    def close(self) -> None:
        self.writer.close()

    async def gone(self) -> None:
        """Hung up, and nothing left of it."""
        self.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


def framed(frame: bytes) -> bytes:
    return len(frame).to_bytes(LENGTH_BYTES, "big") + frame


def stream_request(member: Identity) -> bytes:
    headers = {hdrs.HOST: "one", **member.headers(1), **UPGRADED}
    lines = [f"GET {STREAM_PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


class Serving:
    """Member 1's server, what it delivers, and members that connect to it."""

    def __init__(self, ping_interval: float = 5.0) -> None:
        self.received: asyncio.Queue[Message] = asyncio.Queue()
        self.heard_of: list[Sender] = []
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.server = PeerServer(
            Identity(0xC1, 1),
            receive=self.received.put_nowait,
            heard_of=self.heard_of.append,
            removed=lambda: frozenset({8}),
            has_started=lambda _: False,
            handlers={"/raft/ask": self._answer, "/raft/wait": self._wait},
            open_pages={"/page": self._page},
            ping_interval=ping_interval,
        )
        self.url = f"http://127.0.0.1:{free_port()}"
        self.session = aiohttp.ClientSession()
        self.streams: list[Opened] = []

    async def open(self) -> None:
        await self.server.open([("127.0.0.1", int(self.url.rpartition(":")[2]))])

    async def connect(self, member: Identity) -> Opened:
        """As a link does. Raises OSError; AssertionError if it is not let in."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.rpartition(":")[2]))
        stream = Opened(reader, writer)
        self.streams.append(stream)
        writer.write(stream_request(member))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return stream

    async def get(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
        async with self.session.get(self.url + path, headers=headers) as response:
            return response.status, dict(response.headers), await response.text()

    async def _answer(self, request: web.Request) -> web.Response:
        sender = request[REQUEST_SENDER]
        return web.Response(text=f"{request.method} of {sender.member_id}: {await request.text()}")

    async def _wait(self, request: web.Request) -> web.Response:
        self.asked.set()
        await self.gate.wait()
        return web.Response()

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text="welcome")


@asynccontextmanager
async def serving(ping_interval: float = 5.0) -> AsyncIterator[Serving]:
    """All that happens inside must happen soon."""
    one = Serving(ping_interval)
    async with one.session, asyncio.timeout(5):
        await one.open()
        try:
            yield one
        finally:
            for stream in one.streams:
                await stream.gone()
            await one.server.close()


async def test_a_member_delivers_its_messages() -> None:
    """In their order over frames, and who it is is told before the first of them."""
    async with serving() as one:
        stream = await one.connect(TWO)
        stream.send(encode([small(1, source=2, target=1), small(2, source=2, target=1)]))
        stream.send(encode([small(3, source=2, target=1)]))
        for number in (1, 2, 3):
            assert await one.received.get() == small(number, source=2, target=1)
        assert one.heard_of == [Sender(2, TWO.peer_urls)]


@pytest.mark.parametrize("path", [STREAM_PATH, "/raft/ask"])
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "not-a-member"),
        ({**TWO.headers(1), CLUSTER: "c2"}, "cluster"),
        (TWO.headers(3), "other-member"),
        (REMOVED.headers(1), "removed"),
    ],
)
async def test_strangers_are_refused(path: str, headers: dict[str, str], reason: str) -> None:
    """With status 412, the reason and a sentence in the headers, and the sentence as the body: on every path
    that is for members."""
    async with serving() as one:
        status, answered, text = await one.get(path, headers)
        assert (status, answered[REASON], answered[REFUSED] + "\n") == (412, reason, text)
        assert one.heard_of == []


async def test_a_stranger_is_logged_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For each sender and reason."""
    async with serving() as one:

        async def lines(*requests: dict[str, str]) -> int:
            caplog.clear()
            for headers in requests:
                await one.get(STREAM_PATH, headers)
            return caplog.text.count("was refused")

        assert await lines(TWO.headers(3), TWO.headers(3), TWO.headers(3)) == 1
        assert await lines(THREE.headers(3), {**TWO.headers(1), CLUSTER: "c2"}, TWO.headers(3)) == 2
        monkeypatch.setattr(raft.peer_server, "_REMIND_SECONDS", 0.0)
        assert await lines(TWO.headers(3)) == 1


async def test_a_header_of_any_bytes_is_refused_in_order() -> None:
    """What a stranger sends and is quoted to it may not make the answer fail."""
    async with serving() as one:
        raw = f"GET {STREAM_PATH} HTTP/1.1\r\nHost: x\r\nX-Kvorum-From: 2\r\n{PROTOCOL}: ".encode()
        port = int(one.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw + b"\xff\xfe\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 412 ")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (b"nonsense", "protocol version 110"),
        (b"\2\x91\x91\x63", "tag 99"),
        (encode([small(1, source=3, target=1)]), "from member 3 to member 1 came from member 2"),
        (encode([small(1, source=2, target=3)]), "from member 2 to member 3 came from member 2"),
    ],
    ids=["garbage", "no message", "another source", "another target"],
)
async def test_what_is_no_message_ends_the_connection(
    frame: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log and the sender hear why, and nothing that came after it is delivered."""
    async with serving() as one:
        stream = await one.connect(TWO)
        stream.send(encode([small(1, source=2, target=1)]))
        stream.send(frame)
        stream.send(encode([small(2, source=2, target=1)]))
        assert said in await stream.end()
        assert said in caplog.text
        assert one.received.get_nowait() == small(1, source=2, target=1)
        assert one.received.empty()
        # It is let in again.
        stream = await one.connect(TWO)
        stream.send(encode([small(3, source=2, target=1)]))
        assert await one.received.get() == small(3, source=2, target=1)


async def test_a_frame_is_delivered_up_to_what_is_wrong_in_it() -> None:
    """The messages before it in the same frame were good ones; none behind it is taken."""
    async with serving() as one:
        stream = await one.connect(TWO)
        good, late = small(1, source=2, target=1), small(3, source=2, target=1)
        stream.send(encode([good, small(2, source=3, target=1), late]))
        await stream.end()
        assert one.received.get_nowait() == good
        assert one.received.empty()


async def test_a_frame_that_is_too_large_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log hears why."""
    monkeypatch.setattr(raft.peer_server, "FRAME_BYTES_MAX", 1000)
    async with serving() as one:
        stream = await one.connect(TWO)
        stream.send(bytes(2000))
        assert await stream.end() == "a frame has 2000 bytes: expected at most 1000"
        await one.server.close()
        assert one.received.empty()
    assert "member 2 sent what is no message" in caplog.text


async def test_frames_come_in_any_pieces() -> None:
    """Whatever the network makes of them: byte by byte, or many at once."""
    async with serving() as one:
        stream = await one.connect(TWO)
        sent = [small(number, source=2, target=1) for number in range(6)]
        frames = b"".join(framed(encode([message])) for message in sent)
        for begin in range(len(frames) // 2):
            stream.writer.write(frames[begin : begin + 1])
            await asyncio.sleep(0)
        stream.writer.write(frames[len(frames) // 2 :])
        assert [await one.received.get() for _ in sent] == sent


async def test_a_sign_of_life_is_answered() -> None:
    """With one; between frames it changes nothing."""
    async with serving() as one:
        stream = await one.connect(TWO)
        stream.send(b"", encode([small(1, source=2, target=1)]), b"")
        assert [await stream.receive(), await stream.receive()] == [b"", b""]
        assert one.received.get_nowait() == small(1, source=2, target=1)


async def test_a_member_of_whom_nothing_is_heard_is_hung_up_on() -> None:
    """After twice the interval in which it should give a sign of life, at the earliest."""
    async with serving(ping_interval=0.05) as one:
        begun = asyncio.get_running_loop().time()
        stream = await one.connect(TWO)
        assert await stream.end() == ""
        assert asyncio.get_running_loop().time() - begun >= 0.1


async def test_one_who_cannot_upgrade_is_told() -> None:
    """A member's request for a stream that does not say so is answered with status 426."""
    async with serving() as one:
        status, headers, _ = await one.get(STREAM_PATH, TWO.headers(1))
        assert (status, headers[hdrs.UPGRADE]) == (426, UPGRADED[hdrs.UPGRADE])


async def test_a_member_that_hangs_up_is_not_complained_about(caplog: pytest.LogCaptureFixture) -> None:
    """Whether it does so in order or not, and in the middle of a frame."""
    caplog.set_level(logging.INFO, "raft.peer_server")
    async with serving() as one:
        (await one.connect(TWO)).close()
        stream = await one.connect(THREE)
        stream.writer.write(framed(bytes(100))[:50])
        stream.writer.transport.abort()
    assert [record for record in caplog.records if record.name == "raft.peer_server"] == []


async def test_who_has_hung_up_before_it_is_let_in_is_not_complained_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A machine that was asleep wakes to all that others have tried meanwhile, and given up."""
    async with serving() as one:
        for _ in range(20):
            # Without a turn for the server in between.
            with socket.create_connection(("127.0.0.1", int(one.url.rpartition(":")[2]))) as other:
                other.sendall(stream_request(TWO))
        await one.connect(THREE)
        assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_newer_connection_replaces_the_older() -> None:
    """The older one ends at once and takes nothing with it: the newer delivers, and ends when the member is
    dropped."""
    async with serving() as one:
        older = await one.connect(TWO)
        newer = await one.connect(TWO)
        assert await older.end() == ""
        newer.send(encode([small(1, source=2, target=1)]))
        assert await one.received.get() == small(1, source=2, target=1)
        await one.server.drop(2)
        assert await newer.end() == "removed from the cluster"


async def test_a_member_that_is_dropped_is_hung_up_on() -> None:
    """It hears why; the others stay, and to drop who is not there does nothing."""
    async with serving() as one:
        two, three = await one.connect(TWO), await one.connect(THREE)
        await one.server.drop(2)
        await one.server.drop(2)
        await one.server.drop(9)
        assert await two.end() == "removed from the cluster"
        three.send(encode([small(1, source=3, target=1)]))
        assert await one.received.get() == small(1, source=3, target=1)


async def test_members_are_answered_on_other_paths() -> None:
    """The handler knows who asks, whatever the method."""
    async with (
        serving() as one,
        one.session.post(one.url + "/raft/ask", headers=TWO.headers(1), data=b"hello") as response,
    ):
        assert await response.text() == "POST of 2: hello"


async def test_an_open_page_is_for_everybody() -> None:
    """Nobody's headers are asked for."""
    async with serving() as one:
        assert (await one.get("/page", {}))[::2] == (200, "welcome")


async def test_an_address_that_is_taken_is_told() -> None:
    """``open`` raises OSError, and what it had opened is closed again."""
    async with serving() as one:
        other = Serving()
        async with other.session:
            port, taken = (int(url.rpartition(":")[2]) for url in (other.url, one.url))
            with pytest.raises(OSError, match="in use"):
                await other.server.open([("127.0.0.1", port), ("127.0.0.1", taken)])
            with pytest.raises(aiohttp.ClientConnectorError):
                await other.get("/page", {})


async def test_close_waits_for_no_peer() -> None:
    """Every stream ends with a goodbye, and soon, though nobody answers it; afterwards the port refuses."""
    async with serving() as one:
        streams = [await one.connect(TWO), await one.connect(THREE)]
        async with asyncio.timeout(0.9):
            await one.server.close()
        for stream in streams:
            assert await stream.end() == "the member stops"
        with pytest.raises(OSError, match=r"refused|failed"):
            await one.connect(TWO)


async def test_close_is_quick_where_the_goodbye_is_answered() -> None:
    """Nothing else is waited for."""
    async with serving() as one:
        stream = await one.connect(TWO)
        closing = asyncio.create_task(one.server.close())
        assert await stream.end() == "the member stops"
        async with asyncio.timeout(0.3):
            await closing


async def test_close_waits_for_no_peer_that_is_hung_up_on() -> None:
    """One that does not answer a goodbye is not waited for longer than half a second."""
    async with serving() as one:
        stream = await one.connect(TWO)
        stream.send(b"nonsense")
        await stream.receive()  # the goodbye, which is not answered
        async with asyncio.timeout(0.9):
            await one.server.close()
